//! Items in doubt: the fleet's bytes stay for a while, although LaunchDarkly seems to have something older or nothing.
//!
//! LaunchDarkly is many nodes, and one that has just been connected to may be behind. So within a lineage what its first
//! payload would take back is kept, until a later event on the item or a payload over another connection decides. That
//! one is believed, unless it is behind what the first one said: then neither is, and LaunchDarkly is asked again.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::Timestamp;

use super::{Collection, Dataset, Held, ItemId, StoredText};
use crate::source::{FullPayload, Kind};

/// How old a doubt is when the payload of another connection decides: a node that was behind has caught up by then.
pub const SECOND_OPINION_AFTER: Duration = Duration::from_secs(30);

/// An item that came so lately may not have reached every node of LaunchDarkly: its absence from a payload is no
/// deletion yet.
const CAME_LATELY: Duration = Duration::from_mins(1);

/// How much a full payload says against what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authority {
    /// The first of a connection. Doubts that are old enough it decides.
    OfNewConnection,
    /// Of a second connection, while the first stays up, whose deletions it may not have seen.
    OfSecondConnection,
    /// A poll. Any node may have answered it; doubts of earlier polls it decides.
    OfPoll,
    /// A later one of the same connection: LaunchDarkly's will.
    Binding,
    /// The one that the user has said to be right, whatever it takes back.
    Accepted,
    /// A file's: versions mean nothing.
    OfFile,
    /// The first after the user changed where the data comes from: versions are not comparable with those held, and those
    /// of deleted items are forgotten.
    OfAnotherLineage,
}

impl Authority {
    /// Whether versions held say anything about those sent.
    pub(super) fn is_of_lineage(self) -> bool {
        match self {
            Self::OfNewConnection | Self::OfSecondConnection | Self::OfPoll | Self::Binding => true,
            Self::Accepted | Self::OfFile | Self::OfAnotherLineage => false,
        }
    }
}

/// What a payload has of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// This version.
    Live(u64),
    /// That it was deleted by this version.
    Deleted(u64),
    /// Nothing.
    Nothing,
}

/// Why an item stays, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doubt {
    pub(super) sent: Sent,
    pub(super) since: Timestamp,
    /// For the guard's sake.
    pub(super) guarded: bool,
    /// What is held was found in a store; LaunchDarkly has not sent it.
    pub(super) adopted: bool,
}

/// Whether an item stays as it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// In doubt.
    Yes,
    /// The payload applies.
    No,
}

impl Sent {
    /// Of an item that is not in a payload alive, whose deletion it may tell.
    pub(super) fn of_gone(deleted: Option<&u64>) -> Self {
        deleted.map_or(Self::Nothing, |version| Self::Deleted(*version))
    }

    fn version(self) -> Option<u64> {
        match self {
            Self::Live(version) | Self::Deleted(version) => Some(version),
            Self::Nothing => None,
        }
    }

    /// Whether this takes back an item that is held in a version.
    pub(super) fn takes_back(self, held: u64) -> bool {
        match self {
            Self::Live(version) => version < held,
            Self::Deleted(version) => version <= held,
            Self::Nothing => true,
        }
    }
}

impl Doubt {
    /// Whether a node that sends this has not seen yet what another one has sent before.
    fn is_ahead_of(&self, sent: Sent, held: &Held, now: Timestamp) -> bool {
        match (self.sent, sent) {
            (Sent::Live(before), Sent::Live(version) | Sent::Deleted(version)) => version < before,
            (Sent::Deleted(before), Sent::Live(version)) => version <= before,
            (Sent::Nothing, Sent::Live(_)) => true,
            (Sent::Live(_), Sent::Nothing) => !self.adopted && now.since(held.since) < CAME_LATELY,
            // What is gone stays gone, until it is created again.
            (Sent::Deleted(_) | Sent::Nothing, Sent::Deleted(_) | Sent::Nothing) => false,
        }
    }

    /// The highest version that LaunchDarkly is known to have given an item which is held, or had.
    pub(super) fn highest_sent(&self, held: u64) -> Option<u64> {
        if self.adopted { self.sent.version() } else { Some(held) }
    }

    /// Whether the item would go, rather than change.
    pub(super) fn is_about_removal(&self) -> bool {
        matches!(self.sent, Sent::Deleted(_) | Sent::Nothing)
    }

    fn is_ripe(&self, now: Timestamp) -> bool {
        now.since(self.since) >= SECOND_OPINION_AFTER
    }
}

impl Collection {
    /// Decides between what is held of an item and what a payload has of it, and notes the doubt if there is one.
    pub(super) fn doubt(&mut self, key: &str, sent: Sent, authority: Authority, now: Timestamp) -> Kept {
        let Some((key, held)) = self.items.get_key_value(key) else { return Kept::No };
        let known = self.doubts.get(key);
        let may_be_behind = match (known, authority) {
            (_, Authority::Binding | Authority::Accepted | Authority::OfFile | Authority::OfAnotherLineage) => {
                false
            }
            (None, Authority::OfNewConnection | Authority::OfSecondConnection | Authority::OfPoll) => {
                sent != Sent::Nothing || now.since(held.since) < CAME_LATELY
            }
            (Some(doubt), Authority::OfNewConnection | Authority::OfSecondConnection) => {
                !doubt.is_ripe(now) || doubt.is_ahead_of(sent, held, now)
            }
            (Some(doubt), Authority::OfPoll) => doubt.is_ahead_of(sent, held, now),
        };
        if !may_be_behind || !sent.takes_back(held.version) {
            return Kept::No;
        }
        let doubt = match known {
            None => Doubt { sent, since: now, guarded: false, adopted: false },
            // However often it connects: who decides must have seen all that was said meanwhile.
            Some(doubt) if !doubt.is_ripe(now) && authority == Authority::OfNewConnection => {
                let sent = if doubt.is_ahead_of(sent, held, now) { doubt.sent } else { sent };
                Doubt { sent, ..*doubt }
            }
            // But what two in succession say is believed.
            Some(doubt) => Doubt { sent, since: now, ..*doubt },
        };
        self.doubts.insert(Arc::clone(key), doubt);
        Kept::Yes
    }

    /// Notes an event on an item that is held in a higher version: if it is in doubt, its node is no longer as far behind.
    pub(super) fn catch_up(&mut self, key: &str, sent: Sent) {
        if let Some(doubt) = self.doubts.get_mut(key).filter(|doubt| doubt.sent.version() <= sent.version()) {
            doubt.sent = sent;
        }
    }

    /// Whether a payload over a second connection, which has this of an item in doubt, settles it.
    fn is_settled_by(&self, key: &str, sent: Sent, now: Timestamp) -> bool {
        let (Some(held), Some(doubt)) = (self.items.get(key), self.doubts.get(key)) else { return true };
        !sent.takes_back(held.version) || !doubt.is_ahead_of(sent, held, now)
    }

    /// Why an item in doubt stays.
    fn why(&self, key: &str, doubt: &Doubt) -> String {
        let kept = self.items.get(key).map_or(0, |held| held.version);
        match doubt.sent {
            Sent::Live(version) => format!("LaunchDarkly sent version {version}, version {kept} is kept"),
            Sent::Deleted(version) => {
                format!("LaunchDarkly sent its deletion by version {version}, version {kept} is kept")
            }
            Sent::Nothing => format!("LaunchDarkly did not send it, version {kept} is kept"),
        }
    }
}

impl Dataset {
    /// The items in doubt and why, in order.
    pub fn doubts(&self) -> impl Iterator<Item = (ItemId, String)> {
        [Kind::Flag, Kind::Segment].into_iter().flat_map(|kind| {
            let collection = self.of(kind);
            collection
                .doubts
                .iter()
                .map(move |(key, doubt)| (ItemId { kind, key: Arc::clone(key) }, collection.why(key, doubt)))
        })
    }

    /// When the oldest doubt is old enough for [`Self::decide`].
    pub fn second_opinion_due(&self) -> Option<Timestamp> {
        let doubts = self.flags.doubts.values().chain(self.segments.doubts.values());
        doubts.map(|doubt| doubt.since.after(SECOND_OPINION_AFTER)).min()
    }

    /// Takes over, in doubt, what a store holds of items that is newer than all that is known of them. Returns which.
    pub fn adopt(&mut self, stored: Vec<StoredText>, now: Timestamp) -> BTreeSet<ItemId> {
        let adopted = stored.into_iter().filter_map(|stored| self.adopt_one(stored, now)).collect();
        self.guard_adopted();
        adopted
    }

    fn adopt_one(&mut self, stored: StoredText, now: Timestamp) -> Option<ItemId> {
        let StoredText { id: ItemId { kind, key }, version, body } = stored;
        let collection = self.of_mut(kind);
        let known = collection.known_version(&key).max(collection.taken_back.get(&key).copied());
        if known.is_some_and(|known| version <= known) {
            return None;
        }
        let sent = collection.items.get(&key).map_or(Sent::Nothing, |held| Sent::Live(held.version));
        let begun = Doubt { sent, since: now, guarded: false, adopted: true };
        let doubt = collection.doubts.get(&key).map_or(begun, |known| Doubt { adopted: true, ..*known });
        let key = collection.shared_key(&key);
        collection.put(Arc::clone(&key), Held { version, body: body.into(), since: now });
        collection.doubts.insert(Arc::clone(&key), doubt);
        Some(ItemId { kind, key })
    }

    /// Applies a full payload that came over a second connection, beside the one that is followed, to the items whose
    /// doubts are old enough, and to no others. Where it is behind the first connection the doubt stays. Returns the items
    /// whose stored form changed.
    pub fn decide(&mut self, payload: &FullPayload, now: Timestamp) -> Vec<ItemId> {
        let mut changed = Vec::new();
        for kind in [Kind::Flag, Kind::Segment] {
            let collection = self.of_mut(kind);
            let ripe = collection.doubts.iter().filter(|(_, doubt)| doubt.is_ripe(now));
            let mut undecided: BTreeSet<_> = ripe.map(|(key, _)| Arc::clone(key)).collect();
            for rejected in payload.rejected().iter().filter(|rejected| rejected.kind == kind) {
                // It exists: what is held is its last good form.
                if undecided.remove(&*rejected.key) {
                    collection.doubts.remove(&*rejected.key);
                }
            }
            let mut deleted = HashMap::new();
            for item in payload.items().filter(|item| item.kind == kind) {
                if item.deleted {
                    deleted.insert(item.key, item.version);
                } else if undecided.remove(item.key)
                    && collection.is_settled_by(item.key, Sent::Live(item.version), now)
                {
                    let key = collection.take(item.key, item.version, item.body, now);
                    changed.extend(key.map(|key| ItemId { kind, key }));
                }
            }
            for key in undecided {
                let sent = Sent::of_gone(deleted.get(&*key));
                if collection.is_settled_by(&key, sent, now) {
                    collection.take_back(Arc::clone(&key), sent);
                    changed.push(ItemId { kind, key });
                }
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests;
