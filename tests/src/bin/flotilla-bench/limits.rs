//! What no contender can beat: a client that only writes, and knows beforehand what.

use std::time::Duration;

use flotilla_tests::figures::started;
use flotilla_tests::harness::RedisServer;
use flotilla_tests::simulator::{Dataset, Kind, generated_flags};
use redis::aio::MultiplexedConnection;

use crate::Options;
use crate::contender::{bytes, name};
use crate::course::WHOLE_COURSE;
use crate::results::{Figure, Results};

/// Environments whose commands are sent in one piece.
const PIPELINED: usize = 4;
/// HSETs, one after another.
const ROUND_TRIPS: usize = 5_000;

/// Measures the limits.
pub(crate) async fn measure(options: &Options, results: &mut Results) -> anyhow::Result<()> {
    let data = generated_flags(options.flags, options.flag_bytes, 1);
    for environments in options.environments.iter().copied() {
        let megabytes = (bytes(&data) * environments) as f64 / 1e6;
        results.add_limit((Figure::Memory, environments), megabytes);
        results.add_limit((Figure::MemoryAfterCut, environments), megabytes);
        let redis = RedisServer::start().await?;
        let mut connection = redis.connection().await?;
        let took = fill(&mut connection, environments, &data).await?.as_secs_f64();
        results.add_limit((Figure::ColdStart, environments), took);
        if environments == WHOLE_COURSE {
            results.add_limit((Figure::Refill, environments), took);
            let [p50, p99] = round_trips(&mut connection, options).await?;
            results.add_limit((Figure::PatchP50, environments), p50);
            results.add_limit((Figure::PatchP99, environments), p99);
        }
    }
    Ok(())
}

async fn fill(redis: &mut MultiplexedConnection, environments: usize, data: &Dataset) -> anyhow::Result<Duration> {
    let begin = started();
    let numbers: Vec<usize> = (0..environments).collect();
    for some in numbers.chunks(PIPELINED) {
        let mut pipe = redis::pipe();
        for number in some {
            for (kind, hash) in [(Kind::Flag, "features"), (Kind::Segment, "segments")] {
                let items: Vec<_> = data.items(kind).map(|item| (item.key(), item.json())).collect();
                if !items.is_empty() {
                    pipe.hset_multiple(format!("{}:{hash}", name(*number)), &items).ignore();
                }
            }
            pipe.set(format!("{}:$inited", name(*number)), "").ignore();
        }
        pipe.exec_async(redis).await?;
    }
    Ok(begin.elapsed())
}

/// The median and the 99th of a hundred, in milliseconds.
async fn round_trips(redis: &mut MultiplexedConnection, options: &Options) -> anyhow::Result<[f64; 2]> {
    let body = "x".repeat(options.flag_bytes);
    let mut times = Vec::new();
    for number in 0..ROUND_TRIPS {
        let begin = started();
        let mut set = redis::cmd("HSET");
        set.arg("bare").arg(number % 200).arg(&body).exec_async(redis).await?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok([0.5, 0.99].map(|part| times[(ROUND_TRIPS as f64 * part) as usize].as_secs_f64() * 1e3))
}
