//! Control and workers end and start again: nothing moves that need not, and nothing said is forgotten.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flotilla_proto::Timestamp;
use flotilla_tests::harness::{CliOutput, Fleet, require_tool, wait_until};
use flotilla_tests::simulator::Kind;
use flotilla_worker::fence::Fence;
use futures_util::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process};

use crate::population::{BOUND, Population, environments_api, list, owners, probe, wait_until_connected, workers};

const LEASE: Duration = Duration::from_secs(2);
const SHORT: [&str; 6] = ["--heartbeat-interval", "300ms", "--lease-duration", "2s", "--reassign-grace", "300ms"];

/// Waits until control has heard of each of so many workers for more than a lease, without a break.
async fn wait_for_a_lease(fleet: &Fleet, count: usize) {
    let at = |time: &Option<prost_types::Timestamp>| {
        let time = time.unwrap_or_default();
        Timestamp::from_proto(&time)
    };
    wait_until("a lease has gone by", BOUND, async || {
        let workers = workers(fleet).await;
        let settled = workers
            .iter()
            .filter(|worker| at(&worker.last_heartbeat_time).since(at(&worker.connect_time)) > LEASE + LEASE / 2);
        if settled.count() == count { Ok(()) } else { Err(format!("{workers:?}")) }
    })
    .await;
}

/// Waits until the first worker has written its assignments down, which it does at most twice a second.
async fn wait_until_cached(fleet: &Fleet, population: Population) {
    let file = fleet.directory().join("w1/assignments.pb");
    wait_until("all assignments are cached", BOUND, async || {
        let cached = String::from_utf8_lossy(&std::fs::read(&file).unwrap_or_default()).into_owned();
        let missing = population.indices().map(Population::name).find(|name| !cached.contains(name));
        missing.map_or(Ok(()), |name| Err(format!("{name} is not")))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_control_moves_nothing_and_stops_nothing() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().workers(2).control_arguments(&SHORT).start().await.unwrap();
    let population = Population::settle_in(&fleet, 12).await;
    let (before, connections) = (owners(&fleet).await, population.connections(&fleet));
    assert_eq!(connections, vec![1; 12]);

    for (version, graceful) in [(2, false), (3, true)] {
        if graceful {
            fleet.control().terminate();
            let exit = fleet.control().wait(BOUND).await.unwrap();
            assert_eq!(exit.code(), Some(0), "{}", fleet.control().log());
        } else {
            fleet.control().kill9();
        }
        population.patch(&fleet, version);
        population.wait_until_stored(&fleet, BOUND).await;
        let fences = population.fences(&fleet).await;

        fleet.restart_control().await.unwrap();
        wait_until_connected(&fleet, 2).await;
        population.wait_until_current(&fleet, BOUND).await;
        wait_for_a_lease(&fleet, 2).await;
        assert_eq!(owners(&fleet).await, before);
        assert_eq!(population.connections(&fleet), connections, "a worker went to LaunchDarkly again");
        assert_eq!(population.fences(&fleet).await, fences, "a worker wrote to Redis");
        let metrics = fleet.control_get("/metrics").await.unwrap().body;
        let moves: Vec<&str> =
            metrics.lines().filter(|line| line.starts_with("flotilla_assignments_moved_total")).collect();
        assert!(!moves.is_empty() && moves.iter().all(|line| line.ends_with(" 0")), "{moves:?}");
    }
    population.patch(&fleet, 4);
    population.wait_until_stored(&fleet, BOUND).await;
    population.assert_owned_once(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_restarted_while_control_is_away_goes_on_from_its_cache() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&SHORT).start().await.unwrap();
    let population = Population::settle_in(&fleet, 5).await;
    let before = owners(&fleet).await;
    wait_until_cached(&fleet, population).await;

    fleet.control().kill9();
    fleet.worker(0).kill9();
    population.patch(&fleet, 2);
    fleet.simulator.delete(&Population::key(0), Kind::Flag, "flag-00001", 2);
    fleet.restart_worker(0).await.unwrap();
    // LaunchDarkly is asked twice whether a flag that stands in the store is gone, half a minute apart.
    population.wait_until_stored(&fleet, 3 * BOUND).await;
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;

    fleet.restart_control().await.unwrap();
    population.wait_until_current(&fleet, BOUND).await;
    wait_for_a_lease(&fleet, 1).await;
    assert_eq!(owners(&fleet).await, before, "the grants are those from before");
    assert_eq!(
        population.connections(&fleet),
        [3, 2, 2, 2, 2],
        "one for each start of the worker, and one that asked"
    );
    population.assert_owned_once(&fleet).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_started_again_in_its_state_directory_supersedes_itself() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&SHORT).start().await.unwrap();
    let population = Population::settle_in(&fleet, 5).await;
    let before = owners(&fleet).await;
    let incarnation = |fence: &String| Fence::parse(fence).unwrap().incarnation;
    let old = population.fences(&fleet).await;

    fleet.worker(0).kill9();
    population.patch(&fleet, 2);
    fleet.restart_worker(0).await.unwrap();
    population.wait_until_stored(&fleet, BOUND).await;
    population.wait_until_current(&fleet, BOUND).await;
    for (name, (worker, epoch)) in owners(&fleet).await {
        assert_eq!(worker, "w1");
        assert!(epoch >= before[&name].1, "{name}: {epoch} after {}", before[&name].1);
    }
    for (old, new) in old.iter().zip(population.fences(&fleet).await) {
        let (old, new) = (incarnation(old), incarnation(&new));
        assert_eq!(new.state_directory, old.state_directory);
        assert_eq!(new.start_counter, old.start_counter + 1);
    }
    population.assert_owned_once(&fleet).await;
}

/// Adds these environments, four commands at a time, and kills control when the given number was acknowledged.
async fn add_and_kill(
    fleet: &Fleet,
    control: Pid,
    indices: std::ops::Range<usize>,
    kill_at: usize,
) -> Vec<CliOutput> {
    let acknowledged = AtomicUsize::new(0);
    let adding = indices.map(|index| {
        let acknowledged = &acknowledged;
        async move {
            let output = Population::add(fleet, index).await;
            if output.status == 0 && acknowledged.fetch_add(1, Ordering::Relaxed) + 1 == kill_at {
                kill_process(control, Signal::KILL).unwrap();
            }
            output
        }
    });
    // In the order given, while up to four are under way.
    futures_util::stream::iter(adding).buffered(4).collect().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_control_acknowledged_it_remembers_however_it_was_killed() {
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&SHORT).start().await.unwrap();
    let population = Population { count: 30 };
    for index in population.indices() {
        Population::add_to_simulator(&fleet, index);
    }
    let mut outputs = Vec::new();
    for (round, kill_at) in [1, 3, 6].into_iter().enumerate() {
        let control = Pid::from_raw(i32::try_from(fleet.control().pid()).unwrap()).unwrap();
        outputs.extend(add_and_kill(&fleet, control, round * 10..(round + 1) * 10, kill_at).await);
        fleet.restart_control().await.unwrap();
    }

    let present: Vec<String> =
        list(&mut environments_api(&fleet)).await.unwrap().into_iter().map(|one| one.name).collect();
    for (index, output) in outputs.iter().enumerate() {
        let (name, exists) = (Population::name(index), present.contains(&Population::name(index)));
        assert!(output.status != 0 || exists, "{name} was acknowledged and is lost");
        assert!([0, 1, 5].contains(&output.status), "{name}: {output:?}");
        // Whatever is there holds its name and its prefix; whatever is not holds neither.
        let again = Population::add(&fleet, index).await;
        assert_eq!(again.status, if exists { 4 } else { 0 }, "{name}: {again:?}");
    }
    // None is half there: each has its key and its prefix, so a worker can serve it.
    wait_until_connected(&fleet, 1).await;
    population.wait_until_current(&fleet, BOUND).await;
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    fleet.simulator.patch(&Population::key(29), Kind::Flag, probe(3));
    population.wait_until_stored(&fleet, BOUND).await;
    population.assert_owned_once(&fleet).await;
}
