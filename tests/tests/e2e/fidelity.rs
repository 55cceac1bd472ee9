//! What LaunchDarkly sent is what is stored, to the byte, and not more is written than differs.

use std::time::Duration;

use flotilla_tests::harness::{Fleet, redis_info, wait_until};
use flotilla_tests::simulator::{Dataset, Item, Kind, events, generated_flag, generated_flags, torture};
use serde_json::Value;

use crate::monitor::{Monitor, Seen};
use crate::stored::{BOUND, SOON, assert_stored, condition, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-0000000000f1";
const PREFIX: &str = "ld:spree";
const SEED: u64 = 13;
/// A flag whose arrival shows that everything sent before it has been dealt with.
const LAST: &str = "zz-last";

async fn fleet_with(data: &Dataset) -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data.clone());
    let more = ["--wait", "--initial-retry-delay", "100ms"];
    fleet.add_environment("spree", PREFIX, KEY, &more).await.unwrap().expect_success();
    fleet
}

fn item(key: &str, version: u64) -> Item {
    Item::raw(key, version, &format!(r#"{{"key":"{key}","version":{version},"on":false}}"#))
}

/// Sends one more patch and waits for it, so that what was sent before has been dealt with. `data` gets it too.
async fn settle(fleet: &Fleet, data: &mut Dataset) {
    let version = data.get(Kind::Flag, LAST).map_or(1, |last| last.version() + 1);
    data.insert(Kind::Flag, item(LAST, version));
    fleet.simulator.patch(KEY, Kind::Flag, item(LAST, version));
    wait_for_stored(&fleet.redis, PREFIX, data, SOON).await;
}

async fn wait_for_another_connection(fleet: &Fleet, before: u64) {
    wait_until("it connects anew", BOUND, async || {
        let now = fleet.simulator.counters(KEY).stream_connections;
        if now > before { Ok(()) } else { Err(format!("{now} connections")) }
    })
    .await;
}

async fn wait_for_condition(fleet: &Fleet, kind: &str, present: bool) -> Value {
    wait_until(&format!("{kind} is shown: {present}"), SOON, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        if condition(&status, kind).is_some() == present { Ok(status) } else { Err(status.to_string()) }
    })
    .await
}

/// What Redis has received over the network, in bytes.
async fn received_bytes(fleet: &Fleet) -> u64 {
    let mut connection = fleet.redis.connection().await.unwrap();
    redis_info(&mut connection, "stats").await.unwrap()["total_net_input_bytes"].parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_redis_are_those_of_the_stream() {
    let data = torture(1_000, SEED);
    let fleet = fleet_with(&data).await;
    assert_stored(&fleet.redis, PREFIX, &data).await;
    // Patches too, at both ends of the alphabet and with everything that JSON permits.
    let other = torture(1_000, SEED + 1);
    for item in other.items(Kind::Flag).take(50) {
        fleet.simulator.patch(KEY, Kind::Flag, item.clone());
    }
    for item in other.items(Kind::Segment).take(20) {
        fleet.simulator.patch(KEY, Kind::Segment, item.clone());
    }
    wait_for_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reconnect_with_unchanged_data_writes_no_flag_bytes() {
    let mut data = generated_flags(200, 2_000, SEED);
    let fleet = fleet_with(&data).await;
    settle(&fleet, &mut data).await;
    let mut monitor = Monitor::start(&fleet.redis).await;
    let (received, connections) = (received_bytes(&fleet).await, fleet.simulator.counters(KEY).stream_connections);
    for round in 0..2 {
        fleet.simulator.cut_streams(KEY);
        wait_for_another_connection(&fleet, connections + round).await;
        settle(&fleet, &mut data).await;
    }
    let seen = monitor.seen().await;
    let received = received_bytes(&fleet).await - received;
    assert_eq!(fields_written(&seen), [LAST, LAST], "only the two patches after the reconnects");
    assert!(!seen.iter().any(|seen| seen.words.iter().any(|word| word.contains("flag-00007"))), "no flag is sent");
    // The test's own reads are part of it; the data are 400 KB.
    assert!(received < 40_000, "{received} bytes were sent to Redis");
    fleet.wait_for_initialization("spree", "current", SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resync_and_a_new_owner_write_only_what_differs() {
    let data = generated_flags(200, 2_000, SEED);
    let mut fleet = fleet_with(&data).await;
    let mut monitor = Monitor::start(&fleet.redis).await;
    let connections = fleet.simulator.counters(KEY).stream_connections;
    fleet.cli(&["env", "resync", "spree"]).await.unwrap().expect_success();
    wait_for_another_connection(&fleet, connections).await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    assert_eq!(fields_written(&monitor.seen().await), [""; 0]);

    // What changed while nobody looked is found by the comparison.
    fleet.worker(0).kill9();
    let mut changed = data;
    changed.insert(Kind::Flag, generated_flag(8, 2, 2_000, SEED));
    changed.remove(Kind::Segment, "segment-00003");
    fleet.simulator.set_data(KEY, changed.clone());
    fleet.restart_worker(0).await.unwrap();
    // Whether the segment is gone, LaunchDarkly is asked once more after half a minute.
    wait_for_stored(&fleet.redis, PREFIX, &changed, 3 * BOUND).await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    let mut written = fields_written(&monitor.seen().await);
    written.sort();
    assert_eq!(written, ["flag-00008", "segment-00003"]);
}

/// Fields of flags and segments that scripts wrote or removed, in order.
fn fields_written(seen: &[Seen]) -> Vec<String> {
    let mut fields = Vec::new();
    for seen in seen.iter().filter(|seen| seen.by_script) {
        let (name, arguments) = seen.words.split_first().unwrap();
        match name.to_ascii_uppercase().as_str() {
            "HSET" => fields.extend(arguments[1..].iter().step_by(2).cloned()),
            "HDEL" => fields.extend(arguments[1..].iter().cloned()),
            "RENAME" => fields.push(format!("all of {}", arguments[1])),
            _ => {}
        }
    }
    fields
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_one_item_writes_exactly_one_field() {
    let data = generated_flags(100, 1_000, SEED);
    let fleet = fleet_with(&data).await;
    let mut monitor = Monitor::start(&fleet.redis).await;
    fleet.simulator.patch(KEY, Kind::Flag, generated_flag(5, 2, 1_000, SEED));
    wait_for_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY), SOON).await;
    let seen = monitor.seen().await;
    assert_eq!(fields_written(&seen), ["flag-00005"]);
    let write = Monitor::by_scripts(&seen, "HSET")[0];
    assert_eq!((write.words.len(), write.words[1].as_str()), (4, "ld:spree:features"), "{write:?}");

    fleet.simulator.delete(KEY, Kind::Segment, "segment-00002", 2);
    wait_for_stored(&fleet.redis, PREFIX, &fleet.simulator.data(KEY), SOON).await;
    assert_eq!(fields_written(&monitor.seen().await), ["segment-00002"]);

    // A full payload that differs in one item is written as that item.
    let mut changed = Dataset::clone(&fleet.simulator.data(KEY));
    changed.insert(Kind::Flag, generated_flag(6, 2, 1_000, SEED));
    fleet.simulator.set_data(KEY, changed.clone());
    fleet.simulator.put(KEY);
    wait_for_stored(&fleet.redis, PREFIX, &changed, SOON).await;
    assert_eq!(fields_written(&monitor.seen().await), ["flag-00006"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn older_patches_and_deletions_are_ignored() {
    let mut data = Dataset::default();
    for (kind, key) in [(Kind::Flag, "a"), (Kind::Flag, "b"), (Kind::Segment, "s")] {
        data.insert(kind, item(key, 5));
    }
    let fleet = fleet_with(&data).await;
    let simulator = &fleet.simulator;
    let mut monitor = Monitor::start(&fleet.redis).await;
    for version in [4, 5] {
        let body = item("a", version).json().replace("false", "true");
        simulator.send_raw(KEY, events::patch(Kind::Flag, &Item::raw("a", version, &body)));
        simulator.send_raw(KEY, events::delete(Kind::Flag, "a", version));
        simulator.send_raw(KEY, events::delete(Kind::Segment, "s", version));
    }
    settle(&fleet, &mut data).await;
    assert_eq!(fields_written(&monitor.seen().await), [LAST], "nothing else was written");

    data.remove(Kind::Flag, "a");
    simulator.send_raw(KEY, events::delete(Kind::Flag, "a", 7));
    settle(&fleet, &mut data).await;
    for version in [5, 6, 7] {
        simulator.send_raw(KEY, events::patch(Kind::Flag, &item("a", version)));
    }
    settle(&fleet, &mut data).await;
    let written = fields_written(&monitor.seen().await);
    let of_a = written.iter().filter(|field| *field == "a").count();
    assert_eq!(of_a, 1, "deleted at 7, and 5 to 7 are old: {written:?}");
    data.insert(Kind::Flag, item("a", 8));
    simulator.send_raw(KEY, events::patch(Kind::Flag, &item("a", 8)));
    settle(&fleet, &mut data).await;

    // An item that was never there: its deletion is remembered all the same.
    simulator.send_raw(KEY, events::delete(Kind::Flag, "never", 3));
    simulator.send_raw(KEY, events::patch(Kind::Flag, &item("never", 2)));
    settle(&fleet, &mut data).await;
    // An item that arrives as deleted is a deletion.
    let gone = Item::raw("b", 6, r#"{"key":"b","version":6,"deleted":true}"#);
    data.remove(Kind::Flag, "b");
    simulator.send_raw(KEY, events::patch(Kind::Flag, &gone));
    settle(&fleet, &mut data).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_bad_item_does_not_spoil_the_rest() {
    let good = generated_flags(5, 900, SEED);
    let mut sent = good.clone();
    for (key, json) in [
        ("bad-version", r#"{"key":"bad-version","version":"1"}"#),
        ("bad-key", r#"{"key":"another","version":1}"#),
        ("bad-null", "null"),
        ("bad-list", "[1]"),
    ] {
        sent.insert(Kind::Flag, Item::raw(key, 1, json));
    }
    sent.insert(Kind::Segment, Item::raw("bad-segment", 1, r#"{"key":"bad-segment"}"#));
    let fleet = fleet_with(&sent).await;
    assert_stored(&fleet.redis, PREFIX, &good).await;
    let status = wait_for_condition(&fleet, "ItemsRejected", true).await;
    let message = condition(&status, "ItemsRejected").unwrap()["message"].as_str().unwrap();
    for named in ["flag/bad-version", "flag/bad-key", "flag/bad-null", "flag/bad-list", "segment/bad-segment"] {
        assert!(message.contains(named), "{named} in {message}");
    }
    assert_eq!((&status["initialization"], &status["flags"]), (&"current".into(), &5.into()));
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let rejected = "flotilla_environment_items_rejected{environment=\"spree\"} 5.0";
    assert!(metrics.contains(rejected), "{metrics}");

    // An item that turns bad keeps its last good form, in a patch and in a full payload.
    fleet.simulator.set_data(KEY, good.clone());
    fleet.simulator.put(KEY);
    wait_for_condition(&fleet, "ItemsRejected", false).await;
    let bad = Item::raw("flag-00001", 2, r#"{"key":"flag-00001","version":1.5}"#);
    fleet.simulator.patch(KEY, Kind::Flag, bad);
    let mut data = good;
    settle(&fleet, &mut data).await;
    wait_for_condition(&fleet, "ItemsRejected", true).await;
    fleet.simulator.put(KEY);
    settle(&fleet, &mut data).await;
    let mended = generated_flag(1, 3, 900, SEED);
    data.insert(Kind::Flag, mended.clone());
    fleet.simulator.patch(KEY, Kind::Flag, mended);
    wait_for_stored(&fleet.redis, PREFIX, &data, SOON).await;
    wait_for_condition(&fleet, "ItemsRejected", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_json_drops_the_connection_and_leaves_the_data() {
    let mut data = generated_flags(5, 900, SEED);
    let fleet = fleet_with(&data).await;
    for (round, text) in [
        events::event("patch", r#"{"path":"/flags/flag-00001","data":{"key":"#),
        events::event("put", r#"{"path":"/","data":[]}"#),
        events::event("patch", r#"{"data":{"key":"flag-00001","version":9}}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let connections = fleet.simulator.counters(KEY).stream_connections;
        fleet.simulator.send_raw(KEY, text);
        wait_for_another_connection(&fleet, connections).await;
        assert_stored(&fleet.redis, PREFIX, &data).await;
        settle(&fleet, &mut data).await;
        let status = fleet.environment_status("spree").await.unwrap();
        assert_eq!(status["lastError"]["kind"], "data", "round {round}: {status}");
    }
    // What has no meaning yet is skipped, be it JSON or not.
    let connections = fleet.simulator.counters(KEY).stream_connections;
    fleet.simulator.send_raw(KEY, events::event("someday", "not { JSON"));
    fleet.simulator.send_raw(KEY, events::event("patch", r#"{"path":"/experiments/x","data":{}}"#));
    fleet.simulator.send_raw(KEY, events::HEARTBEAT);
    settle(&fleet, &mut data).await;
    assert_eq!(fleet.simulator.counters(KEY).stream_connections, connections);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_gone_and_back_is_followed() {
    let fleet = fleet_with(&generated_flags(3, 900, SEED)).await;
    fleet.cli(&["env", "update", "spree", "--guard", "off"]).await.unwrap().expect_success();
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    let empty = Dataset::default();
    fleet.simulator.set_data(KEY, empty.clone());
    fleet.simulator.put(KEY);
    wait_for_stored(&fleet.redis, PREFIX, &empty, SOON).await;
    let large = generated_flags(1_200, 1_000, SEED);
    fleet.simulator.set_data(KEY, large.clone());
    fleet.simulator.put(KEY);
    wait_for_stored(&fleet.redis, PREFIX, &large, BOUND).await;
    fleet.wait_for_initialization("spree", "current", SOON).await;
    let mut connection = fleet.redis.connection().await.unwrap();
    wait_until("staging keys are gone", Duration::from_secs(2), async || {
        let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut connection).await.unwrap();
        if keys.len() == 4 { Ok(()) } else { Err(format!("{keys:?}")) }
    })
    .await;
}
