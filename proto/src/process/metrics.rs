//! What Prometheus wants to know of every process: its CPU time, memory, files and age.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};

/// The kernel's unit of CPU time as `/proc` shows it: 100 a second on every architecture that we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the metrics `process_…` to a registry. They are read from `/proc` at every scrape; where a system has no
/// `/proc`, the metrics that need it are left out.
pub fn register_process_metrics(registry: &mut Registry) {
    registry.register_collector(Box::new(ProcessMetrics));
}

#[derive(Debug)]
struct ProcessMetrics;

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let help = "User and system CPU time spent in seconds";
            let cpu = ConstCounter::new(stat.cpu_seconds);
            cpu.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, cpu.metric_type())?)?;
            gauge(&mut encoder, "process_threads", "Threads", stat.threads)?;
            gauge(&mut encoder, "process_virtual_memory_bytes", "Virtual memory in bytes", stat.virtual_bytes)?;
            if let Some(boot) = boot_time() {
                let help = "Start of the process in seconds since 1970";
                gauge(&mut encoder, "process_start_time_seconds", help, boot + stat.started_after_boot)?;
            }
        }
        if let Some(bytes) = fs::read_to_string("/proc/self/status").ok().as_deref().and_then(resident_bytes) {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory in bytes", bytes)?;
        }
        if let Ok(files) = fs::read_dir("/proc/self/fd") {
            // The listing itself holds one of them.
            let open = i64::try_from(files.count().saturating_sub(1)).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", open)?;
        }
        if let Some(limit) = getrlimit(Resource::Nofile).current {
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            gauge(&mut encoder, "process_max_fds", "Limit of open file descriptors", limit)?;
        }
        Ok(())
    }
}

fn gauge<N>(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: N) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

/// What `/proc/self/stat` says, see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_seconds: f64,
    threads: i64,
    virtual_bytes: i64,
    /// Seconds.
    started_after_boot: f64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses; it may itself hold spaces and parentheses.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Fields are numbered from 1 in the manual, and the first of `rest` is number 3.
        let field = |number: usize| fields.get(number - 3).copied();
        let seconds = |number: usize| Some(field(number)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self {
            cpu_seconds: seconds(14)? + seconds(15)?,
            threads: field(20)?.parse().ok()?,
            virtual_bytes: field(23)?.parse().ok()?,
            started_after_boot: seconds(22)?,
        })
    }
}

/// Seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident_bytes(status: &str) -> Option<i64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(kibibytes.trim().strip_suffix("kB")?.trim().parse::<i64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let line =
            "7 (a) b) S 1 1 1 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 11 0 1200 4096000 77 18446744073709551615";
        assert_eq!(
            Stat::parse(line),
            Some(Stat { cpu_seconds: 3.0, threads: 11, virtual_bytes: 4_096_000, started_after_boot: 12.0 })
        );
        assert_eq!(Stat::parse("7 (a"), None);
        assert_eq!(resident_bytes("Name:\tx\nVmRSS:\t    2048 kB\n"), Some(2_097_152));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        let mut registry = Registry::default();
        register_process_metrics(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_virtual_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
            "process_threads ",
        ] {
            assert!(text.contains(&format!("\n{name}")), "{name} is missing in\n{text}");
        }
    }
}
