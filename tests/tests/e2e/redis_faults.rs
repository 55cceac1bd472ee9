//! A Redis that answers and does not do what it is asked: the newest data waits in memory, the status says what is wrong,
//! LaunchDarkly is not asked again, and when the fault is over all is as it should be.

use std::time::{Duration, Instant};

use flotilla_tests::harness::{Fleet, require_tool, wait_until};
use redis::aio::MultiplexedConnection;

use crate::population::{BOUND, Population};
use crate::stored::condition;

/// Four times the promise of two seconds.
const RECOVERED: Duration = Duration::from_secs(8);

async fn command(redis: &mut MultiplexedConnection, words: &[&str]) {
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

async fn wait_for_a_failed_save(redis: &mut MultiplexedConnection) {
    wait_until("a save has failed", BOUND, async || {
        let info: String =
            redis::cmd("INFO").arg("persistence").query_async(redis).await.map_err(|error| error.to_string())?;
        if info.contains("rdb_last_bgsave_status:err") { Ok(()) } else { Err(info) }
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
            wait_for_a_failed_save(redis).await;
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
        for index in population.indices() {
            wait_until(&format!("{fault} is shown"), BOUND, async || {
                let status = fleet.environment_status(&Population::name(index)).await;
                let status = status.map_err(|error| format!("{error:#}"))?;
                let shown = condition(&status, "StoreAvailable").unwrap();
                let says_so = shown["status"] == "false" && shown["message"].as_str().unwrap().contains(named);
                if says_so && status["initialization"] == "stale" { Ok(()) } else { Err(status.to_string()) }
            })
            .await;
        }
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
