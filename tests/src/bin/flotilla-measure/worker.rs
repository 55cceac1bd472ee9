//! One worker with many environments: cold start, memory, CPU, reconnect, and the way of a patch into Redis.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::{CreateEnvironmentRequest, EnvironmentSpec};
use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use futures_util::StreamExt as _;
use redis::AsyncCommands as _;
use tonic::transport::Endpoint;

use flotilla_tests::figures::{cpu, memory, print_times, started};

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Environments
    #[arg(long, default_value_t = 500)]
    environments: usize,
    /// Flags in each
    #[arg(long, default_value_t = 200)]
    flags: usize,
    /// Bytes of each flag's JSON
    #[arg(long, default_value_t = 2048)]
    flag_bytes: usize,
    /// Patches sent in all
    #[arg(long, default_value_t = 20_000)]
    patches: u64,
    /// Patches sent in a second
    #[arg(long, default_value_t = 1_000)]
    patches_per_second: u64,
}

const BOUND: Duration = Duration::from_mins(5);
/// Time in which nothing happens before memory is read.
const REST: Duration = Duration::from_secs(10);

/// Measures, and prints what was found.
pub(crate) async fn run(binaries: &Path, options: Options) -> anyhow::Result<()> {
    let mut fleet = Fleet::builder().workers(0).binaries(binaries).start().await?;
    create_environments(&fleet, &options).await?;
    let mut redis = fleet.redis.connection().await?;
    let prefixes: Vec<String> = (0..options.environments).map(prefix).collect();
    let control = fleet.control().pid();

    let begin = started();
    fleet.add_worker().await?;
    let worker = fleet.worker(0).pid();
    let markers: Vec<String> = prefixes.iter().map(|prefix| format!("{prefix}:$inited")).collect();
    wait_until("every marker", BOUND, async || {
        let there: usize = redis.clone().exists(&markers).await.map_err(|error| error.to_string())?;
        if there == markers.len() { Ok(()) } else { Err(format!("{there} of {}", markers.len())) }
    })
    .await;
    println!("cold start until every $inited      {:>8.2} s", begin.elapsed().as_secs_f64());
    all_current(&fleet, &options).await;
    println!("cold start until all current        {:>8.2} s", begin.elapsed().as_secs_f64());
    report("after the cold start, at rest", control, worker).await?;

    let bytes_before = redis_input(&mut redis).await?;
    let connections_before = fleet.simulator.total_counters().stream_connections;
    fleet.simulator.close_all_streams();
    wait_until("all streams are there again", BOUND, async || {
        let now = fleet.simulator.total_counters();
        let again = now.stream_connections - connections_before;
        if again >= options.environments as u64 && now.streams_open >= options.environments as u64 {
            Ok(())
        } else {
            Err(format!("{again}"))
        }
    })
    .await;
    all_current(&fleet, &options).await;
    report("after all streams were cut once", control, worker).await?;
    println!(
        "bytes to Redis for that             {:>8.2} MB",
        (redis_input(&mut redis).await? - bytes_before) as f64 / 1e6
    );

    patches(&fleet, &options).await?;
    report("after the patches", control, worker).await?;
    bare_round_trips(&fleet).await
}

fn prefix(number: usize) -> String {
    format!("env-{number:04}")
}

fn key(number: usize) -> String {
    format!("sdk-{number:08x}-0000-4000-8000-000000000000")
}

async fn create_environments(fleet: &Fleet, options: &Options) -> anyhow::Result<()> {
    let data = Arc::new(generated_flags(options.flags, options.flag_bytes, 1));
    let mut client = EnvironmentServiceClient::new(Endpoint::from_shared(fleet.control_url())?.connect().await?);
    for number in 0..options.environments {
        fleet.simulator.add_environment(&key(number), None, Arc::clone(&data));
        client
            .create_environment(CreateEnvironmentRequest {
                name: prefix(number),
                spec: Some(EnvironmentSpec { prefix: prefix(number), ..EnvironmentSpec::default() }),
                sdk_key: key(number),
                ..CreateEnvironmentRequest::default()
            })
            .await?;
    }
    Ok(())
}

async fn all_current(fleet: &Fleet, options: &Options) {
    let wanted = format!("flotilla_environments{{state=\"current\"}} {}", options.environments);
    wait_until("all are current", BOUND, async || {
        let answer = fleet.control_get("/metrics").await.map_err(|error| error.to_string())?;
        let line =
            answer.body.lines().find(|line| line.contains("state=\"current\"")).unwrap_or_default().to_owned();
        if line == wanted { Ok(()) } else { Err(line) }
    })
    .await;
}

/// Memory and CPU of control and worker, after a rest.
async fn report(when: &str, control: u32, worker: u32) -> anyhow::Result<()> {
    tokio::time::sleep(REST).await;
    for (name, process) in [("control", control), ("worker", worker)] {
        println!("{when}: {name:8} {:>8.1} MB  {:>7.2} s CPU", memory(process)?, cpu(process)?);
    }
    Ok(())
}

async fn redis_input(redis: &mut redis::aio::MultiplexedConnection) -> anyhow::Result<u64> {
    let info: String = redis::cmd("INFO").arg("stats").query_async(redis).await?;
    let line = info.lines().find_map(|line| line.strip_prefix("total_net_input_bytes:")).context("no figure")?;
    Ok(line.trim().parse()?)
}

/// Sends patches at a steady rate and takes the time until Redis tells that the hash was written.
async fn patches(fleet: &Fleet, options: &Options) -> anyhow::Result<()> {
    let mut redis = fleet.redis.connection().await?;
    redis::cmd("CONFIG").arg("SET").arg("notify-keyspace-events").arg("Kh").exec_async(&mut redis).await?;
    let (mut sink, mut written) = redis::Client::open(fleet.redis.url())?.get_async_pubsub().await?.split();
    sink.psubscribe("__keyspace@0__:*:features").await?;
    let (mut waiting, mut times) = (HashMap::new(), Vec::new());
    let (mut sent, mut busy, begin) = (0, 0, started());
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / options.patches_per_second));
    while sent < options.patches || !waiting.is_empty() {
        tokio::select! {
            _ = pace.tick(), if sent < options.patches => {
                let number = (sent as usize * 7) % options.environments;
                let version = 10 + sent;
                if let Entry::Vacant(place) = waiting.entry(prefix(number)) {
                    let flag = (sent as usize * 13) % options.flags;
                    let item = generated_flag(flag, version, options.flag_bytes, version);
                    place.insert(started());
                    fleet.simulator.patch(&key(number), Kind::Flag, item);
                } else {
                    // The last one of this environment is not there yet: two could not be told apart.
                    busy += 1;
                }
                sent += 1;
            }
            message = written.next() => {
                let message = message.context("the subscription ended")?;
                let name = message.get_channel_name().trim_start_matches("__keyspace@0__:").trim_end_matches(":features").to_owned();
                if let Some(since) = waiting.remove(&name) {
                    times.push(since.elapsed());
                }
            }
            () = tokio::time::sleep(Duration::from_secs(20)) => anyhow::bail!("{} patches never arrived", waiting.len()),
        }
    }
    times.sort_unstable();
    println!(
        "patches: {} in {:.1} s, {busy} left out as their environment was busy",
        times.len(),
        begin.elapsed().as_secs_f64()
    );
    print_times("patch sent until written", &times);
    Ok(())
}

/// The limit: one HSET after another, of the same size.
async fn bare_round_trips(fleet: &Fleet) -> anyhow::Result<()> {
    let mut redis = fleet.redis.connection().await?;
    let body = "x".repeat(2048);
    let mut times = Vec::new();
    for number in 0..5_000 {
        let begin = started();
        let _: () = redis.hset("bare", format!("field-{}", number % 200), &body).await?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    print_times("a bare HSET, for comparison", &times);
    Ok(())
}
