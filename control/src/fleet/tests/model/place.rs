//! A prefix of the store: its fence, its data, and what happens to an operation that arrives there.

use flotilla_proto::Uid;
use flotilla_worker::fence::{Fence, FenceKind};

/// The data of an environment, as one item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    /// Whose it is.
    pub(super) uid: Uid,
    /// Its version.
    pub(super) version: u64,
}

/// What a write does besides setting the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Put {
    /// Nothing: a claim, a release, or an empty write.
    Nothing,
    /// The marker, where the item is as it should be.
    Marker,
    /// The item and the marker.
    Item(Item),
    /// Everything but the fence goes.
    Purge,
}

/// Bytes on their way to the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Operation {
    /// Reads fence and marker.
    Look,
    /// Reads the item.
    Compare,
    /// Sets the fence, and more, if exactly that value is found.
    Write { expected: Option<String>, next: String, put: Put },
}

/// What the store says to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Looked {
        fence: Option<String>,
        marker: bool,
    },
    Compared(Option<Item>),
    Done,
    Refused,
    /// Nothing was heard of it: it was carried out, or was not, or will be.
    Unknown,
}

/// One prefix.
#[derive(Debug, Clone, Default)]
pub(super) struct Place {
    pub(super) fence: Option<String>,
    pub(super) item: Option<Item>,
    pub(super) marker: bool,
    /// Everything was lost, and whoever has the last grant has not put it right since.
    pub(super) lost: bool,
    /// The last write was a purge.
    pub(super) purged: bool,
}

impl Place {
    /// An operation arrives.
    pub(super) fn carry_out(&mut self, operation: &Operation) -> Outcome {
        match operation {
            Operation::Look => Outcome::Looked { fence: self.fence.clone(), marker: self.marker },
            Operation::Compare => Outcome::Compared(self.item.clone()),
            Operation::Write { expected, next, put } => {
                if self.fence != *expected {
                    return Outcome::Refused;
                }
                self.check_succession(next);
                self.fence = Some(next.clone());
                self.put(put);
                Outcome::Done
            }
        }
    }

    /// Everything in the store is lost.
    pub(super) fn flush(&mut self) {
        *self = Self { lost: true, ..Self::default() };
    }

    /// The fence that stands there.
    pub(super) fn fence(&self) -> Option<Fence> {
        self.fence.as_deref().map(|text| Fence::parse(text).expect("only fences are written"))
    }

    fn put(&mut self, put: &Put) {
        self.purged = *put == Put::Purge;
        match put {
            Put::Nothing => {}
            Put::Marker => {
                assert!(self.item.is_some(), "an owner takes an item for being there that is not");
                self.marker = true;
            }
            Put::Item(item) => {
                if let Some(before) = self.item.as_ref().filter(|before| before.uid == item.uid) {
                    assert!(before.version <= item.version, "an item's version fell: {before:?}, then {item:?}");
                }
                self.item = Some(item.clone());
                self.marker = true;
            }
            Put::Purge => (self.item, self.marker) = (None, false),
        }
    }

    /// What stands in the fence after a write never is less than what stood there before.
    fn check_succession(&self, next: &str) {
        let Some(before) = self.fence() else { return };
        let next = Fence::parse(next).expect("only fences are written");
        assert!(before.epoch <= next.epoch, "the fence's epoch fell: {before}, then {next}");
        assert!(
            before.uid == next.uid || before.kind == FenceKind::Released || self.lost,
            "another environment's fence was overwritten: {before}, then {next}"
        );
        if before.epoch == next.epoch {
            assert_eq!(before.grant, next.grant, "two grants wrote under one epoch");
            assert!(before.incarnation.start_counter <= next.incarnation.start_counter);
        }
        if before.incarnation == next.incarnation {
            assert!(before.write < next.write, "a write number was used again: {before}, then {next}");
        }
    }
}
