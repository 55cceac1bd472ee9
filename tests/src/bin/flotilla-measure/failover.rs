//! A worker is killed: how long until the new owners have put their fences.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use flotilla_tests::harness::{Fleet, wait_until};
use flotilla_tests::simulator::generated_flags;
use flotilla_worker::fence::Fence;
use redis::aio::MultiplexedConnection;

use flotilla_tests::figures::{print_times, started};

/// How often, and with how much.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often a worker is killed
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Environments of two workers, of which one is killed
    #[arg(long, default_value_t = 50)]
    environments: usize,
}

const BOUND: Duration = Duration::from_mins(2);
/// In which what is handed over comes to an end.
const CALM: Duration = Duration::from_secs(2);

/// Measures, and prints what was found.
pub(crate) async fn run(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let mut fleet = Fleet::builder().workers(2).binaries(binaries).start().await?;
    for number in 0..options.environments {
        fleet.simulator.add_environment(&key(number), None, generated_flags(50, 1000, number as u64));
        fleet.add_environment(&name(number), &name(number), &key(number), &[]).await?.expect_success();
    }
    let mut redis = fleet.redis.connection().await?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for run in 0..options.runs {
        connected(&fleet, 2).await;
        all_current(&fleet, options.environments).await;
        tokio::time::sleep(CALM).await;
        let (victim, environments) = fullest(&fleet).await?;
        let before = epochs(&mut redis, &environments).await?;
        fleet.worker(victim).kill9();
        let taken = takeovers(&mut redis, &before, started()).await?;
        println!(
            "run {run:>2}: {} environments, first after {:.1?}, last after {:.1?}",
            before.len(),
            taken.0,
            taken.1
        );
        first.push(taken.0);
        last.push(taken.1);
        fleet.restart_worker(victim).await?;
    }
    first.sort_unstable();
    last.sort_unstable();
    print_times("kill -9 until the first fenced write of a new owner", &first);
    print_times("kill -9 until the last of all environments has one ", &last);
    Ok(())
}

fn name(number: usize) -> String {
    format!("env-{number:03}")
}

fn key(number: usize) -> String {
    format!("sdk-{number:08x}-0000-4000-8000-000000000000")
}

/// The worker that has the most environments, and which these are.
async fn fullest(fleet: &Fleet) -> anyhow::Result<(usize, Vec<String>)> {
    let mut fullest = (0, Vec::new());
    for index in 0..fleet.worker_count() {
        let worker = fleet.cli(&["worker", "get", &Fleet::worker_name(index), "-o", "json"]).await?.json()?;
        let names = worker["environmentNames"].as_array().context("no names")?;
        if names.len() > fullest.1.len() {
            fullest = (index, names.iter().filter_map(|name| name.as_str().map(ToOwned::to_owned)).collect());
        }
    }
    Ok(fullest)
}

async fn connected(fleet: &Fleet, workers: u64) {
    wait_until("the workers are connected", BOUND, async || {
        let answer = fleet.control_get("/metrics").await.map_err(|error| error.to_string())?;
        let line = answer.body.lines().find(|line| line.starts_with("flotilla_workers{state=\"connected\"}"));
        if line.is_some_and(|line| line.ends_with(&format!(" {workers}"))) {
            Ok(())
        } else {
            Err(format!("{line:?}"))
        }
    })
    .await;
}

async fn all_current(fleet: &Fleet, environments: usize) {
    let wanted = format!("flotilla_environments{{state=\"current\"}} {environments}");
    wait_until("all are current", BOUND, async || {
        let answer = fleet.control_get("/metrics").await.map_err(|error| error.to_string())?;
        if answer.body.lines().any(|line| line == wanted) { Ok(()) } else { Err("not all".to_owned()) }
    })
    .await;
}

async fn epochs(redis: &mut MultiplexedConnection, names: &[String]) -> anyhow::Result<Vec<(String, u64)>> {
    let mut pipe = redis::pipe();
    for name in names {
        pipe.get(format!("{name}:$flotilla"));
    }
    let fences: Vec<String> = pipe.query_async(redis).await?;
    let epoch = |fence: &String| Fence::parse(fence).map(|fence| fence.epoch.0).context("an unreadable fence");
    names.iter().zip(&fences).map(|(name, fence)| Ok((name.clone(), epoch(fence)?))).collect()
}

/// How long after `since` the first, and the last, fence is a new owner's.
async fn takeovers(
    redis: &mut MultiplexedConnection,
    before: &[(String, u64)],
    since: Instant,
) -> anyhow::Result<(Duration, Duration)> {
    let names: Vec<_> = before.iter().map(|(name, _)| name.clone()).collect();
    let mut first = None;
    loop {
        let now = epochs(redis, &names).await?;
        let changed = before.iter().zip(&now).filter(|((_, before), (_, now))| now > before).count();
        if changed > 0 {
            first.get_or_insert_with(|| since.elapsed());
        }
        if let Some(first) = first.filter(|_| changed == before.len()) {
            return Ok((first, since.elapsed()));
        }
        anyhow::ensure!(since.elapsed() < BOUND, "{changed} of {} were taken over", before.len());
    }
}
