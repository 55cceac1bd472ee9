//! The CLI's own schema of JSON and YAML documents. Programs depend on it: fields may be added, never changed.

// Environments.
mod environments;
// The items of an environment, and how they compare.
mod data;
// Workers.
mod workers;
// Stores, and what is found in them.
mod stores;
// The fleet as a whole.
mod fleet;
// What happened.
mod events;
// Who asked for what.
mod audit;
// What was applied, or would be.
mod applied;

pub(crate) use self::applied::{AppliedDocument, Summary, outcome_text as apply_outcome_text};
pub(crate) use self::audit::AuditRecordsDocument;
pub(crate) use self::data::{ItemsDocument, VerificationDocument, kind_text};
pub(crate) use self::environments::{
    EnvironmentDocument, EnvironmentsDocument, RemovedDocument, duration, guard_text, source_text,
};
pub(crate) use self::events::{EventDocument, EventsDocument, event_type_text};
pub(crate) use self::fleet::FleetDocument;
pub(crate) use self::stores::{
    RemovedStoreDocument, StoreCheckDocument, StoreDocument, StoresDocument, outcome_text, topology_text,
};
pub(crate) use self::workers::{RemovedWorkerDocument, WorkerDocument, WorkersDocument, worker_state_text};
use super::text::rfc3339;

/// What is empty is not given.
fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// As documents write it.
fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.map(rfc3339)
}
