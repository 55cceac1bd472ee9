//! Redis loses data, is changed by somebody else, or is away: it is repaired from memory, and LaunchDarkly is not asked.

use std::time::{Duration, Instant};

use flotilla_tests::harness::{Fleet, require_tool, wait_until};
use flotilla_tests::simulator::{Dataset, Item, Kind, generated_flag, generated_flags};
use redis::aio::MultiplexedConnection;

use crate::population::{BOUND, PROBE, Population, owners, probe};

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
    for how in [
        "a field changed",
        "a field added",
        "a field deleted",
        "a segment added",
        "the flags deleted",
        "the marker deleted",
        "the fence deleted",
        "everything renamed",
    ] {
        for index in [BIG, 1] {
            tamper(&mut redis, &Population::prefix(index), how).await;
        }
        let repaired = refilled(&fleet, population).await;
        println!("{how}: repaired after {repaired:?}");
        // The owner's next write goes through: it is in line with the fence again.
        population.wait_until_current(&fleet, BOUND).await;
    }
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let repairs =
        metrics.lines().find_map(|line| line.strip_prefix("flotilla_store_repairs_total{reason=\"differs\"} "));
    assert!(repairs.unwrap().parse::<u64>().unwrap() >= 5, "{metrics}");
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
