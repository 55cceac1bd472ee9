//! The guard: a payload that would remove most of what there is may be somebody's mistake, and is not believed at once.
//!
//! What it lacks is in doubt then, like what a node that is behind lacks, and is decided about in the same way.

use flotilla_proto::Timestamp;

use super::doubts::{Doubt, Kept, Sent};
use super::{Collection, Dataset};

/// From so many items on, more than half of them is too much to go at once.
const MANY: usize = 20;

/// Whether it is too much that so many of the items held go at once: more than half of many, or all.
pub fn is_too_much(going: usize, held: usize) -> bool {
    going > 0 && (going >= held || (held >= MANY && going * 2 > held))
}

/// What a payload lacks that the guard holds back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    /// How many items it lacks.
    pub items: usize,
    /// How many are held.
    pub held: usize,
}

impl Collection {
    /// Puts an item in doubt for the guard's sake. `No`: it was in doubt before, which goes its way, or its deletion was
    /// told.
    pub(super) fn hold_back(&mut self, key: &str, sent: Sent, now: Timestamp) -> Kept {
        let Some((key, held)) = self.items.get_key_value(key) else { return Kept::No };
        if self.doubts.contains_key(key) || !sent.takes_back(held.version) {
            return Kept::No;
        }
        self.doubts.insert(key.clone(), Doubt { sent, since: now, guarded: true, adopted: false });
        Kept::Yes
    }
}

impl Dataset {
    /// Sets whether payloads are guarded against.
    pub fn set_guarded(&mut self, guarded: bool) {
        self.guarded = guarded;
        if !guarded {
            // What is in doubt stays so, like what a node that is behind lacks.
            let doubts = self.flags.doubts.values_mut().chain(self.segments.doubts.values_mut());
            doubts.for_each(|doubt| doubt.guarded = false);
        }
    }

    /// Items were adopted from a store: what is in doubt for being gone may have become too much.
    pub(super) fn guard_adopted(&mut self) {
        let collections = [&self.flags, &self.segments];
        let doubts = || collections.into_iter().flat_map(|collection| collection.doubts.values());
        if self.guarded && is_too_much(doubts().filter(|doubt| doubt.is_about_removal()).count(), self.len()) {
            for collection in [&mut self.flags, &mut self.segments] {
                let going = collection.doubts.values_mut().filter(|doubt| doubt.is_about_removal());
                going.for_each(|doubt| doubt.guarded = true);
            }
        }
    }

    /// What the guard holds back, until it is decided.
    pub fn held_back(&self) -> Option<Lacking> {
        let doubts = self.flags.doubts.values().chain(self.segments.doubts.values());
        let items = doubts.filter(|doubt| doubt.guarded).count();
        (items > 0).then(|| Lacking { items, held: self.len() })
    }
}

#[cfg(test)]
mod tests;
