//! Who may connect to a server, and as whom: TLS, tokens, client certificates, and the files that they are in.
//!
//! Files are read again when they change. New connections and calls see the new content at once; a file that is wrong is
//! told about, and what was there before stays in force.
//!
//! Start reading at [`AccessSettings`], then [`Keys`], which tells from a token or a certificate who somebody is.

// What somebody may be.
mod rights;
// Tokens on disk: only their hashes.
mod key_file;
// From a token or a certificate to rights.
mod keys;
// Files that are read again when they change.
mod reload;
// A server's certificate, and the authority of its clients.
mod tls;
// What a connection has shown of itself.
mod standing;
// Connections, with TLS or without.
mod listener;
// The same over plain requests.
mod http;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

pub use http::{Site, site};
pub use keys::{Credential, Identity, Keys, TokenHash, Unknown};
pub use listener::{Connection, Listener, Peer, Protocol};
pub use rights::{Rights, Role, WorkerPattern};
pub use standing::{CallUnderWay, Standing};
pub use tls::{ClientCertificates, ServerTls, TlsFiles};

use reload::Reloaded;

/// How a server is protected.
#[derive(Debug, Clone, Default)]
pub struct AccessSettings {
    /// Its certificate. `None`: connections are not encrypted.
    pub tls: Option<TlsFiles>,
    /// Who may do what.
    pub keys: KeySource,
}

/// Where it stands who may do what.
#[derive(Debug, Clone, Default)]
pub enum KeySource {
    /// Nowhere: everybody may do everything.
    #[default]
    Open,
    /// Whoever has a client certificate may do everything.
    AnyCertificate,
    /// In these files.
    Files {
        /// Callers of the API.
        api: PathBuf,
        /// Workers; `None`: there are none.
        workers: Option<PathBuf>,
    },
}

/// What protects a server, read for the first time.
pub struct Access {
    /// The present certificate; `None`: connections are not encrypted.
    pub tls: Option<watch::Receiver<Arc<ServerTls>>>,
    /// The present keys.
    pub keys: watch::Receiver<Arc<Keys>>,
    /// Reads the files again, for as long as it runs.
    pub keeper: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl AccessSettings {
    /// Reads all files. The error names the one that cannot be used, and never shows what is in it.
    pub fn open(&self) -> Result<Access, String> {
        let (tls, tls_keeper) = match self.tls.clone() {
            None => (None, None),
            Some(files) => {
                let paths = files.paths();
                let reloaded = Reloaded::open("certificate", paths, move || files.load())?;
                (Some(reloaded.subscribe()), Some(reloaded))
            }
        };
        let (keys, keys_keeper) = match self.keys.clone() {
            KeySource::Open => (watch::channel(Arc::new(Keys::Open)).1, None),
            KeySource::AnyCertificate => (watch::channel(Arc::new(Keys::AnyCertificate)).1, None),
            KeySource::Files { api, workers } => {
                let paths = std::iter::once(api.clone()).chain(workers.clone()).collect();
                let load = move || key_file::load(&api, workers.as_deref());
                let reloaded = Reloaded::open("tokens", paths, load)?;
                (reloaded.subscribe(), Some(reloaded))
            }
        };
        let keeper = Box::pin(async move {
            let tls = async {
                if let Some(reloaded) = tls_keeper {
                    reloaded.keep().await;
                }
            };
            let keys = async {
                if let Some(reloaded) = keys_keeper {
                    reloaded.keep().await;
                }
            };
            tokio::join!(tls, keys);
        });
        Ok(Access { tls, keys, keeper })
    }

    /// What a listener beyond loopback would lack, if anything.
    pub fn lacks(&self, address: SocketAddr) -> Option<Lack> {
        if address.ip().is_loopback() {
            return None;
        }
        match (&self.tls, &self.keys) {
            (Some(_), KeySource::AnyCertificate | KeySource::Files { .. }) => None,
            (Some(_), KeySource::Open) => Some(Lack::Keys),
            (None, KeySource::AnyCertificate | KeySource::Files { .. }) => Some(Lack::Tls),
            (None, KeySource::Open) => Some(Lack::Both),
        }
    }
}

/// What is missing for a listener that others can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// Encryption.
    Tls,
    /// A way to tell who calls.
    Keys,
    /// Both.
    Both,
}

impl Lack {
    /// What is missing.
    pub fn what(self) -> &'static str {
        match self {
            Self::Tls => "TLS",
            Self::Keys => "tokens or client certificates",
            Self::Both => "TLS and tokens",
        }
    }

    /// What that gives up.
    pub fn consequence(self) -> &'static str {
        match self {
            Self::Tls => "tokens and all data travel readably, and nobody can tell this server from another",
            Self::Keys => "whoever reaches the ports can do everything",
            Self::Both => "whoever reaches the ports can do everything, and all data travels readably",
        }
    }
}
