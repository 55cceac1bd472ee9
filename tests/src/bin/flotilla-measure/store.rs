//! What Redis has to bear: stalls while a large environment is loaded and changed, bytes for what happens every day, the
//! time to refill it, and what watching it costs.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use flotilla_tests::figures::redis::Probe;
use flotilla_tests::figures::{cpu, started};
use flotilla_tests::harness::{Fleet, redis_info, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, generated_flag, generated_flags};
use redis::aio::MultiplexedConnection;

/// How much.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Flags of the large environment, of 4 KB each
    #[arg(long, default_value_t = 5_000)]
    flags: usize,
    /// Small environments for the refill and the watch
    #[arg(long, default_value_t = 200)]
    environments: usize,
    /// Flags of each small environment
    #[arg(long, default_value_t = 50)]
    small_flags: usize,
    /// Bytes of each of those flags
    #[arg(long, default_value_t = 1_000)]
    small_bytes: usize,
    /// The store does not tell who else changes its keys
    #[arg(long)]
    untracked: bool,
    /// For how long the cost of watching is taken
    #[arg(long, default_value = "130s", value_parser = humantime::parse_duration)]
    watch: Duration,
}

const BOUND: Duration = Duration::from_mins(2);
const LARGE_FLAG: usize = 4_000;
const LARGE_KEY: &str = "sdk-ffffffff-0000-4000-8000-000000000000";

/// Measures, and prints what was found.
pub(crate) async fn run(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let mut fleet = Fleet::builder().binaries(binaries).start().await?;
    let mut redis = fleet.redis.connection().await?;
    // What both do with no environment at all.
    let idle = used(&mut fleet, Duration::from_secs(20)).await?;
    for words in [["slowlog-log-slower-than", "1000"], ["slowlog-max-len", "1024"]] {
        redis::cmd("CONFIG").arg("SET").arg(&words).exec_async(&mut redis).await?;
    }
    if options.untracked {
        let rule = ["SETUSER", "default", "-client|tracking"];
        redis::cmd("ACL").arg(&rule).exec_async(&mut redis).await?;
        fleet.restart_worker(0).await?;
    }
    large(&fleet, &mut redis, options).await?;
    daily(&fleet, &mut redis, options).await?;
    refill(&fleet, &mut redis, options).await?;
    watch(&mut fleet, idle, options).await
}

/// Loads a large environment, replaces it, and changes a hundredth of it.
async fn large(fleet: &Fleet, redis: &mut MultiplexedConnection, options: &Options) -> anyhow::Result<()> {
    let first = generated_flags(options.flags, LARGE_FLAG, 1);
    let all_new = with(&first, 0..options.flags, 2);
    let one_percent = with(&all_new, 0..options.flags / 100, 3);
    fleet.simulator.add_environment(LARGE_KEY, None, first.clone());
    let probe = Probe::start(&fleet.redis)?;
    let begin = started();
    fleet.add_environment("large", "large", LARGE_KEY, &[]).await?.expect_success();
    stored(redis, "large", &first).await;
    told(redis, &probe, "first load of 20 MB", begin).await?;
    for (what, data) in [("all of it replaced", all_new), ("1 % of it changed", one_percent)] {
        probe.take_longest();
        let begin = started();
        fleet.simulator.set_data(LARGE_KEY, data.clone());
        fleet.simulator.put(LARGE_KEY);
        stored(redis, "large", &data).await;
        told(redis, &probe, what, begin).await?;
    }
    fleet.cli(&["env", "remove", "large", "--purge", "--yes"]).await?.expect_success();
    Ok(())
}

fn with(data: &Dataset, flags: std::ops::Range<usize>, version: u64) -> Dataset {
    let mut data = data.clone();
    for number in flags {
        data.insert(Kind::Flag, generated_flag(number, version, LARGE_FLAG, version));
    }
    data
}

/// Bytes that Redis is sent for a load, an unchanged reconnect, and a patch.
async fn daily(fleet: &Fleet, redis: &mut MultiplexedConnection, options: &Options) -> anyhow::Result<()> {
    let data = generated_flags(options.small_flags, options.small_bytes, 9);
    let bytes: usize =
        [Kind::Flag, Kind::Segment].iter().flat_map(|kind| data.items(*kind)).map(|item| item.json().len()).sum();
    fleet.simulator.add_environment(&key(9_999), None, data.clone());
    let before = input(redis).await?;
    fleet.add_environment("daily", "daily", &key(9_999), &["--wait"]).await?.expect_success();
    println!("first load of {bytes} bytes: {} bytes to Redis", input(redis).await? - before);
    let (before, connections) = (input(redis).await?, fleet.simulator.counters(&key(9_999)).stream_connections);
    fleet.simulator.close_streams(&key(9_999));
    wait_until("it connects anew", BOUND, async || {
        let now = fleet.simulator.counters(&key(9_999)).stream_connections;
        if now > connections { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    fleet.wait_for_initialization("daily", "current", BOUND).await;
    let (after, own) = (input(redis).await?, own_input(redis).await?);
    println!("unchanged reconnect: {} bytes to Redis", (after - before).saturating_sub(own));
    let patch = generated_flag(3, 2, options.small_bytes, 2);
    let size = patch.json().len();
    let mut expected = data;
    expected.insert(Kind::Flag, patch.clone());
    let (before, writes) = (input(redis).await?, writes(fleet).await?);
    fleet.simulator.patch(&key(9_999), Kind::Flag, patch);
    wait_until("it is written", BOUND, async || {
        let now = self::writes(fleet).await.map_err(|error| error.to_string())?;
        if now > writes { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    let (after, own) = (input(redis).await?, own_input(redis).await?);
    println!("a patch of {size} bytes: {} bytes to Redis", (after - before).saturating_sub(own));
    stored(redis, "daily", &expected).await;
    fleet.cli(&["env", "remove", "daily", "--purge", "--yes"]).await?.expect_success();
    Ok(())
}

async fn refill(fleet: &Fleet, redis: &mut MultiplexedConnection, options: &Options) -> anyhow::Result<()> {
    let data = generated_flags(options.small_flags, options.small_bytes, 3);
    for number in 0..options.environments {
        fleet.simulator.add_environment(&key(number), None, data.clone());
        fleet.add_environment(&name(number), &name(number), &key(number), &[]).await?.expect_success();
    }
    filled(redis, options.environments, &data).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    redis::cmd("FLUSHALL").exec_async(redis).await?;
    let begin = started();
    filled(redis, options.environments, &data).await;
    println!(
        "{} environments refilled {:.3} s after FLUSHALL",
        options.environments,
        begin.elapsed().as_secs_f64()
    );
    Ok(())
}

/// What looks and comparisons cost while nothing happens, beyond what is used without environments.
async fn watch(fleet: &mut Fleet, idle: [f64; 2], options: &Options) -> anyhow::Result<()> {
    tokio::time::sleep(Duration::from_secs(5)).await;
    let used = used(fleet, options.watch).await?;
    for (who, (used, idle)) in ["worker", "Redis"].into_iter().zip(used.into_iter().zip(idle)) {
        println!(
            "at rest, {} environments: {who} {:.2} % of a core ({:.2} % without any), {:.1} µs per environment and second",
            options.environments,
            used * 100.0,
            idle * 100.0,
            (used - idle) * 1e6 / options.environments as f64
        );
    }
    Ok(())
}

/// The parts of a core that the worker and Redis use, on average over so long.
async fn used(fleet: &mut Fleet, during: Duration) -> anyhow::Result<[f64; 2]> {
    let processes = [fleet.worker(0).pid(), fleet.redis.process().pid()];
    let before = [cpu(processes[0])?, cpu(processes[1])?];
    tokio::time::sleep(during).await;
    let after = [cpu(processes[0])?, cpu(processes[1])?];
    Ok([0, 1].map(|which| (after[which] - before[which]) / during.as_secs_f64()))
}

fn name(number: usize) -> String {
    format!("env-{number:03}")
}

fn key(number: usize) -> String {
    format!("sdk-{number:08x}-0000-4000-8000-000000000000")
}

async fn input(redis: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    Ok(redis_info(redis, "stats").await?["total_net_input_bytes"].parse()?)
}

/// Writes of single items that the worker has had acknowledged.
async fn writes(fleet: &Fleet) -> anyhow::Result<u64> {
    let metrics = fleet.worker_get(0, "/metrics").await?.body;
    let name = "flotilla_store_writes_total{op=\"write\",result=\"ok\"} ";
    let count = metrics.lines().find_map(|line| line.strip_prefix(name)).context("no such metric")?;
    Ok(count.parse()?)
}

/// What one such question sends itself.
async fn own_input(redis: &mut MultiplexedConnection) -> anyhow::Result<u64> {
    let before = input(redis).await?;
    Ok(input(redis).await? - before)
}

/// Waits until the last flag of the data stands there, in its version.
async fn stored(redis: &MultiplexedConnection, prefix: &str, data: &Dataset) {
    let mut redis = redis.clone();
    let hash = format!("{prefix}:features");
    let [first, last] =
        [data.items(Kind::Flag).next(), data.items(Kind::Flag).last()].map(|item| item.expect("a flag"));
    wait_until("it is stored", BOUND, async || {
        let mut pipe = redis::pipe();
        pipe.hlen(&hash).hget(&hash, first.key()).hget(&hash, last.key());
        let found: (usize, Option<String>, Option<String>) =
            pipe.query_async(&mut redis).await.map_err(|error| error.to_string())?;
        let wanted = (data.len(Kind::Flag), Some(first.json().to_owned()), Some(last.json().to_owned()));
        if found == wanted { Ok(()) } else { Err(format!("{} flags", found.0)) }
    })
    .await;
}

async fn filled(redis: &MultiplexedConnection, environments: usize, data: &Dataset) {
    let mut redis = redis.clone();
    wait_until("all are filled", BOUND, async || {
        let mut pipe = redis::pipe();
        for number in 0..environments {
            pipe.hlen(format!("{}:features", name(number)));
        }
        let counts: Vec<usize> = pipe.query_async(&mut redis).await.map_err(|error| error.to_string())?;
        let there = counts.iter().filter(|count| **count == data.len(Kind::Flag)).count();
        if there == environments { Ok(()) } else { Err(there.to_string()) }
    })
    .await;
}

/// Prints the longest command and the longest answer since the last time.
async fn told(redis: &mut MultiplexedConnection, probe: &Probe, what: &str, begin: Instant) -> anyhow::Result<()> {
    let took = begin.elapsed();
    let slow: Vec<redis::Value> = redis::cmd("SLOWLOG").arg("GET").arg(1024).query_async(redis).await?;
    let mut worst = (0, String::new());
    for entry in slow {
        let redis::Value::Array(fields) = entry else { continue };
        let micros: u64 = redis::from_redis_value(fields[2].clone())?;
        let words: Vec<String> = redis::from_redis_value(fields[3].clone()).unwrap_or_default();
        // What this program asks itself does not count.
        let own = words.first().is_some_and(|word| ["SLOWLOG", "CONFIG"].contains(&word.as_str()));
        if micros > worst.0 && !own {
            worst = (micros, words.into_iter().take(2).collect::<Vec<_>>().join(" "));
        }
    }
    redis::cmd("SLOWLOG").arg("RESET").exec_async(redis).await?;
    let longest = probe.take_longest();
    println!(
        "{what}: {:.2} s; longest command {} ms ({}), longest answer to a ping {:.2} ms",
        took.as_secs_f64(),
        if worst.0 == 0 { "below 1".to_owned() } else { format!("{:.2}", worst.0 as f64 / 1e3) },
        worst.1,
        longest.as_secs_f64() * 1e3
    );
    Ok(())
}
