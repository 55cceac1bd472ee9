//! The guard over what is found in a store: data of which nobody knows where it came from, and of which the data set lacks
//! most, may have been put there for a reason. Nothing is written until a second payload has said the same.

use flotilla_proto::Timestamp;

use super::{StoredVersions, Versions, Writer};
use crate::dataset::{Differences, Lacking, is_too_much};
use crate::fence::Lineage;

/// Whether it stands in the way of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guard {
    /// It does not.
    Open,
    /// It does, since then.
    Holding { lacking: Lacking, since: Timestamp },
    /// It does not for the comparison that follows.
    Confirmed,
}

impl Writer {
    /// Looks at what a comparison found, before that counts.
    pub(in crate::environment) fn guard(&mut self, now: Timestamp, found: &Differences) {
        let is_unknown = self.stored.as_ref().is_none_or(Lineage::is_unknown);
        let is_overruled =
            self.stored_versions != StoredVersions::Comparable || self.me.versions == Versions::Meaningless;
        let held = usize::try_from(self.counts.iter().sum::<u64>()).unwrap_or(usize::MAX);
        let lacking = Lacking { items: found.foreign, held: held.max(found.foreign) };
        if self.guard == Guard::Open && is_unknown && !is_overruled && is_too_much(lacking.items, lacking.held) {
            self.guard = Guard::Holding { lacking, since: now };
        }
    }

    /// What is held back, and since when.
    pub(in crate::environment) fn held_back(&self) -> Option<(Lacking, Timestamp)> {
        match self.guard {
            Guard::Holding { lacking, since } => Some((lacking, since)),
            Guard::Open | Guard::Confirmed => None,
        }
    }

    /// A second payload is there: what the store lacks or has too much then is LaunchDarkly's will.
    pub(in crate::environment) fn confirm(&mut self) {
        if self.held_back().is_some() {
            self.guard = Guard::Confirmed;
        }
    }
}
