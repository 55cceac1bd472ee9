//! What happened.

use flotilla_proto::v1;
use serde::Serialize;

use super::{some, time};

/// Something that happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventDocument {
    revision: String,
    time: Option<String>,
    r#type: &'static str,
    environment: Option<String>,
    worker: Option<String>,
    from_worker: Option<String>,
    epoch: Option<u64>,
    reason: Option<String>,
    message: String,
}

/// What happened.
#[derive(Debug, Serialize)]
pub(crate) struct EventsDocument {
    /// Oldest first.
    pub(crate) events: Vec<EventDocument>,
}

impl From<&v1::Event> for EventDocument {
    fn from(event: &v1::Event) -> Self {
        Self {
            revision: event.revision.clone(),
            time: time(event.time.as_ref()),
            r#type: event_type_text(event.r#type()),
            environment: some(&event.environment),
            worker: some(&event.worker),
            from_worker: some(&event.from_worker),
            epoch: (event.epoch != 0).then_some(event.epoch),
            reason: some(&event.reason),
            message: event.message.clone(),
        }
    }
}

/// What kind of thing happened, as it is asked for by name.
pub(crate) fn event_type_text(kind: v1::EventType) -> &'static str {
    match kind {
        v1::EventType::Unspecified => "unknown",
        v1::EventType::EnvironmentChanged => "environment-changed",
        v1::EventType::EnvironmentEnded => "environment-ended",
        v1::EventType::Assigned => "assigned",
        v1::EventType::HandoverBegun => "handover-begun",
        v1::EventType::HandoverAbandoned => "handover-abandoned",
        v1::EventType::Moved => "moved",
        v1::EventType::InitializationChanged => "initialization-changed",
        v1::EventType::AssignmentRejected => "assignment-rejected",
        v1::EventType::WriteFenced => "write-fenced",
        v1::EventType::StoreRepaired => "store-repaired",
        v1::EventType::WorkerChanged => "worker-changed",
    }
}
