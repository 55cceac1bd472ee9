//! The way to control: which authority is trusted, and with what callers show who they are.
//!
//! Without TLS only within this machine: anywhere else whoever is on the way could read keys and tokens, and answer in
//! control's place.

use std::fmt;
use std::path::{Path, PathBuf};

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::files::{Stamp, open_regular, read_bounded};
use crate::spec::is_loopback;

/// Longest file, in bytes.
const LONGEST_PEM: u64 = 1 << 20;
const LONGEST_TOKEN: u64 = 4096;

/// How control is reached, and who asks. Files are read whenever a connection is made.
#[derive(Debug, Clone, Default)]
pub struct ConnectOptions {
    /// PEM file of the authorities that control's certificate may be of. `None`: the public ones.
    pub ca: Option<PathBuf>,
    /// PEM files of a certificate and its key, to show to control.
    pub identity: Option<ClientIdentity>,
    /// File that holds a token.
    pub token_file: Option<PathBuf>,
    /// Where TLS may be missing.
    pub plain: Plain,
}

/// A certificate to show.
#[derive(Debug, Clone)]
pub struct ClientIdentity {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Where TLS may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Plain {
    /// Within this machine.
    #[default]
    Loopback,
    /// Anywhere.
    Anywhere,
}

/// Why control cannot be connected to that way.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The URL and the options do not go together.
    #[error("{0}")]
    Options(String),
    /// A file cannot be used.
    #[error("{option} {}: {reason}", path.display())]
    File {
        /// Which option names it.
        option: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

/// What is sent with every call.
#[derive(Clone, Default)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Bearer(********)" } else { "Bearer(none)" })
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl ConnectOptions {
    /// Whether they go with the URL, as far as that can be told without the files.
    pub fn check(&self, url: &Url) -> Result<(), ConnectError> {
        let wrong = |message: String| Err(ConnectError::Options(message));
        let shown = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        if url.scheme() == "https" {
            return Ok(());
        }
        let tls = [("--ca", self.ca.is_some()), ("--client-cert", self.identity.is_some())];
        if let Some((option, _)) = tls.into_iter().find(|(_, given)| *given) {
            return wrong(format!("{option} needs TLS, and {} is without it; write https://", shown(url)));
        }
        if travels_readably(url) && self.plain == Plain::Loopback {
            return wrong(format!(
                "--control {} is another machine, and without TLS keys and tokens would travel readably; write https://, or \
                 give --insecure if the network is trusted",
                shown(url)
            ));
        }
        Ok(())
    }

    /// Reads the files. `endpoint` is that of the URL.
    pub fn open(&self, url: &Url, endpoint: Endpoint) -> Result<(Endpoint, Bearer), ConnectError> {
        self.check(url)?;
        let bearer = match &self.token_file {
            Some(path) => read_token(path)?,
            None => Bearer::default(),
        };
        if url.scheme() != "https" {
            return Ok((endpoint, bearer));
        }
        let mut tls = ClientTlsConfig::new();
        tls = match &self.ca {
            Some(path) => tls.ca_certificate(Certificate::from_pem(read("--ca", path, LONGEST_PEM)?.as_str())),
            None => tls.with_enabled_roots(),
        };
        if let Some(ClientIdentity { certificate, key }) = &self.identity {
            let certificate = read("--client-cert", certificate, LONGEST_PEM)?;
            tls = tls.identity(Identity::from_pem(
                certificate.as_str(),
                read("--client-key", key, LONGEST_PEM)?.as_str(),
            ));
        }
        // Without the brackets of an IPv6 address.
        match url.host() {
            Some(Host::Ipv6(address)) => tls = tls.domain_name(address.to_string()),
            Some(Host::Ipv4(_) | Host::Domain(_)) | None => {}
        }
        let endpoint = endpoint.tls_config(tls).map_err(|error| {
            let cause = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            ConnectError::Options(format!("--ca, --client-cert or --client-key cannot be used: {cause}"))
        })?;
        Ok((endpoint, bearer))
    }

    /// Tells whether a file has changed since.
    pub fn stamps(&self) -> Vec<Option<Stamp>> {
        let identity = self.identity.iter().flat_map(|identity| [&identity.certificate, &identity.key]);
        let files = self.ca.iter().chain(identity).chain(&self.token_file);
        files.map(|path| Stamp::of_file(path)).collect()
    }
}

/// Whether what is said there travels readably, between machines.
pub fn travels_readably(url: &Url) -> bool {
    url.scheme() != "https" && !is_loopback(url)
}

fn read(option: &'static str, path: &Path, longest: u64) -> Result<Zeroizing<String>, ConnectError> {
    open_regular(path).and_then(|file| read_bounded(file, longest)).map_err(|error| ConnectError::File {
        option,
        path: path.to_owned(),
        reason: format!("cannot be read: {error}"),
    })
}

fn read_token(path: &Path) -> Result<Bearer, ConnectError> {
    let text = read("--token-file", path, LONGEST_TOKEN)?;
    let token = text.trim();
    let wrong = |reason: &str| {
        Err(ConnectError::File { option: "--token-file", path: path.to_owned(), reason: reason.to_owned() })
    };
    if token.is_empty() {
        return wrong("empty");
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return wrong("not a token: expected one line without spaces");
    }
    let header = Zeroizing::new(format!("Bearer {token}"));
    match MetadataValue::try_from(header.as_str()) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(Bearer(Some(value)))
        }
        Err(_) => wrong("not a token: expected one line without spaces"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, options: &ConnectOptions) -> Result<(), String> {
        options.check(&Url::parse(url).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_travels_readably_between_machines_unasked() {
        let options = ConnectOptions::default();
        for url in ["https://control.example", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"] {
            assert_eq!(check(url, &options), Ok(()), "{url}");
        }
        for url in ["http://control.example", "http://10.0.0.1:7400", "http://localhost.example"] {
            assert!(check(url, &options).unwrap_err().contains("--insecure"), "{url}");
            assert_eq!(check(url, &ConnectOptions { plain: Plain::Anywhere, ..options.clone() }), Ok(()));
        }
        let ca = ConnectOptions { ca: Some("ca.pem".into()), ..ConnectOptions::default() };
        assert!(check("http://127.0.0.1:1", &ca).unwrap_err().contains("--ca needs TLS"));
    }

    #[test]
    fn a_token_is_one_line_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        for (text, fits) in
            [("flotilla_hunter2\n", true), ("\n", false), ("hunter2 hunter2", false), ("a\nhunter2", false)]
        {
            std::fs::write(&path, text).unwrap();
            let shown = format!("{:?}", read_token(&path));
            assert_eq!(shown.starts_with("Ok"), fits, "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
        assert!(read_token(Path::new("/nowhere")).unwrap_err().to_string().starts_with("--token-file /nowhere: "));
    }
}
