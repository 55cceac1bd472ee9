//! The sources beside the stream: LaunchDarkly polled, and files.

use std::path::Path;

use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::{Dataset, Fault, Item, Kind, generated_flag, generated_flags};

use crate::monitor::Monitor;
use crate::stored::{BOUND, SOON, assert_stored, condition, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-0000000000d1";
const PREFIX: &str = "ld:spree";
const SEED: u64 = 14;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_polled_environment_follows_and_writes_nothing_when_nothing_changed() {
    let fleet = Fleet::builder().start().await.unwrap();
    let data = generated_flags(30, 900, SEED);
    fleet.simulator.add_environment(KEY, Some("spree-id"), data.clone());
    let uri = fleet.simulator.uri();
    let more = ["--wait", "--source", "poll", "--poll-interval", "100ms", "--base-uri", &uri];
    fleet.add_environment("spree", PREFIX, KEY, &more).await.unwrap().expect_success();
    assert_stored(&fleet.redis, PREFIX, &data).await;
    assert_eq!(fleet.environment_status("spree").await.unwrap()["source"], "poll");

    let mut monitor = Monitor::start(&fleet.redis).await;
    let before = fleet.simulator.counters(KEY).polls_not_modified;
    wait_until("some polls are answered \"not modified\"", SOON, async || {
        let now = fleet.simulator.counters(KEY).polls_not_modified;
        if now >= before + 3 { Ok(()) } else { Err(format!("{now} of {before}")) }
    })
    .await;
    assert!(Monitor::by_scripts(&monitor.seen().await, "HSET").is_empty());

    fleet.simulator.patch(KEY, Kind::Flag, generated_flag(7, 2, 900, SEED));
    fleet.simulator.delete(KEY, Kind::Segment, "segment-00001", 2);
    wait_for_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY), SOON).await;
    fleet.simulator.set_fault(KEY, Fault::Status(500));
    fleet.wait_for_initialization("spree", "stale", SOON).await;
    assert_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY)).await;
    fleet.simulator.clear_fault(KEY);
    fleet.wait_for_initialization("spree", "current", BOUND).await;
}

/// A fleet whose workers read files below this directory.
async fn fleet_reading(directory: &Path) -> Fleet {
    let directory = directory.to_str().unwrap();
    Fleet::builder().worker_arguments(&["--file-source-dir", directory]).start().await.unwrap()
}

fn write(directory: &Path, file: &str, text: impl AsRef<[u8]>) {
    std::fs::write(directory.join(file), text).unwrap();
}

async fn wait_for_data_error(fleet: &Fleet, part: &str) {
    wait_until("the bad file is reported", SOON, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let error = &status["lastError"];
        let message = error["message"].as_str().unwrap_or_default();
        let reported = error["kind"] == "data" && message.contains(part) && status["initialization"] != "current";
        if reported { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edited_file_is_visible_and_a_bad_one_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = fleet_reading(directory.path()).await;
    let mut data = generated_flags(5, 900, SEED);
    write(directory.path(), "flags.json", data.payload());
    let arguments =
        ["env", "add", "spree", "--prefix", PREFIX, "--source", "file:flags.json", "--wait", "--timeout", "10s"];
    fleet.cli(&arguments).await.unwrap().expect_success();
    assert_stored(&fleet.redis, PREFIX, &data).await;
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!((&status["source"], &status["sdkKeyMasked"]), (&"file:flags.json".into(), &serde_json::Value::Null));

    data.insert(Kind::Flag, generated_flag(2, 2, 900, SEED));
    data.remove(Kind::Flag, "flag-00004");
    write(directory.path(), "flags.json", data.payload());
    wait_for_stored(&fleet.redis, PREFIX, &data, SOON).await;
    // Many editors write a new file and put it in the old one's place. Versions mean nothing in a file.
    data.insert(Kind::Flag, generated_flag(2, 1, 900, SEED));
    write(directory.path(), "flags.json.new", data.payload());
    std::fs::rename(directory.path().join("flags.json.new"), directory.path().join("flags.json")).unwrap();
    wait_for_stored(&fleet.redis, PREFIX, &data, SOON).await;

    write(directory.path(), "flags.json", r#"{"flags": {"a": "#);
    wait_for_data_error(&fleet, "flags.json").await;
    assert_stored(&fleet.redis, PREFIX, &data).await;
    std::fs::remove_file(directory.path().join("flags.json")).unwrap();
    fleet.wait_for_initialization("spree", "stale", SOON).await;
    assert_stored(&fleet.redis, PREFIX, &data).await;
    data.insert(Kind::Flag, generated_flag(3, 2, 900, SEED));
    write(directory.path(), "flags.json", data.payload());
    wait_for_stored(&fleet.redis, PREFIX, &data, SOON).await;
    fleet.wait_for_initialization("spree", "current", SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_yaml_file_is_completed_and_one_that_comes_later_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let fleet = fleet_reading(directory.path()).await;
    let arguments = ["env", "add", "spree", "--prefix", PREFIX, "--source", "file:flags.yaml"];
    fleet.cli(&arguments).await.unwrap().expect_success();
    fleet.wait_for_initialization("spree", "uninitialized", SOON).await;
    write(directory.path(), "flags.yaml", "flags:\n  greeting:\n    on: true\n    variations: [hello, ahoy]\n");
    fleet.wait_for_initialization("spree", "current", SOON).await;
    let answer = fleet.cli(&["data", "get", "spree", "flag/greeting"]).await.unwrap().expect_success();
    let flag: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!((&flag["key"], &flag["variations"][1]), (&"greeting".into(), &"ahoy".into()));
    assert!(flag["version"].is_u64(), "{flag}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_without_a_directory_for_files_says_so() {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, None, {
        let mut data = Dataset::default();
        data.insert(Kind::Flag, Item::raw("a", 1, r#"{"key":"a","version":1}"#));
        data
    });
    let arguments = ["env", "add", "spree", "--prefix", PREFIX, "--source", "file:flags.json"];
    fleet.cli(&arguments).await.unwrap().expect_success();
    wait_until("the rejection is shown", SOON, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let accepted = condition(&status, "Accepted").unwrap();
        let message = accepted["message"].as_str().unwrap();
        if accepted["status"] == "false" && message.contains("--file-source-dir") {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    // It does not hold up the others.
    fleet.add_environment("other", "ld:other", KEY, &["--wait"]).await.unwrap().expect_success();
}
