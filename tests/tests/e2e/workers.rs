//! Workers among each other, what the command line says of them, and two fleets that meet in one Redis.

use std::path::Path;

use flotilla_tests::harness::{CliOutput, Fleet, require_tool, wait_until};
use flotilla_tests::simulator::{Kind, generated_flag};
use serde_json::Value;

use crate::population::{BOUND, Population, probe, wait_until_connected};

/// Starts a worker that is to be refused, and returns what it logged.
async fn refused_worker(fleet: &Fleet, name: &str, state_directory: &Path) -> String {
    let command = fleet.worker_command(name, state_directory).unwrap();
    let mut process = fleet.start_process("refused", command).unwrap();
    let exit = process.wait(BOUND).await.unwrap();
    assert_eq!(exit.code(), Some(1), "{}", process.log());
    process.log()
}

async fn json(fleet: &Fleet, arguments: &[&str]) -> Value {
    let mut all = arguments.to_vec();
    all.extend(["-o", "json"]);
    fleet.cli(&all).await.unwrap().expect_success().json().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_worker_of_a_name_is_refused() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    let population = Population::settle_in(&fleet, 3).await;
    let before = json(&fleet, &["worker", "get", "w1"]).await;
    let address = before["address"].as_str().unwrap().to_owned();

    let log = refused_worker(&fleet, "w1", &fleet.directory().join("another")).await;
    assert!(log.contains(&address) && log.contains("--name"), "{log}");

    let log = refused_worker(&fleet, "w9", &fleet.directory().join("w1")).await;
    assert!(log.contains("in use") && log.contains("--state-dir"), "{log}");
    assert!(log.contains(fleet.directory().join("w1").to_str().unwrap()), "{log}");

    // The first one did not notice.
    let after = json(&fleet, &["worker", "get", "w1"]).await;
    assert_eq!((&after["address"], &after["connectTime"]), (&before["address"], &before["connectTime"]));
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    population.assert_owned_once(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_tells_of_workers_and_of_the_fleet() {
    if !require_tool("redis-server") {
        return;
    }
    let long = ["--lease-duration", "2m", "--reassign-grace", "1m"];
    let mut fleet = Fleet::builder().workers(2).control_arguments(&long).start().await.unwrap();
    Population::settle_in(&fleet, 4).await;

    let listed = json(&fleet, &["worker", "list"]).await;
    let rows: Vec<_> =
        listed["workers"].as_array().unwrap().iter().map(|one| (&one["name"], &one["state"])).collect();
    assert_eq!(
        format!("{rows:?}"),
        r#"[(String("w1"), String("connected")), (String("w2"), String("connected"))]"#
    );
    let names = fleet.cli(&["worker", "list", "-o", "name"]).await.unwrap().expect_success().stdout;
    assert_eq!(names, "worker/w1\nworker/w2\n");
    let table = fleet.cli(&["worker", "list"]).await.unwrap().expect_success().stdout;
    assert!(table.lines().count() == 3 && table.contains("w2"), "{table}");
    let worker = json(&fleet, &["worker", "get", "w1"]).await;
    assert_eq!(worker["environments"], 2);
    assert_eq!(worker["environmentNames"].as_array().unwrap().len(), 2);
    let unknown = fleet.cli(&["worker", "get", "nobody"]).await.unwrap();
    assert!(unknown.status == 3 && unknown.stderr.contains("nobody"), "{unknown:?}");

    let status = fleet.cli(&["status"]).await.unwrap();
    assert_eq!(status.status, 0, "{status:?}");
    assert_eq!(json(&fleet, &["status"]).await["environments"]["current"], 4);
    fleet.cli(&["env", "pause", &Population::name(0)]).await.unwrap().expect_success();
    assert_eq!(fleet.cli(&["status"]).await.unwrap().status, 0, "a paused one does not count");
    fleet.simulator.go_away().await;
    wait_until("status says no", BOUND, async || {
        let output: CliOutput = fleet.cli(&["status"]).await.unwrap();
        if output.status == 1 { Ok(()) } else { Err(format!("{output:?}")) }
    })
    .await;

    fleet.worker(1).kill9();
    wait_until("w2 is not connected", BOUND, async || {
        let state = json(&fleet, &["worker", "get", "w2"]).await["state"].clone();
        if state == "disconnected" { Ok(()) } else { Err(state.to_string()) }
    })
    .await;
    fleet.control().kill9();
    for arguments in [["worker", "list"].as_slice(), &["worker", "get", "w1"], &["status"], &["env", "list"]] {
        let output = fleet.cli(arguments).await.unwrap();
        assert!(output.status == 5 && output.stderr.contains(&fleet.control_url()), "{output:?}");
    }
}

/// The environment's condition, `null` where it has none.
async fn condition(fleet: &Fleet, kind: &str) -> Value {
    let status = fleet.environment_status(&Population::name(0)).await.unwrap();
    let found = status["conditions"].as_array().unwrap().iter().find(|one| one["type"] == kind).cloned();
    found.unwrap_or_default()
}

async fn wait_for_conflict(fleet: &Fleet) {
    wait_until("there is a conflict", BOUND, async || {
        let shown = condition(fleet, "Conflict").await;
        if shown["status"] == "true" { Ok(()) } else { Err(shown.to_string()) }
    })
    .await;
}

/// When the only worker received the last event of the only environment, as it tells.
async fn last_event(fleet: &Fleet) -> String {
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let name = "flotilla_environment_last_event_timestamp_seconds{";
    metrics.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned()
}

/// Sends a new flag, and waits until the worker has received it, whether or not it may write it.
async fn patch_and_wait_until_received(fleet: &Fleet, index: usize) {
    let before = last_event(fleet).await;
    fleet.simulator.patch(&Population::key(0), Kind::Flag, generated_flag(index, 1, 500, 1));
    wait_until("the patch is received", BOUND, async || {
        let now = last_event(fleet).await;
        if now == before { Err(now) } else { Ok(()) }
    })
    .await;
}

/// Two fleets, each with its own control, worker and LaunchDarkly, and one prefix of one Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_of_another_fleet_is_a_conflict_until_it_is_taken_over() {
    if !require_tool("redis-server") {
        return;
    }
    let first = Fleet::builder().start().await.unwrap();
    let population = Population::settle_in(&first, 1).await;
    let second = Fleet::builder().store_url(&first.redis.url()).start().await.unwrap();
    wait_until_connected(&second, 1).await;
    Population::add_to_simulator(&second, 0);
    let (name, key) = (Population::name(0), Population::key(0));
    second.simulator.patch(&key, Kind::Flag, probe(100));

    // The newcomer is told, and writes nothing.
    let fences = population.fences(&first).await;
    Population::add(&second, 0).await.expect_success();
    wait_for_conflict(&second).await;
    let message = condition(&second, "Conflict").await["message"].as_str().unwrap().to_owned();
    assert!(message.contains("--take-over") && message.contains(fences[0].split(' ').nth(1).unwrap()), "{message}");
    patch_and_wait_until_received(&second, 50).await;
    second.cli(&["env", "resync", &name]).await.unwrap().expect_success();
    patch_and_wait_until_received(&second, 51).await;
    wait_for_conflict(&second).await;
    assert_eq!(second.cli(&["status"]).await.unwrap().status, 1);
    assert_eq!(population.fences(&first).await, fences, "the newcomer wrote");
    population.wait_until_stored(&first, BOUND).await;
    population.wait_until_current(&first, BOUND).await;

    // With leave it takes over, and the other one stops.
    second.cli(&["env", "resync", &name, "--take-over"]).await.unwrap().expect_success();
    population.wait_until_current(&second, BOUND).await;
    assert_eq!(condition(&second, "Conflict").await, Value::Null);
    wait_for_conflict(&first).await;
    let fences = population.fences(&first).await;
    patch_and_wait_until_received(&first, 60).await;
    wait_for_conflict(&first).await;
    assert_eq!(population.fences(&first).await, fences, "the one that was taken over from wrote");
    let mut redis = first.redis.connection().await.unwrap();
    let stored: usize = redis::cmd("HLEN").arg("ld:env:000:features").query_async(&mut redis).await.unwrap();
    assert_eq!(stored, second.simulator.data(&key).len(Kind::Flag));
}
