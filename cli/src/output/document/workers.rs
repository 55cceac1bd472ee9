//! Workers.

use std::collections::BTreeMap;

use flotilla_proto::v1;
use serde::Serialize;

use super::{some, time};

/// A worker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerDocument {
    name: String,
    state: &'static str,
    address: Option<String>,
    version: Option<String>,
    labels: BTreeMap<String, String>,
    /// `None`: unlimited.
    capacity: Option<u32>,
    environments: u32,
    bytes: u64,
    connect_time: Option<String>,
    last_heartbeat_time: Option<String>,
    /// Only of a single worker.
    environment_names: Option<Vec<String>>,
    /// `active`, `cordoned` or `draining`.
    scheduling: &'static str,
    leaving: bool,
    standby: u32,
}

/// A worker that is forgotten.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedWorkerDocument {
    /// Its name.
    pub(crate) name: String,
    /// False after a dry run.
    pub(crate) removed: bool,
}

/// All workers.
#[derive(Debug, Serialize)]
pub(crate) struct WorkersDocument {
    /// Ordered by name.
    pub(crate) workers: Vec<WorkerDocument>,
}

impl WorkerDocument {
    /// One worker with the names of its environments.
    pub(crate) fn with_environments(worker: &v1::Worker) -> Self {
        Self { environment_names: Some(worker.environment_names.clone()), ..worker.into() }
    }
}

impl From<&v1::Worker> for WorkerDocument {
    fn from(worker: &v1::Worker) -> Self {
        Self {
            name: worker.name.clone(),
            state: worker_state_text(worker.state()),
            address: some(&worker.address),
            version: some(&worker.version),
            labels: worker.labels.clone(),
            capacity: (worker.capacity != 0).then_some(worker.capacity),
            environments: worker.environments,
            bytes: worker.bytes,
            connect_time: time(worker.connect_time.as_ref()),
            last_heartbeat_time: time(worker.last_heartbeat_time.as_ref()),
            environment_names: None,
            scheduling: match worker.scheduling() {
                v1::WorkerScheduling::Active | v1::WorkerScheduling::Unspecified => "active",
                v1::WorkerScheduling::Cordoned => "cordoned",
                v1::WorkerScheduling::Draining => "draining",
            },
            leaving: worker.leaving,
            standby: worker.standby,
        }
    }
}

/// The word for a worker's state.
pub(crate) fn worker_state_text(state: v1::WorkerState) -> &'static str {
    match state {
        v1::WorkerState::Unspecified => "unknown",
        v1::WorkerState::Connected => "connected",
        v1::WorkerState::Disconnected => "disconnected",
        v1::WorkerState::Gone => "gone",
    }
}
