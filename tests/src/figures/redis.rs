//! What Redis tells of those who write to it, and how long it makes others wait.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use redis::aio::{MultiplexedConnection, PubSub};

use super::started;
use crate::harness::RedisServer;

/// Asks Redis for nothing all the time, until it is dropped, and notes the longest answer. It has a thread of its own, so
/// that it waits for Redis alone and not for what else this process does.
#[derive(Debug)]
pub struct Probe {
    longest_micros: Arc<AtomicU64>,
}

impl Probe {
    /// Begins, over a connection of its own.
    pub fn start(redis: &RedisServer) -> anyhow::Result<Self> {
        let mut connection = redis::Client::open(redis.url())?.get_connection()?;
        let longest_micros = Arc::new(AtomicU64::new(0));
        let noted = Arc::downgrade(&longest_micros);
        thread::spawn(move || {
            while let Some(noted) = noted.upgrade() {
                let begin = started();
                if redis::cmd("PING").exec(&mut connection).is_err() {
                    return;
                }
                noted.fetch_max(begin.elapsed().as_micros() as u64, Ordering::Relaxed);
                thread::sleep(Duration::from_micros(300));
            }
        });
        Ok(Self { longest_micros })
    }

    /// The longest since it was asked last.
    pub fn take_longest(&self) -> Duration {
        Duration::from_micros(self.longest_micros.swap(0, Ordering::Relaxed))
    }
}

/// Tells whose flags are written.
pub struct Written(PubSub);

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Written").finish_non_exhaustive()
    }
}

impl Written {
    /// Has the server tell.
    pub async fn subscribe(redis: &RedisServer) -> anyhow::Result<Self> {
        let mut connection = redis.connection().await?;
        let mut on = redis::cmd("CONFIG");
        on.arg("SET").arg("notify-keyspace-events").arg("Kh").exec_async(&mut connection).await?;
        let mut subscription = redis::Client::open(redis.url())?.get_async_pubsub().await?;
        subscription.psubscribe("__keyspace@0__:*:features").await?;
        Ok(Self(subscription))
    }

    /// The prefix that was written next.
    pub async fn next(&mut self) -> anyhow::Result<String> {
        let message = self.0.on_message().next().await.context("the subscription ended")?;
        let key = message.get_channel_name();
        Ok(key.trim_start_matches("__keyspace@0__:").trim_end_matches(":features").to_owned())
    }
}

/// What became of patches that were sent at a steady pace.
#[derive(Debug)]
pub struct Patched {
    /// From each being sent until Redis told that the hash was written; in order.
    pub times: Vec<Duration>,
    /// Not sent, for the last one of the prefix was not there yet: two could not be told apart.
    pub left_out: usize,
}

/// Sends patches number 0 to `count` by `send`, at a steady pace, each to the prefix that `prefix` names. Gives up when nothing
/// happens for `bound`.
pub async fn time_patches(
    redis: &RedisServer,
    (count, pace): (usize, Duration),
    bound: Duration,
    prefix: impl Fn(usize) -> String,
    mut send: impl FnMut(usize),
) -> anyhow::Result<Patched> {
    let mut written = Written::subscribe(redis).await?;
    let (mut waiting, mut times) = (HashMap::new(), Vec::new());
    let (mut next, mut left_out, mut pace) = (0, 0, tokio::time::interval(pace));
    while next < count || !waiting.is_empty() {
        tokio::select! {
            _ = pace.tick(), if next < count => {
                if let Entry::Vacant(place) = waiting.entry(prefix(next)) {
                    place.insert(started());
                    send(next);
                } else {
                    left_out += 1;
                }
                next += 1;
            }
            prefix = written.next() => {
                if let Some(since) = waiting.remove(&prefix?) {
                    times.push(since.elapsed());
                }
            }
            () = tokio::time::sleep(bound) => bail!("{} patches never arrived", waiting.len()),
        }
    }
    times.sort_unstable();
    Ok(Patched { times, left_out })
}

/// The limit: one HSET of so many bytes after another. Their times, in order.
pub async fn bare_round_trips(redis: &mut MultiplexedConnection, bytes: usize) -> anyhow::Result<Vec<Duration>> {
    let body = "x".repeat(bytes);
    let mut times = Vec::new();
    for number in 0..5_000 {
        let begin = started();
        redis::cmd("HSET").arg("bare").arg(number % 200).arg(&body).exec_async(redis).await?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}
