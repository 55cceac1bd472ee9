//! One environment of 20 MB: its first load, and how long Redis is silent to others meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use flotilla_tests::figures::redis::Probe;
use flotilla_tests::figures::started;
use flotilla_tests::harness::wait_until;
use flotilla_tests::simulator::generated_flags;

use crate::Options;
use crate::contender::{BOUND, Contender, Running, key};
use crate::results::{Figure, Results};

/// Flags, and bytes of each.
const SIZE: (usize, usize) = (5_000, 4_000);
/// In which what was begun comes to an end.
const SETTLE: Duration = Duration::from_secs(10);

/// Measures one contender.
pub(crate) async fn run(contender: Contender, options: &Options, results: &mut Results) -> anyhow::Result<()> {
    let data = Arc::new(generated_flags(SIZE.0, SIZE.1, 1));
    let mut running = Running::prepare(contender, 1, &data, options).await?;
    let probe = Probe::start(running.redis())?;
    let begin = started();
    running.begin().await?;
    if !running.wait_until_filled(1, SIZE.0, BOUND).await {
        bail!("{contender} did not fill Redis");
    }
    let mut note = |figure, value| results.add(contender, (figure, 1), value);
    note(Figure::LargeLoad, begin.elapsed().as_secs_f64());
    tokio::time::sleep(SETTLE).await;
    note(Figure::LargeStall, probe.take_longest().as_secs_f64() * 1e3);
    note(Figure::LargeMemory, running.memory()?);
    let connections = running.simulator().counters(&key(0)).stream_connections;
    running.simulator().close_all_streams();
    wait_until("the stream is there again", BOUND, async || {
        let now = running.simulator().counters(&key(0)).stream_connections;
        if now > connections { Ok(()) } else { Err(now.to_string()) }
    })
    .await;
    tokio::time::sleep(SETTLE).await;
    note(Figure::LargeReconnectStall, probe.take_longest().as_secs_f64() * 1e3);
    Ok(())
}
