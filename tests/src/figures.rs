//! Clocks, memory, CPU, and how figures are printed.

#![expect(clippy::print_stdout, reason = "the figures are the output of whoever prints them")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "the figures are small"
)]

/// Redis: who writes, and how long others wait.
pub mod redis;

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Now.
#[expect(clippy::disallowed_methods, reason = "measures")]
pub fn started() -> Instant {
    Instant::now()
}

/// Resident memory of a process, in MB.
pub fn memory(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// CPU time that a process has used, in seconds.
pub fn cpu(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// Processor, cores and memory of this machine.
pub fn machine() -> anyhow::Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    let memory = std::fs::read_to_string("/proc/meminfo")?;
    let kilobytes = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("no MemTotal")?;
    let kilobytes: f64 = kilobytes.trim().trim_end_matches(" kB").parse()?;
    let model = model.trim_start_matches([' ', '\t', ':']);
    Ok(format!("{model}, {cores} cores, {:.0} GB", kilobytes * 1024.0 / 1e9))
}

/// Which Redis is measured with.
pub fn redis_version() -> anyhow::Result<String> {
    let output = std::process::Command::new("redis-server").arg("--version").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("of unknown version");
    Ok(format!("Redis {version}"))
}

/// The time below which this part of them lies, in milliseconds. They are in order.
pub fn at(times: &[Duration], part: f64) -> f64 {
    times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3
}

/// Prints some of many times, which are in order.
pub fn print_times(what: &str, times: &[Duration]) {
    let [p50, p99, most] = [0.5, 0.99, 1.0].map(|part| at(times, part));
    println!("{what}: p50 {p50:.2} ms, p99 {p99:.2} ms, max {most:.2} ms");
}
