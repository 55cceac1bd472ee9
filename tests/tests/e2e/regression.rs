//! What LaunchDarkly seems to take back: it is held back, shown, compared, and decided about.

use std::time::Duration;

use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, generated_flag, generated_flags};
use serde_json::{Value, json};

use crate::stored::{BOUND, SOON, assert_stored, condition, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-0000000000f7";
const PREFIX: &str = "ld:spree";
const SEED: u64 = 17;
/// Half a minute until LaunchDarkly is asked again, and room.
const DECIDED: Duration = Duration::from_mins(2);

async fn fleet_with(data: &Dataset) -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data.clone());
    fleet
}

async fn add(fleet: &Fleet, more: &[&str]) {
    fleet.add_environment("spree", PREFIX, KEY, more).await.unwrap().expect_success();
}

async fn wait_for_payload_held(fleet: &Fleet, text: &str) -> Value {
    wait_until("a payload is held back", BOUND, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        match condition(&status, "PayloadHeld") {
            Some(held) if held["message"].as_str().unwrap().contains(text) => Ok(status),
            Some(_) | None => Err(status.to_string()),
        }
    })
    .await
}

fn without_most(data: &Dataset, left: usize) -> Dataset {
    let mut lacking = data.clone();
    let keys: Vec<_> = data.items(Kind::Flag).map(|item| item.key().to_owned()).skip(left).collect();
    for key in keys {
        lacking.remove(Kind::Flag, &key);
    }
    lacking
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payload_that_lacks_most_is_held_back_until_the_user_decides() {
    let data = generated_flags(30, 200, SEED);
    let fleet = fleet_with(&data).await;
    add(&fleet, &["--wait", "--initial-retry-delay", "100ms"]).await;
    let lacking = without_most(&data, 5);
    fleet.simulator.set_data(KEY, lacking.clone());
    fleet.simulator.close_streams(KEY);
    let status = wait_for_payload_held(&fleet, "it lacks 25 of").await;
    assert_eq!(status["initialization"], "stale");
    let shown = condition(&status, "PayloadHeld").unwrap();
    assert_eq!(shown["reason"], "LargeRemoval");
    assert!(shown["message"].as_str().unwrap().contains("--accept-regression"), "{shown}");
    assert_stored(&fleet.redis, PREFIX, &data).await;

    let verified = fleet.cli(&["data", "verify", "spree", "-o", "json"]).await.unwrap();
    let found: Value = serde_json::from_str(&verified.stdout).unwrap();
    assert_eq!((verified.status, &found["differing"]), (1, &json!(25)), "{verified:?}");
    let first = &found["differences"][0];
    assert_eq!((&first["launchDarklyVersion"], &first["storeVersion"]), (&Value::Null, &first["workerVersion"]));

    let patched = generated_flag(1, 2, 200, SEED);
    fleet.simulator.patch(KEY, Kind::Flag, patched.clone());
    let mut both = data.clone();
    both.insert(Kind::Flag, patched.clone());
    wait_for_stored(&fleet.redis, PREFIX, &both, SOON).await;

    fleet.cli(&["env", "resync", "spree", "--accept-regression"]).await.unwrap().expect_success();
    let mut expected = lacking;
    expected.insert(Kind::Flag, patched);
    wait_for_stored(&fleet.redis, PREFIX, &expected, BOUND).await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    let verified = fleet.cli(&["data", "verify", "spree"]).await.unwrap().expect_success();
    assert!(verified.stderr.contains("items are the same in LaunchDarkly, worker and store"), "{verified:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_found_in_the_store_is_not_removed_at_the_first_word() {
    let found = generated_flags(30, 200, SEED);
    let data = without_most(&found, 3);
    let fleet = fleet_with(&data).await;
    let mut connection = fleet.redis.connection().await.unwrap();
    for (kind, hash) in [(Kind::Flag, "ld:spree:features"), (Kind::Segment, "ld:spree:segments")] {
        for item in found.items(kind) {
            let _: () = redis::AsyncCommands::hset(&mut connection, hash, item.key(), item.json()).await.unwrap();
        }
    }
    let _: () = redis::AsyncCommands::set(&mut connection, "ld:spree:$inited", "").await.unwrap();
    add(&fleet, &["--wait=initialized"]).await;
    wait_for_payload_held(&fleet, "found in the store").await;
    assert_stored(&fleet.redis, PREFIX, &found).await;
    wait_for_stored(&fleet.redis, PREFIX, &data, DECIDED).await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_want_the_guard_has_it_off() {
    let data = generated_flags(30, 200, SEED);
    let fleet = fleet_with(&data).await;
    add(&fleet, &["--wait", "--guard", "off"]).await;
    let status = fleet.cli(&["env", "get", "spree", "-o", "json"]).await.unwrap().expect_success().json().unwrap();
    assert_eq!(status["guard"], "off", "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verification_finds_what_differs_and_repairs_it() {
    let data = generated_flags(20, 200, SEED);
    let fleet = fleet_with(&data).await;
    add(&fleet, &["--wait", "--initial-retry-delay", "100ms"]).await;
    let same = fleet.cli(&["data", "verify", "spree"]).await.unwrap().expect_success();
    assert_eq!(same.stdout, "");
    // A change that no event tells of.
    let mut changed = data;
    changed.insert(Kind::Flag, generated_flag(7, 2, 200, SEED));
    fleet.simulator.set_data(KEY, changed.clone());
    let differs = fleet.cli(&["data", "verify", "spree"]).await.unwrap();
    assert_eq!(differs.status, 1, "{differs:?}");
    assert!(differs.stderr.contains("1 of ") && differs.stdout.contains("flag-00007"), "{differs:?}");
    let repaired = fleet.cli(&["data", "verify", "spree", "--repair", "--request-timeout", "1m"]).await.unwrap();
    let repaired = repaired.expect_success();
    assert!(repaired.stderr.contains("1 repaired"), "{repaired:?}");
    assert_stored(&fleet.redis, PREFIX, &changed).await;
    let unknown = fleet.cli(&["data", "verify", "nobody"]).await.unwrap();
    assert_eq!(unknown.status, 3, "{unknown:?}");
}
