//! What control and workers tell each other, as types that the hearts of both can match on.

// To and from messages.
mod wire;

use std::time::Duration;

use crate::error::Reason;
use crate::grant::{Grant, GrantId, HeldGrant, Incarnation};
use crate::names::{EnvironmentName, FleetId, Generation, Term, Uid, WorkerName};
use crate::secret_reference::SdkKeySource;
use crate::spec::{EnvironmentSpec, Labels};
use crate::status::EnvironmentReport;
use crate::store_url::StoreUrl;
use crate::v1;

/// The question of a request, as the API's own messages.
pub use crate::v1::request::Question;

/// The answer of a reply, as the API's own messages.
pub use crate::v1::reply::Answer;

/// From worker to control.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerMessage {
    /// First, once.
    Hello(Hello),
    /// An update has been taken over.
    Ack { nonce: u64 },
    /// An update has been taken over but for the assignments named.
    Nack { nonce: u64, rejections: Vec<Rejection> },
    /// Status of environments that changed.
    Report(Vec<EnvironmentReport>),
    /// I am here.
    Heartbeat,
    /// Are these grants still mine?
    Confirm { id: u64, grants: Vec<HeldGrant> },
    /// I want to leave.
    Draining { deadline: Duration },
    /// The answer to a request.
    Reply { id: u64, answer: Answer },
    /// Last: I am leaving, and write no more.
    Goodbye,
}

/// From control to worker.
#[derive(Debug, Clone, PartialEq)]
pub enum ControlMessage {
    /// First, once.
    Welcome(Welcome),
    /// Assignments and removals.
    Update(Update),
    /// The updates so far are the whole of what this worker shall hold.
    InitialStateComplete,
    /// These grants of the confirm are still yours; its others are not.
    Confirmed { id: u64, grants: Vec<GrantId> },
    /// The answer to a heartbeat.
    HeartbeatReply,
    /// To a worker that drains: no other worker can take what it still holds.
    NothingMoves,
    /// A question.
    Request { id: u64, deadline: Duration, question: Question },
    /// Last: end this session.
    GoAway { reason: GoAway, message: String },
}

/// Why control ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoAway {
    /// A newer session of the same worker took its place.
    Superseded,
    /// Control is stopping.
    ShuttingDown,
    /// Nothing was heard for a lease.
    LeaseExpired,
    /// A message made no sense.
    ProtocolError,
    /// The worker belongs to another fleet.
    WrongFleet,
}

/// The first message of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The worker's name.
    pub worker: WorkerName,
    /// This run of it.
    pub incarnation: Incarnation,
    /// The version that it runs.
    pub version: String,
    /// How many environments it accepts; `None`: any number.
    pub capacity: Option<u32>,
    /// Its labels.
    pub labels: Labels,
    /// What it holds.
    pub held: Vec<HeldGrant>,
    /// The highest term of control that it has seen.
    pub highest_term: Term,
    /// The fleet that it belongs to; `None`: none yet.
    pub fleet: Option<FleetId>,
}

/// The hello is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The fleet's id.
    pub fleet: FleetId,
    /// The present term of control.
    pub term: Term,
    /// How often to send a heartbeat.
    pub heartbeat_interval: Duration,
    /// After how long without one the worker's environments move.
    pub lease_duration: Duration,
}

/// Assignments and removals.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// Answered by an ack or nack of the same nonce.
    pub nonce: u64,
    /// New or changed. One that cannot be read is a rejection, not a broken session.
    pub assignments: Vec<Result<Assignment, Rejection>>,
    /// No longer here.
    pub removals: Vec<Removal>,
}

/// An environment and what to do with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// Name of the environment.
    pub environment: EnvironmentName,
    /// Its uid.
    pub uid: Uid,
    /// Generation of the spec.
    pub generation: Generation,
    /// The grant.
    pub grant: Grant,
    /// The spec, the fleet's defaults filled in.
    pub spec: EnvironmentSpec,
    /// The SDK key, or where the worker finds it; `None` for file sources, and for releases and purges.
    pub sdk_key: Option<SdkKeySource>,
    /// Where the store is.
    pub store_url: StoreUrl,
    /// Counts the user's resync requests.
    pub resync: u64,
    /// Leave to overwrite a foreign fence, once.
    pub take_over: Option<TakeOver>,
    /// The resync request says that LaunchDarkly is right, whatever its next payload takes back.
    pub accept_regression: bool,
}

/// Leave to overwrite a foreign fence, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeOver {
    /// Whatever is found at the first claim.
    Any,
    /// Only this value, the one that the user was shown.
    Value(String),
}

/// Another worker owns it now, or nobody: stop, and forget it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Name of the environment.
    pub environment: EnvironmentName,
    /// Its uid.
    pub uid: Uid,
}

/// An assignment that a worker cannot carry out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Name of the environment, as it was sent.
    pub environment: String,
    /// Its uid, as it was sent.
    pub uid: String,
    /// Generation of the rejected spec.
    pub generation: Generation,
    /// Why; never a secret.
    pub message: String,
}

impl v1::RequestFailure {
    /// A failure for this reason; the message is for people and never a secret.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason: reason.as_str().to_owned(), message: message.into(), status: 0 }
    }
}
