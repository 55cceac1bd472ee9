//! The files that a Redis with TLS needs.

use super::redis_server::free_port;

/// A certificate of servers and Sentinels, and the authority that it and those of clients are of. They show it each other
/// too.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Path of the authority's certificate, in PEM as all of them.
    pub ca: String,
    /// Path of the certificate.
    pub cert: String,
    /// Path of its key.
    pub key: String,
}

/// What one server or Sentinel is told of TLS, and where it will listen for it.
#[derive(Debug, Default)]
pub(super) struct TlsArguments {
    /// None without TLS.
    pub(super) port: Option<u16>,
    pub(super) words: Vec<String>,
}

impl TlsArguments {
    /// Listens with TLS beside the port without; among each other, servers use it alone.
    pub(super) fn new(files: Option<&TlsFiles>) -> anyhow::Result<Self> {
        let Some(TlsFiles { ca, cert, key }) = files else { return Ok(Self::default()) };
        let port = free_port()?;
        let text = port.to_string();
        let words = ["--tls-port", &text, "--tls-ca-cert-file", ca, "--tls-cert-file", cert, "--tls-key-file", key]
            .into_iter()
            .chain(["--tls-replication", "yes", "--tls-cluster", "yes"])
            .map(str::to_owned)
            .collect();
        Ok(Self { port: Some(port), words })
    }
}
