//! Measures what is shipped. Every measure starts its own Redis, simulator, control and workers. Figures are of the machine
//! it runs on; take ratios. What a relay can be measured beside is `flotilla-bench`'s.

#![expect(clippy::print_stdout, reason = "the figures are its output")]
#![expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "the figures are small")]

// Workers that only speak to control.
mod sessions;
// A worker is killed.
mod failover;
// A worker is drained.
mod handover;
// Control with a large fleet.
mod fleet;
// What Redis has to bear.
mod store;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measures what is shipped; `flotilla-bench` has what a relay can be measured beside
#[derive(Debug, Parser)]
struct Options {
    /// Where flotilla, flotilla-control and flotilla-worker are; a release build is meant
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// What is measured
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Debug, Subcommand)]
enum Measure {
    /// From kill -9 of a worker to the first fenced write of the new owners
    Failover(failover::Options),
    /// A drain while patches keep coming: how long the longest took to be written
    Handover(handover::Options),
    /// Control with many environments and sessions: time to assign, CPU, memory, moves on join and leave
    Fleet(fleet::Options),
    /// Redis while a large environment is loaded and changed, bytes per event, refill after FLUSHALL, cost of watching
    Store(store::Options),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Options { binaries, measure } = Options::parse();
    match measure {
        Measure::Failover(options) => failover::run(&binaries, &options).await,
        Measure::Handover(options) => handover::run(&binaries, &options).await,
        Measure::Fleet(options) => fleet::run(&binaries, &options).await,
        Measure::Store(options) => store::run(&binaries, &options).await,
    }
}
