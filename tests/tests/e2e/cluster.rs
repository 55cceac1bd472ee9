//! A store that is a cluster: slots are moved, masters die, under patches.

use std::cell::Cell;
use std::time::Duration;

use flotilla_tests::harness::{Fleet, RedisCluster, require_tool, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, generated_flags};
use redis::AsyncCommands as _;

use crate::certificates::Certificates;
use crate::population::probe;
use crate::stored::{BOUND, SOON, assert_stored, keys, wait_for_stored};

/// One for each master: their slots are 12182, 5061 and 1168 of 16384.
const PREFIXES: [&str; 3] = ["ld:{foo}", "ld:{bar}", "ld:{zzz}"];

fn key(index: usize) -> String {
    format!("sdk-00000000-0000-4000-8000-00000001234{index}")
}

fn data(index: usize, version: u64) -> Dataset {
    let mut data = generated_flags(20 + index, 1_000, 14);
    data.insert(Kind::Flag, probe(version));
    data
}

async fn add(fleet: &Fleet, index: usize) {
    fleet.simulator.add_environment(&key(index), None, data(index, 1));
    let name = format!("e{index}");
    let more = ["--store", "cluster", "--wait"];
    fleet.add_environment(&name, PREFIXES[index], &key(index), &more).await.unwrap().expect_success();
}

/// A fleet with the cluster among its stores, added with these options.
async fn fleet_on(cluster: &RedisCluster, options: &[String]) -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    let url = cluster.url();
    let mut add = vec!["store", "add", "cluster", &url];
    add.extend(options.iter().map(String::as_str));
    fleet.cli(&add).await.unwrap().expect_success();
    let checked = fleet.cli(&["store", "check", "cluster"]).await.unwrap().expect_success();
    assert!(checked.stdout.contains("3 masters have all slots"), "{checked:?}");
    fleet
}

/// The node that has a prefix now.
async fn owner(cluster: &RedisCluster, prefix: &str) -> usize {
    cluster.owner(cluster.slot(prefix).await.unwrap()).await.unwrap()
}

/// Patches all environments without a pause until `done` is; `last` is the version that was sent last.
async fn patch_until(fleet: &Fleet, last: &Cell<u64>, done: impl Future<Output = ()>) {
    tokio::pin!(done);
    loop {
        tokio::select! {
            () = &mut done => return,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                last.set(last.get() + 1);
                for index in 0..PREFIXES.len() {
                    fleet.simulator.patch(&key(index), Kind::Flag, probe(last.get()));
                }
            }
        }
    }
}

/// Moves the slot through all states that a move has: begun, half of the keys gone, all gone, ended. In each, patches have
/// come and have been tried.
async fn move_slowly(cluster: &RedisCluster, slot: u16, from: usize, to: usize, sent: &Cell<u64>) {
    let pause = || {
        let wanted = sent.get() + 10;
        wait_until("ten patches more are sent", BOUND, async move || match sent.get() {
            sent if sent >= wanted => Ok(()),
            sent => Err(format!("{sent}")),
        })
    };
    cluster.begin_move(slot, from, to).await.unwrap();
    pause().await;
    assert_eq!(cluster.move_keys(slot, from, to, 2).await.unwrap(), 2);
    pause().await;
    while cluster.move_keys(slot, from, to, 100).await.unwrap() > 0 {}
    pause().await;
    cluster.finish_move(slot, from, to).await.unwrap();
    pause().await;
}

/// Each prefix is on its master, and goes with its slot to another one, without a patch lost.
async fn slots_move_under_patches(cluster: &RedisCluster, fleet: &Fleet) {
    for (index, prefix) in PREFIXES.iter().enumerate() {
        add(fleet, index).await;
        assert_stored(&cluster.nodes[owner(cluster, prefix).await], prefix, &data(index, 1)).await;
    }
    let connects = fleet.simulator.total_counters().stream_connections;
    let slot = cluster.slot(PREFIXES[0]).await.unwrap();
    let from = cluster.owner(slot).await.unwrap();
    let to = (from + 1) % cluster.nodes.len();
    let last = Cell::new(1);
    patch_until(fleet, &last, move_slowly(cluster, slot, from, to, &last)).await;

    let last = last.get();
    assert_eq!(owner(cluster, PREFIXES[0]).await, to);
    for (index, prefix) in PREFIXES.iter().enumerate() {
        wait_for_stored(&cluster.nodes[owner(cluster, prefix).await], prefix, &data(index, last), SOON).await;
    }
    assert!(
        keys(&cluster.nodes[from]).await.iter().all(|key| !key.starts_with(PREFIXES[0])),
        "nothing is left behind"
    );
    assert_eq!(fleet.simulator.total_counters().stream_connections, connects, "LaunchDarkly was not asked");

    // Where it is now, it is watched as before.
    let mut other = cluster.nodes[to].connection().await.unwrap();
    let _: () = other.hset(format!("{}:features", PREFIXES[0]), "foreign", "{}").await.unwrap();
    wait_for_stored(&cluster.nodes[to], PREFIXES[0], &data(0, last), SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_prefix_is_kept_on_its_master_and_slots_move_under_patches() {
    if !require_tool("redis-server") || !require_tool("redis-cli") {
        return;
    }
    let cluster = RedisCluster::start().await.unwrap();
    let fleet = fleet_on(&cluster, &[]).await;
    let refused = fleet.add_environment("x", "ld:spree", &key(0), &["--store", "cluster"]).await.unwrap();
    assert_eq!(refused.status, 2, "{refused:?}");
    assert!(refused.stderr.contains("use {ld:spree}"), "{refused:?}");
    slots_move_under_patches(&cluster, &fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_everywhere_slots_move_under_patches_too() {
    if !["redis-server", "redis-cli", "openssl"].into_iter().all(require_tool) {
        return;
    }
    let certificates = Certificates::make();
    let cluster = RedisCluster::start_with_tls(&certificates.server()).await.unwrap();
    let fleet = fleet_on(&cluster, &certificates.client_options()).await;
    slots_move_under_patches(&cluster, &fleet).await;
}

/// The master of a prefix dies and its replica is promoted, while patches come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_dies_is_left_for_its_replica_and_comes_back_as_one() {
    if !require_tool("redis-server") || !require_tool("redis-cli") {
        return;
    }
    let mut cluster = RedisCluster::start().await.unwrap();
    let dies = owner(&cluster, PREFIXES[0]).await;
    let replica = cluster.add_replica(dies).await.unwrap();
    let fleet = fleet_on(&cluster, &[]).await;
    for index in 0..PREFIXES.len() {
        add(&fleet, index).await;
    }
    let connects = fleet.simulator.total_counters().stream_connections;
    let last = Cell::new(1);
    cluster.nodes[dies].stop();
    let promoted =
        wait_until("the replica is promoted", BOUND, async || match cluster.nodes[replica].role().await {
            Ok(role) if role == "master" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    patch_until(&fleet, &last, promoted).await;
    assert_all_stored(&fleet, &cluster).await;

    cluster.nodes[dies].start_again().await.unwrap();
    let follows =
        wait_until("the old master follows the new one", BOUND, async || match cluster.nodes[dies].role().await {
            Ok(role) if role == "slave" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    patch_until(&fleet, &last, follows).await;
    assert_all_stored(&fleet, &cluster).await;
    assert!(cluster.nodes[replica].calls("evalsha").await.unwrap() > 0, "it is there that is written");
    assert_eq!(cluster.nodes[dies].calls("evalsha").await.unwrap(), 0, "the old master took writes");
    assert_eq!(fleet.simulator.total_counters().stream_connections, connects, "LaunchDarkly was not asked");
}

/// Each prefix holds what LaunchDarkly has, on the master that it is on now, and all of them are current.
async fn assert_all_stored(fleet: &Fleet, cluster: &RedisCluster) {
    for (index, prefix) in PREFIXES.iter().enumerate() {
        let owner = owner(cluster, prefix).await;
        wait_for_stored(&cluster.nodes[owner], prefix, &fleet.simulator.data(&key(index)), BOUND).await;
        fleet.wait_for_initialization(&format!("e{index}"), "current", BOUND).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_away_concerns_its_own_prefixes_only() {
    if !require_tool("redis-server") || !require_tool("redis-cli") {
        return;
    }
    let mut cluster = RedisCluster::start().await.unwrap();
    for node in &cluster.nodes {
        let mut connection = node.connection().await.unwrap();
        // Else all nodes refuse everything while one is away.
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg("cluster-require-full-coverage").arg("no").exec_async(&mut connection).await.unwrap();
    }
    let fleet = fleet_on(&cluster, &[]).await;
    for index in 0..PREFIXES.len() {
        add(&fleet, index).await;
    }
    let (away, stays) = (owner(&cluster, PREFIXES[0]).await, owner(&cluster, PREFIXES[1]).await);
    assert_ne!(away, stays);
    cluster.nodes[away].process().stop_sigstop();
    for index in 0..2 {
        fleet.simulator.patch(&key(index), Kind::Flag, probe(2));
    }
    wait_for_stored(&cluster.nodes[stays], PREFIXES[1], &data(1, 2), SOON).await;
    fleet.wait_for_initialization("e0", "stale", BOUND).await;
    let other = fleet.environment_status("e1").await.unwrap();
    assert_eq!(other["initialization"], "current", "{other}");
    cluster.nodes[away].process().cont();
    wait_for_stored(&cluster.nodes[away], PREFIXES[0], &data(0, 2), BOUND).await;
    wait_until("all are current again", BOUND, async || {
        let status = fleet.cli(&["status"]).await.map_err(|error| format!("{error:#}"))?;
        if status.status == 0 { Ok(()) } else { Err(status.stdout) }
    })
    .await;
}
