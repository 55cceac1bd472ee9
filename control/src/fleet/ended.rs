//! Environments that ended: what a worker may be told to give up although no record speaks of it.
//!
//! A database that was restored from a backup, or is another fleet's, does not know every environment. So not knowing
//! one is no reason to take it from a worker; knowing that it ended is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::{Timestamp, Uid};

/// How long an end is remembered: as long as a released fence stands in the store. A worker that comes back with an
/// environment later than that may not claim its prefix, because its grant is no longer confirmed.
const REMEMBERED: Duration = Duration::from_hours(7 * 24);

/// The environments that were removed or abandoned in the last 7 days.
#[derive(Debug, Clone, Default)]
pub(super) struct Ended {
    at: BTreeMap<Uid, Timestamp>,
    by_time: BTreeSet<(Timestamp, Uid)>,
}

impl Ended {
    /// Notes that an environment ended.
    pub(super) fn note(&mut self, at: Timestamp, uid: Uid) {
        if let Some(earlier) = self.at.insert(uid.clone(), at) {
            self.by_time.remove(&(earlier, uid.clone()));
        }
        self.by_time.insert((at, uid));
    }

    /// Whether it is known to have ended.
    pub(super) fn contains(&self, uid: &Uid) -> bool {
        self.at.contains_key(uid)
    }

    /// Forgets what is too old. The instant before which everything is forgotten, if something was.
    pub(super) fn forget(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut forgotten = None;
        while let Some((at, _)) = self.by_time.first()
            && now.since(*at) >= REMEMBERED
            && let Some((at, uid)) = self.by_time.pop_first()
        {
            self.at.remove(&uid);
            forgotten = Some(at.after(Duration::from_millis(1)));
        }
        forgotten
    }
}
