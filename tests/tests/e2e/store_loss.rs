//! Redis loses data, is changed by somebody else, or is away: it is repaired from memory, and LaunchDarkly is not asked.

use std::time::{Duration, Instant};

use flotilla_tests::harness::{Fleet, redis_info, require_tool, wait_until};
use flotilla_tests::simulator::{Dataset, Item, Kind, generated_flag, generated_flags};
use redis::aio::MultiplexedConnection;

use crate::population::{BOUND, PROBE, Population, owners, probe};
use crate::stored::condition;

const SHORT: [&str; 6] = ["--heartbeat-interval", "300ms", "--lease-duration", "2s", "--reassign-grace", "300ms"];
/// The environment whose data is too much for one script.
const BIG: usize = 0;

/// One worker and five environments, one of them of 1.2 MB.
async fn start() -> (Fleet, Population) {
    let fleet = Fleet::builder().control_arguments(&SHORT).start().await.unwrap();
    let population = Population::settle_in(&fleet, 5).await;
    let mut big: Dataset = generated_flags(600, 2048, 7);
    big.insert(Kind::Flag, probe(2));
    fleet.simulator.set_data(&Population::key(BIG), big);
    fleet.simulator.put(&Population::key(BIG));
    population.wait_until_stored(&fleet, BOUND).await;
    (fleet, population)
}

/// Waits until Redis is in order again, and says how long that took.
#[expect(clippy::disallowed_methods, reason = "measures how long the repair takes")]
async fn refilled(fleet: &Fleet, population: Population) -> Duration {
    let since = Instant::now();
    population.wait_until_stored(fleet, BOUND).await;
    since.elapsed()
}

/// Waits until `env status` shows this of the store, and that the environment is not current, or is.
async fn wait_until_available(fleet: &Fleet, index: usize, available: &str, initialization: &str) {
    wait_until(&format!("StoreAvailable is {available}"), BOUND, async || {
        let status =
            fleet.environment_status(&Population::name(index)).await.map_err(|error| format!("{error:#}"))?;
        let conditions = status["conditions"].as_array().unwrap();
        let shown = conditions.iter().find(|one| one["type"] == "StoreAvailable").unwrap();
        if shown["status"] == available && status["initialization"] == initialization {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
}

async fn flush(fleet: &Fleet) {
    let mut redis = fleet.redis.connection().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_is_refilled_from_memory() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start().await;
    let connections = population.connections(&fleet);
    let before = owners(&fleet).await;

    fleet.redis.stop();
    fleet.redis.start_again().await.unwrap();
    let restarted = refilled(&fleet, population).await;
    population.wait_until_current(&fleet, BOUND).await;
    flush(&fleet).await;
    let flushed = refilled(&fleet, population).await;
    population.wait_until_current(&fleet, BOUND).await;

    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
    assert_eq!(owners(&fleet).await, before, "what an owner repairs it goes on to own");
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;
    println!("refilled {restarted:?} after a restart, {flushed:?} after a flush");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_redis_is_refilled_while_control_is_away() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start().await;
    let (connections, before) = (population.connections(&fleet), owners(&fleet).await);
    fleet.control().kill9();

    fleet.redis.stop();
    population.patch(&fleet, 3);
    fleet.redis.start_again().await.unwrap();
    let restarted = refilled(&fleet, population).await;
    flush(&fleet).await;
    let flushed = refilled(&fleet, population).await;
    population.patch(&fleet, 4);
    population.wait_until_stored(&fleet, BOUND).await;

    fleet.restart_control().await.unwrap();
    population.wait_until_current(&fleet, BOUND).await;
    assert_eq!(owners(&fleet).await, before);
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
    println!("without control, refilled {restarted:?} after a restart, {flushed:?} after a flush");
}

/// A save of some time ago is all that is left, or another database is emptied too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_with_old_data_is_brought_up_to_date() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start().await;
    let connections = population.connections(&fleet);
    let mut redis = fleet.redis.connection().await.unwrap();
    redis::cmd("SAVE").exec_async(&mut redis).await.unwrap();
    population.patch(&fleet, 10);
    population.wait_until_stored(&fleet, BOUND).await;
    fleet.redis.stop();
    population.patch(&fleet, 11);
    fleet.redis.start_again().await.unwrap();
    let mut redis = fleet.redis.connection().await.unwrap();
    let loaded: bool = redis::cmd("EXISTS")
        .arg(format!("{}:features", Population::prefix(1)))
        .query_async(&mut redis)
        .await
        .unwrap();
    assert!(loaded, "the save was not loaded");
    println!("brought up to date after {:?}", refilled(&fleet, population).await);
    redis::cmd("FLUSHDB").exec_async(&mut redis).await.unwrap();
    println!("refilled {:?} after FLUSHDB", refilled(&fleet, population).await);
    population.wait_until_current(&fleet, BOUND).await;
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
}

/// What somebody does to our keys by hand.
async fn tamper(redis: &mut MultiplexedConnection, prefix: &str, how: &str) {
    let [flags, segments] = ["features", "segments"].map(|hash| format!("{prefix}:{hash}"));
    let command = match how {
        "a field changed" => redis::cmd("HSET").arg(&flags).arg(PROBE).arg("{}").to_owned(),
        "a field added" => redis::cmd("HSET").arg(&flags).arg("foreign").arg("{}").to_owned(),
        "a field deleted" => redis::cmd("HDEL").arg(&flags).arg("flag-00001").to_owned(),
        "a segment added" => redis::cmd("HSET").arg(&segments).arg("foreign").arg("{}").to_owned(),
        "the flags deleted" => redis::cmd("DEL").arg(&flags).to_owned(),
        "the marker deleted" => redis::cmd("DEL").arg(format!("{prefix}:$inited")).to_owned(),
        "the fence deleted" => redis::cmd("DEL").arg(format!("{prefix}:$flotilla")).to_owned(),
        "everything renamed" => redis::cmd("RENAME").arg(&flags).arg("elsewhere").to_owned(),
        "flags that expire" => redis::cmd("EXPIRE").arg(&flags).arg(100).to_owned(),
        "a marker that expires" => redis::cmd("EXPIRE").arg(format!("{prefix}:$inited")).arg(100).to_owned(),
        "a fence that expires" => redis::cmd("EXPIRE").arg(format!("{prefix}:$flotilla")).arg(100).to_owned(),
        "flags that are a text" => redis::cmd("SET").arg(&flags).arg("text").to_owned(),
        "segments that are a text" => redis::cmd("SET").arg(&segments).arg("text").to_owned(),
        "a marker that is a set" => {
            let script = "redis.call('DEL', KEYS[1]) redis.call('SADD', KEYS[1], 'member')";
            redis::cmd("EVAL").arg(script).arg(1).arg(format!("{prefix}:$inited")).to_owned()
        }
        other => panic!("unknown: {other}"),
    };
    command.exec_async(redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_somebody_else_changed_is_repaired() {
    if !require_tool("redis-server") {
        return;
    }
    let (fleet, population) = start().await;
    let connections = population.connections(&fleet);
    let mut redis = fleet.redis.connection().await.unwrap();
    let tampers = [
        "a field changed",
        "a field added",
        "a field deleted",
        "a segment added",
        "the flags deleted",
        "the marker deleted",
        "the fence deleted",
        "everything renamed",
        "flags that expire",
        "a marker that expires",
        "a fence that expires",
        "flags that are a text",
        "segments that are a text",
        "a marker that is a set",
    ];
    let staged = ["the flags deleted", "the fence deleted", "flags that expire", "flags that are a text"];
    for (number, how) in tampers.into_iter().enumerate() {
        // Of each environment so seldom that it is no busy writer's.
        let big = staged.contains(&how).then_some(BIG);
        let indices: Vec<_> = big.into_iter().chain([1 + number % 4]).collect();
        for index in &indices {
            tamper(&mut redis, &Population::prefix(*index), how).await;
        }
        let repaired = refilled(&fleet, population).await;
        println!("{how}: repaired after {repaired:?}");
        for index in indices {
            wait_until_sound(&mut redis, &Population::prefix(index), how).await;
        }
        // The owner's next write goes through: it is in line with the fence again.
        population.wait_until_current(&fleet, BOUND).await;
    }
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let events = fleet.cli(&["events"]).await.unwrap().expect_success().stdout;
    for (reason, least, told) in [
        ("items", 5, "items changed by somebody else"),
        ("marker", 1, "the marker gone"),
        ("fence", 1, "the fence gone"),
        ("expiry", 3, "would have expired"),
        ("type", 3, "of another type"),
    ] {
        let begin = format!("flotilla_store_repairs_total{{reason=\"{reason}\"}} ");
        let repairs = metrics.lines().find_map(|line| line.strip_prefix(&begin)).unwrap();
        assert!(repairs.parse::<u64>().unwrap() >= least, "{reason}: {metrics}");
        assert!(events.contains(told), "{reason}: {events}");
    }
}

/// No key expires, and each is of its type.
async fn wait_until_sound(redis: &mut MultiplexedConnection, prefix: &str, how: &str) {
    let keys = [("features", "hash"), ("segments", "hash"), ("$inited", "string"), ("$flotilla", "string")];
    for (key, kind) in keys {
        let key = format!("{prefix}:{key}");
        wait_until(&format!("{how}: {key} is sound"), BOUND, async || {
            let mut pipe = redis::pipe();
            pipe.cmd("TYPE").arg(&key).cmd("PTTL").arg(&key);
            let (found, expires): (String, i64) =
                pipe.query_async(redis).await.map_err(|error| error.to_string())?;
            let is_sound = found == kind && expires == -1;
            if is_sound { Ok(()) } else { Err(format!("{found}, expires in {expires} ms")) }
        })
        .await;
    }
}

/// A Redis that is told to throw keys away when it is full throws away ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_redis_evicts_is_put_back() {
    if !require_tool("redis-server") {
        return;
    }
    let (fleet, population) = start().await;
    let connections = population.connections(&fleet);
    let mut redis = fleet.redis.connection().await.unwrap();
    let used: u64 = redis_info(&mut redis, "memory").await.unwrap()["used_memory"].parse().unwrap();
    let mut limit = redis::cmd("CONFIG");
    limit.arg("SET").arg("maxmemory-policy").arg("allkeys-random").arg("maxmemory").arg(used + 1_000_000);
    limit.exec_async(&mut redis).await.unwrap();
    let mut filler = 0;
    wait_until("something of ours is evicted", BOUND, async || {
        filler += 1;
        let (key, value) = (format!("filler:{filler}"), "x".repeat(100_000));
        redis::cmd("SET").arg(key).arg(value).exec_async(&mut redis).await.map_err(|error| error.to_string())?;
        let events = fleet.cli(&["events"]).await.map_err(|error| format!("{error:#}"))?.stdout;
        if events.contains("repair") { Ok(()) } else { Err(events) }
    })
    .await;
    redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(0).exec_async(&mut redis).await.unwrap();
    population.wait_until_stored(&fleet, BOUND).await;
    population.wait_until_current(&fleet, BOUND).await;
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
}

/// Somebody who writes again and again is named, and not fought over in a tight loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_foreign_writer_is_a_conflict() {
    if !require_tool("redis-server") {
        return;
    }
    let (fleet, _population) = start().await;
    let mut redis = fleet.redis.connection().await.unwrap();
    let (prefix, name) = (Population::prefix(1), Population::name(1));
    wait_until("the conflict is shown", BOUND, async || {
        tamper(&mut redis, &prefix, "a field changed").await;
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        let reason = condition(&status, "Conflict").map(|conflict| conflict["reason"].clone());
        if reason == Some("ForeignWrites".into()) { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    wait_until("it is over when he stops", BOUND, async || {
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        if condition(&status, "Conflict").is_none() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    fleet.wait_for_initialization(&name, "current", BOUND).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_while_redis_is_away_waits_and_is_written() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start().await;
    let connections = population.connections(&fleet);

    fleet.redis.stop();
    // Nobody writes, and yet it is noticed.
    wait_until_available(&fleet, 1, "false", "stale").await;
    for version in 3..30 {
        population.patch(&fleet, version);
    }
    let (key, flag) = (Population::key(1), generated_flag(7, 1, 500, 1));
    fleet.simulator.delete(&key, Kind::Flag, "flag-00001", 2);
    fleet.simulator.patch(&key, Kind::Flag, flag);
    fleet.simulator.patch(&key, Kind::Segment, Item::parse(r#"{"key":"new","version":1}"#).unwrap());
    assert_eq!(fleet.cli(&["status"]).await.unwrap().status, 1);

    fleet.redis.start_again().await.unwrap();
    population.wait_until_stored(&fleet, BOUND).await;
    for index in population.indices() {
        wait_until_available(&fleet, index, "true", "current").await;
    }
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
}

/// Redis stands still and goes on with what it had: late bytes of before do no harm.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_stood_still_gets_the_newest_data() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start().await;
    fleet.redis.process().stop_sigstop();
    population.patch(&fleet, 3);
    // The writes under way run out of time, so their outcome is unknown.
    wait_until_available(&fleet, 1, "false", "stale").await;
    population.patch(&fleet, 4);
    fleet.redis.process().cont();
    population.wait_until_stored(&fleet, BOUND).await;
    population.wait_until_current(&fleet, BOUND).await;
    population.patch(&fleet, 5);
    population.wait_until_stored(&fleet, BOUND).await;
}
