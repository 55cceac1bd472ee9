//! Options that say who may connect to control, and as whom.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use flotilla_proto::access::{AccessSettings, ClientCertificates, KeySource, TlsFiles};

/// Who may connect, and as whom.
#[derive(Debug, Clone, Args)]
pub struct AccessOptions {
    /// PEM file of control's certificate, and those between it and its authority; makes both listeners speak TLS
    ///
    /// This file, the key and --client-ca are read again when they change; sessions go on.
    #[arg(long, env = "FLOTILLA_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,

    /// PEM file of the certificate's private key
    #[arg(long, env = "FLOTILLA_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,

    /// PEM file of the authorities whose client certificates are accepted
    ///
    /// Without --token-file whoever has such a certificate may do everything; with it, names of certificates have roles too.
    #[arg(long, env = "FLOTILLA_CLIENT_CA", value_name = "FILE")]
    pub client_ca: Option<PathBuf>,

    /// Whether every gRPC connection needs a client certificate [default: optional with --token-file, else required]
    #[arg(long, env = "FLOTILLA_CLIENT_CERTS", value_name = "WHEN")]
    pub client_certs: Option<ClientCerts>,

    /// TOML file of the callers of the API: names, roles, and the hashes of their tokens; see docs/access.md
    ///
    /// It is read again when it changes. Calls of a token that is no longer in it are refused, and its watches end.
    /// `flotilla init tokens` makes both files.
    #[arg(long, env = "FLOTILLA_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,

    /// TOML file of the workers: names, and the hashes of their tokens
    #[arg(long, env = "FLOTILLA_WORKER_TOKEN_FILE", value_name = "FILE")]
    pub worker_token_file: Option<PathBuf>,

    /// Listen beyond loopback without TLS, or without telling callers apart
    ///
    /// Whoever reaches the port can then read and change everything, and SDK keys travel readably.
    #[arg(long, env = "FLOTILLA_INSECURE")]
    pub insecure: bool,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientCerts {
    /// Without one there is no connection
    Required,
    /// A token will do
    Optional,
}

impl AccessOptions {
    /// What is of use only with something else. The parser cannot tell, for half of it may be in the file.
    fn check_pairs(&self) -> Result<(), String> {
        let tls_cert = ("--tls-cert", self.tls_cert.is_some());
        let tls_key = ("--tls-key", self.tls_key.is_some());
        let client_ca = ("--client-ca", self.client_ca.is_some());
        let client_certs = ("--client-certs", self.client_certs.is_some());
        let token_file = ("--token-file", self.token_file.is_some());
        let worker_token_file = ("--worker-token-file", self.worker_token_file.is_some());
        for ((option, given), (other, other_given)) in [
            (tls_cert, tls_key),
            (tls_key, tls_cert),
            (client_ca, tls_cert),
            (client_certs, client_ca),
            (token_file, worker_token_file),
            (worker_token_file, token_file),
        ] {
            if given && !other_given {
                return Err(format!("{option} needs {other} as well"));
            }
        }
        Ok(())
    }

    /// What they mean. The error says what a listener lacks, and the ways out.
    pub(super) fn check(self, listeners: [(&str, SocketAddr); 2]) -> Result<AccessSettings, String> {
        self.check_pairs()?;
        let has_tokens = self.token_file.is_some();
        let clients = match (self.client_ca.clone(), self.client_certs) {
            (None, _) => ClientCertificates::Ignored,
            (Some(ca), Some(ClientCerts::Optional)) => {
                if !has_tokens {
                    return Err(
                        "--client-certs optional lets everybody in, for there is no --token-file; give one, or \
                         leave it out"
                            .to_owned(),
                    );
                }
                ClientCertificates::Optional(ca)
            }
            (Some(ca), None) if has_tokens => ClientCertificates::Optional(ca),
            (Some(ca), Some(ClientCerts::Required) | None) => ClientCertificates::Required(ca),
        };
        let keys = match (self.token_file, self.client_ca) {
            (Some(api), _) => KeySource::Files { api, workers: self.worker_token_file },
            (None, Some(_)) => KeySource::AnyCertificate,
            (None, None) => KeySource::Open,
        };
        let tls = self.tls_cert.zip(self.tls_key);
        let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key, clients });
        let settings = AccessSettings { tls, keys };
        for (option, address) in listeners {
            if let Some(lack) = settings.lacks(address).filter(|_| !self.insecure) {
                return Err(format!(
                    "{option} {address} is reachable from other machines, without {}; listen on 127.0.0.1, or give \
                     --tls-cert, --tls-key, --token-file and --worker-token-file (`flotilla init tls DIR` and \
                     `flotilla init tokens` make the files; see docs/access.md), or --insecure if the network is \
                     trusted",
                    lack.what()
                ));
            }
        }
        Ok(settings)
    }
}
