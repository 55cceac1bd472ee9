//! The LaunchDarkly simulator as a program, for benchmarks and for trying things by hand.

use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use flotilla_tests::simulator::{Dataset, Kind, Simulator, generated_flag, generated_flags};
use rustix::process::{Resource, getrlimit, setrlimit};

/// Serves made-up flags as LaunchDarkly would, and obeys `/_sim/…`.
///
/// The first line on stdout is the base URI, then comes one line for each environment: its SDK key and its id.
#[derive(Debug, Parser)]
struct Options {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many environments there are
    #[arg(long, default_value_t = 1)]
    environments: usize,
    /// Flags of each environment
    #[arg(long, default_value_t = 200)]
    flags: usize,
    /// Size of each flag in bytes
    #[arg(long, default_value_t = 2048)]
    flag_bytes: usize,
    /// Patches sent each second, over all environments in turn
    #[arg(long, default_value_t = 0)]
    patches_per_second: u32,
    /// The same seed gives the same data
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Give each environment data of its own, instead of sharing them (needs the memory)
    #[arg(long)]
    distinct: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    raise_file_limit().context("cannot raise the limit of open files")?;
    let simulator = Simulator::start_on(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let keys = add_environments(&simulator, &options);
    print_environments(&simulator, &keys)?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.context("cannot wait for the interrupt"),
        () = send_patches(&simulator, &keys, &options) => Ok(()),
    }
}

/// A stream is an open file, and the usual limit of 1,024 is below what benchmarks need.
fn raise_file_limit() -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

fn add_environments(simulator: &Simulator, options: &Options) -> Vec<String> {
    let shared = Arc::new(generated_flags(options.flags, options.flag_bytes, options.seed));
    let mut keys = Vec::with_capacity(options.environments);
    for (number, seed) in (0..options.environments).zip(options.seed..) {
        let key = format!("sdk-51000000-0000-4000-8000-{number:012}");
        let data = if options.distinct {
            Arc::<Dataset>::new(generated_flags(options.flags, options.flag_bytes, seed))
        } else {
            Arc::clone(&shared)
        };
        simulator.add_environment(&key, Some(&format!("5100000000000000{number:08x}")), data);
        keys.push(key);
    }
    keys
}

fn print_environments(simulator: &Simulator, keys: &[String]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", simulator.uri())?;
    for (number, key) in keys.iter().enumerate() {
        writeln!(stdout, "{key} 5100000000000000{number:08x}")?;
    }
    stdout.flush().context("cannot write to stdout")
}

/// Patches flag after flag of environment after environment; never ends.
async fn send_patches(simulator: &Simulator, keys: &[String], options: &Options) {
    const TICKS_PER_SECOND: u32 = 100;
    if options.patches_per_second == 0 || keys.is_empty() || options.flags == 0 {
        return std::future::pending().await;
    }
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / TICKS_PER_SECOND);
    let mut owed = 0;
    let mut sent = 0_usize;
    loop {
        ticks.tick().await;
        owed += options.patches_per_second;
        while owed >= TICKS_PER_SECOND {
            owed -= TICKS_PER_SECOND;
            let key = &keys[sent % keys.len()];
            let index = (sent / keys.len()) % options.flags;
            let round = u64::try_from(sent / keys.len() / options.flags).unwrap_or(0);
            let item = generated_flag(index, 2 + round, options.flag_bytes, options.seed);
            simulator.patch(key, Kind::Flag, item);
            sent += 1;
        }
    }
}
