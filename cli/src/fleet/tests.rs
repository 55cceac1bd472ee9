use flotilla_proto::Timestamp;
use flotilla_proto::v1::GetFleetStatusResponse;

use super::status_pairs;

const NOW: Timestamp = Timestamp(1_793_000_000_000);

fn ago(seconds: u64) -> prost_types::Timestamp {
    Timestamp(NOW.0 - seconds * 1000).to_proto()
}

#[test]
fn the_summary() {
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
