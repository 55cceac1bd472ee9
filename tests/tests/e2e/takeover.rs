//! From a relay to Flotilla, and back, in the steps of `docs/takeover.md`. The relay is what LaunchDarkly's is made of: their
//! SDK for Go, connected, with their Redis store.

use flotilla_tests::harness::{Fleet, require_tool, wait_until};
use flotilla_tests::sdks::{EvaluationFixture, Sdk, SdkReader, Source};
use redis::aio::MultiplexedConnection;

use crate::monitor::{Monitor, Seen};
use crate::population::{BOUND, PROBE, Population};
use crate::reader::Reader;
use crate::stored::{Stored, condition};

const PAGE: &str = include_str!("../../../docs/takeover.md");
/// The environment.
const INDEX: usize = 0;
const POPULATION: Population = Population { count: 1 };

fn start_relay(fleet: &Fleet) -> SdkReader {
    let source = Source::Writer {
        uri: fleet.simulator.uri(),
        sdk_key: Population::key(INDEX),
        redis_url: fleet.redis.url(),
        prefix: Population::prefix(INDEX),
    };
    SdkReader::start(Sdk::Go, &source, &EvaluationFixture::load().unwrap().path).unwrap()
}

/// Kills the relay and waits until its stream has ended.
async fn stop_relay(fleet: &Fleet, relay: SdkReader, others: u64) {
    drop(relay);
    wait_until("the relay's stream has ended", BOUND, async || {
        let open = fleet.simulator.counters(&Population::key(INDEX)).streams_open;
        if open == others { Ok(()) } else { Err(format!("{open} streams")) }
    })
    .await;
}

async fn stored(redis: &mut MultiplexedConnection) -> Stored {
    Stored::read(redis, &Population::prefix(INDEX)).await
}

/// Waits until what stands in Redis is what the relay made of the data: the probe in this version, in other words.
async fn wait_for_relays_data(fleet: &Fleet, redis: &mut MultiplexedConnection, version: u64) -> Stored {
    let sent = Stored::of(&fleet.simulator.data(&Population::key(INDEX)));
    wait_until("the relay's data stands in Redis", BOUND, async || {
        let found = stored(redis).await;
        let probe = found.flags.get(PROBE).cloned().unwrap_or_default();
        let text = String::from_utf8_lossy(&probe).into_owned();
        let is_its = probe != sent.flags[PROBE] && text.contains(&format!("\"version\":{version}"));
        if is_its && found.marker { Ok(found) } else { Err(text) }
    })
    .await
}

/// Items that scripts, which only Flotilla has, have written; the marker may not be among what they wrote.
fn items_written(seen: &[Seen]) -> usize {
    let marker = format!("{}:$inited", Population::prefix(INDEX));
    for command in ["SET", "DEL", "RENAME", "UNLINK"] {
        let touched = Monitor::by_scripts(seen, command).into_iter().any(|one| one.words.contains(&marker));
        assert!(!touched, "the marker was written: {seen:?}");
    }
    let written = Monitor::by_scripts(seen, "HSET");
    written.iter().map(|one| (one.words.len() - 2) / 2).sum()
}

/// Runs a command of the page, whose NAME is the environment's.
#[expect(clippy::print_stdout, reason = "a transcript for whoever reads the test's output")]
async fn cli(fleet: &Fleet, line: &str) -> String {
    assert!(PAGE.contains(&format!("flotilla {line}")), "the page does not say `flotilla {line}`");
    let line = line.replace("NAME", &Population::name(INDEX));
    let words: Vec<_> = line.split(' ').collect();
    let output = fleet.cli(&words).await.unwrap().expect_success();
    println!("$ flotilla {line}\n{}{}", output.stderr, output.stdout);
    output.stdout
}

fn configuration(fleet: &Fleet) -> String {
    let (port, uri) = (fleet.redis.port(), fleet.simulator.uri());
    let (name, key, prefix) = (Population::name(INDEX), Population::key(INDEX), Population::prefix(INDEX));
    format!(
        "[Main]\nstreamUri = {uri}\nbaseUri = {uri}\n[Redis]\nhost = localhost\nport = {port}\nlocalTtl = 30s\n\
         [Environment \"{name}\"]\nsdkKey = {key}\nprefix = {prefix}\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_is_taken_over_from_and_given_back_to_without_a_gap() {
    if !require_tool("redis-server") || !Sdk::Go.require() {
        return;
    }
    let fleet = Fleet::builder().start().await.unwrap();
    Population::add_to_simulator(&fleet, INDEX);
    let (key, name) = (Population::key(INDEX), Population::name(INDEX));
    let mut redis = fleet.redis.connection().await.unwrap();
    let relay = start_relay(&fleet);
    let of_relay = wait_for_relays_data(&fleet, &mut redis, 1).await;
    let reader = Reader::start(&fleet, POPULATION).await;

    // There: looked at, the relay stopped, applied.
    std::fs::write(fleet.directory().join("ld-relay.conf"), configuration(&fleet)).unwrap();
    cli(&fleet, "import --from ld-relay.conf --dry-run").await;
    stop_relay(&fleet, relay, 0).await;
    let mut monitor = Monitor::start(&fleet.redis).await;
    cli(&fleet, "import --from ld-relay.conf --apply").await;
    cli(&fleet, "env wait --all --for current").await;
    POPULATION.wait_until_stored(&fleet, BOUND).await;
    let wanted = Stored::of(&fleet.simulator.data(&key));
    let items: Vec<_> = wanted.flags.iter().chain(&wanted.segments).collect();
    let of_relay: Vec<_> = of_relay.flags.iter().chain(&of_relay.segments).collect();
    let differing = items.iter().filter(|item| !of_relay.contains(item)).count();
    let written = items_written(&monitor.seen().await);
    println!("{} items, {differing} of them in the relay's own words: {written} written", items.len());
    assert_eq!((written, differing > 0), (differing, true));

    // A reconnect writes nothing: the one item is the patch that tells its end.
    let connections = fleet.simulator.counters(&key).stream_connections;
    fleet.simulator.cut_streams(&key);
    wait_until("it is connected again", BOUND, async || {
        let now = fleet.simulator.counters(&key).stream_connections;
        if now > connections { Ok(()) } else { Err(format!("{now} connections")) }
    })
    .await;
    fleet.wait_for_initialization(&name, "current", BOUND).await;
    let reconnected = items_written(&monitor.seen().await);
    POPULATION.patch(&fleet, 2);
    POPULATION.wait_until_stored(&fleet, BOUND).await;
    let patched = items_written(&monitor.seen().await);
    println!("a reconnect: {reconnected} written; a patch: {patched} written");
    assert_eq!((reconnected, patched), (0, 1));
    drop(monitor);

    another_relay_still_writes(&fleet, &mut redis).await;
    give_back(&fleet, &mut redis).await;
    reader.stop().await.assert_never_rolled_back();
}

/// It is seen, mended, and shown, and over when that relay is stopped.
#[expect(clippy::print_stdout, reason = "a transcript for whoever reads the test's output")]
async fn another_relay_still_writes(fleet: &Fleet, redis: &mut MultiplexedConnection) {
    let (key, name) = (Population::key(INDEX), Population::name(INDEX));
    let relay = start_relay(fleet);
    wait_until("the conflict is shown", BOUND, async || {
        // Each full payload is written by the relay as a whole.
        fleet.simulator.put(&key);
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        match condition(&status, "Conflict") {
            Some(conflict) if conflict["reason"] == "ForeignWrites" => {
                println!("Conflict: {}", conflict["message"]);
                Ok(())
            }
            Some(_) | None => Err(status.to_string()),
        }
    })
    .await;
    let metrics = fleet.worker_get(0, "/metrics").await.unwrap().body;
    let begin = "flotilla_store_repairs_total{reason=\"items\"} ";
    let repairs: u64 = metrics.lines().find_map(|line| line.strip_prefix(begin)).unwrap().parse().unwrap();
    assert!(repairs >= 1, "{metrics}");
    println!("{begin}{repairs}");
    assert!(cli(fleet, "events").await.contains("items changed by somebody else"));
    stop_relay(fleet, relay, 1).await;
    POPULATION.wait_until_stored(fleet, BOUND).await;
    wait_until("it is over when the relay is stopped", BOUND, async || {
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        if condition(&status, "Conflict").is_none() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert!(stored(redis).await.marker);
}

/// Paused, the relay started; and once more to Flotilla.
#[expect(clippy::print_stdout, reason = "a transcript for whoever reads the test's output")]
async fn give_back(fleet: &Fleet, redis: &mut MultiplexedConnection) {
    let name = Population::name(INDEX);
    cli(fleet, "env pause NAME").await;
    wait_until("no worker holds it", BOUND, async || {
        let status = fleet.environment_status(&name).await.map_err(|error| format!("{error:#}"))?;
        if status["worker"].is_null() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let relay = start_relay(fleet);
    wait_for_relays_data(fleet, redis, 2).await;
    POPULATION.patch(fleet, 3);
    wait_for_relays_data(fleet, redis, 3).await;
    println!("the relay writes again, and nobody else");
    stop_relay(fleet, relay, 0).await;
    cli(fleet, "env resume NAME").await;
    fleet.wait_for_initialization(&name, "current", BOUND).await;
    POPULATION.wait_until_stored(fleet, BOUND).await;
}
