//! How often the store is looked at although nothing happened.

use std::time::Duration;

use flotilla_proto::Timestamp;

use super::{Action, Machine};

/// How often a store is looked at although nothing happened.
#[derive(Debug)]
pub(super) struct Pace {
    /// The time from one look to the next.
    pub(super) look: Duration,
    /// Of so many looks one is a comparison.
    looks_per_comparison: u32,
}

/// Where the store tells at once who else changes the keys, hints may still get lost.
pub(super) const TRACKED: Pace = Pace { look: Duration::from_mins(1), looks_per_comparison: 10 };
/// Where it does not: for a thousand environments of 200 flags less than 1 % of a core, at either end.
pub(super) const UNTRACKED: Pace = Pace { look: Duration::from_secs(10), looks_per_comparison: 30 };

impl Machine {
    /// Look at the store, although nothing happened: hints may get lost.
    pub(in crate::environment) fn check_store(&mut self, now: Timestamp) -> Vec<Action> {
        self.checks += 1;
        if self.checks.is_multiple_of(self.pace().looks_per_comparison) {
            self.writer.distrust(now);
        } else {
            self.writer.check();
        }
        self.after(now, Vec::new())
    }

    /// How long after a look at the store the next one is due, although nothing happened.
    pub(in crate::environment) fn check_pause(&self) -> Duration {
        self.pace().look
    }

    fn pace(&self) -> Pace {
        if self.writer.untracked().is_some() { UNTRACKED } else { TRACKED }
    }
}
