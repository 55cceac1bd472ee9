//! What somebody else did to the keys, or the store itself, and how often.

use std::time::Duration;

use flotilla_proto::{Marker, Timestamp};

use super::{COMPARE_AGAIN, Standing, Writer};
use crate::fence::Found;
use crate::store::{Damage, Look};

/// What is mended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::environment) enum Repair {
    /// Everything was gone.
    Lost,
    /// The fence was gone.
    Fence,
    /// The marker was gone.
    Marker,
    /// Items were other than they should be.
    Items,
    /// A key would have expired.
    Expiry,
    /// A key was of another type.
    Type,
}

/// So many comparisons in succession that find foreign changes are one too many for chance.
const CHANCE: u32 = 5;
/// What is longer ago has nothing to do with what is found now.
const LATELY: Duration = Duration::from_mins(5);
/// After so long without a foreign write a comparison is to say that it is over.
const QUIET: Duration = Duration::from_secs(10);
/// The longest pause between two comparisons that foreign writes cause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

impl Repair {
    /// One word for it.
    pub(in crate::environment) fn as_str(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Fence => "fence",
            Self::Marker => "marker",
            Self::Items => "items",
            Self::Expiry => "expiry",
            Self::Type => "type",
        }
    }
}

/// How often somebody else changes what is stored.
#[derive(Debug, Default)]
pub(super) struct Contention {
    /// Comparisons in succession in which a change was found, or since the one before which a look found one.
    times: u32,
    last: Option<Timestamp>,
    /// A look has found a change since the last comparison.
    pub(super) noted: bool,
}

impl Contention {
    fn compared(&mut self, now: Timestamp, differs: bool) {
        if !std::mem::take(&mut self.noted) && !differs {
            self.times = 0;
            return;
        }
        let is_lately = self.last.replace(now).is_some_and(|last| now.since(last) < LATELY);
        self.times = if is_lately { self.times.saturating_add(1) } else { 1 };
    }
}

impl Writer {
    /// What a look shows to be mended that was in line under this grant. `marker` is what the look before said.
    pub(super) fn damage_seen(&self, look: &Look, marker: Marker) -> Option<Repair> {
        if !self.was_in_line || self.mends.is_some() {
            return None;
        }
        let is_empty = !look.marker && look.flags + look.segments == 0;
        match (&look.found, self.standing == Standing::Held) {
            (Found::Absent, _) if self.expected.is_none() => None,
            (Found::Absent, _) if is_empty => Some(Repair::Lost),
            (Found::Absent, _) => Some(Repair::Fence),
            (Found::Value(_), true) => match look.damage {
                Some(Damage::Type) => Some(Repair::Type),
                Some(Damage::Expiry) => Some(Repair::Expiry),
                None => (!look.marker && marker == Marker::Present).then_some(Repair::Marker),
            },
            (Found::Value(_) | Found::WrongType, _) => None,
        }
    }

    /// How long after a comparison the next one may follow that a foreign write causes: who writes again and again is
    /// not fought over in a tight loop.
    pub(super) fn compare_pause(&self) -> Duration {
        let doublings = self.contention.times.saturating_sub(CHANCE).min(6);
        (COMPARE_AGAIN * (1 << doublings)).min(LONGEST_PAUSE)
    }

    /// A comparison of what had been in line found something, or nothing.
    pub(super) fn compared_again(&mut self, now: Timestamp, differs: bool) {
        self.contention.compared(now, differs);
        if self.is_contended() {
            // Whether it is over shows when for a while nobody says that somebody wrote.
            self.verify_at.get_or_insert(now.after(self.compare_pause().max(QUIET)));
        }
    }

    /// Whether somebody else writes again and again.
    pub(in crate::environment) fn is_contended(&self) -> bool {
        self.contention.times > CHANCE
    }
}
