//! The task that follows an environment's stream: connect, read, report, wait, again.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use flotilla_proto::SdkKey;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, timeout_at};

use super::backoff::{Backoff, FailureClass};
use super::event::{DataError, DataEvent, parse_event};
use super::http::{self, Connection, endpoint, environment_id, network, refusal};
use super::key::{ReadKey, SourceKey};
use super::sse::{SseItem, SseParser};
use super::{LaunchDarklySettings, Proof, SharedSources, SourceTimeouts, jitter};
use crate::causes::with_causes;
use crate::source::{FullPayload, NobodyListens, SourceEvent, SourceEvents, SourceFailure};

const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Sources say at most this often that they are alive, and that a heartbeat came.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// Larger events are parsed off the runtime's own threads, so that other environments are served meanwhile.
const MAX_PARSED_INLINE_BYTES: usize = 256 * 1024;

/// Follows the stream until nobody listens.
pub(super) async fn run(settings: Box<LaunchDarklySettings>, shared: Arc<SharedSources>, events: SourceEvents) {
    let mut source = StreamSource {
        backoff: Backoff::new(settings.initial_retry_delay),
        key: shared.key(&settings),
        settings,
        shared,
        events,
        last_event_id: None,
        last_alive: None,
        last_heartbeat: None,
    };
    loop {
        let failure = match source.follow().await {
            Err(Ended::Failed(failure)) => failure,
            Err(Ended::NobodyListens) => return,
            Ok(never) => match never {},
        };
        let retry_in = source.backoff.failed(FailureClass::of(&failure), now().into_std(), jitter());
        let told = SourceEvent::Interrupted { failure: failure.clone(), retry_in };
        if source.events.send(told).await.is_err() {
            return;
        }
        tokio::select! {
            () = sleep(retry_in) => {}
            // What the former key met says nothing of this one.
            () = source.key.changed_after(&failure) => source.backoff = Backoff::new(source.settings.initial_retry_delay),
        }
    }
}

/// Connects once and waits for a full payload.
pub(super) async fn prove(settings: &LaunchDarklySettings, shared: &SharedSources) -> Result<Proof, SourceFailure> {
    let ReadKey { key, .. } = shared.key(settings).read().await?;
    let response = connect(settings, &key, shared, None).await?;
    let environment_id = environment_id(response.headers());
    let mut connection = OpenStream::new(response.into_body(), shared);
    loop {
        if let SseItem::Event { name, data } = connection.next().await?
            && let DataEvent::Put(payload) = parse(name, data).await?
        {
            return Ok(Proof { environment_id, payload });
        }
    }
}

enum Ended {
    Failed(SourceFailure),
    NobodyListens,
}

impl From<NobodyListens> for Ended {
    fn from(_: NobodyListens) -> Self {
        Self::NobodyListens
    }
}

impl From<SourceFailure> for Ended {
    fn from(failure: SourceFailure) -> Self {
        Self::Failed(failure)
    }
}

struct StreamSource {
    settings: Box<LaunchDarklySettings>,
    key: SourceKey,
    shared: Arc<SharedSources>,
    events: SourceEvents,
    backoff: Backoff,
    last_event_id: Option<Box<str>>,
    last_alive: Option<Instant>,
    last_heartbeat: Option<Instant>,
}

impl StreamSource {
    /// One connection, from its permit to its end.
    async fn follow(&mut self) -> Result<Infallible, Ended> {
        let mut permit = Some(self.shared.connect_permit().await);
        let ReadKey { key, is_another } = self.key.read().await?;
        if is_another {
            // It may be of another environment.
            self.last_event_id = None;
        }
        let response = connect(&self.settings, &key, &self.shared, self.last_event_id.as_deref()).await?;
        let environment_id = environment_id(response.headers());
        self.events.send(SourceEvent::Connected { environment_id }).await?;
        let mut connection = OpenStream::new(response.into_body(), &self.shared);
        loop {
            match connection.next().await? {
                SseItem::Comment => {
                    if is_due(&mut self.last_heartbeat) {
                        self.events.send(SourceEvent::Heartbeat).await?;
                    }
                }
                SseItem::Retry(base) => self.backoff.server_retry(base),
                SseItem::Event { name, data } => {
                    self.backoff.event_received(now().into_std());
                    if let Some(id) = connection.parser.last_event_id() {
                        self.last_event_id = Some(id.into());
                    }
                    let event = parse(name, data).await?;
                    self.handle(event, &mut connection, &mut permit).await?;
                }
            }
        }
    }

    async fn handle(
        &mut self,
        event: DataEvent,
        connection: &mut OpenStream,
        permit: &mut Option<OwnedSemaphorePermit>,
    ) -> Result<(), Ended> {
        let event = match event {
            DataEvent::Put(payload) => {
                connection.first_payload_arrived();
                SourceEvent::Payload(FullPayload::with_permit(payload, permit.take()))
            }
            DataEvent::Patch { kind, key, body, version, deleted } => {
                SourceEvent::Patch { kind, key, body, version, deleted }
            }
            DataEvent::Delete { kind, key, version } => SourceEvent::Delete { kind, key, version },
            DataEvent::Rejected(item) => SourceEvent::Rejected(item),
            DataEvent::Ignored if is_due(&mut self.last_alive) => SourceEvent::Alive,
            DataEvent::Ignored => return Ok(()),
        };
        Ok(self.events.send_received(event, connection.chunk_received.into_std()).await?)
    }
}

/// Whether a sign of life is worth telling, as it then is.
fn is_due(last: &mut Option<Instant>) -> bool {
    let now = now();
    let due = last.is_none_or(|last| now.duration_since(last) >= ALIVE_INTERVAL);
    if due {
        *last = Some(now);
    }
    due
}

async fn connect(
    settings: &LaunchDarklySettings,
    key: &SdkKey,
    shared: &SharedSources,
    last_event_id: Option<&str>,
) -> Result<Response<Incoming>, SourceFailure> {
    let mut headers = http::headers(settings, key, EVENT_STREAM);
    if let Some(id) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
        headers.insert(LAST_EVENT_ID, id);
    }
    let url = endpoint(&settings.stream_uri, "/all", settings.filter.as_deref());
    let response = shared.client.get(url, &headers, Connection::Fresh, shared.timeouts.response).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response.status()));
    }
    check_content_type(response.headers())?;
    Ok(response)
}

/// A proxy's page of HTML would otherwise look like a stream that ends without an event.
fn check_content_type(headers: &HeaderMap) -> Result<(), SourceFailure> {
    let Some(sent) = headers.get(CONTENT_TYPE) else {
        return Ok(());
    };
    let sent = String::from_utf8_lossy(sent.as_bytes());
    let media_type = sent.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(EVENT_STREAM) {
        return Ok(());
    }
    Err(SourceFailure::Data {
        message: format!("the answer is of type {media_type:?}, an event stream was expected"),
    })
}

async fn parse(name: Box<str>, data: Bytes) -> Result<DataEvent, SourceFailure> {
    if data.len() <= MAX_PARSED_INLINE_BYTES {
        return Ok(parse_event(&name, &data)?);
    }
    let parsed = tokio::task::spawn_blocking(move || parse_event(&name, &data)).await;
    Ok(parsed.map_err(|error| network(format!("the parser was stopped: {error}")))??)
}

impl From<DataError> for SourceFailure {
    fn from(error: DataError) -> Self {
        Self::Data { message: error.to_string() }
    }
}

/// A stream whose head has arrived.
struct OpenStream {
    body: Incoming,
    parser: SseParser,
    /// What has arrived and is not parsed yet.
    chunk: Bytes,
    chunk_received: Instant,
    timeouts: SourceTimeouts,
    /// Until the first payload: when it must be here.
    first_payload_by: Option<Instant>,
}

impl OpenStream {
    fn new(body: Incoming, shared: &SharedSources) -> Self {
        Self {
            body,
            parser: SseParser::new(shared.max_payload_bytes),
            chunk: Bytes::new(),
            chunk_received: now(),
            timeouts: shared.timeouts,
            first_payload_by: Some(now() + shared.timeouts.first_payload),
        }
    }

    fn first_payload_arrived(&mut self) {
        self.first_payload_by = None;
    }

    /// The next thing that the stream says. Its end is a failure like any other.
    async fn next(&mut self) -> Result<SseItem, SourceFailure> {
        loop {
            let mut rest = &*self.chunk;
            let item = self.parser.next(&mut rest);
            let used = self.chunk.len() - rest.len();
            self.chunk.advance(used);
            match item {
                Ok(Some(item)) => return Ok(item),
                Ok(None) => {
                    self.chunk = self.read().await?;
                    self.chunk_received = now();
                }
                Err(error) => {
                    return Err(SourceFailure::Data { message: error.to_string() });
                }
            }
        }
    }

    async fn read(&mut self) -> Result<Bytes, SourceFailure> {
        let SourceTimeouts { read, first_payload, .. } = self.timeouts;
        let byte_by = now() + read;
        let (by, complaint) = match self.first_payload_by {
            Some(by) if by < byte_by => (by, format!("no full payload arrived within {first_payload:?}")),
            Some(_) | None => (byte_by, format!("no byte arrived for {read:?}")),
        };
        loop {
            match timeout_at(by, self.body.frame()).await {
                Err(_) => return Err(network(complaint)),
                Ok(None) => return Err(network("the server ended the stream".to_owned())),
                Ok(Some(Err(error))) => {
                    return Err(network(format!("the stream broke: {}", with_causes(&error))));
                }
                // Anything but data is a trailer, which ends the body.
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(data);
                    }
                }
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "timeouts and the back-off are handed the time from here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
