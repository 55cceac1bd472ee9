//! The key of an environment that is removed is dropped: from what the worker has written at once, and from control's database.
//!
//! The worker's memory is not searched: what it keeps itself is overwritten, but libraries leave copies in buffers that they
//! have freed, those of HTTP requests above all.

use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::{Fault, generated_flags};

use super::SEED;
use super::search::{SecretList, contents_below};
use crate::stored::{BOUND, SOON, condition};

const KEY: &str = "sdk-5ec2e700-0001-4000-8000-00000000000a";
const PENDING_KEY: &str = "sdk-5ec2e700-0002-4000-8000-00000000000b";
const OTHER_KEY: &str = "sdk-5ec2e700-0003-4000-8000-00000000000c";

/// Which files of control or the worker hold one of the secrets.
fn holders(fleet: &Fleet, name: &str, secrets: &SecretList) -> Vec<String> {
    let contents = contents_below(&fleet.directory().join(name)).into_iter();
    let found = contents.filter(|(_, content)| !secrets.found_in(content).is_empty());
    found.map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_removed_environment_is_dropped() {
    let mut fleet = Fleet::builder().start().await.unwrap();
    for key in [KEY, PENDING_KEY, OTHER_KEY] {
        fleet.simulator.add_environment(key, Some("id"), generated_flags(5, 900, SEED));
    }
    fleet.add_environment("stays", "ld:stays", OTHER_KEY, &["--wait"]).await.unwrap().expect_success();
    fleet.add_environment("goes", "ld:goes", KEY, &["--wait"]).await.unwrap().expect_success();
    fleet.simulator.set_fault(PENDING_KEY, Fault::Status(503));
    let rotate = ["env", "rotate-key", "goes", "--sdk-key-env", "KEY", "--no-wait"];
    fleet.cli_with(&rotate, &[("KEY", PENDING_KEY)], "").await.unwrap().expect_success();
    wait_until("the pending key is tried", BOUND, async || {
        let status = fleet.environment_status("goes").await.unwrap();
        let is_tried = condition(&status, "KeyRotation").is_some_and(|found| found["reason"] == "Retrying");
        if is_tried { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let [mut released, mut kept] = [SecretList::default(), SecretList::default()];
    released.add("the key", KEY);
    released.add("the pending key", PENDING_KEY);
    kept.add("the other key", OTHER_KEY);
    // Without sealing they are there as they are, so that the search means something.
    wait_until("both keep the key", SOON, async || {
        let files = ["control", "w1"].map(|name| holders(&fleet, name, &released));
        if files.iter().all(|files| !files.is_empty()) { Ok(()) } else { Err(format!("{files:?}")) }
    })
    .await;

    fleet.cli(&["env", "remove", "goes", "--yes"]).await.unwrap().expect_success();
    wait_until("the worker's files do not have the key", SOON, async || {
        let files = holders(&fleet, "w1", &released);
        if files.is_empty() { Ok(()) } else { Err(format!("{files:?}")) }
    })
    .await;
    assert_eq!(holders(&fleet, "w1", &kept), ["assignments.pb"], "the other one is still there");
    // Control's journal goes with an orderly end, and what was deleted is overwritten.
    fleet.control().terminate();
    assert!(fleet.control().wait(BOUND).await.unwrap().success());
    assert_eq!(holders(&fleet, "control", &released), [""; 0]);
    assert_eq!(holders(&fleet, "control", &kept), ["flotilla.db"]);
}
