//! A model of the store, for tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dataset::{Comparison, ItemId, Snapshot};
use crate::fence::Found;
use crate::source::Kind;
use crate::store::{FenceStep, Look, Op, Outcome};

/// What Redis would hold, and would answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Model {
    pub(super) fence: Option<String>,
    pub(super) marker: bool,
    pub(super) items: BTreeMap<ItemId, Vec<u8>>,
}

impl Model {
    fn counts(&self) -> [u64; 2] {
        [Kind::Flag, Kind::Segment].map(|kind| self.items.keys().filter(|id| id.kind == kind).count() as u64)
    }

    fn found(&self) -> Found {
        self.fence.clone().map_or(Found::Absent, Found::Value)
    }

    pub(super) fn execute(&mut self, op: Op) -> Outcome {
        match op {
            Op::Look => {
                let [flags, segments] = self.counts();
                Outcome::Looked(Look { found: self.found(), marker: self.marker, flags, segments })
            }
            Op::Write(write) => self.step(&write.step, |model| {
                model.items.extend(write.set.iter().map(|(id, body)| (id.clone(), body.to_vec())));
                model.items.retain(|id, _| !write.remove.contains(id));
                model.marker |= write.marker;
            }),
            Op::Load { step, snapshot } => self.step(&step, |model| {
                model.items = items(&snapshot);
                model.marker = true;
            }),
            Op::Purge(step) => self.step(&step, |model| (model.items, model.marker) = (BTreeMap::new(), false)),
            Op::Compare { snapshot, urgency: _, evidence } => {
                let mut comparison = Comparison::new(&snapshot, evidence);
                for (id, body) in &self.items {
                    comparison.found(id.kind, id.key.as_bytes(), body);
                }
                Outcome::Compared(comparison.differences())
            }
            Op::List | Op::Read(_) => unreachable!("the writer does not ask this"),
        }
    }

    fn step(&mut self, step: &FenceStep, change: impl FnOnce(&mut Self)) -> Outcome {
        if self.fence != step.expected {
            return Outcome::Refused(self.found());
        }
        change(self);
        self.fence = Some(step.next.clone());
        let [flags, segments] = self.counts();
        Outcome::Done { flags, segments }
    }
}

pub(super) fn items(snapshot: &Snapshot) -> BTreeMap<ItemId, Vec<u8>> {
    [Kind::Flag, Kind::Segment]
        .into_iter()
        .flat_map(|kind| {
            snapshot.of(kind).iter().map(move |(key, body)| (ItemId { kind, key: Arc::clone(key) }, body.to_vec()))
        })
        .collect()
}
