//! Access over plain requests: probes are open to all, the rest needs a viewer.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::connect_info::{Connected, IntoMakeServiceWithConnectInfo};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use tokio::sync::watch;

use super::keys::Keys;
use super::listener::{Connection, Listener, Peer};
use super::rights::Role;

/// A peer, for handlers.
#[derive(Debug, Clone)]
pub struct WithPeer(Peer);

impl Connected<IncomingStream<'_, Listener>> for WithPeer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self(stream.io().peer().clone())
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Connection, Self::Addr) {
        let connection = Listener::accept(self).await;
        let address = connection.peer().address;
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Listener::local_addr(self)
    }
}

/// What a server answers over HTTP.
pub type Site = IntoMakeServiceWithConnectInfo<Router, WithPeer>;

/// What everybody may ask, and what viewers may.
pub fn site(for_all: Router, for_viewers: Router, keys: watch::Receiver<Arc<Keys>>) -> Site {
    let for_viewers = for_viewers.route_layer(from_fn_with_state(keys, require_viewer));
    for_viewers.merge(for_all).layer(from_fn(keep_connection)).into_make_service_with_connect_info()
}

fn peer_of(request: &Request) -> Option<&Peer> {
    request.extensions().get::<ConnectInfo<WithPeer>>().map(|ConnectInfo(WithPeer(peer))| peer)
}

/// A call keeps its connection, whoever makes it.
async fn keep_connection(request: Request, next: Next) -> Response {
    let _under_way = peer_of(&request).map(|peer| peer.standing.call());
    next.run(request).await
}

/// Lets viewers pass.
async fn require_viewer(State(keys): State<watch::Receiver<Arc<Keys>>>, request: Request, next: Next) -> Response {
    let peer = peer_of(&request);
    let token = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let credential = Peer::credential(peer.and_then(|peer| peer.certificate.as_ref()), token);
    let identity = keys.borrow().identify(&credential);
    match identity {
        Ok(identity) if identity.rights.include(Role::Viewer) => {
            if let Some(peer) = peer {
                peer.standing.become_known();
            }
            next.run(request).await
        }
        Ok(identity) => {
            let why = format!("needs role viewer; {:?} has {}\n", identity.name, identity.rights);
            (StatusCode::FORBIDDEN, why).into_response()
        }
        Err(unknown) => {
            let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
            (StatusCode::UNAUTHORIZED, challenge, format!("needs role viewer; {unknown}\n")).into_response()
        }
    }
}
