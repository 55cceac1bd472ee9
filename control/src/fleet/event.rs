//! What operators ask about afterwards: noted as it happens, for the log and for the history of events.

use flotilla_proto::{EnvironmentName, Epoch, Initialization, StoreName, Term, Timestamp, WorkerName, v1};

/// Something that operators ask about afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// An environment goes from one worker to another, under a new grant.
    Moved { environment: EnvironmentName, from: WorkerName, to: WorkerName, epoch: Epoch, reason: &'static str },
    /// A worker gets a grant that is no move: nobody had the environment, or it had it itself.
    Assigned { environment: EnvironmentName, worker: WorkerName, epoch: Epoch, reason: &'static str },
    /// Another worker gets an environment ready, to take it over.
    HandoverBegun {
        environment: EnvironmentName,
        from: WorkerName,
        to: WorkerName,
        epoch: Epoch,
        reason: &'static str,
    },
    /// It does not take it over.
    HandoverAbandoned { environment: EnvironmentName, to: WorkerName, reason: &'static str },
    /// What SDKs find has changed, or whether it is up to date.
    InitializationChanged { environment: EnvironmentName, from: Initialization, to: Initialization },
    /// A user's request changed an environment; the action is one word.
    Changed { environment: EnvironmentName, action: &'static str },
    /// An environment is no more.
    Ended { environment: EnvironmentName },
    /// A worker cannot carry an environment out.
    Rejected { environment: EnvironmentName, worker: WorkerName, message: String },
    /// The store refused writes of a worker for their fence.
    WriteFenced { environment: EnvironmentName, worker: WorkerName, epoch: Epoch },
    /// A worker mended the store.
    Repaired { environment: EnvironmentName, worker: WorkerName, epoch: Epoch, reason: String },
    /// A store came, went, or is reached in another way; the action is one word.
    StoreChanged { store: StoreName, action: &'static str },
    /// A worker came, went, or was told whether to take part.
    Worker { worker: WorkerName, change: WorkerChange },
    /// A worker refused a question for a reason that is not known here: it may be of a later version.
    UnknownReason { worker: WorkerName, reason: String, message: String },
    /// A worker holds environments of which nothing is known here, not even that they ended.
    UnknownHeld { worker: WorkerName, count: usize, example: EnvironmentName },
}

/// What became of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WorkerChange {
    /// Its session began.
    Connected,
    /// Its session closed.
    Disconnected,
    /// It holds nothing any more; the word says why.
    Gone(&'static str),
    /// It wants to leave.
    Leaving,
    /// A user wants that it gets no more.
    Cordoned,
    /// A user wants that it takes part again.
    Uncordoned,
    /// A user wants it emptied.
    Draining,
    /// It is empty, as was wanted.
    Drained,
    /// A user wants it forgotten.
    Forgotten,
}

/// An event as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRecord {
    /// Its place in the order of all events of the fleet, from 1, across restarts.
    pub(crate) number: u64,
    /// The term in which it was noted: a restored database gives numbers anew, but not under the same term.
    pub(crate) term: Term,
    /// When.
    pub(crate) at: Timestamp,
    /// What happened.
    pub(crate) event: Event,
}

/// What happened, as users see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// What kind of thing.
    pub(crate) kind: v1::EventType,
    /// The environment.
    pub(crate) environment: Option<EnvironmentName>,
    /// The worker; the one that has the environment now.
    pub(crate) worker: Option<WorkerName>,
    /// The worker that had it before.
    pub(crate) from: Option<WorkerName>,
    /// Of the grant.
    pub(crate) epoch: Option<Epoch>,
    /// One word.
    pub(crate) reason: String,
    /// A sentence.
    pub(crate) message: String,
}

impl WorkerChange {
    fn as_str(self) -> &'static str {
        match self {
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Gone(_) => "gone",
            Self::Leaving => "leaving",
            Self::Cordoned => "cordoned",
            Self::Uncordoned => "uncordoned",
            Self::Draining => "draining",
            Self::Drained => "drained",
            Self::Forgotten => "forgotten",
        }
    }

    fn sentence(self, worker: &WorkerName) -> String {
        match self {
            Self::Connected => format!("worker {worker} connected"),
            Self::Disconnected => {
                format!("the session of worker {worker} closed; it keeps what it has for a while")
            }
            Self::Gone(why) => format!("worker {worker} holds nothing any more ({why})"),
            Self::Leaving => format!("worker {worker} wants to leave; what it has moves away"),
            Self::Cordoned => format!("worker {worker} gets no more environments"),
            Self::Uncordoned => format!("worker {worker} takes part again"),
            Self::Draining => format!("what worker {worker} has moves away"),
            Self::Drained => format!("worker {worker} has nothing left"),
            Self::Forgotten => format!("worker {worker} is forgotten"),
        }
    }
}

impl Note {
    /// The event that it is; `None`: it is for the log only.
    pub(super) fn event(&self) -> Option<Event> {
        let event = match self {
            Self::Moved { environment, from, to, epoch, reason } => Event {
                from: Some(from.clone()),
                epoch: Some(*epoch),
                worker: Some(to.clone()),
                ..about(
                    v1::EventType::Moved,
                    environment,
                    reason,
                    format!("moved from {from} to {to}, epoch {epoch} ({reason})"),
                )
            },
            Self::Assigned { environment, worker, epoch, reason } => Event {
                epoch: Some(*epoch),
                worker: Some(worker.clone()),
                ..about(
                    v1::EventType::Assigned,
                    environment,
                    reason,
                    format!("granted to {worker}, epoch {epoch} ({reason})"),
                )
            },
            Self::HandoverBegun { environment, from, to, epoch, reason } => Event {
                from: Some(from.clone()),
                epoch: Some(*epoch),
                worker: Some(to.clone()),
                ..about(
                    v1::EventType::HandoverBegun,
                    environment,
                    reason,
                    format!("{to} gets ready to take it over from {from} ({reason})"),
                )
            },
            Self::HandoverAbandoned { environment, to, reason } => Event {
                worker: Some(to.clone()),
                ..about(
                    v1::EventType::HandoverAbandoned,
                    environment,
                    reason,
                    format!("{to} does not take it over ({reason})"),
                )
            },
            Self::InitializationChanged { environment, from, to } => about(
                v1::EventType::InitializationChanged,
                environment,
                to.as_str(),
                format!("{} after {}", to.as_str(), from.as_str()),
            ),
            Self::Changed { environment, action } => about(
                v1::EventType::EnvironmentChanged,
                environment,
                action,
                format!("a request was carried out: {action}"),
            ),
            Self::Ended { environment } => {
                about(v1::EventType::EnvironmentEnded, environment, "", "the environment is no more".to_owned())
            }
            Self::Rejected { environment, worker, message } => Event {
                worker: Some(worker.clone()),
                ..about(
                    v1::EventType::AssignmentRejected,
                    environment,
                    "rejected",
                    format!("{worker} cannot carry it out: {message}"),
                )
            },
            Self::WriteFenced { environment, worker, epoch } => Event {
                epoch: Some(*epoch),
                worker: Some(worker.clone()),
                ..about(
                    v1::EventType::WriteFenced,
                    environment,
                    "fenced",
                    format!(
                        "the store refused a write of {worker} under epoch {epoch}: another fence stands there"
                    ),
                )
            },
            Self::Repaired { environment, worker, epoch, reason } => {
                let (reason, what) = mended(reason);
                Event {
                    epoch: Some(*epoch),
                    worker: Some(worker.clone()),
                    ..about(v1::EventType::StoreRepaired, environment, reason, format!("{worker} found {what}"))
                }
            }
            Self::Worker { worker, change } => Event {
                kind: v1::EventType::WorkerChanged,
                environment: None,
                worker: Some(worker.clone()),
                from: None,
                epoch: None,
                reason: change.as_str().to_owned(),
                message: change.sentence(worker),
            },
            Self::StoreChanged { .. } | Self::UnknownReason { .. } | Self::UnknownHeld { .. } => return None,
        };
        Some(event)
    }
}

fn about(kind: v1::EventType, environment: &EnvironmentName, reason: &str, message: String) -> Event {
    Event {
        kind,
        environment: Some(environment.clone()),
        worker: None,
        from: None,
        epoch: None,
        reason: reason.to_owned(),
        message,
    }
}

/// What a worker mended, by the word that it says.
fn mended(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "lost" => ("lost", "the store empty, and filled it again"),
        "fence" => ("fence", "the fence gone, and put it back"),
        "marker" => ("marker", "the marker gone, and put it back"),
        "expiry" => ("expiry", "a key that would have expired, and made it stay"),
        "type" => ("type", "a key of another type, and replaced it"),
        _ => ("items", "items changed by somebody else, and mended them"),
    }
}
