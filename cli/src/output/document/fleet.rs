//! The fleet as a whole.

use flotilla_proto::v1;
use serde::Serialize;

use super::{some, time};

/// The fleet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FleetDocument {
    fleet_id: String,
    term: u64,
    version: String,
    environments: FleetEnvironments,
    workers: FleetWorkers,
    oldest: Option<OldestDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FleetEnvironments {
    total: u32,
    current: u32,
    stale: u32,
    uninitialized: u32,
    unknown: u32,
    paused: u32,
    not_current: u32,
}

#[derive(Debug, Serialize)]
struct FleetWorkers {
    total: u32,
    connected: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OldestDocument {
    environment: String,
    last_byte_time: Option<String>,
}

impl From<&v1::GetFleetStatusResponse> for FleetDocument {
    fn from(status: &v1::GetFleetStatusResponse) -> Self {
        Self {
            fleet_id: status.fleet_id.clone(),
            term: status.term,
            version: status.version.clone(),
            environments: FleetEnvironments {
                total: status.environments,
                current: status.current,
                stale: status.stale,
                uninitialized: status.uninitialized,
                unknown: status.unknown,
                paused: status.paused,
                not_current: status.not_current,
            },
            workers: FleetWorkers { total: status.workers, connected: status.workers_connected },
            oldest: some(&status.oldest_environment).map(|environment| OldestDocument {
                environment,
                last_byte_time: time(status.oldest_byte_time.as_ref()),
            }),
        }
    }
}
