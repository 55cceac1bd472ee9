use flotilla_proto::Timestamp;
use flotilla_proto::v1::{GetFleetStatusResponse, Worker, WorkerState};

use super::{status_pairs, worker_pairs, worker_table};
use crate::output::Width;

const NOW: Timestamp = Timestamp(1_793_000_000_000);

fn ago(seconds: u64) -> prost_types::Timestamp {
    Timestamp(NOW.0 - seconds * 1000).to_proto()
}

fn workers() -> Vec<Worker> {
    let w1 = Worker {
        name: "w1".to_owned(),
        state: WorkerState::Connected.into(),
        address: "127.0.0.1:50000".to_owned(),
        version: "0.1.0".to_owned(),
        labels: [("zone".to_owned(), "eu".to_owned())].into(),
        environments: 2,
        bytes: 5_000_000,
        connect_time: Some(ago(300)),
        last_heartbeat_time: Some(ago(1)),
        environment_names: vec!["a".to_owned(), "b".to_owned()],
        ..Worker::default()
    };
    let w2 = Worker { name: "w2".to_owned(), state: WorkerState::Gone.into(), capacity: 10, ..Worker::default() };
    vec![w1, w2]
}

#[test]
fn tables() {
    insta::assert_snapshot!("workers", worker_table(&workers(), NOW, Width::Normal));
    insta::assert_snapshot!("workers_wide", worker_table(&workers(), NOW, Width::Wide));
    insta::assert_snapshot!("worker", worker_pairs(&workers()[0], NOW));
    let status = GetFleetStatusResponse {
        fleet_id: "f1".to_owned(),
        term: 3,
        version: "0.1.0".to_owned(),
        environments: 12,
        current: 10,
        stale: 1,
        uninitialized: 1,
        paused: 1,
        not_current: 1,
        workers_connected: 1,
        workers: 2,
        oldest_environment: "a".to_owned(),
        oldest_byte_time: Some(ago(12)),
        ..GetFleetStatusResponse::default()
    };
    insta::assert_snapshot!("status", status_pairs(&status, NOW));
}
