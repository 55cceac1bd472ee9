//! Who takes part, as users say it on the command line: cordon, uncordon, drain, forget, labels; and what the events tell
//! of it afterwards.

use std::collections::BTreeSet;

use flotilla_proto::v1::{EventType, Initialization, WorkerState};
use flotilla_tests::harness::{Fleet, Process, require_tool, wait_until};
use serde_json::Value;

use crate::chronicle::{Chronicle, wait_until_shared};
use crate::patcher::Patcher;
use crate::population::{
    BOUND, Population, environments_api, find_workers, list, owners, status, wait_until_connected,
};
use crate::reader::Reader;

/// Neither ends within a test: only what users say moves anything.
const LONG: [&str; 4] = ["--lease-duration", "2m", "--reassign-grace", "1m"];

/// Runs a command that must succeed, and returns what it printed.
async fn say(fleet: &Fleet, arguments: &[&str]) -> String {
    fleet.cli(arguments).await.unwrap().expect_success().stdout
}

async fn scheduling(fleet: &Fleet, worker: &str) -> Value {
    fleet.cli(&["worker", "get", worker, "-o", "json"]).await.unwrap().json().unwrap()["scheduling"].clone()
}

/// Adds an environment and returns whose it is once it is current.
async fn owner_of_another(fleet: &Fleet, index: usize) -> String {
    Population::add_to_simulator(fleet, index);
    Population::add(fleet, index).await.expect_success();
    let name = Population::name(index);
    say(fleet, &["env", "wait", &name, "--for", "current"]).await;
    owners(fleet).await[&name].0.clone()
}

/// Waits until a command that goes on has printed a line with these words.
async fn wait_for_line(process: &Process, words: &[&str]) {
    wait_until(&format!("a line with {words:?}"), BOUND, async || {
        let log = process.log();
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cordoned_worker_gets_nothing_until_it_is_uncordoned_whatever_restarts() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).control_arguments(&LONG).start().await.unwrap();
    Population::settle_in(&fleet, 4).await;
    assert_eq!(say(&fleet, &["worker", "cordon", "w1", "--dry-run"]).await, "worker/w1 cordoned (dry run)\n");
    assert_eq!(scheduling(&fleet, "w1").await, "active");
    assert_eq!(say(&fleet, &["worker", "cordon", "w1"]).await, "worker/w1 cordoned\n");
    let table = say(&fleet, &["worker", "list"]).await;
    assert!(table.lines().any(|line| line.starts_with("w1") && line.contains("cordoned")), "{table}");

    wait_until_shared(&fleet, &[("w1", 2), ("w2", 2)], BOUND).await;
    assert_eq!(owner_of_another(&fleet, 4).await, "w2", "w1 has less, and is cordoned");
    fleet.restart_worker(0).await.unwrap();
    fleet.restart_control().await.unwrap();
    wait_until_connected(&fleet, 2).await;
    assert_eq!(scheduling(&fleet, "w1").await, "cordoned");
    assert_eq!(owner_of_another(&fleet, 5).await, "w2");
    wait_until_shared(&fleet, &[("w1", 2), ("w2", 4)], BOUND).await;

    assert_eq!(say(&fleet, &["worker", "uncordon", "w1"]).await, "worker/w1 uncordoned\n");
    wait_until_shared(&fleet, &[("w1", 3), ("w2", 3)], BOUND).await;
    let unknown = fleet.cli(&["worker", "cordon", "nobody"]).await.unwrap();
    assert!(unknown.status == 3 && unknown.stderr.contains("nobody"), "{unknown:?}");
    Population { count: 6 }.wait_until_current(&fleet, BOUND).await;
    Population { count: 6 }.assert_owned_once(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_that_cannot_end_says_so_and_is_ended_by_uncordon() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&LONG).start().await.unwrap();
    let population = Population::settle_in(&fleet, 2).await;
    let chronicle = Chronicle::start(&fleet).await;
    let waiting = ["worker", "drain", "w1", "--wait", "--timeout"];
    let late = fleet.cli(&[waiting.as_slice(), &["300ms"]].concat()).await.unwrap();
    assert!(late.status == 124 && late.stderr.contains("2 environments"), "{late:?}");
    assert!(late.stderr.contains("flotilla events --worker w1"), "{late:?}");

    let command = fleet.cli_command(&[waiting.as_slice(), &["1m"]].concat()).unwrap();
    let mut draining = fleet.start_process("draining", command).unwrap();
    wait_for_line(&draining, &["worker/w1 2 environments left"]).await;
    say(&fleet, &["worker", "uncordon", "w1"]).await;
    assert_eq!(draining.wait(BOUND).await.unwrap().code(), Some(1), "{}", draining.log());
    assert!(draining.log().contains("uncordoned meanwhile"), "{}", draining.log());

    // A drain that waits goes on with the first worker that comes.
    say(&fleet, &["worker", "drain", "w1"]).await;
    fleet.add_worker().await.unwrap();
    wait_until_shared(&fleet, &[("w1", 0), ("w2", 2)], BOUND).await;
    chronicle.assert_always_current().await;
    population.assert_owned_once(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_will_not_come_back_is_forgotten() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).control_arguments(&LONG).start().await.unwrap();
    let population = Population::settle_in(&fleet, 4).await;
    say(&fleet, &["worker", "cordon", "w2"]).await;
    let connected = fleet.cli(&["worker", "forget", "w2", "--yes"]).await.unwrap();
    assert!(connected.status != 0 && connected.stderr.contains("w2"), "{connected:?}");
    fleet.worker(1).kill9();
    wait_until("w2 is not connected", BOUND, async || {
        let workers = find_workers(&fleet).await?;
        if workers[1].state() == WorkerState::Disconnected { Ok(()) } else { Err(format!("{workers:?}")) }
    })
    .await;
    let unasked = fleet.cli(&["worker", "forget", "w2"]).await.unwrap();
    assert!(unasked.status != 0 && unasked.stderr.contains("--yes"), "{unasked:?}");
    wait_until_shared(&fleet, &[("w1", 2), ("w2", 2)], BOUND).await;

    assert_eq!(say(&fleet, &["worker", "forget", "w2", "--yes"]).await, "worker/w2 forgotten\n");
    wait_until_shared(&fleet, &[("w1", 4)], BOUND).await;
    population.wait_until_owned_by(&fleet, &["w1"], BOUND).await;
    let unknown = fleet.cli(&["worker", "get", "w2"]).await.unwrap();
    assert_eq!(unknown.status, 3, "{unknown:?}");
    // Should it come back after all, it is a new one: even its cordon is forgotten.
    fleet.restart_worker(1).await.unwrap();
    wait_until_connected(&fleet, 2).await;
    assert_eq!(scheduling(&fleet, "w2").await, "active");
    population.wait_until_current(&fleet, BOUND).await;
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    population.assert_owned_once(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_tell_what_happened_in_its_order_and_go_on_over_a_restart_of_control() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).control_arguments(&LONG).start().await.unwrap();
    Population::settle_in(&fleet, 2).await;
    let command = fleet.cli_command(&["events", "-f"]).unwrap();
    let mut following = fleet.start_process("following", command).unwrap();
    let command = fleet.cli_command(&["events", "-f", "--worker", "w1", "-o", "json"]).unwrap();
    let documents = fleet.start_process("documents", command).unwrap();
    wait_for_line(&documents, &["\"connected\"", "w1"]).await;
    wait_for_line(&following, &["worker w1 connected"]).await;

    let moved = owners(&fleet).await.into_iter().find(|(_, (worker, _))| worker == "w1").unwrap().0;
    say(&fleet, &["worker", "drain", "w1", "--wait"]).await;
    fleet.restart_control().await.unwrap();
    wait_until_connected(&fleet, 2).await;
    say(&fleet, &["worker", "uncordon", "w1"]).await;
    wait_for_line(&following, &["worker-changed", "w1", "takes part again"]).await;
    wait_for_line(&documents, &["uncordoned"]).await;

    // The whole story of the drain, in this order, by the command that ends and by the one that goes on.
    let printed = say(&fleet, &["events", "-n", "1000"]).await;
    for log in [printed, following.log()] {
        let mut lines = log.lines();
        for words in [
            ["worker-changed", "w1", "what worker w1 has moves away"],
            ["handover-begun", moved.as_str(), "w2 gets ready to take it over from w1 (draining)"],
            ["moved", moved.as_str(), "moved from w1 to w2"],
            ["worker-changed", "w1", "worker w1 has nothing left"],
            ["worker-changed", "w1", "worker w1 takes part again"],
        ] {
            assert!(lines.any(|line| words.iter().all(|word| line.contains(word))), "{words:?} in {log}");
        }
    }
    let lines: Vec<String> = following.log().lines().map(str::to_owned).collect();
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), lines.len(), "one was told twice: {lines:?}");
    assert!(following.is_running(), "{}", following.log());
    let all = ["events", "--environment", &moved, "--type", "moved", "-o", "json"];
    let document: Value = fleet.cli(&all).await.unwrap().expect_success().json().unwrap();
    let events = document["events"].as_array().unwrap();
    assert_eq!(events.len(), 1, "{document}");
    assert_eq!((&events[0]["fromWorker"], &events[0]["worker"]), (&"w1".into(), &"w2".into()), "{document}");
    let last = say(&fleet, &["events", "-n", "1"]).await;
    assert_eq!(last.lines().count(), 1, "{last}");
}

/// Waits until an environment has this worker, and is current there; with `None`, until it has nobody.
async fn wait_until_at(fleet: &Fleet, name: &str, worker: Option<&str>) {
    let mut api = environments_api(fleet);
    wait_until(&format!("{name} is at {worker:?}"), BOUND, async || {
        let found = list(&mut api).await?;
        let found = found.iter().find(|one| one.name == name).map(status).unwrap_or_default();
        let assigned = found.conditions.iter().find(|one| one.r#type == "Assigned");
        let is_there = match worker {
            Some(worker) => found.worker == worker && found.initialization() == Initialization::Current,
            None => assigned.is_some_and(|one| one.reason == "NoEligibleWorker"),
        };
        if is_there { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_environment_goes_where_its_selector_leads() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&LONG).start().await.unwrap();
    let population = Population::settle_in(&fleet, 1).await;
    Population::add_to_simulator(&fleet, 1);
    let (name, prefix, key) = (Population::name(1), Population::prefix(1), Population::key(1));
    let selected = ["--worker-selector", "zone=a"];
    fleet.add_environment(&name, &prefix, &key, &selected).await.unwrap().expect_success();
    wait_until_at(&fleet, &name, None).await;
    fleet.add_worker_with(&["--label", "zone=a"]).await.unwrap();
    wait_until_at(&fleet, &name, Some("w2")).await;

    // Another selector: it goes there, and nobody notices.
    fleet.add_worker_with(&["--label", "zone=b"]).await.unwrap();
    wait_until_connected(&fleet, 3).await;
    let population = Population { count: population.count + 1 };
    let (reader, chronicle) = (Reader::start(&fleet, population).await, Chronicle::start(&fleet).await);
    let patcher = Patcher::start(&fleet, population);
    say(&fleet, &["env", "update", &name, "--worker-selector", "zone=b"]).await;
    wait_until_at(&fleet, &name, Some("w3")).await;
    wait_until_shared(&fleet, &[("w1", 1), ("w2", 0), ("w3", 1)], BOUND).await;
    patcher.stop().await;
    population.wait_until_stored(&fleet, BOUND).await;
    let moved = chronicle.events().of(EventType::Moved).await;
    assert!(moved.len() == 1 && moved[0].reason == "selector", "{moved:?}");
    assert_eq!(chronicle.events().of(EventType::HandoverBegun).await.len(), 1);
    chronicle.assert_always_current().await;
    reader.stop().await.assert_never_rolled_back();
    population.assert_owned_once(&fleet).await;
}
