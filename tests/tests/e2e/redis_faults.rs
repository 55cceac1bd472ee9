//! A Redis that answers and does not do what it is asked: the newest data waits in memory, the status says what is wrong,
//! LaunchDarkly is not asked again, and when the fault is over all is as it should be.

use std::time::{Duration, Instant};

use flotilla_tests::harness::{Fleet, redis_info, require_tool, wait_until};
use flotilla_worker::fence::Fence;
use redis::aio::MultiplexedConnection;

use crate::monitor::{Monitor, Seen};
use crate::population::{BOUND, Population};
use crate::stored::condition;

/// Four times the promise of two seconds.
const RECOVERED: Duration = Duration::from_secs(8);
/// Servers that load slowly, answer in between, and load again when they are told to.
const LOADS_SLOWLY: [&str; 8] = [
    "--key-load-delay",
    KEY_LOAD_DELAY_MICROS,
    "--loading-process-events-interval-bytes",
    "1024",
    "--rdbcompression",
    "no",
    "--enable-debug-command",
    "local",
];
const KEY_LOAD_DELAY_MICROS: &str = "20000";
/// What a server says of it.
const LOADING: &str = "Redis is loading the dataset";
/// Of no environment: with them a load lasts for longer than anything is waited for.
const OTHER_KEYS: usize = 4_000;

/// A command of which nothing is asked but that it succeeds.
pub(crate) async fn command(redis: &mut MultiplexedConnection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.exec_async(redis).await.unwrap_or_else(|error| panic!("{words:?}: {error}"));
}

async fn config(redis: &mut MultiplexedConnection, key: &str, value: &str) {
    command(redis, &["CONFIG", "SET", key, value]).await;
}

/// Where the server saves to. Without it no save succeeds.
async fn save_directory(redis: &mut MultiplexedConnection) -> String {
    let answer: (String, String) = redis::cmd("CONFIG").arg("GET").arg("dir").query_async(redis).await.unwrap();
    answer.1
}

/// Waits until the server says this of its persistence.
async fn wait_for_persistence(redis: &mut MultiplexedConnection, wanted: &str) {
    let (name, wanted) = wanted.split_once(':').unwrap();
    wait_until(&format!("{name} is {wanted}"), BOUND, async || {
        let info = redis_info(redis, "persistence").await.map_err(|error| error.to_string())?;
        if info.get(name).is_some_and(|value| value == wanted) { Ok(()) } else { Err(format!("{info:?}")) }
    })
    .await;
}

async fn cause(redis: &mut MultiplexedConnection, fault: &str) {
    match fault {
        "OOM" => config(redis, "maxmemory", "1").await,
        "READONLY" => command(redis, &["REPLICAOF", "127.0.0.1", "1"]).await,
        "MISCONF" => {
            config(redis, "save", "3600 1000000").await;
            std::fs::remove_dir_all(save_directory(redis).await).unwrap();
            command(redis, &["BGSAVE"]).await;
            wait_for_persistence(redis, "rdb_last_bgsave_status:err").await;
        }
        "NOAUTH" => {
            config(redis, "requirepass", "changed").await;
            command(redis, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        }
        other => panic!("unknown: {other}"),
    }
}

async fn end(redis: &mut MultiplexedConnection, fault: &str) {
    match fault {
        "OOM" => config(redis, "maxmemory", "0").await,
        "READONLY" => command(redis, &["REPLICAOF", "NO", "ONE"]).await,
        "MISCONF" => {
            // Its directory does not come back by its name, so it is told not to care.
            config(redis, "stop-writes-on-bgsave-error", "no").await;
        }
        "NOAUTH" => config(redis, "requirepass", "").await,
        other => panic!("unknown: {other}"),
    }
}

async fn start() -> (Fleet, Population) {
    let fleet = Fleet::builder().start().await.unwrap();
    let population = Population::settle_in(&fleet, 3).await;
    (fleet, population)
}

/// Waits until every environment is stale, for this is what its store says.
async fn wait_until_shown(fleet: &Fleet, population: Population, fault: &str) {
    for index in population.indices() {
        wait_until(&format!("{fault} is shown"), BOUND, async || {
            let status = fleet.environment_status(&Population::name(index)).await;
            let status = status.map_err(|error| format!("{error:#}"))?;
            let shown = condition(&status, "StoreAvailable").unwrap();
            let says_so = shown["status"] == "false" && shown["message"].as_str().unwrap().contains(fault);
            if says_so && status["initialization"] == "stale" { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }
}

/// Says how long it took until everything was stored.
#[expect(clippy::disallowed_methods, reason = "measures how long the recovery takes")]
async fn recovered(fleet: &Fleet, population: Population) -> Duration {
    let since = Instant::now();
    population.wait_until_stored(fleet, RECOVERED).await;
    since.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_refuses_is_named_and_waited_for() {
    if !require_tool("redis-server") {
        return;
    }
    let (fleet, population) = start().await;
    let connections = population.connections(&fleet);
    let mut redis = fleet.redis.connection().await.unwrap();
    let faults = [("OOM", "OOM"), ("READONLY", "is a replica"), ("MISCONF", "MISCONF"), ("NOAUTH", "NOAUTH")];
    for (number, (fault, named)) in (10..).zip(faults) {
        cause(&mut redis, fault).await;
        population.patch(&fleet, number);
        wait_until_shown(&fleet, population, named).await;
        end(&mut redis, fault).await;
        println!("{fault}: recovered after {:?}", recovered(&fleet, population).await);
        population.wait_until_current(&fleet, BOUND).await;
    }
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_busy_or_forgets_is_waited_for() {
    if !require_tool("redis-server") {
        return;
    }
    let (fleet, population) = start().await;
    let connections = population.connections(&fleet);
    let mut redis = fleet.redis.connection().await.unwrap();
    config(&mut redis, "busy-reply-threshold", "100").await;
    let mut busy = fleet.redis.connection().await.unwrap();
    let endless = async {
        let script = redis::cmd("EVAL").arg("while true do end").arg(0).exec_async(&mut busy).await;
        assert!(script.is_err(), "it was killed");
    };
    let watched = async {
        population.patch(&fleet, 10);
        wait_until("BUSY is shown", BOUND, async || {
            let status = fleet.environment_status(&Population::name(0)).await;
            let status = status.map_err(|error| format!("{error:#}"))?;
            let shown = condition(&status, "StoreAvailable").unwrap();
            let says_so = shown["message"].as_str().unwrap().contains("BUSY");
            if says_so { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        command(&mut redis, &["SCRIPT", "KILL"]).await;
    };
    tokio::join!(endless, watched);
    println!("BUSY: recovered after {:?}", recovered(&fleet, population).await);
    for (number, words) in
        (11..).zip([&["SCRIPT", "FLUSH"][..], &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]])
    {
        command(&mut redis, words).await;
        population.patch(&fleet, number);
        println!("{words:?}: recovered after {:?}", recovered(&fleet, population).await);
    }
    population.wait_until_current(&fleet, BOUND).await;
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
}

/// While Redis loads it answers to nothing, whether it was started again or has kept its connections: what is there is not
/// taken for gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_loading_is_waited_for_and_not_taken_for_an_empty_one() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().redis_arguments(&LOADS_SLOWLY).start().await.unwrap();
    let population = Population::settle_in(&fleet, 3).await;
    let (connections, fences) = (population.connections(&fleet), population.fences(&fleet).await);
    save_with_other_keys(&fleet).await;
    fleet.redis.stop();
    fleet.redis.start_again().await.unwrap();
    let mut redis = fleet.redis.connection().await.unwrap();
    let mut monitor = Monitor::start(&fleet.redis).await;
    wait_while_it_loads(&fleet, population, &mut redis, 10).await;
    println!("restarted: recovered after {:?}", recovered(&fleet, population).await);
    population.wait_until_current(&fleet, BOUND).await;

    config(&mut redis, "key-load-delay", KEY_LOAD_DELAY_MICROS).await;
    let mut reloading = fleet.redis.connection().await.unwrap();
    let reload = async {
        // It is answered when it is over.
        command(&mut reloading, &["DEBUG", "RELOAD"]).await;
    };
    tokio::join!(reload, wait_while_it_loads(&fleet, population, &mut redis, 20));
    println!("reloaded: recovered after {:?}", recovered(&fleet, population).await);
    population.wait_until_current(&fleet, BOUND).await;

    assert_nothing_is_claimed_over_nothing(&monitor.seen().await);
    for (before, after) in fences.iter().zip(population.fences(&fleet).await) {
        let [before, after] = [before, &after].map(|fence| Fence::parse(fence).unwrap());
        let owner = |fence: &Fence| (fence.epoch, fence.grant.clone(), fence.incarnation.clone());
        assert_eq!(owner(&before), owner(&after));
        assert!(before.write < after.write, "{before:?}, {after:?}");
    }
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    for reason in ["lost", "fence", "marker"] {
        let none = format!("flotilla_store_repairs_total{{reason=\"{reason}\"}} 0");
        assert!(metrics.contains(&none), "{metrics}");
    }
    assert_eq!(population.connections(&fleet), connections, "LaunchDarkly was asked");
}

/// Sends patches while the server loads, until it is seen that they wait; then lets the load end.
async fn wait_while_it_loads(
    fleet: &Fleet,
    population: Population,
    redis: &mut MultiplexedConnection,
    number: u64,
) {
    wait_for_persistence(redis, "loading:1").await;
    population.patch(fleet, number);
    wait_until_shown(fleet, population, LOADING).await;
    population.patch(fleet, number + 1);
    wait_for_persistence(redis, "loading:1").await;
    config(redis, "key-load-delay", "0").await;
    wait_for_persistence(redis, "loading:0").await;
}

/// No script that was run expected the fence to be absent.
fn assert_nothing_is_claimed_over_nothing(seen: &[Seen]) {
    // EVALSHA, the script, 4, the keys; then, of a script that writes, whether it expects a fence.
    let scripts: Vec<_> = seen.iter().filter(|seen| seen.words[0] == "EVALSHA").collect();
    let expectations: Vec<_> = scripts.iter().filter_map(|seen| seen.words.get(7)).collect();
    assert!(!expectations.is_empty(), "nothing was written: {scripts:?}");
    assert!(expectations.iter().all(|expects| *expects == "1"), "a claim over an absent fence: {scripts:?}");
}

/// Saves what is there among many keys more.
async fn save_with_other_keys(fleet: &Fleet) {
    let mut redis = fleet.redis.connection().await.unwrap();
    let mut pipe = redis::pipe();
    for number in 0..OTHER_KEYS {
        // Between two keys of this size others are answered.
        pipe.set(format!("other:{number}"), "x".repeat(1024)).ignore();
    }
    pipe.exec_async(&mut redis).await.unwrap();
    command(&mut redis, &["SAVE"]).await;
}
