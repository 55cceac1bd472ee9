//! The main job: an environment is added by the command line, streamed, written, shown, changed and removed.

use flotilla_tests::harness::Fleet;
use flotilla_tests::simulator::{Dataset, Kind, generated_flag, generated_flags};
use redis::AsyncCommands as _;
use serde_json::{Value, json};

use crate::stored::{BOUND, SOON, Stored, assert_stored, condition, keys, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000012345";
const SEED: u64 = 11;

fn data() -> Dataset {
    generated_flags(25, 1_000, SEED)
}

/// A fleet, and `spree` current in it.
async fn fleet_with_spree() -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data());
    add(&fleet, "spree", "ld:spree").await;
    fleet
}

async fn add(fleet: &Fleet, name: &str, prefix: &str) {
    let added = fleet.add_environment(name, prefix, KEY, &["--wait"]).await.unwrap().expect_success();
    assert_eq!(added.stdout, format!("environment/{name} created\nenvironment/{name} current\n"));
    assert_eq!(added.stderr, "");
}

/// Runs a command that must succeed, and returns what it printed.
async fn told(fleet: &Fleet, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    fleet.cli(&arguments).await.unwrap().expect_success().stdout
}

async fn told_json(fleet: &Fleet, arguments: &str) -> Value {
    serde_json::from_str(&told(fleet, arguments).await).unwrap()
}

/// The exit status of a command.
async fn exit(fleet: &Fleet, arguments: &str) -> i32 {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    fleet.cli(&arguments).await.unwrap().status
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_added_environment_is_stored_and_shown() {
    let fleet = fleet_with_spree().await;
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
    assert_eq!(
        keys(&fleet.redis).await,
        ["ld:spree:$flotilla", "ld:spree:$inited", "ld:spree:features", "ld:spree:segments"]
    );

    let status = fleet.environment_status("spree").await.unwrap();
    let expected = [
        ("name", json!("spree")),
        ("displayName", Value::Null),
        ("prefix", json!("ld:spree")),
        ("store", json!("default")),
        ("source", json!("stream")),
        ("filter", Value::Null),
        ("labels", json!({})),
        ("paused", json!(false)),
        ("sdkKeyMasked", json!("sdk-********-****-****-****-*******12345")),
        ("initialization", json!("current")),
        ("worker", json!("w1")),
        ("epoch", json!(1)),
        ("generation", json!(1)),
        ("flags", json!(25)),
        ("segments", json!(2)),
        ("lastError", Value::Null),
    ];
    for (field, value) in expected {
        assert_eq!(status.get(field), Some(&value), "{field} in {status}");
    }
    let bytes: usize = [Kind::Flag, Kind::Segment].iter().map(|&kind| size(&data(), kind)).sum();
    assert!(status["bytes"].as_u64().unwrap() >= bytes as u64, "{status}");
    for field in ["uid", "etag", "lastEventTime", "lastByteTime", "lastWriteTime", "createTime", "updateTime"] {
        assert!(status[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {status}");
    }
    for kind in ["Accepted", "Assigned", "Connected", "Initialized", "Current", "StoreAvailable"] {
        let found = condition(&status, kind).unwrap_or_else(|| panic!("no {kind} in {status}"));
        assert_eq!(found["status"], "true", "{found}");
        assert_eq!(found["observedGeneration"], 1, "{found}");
        for field in ["reason", "message", "lastTransitionTime"] {
            assert!(found[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {found}");
        }
    }
}

fn size(data: &Dataset, kind: Kind) -> usize {
    data.items(kind).map(|item| item.json().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_workers_and_data_are_listed() {
    let fleet = fleet_with_spree().await;
    add(&fleet, "other", "ld:other").await;

    let table = told(&fleet, "env list").await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME ") && lines[1].starts_with("other ") && lines[2].starts_with("spree "));
    assert!(lines[2].contains("ld:spree") && lines[2].contains("current") && lines[2].contains("w1"), "{table}");
    let list = told_json(&fleet, "env list -o json").await;
    let environments = list["environments"].as_array().unwrap();
    assert_eq!([&environments[0]["name"], &environments[1]["name"]], ["other", "spree"]);
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!(
        status.as_object().unwrap().keys().collect::<Vec<_>>(),
        environments[1].as_object().unwrap().keys().collect::<Vec<_>>(),
        "a list holds the documents of env status"
    );
    assert_eq!(told(&fleet, "env list -o name").await, "environment/other\nenvironment/spree\n");
    assert_eq!(told_json(&fleet, "env list --state stale -o json").await, json!({"environments": []}));
    let get = told(&fleet, "env get spree").await;
    assert!(get.contains("ld:spree") && get.contains("sdk-********-****-****-****-*******12345"), "{get}");
    let (yaml, text) = (told(&fleet, "env get spree -o yaml").await, told(&fleet, "env status spree").await);
    assert!(
        yaml.contains("name: spree\n") && text.contains("current") && text.contains("Conditions"),
        "{yaml}{text}"
    );

    let summary = told_json(&fleet, "status -o json").await;
    assert_eq!((&summary["environments"]["current"], &summary["workers"]["connected"]), (&json!(2), &json!(1)));
    let workers = told_json(&fleet, "worker list -o json").await;
    assert_eq!((&workers["workers"][0]["name"], &workers["workers"][0]["environments"]), (&json!("w1"), &json!(2)));
    let worker = told_json(&fleet, "worker get w1 -o json").await;
    assert_eq!(worker["environmentNames"], json!(["other", "spree"]));

    let items = told_json(&fleet, "data list spree -o json").await;
    assert_eq!(items["initialized"], true);
    assert_eq!(items["items"].as_array().unwrap().len(), 27);
    assert_eq!(items["items"][0], json!({"kind": "flag", "key": "flag-00000", "version": 1, "bytes": 1000}));
    let data = data();
    let flag = data.get(Kind::Flag, "flag-00003").unwrap();
    assert_eq!(told(&fleet, "data get spree flag/flag-00003").await, format!("{}\n", flag.json()));
    let segment = data.get(Kind::Segment, "segment-00001").unwrap();
    assert_eq!(told(&fleet, "data get spree segment/segment-00001").await, format!("{}\n", segment.json()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_statuses_are_those_of_the_contract() {
    let fleet = fleet_with_spree().await;
    assert_eq!(exit(&fleet, "status").await, 0);
    for (arguments, status) in [
        ("env wait spree --for current", 0),
        ("env wait nobody --for removed", 0),
        ("env remove nobody --yes --ignore-not-found", 0),
        ("data get spree flag/flag-00001", 0),
        ("data get spree nonsense", 2),
        ("env remove spree", 2),
        ("env update spree", 2),
        ("env frobnicate", 2),
        ("env get nobody", 3),
        ("env status nobody", 3),
        ("env pause nobody", 3),
        ("env wait nobody --for current", 3),
        ("env remove nobody --yes", 3),
        ("worker get nobody", 3),
        ("data list nobody", 3),
        ("data get spree flag/nothing", 3),
    ] {
        assert_eq!(exit(&fleet, arguments).await, status, "{arguments}");
    }
    let duplicate = fleet.add_environment("spree", "ld:new", KEY, &[]).await.unwrap();
    assert_eq!(duplicate.status, 4, "{duplicate:?}");
    assert_eq!(told(&fleet, "env pause spree").await, "environment/spree paused\n");
    let refused = fleet.cli(&["env", "wait", "spree", "--for", "current"]).await.unwrap();
    assert_eq!(refused.status, 1, "a paused one is not waited for: {refused:?}");
    assert_eq!(exit(&fleet, "status").await, 0, "paused ones do not count");
    let unknown_key = "sdk-00000000-0000-4000-8000-0000000099ff";
    fleet.add_environment("lost", "ld:lost", unknown_key, &[]).await.unwrap().expect_success();
    let late = fleet.cli(&["env", "wait", "lost", "--for", "current", "--timeout", "300ms"]).await.unwrap();
    assert_eq!(late.status, 124);
    assert!(
        late.stderr.contains("time ran out after 300ms") && late.stderr.contains("environment/lost"),
        "{late:?}"
    );
    let not_current = fleet.cli(&["status"]).await.unwrap();
    assert_eq!(not_current.status, 1, "{not_current:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_environment_stands_still_until_it_is_resumed() {
    let fleet = fleet_with_spree().await;
    let simulator = &fleet.simulator;
    assert_eq!(told(&fleet, "env pause spree").await, "environment/spree paused\n");
    flotilla_tests::harness::wait_until("the stream ends", SOON, async || {
        match simulator.counters(KEY).streams_open {
            0 => Ok(()),
            open => Err(format!("{open} streams")),
        }
    })
    .await;
    fleet.wait_for_initialization("spree", "stale", SOON).await;
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!((&status["paused"], &status["generation"]), (&json!(true), &json!(2)));
    simulator.patch(KEY, Kind::Flag, generated_flag(0, 2, 1_000, SEED));
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
    assert_eq!(told(&fleet, "env pause spree").await, "environment/spree paused\n", "once more changes nothing");
    assert_eq!(told(&fleet, "env resume spree").await, "environment/spree resumed\n");
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    wait_for_stored(&fleet.redis, "ld:spree", &simulator.data(KEY), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_is_updated_and_resynchronized_while_it_serves() {
    let fleet = fleet_with_spree().await;
    let updated = fleet
        .cli(&["env", "update", "spree", "--display-name", "Spree Project", "--label", "team=spree"])
        .await
        .unwrap();
    assert_eq!(updated.expect_success().stdout, "environment/spree updated\n");
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!(status["displayName"], "Spree Project");
    assert_eq!((&status["labels"], &status["generation"]), (&json!({"team": "spree"}), &json!(2)));
    assert_eq!(told(&fleet, "env list -l team=spree -o name").await, "environment/spree\n");
    told(&fleet, "env update spree --label team- --dry-run").await;
    assert_eq!(fleet.environment_status("spree").await.unwrap()["generation"], 2);
    told(&fleet, "env update spree --label team-").await;
    assert_eq!(fleet.environment_status("spree").await.unwrap()["labels"], json!({}));
    let immutable = fleet.cli(&["env", "update", "spree", "--prefix", "ld:new"]).await.unwrap();
    assert_eq!(immutable.status, 2, "{immutable:?}");

    let connections = fleet.simulator.counters(KEY).stream_connections;
    assert_eq!(told(&fleet, "env resync spree").await, "environment/spree resync started\n");
    flotilla_tests::harness::wait_until("it connects anew", BOUND, async || {
        let now = fleet.simulator.counters(KEY).stream_connections;
        if now > connections { Ok(()) } else { Err(format!("{now} connections")) }
    })
    .await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    assert_stored(&fleet.redis, "ld:spree", &data()).await;

    let filtered = generated_flags(3, 1_000, SEED + 1);
    fleet.simulator.add_environment(&format!("{KEY}?filter=small"), Some("spree-id"), filtered.clone());
    told(&fleet, "env update spree --filter small").await;
    wait_for_stored(&fleet.redis, "ld:spree", &filtered, BOUND).await;
    let cleared = fleet.cli(&["env", "update", "spree", "--filter", ""]).await.unwrap();
    cleared.expect_success();
    wait_for_stored(&fleet.redis, "ld:spree", &data(), BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_leaves_the_data_and_a_purge_only_the_released_fence() {
    let fleet = fleet_with_spree().await;
    add(&fleet, "beside", "ld:spree:beside").await;
    let dry = told(&fleet, "env remove spree --purge --dry-run").await;
    assert_eq!(dry, "environment/spree removed (dry run)\n");
    assert_eq!(told(&fleet, "env remove spree --yes").await, "environment/spree removed\n");
    assert_eq!(exit(&fleet, "env get spree").await, 3);
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
    flotilla_tests::harness::wait_until("its stream ends", SOON, async || {
        match fleet.simulator.counters(KEY).streams_open {
            1 => Ok(()),
            open => Err(format!("{open} streams")),
        }
    })
    .await;

    add(&fleet, "spree", "ld:spree").await;
    assert!(fleet.environment_status("spree").await.unwrap()["epoch"].as_u64().unwrap() > 1, "epochs go on");
    assert_eq!(told(&fleet, "env remove spree --purge --yes").await, "environment/spree removed\n");
    let mut connection = fleet.redis.connection().await.unwrap();
    let found = Stored::read(&mut connection, "ld:spree").await;
    found.compare(&Stored::nothing()).unwrap();
    let mine: Vec<String> = keys(&fleet.redis).await;
    let mine: Vec<&String> = mine.iter().filter(|key| !key.starts_with("ld:spree:beside:")).collect();
    assert_eq!(mine, ["ld:spree:$flotilla"]);
    let seconds: i64 = connection.ttl("ld:spree:$flotilla").await.unwrap();
    assert!((6 * 86_400..=7 * 86_400).contains(&seconds), "{seconds}");
    assert_stored(&fleet.redis, "ld:spree:beside", &data()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_runs_completions_and_version_need_no_change() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    let dry = fleet.add_environment("spree", "ld:spree", KEY, &["--dry-run"]).await.unwrap();
    assert_eq!(dry.expect_success().stdout, "environment/spree created (dry run)\n");
    assert_eq!(told_json(&fleet, "env list -o json").await, json!({"environments": []}));
    for shell in ["bash", "zsh", "fish"] {
        let script = told(&fleet, &format!("completions {shell}")).await;
        assert!(script.contains("flotilla") && script.contains("rotate-key"), "{shell}");
    }
    let version = told(&fleet, "version").await;
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    assert!(told(&fleet, "--version").await.contains(env!("CARGO_PKG_VERSION")));
    let piped = fleet.cli(&["env", "add", "--help"]).await.unwrap().expect_success();
    assert!(piped.stdout.contains("Examples:") && !piped.stdout.contains('\u{1b}'), "no colour in a pipe");
}
