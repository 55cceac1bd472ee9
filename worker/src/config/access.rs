//! Options of the way to control, and of who may ask this worker over HTTP.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use flotilla_proto::access::{AccessSettings, ClientCertificates, KeySource, TlsFiles};
use flotilla_proto::connect::{ClientIdentity, ConnectOptions, Plain};
use url::Url;

/// The way to control, and who may ask.
#[derive(Debug, Clone, Args)]
pub struct AccessOptions {
    /// PEM file of the authorities that control's certificate may be of [default: the public ones]
    ///
    /// This and the next three are read again with every connection.
    #[arg(long, env = "FLOTILLA_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// PEM file of the certificate that this worker shows to control
    #[arg(long, env = "FLOTILLA_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, env = "FLOTILLA_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,
    /// File with the token that this worker shows to control
    #[arg(long, env = "FLOTILLA_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// PEM file of a certificate for HTTP, which then speaks TLS
    #[arg(long, env = "FLOTILLA_HTTP_TLS_CERT", value_name = "FILE")]
    http_tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, env = "FLOTILLA_HTTP_TLS_KEY", value_name = "FILE")]
    http_tls_key: Option<PathBuf>,
    /// TOML file of those who may read /metrics, as control's --token-file: viewers and larger roles; probes need none
    #[arg(long, env = "FLOTILLA_HTTP_TOKEN_FILE", value_name = "FILE")]
    http_token_file: Option<PathBuf>,
    /// Listen beyond loopback without TLS and tokens, and reach control without TLS
    #[arg(long, env = "FLOTILLA_INSECURE")]
    pub(super) insecure: bool,
}

impl AccessOptions {
    /// What nobody else may have, and the option that names it.
    pub(super) fn private_files(&self) -> [(&'static str, &Option<PathBuf>); 3] {
        [
            ("--token-file", &self.token_file),
            ("--client-key", &self.client_key),
            ("--http-tls-key", &self.http_tls_key),
        ]
    }

    /// The way to control, which must do for all its addresses.
    pub(super) fn connect(&self, control: &[Url]) -> Result<ConnectOptions, String> {
        let identity = pair(["--client-cert", "--client-key"], [&self.client_cert, &self.client_key])?;
        let options = ConnectOptions {
            ca: self.ca.clone(),
            identity: identity.map(|[certificate, key]| ClientIdentity { certificate, key }),
            token_file: self.token_file.clone(),
            plain: if self.insecure { Plain::Anywhere } else { Plain::Loopback },
        };
        for url in control {
            options.check(url).map_err(|error| error.to_string())?;
        }
        Ok(options)
    }

    /// Who may ask over HTTP.
    pub(super) fn http(&self, address: SocketAddr) -> Result<AccessSettings, String> {
        let files = pair(["--http-tls-cert", "--http-tls-key"], [&self.http_tls_cert, &self.http_tls_key])?;
        let settings = AccessSettings {
            tls: files.map(|[certificate, key]| TlsFiles {
                certificate,
                key,
                clients: ClientCertificates::Ignored,
            }),
            keys: match &self.http_token_file {
                Some(api) => KeySource::Files { api: api.clone(), workers: None },
                None => KeySource::Open,
            },
        };
        match settings.lacks(address).filter(|_| !self.insecure) {
            None => Ok(settings),
            Some(lack) => Err(format!(
                "--http-listen {address} is reachable from other machines, without {}; listen on 127.0.0.1, or give \
                 --http-tls-cert, --http-tls-key and --http-token-file (see docs/access.md), or --insecure if the \
                 network is trusted",
                lack.what()
            )),
        }
    }
}

/// A certificate and its key. The parser cannot tell that one is missing, for the other may be in the file.
fn pair(options: [&str; 2], files: [&Option<PathBuf>; 2]) -> Result<Option<[PathBuf; 2]>, String> {
    match files {
        [Some(certificate), Some(key)] => Ok(Some([certificate.clone(), key.clone()])),
        [None, None] => Ok(None),
        [Some(_), None] => Err(format!("{} needs {} as well", options[0], options[1])),
        [None, Some(_)] => Err(format!("{} needs {} as well", options[1], options[0])),
    }
}
