//! The fleet as one JSON document: what it is, how many of what, and each environment's state. No secret is in it.

use flotilla_proto::{Initialization, v1};
use serde::Serialize;

use crate::driver::View;

/// The document at `/status`. Fields may be added; what stands here stays.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    fleet_id: String,
    term: u64,
    version: String,
    counts: Counts,
    environments: Vec<Item>,
}

/// As in the API's `GetFleetStatus`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Counts {
    environments: u32,
    current: u32,
    stale: u32,
    uninitialized: u32,
    unknown: u32,
    paused: u32,
    not_current: u32,
    workers: u32,
    workers_connected: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    name: String,
    prefix: String,
    store: String,
    initialization: &'static str,
    worker: Option<String>,
    epoch: u64,
    generation: u64,
    paused: bool,
    removing: bool,
}

impl Document {
    /// What the fleet looks like.
    pub(super) fn of(view: &View<'_>) -> Self {
        let status = view.fleet.status();
        Self {
            fleet_id: status.fleet_id,
            term: status.term,
            version: status.version,
            counts: Counts {
                environments: status.environments,
                current: status.current,
                stale: status.stale,
                uninitialized: status.uninitialized,
                unknown: status.unknown,
                paused: status.paused,
                not_current: status.not_current,
                workers: status.workers,
                workers_connected: status.workers_connected,
            },
            environments: view
                .fleet
                .glances_after(None)
                .map(|one| item(one.initialization(), one.show()))
                .collect(),
        }
    }

    /// As JSON, with a line end.
    pub(super) fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).expect("texts, numbers and booleans can be written");
        text.push('\n');
        text
    }
}

fn item(initialization: Initialization, environment: v1::Environment) -> Item {
    let spec = environment.spec.unwrap_or_default();
    let status = environment.status.unwrap_or_default();
    Item {
        name: environment.name,
        prefix: spec.prefix,
        store: spec.store,
        initialization: initialization.as_str(),
        worker: Some(status.worker).filter(|worker| !worker.is_empty()),
        epoch: status.epoch,
        generation: environment.generation,
        paused: environment.paused,
        removing: environment.removing,
    }
}
