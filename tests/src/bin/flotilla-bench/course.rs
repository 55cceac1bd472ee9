//! Everything that happens to one contender with many environments, in this order: it starts, rests, is sent patches, loses
//! all streams, loses Redis's data, is given one more environment, and is killed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use flotilla_tests::figures::redis::{Written, time_patches};
use flotilla_tests::figures::{at, started};
use flotilla_tests::harness::{redis_info, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, generated_flag, generated_flags};
use redis::aio::MultiplexedConnection;

use crate::Options;
use crate::contender::{BOUND, Contender, Running, key, name};
use crate::results::{Figure, Results};

/// With so many environments the way of changes is measured, and what happens when something is lost.
pub(crate) const WHOLE_COURSE: usize = 500;
/// Time in which nothing happens before memory is read, and for which CPU at rest is taken.
const REST: Duration = Duration::from_secs(10);
/// What is done in the background is over when less of a core than this is used,
const AT_REST: f64 = 0.03;
/// for so long;
const REST_WINDOW: Duration = Duration::from_secs(2);
/// or never mind, after so long.
const REST_BOUND: Duration = Duration::from_mins(1);
/// After so long without bytes to Redis a reconnect is over.
const CALM: Duration = Duration::from_secs(2);
/// What a connection that is only kept alive sends in a moment.
const NEXT_TO_NOTHING: u64 = 2_000;
/// After so long an empty Redis will not be refilled any more.
const REFILL_BOUND: Duration = Duration::from_mins(1);

/// One contender, its environments, and where the figures go.
struct Course<'a> {
    contender: Contender,
    environments: usize,
    options: &'a Options,
    running: Running,
    data: Arc<Dataset>,
    results: &'a mut Results,
}

/// Takes a contender through the course.
pub(crate) async fn run(
    contender: Contender,
    environments: usize,
    options: &Options,
    results: &mut Results,
) -> anyhow::Result<()> {
    let data = Arc::new(generated_flags(options.flags, options.flag_bytes, 1));
    let running = Running::prepare(contender, environments, &data, options).await?;
    let mut course = Course { contender, environments, options, running, data, results };
    course.start().await?;
    course.rest().await?;
    if environments == WHOLE_COURSE {
        course.patches().await?;
    }
    course.cut().await?;
    if environments == WHOLE_COURSE {
        course.refill().await?;
        course.add().await?;
        course.takeover().await?;
    }
    Ok(())
}

impl Course<'_> {
    fn note(&mut self, figure: Figure, value: f64) {
        self.results.add(self.contender, (figure, self.environments), value);
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        let begin = started();
        self.running.begin().await?;
        if !self.running.wait_until_filled(self.environments, self.options.flags, BOUND).await {
            bail!("{} did not fill Redis", self.contender);
        }
        self.note(Figure::ColdStart, begin.elapsed().as_secs_f64());
        // What it does afterwards to come to rest belongs to the start.
        self.calm().await?;
        let cpu = self.running.cpu()?;
        self.note(Figure::ColdStartCpu, cpu);
        Ok(())
    }

    /// Waits until it has nothing to do any more, also nothing that is put off.
    async fn settle(&mut self) -> anyhow::Result<()> {
        tokio::time::sleep(REST).await;
        let begin = started();
        while begin.elapsed() < REST_BOUND {
            let before = self.running.cpu()?;
            tokio::time::sleep(REST_WINDOW).await;
            if self.running.cpu()? - before < AT_REST * REST_WINDOW.as_secs_f64() {
                break;
            }
        }
        Ok(())
    }

    async fn rest(&mut self) -> anyhow::Result<()> {
        self.settle().await?;
        let (memory, before) = (self.running.memory()?, self.running.cpu()?);
        self.note(Figure::Memory, memory);
        tokio::time::sleep(REST).await;
        let used = self.running.cpu()? - before;
        self.note(Figure::IdleCpu, used / REST.as_secs_f64() * 100.0);
        Ok(())
    }

    async fn patches(&mut self) -> anyhow::Result<()> {
        let before = self.running.cpu()?;
        let times = self.send(10_000, Duration::from_millis(1)).await?;
        let cpu = self.running.cpu()? - before;
        self.note(Figure::PatchCpu, cpu);
        self.note(Figure::PatchP50, at(&times, 0.5));
        self.note(Figure::PatchP99, at(&times, 0.99));
        self.note(Figure::PatchMax, at(&times, 1.0));
        let times = self.send(10, Duration::from_secs(1)).await?;
        self.note(Figure::SlowPatchP50, at(&times, 0.5));
        self.note(Figure::SlowPatchMax, at(&times, 1.0));
        Ok(())
    }

    /// Sends patches at a steady pace. The times until Redis tells that the hash was written, in order.
    async fn send(&self, count: usize, pace: Duration) -> anyhow::Result<Vec<Duration>> {
        let number = |sent: usize| sent * 7 % self.environments;
        let prefix = |sent| name(number(sent));
        let patched =
            time_patches(self.running.redis(), (count, pace), BOUND, prefix, |sent| self.patch(number(sent)))
                .await?;
        Ok(patched.times)
    }

    fn patch(&self, number: usize) {
        let before = self.running.simulator().data(&key(number));
        let old = before.items(Kind::Flag).next().expect("there are flags");
        let version = old.version() + 1;
        let flag = generated_flag(0, version, self.options.flag_bytes, version);
        self.running.simulator().patch(&key(number), Kind::Flag, flag);
    }

    async fn cut(&mut self) -> anyhow::Result<()> {
        let mut redis = self.running.redis().connection().await?;
        let (before, cpu) = (Traffic::read(&mut redis).await?, self.running.cpu()?);
        let connections = self.running.simulator().total_counters().stream_connections;
        let begin = started();
        self.running.simulator().close_all_streams();
        let wanted = connections + self.environments as u64;
        let simulator = self.running.simulator().clone();
        wait_until("all streams are there again", BOUND, async || {
            let now = simulator.total_counters();
            let all = now.stream_connections >= wanted && now.streams_open >= self.environments as u64;
            if all { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await;
        let connected = begin.elapsed();
        let (calm, after) = self.calm().await?;
        self.note(Figure::CutCalm, connected.max(calm.duration_since(begin)).as_secs_f64());
        self.note(Figure::CutBytes, after.bytes.saturating_sub(before.bytes) as f64 / 1e6);
        self.note(Figure::CutCommands, after.commands.saturating_sub(before.commands) as f64);
        let cpu = self.running.cpu()? - cpu;
        self.note(Figure::CutCpu, cpu);
        self.settle().await?;
        let memory = self.running.memory()?;
        self.note(Figure::MemoryAfterCut, memory);
        Ok(())
    }

    /// Waits until next to nothing is sent to Redis: since when, and what had been sent by then, but for the questions.
    async fn calm(&mut self) -> anyhow::Result<(std::time::Instant, Traffic)> {
        let mut redis = self.running.redis().connection().await?;
        let mut last = Traffic::read(&mut redis).await?;
        let own = Traffic::read(&mut redis).await?.since(&last);
        let (mut since, mut asked, mut total) = (started(), 2, last);
        while since.elapsed() < CALM {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let now = Traffic::read(&mut redis).await?;
            asked += 1;
            if now.since(&last).bytes > own.bytes + NEXT_TO_NOTHING {
                since = started();
            }
            total = Traffic { bytes: now.bytes - asked * own.bytes, commands: now.commands - asked * own.commands };
            last = now;
        }
        Ok((since, total))
    }

    async fn refill(&mut self) -> anyhow::Result<()> {
        self.running.redis_mut().stop();
        self.running.redis_mut().start_again().await?;
        let begin = started();
        let row = (Figure::Refill, self.environments);
        if self.running.wait_until_filled(self.environments, self.options.flags, REFILL_BOUND).await {
            self.note(Figure::Refill, begin.elapsed().as_secs_f64());
        } else {
            self.results.add_never(self.contender, row);
        }
        Ok(())
    }

    async fn add(&mut self) -> anyhow::Result<()> {
        let number = self.environments;
        self.running.simulator().add_environment(&key(number), None, Arc::clone(&self.data));
        let mut redis = self.running.redis().connection().await?;
        let begin = started();
        self.running.add(number).await?;
        let marker = format!("{}:$inited", name(number));
        wait_until("the new one is there", BOUND, async || {
            let there: bool =
                redis::cmd("EXISTS").arg(&marker).query_async(&mut redis).await.map_err(|e| e.to_string())?;
            if there { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        self.note(Figure::Add, begin.elapsed().as_secs_f64());
        Ok(())
    }

    async fn takeover(&mut self) -> anyhow::Result<()> {
        // After a restart it is busy for a while.
        self.calm().await?;
        self.running.stand_by().await?;
        self.calm().await?;
        let number = self.environments - 1;
        let mut written = Written::subscribe(self.running.redis()).await?;
        let wanted = generated_flag(0, 1_000_000, self.options.flag_bytes, 7);
        // Not every contender writes the bytes that it was sent.
        let version = format!("\"version\":{}", wanted.version());
        let mut redis = self.running.redis().connection().await?;
        let begin = started();
        self.running.kill_writer(number).await?;
        self.running.simulator().patch(&key(number), Kind::Flag, wanted.clone());
        let hash = format!("{}:features", name(number));
        loop {
            // Whoever starts anew may write all environments: each is told of as often as it has flags.
            if tokio::time::timeout(BOUND, written.next()).await.context("nobody took over")?? != name(number) {
                continue;
            }
            let found: Option<String> =
                redis::cmd("HGET").arg(&hash).arg(wanted.key()).query_async(&mut redis).await?;
            if found.is_some_and(|json| json.contains(&version)) {
                break;
            }
        }
        self.note(Figure::Takeover, begin.elapsed().as_secs_f64());
        Ok(())
    }
}

/// What Redis was sent.
#[derive(Debug, Clone, Copy)]
struct Traffic {
    bytes: u64,
    commands: u64,
}

impl Traffic {
    async fn read(redis: &mut MultiplexedConnection) -> anyhow::Result<Self> {
        let stats = redis_info(redis, "stats").await?;
        Ok(Self {
            bytes: stats["total_net_input_bytes"].parse()?,
            commands: stats["total_commands_processed"].parse()?,
        })
    }

    fn since(&self, before: &Self) -> Self {
        Self { bytes: self.bytes - before.bytes, commands: self.commands - before.commands }
    }
}
