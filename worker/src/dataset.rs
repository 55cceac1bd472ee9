//! What an environment holds: every item's JSON bytes as they were sent, its version, and the versions of deleted items.
//!
//! Pure. A full payload is compared with what is held and a change touches only what differs, so an unchanged
//! reconnect costs neither memory nor writes. Bodies and keys are shared, so a [`Snapshot`] copies pointers.

// The text of an item, packed when it has been quiet.
mod body;
// What a store holds beside it, and what of that may be newer.
mod comparison;
// Items that stay although a payload says otherwise.
mod doubts;
// Payloads that would remove too much.
mod guard;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::Timestamp;

use self::body::pack_some;
pub use self::body::{Body, Packing, Unpacked};
pub use self::comparison::{Comparison, Differences, Evidence, StoredText};
pub use self::doubts::{Authority, SECOND_OPINION_AFTER};
use self::doubts::{Doubt, Kept, Sent};
pub use self::guard::{Lacking, is_too_much};
use crate::source::{FullPayload, Kind};

/// Names an item of an environment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemId {
    /// Flag or segment.
    pub kind: Kind,
    /// LaunchDarkly's key.
    pub key: Arc<str>,
}

/// An item that is held.
#[derive(Debug, Clone)]
struct Held {
    version: u64,
    body: Body,
    /// When these bytes came.
    since: Timestamp,
}

/// One collection of an environment.
#[derive(Debug, Clone, Default)]
struct Collection {
    items: BTreeMap<Arc<str>, Held>,
    /// Highest version known of items that are not held, so that an older patch does not bring them back.
    deleted: BTreeMap<Arc<str>, u64>,
    /// Versions that LaunchDarkly has taken back: what a store holds of an item up to this one is not newer.
    taken_back: BTreeMap<Arc<str>, u64>,
    /// Items that stay as they are held, although a payload said otherwise.
    doubts: BTreeMap<Arc<str>, Doubt>,
    bytes: u64,
}

/// Everything that an environment holds.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    flags: Collection,
    segments: Collection,
    /// A payload that would remove too much is not believed at once.
    guarded: bool,
}

/// What an environment held at one moment, in key order.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Keys and bodies of the flags.
    pub flags: Vec<(Arc<str>, Body)>,
    /// Keys and bodies of the segments.
    pub segments: Vec<(Arc<str>, Body)>,
}

impl Collection {
    /// Holds an item. If a higher version was held, that one is taken back.
    fn put(&mut self, key: Arc<str>, held: Held) {
        self.bytes += held.body.len() as u64;
        self.deleted.remove(&key);
        self.doubts.remove(&key);
        let version = held.version;
        let old = self.items.insert(Arc::clone(&key), held);
        self.bytes -= old.as_ref().map_or(0, |old| old.body.len() as u64);
        let highest = old.map(|old| old.version).max(self.taken_back.get(&key).copied());
        match highest.filter(|highest| *highest > version) {
            Some(highest) => drop(self.taken_back.insert(key, highest)),
            None => drop(self.taken_back.remove(&key)),
        }
    }

    fn remove(&mut self, key: &str) -> Option<u64> {
        self.doubts.remove(key);
        let old = self.items.remove(key)?;
        self.bytes -= old.body.len() as u64;
        Some(old.version)
    }

    /// A payload lacks an item that is held, or says that it was deleted: it goes. A node that had not seen it yet brings it
    /// in that very version, so that one is not older; but what a store still holds of it is no newer.
    fn take_back(&mut self, key: Arc<str>, sent: Sent) {
        let Some(held) = self.items.get(&key).map(|held| held.version) else { return };
        let sent_before = self.doubts.get(&key).map_or(Some(held), |doubt| doubt.highest_sent(held));
        self.remove(&key);
        let deleted = match sent {
            Sent::Deleted(version) => Some(version),
            Sent::Live(_) | Sent::Nothing => sent_before.and_then(|version| version.checked_sub(1)),
        };
        match deleted {
            Some(deleted) => drop(self.deleted.insert(Arc::clone(&key), deleted)),
            None => drop(self.deleted.remove(&key)),
        }
        let highest = self.taken_back.entry(key).or_default();
        *highest = held.max(*highest);
    }

    /// The highest version known of an item, held or deleted.
    fn known_version(&self, key: &str) -> Option<u64> {
        self.items.get(key).map(|held| held.version).or_else(|| self.deleted.get(key).copied())
    }

    /// The key as it is kept here, or a new one.
    fn shared_key(&self, key: &str) -> Arc<str> {
        self.items.get_key_value(key).map_or_else(|| key.into(), |(key, _)| Arc::clone(key))
    }

    /// Holds what was sent of an item. `None`: those very bytes were held.
    fn take(&mut self, key: &str, version: u64, body: &[u8], now: Timestamp) -> Option<Arc<str>> {
        if let Some(held) = self.items.get_mut(key).filter(|held| held.body.is_text(body)) {
            held.version = version;
            self.doubts.remove(key);
            return None;
        }
        let key = self.shared_key(key);
        self.put(Arc::clone(&key), Held { version, body: body.into(), since: now });
        Some(key)
    }
}

impl Dataset {
    fn of(&self, kind: Kind) -> &Collection {
        match kind {
            Kind::Flag => &self.flags,
            Kind::Segment => &self.segments,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Collection {
        match kind {
            Kind::Flag => &mut self.flags,
            Kind::Segment => &mut self.segments,
        }
    }

    /// How many items of a kind are held.
    pub fn count(&self, kind: Kind) -> u64 {
        self.of(kind).items.len() as u64
    }

    /// How many items are held.
    fn len(&self) -> usize {
        self.flags.items.len() + self.segments.items.len()
    }

    /// Bytes of JSON held.
    pub fn bytes(&self) -> u64 {
        self.flags.bytes + self.segments.bytes
    }

    /// The JSON of an item.
    pub fn body(&self, id: &ItemId) -> Option<&Body> {
        self.of(id.kind).items.get(&id.key).map(|held| &held.body)
    }

    /// Packs a part of what has not changed for so long.
    pub fn pack_some(&mut self, now: Timestamp, quiet: Duration) -> Packing {
        let items = self.flags.items.values_mut().chain(self.segments.items.values_mut());
        pack_some(items.filter(|held| held.since.after(quiet) <= now).map(|held| &mut held.body))
    }

    /// Pointers to everything held.
    pub fn snapshot(&self) -> Snapshot {
        let copy = |collection: &Collection| {
            collection.items.iter().map(|(key, held)| (Arc::clone(key), held.body.clone())).collect()
        };
        Snapshot { flags: copy(&self.flags), segments: copy(&self.segments) }
    }

    /// Applies a full payload: it replaces everything, but for what its authority leaves in doubt. Items that the payload
    /// holds in a form that must not reach the store keep their last good one, if that is of the same lineage. Returns the
    /// items whose stored form changed.
    pub fn replace(&mut self, payload: &FullPayload, authority: Authority, now: Timestamp) -> Vec<ItemId> {
        let mut changed = Vec::new();
        let held_before = self.len();
        let mut present: [HashSet<&str>; 2] = Default::default();
        for rejected in payload.rejected().iter().filter(|_| authority != Authority::OfAnotherLineage) {
            present[rejected.kind as usize].insert(&rejected.key);
            // It exists: what is held is its last good form.
            self.of_mut(rejected.kind).doubts.remove(&*rejected.key);
        }
        for item in payload.items().filter(|item| !item.deleted) {
            present[item.kind as usize].insert(item.key);
            let collection = self.of_mut(item.kind);
            if authority == Authority::OfSecondConnection
                && collection.deleted.get(item.key).is_some_and(|deleted| item.version <= *deleted)
            {
                continue;
            }
            if collection.doubt(item.key, Sent::Live(item.version), authority, now) == Kept::No {
                let key = collection.take(item.key, item.version, item.body, now);
                changed.extend(key.map(|key| ItemId { kind: item.kind, key }));
            }
        }
        let mut deleted: [HashMap<&str, u64>; 2] = Default::default();
        for item in payload.items().filter(|item| item.deleted) {
            deleted[item.kind as usize].insert(item.key, item.version);
        }
        let gone = [Kind::Flag, Kind::Segment].map(|kind| {
            let is_gone = |key: &&Arc<str>| !present[kind as usize].contains(&***key);
            self.of(kind).items.keys().filter(is_gone).cloned().collect::<Vec<_>>()
        });
        let is_held_back =
            self.guarded && authority.is_of_lineage() && is_too_much(gone.iter().map(Vec::len).sum(), held_before);
        for (kind, gone) in [Kind::Flag, Kind::Segment].into_iter().zip(gone) {
            let deleted = &deleted[kind as usize];
            let collection = self.of_mut(kind);
            for key in gone {
                let sent = Sent::of_gone(deleted.get(&*key));
                if is_held_back && collection.hold_back(&key, sent, now) == Kept::Yes {
                    continue;
                }
                if collection.doubt(&key, sent, authority, now) == Kept::No {
                    if authority.is_of_lineage() {
                        collection.take_back(Arc::clone(&key), sent);
                    } else {
                        collection.remove(&key);
                    }
                    changed.push(ItemId { kind, key });
                }
            }
            if !authority.is_of_lineage() {
                // Whether what a store still holds may be newer, the writer knows.
                collection.deleted.clear();
                collection.taken_back.clear();
            }
            for (key, version) in deleted {
                if !collection.items.contains_key(*key) {
                    let known = collection.deleted.entry((*key).into()).or_default();
                    *known = (*version).max(*known);
                }
            }
        }
        changed
    }

    /// Applies a patch. `None`: its version is not above the one known, and nothing changed. What is said of an item in
    /// doubt, at the version kept or above it, ends the doubt; below it, whoever decides must not be behind that.
    pub fn patch(&mut self, kind: Kind, key: &str, version: u64, body: &[u8], now: Timestamp) -> Option<ItemId> {
        let collection = self.of_mut(kind);
        if let Some(known) = collection.known_version(key).filter(|known| version <= *known) {
            if version == known && collection.doubts.contains_key(key) {
                // What is held may be somebody else's, of the same version.
                return collection.take(key, version, body, now).map(|key| ItemId { kind, key });
            }
            collection.catch_up(key, Sent::Live(version));
            return None;
        }
        let key = collection.shared_key(key);
        collection.put(Arc::clone(&key), Held { version, body: body.into(), since: now });
        Some(ItemId { kind, key })
    }

    /// Applies a deletion, and remembers its version, held or not. `None`: nothing held was removed.
    pub fn delete(&mut self, kind: Kind, key: &str, version: u64) -> Option<ItemId> {
        let collection = self.of_mut(kind);
        if collection.known_version(key).is_some_and(|known| version <= known) {
            collection.catch_up(key, Sent::Deleted(version));
            return None;
        }
        let key: Arc<str> = key.into();
        let was_held = collection.remove(&key).is_some();
        collection.deleted.insert(Arc::clone(&key), version);
        was_held.then_some(ItemId { kind, key })
    }
}

impl Snapshot {
    /// The items of a kind.
    pub fn of(&self, kind: Kind) -> &[(Arc<str>, Body)] {
        match kind {
            Kind::Flag => &self.flags,
            Kind::Segment => &self.segments,
        }
    }

    /// Bytes of keys and bodies.
    pub fn bytes(&self) -> usize {
        self.flags.iter().chain(&self.segments).map(|(key, body)| key.len() + body.len()).sum()
    }
}

#[cfg(test)]
mod tests;
