//! Who calls, and whether they may: before every handler, for every service.
//!
//! A call that has begun ends when its caller's token or certificate is withdrawn, with the same words as a new one.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use flotilla_proto::access::{CallUnderWay, Credential, Identity, Keys, Peer, Rights, Role, Unknown};
use flotilla_proto::{Reason, Refusal, WorkerName};
use http_body::{Frame, SizeHint};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::codegen::{Bytes, Service, http};
use tonic::{Code, Request, Status};
use tower_layer::Layer;

use super::asked::Asked;
use super::open_calls::{Client, OpenCall, OpenCalls};
use crate::access::{Needs, row};
use crate::audit::{Attempt, AuditEntry, Door, Knock, cut, role_of};

/// A call that is over at once, and everybody's.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Who makes a call. Handlers find it in the request's extensions.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The name of the token or certificate.
    pub(super) name: String,
    /// What they may.
    pub(super) rights: Rights,
    /// Where they are, if that is known.
    pub(super) address: Option<SocketAddr>,
    call: &'static str,
    needs: Needs,
    credential: Credential,
    keys: watch::Receiver<Arc<Keys>>,
    door: Door,
}

impl Caller {
    /// Who made this request.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Refusal> {
        request.extensions().get::<Self>().cloned().ok_or_else(|| {
            tracing::error!("a call came past the guard");
            Refusal::new(Reason::Internal, "a call came past the guard")
        })
    }

    /// Whether they have the role that what is asked for needs. That they have not is recorded.
    pub(super) fn require(&self, role: Role, asked: &Asked<'_>) -> Result<(), Refusal> {
        if self.rights.include(role) {
            return Ok(());
        }
        let refusal = too_small(self.call, role.as_str(), &self.name, &self.rights);
        self.door.refused(self.entry(asked), &refusal);
        Err(refusal)
    }

    /// The record in the making of their call.
    pub(super) fn bare_entry(&self) -> AuditEntry {
        entry(self.call, self.address, Some((&self.name, &self.rights)))
    }

    /// The same, should they be refused for what they are.
    pub(super) fn knock(&self, subject: String) -> Knock {
        Knock { door: self.door.clone(), entry: AuditEntry { subject, ..self.bare_entry() } }
    }

    /// Whether they may be the worker of that name.
    pub(super) fn may_be(&self, worker: &WorkerName) -> Result<(), Refusal> {
        if self.rights.include_worker_named(worker) {
            return Ok(());
        }
        let message = format!("{:?} has {} and may not be worker {worker}", self.name, self.rights);
        Err(Refusal::new(Reason::WorkerNameForbidden, message))
    }

    /// Resolves when they may no longer make the call.
    pub(super) fn revoked(&self) -> impl Future<Output = Refusal> + Send + use<> {
        let Self { name, rights, call, needs, credential, mut keys, .. } = self.clone();
        async move {
            loop {
                let judged = judge(&keys.borrow_and_update(), call, needs, &credential);
                match judged {
                    Err(Denied { refusal, .. }) => return refusal,
                    // A worker was let in under a name, which other rights may not include.
                    Ok(identity) if needs == Needs::Worker && identity.rights != rights => {
                        let message = format!("the rights of {name:?} have changed; connect again");
                        return Refusal::new(Reason::CredentialUnknown, message);
                    }
                    Ok(_) => {}
                }
                if keys.changed().await.is_err() {
                    // Nothing will change any more.
                    std::future::pending::<Infallible>().await;
                }
            }
        }
    }
}

/// Somebody may not make a call.
struct Denied {
    /// Who it is, if that is known.
    who: Option<Identity>,
    refusal: Refusal,
}

fn entry(call: &'static str, address: Option<SocketAddr>, who: Option<(&str, &Rights)>) -> AuditEntry {
    AuditEntry {
        actor: who.map(|(name, _)| name.to_owned()).unwrap_or_default(),
        role: who.map(|(_, rights)| role_of(rights)).unwrap_or_default(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        call: short(call),
        subject: String::new(),
        details: String::new(),
        request_id: String::new(),
        attempt: Attempt::First,
    }
}

fn judge(keys: &Keys, call: &str, needs: Needs, credential: &Credential) -> Result<Identity, Denied> {
    match keys.identify(credential) {
        Ok(identity) if needs.allow(&identity.rights) => Ok(identity),
        Ok(identity) => {
            let refusal = too_small(call, needs.role_name(), &identity.name, &identity.rights);
            Err(Denied { who: Some(identity), refusal })
        }
        Err(_) if needs == Needs::Nothing => {
            Ok(Identity { name: "anyone".to_owned(), rights: Rights::Worker(Vec::new()) })
        }
        Err(unknown) => {
            let reason = match unknown {
                Unknown::NoCredential => Reason::CredentialMissing,
                Unknown::Malformed | Unknown::Token | Unknown::Certificate { .. } => Reason::CredentialUnknown,
            };
            let message = format!("{} needs role {}: {unknown}", short(call), needs.role_name());
            Err(Denied { who: None, refusal: Refusal::new(reason, message) })
        }
    }
}

fn too_small(call: &str, needed: &str, name: &str, rights: &Rights) -> Refusal {
    Refusal::new(Reason::RoleTooSmall, format!("{} needs role {needed}; {name:?} has {rights}", short(call)))
}

/// Service and method, without the package.
fn short(call: &str) -> &str {
    call.rsplit_once('.').map_or(call, |(_, short)| short)
}

/// Puts the guard before all services.
#[derive(Debug, Clone)]
pub(super) struct GuardLayer {
    keys: watch::Receiver<Arc<Keys>>,
    door: Door,
    open: OpenCalls,
}

impl GuardLayer {
    pub(super) fn new(keys: watch::Receiver<Arc<Keys>>, door: Door) -> Self {
        Self { keys, door, open: OpenCalls::default() }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { inner, keys: self.keys.clone(), door: self.door.clone(), open: self.open.clone() }
    }
}

/// The guard before a service.
#[derive(Debug, Clone)]
pub(super) struct Guard<S> {
    inner: S,
    keys: watch::Receiver<Arc<Keys>>,
    /// Where refusals are told of.
    door: Door,
    open: OpenCalls,
}

impl<S> Guard<S> {
    /// Who makes a call, and that it is open now.
    fn admit<B>(&self, request: &http::Request<B>) -> Result<(Caller, Option<OpenCall>), Status> {
        let path = request.uri().path();
        let Some((call, needs)) = row(path) else {
            return Err(Status::new(Code::Unimplemented, "there is no such call"));
        };
        let peer = request.extensions().get::<Peer>();
        let token = request.headers().get(http::header::AUTHORIZATION).map(http::HeaderValue::as_bytes);
        let credential = Peer::credential(peer.and_then(|peer| peer.certificate.as_ref()), token);
        let address = peer.map(|peer| peer.address);
        let shown = peer.and_then(|peer| peer.certificate.as_deref()).unwrap_or_default();
        let refused = |who: Option<&Identity>, refusal: &Refusal| {
            let who = who.map(|identity| (identity.name.as_str(), &identity.rights));
            let mut entry = entry(call, address, who);
            if !shown.is_empty() {
                entry.details = cut(&format!("with the certificate of {}", shown.join(", ")));
            }
            self.door.refused(entry, refusal);
        };
        let keys = self.keys.borrow();
        let identity = judge(&keys, call, needs, &credential).map_err(|Denied { who, refusal }| {
            refused(who.as_ref(), &refusal);
            refusal
        })?;
        let is_known = needs != Needs::Nothing;
        if let Some(peer) = peer.filter(|_| is_known) {
            peer.standing.become_known();
        }
        let client = match address {
            // Those who check whether control is well may all come from one address.
            _ if call == HEALTH_CHECK => None,
            _ if needs == Needs::Worker => Some(Client::Workers(identity.name.clone())),
            _ if is_known && keys.tell_apart() => Some(Client::Named(identity.name.clone())),
            address => address.map(|address| Client::At(address.ip())),
        };
        drop(keys);
        let open = client.map(|client| self.open.open(client)).transpose();
        let open = open.inspect_err(|refusal| refused(is_known.then_some(&identity), refusal))?;
        let caller = Caller {
            name: identity.name,
            rights: identity.rights,
            address,
            call,
            needs,
            credential,
            keys: self.keys.clone(),
            door: self.door.clone(),
        };
        Ok((caller, open))
    }
}

impl<S, B> Service<http::Request<B>> for Guard<S>
where
    S: Service<http::Request<B>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        // Also one that is refused.
        let under_way = request.extensions().get::<Peer>().map(|peer| peer.standing.call());
        let (caller, open) = match self.admit(&request) {
            Ok(admitted) => admitted,
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let revoked = self.keys.borrow().tell_apart().then(|| caller.revoked());
        // Nothing behind the guard has a use for the token.
        request.headers_mut().remove(http::header::AUTHORIZATION);
        request.extensions_mut().insert(caller);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            Ok(response.map(|inner| {
                let revoked = revoked.map(|revoked| Box::pin(revoked) as Pin<Box<_>>);
                Body::new(Answer { inner, revoked, has_ended: false, _under_way: under_way, _open: open })
            }))
        })
    }
}

/// An answer. It ends early when its caller's rights do, and the call is open until it has ended.
struct Answer {
    inner: Body,
    /// Resolves when they do; `None`: they cannot.
    revoked: Option<Pin<Box<dyn Future<Output = Refusal> + Send>>>,
    has_ended: bool,
    _under_way: Option<CallUnderWay>,
    _open: Option<OpenCall>,
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.has_ended {
            return Poll::Ready(None);
        }
        if let Some(Poll::Ready(refusal)) = self.revoked.as_mut().map(|revoked| revoked.as_mut().poll(context)) {
            self.has_ended = true;
            let mut trailers = http::HeaderMap::new();
            // A refusal's words and reason are always valid in a header.
            return Poll::Ready(Some(match Status::from(refusal).add_header(&mut trailers) {
                Ok(()) => Ok(Frame::trailers(trailers)),
                Err(status) => Err(status),
            }));
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
