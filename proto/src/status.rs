//! What workers observe of an environment.

use crate::grant::{Grant, Malformed};
use crate::names::{EnvironmentName, Generation, Uid};
use crate::time::Timestamp;
use crate::v1;

macro_rules! mirrors {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident),* } unspecified: $unspecified:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vdoc])* $variant),* }

        impl From<$name> for v1::$name {
            fn from(value: $name) -> Self {
                match value { $($name::$variant => Self::$variant),* }
            }
        }

        impl $name {
            /// From a message.
            pub fn from_proto(message: v1::$name) -> Option<Self> {
                match message { $(v1::$name::$variant => Some(Self::$variant),)* v1::$name::Unspecified => $unspecified }
            }
        }
    };
}

mirrors!(
    /// Whether SDKs find data.
    Initialization {
        /// No worker has looked yet.
        Unknown,
        /// The marker is not there: SDKs return fallbacks.
        Uninitialized,
        /// The marker was there, and the environment is not current: SDKs use earlier data.
        Stale,
        /// Written, acknowledged, and the source is alive.
        Current
    } unspecified: None
);
mirrors!(
    /// Truth of a condition.
    ConditionStatus {
        /// It holds.
        True,
        /// It does not hold.
        False,
        /// Nobody knows.
        Unknown
    } unspecified: None
);
mirrors!(
    /// Which neighbour an error came from.
    ErrorKind {
        /// The network or TLS towards LaunchDarkly.
        Network,
        /// An unexpected HTTP status.
        Http,
        /// Malformed data.
        Data,
        /// The store.
        Store,
        /// The SDK key was refused.
        Auth
    } unspecified: None
);
mirrors!(
    /// How far a worker is with a grant.
    GrantState {
        /// Its fence does not stand in the store yet.
        Pending,
        /// The fence stands; a release or purge is done.
        Established,
        /// The comparison's last write is acknowledged.
        Synchronized,
        /// A higher epoch or another incarnation stands in the store: the grant is over.
        Fenced,
        /// A foreign fence stands in the store: parked until the user takes over.
        Conflict
    } unspecified: None
);
mirrors!(
    /// State of a source's connection.
    SourceState {
        /// First connection under way.
        Connecting,
        /// A full payload has arrived and the connection is alive.
        Connected,
        /// No connection; retried.
        Interrupted
    } unspecified: None
);

impl ErrorKind {
    /// One word for it: in metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Http => "http",
            Self::Data => "data",
            Self::Store => "store",
            Self::Auth => "auth",
        }
    }
}

impl Initialization {
    /// One word for it: in logs, metrics and documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Uninitialized => "uninitialized",
            Self::Stale => "stale",
            Self::Current => "current",
        }
    }
}

/// Whether the marker `<prefix>:$inited` exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Marker {
    /// Nobody has looked.
    #[default]
    Unknown,
    /// It was there at the last look.
    Present,
    /// It was not there at the last look.
    Absent,
}

/// One aspect of an environment's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The type, one word in CamelCase.
    pub kind: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, one word in CamelCase.
    pub reason: &'static str,
    /// Why, a sentence.
    pub message: String,
    /// The generation of the spec to which this refers.
    pub observed_generation: Generation,
    /// When the status last changed.
    pub last_transition_time: Timestamp,
}

/// The last error of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// Which neighbour it came from.
    pub kind: ErrorKind,
    /// The HTTP status, if there was one.
    pub status: Option<u16>,
    /// A sentence; never a secret.
    pub message: String,
    /// When it happened.
    pub time: Timestamp,
}

/// The whole status of one environment on a worker.
#[derive(Debug, Clone, PartialEq)]
pub struct EnvironmentReport {
    /// Name of the environment.
    pub environment: EnvironmentName,
    /// Its uid.
    pub uid: Uid,
    /// The generation of the spec that is in force.
    pub generation: Generation,
    /// The grant that this is about.
    pub grant: Grant,
    /// How far it is.
    pub grant_state: GrantState,
    /// Why it is pending, one word in CamelCase; empty: nothing special.
    pub pending_reason: String,
    /// The foreign or higher fence that was found.
    pub found_fence: Option<String>,
    /// State of the source; `None`: not started.
    pub source_state: Option<SourceState>,
    /// The marker.
    pub marker: Marker,
    /// Whether the store answered last time; `None`: not tried.
    pub store_available: Option<bool>,
    /// Flags held.
    pub flags: u64,
    /// Segments held.
    pub segments: u64,
    /// Bytes of their JSON.
    pub bytes: u64,
    /// When the last event was received.
    pub last_event_time: Option<Timestamp>,
    /// When the last byte was received.
    pub last_byte_time: Option<Timestamp>,
    /// When the last heartbeat comment was received.
    pub last_heartbeat_time: Option<Timestamp>,
    /// When the store last acknowledged a write.
    pub last_write_time: Option<Timestamp>,
    /// The last error.
    pub last_error: Option<LastError>,
    /// Why the source has no connection, with the key of this generation; `None`: it has one, or none was tried yet.
    pub source_error: Option<LastError>,
    /// Items that were not stored, `flag/KEY: reason`; at most 20.
    pub rejected_items: Vec<String>,
    /// LaunchDarkly's id of the environment.
    pub environment_id: Option<String>,
    /// Another id that arrived unasked; its payload is not applied.
    pub changed_environment_id: Option<String>,
    /// Repairs of the store so far, under this grant.
    pub repairs: u64,
    /// Writes that the store refused for their fence so far, under this grant.
    pub fenced_writes: u64,
    /// Items in doubt, `flag/KEY: why`; at most 20.
    pub doubted_items: Vec<String>,
    /// Why the guard holds a payload back; empty: it does not.
    pub payload_held: String,
    /// What the last repair mended, one word; empty: none yet.
    pub repair_reason: String,
    /// Somebody else keeps changing what is stored.
    pub contended: bool,
    /// Why the store does not tell of foreign writes; `None`: it does, or it has not been asked yet.
    pub untracked: Option<String>,
    /// The last resync for which a payload was taken as right, whatever it took back.
    pub accepted_resync: Option<u64>,
}

impl EnvironmentReport {
    /// Of an environment that was just begun under this grant: nothing is known, held or done yet.
    pub fn new(environment: EnvironmentName, uid: Uid, generation: Generation, grant: Grant) -> Self {
        Self {
            environment,
            uid,
            generation,
            grant,
            grant_state: GrantState::Pending,
            pending_reason: String::new(),
            found_fence: None,
            source_state: None,
            marker: Marker::Unknown,
            store_available: None,
            flags: 0,
            segments: 0,
            bytes: 0,
            last_event_time: None,
            last_byte_time: None,
            last_heartbeat_time: None,
            last_write_time: None,
            last_error: None,
            source_error: None,
            rejected_items: Vec::new(),
            environment_id: None,
            changed_environment_id: None,
            repairs: 0,
            fenced_writes: 0,
            doubted_items: Vec::new(),
            payload_held: String::new(),
            repair_reason: String::new(),
            contended: false,
            untracked: None,
            accepted_resync: None,
        }
    }

    /// Whether nothing differs but times, and counters of which nothing follows.
    pub fn says_the_same(&self, other: &Self) -> bool {
        let counters = |report: &Self| (report.bytes, report.repairs, report.fenced_writes);
        counters(self) == counters(other) && !self.differs_beyond_counters(other)
    }

    /// Whether more than counters and times differ. Fields are named one by one, so that a new one is a decision.
    pub fn differs_beyond_counters(&self, other: &Self) -> bool {
        let Self {
            environment,
            uid,
            generation,
            grant,
            grant_state,
            pending_reason,
            found_fence,
            source_state,
            marker,
            store_available,
            flags: _,
            segments: _,
            bytes: _,
            last_event_time: _,
            last_byte_time: _,
            last_heartbeat_time: _,
            last_write_time: _,
            last_error,
            source_error,
            rejected_items,
            environment_id,
            changed_environment_id,
            repairs: _,
            fenced_writes: _,
            doubted_items,
            payload_held,
            repair_reason,
            contended,
            untracked,
            accepted_resync,
        } = self;
        let is_same = *environment == other.environment
            && *uid == other.uid
            && *generation == other.generation
            && *grant == other.grant
            && *grant_state == other.grant_state
            && *pending_reason == other.pending_reason
            && *found_fence == other.found_fence
            && *source_state == other.source_state
            && *marker == other.marker
            && *store_available == other.store_available
            && is_same_error(last_error.as_ref(), other.last_error.as_ref())
            && is_same_error(source_error.as_ref(), other.source_error.as_ref())
            && *rejected_items == other.rejected_items
            && *environment_id == other.environment_id
            && *changed_environment_id == other.changed_environment_id
            && *doubted_items == other.doubted_items
            && *payload_held == other.payload_held
            && *repair_reason == other.repair_reason
            && *contended == other.contended
            && *untracked == other.untracked
            && *accepted_resync == other.accepted_resync;
        !is_same
    }
}

fn is_same_error(before: Option<&LastError>, after: Option<&LastError>) -> bool {
    match (before, after) {
        (None, None) => true,
        (Some(before), Some(after)) => {
            (before.kind, before.status, &before.message) == (after.kind, after.status, &after.message)
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

impl From<&LastError> for v1::LastError {
    fn from(error: &LastError) -> Self {
        Self {
            kind: v1::ErrorKind::from(error.kind).into(),
            status: error.status.map(u32::from).unwrap_or_default(),
            message: error.message.clone(),
            time: Some(error.time.to_proto()),
        }
    }
}

impl LastError {
    fn from_proto(message: &v1::LastError) -> Option<Self> {
        Some(Self {
            kind: ErrorKind::from_proto(message.kind())?,
            status: u16::try_from(message.status).ok().filter(|status| *status != 0),
            message: message.message.clone(),
            time: Timestamp::from_proto(message.time.as_ref()?),
        })
    }
}

impl From<&Condition> for v1::Condition {
    fn from(condition: &Condition) -> Self {
        Self {
            r#type: condition.kind.to_owned(),
            status: v1::ConditionStatus::from(condition.status).into(),
            reason: condition.reason.to_owned(),
            message: condition.message.clone(),
            observed_generation: condition.observed_generation.0,
            last_transition_time: Some(condition.last_transition_time.to_proto()),
        }
    }
}

impl From<&EnvironmentReport> for v1::EnvironmentReport {
    fn from(report: &EnvironmentReport) -> Self {
        let time = |time: Option<Timestamp>| time.map(Timestamp::to_proto);
        Self {
            environment: report.environment.to_string(),
            uid: report.uid.to_string(),
            generation: report.generation.0,
            grant: Some((&report.grant).into()),
            grant_state: v1::GrantState::from(report.grant_state).into(),
            found_fence: report.found_fence.clone().unwrap_or_default(),
            source_state: report.source_state.map_or(v1::SourceState::Unspecified, Into::into).into(),
            marker: match report.marker {
                Marker::Unknown => v1::MarkerState::Unspecified,
                Marker::Present => v1::MarkerState::Present,
                Marker::Absent => v1::MarkerState::Absent,
            }
            .into(),
            store_available: report.store_available,
            flags: report.flags,
            segments: report.segments,
            bytes: report.bytes,
            last_event_time: time(report.last_event_time),
            last_byte_time: time(report.last_byte_time),
            last_heartbeat_time: time(report.last_heartbeat_time),
            last_write_time: time(report.last_write_time),
            last_error: report.last_error.as_ref().map(Into::into),
            source_error: report.source_error.as_ref().map(Into::into),
            rejected_items: report.rejected_items.clone(),
            environment_id: report.environment_id.clone().unwrap_or_default(),
            changed_environment_id: report.changed_environment_id.clone().unwrap_or_default(),
            repairs: report.repairs,
            pending_reason: report.pending_reason.clone(),
            fenced_writes: report.fenced_writes,
            doubted_items: report.doubted_items.clone(),
            payload_held: report.payload_held.clone(),
            repair_reason: report.repair_reason.clone(),
            contended: report.contended,
            untracked: report.untracked.clone().unwrap_or_default(),
            accepted_resync: report.accepted_resync.unwrap_or_default(),
        }
    }
}

impl TryFrom<&v1::EnvironmentReport> for EnvironmentReport {
    type Error = Malformed;

    fn try_from(message: &v1::EnvironmentReport) -> Result<Self, Malformed> {
        let text = |text: &String| (!text.is_empty()).then(|| text.clone());
        let time = |time: &Option<prost_types::Timestamp>| time.as_ref().map(Timestamp::from_proto);
        Ok(Self {
            environment: message.environment.parse().map_err(|_| Malformed("report.environment"))?,
            uid: message.uid.parse().map_err(|_| Malformed("report.uid"))?,
            generation: Generation(message.generation),
            grant: message.grant.as_ref().ok_or(Malformed("report.grant"))?.try_into()?,
            grant_state: GrantState::from_proto(message.grant_state()).ok_or(Malformed("report.grant_state"))?,
            pending_reason: message.pending_reason.clone(),
            found_fence: text(&message.found_fence),
            source_state: SourceState::from_proto(message.source_state()),
            marker: match message.marker() {
                v1::MarkerState::Unspecified => Marker::Unknown,
                v1::MarkerState::Present => Marker::Present,
                v1::MarkerState::Absent => Marker::Absent,
            },
            store_available: message.store_available,
            flags: message.flags,
            segments: message.segments,
            bytes: message.bytes,
            last_event_time: time(&message.last_event_time),
            last_byte_time: time(&message.last_byte_time),
            last_heartbeat_time: time(&message.last_heartbeat_time),
            last_write_time: time(&message.last_write_time),
            last_error: message.last_error.as_ref().and_then(LastError::from_proto),
            source_error: message.source_error.as_ref().and_then(LastError::from_proto),
            rejected_items: message.rejected_items.clone(),
            environment_id: text(&message.environment_id),
            changed_environment_id: text(&message.changed_environment_id),
            repairs: message.repairs,
            fenced_writes: message.fenced_writes,
            doubted_items: message.doubted_items.clone(),
            payload_held: message.payload_held.clone(),
            repair_reason: message.repair_reason.clone(),
            contended: message.contended,
            untracked: text(&message.untracked),
            accepted_resync: Some(message.accepted_resync).filter(|resync| *resync != 0),
        })
    }
}
