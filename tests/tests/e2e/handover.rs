//! Workers join, are emptied, and are restarted one after another: every environment is current all the time, nothing is
//! rolled back, and no change is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_proto::v1::{Event, EventType};
use flotilla_tests::harness::{Fleet, require_tool};
use flotilla_tests::simulator::Fault;

use crate::chronicle::{Chronicle, Events, sentences, wait_until_shared};
use crate::patcher::Patcher;
use crate::population::{BOUND, Population, owned_by, owners, wait_until_connected};
use crate::reader::Reader;

/// Everything that must not notice a handover.
struct Bystanders {
    reader: Reader,
    chronicle: Chronicle,
    patcher: Patcher,
}

impl Bystanders {
    async fn start(fleet: &Fleet, population: Population) -> Self {
        Self {
            reader: Reader::start(fleet, population).await,
            chronicle: Chronicle::start(fleet).await,
            patcher: Patcher::start(fleet, population),
        }
    }

    fn events(&self) -> &Events {
        self.chronicle.events()
    }

    /// Asserts that they did not.
    async fn assert_unaware(self, fleet: &Fleet, population: Population) {
        self.patcher.stop().await;
        population.wait_until_stored(fleet, BOUND).await;
        let abandoned = self.chronicle.events().of(EventType::HandoverAbandoned).await;
        assert!(abandoned.is_empty(), "{}", sentences(&abandoned));
        self.chronicle.assert_always_current().await;
        self.reader.stop().await.assert_never_rolled_back();
        population.wait_until_current(fleet, BOUND).await;
        population.assert_owned_once(fleet).await;
    }
}

/// Asserts that what these events tell of is exactly one move of each of `names`, from and to such workers.
fn assert_moves(events: &[Event], names: &BTreeSet<String>, reason: &str, is_right: impl Fn(&str, &str) -> bool) {
    assert_eq!(events.len(), names.len(), "{}", sentences(events));
    let moved: BTreeSet<String> = events.iter().map(|event| event.environment.clone()).collect();
    assert_eq!(moved, *names);
    for event in events {
        assert!(event.reason == reason && is_right(&event.from_worker, &event.worker), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_joins_and_another_is_drained_and_nobody_notices() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).start().await.unwrap();
    let population = Population::settle_in(&fleet, 18).await;
    wait_until_shared(&fleet, &[("w1", 9), ("w2", 9)], BOUND).await;
    let before = owners(&fleet).await;
    let bystanders = Bystanders::start(&fleet, population).await;

    // It gets its share, and not one more is moved for it.
    fleet.add_worker().await.unwrap();
    wait_until_shared(&fleet, &[("w1", 6), ("w2", 6), ("w3", 6)], BOUND).await;
    let balanced = owners(&fleet).await;
    let moved = bystanders.events().of(EventType::Moved).await;
    assert_moves(&moved, &owned_by(&balanced, "w3"), "rebalanced", |_, to| to == "w3");
    for (name, (worker, epoch)) in &before {
        let (new_worker, new_epoch) = &balanced[name];
        assert!(new_worker == "w3" || (new_worker, new_epoch) == (worker, epoch), "{name} had no reason to move");
    }

    let since = Events::from_now(&fleet).await;
    let drain = ["worker", "drain", "w1", "--wait", "--timeout", "1m"];
    let output = fleet.cli(&drain).await.unwrap().expect_success();
    assert_eq!(output.stdout, "worker/w1 draining\nworker/w1 drained\n", "{output:?}");
    wait_until_shared(&fleet, &[("w1", 0), ("w2", 9), ("w3", 9)], BOUND).await;
    let moved = since.of(EventType::Moved).await;
    assert_moves(&moved, &owned_by(&balanced, "w1"), "draining", |from, to| from == "w1" && to != "w1");
    let begun = bystanders.events().of(EventType::HandoverBegun).await;
    assert_eq!(begun.len(), 12, "each move was a handover: {}", sentences(&begun));
    bystanders.assert_unaware(&fleet, population).await;
}

/// How long LaunchDarkly takes to answer, where handovers are to take their time.
const SLOW: Duration = Duration::from_secs(1);

/// As an update of the workers goes: one after another is told to end, and started again. What one has moves in two
/// rounds, for of handovers only four are under way at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_restarted_one_after_another_and_nobody_notices() {
    if !require_tool("redis-server") {
        return;
    }
    let long = ["--lease-duration", "2m", "--reassign-grace", "1m"];
    let mut fleet = Fleet::builder().workers(3).control_arguments(&long).start().await.unwrap();
    let population = Population::settle_in(&fleet, 15).await;
    for key in population.indices().map(Population::key) {
        fleet.simulator.set_fault(&key, Fault::Delay(SLOW));
    }
    let bystanders = Bystanders::start(&fleet, population).await;
    for index in 0..fleet.worker_count() {
        fleet.worker(index).terminate();
        let exit = fleet.worker(index).wait(BOUND * 2).await.unwrap();
        assert_eq!(exit.code(), Some(0), "{}", fleet.worker(index).log());
        fleet.restart_worker(index).await.unwrap();
        wait_until_connected(&fleet, 3).await;
    }
    bystanders.assert_unaware(&fleet, population).await;
}

/// A worker whose environments nobody else may have does not wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "measures how long the worker takes to leave")]
async fn the_last_worker_leaves_at_once_for_nothing_can_move() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().start().await.unwrap();
    let population = Population::settle_in(&fleet, 3).await;
    let since = std::time::Instant::now();
    fleet.worker(0).terminate();
    let exit = fleet.worker(0).wait(BOUND).await.unwrap();
    assert_eq!(exit.code(), Some(0), "{}", fleet.worker(0).log());
    assert!(since.elapsed() < Duration::from_secs(8), "it took {:?}", since.elapsed());
    population.wait_until_stored(&fleet, BOUND).await;
}
