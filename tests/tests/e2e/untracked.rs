//! Stores that do not tell who else changes their keys: it is found by looking, and shown.

use std::time::Duration;

use flotilla_tests::harness::{Fleet, RedisServer, redis_info, require_tool, wait_until};
use flotilla_tests::simulator::generated_flags;
use flotilla_worker::secrets::Secrets;
use flotilla_worker::store::redis::RedisStore;
use flotilla_worker::store::{FlagStore as _, Look, Op, Outcome};
use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;

use crate::redis_faults::command;
use crate::stored::{BOUND, Stored, condition, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000045678";
/// Looks come every 10 to 15 s; with tracking they would come too late for this.
const LOOKED: Duration = Duration::from_secs(40);

async fn wait_for_reason(fleet: &Fleet, wanted: &str, bound: Duration) -> String {
    let mut message = String::new();
    wait_until(&format!("the store is {wanted}"), bound, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let found = condition(&status, "StoreAvailable").unwrap();
        message = found["message"].to_string();
        if found["reason"] == wanted && found["status"] == "true" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    message
}

/// A user may be forbidden to ask the server to tell: then nothing but looking finds what others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_tracking_is_refused_looking_finds_what_others_do() {
    if !require_tool("redis-server") {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    let data = generated_flags(25, 1_000, 12);
    fleet.simulator.add_environment(KEY, None, data.clone());
    let server = RedisServer::start().await.unwrap();
    let mut redis = server.connection().await.unwrap();
    command(&mut redis, &["ACL", "SETUSER", "mute", "on", ">hunter2", "~*", "+@all", "-client|tracking"]).await;
    let variable = fleet.directory().join("password");
    std::fs::write(&variable, "hunter2").unwrap();
    let (url, file) = (server.url(), variable.to_str().unwrap());
    let add = ["store", "add", "mute", &url, "--username", "mute", "--password-file", file];
    fleet.cli(&add).await.unwrap().expect_success();
    fleet.add_environment("spree", "ld", KEY, &["--store", "mute", "--wait"]).await.unwrap().expect_success();
    let message = wait_for_reason(&fleet, "Untracked", BOUND).await;
    assert!(message.contains("refuses client tracking: NOPERM"), "{message}");
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    assert!(metrics.contains("flotilla_environment_store_untracked{environment=\"spree\"} 1.0"), "{metrics}");

    command(&mut redis, &["FLUSHALL"]).await;
    wait_for_stored(&server, "ld", &data, LOOKED).await;
    command(&mut redis, &["HDEL", "ld:features", "flag-00003"]).await;
    wait_for_stored(&server, "ld", &data, LOOKED).await;

    // From the next connection on it is allowed.
    command(&mut redis, &["ACL", "SETUSER", "mute", "+client|tracking"]).await;
    command(&mut redis, &["CLIENT", "KILL", "USER", "mute"]).await;
    wait_for_reason(&fleet, "Available", BOUND).await;
    let _: () = redis.hset("ld:features", "flag-00003", "{}").await.unwrap();
    wait_for_stored(&server, "ld", &data, BOUND).await;
    assert_eq!(Stored::read(&mut redis, "ld").await.compare(&Stored::of(&data)), Ok(()));
}

async fn look(store: &RedisStore, prefix: &str) -> Result<Look, String> {
    match store.execute(&prefix.parse().unwrap(), Op::Look).await {
        Outcome::Looked(look) => Ok(look),
        other => Err(format!("{other:?}")),
    }
}

/// A server that has no room for another key forgets one, and says nothing of it to whoever caused it. To others it says
/// that the key was touched: that is no news, or they would drive each other for ever.
#[tokio::test]
async fn a_server_that_forgets_whom_to_tell_counts_as_one_that_does_not() {
    if !require_tool("redis-server") {
        return;
    }
    let server = RedisServer::start_with(&["--tracking-table-max-keys", "10"]).await.unwrap();
    let url = flotilla_proto::StoreUrl::parse("url", &server.url()).unwrap();
    let open = || RedisStore::connect(&url, &Secrets::default()).unwrap();
    let (store, rival) = (open(), open());
    wait_until("the store tells", BOUND, async || {
        let look = look(&store, "a").await?;
        if look.untracked.is_none() { Ok(()) } else { Err(format!("{look:?}")) }
    })
    .await;
    wait_until("its table is full", BOUND, async || {
        for prefix in ["a", "b", "c", "d"] {
            look(&store, prefix).await?;
        }
        let why = look(&store, "a").await?.untracked.unwrap_or_default();
        if why.contains("table of tracked keys is full") { Ok(()) } else { Err(why.to_string()) }
    })
    .await;
    let news = store.news(&"a".parse().unwrap());
    let before = *news.borrow();
    for _ in 0..20 {
        for prefix in ["a", "b", "c", "d"] {
            look(&store, prefix).await.unwrap();
            look(&rival, prefix).await.unwrap();
        }
    }
    assert_eq!(*news.borrow(), before, "what the rival reads is no news");
    let mut redis = server.connection().await.unwrap();
    command(&mut redis, &["FLUSHALL"]).await;
    wait_until("a flush is news all the same", BOUND, async || {
        let now = *news.borrow();
        if now.touched > before.touched { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    command(&mut redis, &["CONFIG", "SET", "tracking-table-max-keys", "1000"]).await;
    wait_until("there is room again", BOUND, async || {
        let look = look(&store, "a").await?;
        if look.untracked.is_none() { Ok(()) } else { Err(format!("{look:?}")) }
    })
    .await;
    assert_ne!(news.borrow().connection, before.connection, "what went untold meanwhile is looked for");
}

/// How many clients have connected to a server.
async fn connections(redis: &mut MultiplexedConnection) -> u64 {
    redis_info(redis, "stats").await.unwrap()["total_connections_received"].parse().unwrap()
}

/// An address that leads to a replica is no store, and is not dialled in a tight loop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_of_a_replica_is_named_once() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, None, generated_flags(3, 1_000, 12));
    let port = fleet.redis.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).await.unwrap();
    fleet.cli(&["store", "add", "replica", &replica.url()]).await.unwrap().expect_success();
    fleet.add_environment("spree", "ld", KEY, &["--store", "replica"]).await.unwrap().expect_success();
    wait_until("the replica is named", BOUND, async || {
        let status = fleet.environment_status("spree").await.map_err(|error| format!("{error:#}"))?;
        let message = condition(&status, "StoreAvailable").unwrap()["message"].to_string();
        if message.contains("is a replica") { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let mut redis = replica.connection().await.unwrap();
    let before = connections(&mut redis).await;
    wait_until("it is tried again", BOUND, async || {
        let now = connections(&mut redis).await;
        if now >= before + 3 { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let scripts = redis_info(&mut redis, "commandstats").await.unwrap();
    assert!(!scripts.keys().any(|name| name.starts_with("cmdstat_eval")), "nothing is asked of it: {scripts:?}");
    command(&mut redis, &["REPLICAOF", "NO", "ONE"]).await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    let log = fleet.worker(0).log();
    assert_eq!(log.matches("cannot connect to the store").count(), 1, "{log}");
}
