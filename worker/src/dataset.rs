//! What an environment holds: every item's JSON bytes as they were sent, its version, and the versions of deleted items.
//!
//! Pure. A full payload is compared with what is held and a change touches only what differs, so an unchanged
//! reconnect costs neither memory nor writes. Bodies and keys are shared, so a [`Snapshot`] copies pointers.

use std::collections::BTreeMap;
use std::sync::Arc;

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
    body: Arc<[u8]>,
}

/// One collection of an environment.
#[derive(Debug, Clone, Default)]
struct Collection {
    items: BTreeMap<Arc<str>, Held>,
    /// Highest version known of items that are not held, so that an older patch does not bring them back.
    deleted: BTreeMap<Arc<str>, u64>,
    bytes: u64,
}

/// How versions count when a full payload is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// LaunchDarkly's: they grow, and deleted ones are remembered.
    Growing,
    /// Not comparable with those held: a file's, or those of another lineage. The payload stands for itself.
    Meaningless,
}

/// Everything that an environment holds.
#[derive(Debug, Clone, Default)]
pub struct Dataset {
    flags: Collection,
    segments: Collection,
}

/// What an environment held at one moment, in key order.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Keys and bodies of the flags.
    pub flags: Vec<(Arc<str>, Arc<[u8]>)>,
    /// Keys and bodies of the segments.
    pub segments: Vec<(Arc<str>, Arc<[u8]>)>,
}

impl Collection {
    fn put(&mut self, key: Arc<str>, held: Held) {
        self.bytes += held.body.len() as u64;
        self.deleted.remove(&key);
        if let Some(old) = self.items.insert(key, held) {
            self.bytes -= old.body.len() as u64;
        }
    }

    fn remove(&mut self, key: &str) -> Option<u64> {
        let old = self.items.remove(key)?;
        self.bytes -= old.body.len() as u64;
        Some(old.version)
    }

    /// The highest version known of an item, held or deleted.
    fn known_version(&self, key: &str) -> Option<u64> {
        self.items.get(key).map(|held| held.version).or_else(|| self.deleted.get(key).copied())
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

    /// Bytes of JSON held.
    pub fn bytes(&self) -> u64 {
        self.flags.bytes + self.segments.bytes
    }

    /// The JSON of an item.
    pub fn body(&self, id: &ItemId) -> Option<&Arc<[u8]>> {
        self.of(id.kind).items.get(&id.key).map(|held| &held.body)
    }

    /// Pointers to everything held.
    pub fn snapshot(&self) -> Snapshot {
        let copy = |collection: &Collection| {
            collection.items.iter().map(|(key, held)| (Arc::clone(key), Arc::clone(&held.body))).collect()
        };
        Snapshot { flags: copy(&self.flags), segments: copy(&self.segments) }
    }

    /// Applies a full payload: it replaces everything, whatever the versions. Items that the payload holds in a form
    /// that must not reach the store keep their last good one. Returns the items whose stored form changed.
    pub fn replace(&mut self, payload: &FullPayload, versions: Versions) -> Vec<ItemId> {
        let mut changed = Vec::new();
        let mut present: [std::collections::HashSet<&str>; 2] = Default::default();
        for rejected in payload.rejected() {
            present[rejected.kind as usize].insert(&rejected.key);
        }
        for item in payload.items().filter(|item| !item.deleted) {
            present[item.kind as usize].insert(item.key);
            let collection = self.of_mut(item.kind);
            match collection.items.get_mut(item.key) {
                Some(held) if *held.body == *item.body => held.version = item.version,
                Some(_) | None => {
                    let key = collection
                        .items
                        .get_key_value(item.key)
                        .map_or_else(|| Arc::from(item.key), |(key, _)| Arc::clone(key));
                    collection.put(Arc::clone(&key), Held { version: item.version, body: item.body.into() });
                    changed.push(ItemId { kind: item.kind, key });
                }
            }
        }
        for kind in [Kind::Flag, Kind::Segment] {
            let collection = self.of_mut(kind);
            let gone: Vec<_> =
                collection.items.keys().filter(|key| !present[kind as usize].contains(&***key)).cloned().collect();
            for key in gone {
                let version = collection.remove(&key).unwrap_or_default();
                collection.deleted.insert(Arc::clone(&key), version);
                changed.push(ItemId { kind, key });
            }
            if versions == Versions::Meaningless {
                collection.deleted.clear();
            }
        }
        for item in payload.items().filter(|item| item.deleted) {
            let known = self.of_mut(item.kind).deleted.entry(item.key.into()).or_default();
            *known = item.version.max(*known);
        }
        changed
    }

    /// Applies a patch. `None`: its version is not above the one known, and nothing changed.
    pub fn patch(&mut self, kind: Kind, key: &str, version: u64, body: &[u8]) -> Option<ItemId> {
        let collection = self.of_mut(kind);
        if collection.known_version(key).is_some_and(|known| version <= known) {
            return None;
        }
        let key: Arc<str> =
            collection.items.get_key_value(key).map_or_else(|| key.into(), |(key, _)| Arc::clone(key));
        collection.put(Arc::clone(&key), Held { version, body: body.into() });
        Some(ItemId { kind, key })
    }

    /// Applies a deletion, and remembers its version, held or not. `None`: nothing held was removed.
    pub fn delete(&mut self, kind: Kind, key: &str, version: u64) -> Option<ItemId> {
        let collection = self.of_mut(kind);
        if collection.known_version(key).is_some_and(|known| version <= known) {
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
    pub fn of(&self, kind: Kind) -> &[(Arc<str>, Arc<[u8]>)] {
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

/// Compares what a store holds, fed field by field in any order and perhaps twice, with a snapshot.
#[derive(Debug)]
pub struct Comparison<'a> {
    snapshot: &'a Snapshot,
    equal: [Vec<bool>; 2],
    foreign: Vec<ItemId>,
}

impl<'a> Comparison<'a> {
    /// Starts with nothing seen.
    pub fn new(snapshot: &'a Snapshot) -> Self {
        let equal = [vec![false; snapshot.flags.len()], vec![false; snapshot.segments.len()]];
        Self { snapshot, equal, foreign: Vec::new() }
    }

    /// The store holds this.
    pub fn found(&mut self, kind: Kind, field: &[u8], value: &[u8]) {
        let items = self.snapshot.of(kind);
        match items.binary_search_by(|(key, _)| key.as_bytes().cmp(field)) {
            Ok(at) => self.equal[kind as usize][at] = *items[at].1 == *value,
            // A field that is not UTF-8 is no key of LaunchDarkly's; it is left alone, as no reader asks for it by name.
            Err(_) => {
                self.foreign.extend(std::str::from_utf8(field).ok().map(|key| ItemId { kind, key: key.into() }));
            }
        }
    }

    /// The items that differ: missing in the store, other bytes there, or there only.
    pub fn differing(self) -> Vec<ItemId> {
        let mut differing = self.foreign;
        for kind in [Kind::Flag, Kind::Segment] {
            let pairs = self.snapshot.of(kind).iter().zip(&self.equal[kind as usize]);
            differing.extend(
                pairs.filter(|(_, equal)| !**equal).map(|((key, _), _)| ItemId { kind, key: Arc::clone(key) }),
            );
        }
        differing
    }
}

#[cfg(test)]
mod tests;
