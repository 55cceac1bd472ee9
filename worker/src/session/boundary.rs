//! What goes into a session and what comes out of it.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::{Answer, Assignment, ControlMessage, GoAway, Question, Rejection, WorkerMessage};
use flotilla_proto::{
    EnvironmentName, EnvironmentReport, FleetId, GrantId, HeldGrant, Incarnation, Labels, Term, Timestamp,
    WorkerName, v1,
};

/// What this worker says of itself in every hello.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    /// Its name.
    pub(crate) worker: WorkerName,
    /// This run of it.
    pub(crate) incarnation: Incarnation,
    /// The version that it runs.
    pub(crate) version: String,
    /// How many environments it accepts; `None`: any number.
    pub(crate) capacity: Option<u32>,
    /// Its labels.
    pub(crate) labels: Labels,
    /// Whether it can read flag-data files.
    pub(crate) file_sources: FileSources,
}

/// Whether flag-data files can be read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileSources {
    /// There is a directory for them.
    Available,
    /// No directory was given.
    Unavailable,
}

/// What outlives the process: enough to go on without control.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Memory {
    /// The fleet that the worker belongs to.
    pub(crate) fleet: FleetId,
    /// The highest term of control seen.
    pub(crate) highest_term: Term,
    /// The lease that control last gave.
    pub(crate) lease: Duration,
    /// When control last stood by the assignments.
    pub(crate) last_confirmed: Timestamp,
    /// All assignments.
    pub(crate) assignments: Vec<Arc<Assignment>>,
    /// Assignments of an earlier process that this one cannot carry out, kept as they are until control has spoken.
    pub(crate) unusable: Vec<v1::Assignment>,
}

/// What happens to a session.
#[derive(Debug)]
pub(crate) enum Input {
    /// A stream to control is open; nothing was said on it.
    Opened,
    /// The stream is gone.
    Closed,
    /// Control refused the hello: a worker of this name is alive elsewhere.
    NameTaken(String),
    /// Control said something.
    Received(ControlMessage),
    /// An environment's status changed.
    Reported(Box<EnvironmentReport>),
    /// An environment's task has ended by itself, and is started again after a pause.
    Failed { environment: EnvironmentName, pause: Duration },
    /// An environment wants to know whether its grant is still valid.
    ConfirmWanted(HeldGrant),
    /// The environment of [`Effect::Start`] cannot be started.
    CannotStart(EnvironmentName),
    /// The answer to [`Effect::Ask`].
    Answered { asked_by: SessionNumber, id: u64, answer: Answer },
    /// The process wants to end; environments may move until the deadline.
    Leave { deadline: Duration },
    /// Nothing is written here any more.
    Left,
    /// The deadline of [`Session::next_deadline`] may have passed.
    TimePassed,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Say this to control.
    Send(WorkerMessage),
    /// Start the environment; what runs under its name is another one, and ends first.
    Start(Arc<Assignment>),
    /// Answer an update whose effects went before: ack, or nack with these rejections and those that starting brought.
    AnswerUpdate { nonce: u64, rejections: Vec<Rejection> },
    /// The running environment has a new assignment.
    Reassign(Arc<Assignment>),
    /// End the environment.
    Stop(EnvironmentName),
    /// Tell every environment the present [`Session::control_state`].
    TellControlState,
    /// Control's answer about a grant.
    Confirmed { environment: EnvironmentName, grant: GrantId, valid: bool },
    /// Put the question to its environment.
    Ask { asked_by: SessionNumber, id: u64, deadline: Duration, question: Question },
    /// [`Session::memory`] changed.
    Save,
    /// Give this stream up and open another.
    Close(CloseReason),
    /// End the process.
    End(Ended),
}

/// Tells a session of this process from the next, so that no answer goes to the wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SessionNumber(u64);

impl SessionNumber {
    /// That of the next session.
    pub(crate) fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Why a stream is given up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CloseReason {
    /// It did not answer the hello.
    #[error("control did not answer the hello")]
    NoWelcome,
    /// It did not answer heartbeats for a lease.
    #[error("control has not answered a heartbeat for a lease")]
    NoHeartbeatReply,
    /// It said something at the wrong time.
    #[error("control broke the protocol: {0}")]
    Protocol(&'static str),
    /// It belongs to another fleet than the state directory.
    #[error("control belongs to fleet {found}, this worker's state directory to fleet {expected}")]
    AnotherFleet { expected: FleetId, found: FleetId },
    /// It asked for the end.
    #[error("control ended the session ({reason:?}): {message}")]
    GoAway { reason: GoAway, message: String },
}

/// Why the process must end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    /// A newer process took this worker's place.
    #[error("a newer process has taken this worker's place: {message}")]
    Superseded { message: String },
    /// Another process has this worker's name.
    #[error("the worker name {worker} is taken: {message}")]
    NameTaken { worker: WorkerName, message: String },
    /// A task of the process failed, which is a bug.
    #[error("an internal task ended unexpectedly: {message}")]
    Failed { message: String },
}
