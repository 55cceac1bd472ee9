//! One worker: its session, what it holds, and what it was told.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::session::TakeOver;
use flotilla_proto::{EnvironmentName, Generation, GrantId, Incarnation, Labels, StoreUrl, Timestamp, Uid};

use super::boundary::{Scheduling, SessionId};
use super::environment::MoveReason;
use super::placement::Weight;

/// An environment, told from earlier and later ones of its name.
pub(super) type EnvironmentKey = (EnvironmentName, Uid);

/// One worker.
#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// State of its connection.
    pub(super) link: Link,
    /// What it said of itself. `None`: known from the records only.
    pub(super) about: Option<About>,
    /// The environments that it holds.
    pub(super) holds: BTreeSet<EnvironmentName>,
    /// What it was told, or said that it holds.
    pub(super) told: BTreeMap<EnvironmentKey, Told>,
    /// Environments that it could not carry out, in this run of it.
    pub(super) rejected: BTreeSet<EnvironmentName>,
    /// Whether it wants to leave, as it said in this run of it.
    pub(super) leaving: Leaving,
    /// Whether it is given environments, as users said.
    pub(super) scheduling: Scheduling,
    /// Environments whose place is here: those that it holds and does not hand over, and those that it gets ready. What it
    /// cannot carry out is not counted.
    pub(super) count: usize,
    /// The sum of their weights.
    pub(super) load: Weight,
    /// Whether it was noted that it is drained.
    pub(super) noted_drained: bool,
    /// Digest of the public view, bytes and times left out, as watchers know it.
    pub(super) shown: u64,
}

/// State of a worker's connection.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// Its session is alive.
    Connected(Session),
    /// Its session is gone; it keeps its environments until then.
    Disconnected {
        /// When its environments move.
        until: Timestamp,
        /// Why they do.
        reason: MoveReason,
    },
    /// It holds nothing.
    Gone {
        /// Since then.
        since: Timestamp,
    },
}

/// What a worker said of itself.
#[derive(Debug, Clone)]
pub(super) struct About {
    pub(super) address: String,
    pub(super) version: String,
    pub(super) labels: Labels,
    pub(super) capacity: Option<u32>,
    pub(super) incarnation: Incarnation,
    pub(super) connected_at: Timestamp,
    pub(super) last_heard: Timestamp,
}

/// A live session.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) id: SessionId,
    /// Environments whose assignment may differ from what the worker was told.
    pub(super) pending: BTreeSet<EnvironmentKey>,
    /// The update that is not acknowledged yet.
    pub(super) in_flight: Option<InFlight>,
    /// Nonce of the last update.
    pub(super) last_nonce: u64,
    /// Whether the worker was told that it knows everything.
    pub(super) initial: InitialState,
}

/// Whether a worker has said that it wants to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leaving {
    /// It has not.
    No,
    /// It has, and waits for its environments to move.
    Waits,
    /// It was told that nobody can take what is left.
    Stuck,
}

/// Whether a worker was told that it knows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitialState {
    Underway,
    Complete,
}

/// An update that is not acknowledged yet.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) nonce: u64,
    /// What it assigned.
    pub(super) assigned: Vec<EnvironmentKey>,
}

/// What a worker was told of one environment.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// The last assignment sent in this session.
    pub(super) sent: Option<Fingerprint>,
    /// What it has taken over.
    pub(super) in_force: Option<(GrantId, Generation)>,
}

/// Tells assignments of one environment apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fingerprint {
    pub(super) grant: GrantId,
    pub(super) generation: Generation,
    pub(super) resync: u64,
    pub(super) take_over: Option<TakeOver>,
    pub(super) store_url: StoreUrl,
    pub(super) accept_regression: bool,
}

impl Worker {
    /// A worker that is known, and not there.
    pub(super) fn gone(since: Timestamp) -> Self {
        Self {
            link: Link::Gone { since },
            about: None,
            holds: BTreeSet::new(),
            told: BTreeMap::new(),
            rejected: BTreeSet::new(),
            leaving: Leaving::No,
            scheduling: Scheduling::Active,
            count: 0,
            load: 0,
            noted_drained: false,
            shown: 0,
        }
    }

    /// The records say that it may come back: it may until then.
    pub(super) fn await_until(&mut self, until: Timestamp) {
        self.link = Link::Disconnected { until, reason: MoveReason::LeaseExpired };
    }

    /// Whether it may be given environments now.
    pub(super) fn is_open(&self) -> bool {
        self.session().is_some() && self.may_take_more()
    }

    /// Whether it may be given environments, if it is there.
    pub(super) fn may_take_more(&self) -> bool {
        self.is_within_lease() && self.scheduling == Scheduling::Active && self.leaving == Leaving::No
    }

    /// Whether what it has is to move away.
    pub(super) fn is_to_be_emptied(&self) -> bool {
        self.scheduling == Scheduling::Draining || self.leaving != Leaving::No
    }

    /// Its live session.
    pub(super) fn session(&self) -> Option<&Session> {
        match &self.link {
            Link::Connected(session) => Some(session),
            Link::Disconnected { .. } | Link::Gone { .. } => None,
        }
    }

    /// Its live session, to change it.
    pub(super) fn session_mut(&mut self) -> Option<&mut Session> {
        match &mut self.link {
            Link::Connected(session) => Some(session),
            Link::Disconnected { .. } | Link::Gone { .. } => None,
        }
    }

    /// Whether what it last said still stands.
    pub(super) fn is_within_lease(&self) -> bool {
        match self.link {
            Link::Connected(_) | Link::Disconnected { .. } => true,
            Link::Gone { .. } => false,
        }
    }

    /// Whether it carries all of these labels. One that has not said hello yet is trusted to.
    pub(super) fn carries(&self, selector: &Labels) -> bool {
        self.about.as_ref().is_none_or(|about| carries(&about.labels, selector))
    }
}

/// Whether the labels have all that the selector asks for.
pub(super) fn carries(labels: &Labels, selector: &Labels) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
