//! How fresh the data is: when something was last heard, and how long changes are on their way.

use std::time::Duration;

use flotilla_tests::harness::{Fleet, require_tool, wait_until};
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use serde_json::Value;

use crate::stored::{BOUND, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000056789";

/// A sample of the worker's metrics.
async fn sample(fleet: &Fleet, name: &str) -> f64 {
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {metrics}")).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_write_is_timed_from_the_receipt_of_its_oldest_change() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    let mut data = generated_flags(5, 1_000, 12);
    fleet.simulator.add_environment(KEY, None, data.clone());
    fleet.add_environment("spree", "ld", KEY, &["--wait"]).await.unwrap().expect_success();
    let before = sample(&fleet, "flotilla_propagation_seconds_count").await;
    for version in 2..5 {
        let flag = generated_flag(3, version, 1_000, version);
        data.insert(Kind::Flag, flag.clone());
        fleet.simulator.patch(KEY, Kind::Flag, flag);
        wait_for_stored(&fleet.redis, "ld", &data, BOUND).await;
    }
    wait_until("all are counted", BOUND, async || {
        let counted = sample(&fleet, "flotilla_propagation_seconds_count").await - before;
        if (counted - 3.0).abs() < 0.1 { Ok(()) } else { Err(counted.to_string()) }
    })
    .await;
    // What Redis takes its time with counts.
    let sum = sample(&fleet, "flotilla_propagation_seconds_sum").await;
    let mut redis = fleet.redis.connection().await.unwrap();
    redis::cmd("CLIENT").arg("PAUSE").arg(700).arg("WRITE").exec_async(&mut redis).await.unwrap();
    let flag = generated_flag(3, 9, 1_000, 9);
    data.insert(Kind::Flag, flag.clone());
    fleet.simulator.patch(KEY, Kind::Flag, flag);
    wait_for_stored(&fleet.redis, "ld", &data, BOUND).await;
    wait_until("the pause is counted", BOUND, async || {
        let took = sample(&fleet, "flotilla_propagation_seconds_sum").await - sum;
        if (0.3..5.0).contains(&took) { Ok(()) } else { Err(took.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_heartbeat_is_told_apart_from_an_event() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, None, generated_flags(5, 1_000, 12));
    fleet.add_environment("spree", "ld", KEY, &["--wait"]).await.unwrap().expect_success();
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!(status["lastHeartbeatTime"], Value::Null, "{status}");
    fleet.simulator.set_heartbeat(KEY, Duration::from_millis(100));
    wait_until("heartbeats go on", BOUND, async || {
        let later = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let is_heartbeat =
            later["lastHeartbeatTime"].is_string() && later["lastEventTime"] == status["lastEventTime"];
        if is_heartbeat && later["lastByteTime"] != status["lastByteTime"] {
            Ok(())
        } else {
            Err(later.to_string())
        }
    })
    .await;
}
