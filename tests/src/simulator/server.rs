//! The HTTP side: which environment a request means, and the answer that LaunchDarkly would give.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::control_api;
use super::environment::Environment;
use super::fault::Fault;
use super::stream::{self, Pace};
use super::{Simulator, WeakSimulator};

pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// No answer at all.
#[derive(Debug)]
enum NoAnswer {
    /// Hyper closes the connection.
    Closed,
    /// Nobody ever says anything.
    Silence,
}

impl std::fmt::Display for NoAnswer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("no answer, as told")
    }
}

impl std::error::Error for NoAnswer {}

/// Accepts until it is aborted; all connections end with it.
pub(super) async fn accept(listener: TcpListener, simulator: WeakSimulator) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((connection, _)) => {
                    connections.spawn(serve(connection, simulator.clone()));
                }
                // Out of file descriptors, or the peer went away: the next one may do better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(connection: TcpStream, simulator: WeakSimulator) {
    // A patch is one small segment and must not wait for the acknowledgement of the one before.
    let _ = connection.set_nodelay(true);
    let service = service_fn(move |request| {
        let simulator = simulator.clone();
        async move {
            let Some(simulator) = simulator.upgrade() else {
                return Err(NoAnswer::Closed);
            };
            let outcome = answer(&simulator, request).await;
            // A silent connection must not keep the server alive.
            drop(simulator);
            match outcome {
                Err(NoAnswer::Silence) => std::future::pending().await,
                outcome => outcome,
            }
        }
    });
    // Errors here are the readers' doings, or faults that were asked for.
    let _ = hyper::server::conn::http1::Builder::new()
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

async fn answer(simulator: &Simulator, request: Request<Incoming>) -> Result<Response<Body>, NoAnswer> {
    let path = request.uri().path();
    if path.starts_with("/_sim/") {
        return Ok(control_api::answer(simulator, request).await);
    }
    match (request.method(), path) {
        (&Method::GET, "/all" | "/sdk/latest-all") => {}
        (&Method::POST, "/bulk" | "/diagnostic") => {
            // Read to the end, so that the connection can be used again.
            let _ = request.into_body().collect().await;
            return Ok(status(StatusCode::ACCEPTED));
        }
        _ => return Ok(status(StatusCode::NOT_FOUND)),
    }
    let Some(environment) = environment_of(simulator, &request) else {
        simulator.count_unknown_key();
        return Ok(status(StatusCode::UNAUTHORIZED));
    };
    let pace = match environment.request(plain_headers(request.headers())) {
        None => Pace::Full,
        Some(Fault::Status(code)) => return Ok(status(status_code(code))),
        Some(Fault::Redirect { status: code, location }) => return Ok(redirect(code, &location)),
        Some(Fault::Refuse) => return Err(NoAnswer::Closed),
        Some(Fault::HalfOpen) => return Err(NoAnswer::Silence),
        Some(Fault::SlowPayload(rate)) => Pace::BytesPerSecond(rate),
        Some(Fault::HangMidEvent) => Pace::Half,
        Some(Fault::Delay(delay)) => {
            tokio::time::sleep(delay).await;
            Pace::Full
        }
    };
    let mut response = if path == "/all" {
        stream_answer(&environment, pace)
    } else {
        poll_answer(&environment, request.headers())
    };
    if let Some(id) = environment.id().and_then(|id| HeaderValue::try_from(id).ok()) {
        response.headers_mut().insert("x-ld-envid", id);
    }
    Ok(response)
}

fn stream_answer(environment: &Arc<Environment>, pace: Pace) -> Response<Body> {
    let frames = stream::open(environment, pace).map_ok(Frame::data);
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn poll_answer(environment: &Environment, headers: &HeaderMap) -> Response<Body> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (data, etag) = environment.poll(text(header::IF_NONE_MATCH));
    let mut response = match data {
        None => status(StatusCode::NOT_MODIFIED),
        Some(data) => {
            let gzip = text(header::ACCEPT_ENCODING).is_some_and(|accepted| accepted.contains("gzip"));
            let body = if gzip { data.payload_gzip() } else { data.payload() };
            environment.sent(body.len());
            let mut response = Response::new(full(body));
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            if gzip {
                response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
    };
    if let Ok(etag) = HeaderValue::try_from(etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

/// The environment of the request's key and filter; see [`Simulator::add_environment`] about filters.
fn environment_of(simulator: &Simulator, request: &Request<Incoming>) -> Option<Arc<Environment>> {
    let key = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    match parameters(request.uri().query()).remove("filter") {
        None => simulator.find(key),
        Some(filter) => simulator.find(&format!("{key}?filter={filter}")),
    }
}

pub(super) fn parameters(query: Option<&str>) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect()
}

fn plain_headers(headers: &HeaderMap) -> BTreeMap<String, String> {
    let plain = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), plain(value))).collect()
}

fn redirect(code: u16, location: &str) -> Response<Body> {
    let mut response = status(status_code(code));
    if let Ok(location) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn status_code(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn status(code: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = code;
    response
}

pub(super) fn full(body: Bytes) -> Body {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}
