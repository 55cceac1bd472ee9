//! A server's certificate, and the authority that signs those of its clients.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};

use crate::files::{open_regular, read_bounded};
use crate::process::install_tls_provider;

/// Longest file of certificates or keys, in bytes.
const LONGEST_PEM: u64 = 1 << 20;

/// The files of a server's TLS, all PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of client certificates, and whether there must be one.
    pub clients: ClientCertificates,
}

/// What is asked of clients over gRPC. Over HTTP a certificate is never required, so that probes can ask.
#[derive(Debug, Clone)]
pub enum ClientCertificates {
    /// Nothing.
    Ignored,
    /// A certificate of this authority, or none.
    Optional(PathBuf),
    /// A certificate of this authority.
    Required(PathBuf),
}

/// What a server needs for handshakes.
#[derive(Debug)]
pub struct ServerTls {
    pub(super) grpc: Arc<ServerConfig>,
    pub(super) http: Arc<ServerConfig>,
}

impl TlsFiles {
    /// The files, to look for changes.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.certificate.clone(), self.key.clone()];
        match &self.clients {
            ClientCertificates::Ignored => {}
            ClientCertificates::Optional(ca) | ClientCertificates::Required(ca) => paths.push(ca.clone()),
        }
        paths
    }

    /// Reads them. The error names the file.
    pub(super) fn load(&self) -> Result<ServerTls, String> {
        install_tls_provider();
        let chain = read_certificates(&self.certificate)?;
        let key_text = read(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
            .map_err(|_| format!("{}: there is no private key in it (PEM)", self.key.display()))?;
        let config = |required: bool, protocol: &[u8]| {
            let builder = ServerConfig::builder();
            let builder = match &self.clients {
                ClientCertificates::Ignored => builder.with_no_client_auth(),
                ClientCertificates::Optional(ca) | ClientCertificates::Required(ca) => {
                    let verifier = WebPkiClientVerifier::builder(Arc::new(read_authorities(ca)?));
                    let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
                    let verifier = verifier.build().map_err(|error| format!("{}: {error}", ca.display()))?;
                    builder.with_client_cert_verifier(verifier)
                }
            };
            let mut config = builder.with_single_cert(chain.clone(), key.clone_key()).map_err(|error| {
                format!(
                    "{} and {} cannot be used together: {error}",
                    self.certificate.display(),
                    self.key.display()
                )
            })?;
            config.alpn_protocols = vec![protocol.to_vec()];
            // A session that is taken up again brings its certificate with it, and nobody looks whether it has expired.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            Ok::<_, String>(Arc::new(config))
        };
        let is_required = matches!(self.clients, ClientCertificates::Required(_));
        Ok(ServerTls { grpc: config(is_required, b"h2")?, http: config(false, b"http/1.1")? })
    }
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, String> {
    let text = open_regular(path).and_then(|file| read_bounded(file, LONGEST_PEM));
    text.map_err(|error| format!("{}: cannot be read: {error}", path.display()))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(path)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) | Err(_) => Err(format!("{}: there is no certificate in it (PEM)", path.display())),
    }
}

fn read_authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}
