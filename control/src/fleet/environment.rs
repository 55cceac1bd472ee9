//! One environment: what users said of it, who holds it, and what its worker reported.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::status::ErrorKind;
use flotilla_proto::{
    Condition, EnvironmentReport, Epoch, Generation, GrantId, GrantState, Initialization, Intent, Marker,
    SourceState, Timestamp, WorkerName,
};

use super::backoff::Backoff;
use super::boundary::{EnvironmentRecord, GrantIds, GrantRecord, RemovalKind};
use super::handover::{Handover, Shunned};
use super::placement::Weight;
use super::rotation::Rotation;

/// The shortest and the longest time between two grants to one environment because the one before was fenced.
const SHORTEST_FENCED_DELAY: Duration = Duration::from_secs(1);
const LONGEST_FENCED_DELAY: Duration = Duration::from_mins(1);
/// How long an environment that moved stays where it is, though its worker has more than its share: the first time, and
/// at most.
const SHORTEST_STAY: Duration = Duration::from_secs(10);
const LONGEST_STAY: Duration = Duration::from_mins(10);
/// Bytes of data for which an environment weighs one more, and how far they must lie beyond before its weight changes.
const BYTES_PER_WEIGHT: u64 = 4 << 20;
const WEIGHT_HYSTERESIS: u64 = BYTES_PER_WEIGHT / 4;

/// One environment.
#[derive(Debug, Clone)]
pub(super) struct Environment {
    /// What is durable.
    pub(super) record: EnvironmentRecord,
    /// The worker that holds the grant of the record. `None`: never granted, or its worker is lost.
    pub(super) holder: Option<WorkerName>,
    /// The last report that counts.
    pub(super) observed: Option<Observed>,
    /// The epoch under which it was last to be released or purged: what was said under an earlier one stands no longer.
    pub(super) last_ending: Epoch,
    /// Workers that could not carry it out, and what they could not.
    pub(super) parked: BTreeMap<WorkerName, Parked>,
    /// Where the proof of a new key is.
    pub(super) rotation: Rotation,
    /// When to grant it anew, because its grant is over.
    pub(super) regrant_at: Option<Timestamp>,
    /// Limits how often that happens.
    pub(super) fenced: Backoff,
    /// The move that is under way.
    pub(super) handover: Option<Handover>,
    /// Workers that did not manage to take it over lately.
    pub(super) shunned: Shunned,
    /// Limits how often it moves for the sake of balance.
    pub(super) stay: Backoff,
    /// What it costs its worker.
    pub(super) weight: Weight,
    /// For which worker's load it was counted, and with what.
    pub(super) counted: Option<(WorkerName, Weight)>,
    /// The last of its writes that were refused, as they were told.
    pub(super) refused_writes: Option<(GrantId, u64)>,
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
    /// The worker is about to leave, or a user wants it emptied.
    Draining,
    /// The worker could not carry it out.
    Rejected,
    /// The worker does not carry the labels that are asked for.
    Selector,
    /// Another worker came with a later grant than is remembered.
    LaterGrant,
    /// Its worker had more than its share.
    Rebalanced,
    /// The worker that should have taken it over did not.
    Undone,
    /// Its worker was forgotten.
    Forgotten,
}

impl MoveReason {
    /// All of them, for the metrics.
    pub(super) const ALL: [Self; 10] = [
        Self::LeaseExpired,
        Self::Disconnected,
        Self::Goodbye,
        Self::Draining,
        Self::Rejected,
        Self::Selector,
        Self::LaterGrant,
        Self::Rebalanced,
        Self::Undone,
        Self::Forgotten,
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
            Self::Rebalanced => "rebalanced",
            Self::Undone => "undone",
            Self::Forgotten => "forgotten",
        }
    }
}

impl Environment {
    /// An environment of which nothing is observed yet. If a handover is recorded, its next owner has until then, and as
    /// long as a promotion may take, to say that it serves.
    pub(super) fn new(record: EnvironmentRecord, until: Timestamp) -> Self {
        let rotation = if record.pending_key.is_some() { Rotation::waiting() } else { Rotation::Idle };
        Self {
            holder: record.grant.as_ref().map(|granted| granted.worker.clone()),
            observed: None,
            // What was granted before control started may have ended since.
            last_ending: Epoch(record.grant.as_ref().map_or(0, |granted| granted.grant.epoch.0.saturating_sub(1))),
            parked: BTreeMap::new(),
            rotation,
            regrant_at: None,
            fenced: Backoff::new(SHORTEST_FENCED_DELAY, LONGEST_FENCED_DELAY),
            handover: record.predecessor.is_some().then(|| Handover::promoted(until)),
            shunned: Shunned::default(),
            stay: Backoff::new(SHORTEST_STAY, LONGEST_STAY),
            weight: 1,
            counted: None,
            refused_writes: None,
            moving: None,
            initialization: Initialization::Unknown,
            conditions: Vec::new(),
            shown: 0,
            record,
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
            .is_some_and(|parked| parked.generation == self.record.generation && is_alike(parked.intent, intent))
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
        let granted = self.record.grant.as_ref().filter(|granted| self.holder.as_ref() == Some(&granted.worker))?;
        self.report_under(granted)
    }

    /// What the status is made of: the report of the highest grant that has reported. Until a new owner serves it is the
    /// last owner's, which was in line when the new one took over; and what a worker said under a grant stands until it
    /// has reported under its next one, unless it was to end it in between.
    pub(super) fn standing_report(&self) -> Option<&EnvironmentReport> {
        let holder = self.holder.as_ref()?;
        let last = || self.record.predecessor.as_ref().and_then(|last| self.report_under(last));
        let own = || {
            let observed = self.observed.as_ref().filter(|observed| observed.worker == *holder)?;
            (observed.report.grant.epoch > self.last_ending).then_some(&observed.report)
        };
        self.report_of_grant().or_else(last).or_else(own)
    }

    fn report_under(&self, granted: &GrantRecord) -> Option<&EnvironmentReport> {
        let observed = self.observed.as_ref().filter(|observed| observed.worker == granted.worker)?;
        let (reported, grant) = (&observed.report.grant, &granted.grant);
        (reported.id == grant.id && reported.epoch == grant.epoch).then_some(&observed.report)
    }

    /// Whether its holder is known to have no data yet, so that nothing would be missed if another got it at once.
    /// `ids` are those of this start of control: what an earlier one granted may serve without having reported since.
    pub(super) fn is_empty_handed(&self, ids: &GrantIds) -> bool {
        let reported = self.observed.as_ref().filter(|observed| self.holder.as_ref() == Some(&observed.worker));
        match reported.map(|observed| &observed.report) {
            Some(report) => match report.source_state {
                Some(SourceState::Connected) => false,
                // Refused from the start, or not yet there.
                Some(SourceState::Interrupted | SourceState::Connecting) | None => {
                    report.flags + report.segments == 0
                }
            },
            None => self.record.grant.as_ref().is_some_and(|granted| ids.gave(&granted.grant.id)),
        }
    }

    /// Takes in how many bytes of data there are. Whether its weight changed: that it does slowly, for each change may
    /// move environments.
    pub(super) fn weigh(&mut self, bytes: u64) -> bool {
        let upper = self.weight * BYTES_PER_WEIGHT + WEIGHT_HYSTERESIS;
        let lower = ((self.weight - 1) * BYTES_PER_WEIGHT).saturating_sub(WEIGHT_HYSTERESIS);
        if (lower..upper).contains(&bytes) {
            return false;
        }
        self.weight = 1 + bytes / BYTES_PER_WEIGHT;
        true
    }

    /// Whether the holder reported a foreign fence.
    pub(super) fn conflict(&self) -> Option<&EnvironmentReport> {
        self.standing_report().filter(|report| report.grant_state == GrantState::Conflict)
    }

    /// Whether LaunchDarkly refuses the present key. What a worker says of an earlier generation may be about another.
    pub(super) fn is_key_refused(&self) -> bool {
        self.standing_report().is_some_and(|report| {
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

/// Whether who cannot do the one cannot do the other.
fn is_alike(one: Intent, other: Intent) -> bool {
    let streams = |intent| match intent {
        Intent::Warm | Intent::Serve => true,
        Intent::Release | Intent::Purge => false,
    };
    one == other || (streams(one) && streams(other))
}
