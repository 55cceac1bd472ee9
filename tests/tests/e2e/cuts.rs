//! The network is cut between a worker and control, Redis or LaunchDarkly: as a refusal and as a black hole, one way and
//! both. What can go on goes on, and when the network is back all is as if nothing had been.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_proto::v1::{Environment, Initialization};
use flotilla_tests::harness::{Fleet, Link, require_tool, wait_until};
use flotilla_tests::proxy::{Client, Flow, Rule};
use flotilla_tests::simulator::{Item, Kind};

use crate::population::{
    BOUND, Population, environments_api, find_workers, list, owners, status, wait_until_connected,
};
use crate::reader::Reader;

pub(crate) const SHORT: [&str; 6] =
    ["--heartbeat-interval", "300ms", "--lease-duration", "2s", "--reassign-grace", "300ms"];
const LEASE: Duration = Duration::from_secs(2);
/// So that LaunchDarkly is asked again soon after a test has been unkind to it.
const QUICK: [&str; 2] = ["--initial-retry-delay", "100ms"];

/// How a network can be cut. A hole loses what it gets, while a network that is held sends it later.
const CUTS: [(&str, Rule); 5] = [
    ("refused", Rule::RESET),
    ("a hole from the worker", Rule::up(Flow::BlackHole)),
    ("a hole towards the worker", Rule::down(Flow::BlackHole)),
    ("a hole both ways", Rule::both(Flow::BlackHole)),
    ("held both ways", Rule::both(Flow::Hold)),
];

/// A fleet whose environments are shared among so many workers, each of whom can be cut off.
pub(crate) async fn start(workers: usize, environments: usize) -> (Fleet, Population) {
    let builder = Fleet::builder().workers(workers).control_arguments(&SHORT).through_proxies();
    let fleet = builder.start().await.unwrap();
    let population = Population::settle_in_with(&fleet, environments, &QUICK).await;
    (fleet, population)
}

pub(crate) fn cut(fleet: &mut Fleet, link: Link, worker: usize, rule: Rule) {
    let client = Client::Process(fleet.worker(worker).pid());
    fleet.links().proxy(link).set(client, rule);
}

/// The environments of each worker, by its number.
pub(crate) async fn by_worker(fleet: &Fleet) -> BTreeMap<usize, Vec<usize>> {
    let mut shares = BTreeMap::<usize, Vec<usize>>::new();
    for (index, (_, (worker, _))) in owners(fleet).await.into_iter().enumerate() {
        let number: usize = worker.trim_start_matches('w').parse().unwrap();
        shares.entry(number - 1).or_default().push(index);
    }
    shares
}

/// Sends changes of every kind that the next full payload would not repair if they were lost: a flag that comes, and one
/// that goes.
fn change(fleet: &Fleet, population: Population, version: u64) {
    population.patch(fleet, version);
    for key in population.indices().map(Population::key) {
        let flag = |version: u64| format!("change-{version:03}");
        let added = Item::parse(&format!(r#"{{"key":"{}","version":1}}"#, flag(version))).unwrap();
        fleet.simulator.patch(&key, Kind::Flag, added);
        fleet.simulator.delete(&key, Kind::Flag, &flag(version - 1), 2);
    }
}

/// What must be true in the end, whatever was cut.
pub(crate) async fn assert_well(fleet: &Fleet, population: Population, version: u64) {
    let workers = fleet.worker_count();
    wait_until_connected(fleet, workers).await;
    population.wait_until_stored(fleet, BOUND).await;
    population.wait_until_current(fleet, BOUND).await;
    change(fleet, population, version);
    population.wait_until_stored(fleet, BOUND).await;
    wait_until("nobody has what is another's", BOUND, async || {
        let found = find_workers(fleet).await?;
        for index in 0..workers {
            let metrics = fleet.worker_get(index, "/metrics").await.map_err(|error| format!("{error:#}"))?.body;
            let mine = found.iter().find(|one| one.name == Fleet::worker_name(index)).unwrap();
            // Those that had an event: a worker that let an environment go tells of it no more.
            let runs = |name: &String| metrics.contains(&format!("environment=\"{name}\""));
            let wrong = |name: &String| runs(name) && !mine.environment_names.contains(name);
            if let Some(name) = population.indices().map(Population::name).find(wrong) {
                return Err(format!("{name} at {}", mine.name));
            }
        }
        Ok(())
    })
    .await;
    population.assert_owned_once(fleet).await;
}

/// Waits until control tells of each of these environments what is wanted.
pub(crate) async fn wait_until_all(
    fleet: &Fleet,
    what: &str,
    indices: &[usize],
    is_wanted: impl Fn(&Environment) -> bool,
) {
    let mut api = environments_api(fleet);
    wait_until(what, BOUND, async || {
        let found = list(&mut api).await?;
        let wrong = indices.iter().map(|index| &found[*index]).find(|one| !is_wanted(one));
        wrong.map_or(Ok(()), |one| Err(format!("{one:?}")))
    })
    .await;
}

pub(crate) fn is_stale(environment: &Environment) -> bool {
    status(environment).initialization() == Initialization::Stale
}

pub(crate) fn is_current(environment: &Environment) -> bool {
    status(environment).initialization() == Initialization::Current
}

/// A worker that control cannot reach goes on until another has its environments, and then writes no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_from_control() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(2, 4).await;
    let reader = Reader::start(&fleet, population).await;
    let mut version = 2;
    for (how, rule) in CUTS {
        let owner = owners(&fleet).await[&Population::name(0)].0.clone();
        let (from, to) = if owner == "w1" { (0, "w2") } else { (1, "w1") };
        println!("{owner}: {how}");
        cut(&mut fleet, Link::Control, from, rule);
        change(&fleet, population, version);
        population.wait_until_stored(&fleet, BOUND).await;
        // Towards the worker only: it is heard of until it ends the session itself, and keeps what it has until then.
        population.wait_until_owned_by(&fleet, &[to], BOUND).await;
        change(&fleet, population, version + 1);
        population.wait_until_stored(&fleet, BOUND).await;
        fleet.links().heal();
        assert_well(&fleet, population, version + 2).await;
        version += 3;
    }
    reader.stop().await.assert_never_rolled_back();
}

/// A worker that cannot reach Redis keeps what it has, says so, and writes the newest when it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_from_redis() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(CUTS.len() + 1, 2 * (CUTS.len() + 1)).await;
    let (shares, before) = (by_worker(&fleet).await, owners(&fleet).await);
    let reader = Reader::start(&fleet, population).await;
    for (worker, (_, rule)) in CUTS.into_iter().enumerate() {
        cut(&mut fleet, Link::Redis, worker, rule);
    }
    change(&fleet, population, 2);
    for (worker, (how, _)) in CUTS.iter().enumerate() {
        wait_until_all(&fleet, &format!("stale with {how}"), &shares[&worker], is_stale).await;
    }
    wait_until_all(&fleet, "the others are current", &shares[&CUTS.len()], is_current).await;
    change(&fleet, population, 3);
    assert_eq!(owners(&fleet).await, before, "another worker would fare no better");
    fleet.links().heal();
    assert_well(&fleet, population, 4).await;
    assert_eq!(owners(&fleet).await, before);
    assert_eq!(population.connections(&fleet), vec![1; population.count], "LaunchDarkly was asked");
    reader.stop().await.assert_never_rolled_back();
}

/// A worker that cannot reach LaunchDarkly leaves what stands in Redis alone, and catches up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_off_from_launchdarkly() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(CUTS.len(), 2 * CUTS.len()).await;
    let (shares, before) = (by_worker(&fleet).await, owners(&fleet).await);
    let fences = population.fences(&fleet).await;
    let reader = Reader::start(&fleet, population).await;
    for (worker, (_, rule)) in CUTS.into_iter().enumerate() {
        cut(&mut fleet, Link::LaunchDarkly, worker, rule);
    }
    change(&fleet, population, 2);
    wait_until_all(&fleet, "stale when refused", &shares[&0], is_stale).await;
    // What is open goes on where only requests are lost; the others got nothing, and wrote nothing.
    wait_until("the patch came where only requests are lost", BOUND, async || {
        let now = population.fences(&fleet).await;
        let changed = |worker: usize| shares[&worker].iter().all(|index| now[*index] != fences[*index]);
        if changed(1) { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    let now = population.fences(&fleet).await;
    for worker in [0, 2, 3, 4] {
        assert!(shares[&worker].iter().all(|index| now[*index] == fences[*index]), "{}", CUTS[worker].0);
    }
    change(&fleet, population, 3);
    fleet.links().heal();
    assert_well(&fleet, population, 4).await;
    assert_eq!(owners(&fleet).await, before);
    let connections = population.connections(&fleet);
    let of = |worker: usize| shares[&worker].iter().map(|index| connections[*index]).max();
    assert_eq!((of(1), of(4)), (Some(1), Some(1)), "nothing was lost there: {connections:?}");
    reader.stop().await.assert_never_rolled_back();
}

/// Lets all streams be opened again, so that nothing is sent while none is open.
async fn reopen_streams(fleet: &Fleet, population: Population) {
    let before = fleet.simulator.total_counters().stream_connections;
    fleet.simulator.close_all_streams();
    wait_until("all streams are open again", BOUND, async || {
        let now = fleet.simulator.total_counters();
        let count = u64::try_from(population.count).unwrap();
        let again = now.stream_connections >= before + count && now.streams_open == count;
        if again { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
}

/// Where connections are cut: after so many bytes from the worker, and towards it. Little is said to control, and to
/// LaunchDarkly nothing but a request.
const PLACES: [(Link, &[usize], &[usize]); 3] = [
    (Link::Control, &[1, 50, 400], &[1, 50, 200]),
    (Link::Redis, &[1, 50, 700, 4_000], &[1, 50, 700]),
    (Link::LaunchDarkly, &[1, 100], &[1, 200, 2_000, 6_000]),
];

/// In the middle of a frame, an event, a payload, a script or an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_cut_anywhere_and_come_in_slices() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(1, 3).await;
    let reader = Reader::start(&fleet, population).await;
    let mut version = 2;
    for (link, up, down) in PLACES {
        let up = up.iter().map(|bytes| Rule::up(Flow::CutAfter(*bytes)));
        let down = down.iter().map(|bytes| Rule::down(Flow::CutAfter(*bytes)));
        for rule in up.chain(down) {
            let proxy = fleet.links().proxy(link).clone();
            let broken = proxy.broken();
            cut(&mut fleet, link, 0, rule);
            if (link, rule.down) == (Link::LaunchDarkly, Flow::Pass) {
                fleet.simulator.close_all_streams();
            }
            wait_until(&format!("the connection is cut: {link:?}, {rule:?}"), BOUND, async || {
                if proxy.broken() > broken {
                    return Ok(());
                }
                if link == Link::LaunchDarkly {
                    // A flag that is missing in the next payload would be in doubt for half a minute.
                    population.patch(&fleet, version);
                } else {
                    change(&fleet, population, version);
                }
                version += 1;
                Err("it is not".to_owned())
            })
            .await;
            proxy.heal();
        }
        assert_well(&fleet, population, version).await;
        version += 1;
    }
    for link in [Link::Control, Link::Redis, Link::LaunchDarkly] {
        cut(&mut fleet, link, 0, Rule::both(Flow::Slice(7)));
    }
    reopen_streams(&fleet, population).await;
    assert_well(&fleet, population, version).await;
    for link in [Link::Control, Link::Redis, Link::LaunchDarkly] {
        cut(&mut fleet, link, 0, Rule::both(Flow::Delay(Duration::from_millis(100))));
    }
    reopen_streams(&fleet, population).await;
    assert_well(&fleet, population, version + 1).await;
    reader.stop().await.assert_never_rolled_back();
}

/// How long `current` is told though it is not so, when a link goes silent and nothing happens that would show it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[expect(clippy::disallowed_methods, reason = "measures how long it takes")]
async fn silence_is_noticed_in_time() {
    if !require_tool("redis-server") {
        return;
    }
    let (mut fleet, population) = start(4, 4).await;
    // What moves goes to the one that is well.
    for worker in ["w2", "w3"] {
        fleet.cli(&["worker", "cordon", worker]).await.unwrap().expect_success();
    }
    let shares = by_worker(&fleet).await;
    let hole = Rule::both(Flow::BlackHole);
    for (worker, link) in [Link::Control, Link::Redis, Link::LaunchDarkly].into_iter().enumerate() {
        cut(&mut fleet, link, worker, hole);
    }
    let begin = Instant::now();
    let last_byte = |environment: &Environment| status(environment).last_byte_time.unwrap();
    let silent = shares[&2][0];
    let heard = last_byte(&list(&mut environments_api(&fleet)).await.unwrap()[silent]);

    // Another worker has it within the lease, and is current.
    let is_elsewhere = |one: &Environment| status(one).worker == "w4" && is_current(one);
    wait_until_all(&fleet, "it is elsewhere", &shares[&0], is_elsewhere).await;
    let control = begin.elapsed();
    wait_until_all(&fleet, "it is stale", &shares[&1], is_stale).await;
    let redis = begin.elapsed();
    println!("noticed: silence of control after {control:?}, of Redis after {redis:?}");
    assert!(control < LEASE * 4, "{control:?}");
    // A ping every 5 s, which has 3 s.
    assert!(redis < Duration::from_secs(8 * 2), "{redis:?}");
    // Of a stream nothing is known for up to 5 min, but how old its last byte is.
    let found = &list(&mut environments_api(&fleet)).await.unwrap()[silent];
    assert!(is_current(found) && last_byte(found) == heard, "{found:?}");

    fleet.links().heal();
    assert_well(&fleet, population, 2).await;
}
