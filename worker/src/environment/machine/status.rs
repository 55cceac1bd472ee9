//! The status of one environment.

use flotilla_proto::{EnvironmentReport, GrantState, Intent, SourceState};

use super::Machine;
use crate::dataset::{ItemId, Lacking};
use crate::source::{Kind, RejectedItem, shortened};

/// Rejected items, and items in doubt, that are named in the status.
const MOST_NAMED: usize = 20;

impl Machine {
    /// The whole status.
    pub(in crate::environment) fn report(&self) -> EnvironmentReport {
        let rejected = |item: &RejectedItem| format!("{}/{}: {}", word(item.kind), item.shown_key(), item.reason);
        let doubted = |(id, why): (ItemId, String)| format!("{}/{}: {why}", word(id.kind), shortened(&id.key));
        let warm = self.assignment.grant.intent == Intent::Warm;
        let warmed = self.filled && self.source_state == Some(SourceState::Connected);
        EnvironmentReport {
            environment: self.assignment.environment.clone(),
            uid: self.assignment.uid.clone(),
            generation: self.assignment.generation,
            grant: self.assignment.grant.clone(),
            grant_state: if warm && warmed { GrantState::Synchronized } else { self.writer.grant_state() },
            pending_reason: self.writer.pending_reason().to_owned(),
            found_fence: self.writer.found_fence().map(ToOwned::to_owned),
            source_state: self.source_state,
            marker: self.writer.marker(),
            store_available: self.writer.available(),
            flags: self.dataset.count(Kind::Flag),
            segments: self.dataset.count(Kind::Segment),
            bytes: self.dataset.bytes(),
            last_event_time: self.last_event,
            last_byte_time: self.last_byte,
            last_heartbeat_time: self.last_heartbeat,
            last_write_time: self.last_write,
            last_error: self.last_error.clone(),
            source_error: self.source_error.clone(),
            rejected_items: self.rejected.iter().take(MOST_NAMED).map(rejected).collect(),
            environment_id: self.environment_id.as_deref().map(ToOwned::to_owned),
            changed_environment_id: self.changed_environment_id.as_deref().map(ToOwned::to_owned),
            repairs: self.repairs,
            fenced_writes: self.fenced_writes,
            repair_reason: self.last_repair.map(|repair| repair.as_str().to_owned()).unwrap_or_default(),
            contended: self.writer.is_contended(),
            untracked: self.writer.untracked().map(ToOwned::to_owned),
            accepted_resync: self.accepted_resync,
            payload_held: self.payload_held().unwrap_or_default(),
            doubted_items: self.dataset.doubts().take(MOST_NAMED).map(doubted).collect(),
        }
    }

    /// How many items are rejected, and how many are in doubt.
    pub(in crate::environment) fn item_counts(&self) -> [u32; 2] {
        [self.rejected.len(), self.dataset.doubts().count()].map(|count| u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// What the guard holds back.
    fn payload_held(&self) -> Option<String> {
        let found = self.writer.held_back().map(|(lacking, _)| (lacking, "found in the store"));
        let (Lacking { items, held }, of) =
            found.or_else(|| self.dataset.held_back().map(|lacking| (lacking, "held")))?;
        Some(format!("it lacks {items} of {held} items {of}"))
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "flag",
        Kind::Segment => "segment",
    }
}
