//! Numbers for Prometheus. They are read from the fleet at every scrape, so none can be forgotten or out of step.

use std::collections::BTreeMap;
use std::fmt;

use flotilla_proto::process::register_process_metrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

use crate::audit::LogFailures;
use crate::environments_file::FileHealth;
use crate::fleet::Counts;

/// The media type of [`encode`]'s text.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics as OpenMetrics text. `file` is how it stands with that of `--environments`, if there is one.
pub(super) fn encode(counts: Counts, file: Option<&FileHealth>, log_failures: &LogFailures) -> String {
    let mut registry = Registry::default();
    register_process_metrics(&mut registry);
    if let Some(file) = file {
        let help = "Whether the file of --environments is applied, wholly";
        let gauge = Gauge::<i64>::default();
        gauge.set(file.is_ok().into());
        registry.register("flotilla_environments_file_ok", help, gauge);
    }
    let help = "Attempts to write the file of --audit-log that failed";
    let failures = Counter::<u64>::default();
    failures.inc_by(log_failures.count());
    registry.register("flotilla_audit_log_failures", help, failures);
    registry.register_collector(Box::new(FleetMetrics(counts)));
    let mut page = String::new();
    text::encode(&mut page, &registry).expect("writing to a string does not fail");
    page
}

#[derive(Debug)]
struct FleetMetrics(Counts);

impl Collector for FleetMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        gauges(&mut encoder, "flotilla_environments", "Environments by initialization", &self.0.environments)?;
        gauges(&mut encoder, "flotilla_workers", "Workers by state of their session", &self.0.workers)?;
        let help = "Environments moved from one worker to another";
        let name = "flotilla_assignments_moved";
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (reason, count) in &self.0.moves {
            let labels = [("reason", *reason)];
            ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
        }
        let help = "Sessions of workers that had one before";
        let reconnects = ConstCounter::new(self.0.session_reconnects);
        let name = "flotilla_session_reconnects";
        reconnects.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
    }
}

fn gauges(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    by_state: &BTreeMap<&'static str, u64>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (state, count) in by_state {
        let labels = [("state", *state)];
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        ConstGauge::new(count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_those_of_the_contract() {
        let counts = Counts {
            environments: [("current", 2), ("stale", 0)].into(),
            workers: [("connected", 1)].into(),
            moves: [("drain", 3)].into(),
            session_reconnects: 4,
        };
        assert!(!encode(counts.clone(), None, &LogFailures::default()).contains("flotilla_environments_file_ok"));
        let page = encode(counts, Some(&FileHealth::default()), &LogFailures::default());
        for line in [
            "flotilla_environments{state=\"current\"} 2",
            "flotilla_environments{state=\"stale\"} 0",
            "flotilla_workers{state=\"connected\"} 1",
            "flotilla_assignments_moved_total{reason=\"drain\"} 3",
            "flotilla_session_reconnects_total 4",
            "flotilla_environments_file_ok 0",
            "flotilla_audit_log_failures_total 0",
            "# EOF",
        ] {
            assert!(page.lines().any(|one| one == line), "{line} in\n{page}");
        }
        assert!(page.contains("process_resident_memory_bytes"));
    }
}
