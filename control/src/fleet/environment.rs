//! One environment: what users said of it, who holds it, and what its worker reported.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::status::ErrorKind;
use flotilla_proto::{
    Condition, EnvironmentReport, Epoch, Generation, GrantState, Initialization, Intent, Marker, SourceState,
    Timestamp, WorkerName,
};

use super::boundary::{EnvironmentRecord, RemovalKind};
use super::rotation::Rotation;

/// The shortest and the longest time between two grants to one environment because the one before was fenced.
const SHORTEST_FENCED_DELAY: Duration = Duration::from_secs(1);
const LONGEST_FENCED_DELAY: Duration = Duration::from_mins(1);

/// One environment.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// What is durable.
    pub(super) record: EnvironmentRecord,
    /// The worker that holds the grant of the record. `None`: never granted, or its worker is lost.
    pub(super) holder: Option<WorkerName>,
    /// The last report that counts.
    pub(super) observed: Option<Observed>,
    /// Workers that could not carry it out, and what they could not.
    pub(super) parked: BTreeMap<WorkerName, Parked>,
    /// Where the proof of a new key is.
    pub(super) rotation: Rotation,
    /// When to grant it anew, because its grant is over.
    pub(super) regrant_at: Option<Timestamp>,
    /// Limits how often that happens.
    pub(super) fenced: FencedBackoff,
    /// Why its last worker lost it, until the next has it.
    pub(super) moving: Option<MoveReason>,
    /// What SDKs find, as last shown.
    pub(super) initialization: Initialization,
    /// The conditions as last shown.
    pub(super) conditions: Vec<Condition>,
    /// Digest of the public view, counters and times left out, as watchers know it.
    pub(super) shown: u64,
}

/// What a worker said of an environment.
#[derive(Debug, Clone)]
pub(super) struct Observed {
    /// The worker.
    pub(super) worker: WorkerName,
    /// Its report.
    pub(super) report: EnvironmentReport,
    /// The marker at the last look, which may have been an earlier worker's.
    pub(super) marker: Marker,
}

/// What a worker could not carry out.
#[derive(Debug, Clone)]
pub(super) struct Parked {
    /// Of this generation,
    pub(super) generation: Generation,
    /// under this intent.
    pub(super) intent: Intent,
    /// Why.
    pub(super) message: String,
}

/// Why an environment goes from one worker to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum MoveReason {
    /// Nothing was heard for a lease.
    LeaseExpired,
    /// The session closed, and none followed within the grace.
    Disconnected,
    /// The worker left.
    Goodbye,
    /// The worker is about to leave.
    Draining,
    /// The worker could not carry it out.
    Rejected,
    /// The worker does not carry the labels that are asked for.
    Selector,
    /// Another worker came with a later grant than is remembered.
    LaterGrant,
}

impl MoveReason {
    /// All of them, for the metrics.
    pub(super) const ALL: [Self; 7] = [
        Self::LeaseExpired,
        Self::Disconnected,
        Self::Goodbye,
        Self::Draining,
        Self::Rejected,
        Self::Selector,
        Self::LaterGrant,
    ];

    /// The value of the metric's label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::LeaseExpired => "lease_expired",
            Self::Disconnected => "disconnected",
            Self::Goodbye => "goodbye",
            Self::Draining => "draining",
            Self::Rejected => "rejected",
            Self::Selector => "selector",
            Self::LaterGrant => "later_grant",
        }
    }
}

/// Limits the rate of new grants to an environment whose grants keep being fenced.
#[derive(Debug, Clone, Copy)]
pub(super) struct FencedBackoff {
    delay: Duration,
    next: Timestamp,
}

impl FencedBackoff {
    fn new() -> Self {
        Self { delay: SHORTEST_FENCED_DELAY, next: Timestamp(0) }
    }

    /// When the next grant may be given. Not before a delay after the last one, which doubles while this goes on.
    pub(super) fn schedule(&mut self, now: Timestamp) -> Timestamp {
        if now.since(self.next) > LONGEST_FENCED_DELAY {
            self.delay = SHORTEST_FENCED_DELAY;
        }
        let at = self.next.max(now);
        self.next = at.after(self.delay);
        self.delay = (self.delay * 2).min(LONGEST_FENCED_DELAY);
        at
    }
}

impl Environment {
    /// An environment of which nothing is observed yet.
    pub(super) fn new(record: EnvironmentRecord) -> Self {
        let rotation = if record.pending_key.is_some() { Rotation::waiting() } else { Rotation::Idle };
        Self {
            holder: record.grant.as_ref().map(|granted| granted.worker.clone()),
            record,
            observed: None,
            parked: BTreeMap::new(),
            rotation,
            regrant_at: None,
            fenced: FencedBackoff::new(),
            moving: None,
            initialization: Initialization::Unknown,
            conditions: Vec::new(),
            shown: 0,
        }
    }

    /// What a worker shall do with it; `None`: nothing.
    pub(super) fn wanted(&self) -> Option<Intent> {
        match self.record.removal {
            Some(RemovalKind::Release) => self.record.grant.is_some().then_some(Intent::Release),
            Some(RemovalKind::Purge) => (!self.is_untouched()).then_some(Intent::Purge),
            None if self.record.paused => self.record.grant.is_some().then_some(Intent::Release),
            None => Some(Intent::Serve),
        }
    }

    /// Whether no worker was ever sent a grant of it.
    pub(super) fn is_untouched(&self) -> bool {
        self.record.grant.is_none() && self.record.released.is_none()
    }

    /// The intent of the present grant.
    pub(super) fn granted_intent(&self) -> Option<Intent> {
        self.record.grant.as_ref().map(|granted| granted.grant.intent)
    }

    /// The epoch of the present grant, or of the release that stands.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        let granted = self.record.grant.as_ref().map(|granted| granted.grant.epoch);
        granted.or(self.record.released)
    }

    /// Whether that worker could not carry out the present generation under that intent.
    pub(super) fn is_parked(&self, worker: &WorkerName, intent: Intent) -> bool {
        self.parked
            .get(worker)
            .is_some_and(|parked| parked.generation == self.record.generation && parked.intent == intent)
    }

    /// Takes a report in. What its worker has not looked at is as it was at the last look.
    pub(super) fn observe(&mut self, worker: WorkerName, report: EnvironmentReport) {
        let marker = match report.marker {
            Marker::Unknown => self.last_marker(),
            Marker::Present | Marker::Absent => report.marker,
        };
        self.observed = Some(Observed { worker, report, marker });
    }

    /// The marker at the last look of any worker.
    pub(super) fn last_marker(&self) -> Marker {
        self.observed.as_ref().map_or(Marker::Unknown, |observed| observed.marker)
    }

    /// What the holder reported under the present grant.
    pub(super) fn report_of_grant(&self) -> Option<&EnvironmentReport> {
        let granted = self.record.grant.as_ref()?;
        let observed = self.observed.as_ref()?;
        let same =
            observed.report.grant.id == granted.grant.id && observed.report.grant.epoch == granted.grant.epoch;
        (same && self.holder.as_ref() == Some(&observed.worker)).then_some(&observed.report)
    }

    /// Whether the holder reported a foreign fence.
    pub(super) fn conflict(&self) -> Option<&EnvironmentReport> {
        self.report_of_grant().filter(|report| report.grant_state == GrantState::Conflict)
    }

    /// Whether LaunchDarkly refuses the present key. What a worker says of an earlier generation may be about another.
    pub(super) fn is_key_refused(&self) -> bool {
        self.report_of_grant().is_some_and(|report| {
            let auth = report.source_error.as_ref().is_some_and(|error| error.kind == ErrorKind::Auth);
            auth && report.source_state == Some(SourceState::Interrupted)
                && report.generation == self.record.generation
        })
    }

    /// Changes with every change that a user makes.
    pub(super) fn etag(&self) -> String {
        format!("{}-{}", self.record.uid, self.record.change_number)
    }
}
