//! A LaunchDarkly on loopback whose every answer the test writes: requests are handed out, and wait for it.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::SdkKeySource;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use url::Url;
use uuid::Uuid;

use super::{Delivery, LaunchDarklySettings, SharedSources, SourceSettings, SourceTimeouts, Sources as _};
use crate::secrets::Secrets;
use crate::source::{Received, SourceEvent, SourceHandle, source_events};

/// Far above what anything takes; a test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const KEY: &str = "sdk-test-key";

type Body = StreamBody<ReceiverStream<Result<Frame<Bytes>, io::Error>>>;

pub(crate) struct TestServer {
    pub(crate) url: Url,
    exchanges: mpsc::Receiver<Exchange>,
    accepting: JoinHandle<()>,
}

/// A request that waits for its answer.
pub(crate) struct Exchange {
    pub(crate) request: Request<()>,
    answer: oneshot::Sender<Response<Body>>,
}

/// The body of an answer, as far as the test writes it. Dropping it ends the body cleanly.
pub(crate) struct TestBody(mpsc::Sender<Result<Frame<Bytes>, io::Error>>);

impl TestServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let (sender, exchanges) = mpsc::channel(64);
        let accepting = spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request| hand_out(request, sender.clone()));
                spawn(async move {
                    // A client that goes away is part of many tests.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
                });
            }
        });
        let url = format!("http://{address}/base/").parse().expect("a URL");
        Self { url, exchanges, accepting }
    }

    pub(crate) async fn request(&mut self) -> Exchange {
        tokio::time::timeout(PATIENCE, self.exchanges.recv()).await.expect("a request in time").expect("a server")
    }

    /// Whether no request waits.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.exchanges.try_recv().is_err()
    }

    pub(crate) fn settings(&self, delivery: Delivery) -> Box<LaunchDarklySettings> {
        Box::new(LaunchDarklySettings {
            delivery,
            stream_uri: self.url.clone(),
            base_uri: self.url.clone(),
            key: SdkKeySource::parse("sdk_key", KEY).expect("a valid key"),
            filter: None,
            application_id: None,
            application_version: None,
            initial_retry_delay: Duration::from_millis(10),
            poll_interval: Duration::from_millis(10),
            instance_id: Uuid::nil(),
        })
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Exchange {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).map(|value| value.to_str().expect("plain ASCII"))
    }

    /// Answers with a body that the test goes on writing.
    pub(crate) fn open(self, status: u16, headers: &[(&str, &str)]) -> TestBody {
        let (sender, receiver) = mpsc::channel(1);
        let mut response = Response::builder().status(StatusCode::from_u16(status).expect("a status"));
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        let response = response.body(StreamBody::new(ReceiverStream::new(receiver))).expect("valid headers");
        // The client may have given up meanwhile.
        let _ = self.answer.send(response);
        TestBody(sender)
    }

    pub(crate) fn open_stream(self) -> TestBody {
        self.open(200, &[("content-type", "text/event-stream"), ("x-ld-envid", "env-1")])
    }

    pub(crate) async fn answer(self, status: u16, headers: &[(&str, &str)], body: impl Into<Bytes>) {
        let body = body.into();
        let open = self.open(status, headers);
        if !body.is_empty() {
            // A client that wants no more than the head may be gone already.
            let _ = open.0.send(Ok(Frame::data(body))).await;
        }
    }
}

impl TestBody {
    pub(crate) async fn write(&mut self, bytes: impl Into<Bytes>) {
        self.0.send(Ok(Frame::data(bytes.into()))).await.expect("the client listens");
    }

    /// Cuts the connection in the middle of the body.
    pub(crate) async fn cut(self) {
        let _ = self.0.send(Err(io::Error::other("cut by the test"))).await;
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn closed(self) {
        tokio::time::timeout(PATIENCE, self.0.closed()).await.expect("the client closes in time");
    }
}

async fn hand_out(request: Request<Incoming>, to: mpsc::Sender<Exchange>) -> Result<Response<Body>, io::Error> {
    let (answer, answered) = oneshot::channel();
    let (parts, _) = request.into_parts();
    to.send(Exchange { request: Request::from_parts(parts, ()), answer })
        .await
        .map_err(|_| io::Error::other("the test is over"))?;
    answered.await.map_err(|_| io::Error::other("the test does not answer"))
}

/// A source under test.
pub(crate) struct TestSource {
    events: mpsc::Receiver<Received>,
    _handle: SourceHandle,
}

impl TestSource {
    pub(crate) fn start(settings: SourceSettings, shared: &Arc<SharedSources>) -> Self {
        let (sender, events) = source_events();
        Self { events, _handle: Arc::clone(shared).start(settings, sender) }
    }

    pub(crate) async fn event(&mut self) -> SourceEvent {
        self.received().await.event
    }

    pub(crate) async fn received(&mut self) -> Received {
        tokio::time::timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a source")
    }
}

pub(crate) fn shared(max_connecting: usize, timeouts: SourceTimeouts) -> Arc<SharedSources> {
    shared_with(max_connecting, timeouts, Secrets::default())
}

pub(crate) fn shared_with(max_connecting: usize, timeouts: SourceTimeouts, secrets: Secrets) -> Arc<SharedSources> {
    SharedSources::new(NonZeroUsize::new(max_connecting).expect("not zero"), timeouts, secrets)
}

#[expect(clippy::disallowed_methods, reason = "a server for the length of a test")]
fn spawn(task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(task)
}
