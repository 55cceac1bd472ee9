//! What is asked for while the worker that has to do it is out of reach, and what such a worker still sends: it comes late,
//! and does no harm.

use std::time::Duration;

use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::{CreateEnvironmentRequest, EnvironmentSpec};
use flotilla_tests::harness::{Fleet, Link, RedisServer, require_tool, wait_until};
use flotilla_tests::proxy::{Client, Flow, Rule};
use flotilla_tests::simulator::{Kind, generated_flags};
use flotilla_worker::fence::{Fence, FenceKind};
use futures_util::StreamExt as _;
use tonic::transport::Channel;

use crate::cuts::{SHORT, assert_well, cut, start};
use crate::monitor::Monitor;
use crate::population::{BOUND, PROBE, Population, environments_api, owners, probe, wait_until_connected};
use crate::reader::Reader;

/// The number of the worker that owns the first environment.
async fn owner(fleet: &Fleet) -> usize {
    let owners = owners(fleet).await;
    let worker = &owners[&Population::name(0)].0;
    worker.trim_start_matches('w').parse::<usize>().unwrap() - 1
}

/// The keys below the first environment's prefix.
async fn keys(fleet: &Fleet) -> Vec<String> {
    let mut redis = fleet.redis.connection().await.unwrap();
    redis::cmd("KEYS").arg(format!("{}:*", Population::prefix(0))).query_async(&mut redis).await.unwrap()
}

async fn say(fleet: &Fleet, arguments: &[&str]) {
    fleet.cli(arguments).await.unwrap().expect_success();
}

/// Waits until a worker has logged this.
async fn wait_until_logged(fleet: &mut Fleet, worker: usize, words: &str) {
    let process = fleet.worker(worker);
    wait_until(&format!("it says {words:?}"), BOUND, async || {
        let log = process.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Waits until this environment's fence is one that a later grant may claim over.
pub(crate) async fn wait_until_released(fleet: &Fleet, population: Population, index: usize) {
    wait_until("the fence is released", BOUND, async || {
        let fence = population.fences(fleet).await.remove(index);
        if Fence::parse(&fence).unwrap().kind == FenceKind::Released { Ok(()) } else { Err(fence) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_does_not_wait_for_an_owner_that_is_cut_off_and_outlives_it() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(2, 1).await;
    let (name, key, zombie) = (Population::name(0), Population::key(0), owner(&fleet).await);
    cut(&mut fleet, Link::Control, zombie, Rule::both(Flow::Hold));
    say(&fleet, &["env", "remove", &name, "--purge", "--yes"]).await;
    // Until another may do it, the owner goes on.
    population.patch(&fleet, 2);
    say(&fleet, &["env", "wait", &name, "--for", "removed", "--timeout", "20s"]).await;
    assert_eq!(keys(&fleet).await, [format!("{}:$flotilla", Population::prefix(0))]);
    wait_until_logged(&mut fleet, zombie, "a later owner's fence stands in the store").await;
    let fences = population.fences(&fleet).await;
    population.patch(&fleet, 3);
    fleet.simulator.put(&key);

    // Another of the same prefix, while it is still there: not an item of the first one comes back.
    fleet.simulator.set_data(&key, generated_flags(2, 500, 77));
    fleet.simulator.patch(&key, Kind::Flag, probe(1));
    Population::add(&fleet, 0).await.expect_success();
    population.wait_until_current(&fleet, BOUND).await;
    population.wait_until_stored(&fleet, BOUND).await;
    assert_ne!(population.fences(&fleet).await, fences);
    fleet.links().heal();
    assert_well(&fleet, population, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_does_not_wait_for_an_owner_that_is_cut_off_if_there_is_another_worker() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(2, 1).await;
    let (name, zombie) = (Population::name(0), owner(&fleet).await);
    let reader = Reader::start(&fleet, population).await;
    cut(&mut fleet, Link::Control, zombie, Rule::both(Flow::BlackHole));
    say(&fleet, &["env", "pause", &name]).await;
    wait_until_released(&fleet, population, 0).await;
    population.patch(&fleet, 2);
    wait_until_logged(&mut fleet, zombie, "a later owner's fence stands in the store").await;
    let fences = population.fences(&fleet).await;
    fleet.links().heal();
    wait_until_connected(&fleet, 2).await;
    wait_until("nobody streams", BOUND, async || {
        let open = fleet.simulator.counters(&Population::key(0)).streams_open;
        if open == 0 { Ok(()) } else { Err(format!("{open} streams")) }
    })
    .await;
    assert_eq!(population.fences(&fleet).await, fences);
    say(&fleet, &["env", "resume", &name]).await;
    assert_well(&fleet, population, 3).await;
    reader.stop().await.assert_never_rolled_back();
}

/// With nobody else to do it, it is pending, and said to be so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_is_pending_until_its_only_worker_can_be_reached() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(1, 1).await;
    let name = Population::name(0);
    cut(&mut fleet, Link::Control, 0, Rule::both(Flow::Hold));
    say(&fleet, &["env", "pause", &name]).await;
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    wait_until("it is not said to be done", BOUND, async || {
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        let conditions = status["conditions"].as_array().unwrap();
        let assigned = conditions.iter().find(|one| one["type"] == "Assigned").unwrap();
        if assigned["reason"] == "NoWorker" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    fleet.links().heal();
    wait_until_released(&fleet, population, 0).await;
    say(&fleet, &["env", "resume", &name]).await;
    assert_well(&fleet, population, 3).await;
}

/// Redis executes what it was sent before, when a later write, over another connection, is long done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_delivered_after_its_successor_is_refused() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(1, 2).await;
    let reader = Reader::start(&fleet, population).await;
    let proxy = fleet.links().proxy(Link::Redis).clone();
    let before = proxy.open();
    proxy.set_for_open(Client::Process(fleet.worker(0).pid()), Rule::up(Flow::Hold));
    // Its time runs out, and it is sent again over a new connection.
    population.patch(&fleet, 2);
    population.wait_until_stored(&fleet, BOUND).await;
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;
    population.wait_until_current(&fleet, BOUND).await;
    let fences = population.fences(&fleet).await;
    assert!(proxy.open() > before, "the old connections are on their way");

    let mut monitor = Monitor::start(&fleet.redis).await;
    proxy.heal();
    wait_until("the old connections came to their end", BOUND, async || {
        let open = proxy.open();
        if open == before { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
    let seen = monitor.seen().await;
    let is_late = |word: &String| word.contains(r#"\"version\":2"#);
    let late = seen.iter().filter(|seen| !seen.by_script && seen.words.iter().any(is_late)).count();
    assert!(late >= population.count, "the late writes arrived: {seen:?}");
    assert_eq!(Monitor::by_scripts(&seen, "hset"), Vec::<&crate::monitor::Seen>::new(), "one was carried out");
    assert_eq!(population.fences(&fleet).await, fences);
    assert_well(&fleet, population, 4).await;
    reader.stop().await.assert_never_rolled_back();
}

/// A replica that a failover makes the master, though it knows neither the last owner nor its data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_to_a_replica_that_lags_ends_with_the_last_owner() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(2, 2).await;
    let master = fleet.redis.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &master]).await.unwrap();
    let mut redis = replica.connection().await.unwrap();
    population.patch(&fleet, 2);
    wait_for_probes(&mut redis, population, &[0, 1], 2).await;
    redis::cmd("REPLICAOF").arg("NO").arg("ONE").exec_async(&mut redis).await.unwrap();

    // Claimed by another, on the master only.
    let zombie = owner(&fleet).await;
    let (heir, process) = (1 - zombie, Client::Process(fleet.worker(zombie).pid()));
    fleet.worker(zombie).stop_sigstop();
    population.wait_until_owned_by(&fleet, &[&Fleet::worker_name(heir)], BOUND).await;
    population.patch(&fleet, 3);
    population.wait_until_stored(&fleet, BOUND).await;

    // The replica takes the master's place, and the zombie is the first to reach it.
    fleet.links().proxy(Link::Control).set(process, Rule::both(Flow::Hold));
    cut(&mut fleet, Link::Redis, heir, Rule::both(Flow::Hold));
    fleet.redis = replica;
    fleet.links().proxy(Link::Redis).lead_to(fleet.redis.address());
    fleet.worker(zombie).cont();
    population.patch(&fleet, 4);
    wait_for_probes(&mut redis, population, &[0], 4).await;

    cut(&mut fleet, Link::Redis, heir, Rule::RESET);
    fleet.links().proxy(Link::Redis).heal();
    population.wait_until_owned_by(&fleet, &[&Fleet::worker_name(heir)], BOUND).await;
    population.patch(&fleet, 5);
    population.wait_until_stored(&fleet, BOUND).await;
    wait_until_logged(&mut fleet, zombie, "a later owner's fence stands in the store").await;
    population.patch(&fleet, 6);
    population.wait_until_stored(&fleet, BOUND).await;
    fleet.links().heal();
    assert_well(&fleet, population, 7).await;
}

async fn wait_for_probes(
    redis: &mut redis::aio::MultiplexedConnection,
    population: Population,
    indices: &[usize],
    version: u64,
) {
    assert!(indices.iter().all(|index| population.indices().contains(index)));
    wait_until(&format!("the probes have version {version}"), BOUND, async || {
        for index in indices {
            let key = format!("{}:features", Population::prefix(*index));
            let stored: Option<String> = redis::cmd("HGET")
                .arg(key)
                .arg(PROBE)
                .query_async(redis)
                .await
                .map_err(|error| error.to_string())?;
            if stored.as_deref() != Some(probe(version).json()) {
                return Err(format!("{stored:?}"));
            }
        }
        Ok(())
    })
    .await;
}

/// Adds an environment as the command line would, which takes its time for each.
async fn create(fleet: &Fleet, mut api: EnvironmentServiceClient<Channel>, index: usize) {
    Population::add_to_simulator(fleet, index);
    let request = CreateEnvironmentRequest {
        name: Population::name(index),
        spec: Some(EnvironmentSpec { prefix: Population::prefix(index), ..EnvironmentSpec::default() }),
        sdk_key: Population::key(index),
        ..CreateEnvironmentRequest::default()
    };
    api.create_environment(request).await.unwrap();
}

/// As many as a worker is to have, and Redis stands still for two seconds: they wait, and nothing is compared.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_of_redis_under_a_thousand_environments_starts_no_storm() {
    const STALL: Duration = Duration::from_secs(2);
    if !require_tool("redis-server") {
        return;
    }
    let mut fleet = Fleet::builder().control_arguments(&SHORT).start().await.unwrap();
    wait_until_connected(&fleet, 1).await;
    let population = Population { count: 1000 };
    let api = environments_api(&fleet);
    let creating = population.indices().map(|index| create(&fleet, api.clone(), index));
    futures_util::stream::iter(creating).buffer_unordered(32).collect::<Vec<()>>().await;
    let all_current = async |fleet: &Fleet| {
        wait_until("all are current", BOUND * 2, async || {
            let metrics = fleet.control_get("/metrics").await.map_err(|error| format!("{error:#}"))?.body;
            let line = metrics.lines().find(|line| line.contains("{state=\"current\"}")).unwrap_or_default();
            if line.ends_with(" 1000") { Ok(()) } else { Err(line.to_owned()) }
        })
        .await;
    };
    all_current(&fleet).await;
    let before = fleet.redis.calls("hscan").await.unwrap();
    assert!(before >= 1000, "each was compared once, in {before} pages");

    fleet.redis.process().stop_sigstop();
    population.patch(&fleet, 2);
    // Not to wait for something: this long is what the fault is.
    tokio::time::sleep(STALL).await;
    fleet.redis.process().cont();
    population.wait_until_stored(&fleet, BOUND).await;
    all_current(&fleet).await;
    let compared = fleet.redis.calls("hscan").await.unwrap() - before;
    println!("read by pages during and after the stall: {compared} times");
    assert!(compared < 100, "{compared} pages were read");
}
