//! LaunchDarkly as a source: its streaming and its polling protocol (FDv1, server side).
//!
//! The pure parts come first: [`sse`] finds events in bytes, [`event`] finds items in events, [`backoff`] says when to
//! try again. The shells around them: [`http`] asks, [`stream`] and [`poll`] are the tasks. All environments of a
//! process share one [`SharedSources`].

// Bytes to events.
pub(crate) mod sse;
// Events to items.
pub(crate) mod event;
// Failures to delays.
mod backoff;
// The key, given or read here.
mod key;
// Requests, redirects and what a failed one is called.
mod http;
// The task that follows a stream.
mod stream;
// The task that asks again and again.
pub(crate) mod poll;
// A scripted LaunchDarkly on loopback.
#[cfg(test)]
mod test_server;

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::SdkKeySource;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;
use uuid::Uuid;

pub use self::backoff::DEFAULT_INITIAL_RETRY_DELAY;
use self::backoff::Jitter;
use self::http::HttpClient;
use self::key::SourceKey;
use crate::file_source::{self, FlagFile};
use crate::secrets::Secrets;
use crate::source::{FullPayload, SourceEvents, SourceFailure, SourceHandle};

/// LaunchDarkly's default and shortest time between polls.
pub const DEFAULT_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// What one environment's source reads, and how.
#[derive(Debug, Clone)]
pub enum SourceSettings {
    /// LaunchDarkly, or what speaks like it.
    LaunchDarkly(Box<LaunchDarklySettings>),
    /// A file of flag data, read again whenever it changes.
    File(FlagFile),
}

/// What one environment asks of LaunchDarkly.
#[derive(Debug, Clone)]
pub struct LaunchDarklySettings {
    /// Streaming or polling.
    pub delivery: Delivery,
    /// Base of the streaming address; `/all` is added. With or without a slash at its end.
    pub stream_uri: Url,
    /// Base of the polling address; `/sdk/latest-all` is added. With or without a slash at its end.
    pub base_uri: Url,
    /// The environment's SDK key, or where it is read.
    pub key: SdkKeySource,
    /// Key of a payload filter.
    pub filter: Option<Box<str>>,
    /// Named in `X-LaunchDarkly-Tags`, if it is of `[A-Za-z0-9._-]{1,64}`.
    pub application_id: Option<Box<str>>,
    /// Named in `X-LaunchDarkly-Tags`, if it is of `[A-Za-z0-9._-]{1,64}`.
    pub application_version: Option<Box<str>>,
    /// The first delay after an ordinary failure.
    pub initial_retry_delay: Duration,
    /// The time between two polls; only used when polling.
    pub poll_interval: Duration,
    /// Sent as `X-LaunchDarkly-Instance-Id`: one per environment and process.
    pub instance_id: Uuid,
}

/// How LaunchDarkly's data comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// `GET {stream_uri}/all`.
    Stream,
    /// `GET {base_uri}/sdk/latest-all`, again and again.
    Poll,
}

/// How long a source waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceTimeouts {
    /// For a TCP connection.
    pub connect: Duration,
    /// For the head of a response, the connect and TLS included.
    pub response: Duration,
    /// For any byte of a stream; LaunchDarkly sends one at least every three minutes.
    pub read: Duration,
    /// For the whole of a poll's answer, or of a stream's first payload, after the head.
    pub first_payload: Duration,
}

impl Default for SourceTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            response: Duration::from_secs(10),
            read: Duration::from_mins(5),
            first_payload: Duration::from_mins(1),
        }
    }
}

/// What a key that works brings.
#[derive(Debug)]
pub struct Proof {
    /// LaunchDarkly's id of the environment, where it was sent.
    pub environment_id: Option<Box<str>>,
    /// Everything that the key may see.
    pub payload: FullPayload,
}

/// Where the sources of environments come from.
pub trait Sources: fmt::Debug + Send + Sync {
    /// Starts an environment's source. It tells `events` what it sees until the handle is dropped or nobody listens.
    fn start(self: Arc<Self>, settings: SourceSettings, events: SourceEvents) -> SourceHandle;

    /// Proves a key: one connection that must deliver a full payload within `deadline`, and is then closed. Waiting for a
    /// connect permit counts. An error is whatever kept the payload from arriving; nothing is tried again.
    fn prove_key(
        self: Arc<Self>,
        settings: LaunchDarklySettings,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Proof, SourceFailure>>;

    /// One poll of `base_uri`, within `deadline`, whatever the delivery. Nothing is tried again.
    fn fetch(
        self: Arc<Self>,
        settings: LaunchDarklySettings,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<FullPayload, SourceFailure>>;
}

/// What all sources of a process share: the HTTP client with its TLS configuration, and the limits.
pub struct SharedSources {
    client: HttpClient,
    /// One permit per connect under way, up to the end of its first payload.
    connecting: Arc<Semaphore>,
    timeouts: SourceTimeouts,
    secrets: Secrets,
    max_payload_bytes: usize,
}

impl SharedSources {
    /// `max_connecting` is how many environments may be between connect and first payload at once; keys that control does not
    /// have are read from `secrets`.
    pub fn new(max_connecting: NonZeroUsize, timeouts: SourceTimeouts, secrets: Secrets) -> Arc<Self> {
        Arc::new(Self {
            client: HttpClient::new(timeouts.connect),
            connecting: Arc::new(Semaphore::new(max_connecting.get().min(Semaphore::MAX_PERMITS))),
            timeouts,
            secrets,
            max_payload_bytes: sse::DEFAULT_MAX_EVENT_BYTES,
        })
    }

    fn key(&self, settings: &LaunchDarklySettings) -> SourceKey {
        SourceKey::new(&settings.key, &self.secrets)
    }

    async fn connect_permit(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.connecting).acquire_owned().await.expect("the semaphore is never closed")
    }
}

impl fmt::Debug for SharedSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedSources")
            .field("connecting_permits", &self.connecting.available_permits())
            .field("timeouts", &self.timeouts)
            .field("max_payload_bytes", &self.max_payload_bytes)
            .finish_non_exhaustive()
    }
}

impl Sources for SharedSources {
    #[expect(clippy::disallowed_methods, reason = "the handle owns the task and ends it")]
    fn start(self: Arc<Self>, settings: SourceSettings, events: SourceEvents) -> SourceHandle {
        SourceHandle::new(match settings {
            SourceSettings::LaunchDarkly(settings) => match settings.delivery {
                Delivery::Stream => tokio::spawn(stream::run(settings, self, events)),
                Delivery::Poll => tokio::spawn(poll::run(settings, self, events)),
            },
            SourceSettings::File(file) => tokio::spawn(file_source::run(file, self.max_payload_bytes, events)),
        })
    }

    fn prove_key(
        self: Arc<Self>,
        settings: LaunchDarklySettings,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<Proof, SourceFailure>> {
        let proof = async move {
            let _permit = self.connect_permit().await;
            match settings.delivery {
                Delivery::Stream => stream::prove(&settings, &self).await,
                Delivery::Poll => poll::prove(&settings, &self).await,
            }
        };
        Box::pin(within(deadline, proof))
    }

    fn fetch(
        self: Arc<Self>,
        settings: LaunchDarklySettings,
        deadline: Duration,
    ) -> BoxFuture<'static, Result<FullPayload, SourceFailure>> {
        let fetched = async move {
            let _permit = self.connect_permit().await;
            Ok(poll::prove(&settings, &self).await?.payload)
        };
        Box::pin(within(deadline, fetched))
    }
}

async fn within<T>(
    deadline: Duration,
    payload: impl Future<Output = Result<T, SourceFailure>> + Send,
) -> Result<T, SourceFailure> {
    tokio::time::timeout(deadline, payload).await.unwrap_or_else(|_| {
        Err(SourceFailure::Network { message: format!("no full payload arrived within {deadline:?}") })
    })
}

/// Chance for the back-off. Without it delays are merely less spread.
fn jitter() -> Jitter {
    Jitter::from_random(getrandom::u32().unwrap_or(u32::MAX / 2))
}
