//! A store behind Sentinels: the master is another one, under patches.

use std::time::Duration;

use flotilla_tests::harness::{Fleet, RedisServer, Sentinels, require_tool, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, generated_flags};
use redis::AsyncCommands as _;

use crate::certificates::Certificates;
use crate::population::{PROBE, probe};
use crate::stored::{BOUND, SOON, assert_stored, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000012345";
const PREFIX: &str = "ld:spree";

fn data(version: u64) -> Dataset {
    let mut data = generated_flags(25, 1_000, 13);
    data.insert(Kind::Flag, probe(version));
    data
}

/// A fleet, and `spree` current in a store that Sentinels lead to, added with these options.
async fn fleet_behind(sentinels: &Sentinels, options: &[String]) -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data(1));
    let (url, variable) = (sentinels.url(), [("SENTINEL_PASSWORD", Sentinels::PASSWORD)]);
    let mut add = vec!["store", "add", "ha", &url, "--sentinel-password-env", "SENTINEL_PASSWORD"];
    add.extend(options.iter().map(String::as_str));
    fleet.cli_with(&add, &variable, "").await.unwrap().expect_success();
    let checked = fleet.cli(&["store", "check", "ha"]).await.unwrap().expect_success();
    assert!(checked.stdout.contains("as the master of mymaster"), "{checked:?}");
    let added = fleet.add_environment("spree", PREFIX, KEY, &["--store", "ha", "--wait"]).await.unwrap();
    added.expect_success();
    assert_stored(&sentinels.servers[0], PREFIX, &data(1)).await;
    fleet
}

/// The version of the probe that a server holds.
async fn version(server: &RedisServer) -> Option<u64> {
    let mut connection = server.connection().await.ok()?;
    let json: Option<String> = connection.hget(format!("{PREFIX}:features"), PROBE).await.ok()?;
    serde_json::from_str::<serde_json::Value>(&json?).ok()?["version"].as_u64()
}

/// Patches without a pause until `done` is.
async fn patch_until(fleet: &Fleet, from: u64, done: impl Future<Output = ()>) -> u64 {
    let mut last = from;
    tokio::pin!(done);
    loop {
        tokio::select! {
            () = &mut done => return last,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                last += 1;
                fleet.simulator.patch(KEY, Kind::Flag, probe(last));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_stands_still_is_left_for_the_new_one_and_comes_back_as_its_replica() {
    if !require_tool("redis-server") {
        return;
    }
    let mut sentinels = Sentinels::start().await.unwrap();
    let fleet = fleet_behind(&sentinels, &[]).await;
    let connections = fleet.simulator.counters(KEY);

    sentinels.servers[0].process().stop_sigstop();
    let last = patch_until(&fleet, 1, sentinels.wait_for_master(1, BOUND)).await;
    wait_for_stored(&sentinels.servers[1], PREFIX, &data(last), BOUND).await;
    fleet.wait_for_initialization("spree", "current", SOON).await;

    // It wakes as a master that does not know better, with our older writes still in its sockets.
    sentinels.servers[0].process().cont();
    let resumed =
        wait_until("the old master follows the new one", BOUND, async || match sentinels.servers[0].role().await {
            Ok(role) if role == "slave" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    let last = patch_until(&fleet, last, resumed).await;
    wait_for_stored(&sentinels.servers[1], PREFIX, &data(last), SOON).await;
    wait_for_stored(&sentinels.servers[0], PREFIX, &data(last), BOUND).await;
    assert_eq!(sentinels.servers[1].role().await.unwrap(), "master");
    let after = fleet.simulator.counters(KEY);
    assert_eq!(connections.stream_connections, after.stream_connections, "LaunchDarkly was not asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_of_a_master_that_is_well_loses_no_patch_also_with_a_sentinel_less() {
    if !require_tool("redis-server") {
        return;
    }
    let mut sentinels = Sentinels::start().await.unwrap();
    let fleet = fleet_behind(&sentinels, &[]).await;
    sentinels.fail_over().await.unwrap();
    let last = patch_until(&fleet, 1, sentinels.wait_for_master(1, BOUND)).await;
    wait_for_stored(&sentinels.servers[1], PREFIX, &data(last), BOUND).await;
    fleet.wait_for_initialization("spree", "current", SOON).await;

    // What is written reaches the replica too: the old master takes it from the new one.
    sentinels.kill(0);
    fleet.simulator.patch(KEY, Kind::Flag, probe(last + 1));
    wait_for_stored(&sentinels.servers[1], PREFIX, &data(last + 1), SOON).await;
    wait_until("the replica has it", BOUND, async || match version(&sentinels.servers[0]).await {
        Some(found) if found == last + 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let status = fleet.environment_status("spree").await.unwrap();
    assert_eq!(status["epoch"], 1, "{status}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_tls_everywhere_a_master_that_dies_is_left_for_the_new_one() {
    if !require_tool("redis-server") || !require_tool("openssl") {
        return;
    }
    let certificates = Certificates::make();
    let mut sentinels = Sentinels::start_with_tls(&certificates.server()).await.unwrap();
    let fleet = fleet_behind(&sentinels, &certificates.client_options()).await;
    let connections = fleet.simulator.counters(KEY);
    sentinels.servers[0].stop();
    let last = patch_until(&fleet, 1, sentinels.wait_for_master(1, BOUND)).await;
    wait_for_stored(&sentinels.servers[1], PREFIX, &data(last), BOUND).await;
    fleet.wait_for_initialization("spree", "current", SOON).await;
    fleet.simulator.patch(KEY, Kind::Flag, probe(last + 1));
    wait_for_stored(&sentinels.servers[1], PREFIX, &data(last + 1), SOON).await;
    let after = fleet.simulator.counters(KEY);
    assert_eq!(connections.stream_connections, after.stream_connections, "LaunchDarkly was not asked");
}
