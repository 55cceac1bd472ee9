//! The stream to control: connects, connects again, and carries messages. What they mean is the session's business.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::connect::{Bearer, ConnectError, ConnectOptions};
use flotilla_proto::process::Chance;
use flotilla_proto::session::{ControlMessage, WorkerMessage};
use flotilla_proto::v1::worker_service_client::WorkerServiceClient;
use flotilla_proto::{Reason, Refusal, v1};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use url::Url;

use crate::causes::with_causes;

/// The largest message either way. An update of 10,000 environments stays far below.
const MESSAGE_LIMIT_BYTES: usize = 64 << 20;
/// How many messages to control may wait. They are few; more of them mean that control does not read.
const UP_QUEUE: usize = 256;
/// How many events may wait for the supervisor.
pub(crate) const EVENT_QUEUE: usize = 64;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For the head of the answer, which control may hold back until it has judged the hello.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is noticed after the interval and the timeout.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(2);

/// What the link tells the supervisor. `Opened` and `Closed` alternate; `Received` comes between them.
#[derive(Debug)]
pub(crate) enum LinkEvent {
    /// A stream is open, or will be as soon as control has seen the first message.
    Opened(Connection),
    /// Control said something.
    Received(ControlMessage),
    /// The stream is gone; the next follows by itself.
    Closed(Closed),
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Closed {
    /// Any way but the following.
    Lost,
    /// Control refused the hello: a worker of this name is alive elsewhere. Its words.
    NameTaken(String),
}

/// The sending half of a stream. Dropping it ends the stream after what was sent.
#[derive(Debug)]
pub(crate) struct Connection {
    up: mpsc::Sender<WorkerMessage>,
    abort: CancellationToken,
}

impl Connection {
    /// Says something to control; fails when too much waits already, or the stream is gone.
    pub(crate) fn send(&self, message: WorkerMessage) -> Result<(), CannotSend> {
        self.up.try_send(message).map_err(|_| CannotSend)
    }

    /// Ends the stream at once, with what waits in it.
    pub(crate) fn abort(self) {
        self.abort.cancel();
    }
}

/// Control does not take messages.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("control does not take messages")]
pub(crate) struct CannotSend;

/// Why a stream could not be opened, or ended.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("cannot connect")]
    Connect(#[source] tonic::transport::Error),
    #[error("control did not answer within {ANSWER_TIMEOUT:?}")]
    NoAnswer,
    #[error("control answered with {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    #[error(transparent)]
    Malformed(#[from] flotilla_proto::grant::Malformed),
    #[error("control ended the stream")]
    EndedThere,
    #[error("ended by this worker")]
    EndedHere,
    #[error(transparent)]
    Options(#[from] ConnectError),
    #[error("the address {address} cannot be used")]
    Address {
        address: Url,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Makes a connection to an endpoint.
pub(crate) type Connector =
    Arc<dyn Fn(Endpoint) -> BoxFuture<'static, Result<Channel, tonic::transport::Error>> + Send + Sync>;

/// Connects over TCP.
pub(crate) fn tcp() -> Connector {
    Arc::new(|endpoint| Box::pin(async move { endpoint.connect().await }))
}

/// Keeps a stream to one of the addresses, tried in turn, until nobody takes the events.
pub(crate) async fn run(
    addresses: Vec<Url>,
    options: ConnectOptions,
    connector: Connector,
    chance: Chance,
    events: mpsc::Sender<LinkEvent>,
) {
    let mut attempt: u32 = 0;
    let mut next_address = 0;
    let mut last_logged = String::new();
    while !events.is_closed() {
        let address = &addresses[next_address % addresses.len()];
        let mut heard = Heard::Nothing;
        let error = tokio::select! {
            biased;
            error = follow(address, &options, &connector, &events, &mut heard) => error,
            () = events.closed() => return,
        };
        match heard {
            Heard::Something => {
                attempt = 0;
                last_logged.clear();
            }
            Heard::Nothing => next_address += 1,
        }
        let text = with_causes(&error);
        // The same failure every two seconds is one line, not thousands; and why this worker ended it, it has said.
        if text == last_logged || matches!(error, LinkError::EndedHere) {
            tracing::debug!(control = %address, attempt, error = text, "no session with control");
        } else {
            tracing::warn!(control = %address, attempt, error = text, "no session with control");
            last_logged = text;
        }
        tokio::select! {
            biased;
            () = sleep(retry_delay(attempt, chance.u32())) => {}
            () = events.closed() => return,
        }
        attempt = attempt.saturating_add(1);
    }
}

#[derive(Debug, PartialEq)]
enum Heard {
    Nothing,
    Something,
}

/// One connection, from its making to its end.
async fn follow(
    address: &Url,
    options: &ConnectOptions,
    connector: &Connector,
    events: &mpsc::Sender<LinkEvent>,
    heard: &mut Heard,
) -> LinkError {
    let (channel, bearer) = match connect(address, options, connector).await {
        Ok(connected) => connected,
        Err(error) => return error,
    };
    let (up, messages) = mpsc::channel(UP_QUEUE);
    let sender = up.downgrade();
    let abort = CancellationToken::new();
    let connection = Connection { up, abort: abort.clone() };
    if events.send(LinkEvent::Opened(connection)).await.is_err() {
        return LinkError::EndedHere;
    }
    let error = tokio::select! {
        biased;
        error = carry(channel, bearer, messages, events, heard) => error,
        () = abort.cancelled() => LinkError::EndedHere,
    };
    // Control ends its half when the worker has ended the other.
    let error = match error {
        LinkError::EndedThere if sender.upgrade().is_none() => LinkError::EndedHere,
        error => error,
    };
    let closed = match &error {
        LinkError::Status(status) => match Refusal::from_status(status) {
            Some(refusal) if refusal.reason == Reason::WorkerNameTaken => Closed::NameTaken(refusal.message),
            Some(_) | None => Closed::Lost,
        },
        LinkError::Connect(_)
        | LinkError::NoAnswer
        | LinkError::Malformed(_)
        | LinkError::EndedThere
        | LinkError::EndedHere
        | LinkError::Options(_)
        | LinkError::Address { .. } => Closed::Lost,
    };
    // Nobody listens any more: then the loop around this ends too.
    let _ = events.send(LinkEvent::Closed(closed)).await;
    error
}

async fn connect(
    address: &Url,
    options: &ConnectOptions,
    connector: &Connector,
) -> Result<(Channel, Bearer), LinkError> {
    let endpoint = Endpoint::from_shared(address.to_string())
        .map_err(|source| LinkError::Address { address: address.clone(), source })?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let (endpoint, bearer) = options.open(address, endpoint)?;
    let channel = connector(endpoint).await.map_err(LinkError::Connect)?;
    Ok((channel, bearer))
}

/// Carries messages both ways until the stream ends.
async fn carry(
    channel: Channel,
    bearer: Bearer,
    messages: mpsc::Receiver<WorkerMessage>,
    events: &mpsc::Sender<LinkEvent>,
    heard: &mut Heard,
) -> LinkError {
    let mut client = WorkerServiceClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(MESSAGE_LIMIT_BYTES)
        .max_encoding_message_size(MESSAGE_LIMIT_BYTES);
    let up = ReceiverStream::new(messages).map(|message| v1::SessionRequest::from(&message));
    let mut down = match timeout(ANSWER_TIMEOUT, client.session(up)).await {
        Ok(Ok(response)) => response.into_inner(),
        Ok(Err(status)) => return LinkError::Status(Box::new(status)),
        Err(_) => return LinkError::NoAnswer,
    };
    loop {
        let message = match down.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return LinkError::EndedThere,
            Err(status) => return LinkError::Status(Box::new(status)),
        };
        match ControlMessage::try_from(message) {
            Ok(message) => {
                // One that only welcomes or refuses must not be asked again without a growing delay.
                if !matches!(message, ControlMessage::Welcome(_) | ControlMessage::GoAway { .. }) {
                    *heard = Heard::Something;
                }
                if events.send(LinkEvent::Received(message)).await.is_err() {
                    return LinkError::EndedHere;
                }
            }
            Err(malformed) => return malformed.into(),
        }
    }
}

/// From 100 ms doubling to 2 s, of which a random half is waited at least. `random` is any number.
fn retry_delay(attempt: u32, random: u32) -> Duration {
    let whole = FIRST_RETRY_DELAY.saturating_mul(1 << attempt.min(10)).min(LONGEST_RETRY_DELAY);
    let half = whole / 2;
    half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_two_seconds() {
        assert_eq!(retry_delay(0, u32::MAX), Duration::from_millis(100));
        assert_eq!(retry_delay(0, 0), Duration::from_millis(50));
        assert_eq!(retry_delay(2, u32::MAX), Duration::from_millis(400));
        assert_eq!(retry_delay(u32::MAX, u32::MAX), LONGEST_RETRY_DELAY);
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let status = LinkError::Status(Box::new(Status::unavailable("away")));
        assert_eq!(with_causes(&status), "control answered with Unavailable: away");
    }
}
