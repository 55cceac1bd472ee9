//! What becomes of the data, and what is said, when LaunchDarkly is away or refuses the key.

use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::{Dataset, Fault, Kind, generated_flag, generated_flags};
use serde_json::Value;

use crate::stored::{BOUND, SOON, Stored, assert_stored, condition, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-0000000000a1";
const NEW_KEY: &str = "sdk-00000000-0000-4000-8000-0000000000b2";
const PREFIX: &str = "ld:spree";
const SEED: u64 = 12;

fn data() -> Dataset {
    generated_flags(10, 900, SEED)
}

async fn fleet() -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data());
    fleet
}

async fn add(fleet: &Fleet, more: &[&str]) {
    let more: Vec<&str> = more.iter().copied().chain(["--initial-retry-delay", "100ms"]).collect();
    fleet.add_environment("spree", PREFIX, KEY, &more).await.unwrap().expect_success();
}

/// Waits until `env status` shows an error of this kind and status, and returns the document.
async fn wait_for_error(fleet: &Fleet, kind: &str, status: Option<u16>) -> Value {
    wait_until("the error is reported", SOON, async || {
        let shown = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let error = &shown["lastError"];
        if error["kind"] == kind && error["status"] == Value::from(status) {
            Ok(shown)
        } else {
            Err(shown.to_string())
        }
    })
    .await
}

async fn rotate(fleet: &Fleet, key: &str) -> flotilla_tests::harness::CliOutput {
    let arguments = ["env", "rotate-key", "spree", "--sdk-key-stdin"];
    fleet.cli_with(&arguments, &[], key).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn launchdarkly_away_with_data_is_stale_and_then_current_again() {
    let fleet = fleet().await;
    add(&fleet, &["--wait"]).await;
    fleet.simulator.go_away().await;
    fleet.wait_for_initialization("spree", "stale", SOON).await;
    let status = wait_for_error(&fleet, "network", None).await;
    let connected = condition(&status, "Connected").unwrap();
    assert_eq!((&connected["status"], &connected["reason"]), (&"false".into(), &"Interrupted".into()));
    assert_eq!(condition(&status, "Initialized").unwrap()["status"], "true");
    assert_eq!(condition(&status, "Current").unwrap()["reason"], "SourceInterrupted");
    assert_stored(&fleet.redis, PREFIX, &data()).await;
    assert_eq!(fleet.cli(&["status"]).await.unwrap().status, 1, "not everything is current");
    assert_eq!(fleet.worker_get(0, "/readyz").await.unwrap().status, 200, "a worker stays ready");
    let waited = fleet.cli(&["env", "wait", "spree", "--for", "initialized"]).await.unwrap();
    assert_eq!(waited.status, 0, "stale is initialized");

    let mut changed = data();
    changed.insert(Kind::Flag, generated_flag(3, 2, 900, SEED));
    fleet.simulator.set_data(KEY, changed.clone());
    fleet.simulator.come_back().await.unwrap();
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    assert_stored(&fleet.redis, PREFIX, &changed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn launchdarkly_away_without_data_is_uninitialized_and_then_current() {
    let fleet = fleet().await;
    fleet.simulator.go_away().await;
    add(&fleet, &[]).await;
    fleet.wait_for_initialization("spree", "uninitialized", SOON).await;
    let status = wait_for_error(&fleet, "network", None).await;
    assert_eq!(condition(&status, "Initialized").unwrap()["status"], "false");
    let mut connection = fleet.redis.connection().await.unwrap();
    Stored::read(&mut connection, PREFIX).await.compare(&Stored::nothing()).unwrap();
    fleet.simulator.come_back().await.unwrap();
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    assert_stored(&fleet.redis, PREFIX, &data()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_launchdarkly_is_reported_with_its_status_and_tried_again() {
    let fleet = fleet().await;
    add(&fleet, &["--wait"]).await;
    fleet.simulator.set_fault(KEY, Fault::Status(503));
    fleet.simulator.cut_streams(KEY);
    let status = wait_for_error(&fleet, "http", Some(503)).await;
    assert_eq!(status["initialization"], "stale");
    assert_stored(&fleet.redis, PREFIX, &data()).await;
    fleet.simulator.clear_fault(KEY);
    fleet.wait_for_initialization("spree", "current", BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_key_is_reported_at_once_and_replaced_at_once() {
    let fleet = fleet().await;
    add(&fleet, &["--wait"]).await;
    fleet.simulator.set_fault(KEY, Fault::Status(401));
    fleet.simulator.cut_streams(KEY);
    let status = wait_for_error(&fleet, "auth", Some(401)).await;
    assert_eq!(status["initialization"], "stale");
    let connected = condition(&status, "Connected").unwrap();
    assert_eq!(connected["reason"], "KeyRefused");
    let message = connected["message"].as_str().unwrap();
    assert!(message.contains("401") && message.contains("rotate-key"), "{message}");
    assert_stored(&fleet.redis, PREFIX, &data()).await;
    let told = fleet.cli(&["env", "status", "spree"]).await.unwrap().expect_success().stdout;
    assert!(told.contains("HTTP 401"), "{told}");

    let mut changed = data();
    changed.insert(Kind::Flag, generated_flag(4, 2, 900, SEED));
    fleet.simulator.add_environment(NEW_KEY, Some("spree-id"), changed.clone());
    let rotated = rotate(&fleet, NEW_KEY).await.expect_success();
    assert_eq!(rotated.stdout, "environment/spree key rotated\n");
    fleet.wait_for_initialization("spree", "current", SOON).await;
    assert_stored(&fleet.redis, PREFIX, &changed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_never_worked_is_reported_and_replaced_too() {
    let fleet = fleet().await;
    let wrong = "sdk-00000000-0000-4000-8000-00000000dead";
    fleet.add_environment("spree", PREFIX, wrong, &[]).await.unwrap().expect_success();
    let status = wait_for_error(&fleet, "auth", Some(401)).await;
    assert_ne!(status["initialization"], "current");
    fleet.wait_for_initialization("spree", "uninitialized", SOON).await;
    rotate(&fleet, KEY).await.expect_success();
    fleet.wait_for_initialization("spree", "current", SOON).await;
    assert_stored(&fleet.redis, PREFIX, &data()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_key_that_is_rejected_leaves_the_old_one_in_force() {
    let fleet = fleet().await;
    add(&fleet, &["--wait"]).await;
    let connections = fleet.simulator.counters(KEY).stream_connections;
    let rejected = rotate(&fleet, NEW_KEY).await;
    assert_eq!(rejected.status, 1, "{rejected:?}");
    assert!(rejected.stderr.contains("401") && rejected.stderr.contains("stays in force"), "{rejected:?}");
    let status = fleet.environment_status("spree").await.unwrap();
    let rotation = condition(&status, "KeyRotation").unwrap();
    assert_eq!((&rotation["status"], &rotation["reason"]), (&"false".into(), &"KeyRejected".into()));
    assert_eq!(status["initialization"], "current");
    assert_eq!(status["sdkKeyMasked"], "sdk-********-****-****-****-*******000a1");

    // The key of another LaunchDarkly environment works, but not here.
    fleet.simulator.add_environment(NEW_KEY, Some("other-id"), generated_flags(2, 900, SEED + 1));
    let foreign = rotate(&fleet, NEW_KEY).await;
    assert_eq!(foreign.status, 1, "{foreign:?}");
    assert!(foreign.stderr.contains("other-id") && foreign.stderr.contains("spree-id"), "{foreign:?}");
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!(condition(&status, "KeyRotation").unwrap()["reason"], "OtherEnvironment");

    fleet.simulator.patch(KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    wait_for_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY), SOON).await;
    assert_eq!(fleet.simulator.counters(KEY).stream_connections, connections, "the old stream was never given up");

    // A key of this environment that is limited to views of the flags would take the others away.
    let mut view = (*fleet.simulator.data(KEY)).clone();
    view.remove(Kind::Flag, "flag-00002");
    fleet.simulator.add_environment(NEW_KEY, Some("spree-id"), view);
    let limited = rotate(&fleet, NEW_KEY).await;
    assert_eq!(limited.status, 1, "{limited:?}");
    assert!(limited.stderr.contains("does not bring flag/flag-00002"), "{limited:?}");
    assert!(limited.stderr.contains("hint: --force"), "{limited:?}");
    assert_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rotated_while_the_data_stays_readable() {
    let fleet = fleet().await;
    add(&fleet, &["--wait"]).await;
    fleet.simulator.add_environment(NEW_KEY, Some("spree-id"), data());
    fleet.simulator.set_fault_times(NEW_KEY, 1, Fault::Status(503));
    let arguments = ["env", "rotate-key", "spree", "--sdk-key-stdin", "--no-wait"];
    let started = fleet.cli_with(&arguments, &[], NEW_KEY).await.unwrap().expect_success();
    assert_eq!(started.stdout, "environment/spree key rotation started\n");
    let mut connection = fleet.redis.connection().await.unwrap();
    let wanted = Stored::of(&data());
    let status = wait_until("the key is replaced", BOUND, async || {
        Stored::read(&mut connection, PREFIX).await.compare(&wanted).unwrap();
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        match condition(&status, "KeyRotation") {
            Some(rotation) if rotation["status"] == "true" => Ok(status),
            Some(_) | None => Err(status.to_string()),
        }
    })
    .await;
    assert_eq!(status["sdkKeyMasked"], "sdk-********-****-****-****-*******000b2");
    wait_until("the old key is out of use", SOON, async || match fleet.simulator.counters(KEY).streams_open {
        0 => Ok(()),
        open => Err(format!("{open} streams")),
    })
    .await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    fleet.simulator.patch(NEW_KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    wait_for_stored(&fleet.redis, PREFIX, &fleet.simulator.data(NEW_KEY), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_another_launchdarkly_environment_is_not_applied_unasked() {
    let fleet = fleet().await;
    add(&fleet, &["--wait"]).await;
    fleet.simulator.set_environment_id(KEY, Some("other-id"));
    fleet.simulator.set_data(KEY, generated_flags(2, 900, SEED + 1));
    fleet.simulator.cut_streams(KEY);
    let status = wait_until("the payload is held", SOON, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        if condition(&status, "PayloadHeld").is_some() { Ok(status) } else { Err(status.to_string()) }
    })
    .await;
    assert_eq!(status["initialization"], "stale");
    assert!(
        condition(&status, "PayloadHeld").unwrap()["message"].as_str().unwrap().contains("other-id"),
        "{status}"
    );
    assert_stored(&fleet.redis, PREFIX, &data()).await;
}
