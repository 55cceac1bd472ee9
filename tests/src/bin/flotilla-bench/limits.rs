//! What no contender can beat: a client that only writes, and knows beforehand what.

use std::time::Duration;

use flotilla_tests::figures::redis::bare_round_trips;
use flotilla_tests::figures::{at, started};
use flotilla_tests::harness::RedisServer;
use flotilla_tests::simulator::{Dataset, Kind, generated_flags};
use redis::aio::MultiplexedConnection;

use crate::Options;
use crate::contender::{bytes, name};
use crate::course::WHOLE_COURSE;
use crate::results::{Figure, Results};

/// Environments whose commands are sent in one piece.
const PIPELINED: usize = 4;

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
            let times = bare_round_trips(&mut connection, options.flag_bytes).await?;
            results.add_limit((Figure::PatchP50, environments), at(&times, 0.5));
            results.add_limit((Figure::PatchP99, environments), at(&times, 0.99));
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
