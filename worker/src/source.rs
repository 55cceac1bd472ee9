//! What every source of flag data tells the environment it feeds, whatever it reads from.
//!
//! A source is one task per environment. It owns its connection, its back-off and its parsing, and sends
//! [`SourceEvent`]s over a bounded channel; it never sees the store. Dropping the [`SourceHandle`] ends it.

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, Instant};

use bytes::Bytes;
use flotilla_proto::status::ErrorKind;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The two collections of an environment, in the order in which they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Feature flags: the Redis hash `<prefix>:features`.
    Flag,
    /// Segments: the Redis hash `<prefix>:segments`.
    Segment,
}

/// One item of a payload, borrowed from the text in which it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemRef<'a> {
    /// Flag or segment.
    pub kind: Kind,
    /// The item's key, equal to its key in the collection.
    pub key: &'a str,
    /// The JSON text of the item, byte for byte as it was sent.
    pub body: &'a [u8],
    /// LaunchDarkly's version of the item.
    pub version: u64,
    /// The item says of itself that it is deleted.
    pub deleted: bool,
}

/// An item that must not reach the store, and why; the last good one stays in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedItem {
    /// Flag or segment.
    pub kind: Kind,
    /// The key under which it was sent.
    pub key: Box<str>,
    /// What is wrong with it, for a person.
    pub reason: Box<str>,
}

/// How much is shown of a text that may hold what a sender likes.
const MAX_SHOWN_CHARS: usize = 200;

impl RejectedItem {
    /// A rejection, its reason cut to what can be shown. The key stays whole, for it says which good item stays.
    pub(crate) fn new(kind: Kind, key: Box<str>, reason: &str) -> Self {
        Self { kind, key, reason: shortened(reason).into() }
    }

    /// The key as it is shown.
    pub(crate) fn shown_key(&self) -> Cow<'_, str> {
        shortened(&self.key)
    }
}

/// The text, or its beginning and an ellipsis if it has more than 200 characters.
pub(crate) fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// Where an item lies in the text of its payload. Offsets are bytes.
#[derive(Debug, Clone)]
pub struct ItemSpan {
    /// Flag or segment.
    pub kind: Kind,
    /// The item's key, unescaped.
    pub key: Box<str>,
    /// The item's JSON text within the payload's text.
    pub body: std::ops::Range<usize>,
    /// LaunchDarkly's version of the item.
    pub version: u64,
    /// The item says of itself that it is deleted.
    pub deleted: bool,
}

/// A full payload: everything that the environment holds, still as the text that arrived.
///
/// Items are spans of that text, so nothing is copied before it is known to differ from what is held.
pub struct FullPayload {
    text: Bytes,
    items: Vec<ItemSpan>,
    rejected: Vec<RejectedItem>,
    /// Kept until the payload has been applied, so that few payloads are in memory at once.
    permit: Option<OwnedSemaphorePermit>,
}

impl FullPayload {
    /// A payload over `text`; every span of `items` lies within it.
    pub fn new(text: Bytes, items: Vec<ItemSpan>, rejected: Vec<RejectedItem>) -> Self {
        Self { text, items, rejected, permit: None }
    }

    /// Ties the connect permit to the payload's life.
    #[must_use]
    pub fn with_permit(mut self, permit: Option<OwnedSemaphorePermit>) -> Self {
        self.permit = permit;
        self
    }

    /// The good items, in the order in which they were sent.
    pub fn items(&self) -> impl Iterator<Item = ItemRef<'_>> {
        self.items.iter().map(|span| ItemRef {
            kind: span.kind,
            key: &span.key,
            body: &self.text[span.body.clone()],
            version: span.version,
            deleted: span.deleted,
        })
    }

    /// The items that must not reach the store.
    pub fn rejected(&self) -> &[RejectedItem] {
        &self.rejected
    }
}

impl fmt::Debug for FullPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullPayload")
            .field("bytes", &self.text.len())
            .field("items", &self.items.len())
            .field("rejected", &self.rejected.len())
            .finish_non_exhaustive()
    }
}

/// What a source tells its environment.
#[derive(Debug)]
pub enum SourceEvent {
    /// LaunchDarkly (or the file) answered; data follows. The id is `X-LD-EnvID`, where it was sent.
    Connected { environment_id: Option<Box<str>> },
    /// Everything there is: replaces what is held.
    Payload(FullPayload),
    /// A poll answered "not modified": healthy, nothing new.
    Unchanged,
    /// One item was changed. Only to be applied over a lower version.
    Patch { kind: Kind, key: Box<str>, body: Bytes, version: u64, deleted: bool },
    /// One item was deleted. Only to be applied over a lower version, and to be remembered.
    Delete { kind: Kind, key: Box<str>, version: u64 },
    /// One item of a patch must not reach the store.
    Rejected(RejectedItem),
    /// A comment arrived, which LaunchDarkly sends so that a quiet stream can be told from a dead one.
    Heartbeat,
    /// An event arrived that means nothing here: the stream is alive.
    Alive,
    /// The connection is gone; the next attempt follows by itself after `retry_in`.
    Interrupted { failure: SourceFailure, retry_in: Duration },
}

/// Why a source has no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceFailure {
    /// The network or TLS: refused, reset, timed out, ended by the server.
    #[error("{message}")]
    Network { message: String },
    /// LaunchDarkly answered with a status that is not a success.
    #[error("LaunchDarkly answered with HTTP status {status}")]
    Http { status: u16 },
    /// LaunchDarkly refused the SDK key (401 or 403).
    #[error("LaunchDarkly refused the SDK key with HTTP status {status}")]
    Auth { status: u16 },
    /// There is no SDK key to show: it could not be read where the worker runs.
    #[error("{message}")]
    Key { message: String },
    /// What arrived is not what the protocol says: malformed JSON, a wrong shape, a payload over the limit.
    #[error("{message}")]
    Data { message: String },
}

impl SourceFailure {
    /// Which neighbour it came from.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Network { .. } => ErrorKind::Network,
            Self::Http { .. } => ErrorKind::Http,
            Self::Auth { .. } | Self::Key { .. } => ErrorKind::Auth,
            Self::Data { .. } => ErrorKind::Data,
        }
    }

    /// The HTTP status, if there was one.
    pub(crate) fn status(&self) -> Option<u16> {
        match self {
            Self::Http { status } | Self::Auth { status } => Some(*status),
            Self::Network { .. } | Self::Key { .. } | Self::Data { .. } => None,
        }
    }
}

/// A running source; dropping it ends the source's task.
#[derive(Debug)]
pub struct SourceHandle {
    task: tokio::task::JoinHandle<()>,
}

impl SourceHandle {
    /// Takes charge of a source's task.
    pub fn new(task: tokio::task::JoinHandle<()>) -> Self {
        Self { task }
    }
}

impl Drop for SourceHandle {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How many events may wait between a source and its environment.
const EVENT_QUEUE: usize = 16;

/// An event, and when its last byte was received.
#[derive(Debug)]
pub struct Received {
    /// The event.
    pub event: SourceEvent,
    /// When its last byte was received; of a poll or a file, when it became known. Only to be measured with.
    pub at: Instant,
}

/// The environment is gone, so the source ends too.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("nobody listens to the source any more")]
pub struct NobodyListens;

/// The sending end that a source is given.
#[derive(Debug, Clone)]
pub struct SourceEvents(mpsc::Sender<Received>);

/// The two ends between a source and its environment. When too many events wait, the source waits.
pub fn source_events() -> (SourceEvents, mpsc::Receiver<Received>) {
    let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
    (SourceEvents(sender), receiver)
}

impl SourceEvents {
    /// Tells an event that is known only now. Fails when nobody listens any more.
    pub async fn send(&self, event: SourceEvent) -> Result<(), NobodyListens> {
        #[expect(clippy::disallowed_methods, reason = "measures the time from an event to its write")]
        let at = Instant::now();
        self.send_received(event, at).await
    }

    /// Tells an event whose last byte was received at that time. Fails when nobody listens any more.
    pub async fn send_received(&self, event: SourceEvent, at: Instant) -> Result<(), NobodyListens> {
        self.0.send(Received { event, at }).await.map_err(|_| NobodyListens)
    }

    /// Whether nobody listens any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}
