//! The task that polls an environment: ask, report, wait, again.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flotilla_proto::SdkKey;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH};
use hyper::{Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use super::backoff::{Backoff, FailureClass};
use super::event::parse_poll;
use super::http::{self, Connection, endpoint, environment_id, network, refusal};
use super::key::ReadKey;
use super::{LaunchDarklySettings, Proof, SharedSources, jitter};
use crate::causes::with_causes;
use crate::source::{FullPayload, NobodyListens, SourceEvent, SourceEvents, SourceFailure};

/// What one poll brought.
struct Answer {
    environment_id: Option<Box<str>>,
    /// None: "not modified".
    changed: Option<Changed>,
}

struct Changed {
    payload: FullPayload,
    etag: Option<HeaderValue>,
}

/// What the environment was last told about the connection.
enum Told {
    Disconnected,
    Connected { environment_id: Option<Box<str>> },
}

/// Polls until nobody listens.
pub(super) async fn run(settings: Box<LaunchDarklySettings>, shared: Arc<SharedSources>, events: SourceEvents) {
    let mut backoff = Backoff::new(settings.initial_retry_delay);
    let mut key = shared.key(&settings);
    let mut etag = None;
    let mut told = Told::Disconnected;
    loop {
        let permit = shared.connect_permit().await;
        let polled = async {
            let ReadKey { key, is_another } = key.read().await?;
            if is_another {
                // It may be of another environment.
                etag = None;
            }
            poll(&settings, &key, &shared, etag.as_ref()).await
        };
        match polled.await {
            Ok(answer) => {
                backoff.poll_succeeded();
                let event = if let Some(changed) = answer.changed {
                    etag = changed.etag;
                    SourceEvent::Payload(changed.payload.with_permit(Some(permit)))
                } else {
                    drop(permit);
                    SourceEvent::Unchanged
                };
                if tell(&events, &mut told, answer.environment_id, event).await.is_err() {
                    return;
                }
                sleep(settings.poll_interval).await;
            }
            Err(failure) => {
                drop(permit);
                told = Told::Disconnected;
                let delay = backoff.failed(FailureClass::of(&failure), now().into_std(), jitter());
                let retry_in = delay.max(settings.poll_interval);
                let told = SourceEvent::Interrupted { failure: failure.clone(), retry_in };
                if events.send(told).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = sleep(retry_in) => {}
                    // What the former key met says nothing of this one.
                    () = key.changed_after(&failure) => backoff = Backoff::new(settings.initial_retry_delay),
                }
            }
        }
    }
}

/// Polls once.
pub(super) async fn prove(settings: &LaunchDarklySettings, shared: &SharedSources) -> Result<Proof, SourceFailure> {
    let ReadKey { key, .. } = shared.key(settings).read().await?;
    let Answer { environment_id, changed } = poll(settings, &key, shared, None).await?;
    let Changed { payload, .. } =
        changed.ok_or_else(|| network("not modified, though nothing was compared".to_owned()))?;
    Ok(Proof { environment_id, payload })
}

async fn tell(
    events: &SourceEvents,
    told: &mut Told,
    answered: Option<Box<str>>,
    event: SourceEvent,
) -> Result<(), NobodyListens> {
    let is_news = match told {
        Told::Disconnected => true,
        Told::Connected { environment_id } => *environment_id != answered,
    };
    if is_news {
        *told = Told::Connected { environment_id: answered.clone() };
        let connected = SourceEvent::Connected { environment_id: answered };
        events.send(connected).await?;
    }
    events.send(event).await
}

async fn poll(
    settings: &LaunchDarklySettings,
    key: &SdkKey,
    shared: &SharedSources,
    etag: Option<&HeaderValue>,
) -> Result<Answer, SourceFailure> {
    let mut headers = http::headers(settings, key, "application/json");
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
    if let Some(etag) = etag {
        headers.insert(IF_NONE_MATCH, etag.clone());
    }
    let url = endpoint(&settings.base_uri, "/sdk/latest-all", settings.filter.as_deref());
    let timeouts = shared.timeouts;
    let response = shared.client.get(url, &headers, Connection::Pooled, timeouts.response).await?;
    let environment_id = environment_id(response.headers());
    match response.status() {
        StatusCode::OK => {}
        StatusCode::NOT_MODIFIED if etag.is_some() => {
            return Ok(Answer { environment_id, changed: None });
        }
        status => return Err(refusal(status)),
    }
    let etag = response.headers().get(ETAG).cloned();
    let encoding = encoding(response.headers())?;
    let body = read(response, shared.max_payload_bytes, timeouts.first_payload).await?;
    let limit = shared.max_payload_bytes;
    let parsed = tokio::task::spawn_blocking(move || parse(body, encoding, limit)).await;
    let payload = parsed.map_err(|error| network(format!("the parser was stopped: {error}")))??;
    Ok(Answer { environment_id, changed: Some(Changed { payload, etag }) })
}

#[derive(Clone, Copy)]
enum Encoding {
    Identity,
    Gzip,
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, SourceFailure> {
    let Some(sent) = headers.get(CONTENT_ENCODING) else {
        return Ok(Encoding::Identity);
    };
    if sent.as_bytes().eq_ignore_ascii_case(b"gzip") {
        Ok(Encoding::Gzip)
    } else if sent.as_bytes().eq_ignore_ascii_case(b"identity") {
        Ok(Encoding::Identity)
    } else {
        Err(data("the poll's answer has a content encoding that was not asked for".to_owned()))
    }
}

async fn read(response: Response<Incoming>, limit: usize, within: Duration) -> Result<Bytes, SourceFailure> {
    let body = Limited::new(response.into_body(), limit).collect();
    match timeout(within, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Ok(Err(error)) => Err(network(format!("the poll's answer broke off: {}", with_causes(&*error)))),
        Err(_) => Err(network(format!("the poll's answer was not complete within {within:?}"))),
    }
}

fn parse(body: Bytes, encoding: Encoding, limit: usize) -> Result<FullPayload, SourceFailure> {
    let text = match encoding {
        Encoding::Identity => body,
        Encoding::Gzip => unpack(&body, limit)?,
    };
    Ok(parse_poll(&text)?)
}

/// A small answer may unpack to a huge one, so what comes out is bounded too.
pub(crate) fn unpack(packed: &[u8], limit: usize) -> Result<Bytes, SourceFailure> {
    let mut text = Vec::new();
    let one_too_many = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    MultiGzDecoder::new(packed)
        .take(one_too_many)
        .read_to_end(&mut text)
        .map_err(|error| data(format!("the poll's answer cannot be unpacked: {error}")))?;
    if text.len() > limit {
        return Err(too_large(limit));
    }
    Ok(Bytes::from(text))
}

fn too_large(limit: usize) -> SourceFailure {
    data(format!("the poll's answer is larger than the limit of {limit} bytes"))
}

fn data(message: String) -> SourceFailure {
    SourceFailure::Data { message }
}

#[expect(clippy::disallowed_methods, reason = "the back-off is handed the time from here")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
