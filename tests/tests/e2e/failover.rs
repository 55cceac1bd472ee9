//! A worker dies, stands still, or leaves: its environments go on elsewhere, and nothing is rolled back.

use std::time::{Duration, Instant};

use flotilla_tests::harness::{Fleet, require_tool, wait_until};
use flotilla_tests::simulator::Kind;

use crate::population::{BOUND, Owners, Population, owned_by, owners, probe, wait_until_connected, workers};
use crate::reader::Reader;

/// Asserts that what `from` had went to `to` under higher epochs, and the rest stayed as it was.
fn assert_moved(before: &Owners, after: &Owners, from: &str, to: &str) {
    for (name, (worker, epoch)) in before {
        let (new_worker, new_epoch) = &after[name];
        assert_eq!(new_worker, to, "{name}");
        if worker == from {
            assert!(new_epoch > epoch, "{name}: {new_epoch} after {epoch}");
        } else {
            assert_eq!(new_epoch, epoch, "{name} had no reason to get a new grant");
        }
    }
}

/// With the shipped timings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "measures how long the failover takes")]
async fn environments_of_a_killed_worker_are_current_on_the_other() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).start().await.unwrap();
    let population = Population::settle_in(&fleet, 50).await;
    let before = owners(&fleet).await;
    assert_eq!((owned_by(&before, "w1").len(), owned_by(&before, "w2").len()), (25, 25), "{before:?}");

    let reader = Reader::start(&fleet, population).await;
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    fleet.worker(0).kill9();
    let killed = Instant::now();
    population.patch(&fleet, 3);
    population.wait_until_owned_by(&fleet, &["w2"], BOUND).await;
    let all_current = killed.elapsed();
    population.wait_until_stored(&fleet, BOUND).await;

    assert_moved(&before, &owners(&fleet).await, "w1", "w2");
    let record = reader.stop().await;
    record.assert_never_rolled_back();
    let (first, last) = record.first_and_last_takeover(killed).unwrap();
    println!(
        "killed: first write of a new owner after {first:?}, of the last after {last:?}, all current after {all_current:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stood_still_writes_nothing_and_becomes_a_member_again() {
    if !require_tool("redis-server") {
        return;
    }
    let short = ["--heartbeat-interval", "300ms", "--lease-duration", "2s", "--reassign-grace", "300ms"];
    let mut fleet = Fleet::builder().workers(2).control_arguments(&short).start().await.unwrap();
    let population = Population::settle_in(&fleet, 20).await;
    let before = owners(&fleet).await;
    assert_eq!(owned_by(&before, "w1").len(), 10);

    let reader = Reader::start(&fleet, population).await;
    fleet.worker(0).stop_sigstop();
    // These reach its sockets, and it will read them when it goes on: older data, and an older epoch.
    population.patch(&fleet, 2);
    population.wait_until_owned_by(&fleet, &["w2"], BOUND).await;
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;
    let fences = population.fences(&fleet).await;
    // So that it gets nothing new while it is looked at.
    fleet.cli(&["worker", "cordon", "w1"]).await.unwrap().expect_success();
    fleet.worker(0).cont();

    wait_until_connected(&fleet, 2).await;
    wait_until("w1 has let go of everything", BOUND, async || {
        let metrics = fleet.worker_get(0, "/metrics").await.map_err(|error| format!("{error:#}"))?.body;
        let told = workers(&fleet).await.into_iter().find(|worker| worker.name == "w1").unwrap();
        if told.environment_names.is_empty() && !metrics.contains("environment=") {
            Ok(())
        } else {
            Err(format!("{told:?}\n{metrics}"))
        }
    })
    .await;
    // How many it tried depends on whether Redis, control or LaunchDarkly is the first that it hears.
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let refused = metrics.lines().find(|line| line.starts_with("flotilla_fenced_writes_total ")).unwrap();
    println!("the worker that stood still: {refused}");
    assert_eq!(population.fences(&fleet).await, fences, "not even a fence was written");
    assert_moved(&before, &owners(&fleet).await, "w1", "w2");
    population.assert_owned_once(&fleet).await;

    // A member like any other: it gets its share.
    fleet.cli(&["worker", "uncordon", "w1"]).await.unwrap().expect_success();
    wait_until("w1 has its share", BOUND, async || {
        let shares: Vec<_> = workers(&fleet).await.iter().map(|one| (one.environments, one.standby)).collect();
        if shares == [(10, 0), (10, 0)] { Ok(()) } else { Err(format!("{shares:?}")) }
    })
    .await;
    population.patch(&fleet, 4);
    population.wait_until_stored(&fleet, BOUND).await;
    population.assert_owned_once(&fleet).await;
    reader.stop().await.assert_never_rolled_back();
}

/// Neither the grace nor the lease can have ended: only the farewell moves them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "measures how long the move takes")]
async fn a_worker_that_is_terminated_hands_its_environments_over() {
    if !require_tool("redis-server") {
        return;
    }
    let long = ["--lease-duration", "2m", "--reassign-grace", "1m"];
    let mut fleet = Fleet::builder().workers(2).control_arguments(&long).start().await.unwrap();
    let population = Population::settle_in(&fleet, 20).await;
    let before = owners(&fleet).await;
    let reader = Reader::start(&fleet, population).await;

    fleet.worker(0).terminate();
    let terminated = Instant::now();
    population.patch(&fleet, 2);
    let exit = fleet.worker(0).wait(BOUND).await.unwrap();
    assert_eq!(exit.code(), Some(0), "{}", fleet.worker(0).log());
    population.wait_until_owned_by(&fleet, &["w2"], BOUND).await;
    let moved: Duration = terminated.elapsed();
    population.wait_until_stored(&fleet, BOUND).await;

    assert_moved(&before, &owners(&fleet).await, "w1", "w2");
    population.assert_owned_once(&fleet).await;
    fleet.simulator.patch(&Population::key(0), Kind::Flag, probe(3));
    population.wait_until_stored(&fleet, BOUND).await;
    let record = reader.stop().await;
    record.assert_never_rolled_back();
    let (first, last) = record.first_and_last_takeover(terminated).unwrap();
    println!("terminated: new owners wrote after {first:?} to {last:?}, all current after {moved:?}");
}

/// With nobody left to take them, the environments are stale, and the next worker gets them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_worker_data_stays_and_the_next_one_takes_over() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().start().await.unwrap();
    let population = Population::settle_in(&fleet, 5).await;
    let before = owners(&fleet).await;
    let reader = Reader::start(&fleet, population).await;
    fleet.worker(0).kill9();
    let name = Population::name(0);
    wait_until("it is said that there is no worker", BOUND, async || {
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        let conditions = status["conditions"].as_array().unwrap();
        let assigned = conditions.iter().find(|one| one["type"] == "Assigned").unwrap();
        let told = (&assigned["status"], &assigned["reason"], &status["initialization"]);
        if told.0 == "false" && told.1 == "NoWorker" && told.2 == "stale" {
            Ok(())
        } else {
            Err(status.to_string())
        }
    })
    .await;
    let output = fleet.cli(&["status"]).await.unwrap();
    assert_eq!(output.status, 1, "{output:?}");
    population.patch(&fleet, 2);

    fleet.add_worker().await.unwrap();
    population.wait_until_owned_by(&fleet, &["w2"], BOUND).await;
    population.wait_until_stored(&fleet, BOUND).await;
    assert_moved(&before, &owners(&fleet).await, "w1", "w2");
    population.assert_owned_once(&fleet).await;
    // What comes back finds its environments gone, and is a member like any other.
    fleet.restart_worker(0).await.unwrap();
    wait_until_connected(&fleet, 2).await;
    population.wait_until_owned_by(&fleet, &["w2"], BOUND).await;
    population.assert_owned_once(&fleet).await;
    reader.stop().await.assert_never_rolled_back();
}
