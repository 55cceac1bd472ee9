//! Measures Flotilla beside LaunchDarkly's relay: the same simulated LaunchDarkly, Redis and data, on the same machine, by
//! turns. Prints a table, and writes it with plots for `docs/`.

#![expect(clippy::print_stdout, reason = "the figures are its output")]
#![expect(clippy::print_stderr, reason = "it takes long, and tells how far it is")]
#![expect(clippy::cast_precision_loss, reason = "the figures are small")]

// What is measured, and what was found.
mod results;
// The processes of one contender, with a Redis and a LaunchDarkly of their own.
mod contender;
// A relay, started with a file of environments.
mod relay;
// A fleet, whose control holds the environments.
mod flotilla;
// Everything that happens to one contender with many environments.
mod course;
// One environment of 20 MB.
mod large;
// What no contender can beat: a client that only writes.
mod limits;
// The words, the table and the plots.
mod report;
// Plots as SVG.
mod plot;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};
use clap::Parser;

use crate::contender::Contender;
use crate::results::Results;

/// Measures Flotilla beside LaunchDarkly's relay
#[derive(Debug, Parser)]
pub(crate) struct Options {
    /// Where flotilla-control and flotilla-worker are; a release build is meant
    #[arg(long, default_value = "target/release")]
    binaries: PathBuf,
    /// The relay's binary; without this option `ld-relay` in PATH, and without that the relay's columns stay empty
    #[arg(long)]
    relay: Option<PathBuf>,
    /// How often each is measured, by turns
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of environments; with 500 the way of changes is measured too, and what happens when something is lost
    #[arg(long, value_delimiter = ',', default_value = "1,100,500,1000")]
    environments: Vec<usize>,
    /// Flags in each environment
    #[arg(long, default_value_t = 200)]
    flags: usize,
    /// Bytes of each flag's JSON
    #[arg(long, default_value_t = 2048)]
    flag_bytes: usize,
    /// Where the table and the plots are written
    #[arg(long, default_value = "docs")]
    output: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut options = Options::parse();
    options.relay = find_relay(options.relay.take())?;
    let mut contenders = vec![Contender::Flotilla];
    if options.relay.is_some() {
        contenders.push(Contender::Relay);
    } else {
        eprintln!(
            "no relay: its columns stay empty (--relay PATH, RELAY=PATH with make, or ld-relay in PATH; docs/benchmarking.md)"
        );
    }
    let mut results = Results::default();
    limits::measure(&options, &mut results).await?;
    for round in 1..=options.rounds {
        for contender in &contenders {
            for environments in options.environments.clone() {
                eprintln!("round {round} of {}: {contender}, {environments} environments", options.rounds);
                course::run(*contender, environments, &options, &mut results).await?;
                // What is there is kept, whatever comes.
                report::write(&options, &results)?;
            }
            eprintln!("round {round} of {}: {contender}, one environment of 20 MB", options.rounds);
            large::run(*contender, &options, &mut results).await?;
        }
    }
    report::write(&options, &results)?;
    print!("{}", report::table(&results));
    Ok(())
}

/// The relay to measure, if there is one.
fn find_relay(given: Option<PathBuf>) -> anyhow::Result<Option<PathBuf>> {
    if let Some(path) = given.filter(|path| !path.as_os_str().is_empty()) {
        if !path.is_file() {
            bail!("{} is not there", path.display());
        }
        return Ok(Some(std::path::absolute(path)?));
    }
    let search = std::env::var_os("PATH").unwrap_or_default();
    Ok(std::env::split_paths(&search).map(|directory| directory.join("ld-relay")).find(|path| path.is_file()))
}

/// What a program says of its version.
pub(crate) fn version(program: &Path) -> anyhow::Result<String> {
    let output = Command::new(program).arg("--version").output().with_context(|| program.display().to_string())?;
    // It may say when it was asked, too.
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().next_back().unwrap_or("unknown").to_owned())
}
