//! A model of the store, for tests and simulations: it does what the scripts do on Redis.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Damage, FenceStep, Look, Op, Outcome, StoreError, StoredItem};
use crate::dataset::{Comparison, ItemId, Snapshot};
use crate::fence::Found;
use crate::source::Kind;

/// The keys of one prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Model {
    /// The fence.
    pub fence: Option<String>,
    /// Whether the marker is there.
    pub marker: bool,
    /// Items and their JSON text.
    pub items: BTreeMap<ItemId, Arc<[u8]>>,
    /// What is wrong with the keys. If it is the type, items cannot be written one by one.
    pub damage: Option<Damage>,
    /// Why it does not tell who else changes the keys, if it does not.
    pub untracked: Option<Arc<str>>,
}

impl Model {
    fn counts(&self) -> [u64; 2] {
        [Kind::Flag, Kind::Segment].map(|kind| self.items.keys().filter(|id| id.kind == kind).count() as u64)
    }

    /// Whether there is a flag.
    pub fn has_flags(&self) -> bool {
        self.items.keys().any(|id| id.kind == Kind::Flag)
    }

    fn is_of_another_type(&self) -> bool {
        self.damage == Some(Damage::Type)
    }

    fn found(&self) -> Found {
        self.fence.clone().map_or(Found::Absent, Found::Value)
    }

    /// Carries out an operation.
    pub fn execute(&mut self, op: Op) -> Outcome {
        match op {
            Op::Look => {
                let [flags, segments] = self.counts();
                Outcome::Looked(Look {
                    found: self.found(),
                    marker: self.marker,
                    flags,
                    segments,
                    damage: self.damage,
                    untracked: self.untracked.clone(),
                })
            }
            Op::Write(write)
                if self.is_of_another_type()
                    && self.fence == write.step.expected
                    && !(write.set.is_empty() && write.remove.is_empty()) =>
            {
                another_type()
            }
            Op::Write(write) => self.step(&write.step, |model| {
                model.damage = model.damage.filter(|damage| *damage == Damage::Type);
                model.items.extend(write.set.iter().map(|(id, body)| (id.clone(), body.text())));
                model.items.retain(|id, _| !write.remove.contains(id));
                model.marker |= write.marker;
            }),
            Op::Load { step, snapshot } => self.step(&step, |model| {
                model.items = items(&snapshot);
                (model.marker, model.damage) = (true, None);
            }),
            Op::Purge(step) => self.step(&step, |model| {
                (model.items, model.marker, model.damage) = (BTreeMap::new(), false, None);
            }),
            Op::Compare { snapshot, urgency: _, evidence } => {
                let mut comparison = Comparison::new(&snapshot, evidence);
                for (id, body) in &self.items {
                    comparison.found(id.kind, id.key.as_bytes(), body);
                }
                Outcome::Compared(comparison.differences())
            }
            Op::List => {
                Outcome::Listed(self.items.iter().map(|(id, body)| StoredItem::of(id.clone(), body)).collect())
            }
            Op::Read(id) => Outcome::Read(self.items.get(&id).map(|body| body.to_vec())),
        }
    }

    fn step(&mut self, step: &FenceStep, change: impl FnOnce(&mut Self)) -> Outcome {
        if self.fence != step.expected {
            return Outcome::Refused(self.found());
        }
        if self.is_of_another_type() && step.expected.is_none() {
            return another_type();
        }
        change(self);
        self.fence = Some(step.next.clone());
        let [flags, segments] = self.counts();
        Outcome::Done { flags, segments }
    }
}

fn another_type() -> Outcome {
    Outcome::Failed(StoreError::NotDone("a key holds another type".to_owned()))
}

/// A snapshot's items, as a store holds them.
pub(crate) fn items(snapshot: &Snapshot) -> BTreeMap<ItemId, Arc<[u8]>> {
    let of = |kind| {
        let items = snapshot.of(kind).iter();
        items.map(move |(key, body)| (ItemId { kind, key: Arc::clone(key) }, body.text()))
    };
    of(Kind::Flag).chain(of(Kind::Segment)).collect()
}
