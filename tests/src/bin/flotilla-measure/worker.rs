//! One worker with many environments: cold start, memory, CPU, reconnect, and the way of a patch into Redis.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::{CreateEnvironmentRequest, EnvironmentSpec};
use flotilla_tests::figures::redis::{bare_round_trips, time_patches};
use flotilla_tests::figures::{cpu, memory, print_times, started};
use flotilla_tests::harness::{Fleet, redis_info, wait_until};
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use redis::AsyncCommands as _;
use tonic::transport::Endpoint;

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
/// A patch that takes longer has got lost.
const PATCH_BOUND: Duration = Duration::from_secs(20);
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
    print_times("a bare HSET, for comparison", &bare_round_trips(&mut redis, 2048).await?);
    Ok(())
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
    Ok(redis_info(redis, "stats").await?["total_net_input_bytes"].parse()?)
}

/// Sends patches at a steady rate and takes the time until Redis tells that the hash was written.
async fn patches(fleet: &Fleet, options: &Options) -> anyhow::Result<()> {
    let pace = (options.patches as usize, Duration::from_micros(1_000_000 / options.patches_per_second));
    let number = |sent: usize| (sent * 7) % options.environments;
    let begin = started();
    let send = |sent: usize| {
        let version = 10 + sent as u64;
        let item = generated_flag((sent * 13) % options.flags, version, options.flag_bytes, version);
        fleet.simulator.patch(&key(number(sent)), Kind::Flag, item);
    };
    let patched = time_patches(&fleet.redis, pace, PATCH_BOUND, |sent| prefix(number(sent)), send).await?;
    println!(
        "patches: {} in {:.1} s, {} left out as their environment was busy",
        patched.times.len(),
        begin.elapsed().as_secs_f64(),
        patched.left_out
    );
    print_times("patch sent until written", &patched.times);
    Ok(())
}
