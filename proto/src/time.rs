//! Instants, for hearts that read no clock.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// Milliseconds since the Unix epoch, as a process counts them: it never goes back while the process runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// How long ago `earlier` was; zero if it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// This instant, later by `duration`.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)))
    }

    /// As a message.
    pub fn to_proto(self) -> prost_types::Timestamp {
        SystemTime::from(self).into()
    }

    /// From a message; a time before 1970 is 1970.
    pub fn from_proto(message: &prost_types::Timestamp) -> Self {
        let millis = message.seconds.saturating_mul(1000).saturating_add(i64::from(message.nanos) / 1_000_000);
        Self(u64::try_from(millis).unwrap_or(0))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        Self::UNIX_EPOCH + Duration::from_millis(timestamp.0)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A duration as a message.
pub fn duration_to_proto(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A duration from a message; `None` if it is negative.
pub fn duration_from_proto(message: &prost_types::Duration) -> Option<Duration> {
    Some(Duration::new(u64::try_from(message.seconds).ok()?, u32::try_from(message.nanos).ok()?))
}

/// A duration as options and manifests take it: `1m30s`.
pub fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string().replace(' ', "")
}
