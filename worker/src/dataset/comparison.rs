//! What a store holds, compared with a snapshot of the data set.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ItemId, Snapshot};
use crate::launchdarkly::event::live_version;
use crate::source::Kind;

/// What a comparison brings back of the items that differ, beside their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evidence {
    /// Nothing: what the store holds is to be overwritten, whatever it is.
    Nothing,
    /// The text of items that the store holds in a higher version.
    Newer,
    /// That, and the text of items that only the store holds.
    NewerOrForeign,
}

/// An item as a store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredText {
    /// Which.
    pub id: ItemId,
    /// The version in its text.
    pub version: u64,
    /// Its JSON text.
    pub body: Arc<[u8]>,
}

/// How a store differs from a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Differences {
    /// The items that differ: missing in the store, other bytes there, or there only.
    pub items: Vec<ItemId>,
    /// How many of these are in the store only, and items that LaunchDarkly could have sent.
    pub foreign: usize,
    /// Of all these, the texts that were asked for, as far as they are items that LaunchDarkly could have sent.
    pub stored: Vec<StoredText>,
}

/// Compares what a store holds, fed field by field in any order and perhaps twice, with a snapshot.
#[derive(Debug)]
pub struct Comparison<'a> {
    snapshot: &'a Snapshot,
    evidence: Evidence,
    equal: [Vec<bool>; 2],
    /// And whether LaunchDarkly could have sent them.
    foreign: BTreeMap<ItemId, bool>,
    stored: Vec<StoredText>,
}

impl<'a> Comparison<'a> {
    /// Starts with nothing seen.
    pub fn new(snapshot: &'a Snapshot, evidence: Evidence) -> Self {
        let equal = [vec![false; snapshot.flags.len()], vec![false; snapshot.segments.len()]];
        Self { snapshot, evidence, equal, foreign: BTreeMap::new(), stored: Vec::new() }
    }

    /// The store holds this.
    pub fn found(&mut self, kind: Kind, field: &[u8], value: &[u8]) {
        let items = self.snapshot.of(kind);
        if let Ok(at) = items.binary_search_by(|(key, _)| key.as_bytes().cmp(field)) {
            let (key, body) = &items[at];
            let is_equal = body.is_text(value);
            self.equal[kind as usize][at] = is_equal;
            if !is_equal && self.evidence != Evidence::Nothing {
                // Only texts of a higher version than ours are kept, so that a comparison is as large as what may be newer.
                let ours = live_version(key, &body.text());
                let newer = live_version(key, value).filter(|stored| ours.is_none_or(|ours| *stored > ours));
                self.keep(ItemId { kind, key: Arc::clone(key) }, value, newer);
            }
            return;
        }
        // A field that is not UTF-8 is no key of LaunchDarkly's; it is left alone, as no reader asks for it by name.
        let Ok(key) = std::str::from_utf8(field) else { return };
        let id = ItemId { kind, key: key.into() };
        let version = live_version(&id.key, value);
        if self.evidence == Evidence::NewerOrForeign {
            self.keep(id.clone(), value, version);
        }
        self.foreign.insert(id, version.is_some());
    }

    /// Keeps a text of this version; `None`: it is not to be kept.
    fn keep(&mut self, id: ItemId, value: &[u8], version: Option<u64>) {
        self.stored.extend(version.map(|version| StoredText { id, version, body: value.into() }));
    }

    /// What was found.
    pub fn differences(self) -> Differences {
        let foreign = self.foreign.values().filter(|is_item| **is_item).count();
        let mut items: Vec<_> = self.foreign.into_keys().collect();
        for kind in [Kind::Flag, Kind::Segment] {
            let pairs = self.snapshot.of(kind).iter().zip(&self.equal[kind as usize]);
            items.extend(
                pairs.filter(|(_, equal)| !**equal).map(|((key, _), _)| ItemId { kind, key: Arc::clone(key) }),
            );
        }
        Differences { items, foreign, stored: self.stored }
    }
}
