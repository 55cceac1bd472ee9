//! Stores that are named, entered with passwords and certificates, and looked over.

use flotilla_tests::harness::{Fleet, RedisServer, require_tool};
use flotilla_tests::simulator::{Dataset, generated_flags};

use crate::stored::{BOUND, Stored, assert_stored, keys};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000012345";

fn data() -> Dataset {
    generated_flags(25, 1_000, 12)
}

async fn fleet() -> Fleet {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), data());
    fleet
}

async fn told(fleet: &Fleet, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    fleet.cli(&arguments).await.unwrap().expect_success().stdout
}

/// Adds an environment to a store, and waits until it is current.
async fn add(fleet: &Fleet, name: &str, prefix: &str, store: &str) {
    let added = fleet.add_environment(name, prefix, KEY, &["--store", store, "--wait"]).await.unwrap();
    added.expect_success();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_of_one_prefix_live_in_two_stores_and_a_store_in_use_stays() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = fleet().await;
    let second = RedisServer::start().await.unwrap();
    let url = format!("{}/3", second.url());
    assert_eq!(told(&fleet, &format!("store add eu {url} --dry-run")).await, "store/eu created (dry run)\n");
    assert_eq!(told(&fleet, &format!("store add eu {url}")).await, "store/eu created\n");
    assert_eq!(told(&fleet, "store list -o name").await, "store/default\nstore/eu\n");
    add(&fleet, "a", "ld:spree", "default").await;
    add(&fleet, "b", "ld:spree", "eu").await;
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
    let mut connection = second.connection().await.unwrap();
    assert_eq!(keys(&second).await.len(), 0, "it is another database");
    redis::cmd("SELECT").arg(3).exec_async(&mut connection).await.unwrap();
    assert_eq!(Stored::read(&mut connection, "ld:spree").await.compare(&Stored::of(&data())), Ok(()));

    // The same place under another name.
    told(&fleet, &format!("store add alias {}", url.replace("127.0.0.1", "localhost"))).await;
    let taken = fleet.add_environment("c", "ld:spree", KEY, &["--store", "alias"]).await.unwrap();
    assert_eq!(taken.status, 4, "{taken:?}");
    assert!(taken.stderr.contains("the same place as store \"eu\""), "{taken:?}");

    fleet.restart_control().await.unwrap();
    let refused = fleet.cli(&["store", "remove", "eu", "--yes"]).await.unwrap();
    assert_eq!(refused.status, 1, "{refused:?}");
    assert!(refused.stderr.contains("used by \"b\""), "{refused:?}");
    fleet.wait_for_initialization("b", "current", BOUND).await;
    told(&fleet, "env remove b --purge --yes").await;
    assert_eq!(told(&fleet, "store remove eu --yes").await, "store/eu removed\n");
    assert_eq!(fleet.cli(&["store", "get", "eu"]).await.unwrap().status, 3);
    assert_stored(&fleet.redis, "ld:spree", &data()).await;
}
