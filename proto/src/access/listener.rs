//! Connections to a server, with TLS or without.
//!
//! A handshake is another task's, has a time limit, and never holds up the next connection. What comes of a connection on
//! which nobody known calls, says its [`Standing`].

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::unfold;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::keys::{Credential, TokenHash};
use super::standing::{Standing, Strangers};
use super::tls::ServerTls;

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Before the next attempt when the system gives no connection, as for want of file handles.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is spoken on a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The DNS names of its certificate, if it has shown one.
    pub certificate: Option<Arc<[String]>>,
    /// What it has shown of itself since.
    pub standing: Arc<Standing>,
}

impl Peer {
    /// What somebody came with: a token, else a certificate, else nothing.
    pub fn credential(certificate: Option<&Arc<[String]>>, authorization: Option<&[u8]>) -> Credential {
        match (authorization, certificate) {
            (Some(header), _) => match token_of(header) {
                Some(token) => Credential::Token(TokenHash::of(token)),
                None => Credential::Malformed,
            },
            (None, Some(names)) => Credential::Certificate(Arc::clone(names)),
            (None, None) => Credential::None,
        }
    }
}

fn token_of(header: &[u8]) -> Option<&str> {
    let (scheme, token) = str::from_utf8(header).ok()?.trim().split_once(' ')?;
    let token = token.trim_start();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A connection that is ready for use.
pub struct Connection {
    stream: Wire,
    peer: Peer,
    end: End,
}

/// When a connection ends by itself.
enum End {
    /// When this resolves.
    Overdue(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// It has.
    Now,
    /// Never: its peer is known.
    Never,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Accepts connections.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    protocol: Protocol,
    tls: Option<watch::Receiver<Arc<ServerTls>>>,
    handshakes: JoinSet<Option<Connection>>,
    strangers: Strangers,
}

impl Listener {
    /// Without `tls`, connections are plain.
    pub fn new(tcp: TcpListener, protocol: Protocol, tls: Option<watch::Receiver<Arc<ServerTls>>>) -> Self {
        Self { tcp, protocol, tls, handshakes: JoinSet::new(), strangers: Strangers::default() }
    }

    /// The next connection whose handshake has ended well. Nothing is lost when the future is dropped.
    pub async fn accept(&mut self) -> Connection {
        loop {
            tokio::select! {
                Some(ended) = self.handshakes.join_next(), if !self.handshakes.is_empty() => {
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, address)) => {
                        // Without it answers are only slower.
                        let _ = stream.set_nodelay(true);
                        let peer = Peer { address, certificate: None, standing: self.strangers.welcome() };
                        let Some(config) = self.config() else {
                            return Connection::new(Wire::Plain(stream), peer);
                        };
                        self.handshakes.spawn(handshake(config, stream, peer));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "no connection accepted");
                        if !is_of_one_connection(&error) {
                            self.strangers.send_oldest_away();
                            sleep(ACCEPT_PAUSE).await;
                        }
                    }
                },
            }
        }
    }

    /// All connections, without end.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<Connection>> {
        unfold(self, async |mut listener| {
            let connection = listener.accept().await;
            Some((Ok(connection), listener))
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        let tls = self.tls.as_ref()?.borrow();
        Some(Arc::clone(match self.protocol {
            Protocol::Grpc => &tls.grpc,
            Protocol::Http => &tls.http,
        }))
    }
}

/// Failures that are none of the listener's.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

async fn handshake(config: Arc<ServerConfig>, stream: TcpStream, mut peer: Peer) -> Option<Connection> {
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(config).accept(stream)) => accepted,
        () = peer.standing.sent_away() => return None,
    };
    let why = match accepted {
        Ok(Ok(stream)) => {
            peer.certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).map(names_of);
            return Some(Connection::new(Wire::Tls(Box::new(stream)), peer));
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("it took longer than {} s", HANDSHAKE_TIMEOUT.as_secs()),
    };
    // Anybody can make as many of these as they like, so it is not told at a level that is on.
    tracing::debug!(address = %peer.address, why, "a TLS handshake failed");
    None
}

fn names_of(certificate: &rustls::pki_types::CertificateDer<'_>) -> Arc<[String]> {
    // It was verified, so it can be read; without names it is nobody's.
    webpki::EndEntityCert::try_from(certificate)
        .map(|certificate| certificate.valid_dns_names().map(str::to_owned).collect())
        .unwrap_or_default()
}

impl Connection {
    fn new(stream: Wire, peer: Peer) -> Self {
        let overdue = Arc::clone(&peer.standing).overdue();
        Self { stream, peer, end: End::Overdue(Box::pin(overdue)) }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The stream, unless the connection shall end. That is asked with everything that is done with it: whoever does not read
    /// would keep its server writing, and never reading.
    fn live(&mut self, context: &mut Context<'_>) -> io::Result<&mut Wire> {
        if let End::Overdue(overdue) = &mut self.end {
            if self.peer.standing.is_known() {
                self.end = End::Never;
            } else if overdue.as_mut().poll(context).is_ready() {
                self.end = End::Now;
            }
        }
        match self.end {
            End::Overdue(_) | End::Never => Ok(&mut self.stream),
            End::Now => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut().live(context)? {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut().live(context)? {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut().live(context)? {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Wire::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Wire::Plain(stream) => stream.is_write_vectored(),
            Wire::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().live(context)? {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut().live(context)? {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
