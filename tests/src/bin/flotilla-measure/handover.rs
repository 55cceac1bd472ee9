//! A worker is drained while patches keep coming: how long each takes until it is in Redis, compared with before.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use flotilla_tests::harness::Fleet;
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use futures_util::StreamExt as _;
use tokio::task::JoinSet;

use flotilla_tests::figures::{print_times, started};

/// How much.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Environments, half of which move
    #[arg(long, default_value_t = 100)]
    environments: usize,
    /// Patches sent in a second, over all environments in turn
    #[arg(long, default_value_t = 500)]
    patches_per_second: u64,
}

const FLAGS: usize = 50;
const FLAG_BYTES: usize = 1000;
/// For how long patches are sent before and after the drain.
const CALM: Duration = Duration::from_secs(5);

/// Measures, and prints what was found.
pub(crate) async fn run(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let fleet = Fleet::builder().workers(2).binaries(binaries).start().await?;
    for number in 0..options.environments {
        fleet.simulator.add_environment(&key(number), None, generated_flags(FLAGS, FLAG_BYTES, number as u64));
        fleet.add_environment(&name(number), &name(number), &key(number), &["--wait"]).await?.expect_success();
    }
    let mut patches = Patches::start(&fleet, options).await?;
    let end = started() + CALM;
    print_times("patch sent until written, at rest        ", &patches.until(&fleet, end, None).await?);
    let mut drain = JoinSet::new();
    let mut command = tokio::process::Command::from(fleet.cli_command(&["worker", "drain", "w1", "--wait"])?);
    let begin = started();
    drain.spawn(async move {
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status().await
    });
    let during = patches.until(&fleet, begin + CALM * 12, Some(&mut drain)).await?;
    println!("{} environments handed over in {:.2} s", options.environments / 2, begin.elapsed().as_secs_f64());
    print_times("patch sent until written, during the drain", &during);
    Ok(())
}

fn name(number: usize) -> String {
    format!("env-{number:03}")
}

fn key(number: usize) -> String {
    format!("sdk-{number:08x}-0000-4000-8000-000000000000")
}

/// Sends patches and hears when their hash was written.
struct Patches {
    environments: usize,
    pace: tokio::time::Interval,
    written: redis::aio::PubSubStream,
    waiting: HashMap<String, Instant>,
    sent: u64,
}

impl Patches {
    async fn start(fleet: &Fleet, options: &Options) -> anyhow::Result<Self> {
        let mut redis = fleet.redis.connection().await?;
        redis::cmd("CONFIG").arg("SET").arg("notify-keyspace-events").arg("Kh").exec_async(&mut redis).await?;
        let (mut sink, written) = redis::Client::open(fleet.redis.url())?.get_async_pubsub().await?.split();
        sink.psubscribe("__keyspace@0__:*:features").await?;
        Ok(Self {
            environments: options.environments,
            pace: tokio::time::interval(Duration::from_micros(1_000_000 / options.patches_per_second)),
            written,
            waiting: HashMap::new(),
            sent: 0,
        })
    }

    /// Goes on until then, or until the drain has ended. Returns the times, in order.
    async fn until(
        &mut self,
        fleet: &Fleet,
        end: Instant,
        mut drain: Option<&mut JoinSet<std::io::Result<std::process::ExitStatus>>>,
    ) -> anyhow::Result<Vec<Duration>> {
        let mut times = Vec::new();
        loop {
            let over = started() >= end || drain.as_ref().is_some_and(|drain| drain.is_empty());
            if over && self.waiting.is_empty() {
                times.sort_unstable();
                return Ok(times);
            }
            tokio::select! {
                _ = self.pace.tick(), if !over => self.send(fleet),
                message = self.written.next() => {
                    let message = message.context("the subscription ended")?;
                    let channel = message.get_channel_name();
                    let name = channel.trim_start_matches("__keyspace@0__:").trim_end_matches(":features");
                    times.extend(self.waiting.remove(name).map(|since| since.elapsed()));
                }
                Some(ended) = async { match &mut drain { Some(drain) => drain.join_next().await, None => std::future::pending().await } } => {
                    anyhow::ensure!(ended??.success(), "the drain failed");
                }
                () = tokio::time::sleep(Duration::from_secs(20)) => anyhow::bail!("{} patches never arrived", self.waiting.len()),
            }
        }
    }

    fn send(&mut self, fleet: &Fleet) {
        let number = (self.sent as usize * 7) % self.environments;
        let version = 10 + self.sent;
        self.sent += 1;
        // Two of one environment could not be told apart.
        if !self.waiting.contains_key(&name(number)) {
            let flag = (self.sent as usize * 13) % FLAGS;
            self.waiting.insert(name(number), started());
            fleet.simulator.patch(&key(number), Kind::Flag, generated_flag(flag, version, FLAG_BYTES, version));
        }
    }
}
