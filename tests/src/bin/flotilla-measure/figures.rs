//! Clocks, memory, CPU, and how figures are printed.

use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Now.
#[expect(clippy::disallowed_methods, reason = "measures")]
pub(crate) fn started() -> Instant {
    Instant::now()
}

/// Resident memory of a process, in MB.
pub(crate) fn memory(process: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
    let kilobytes: f64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// CPU time that a process has used, in seconds.
pub(crate) fn cpu(process: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let fields: Vec<&str> = stat.rsplit(')').next().context("no fields")?.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
    Ok(ticks / 100.0)
}

/// Prints some of many times, which are in order.
pub(crate) fn print_times(what: &str, times: &[Duration]) {
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms", at(0.5), at(0.99), at(1.0));
}
