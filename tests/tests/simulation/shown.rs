//! What must hold of what control tells: in its lists, and to those who watch.

use flotilla_proto::v1;
use v1::watch_environments_response::Event;

use crate::checker::parsed;
use crate::history::Record;
use crate::user::prefix_of;
use crate::world::World;

/// For how long an environment may be shown as current although nobody can read it: a lease until control misses a worker
/// that it cannot reach, the time limit of a store call, a look at the store, and the user's own way to control.
const LONGEST_UNTRUE: u64 = 30_000;
/// A stream that is silent for so long is none.
const READ_TIMEOUT: u64 = 300_000;

impl World {
    /// Notes which environments SDKs can read now.
    pub(crate) fn note_what_is_readable(&mut self) {
        for (prefix, keys) in &self.store {
            let is_served = keys.fence.as_ref().is_some_and(|fence| fence.ends_with(" serving"));
            if keys.marker && keys.has_flags() && is_served {
                match self.readable.get_mut(prefix) {
                    Some(at) => *at = self.now,
                    None => drop(self.readable.insert(prefix.clone(), self.now)),
                }
            }
        }
    }

    /// Looks at the list that has just come.
    pub(crate) fn check_what_is_shown(&mut self) {
        let (now, listed) = &self.listed;
        let mut untruths = Vec::new();
        for shown in listed {
            let Some(status) = &shown.status else { continue };
            if status.initialization() != v1::Initialization::Current {
                continue;
            }
            let prefix = prefix_of(&shown.name);
            let last_byte = status.last_byte_time.map_or(0, |time| flotilla_proto::Timestamp::from_proto(&time).0);
            if last_byte + READ_TIMEOUT < self.wall().0 {
                untruths.push(format!("{now}: {} is current, and its stream silent", shown.name));
            }
            if !self.records.iter().any(|record| closes_comparison(record, &prefix, &shown.uid, status.epoch)) {
                let (epoch, story) = (status.epoch, self.story(&prefix, *now));
                untruths.push(format!(
                    "{now}: {} is current, nothing written up to epoch {epoch}\n{story}",
                    shown.name
                ));
            }
            let unreadable = now - self.readable.get(&prefix).unwrap_or(&0);
            self.longest_untrue = self.longest_untrue.max(unreadable);
            if unreadable > LONGEST_UNTRUE {
                let story = self.story(&prefix, *now);
                untruths.push(format!("{now}: {} is current, unreadable for {unreadable} ms\n{story}", shown.name));
            }
        }
        self.untruths.extend(untruths);
    }

    /// Looks at what the watch is about to show. Nothing that is shown is older than what was shown before.
    pub(crate) fn check_what_is_watched(&mut self, event: Option<&Event>) {
        let Some(Event::Changed(next)) = event else { return };
        let Some(last) = self.watched.get(&next.name).filter(|last| last.uid == next.uid) else { return };
        let epoch = |shown: &v1::Environment| shown.status.as_ref().map_or(0, |status| status.epoch);
        if next.generation < last.generation || epoch(next) < epoch(last) {
            self.untruths.push(format!("{}: {next:?} was shown after {last:?}", self.now));
        }
    }
}

/// Whether an operation left data and marker under this epoch of an environment, or an earlier one: until an owner has
/// reported under a new grant, what it or the last owner said stands.
fn closes_comparison(record: &Record, prefix: &str, uid: &str, epoch: u64) -> bool {
    record.prefix == prefix
        && record.accepted
        && record.what.brings_data()
        && record.after.marker
        && parsed(record.next.as_ref())
            .is_ok_and(|fence| fence.is_some_and(|fence| fence.uid.to_string() == uid && fence.epoch.0 <= epoch))
}
