//! From a store's URL to clients of its servers: addresses, logins, encryption.

use std::time::Duration;

use flotilla_proto::store_url::{Address, Login, StorePlace, TlsFiles};
use flotilla_proto::{SecretReference, StoreUrl};
use redis::io::tcp::TcpSettings;
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo,
    TlsCertificates,
};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::secrets::{SecretError, Secrets};

/// How long the disk may take.
const DISK_TIMEOUT: Duration = Duration::from_secs(5);

/// How a store is reached, with what the URL only refers to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// Where it is, and who the workers are.
    pub(super) url: StoreUrl,
    /// Where passwords are that the URL does not hold.
    pub(super) secrets: Secrets,
}

/// A server of a store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Server {
    /// Host and port.
    Tcp(Address),
    /// A Unix socket.
    Socket(String),
}

impl Server {
    /// Host and port, if it has them.
    pub(super) fn address(&self) -> Option<&Address> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Socket(_) => None,
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Socket(path) => f.write_str(path),
        }
    }
}

/// Why there is no client of a server.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// A file is missing or not readable.
    #[error("cannot read the TLS file {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A password is to be read here, and is not there.
    #[error("the password {reference} cannot be read: {source}")]
    Password {
        /// Which.
        reference: SecretReference,
        /// Why not.
        source: SecretError,
    },
    /// The disk, which may be a network's, hangs.
    #[error("TLS files or passwords were not read within {} s", DISK_TIMEOUT.as_secs())]
    Slow,
    /// The files are there, but make no sense.
    #[error("the TLS files are not usable: {0}")]
    Unusable(String),
}

impl Target {
    /// A client of a server that holds data of the store. TLS files and passwords are read now: they may have been renewed.
    pub(super) async fn data_client(&self, server: &Server) -> Result<Client, ClientError> {
        let (target, server) = (self.clone(), server.clone());
        off_the_runtime(move || {
            let settings = target.settings(&target.url.login, target.url.passwords_from.redis.as_ref())?;
            target.client(&server, settings.set_db(target.url.database.into()))
        })
        .await
    }

    /// A client of a Sentinel.
    pub(super) async fn sentinel_client(&self, sentinel: &Address) -> Result<Client, ClientError> {
        let (target, server) = (self.clone(), Server::Tcp(sentinel.clone()));
        off_the_runtime(move || {
            let from = target.url.passwords_from.sentinel.as_ref();
            target.client(&server, target.settings(&target.url.sentinel_login, from)?)
        })
        .await
    }

    fn settings(&self, login: &Login, from: Option<&SecretReference>) -> Result<RedisConnectionInfo, ClientError> {
        let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
        if !login.username.is_empty() {
            settings = settings.set_username(&login.username);
        }
        let password = match from {
            None => login.password.clone(),
            Some(reference) => self
                .secrets
                .read(reference)
                .map_err(|source| ClientError::Password { reference: reference.clone(), source })?,
        };
        if !password.is_empty() {
            settings = settings.set_password(password.as_str());
        }
        Ok(settings)
    }

    fn client(&self, server: &Server, settings: RedisConnectionInfo) -> Result<Client, ClientError> {
        let tls = self.url.tls.as_ref();
        let address = match server {
            Server::Socket(path) => ConnectionAddr::Unix(path.into()),
            Server::Tcp(Address { host, port }) if tls.is_some() => {
                ConnectionAddr::TcpTls { host: host.clone(), port: *port, insecure: false, tls_params: None }
            }
            Server::Tcp(Address { host, port }) => ConnectionAddr::Tcp(host.clone(), *port),
        };
        let unusable = |error: redis::RedisError| ClientError::Unusable(error.to_string());
        let info = address
            .into_connection_info()
            .map_err(unusable)?
            .set_redis_settings(settings)
            .set_tcp_settings(TcpSettings::default().set_nodelay(true));
        match tls {
            None => Client::open(info).map_err(unusable),
            Some(files) => Client::build_with_tls(info, certificates(files)?).map_err(unusable),
        }
    }
}

/// On a thread that may wait: one of the runtime's own would hold up the session with control.
async fn off_the_runtime(
    make: impl FnOnce() -> Result<Client, ClientError> + Send + 'static,
) -> Result<Client, ClientError> {
    match timeout(DISK_TIMEOUT, spawn_blocking(make)).await {
        Ok(client) => client.unwrap_or_else(|failure| Err(ClientError::Unusable(failure.to_string()))),
        Err(_) => Err(ClientError::Slow),
    }
}

fn certificates(files: &TlsFiles) -> Result<TlsCertificates, ClientError> {
    let read = |path: &Option<String>| {
        let read =
            |path: &String| std::fs::read(path).map_err(|source| ClientError::File { path: path.clone(), source });
        path.as_ref().map(read).transpose()
    };
    let client_tls = match (read(&files.cert)?, read(&files.key)?) {
        (Some(client_cert), Some(client_key)) => Some(ClientTlsConfig { client_cert, client_key }),
        (Some(_) | None, None) | (None, Some(_)) => None,
    };
    Ok(TlsCertificates { client_tls, root_cert: read(&files.ca)? })
}

/// The only server of a store that has one.
pub(super) fn only_server(place: &StorePlace) -> Option<Server> {
    match place {
        StorePlace::Server(address) => Some(Server::Tcp(address.clone())),
        StorePlace::Socket(path) => Some(Server::Socket(path.clone())),
        StorePlace::Sentinel { .. } | StorePlace::Cluster(_) => None,
    }
}
