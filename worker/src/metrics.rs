//! The worker's metrics. Names and labels are part of the public contract.

use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use flotilla_proto::process::register_process_metrics;
use flotilla_proto::{EnvironmentName, Timestamp};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Words of the label `op` of `flotilla_store_writes_total`; other words appear when they are first used.
const STORE_OPS: [&str; 3] = ["write", "load", "purge"];
/// Words of its label `result`.
const STORE_RESULTS: [&str; 3] = ["ok", "refused", "failed"];
/// Words of the label `reason` of `flotilla_store_repairs_total`.
const REPAIR_REASONS: [&str; 6] = ["lost", "fence", "marker", "items", "expiry", "type"];
/// Words of the label `result` of `flotilla_upstream_connects_total`.
const CONNECT_RESULTS: [&str; 5] = ["ok", "network", "http", "auth", "data"];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EnvironmentLabel {
    environment: String,
}

impl EnvironmentLabel {
    fn new(environment: &EnvironmentName) -> Self {
        Self { environment: environment.to_string() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    op: &'static str,
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// A gauge of each environment that is owned here.
type EnvironmentGauge = Family<EnvironmentLabel, Gauge<f64, AtomicU64>>;

/// A registry leaves out a family without members; this one shows its name and type from the first scrape.
#[derive(Debug)]
struct Described {
    name: &'static str,
    help: &'static str,
    gauge: EnvironmentGauge,
}

impl Collector for Described {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let Self { name, help, gauge } = self;
        gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
    }
}

/// Counters, gauges and histograms of one worker. No label ever holds a secret.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    last_event: EnvironmentGauge,
    rejected: EnvironmentGauge,
    doubted: EnvironmentGauge,
    untracked: EnvironmentGauge,
    propagation: Histogram,
    store_writes: Family<WriteLabels, Counter>,
    fenced_writes: Counter,
    store_repairs: Family<ReasonLabel, Counter>,
    upstream_connects: Family<ResultLabel, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            last_event: Family::default(),
            rejected: Family::default(),
            doubted: Family::default(),
            untracked: Family::default(),
            // From half a millisecond to 16 s, doubling.
            propagation: Histogram::new(exponential_buckets(0.000_5, 2.0, 16)),
            store_writes: Family::default(),
            fenced_writes: Counter::default(),
            store_repairs: Family::default(),
            upstream_connects: Family::default(),
        };
        metrics.register();
        metrics.begin_at_zero();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        for (name, help, gauge) in [
            (
                "flotilla_environment_last_event_timestamp_seconds",
                "When the environment's last event (put, patch, delete, answered poll) was received",
                &self.last_event,
            ),
            (
                "flotilla_environment_items_rejected",
                "Items that LaunchDarkly sent in a form that must not reach the store; their last good one stays",
                &self.rejected,
            ),
            (
                "flotilla_environment_items_in_doubt",
                "Items that stay although a payload takes them back, until another one decides",
                &self.doubted,
            ),
            (
                "flotilla_environment_store_untracked",
                "1 where the store does not tell who else changes the environment's keys, so that it is found later; else 0",
                &self.untracked,
            ),
        ] {
            registry.register_collector(Box::new(Described { name, help, gauge: gauge.clone() }));
        }
        registry.register(
            "flotilla_propagation_seconds",
            "Time from the receipt of an event to the store's acknowledgement",
            self.propagation.clone(),
        );
        registry.register("flotilla_store_writes", "Writes sent to stores", self.store_writes.clone());
        registry.register(
            "flotilla_fenced_writes",
            "Writes that a store refused because of the fence",
            self.fenced_writes.clone(),
        );
        registry.register(
            "flotilla_store_repairs",
            "Repairs of data that a store had lost or that someone else had changed",
            self.store_repairs.clone(),
        );
        registry.register(
            "flotilla_upstream_connects",
            "Connections to LaunchDarkly that were tried",
            self.upstream_connects.clone(),
        );
        register_process_metrics(registry);
    }

    /// A counter that is not there cannot be told from one that was never increased, so all are there from the start.
    fn begin_at_zero(&self) {
        for op in STORE_OPS {
            for result in STORE_RESULTS {
                drop(self.store_writes.get_or_create(&WriteLabels { op, result }));
            }
        }
        for reason in REPAIR_REASONS {
            drop(self.store_repairs.get_or_create(&ReasonLabel { reason }));
        }
        for result in CONNECT_RESULTS {
            drop(self.upstream_connects.get_or_create(&ResultLabel { result }));
        }
    }

    /// The environment received an event.
    pub fn event_received(&self, environment: &EnvironmentName, at: Timestamp) {
        // Milliseconds since 1970 are far below 2^53.
        #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
        let seconds = at.0 as f64 / 1000.0;
        self.last_event.get_or_create(&EnvironmentLabel::new(environment)).set(seconds);
    }

    /// The environment is no longer owned here.
    pub fn environment_removed(&self, environment: &EnvironmentName) {
        for gauge in [&self.last_event, &self.rejected, &self.doubted, &self.untracked] {
            gauge.remove(&EnvironmentLabel::new(environment));
        }
    }

    /// How many of the environment's items were rejected, and how many are in doubt.
    pub fn items(&self, environment: &EnvironmentName, rejected: u32, doubted: u32) {
        self.rejected.get_or_create(&EnvironmentLabel::new(environment)).set(rejected.into());
        self.doubted.get_or_create(&EnvironmentLabel::new(environment)).set(doubted.into());
    }

    /// Why the environment's store does not tell who else changes its keys; `None`: it does.
    pub fn store_untracked(&self, environment: &EnvironmentName, why: Option<&str>) {
        let untracked = if why.is_none() { 0.0 } else { 1.0 };
        self.untracked.get_or_create(&EnvironmentLabel::new(environment)).set(untracked);
    }

    /// From the receipt of an event to the store's acknowledgement.
    pub fn propagation(&self, took: Duration) {
        self.propagation.observe(took.as_secs_f64());
    }

    /// A store answered a write, or did not. Operations are `write`, `load` and `purge`, results `ok`, `refused`
    /// and `failed`.
    pub fn store_write(&self, op: &'static str, result: &'static str) {
        self.store_writes.get_or_create(&WriteLabels { op, result }).inc();
    }

    /// A store refused a write because of the fence.
    pub fn fenced_write(&self) {
        self.fenced_writes.inc();
    }

    /// A store's content was put right. The reasons are `lost`, `fence`, `marker`, `items`, `expiry` and `type`.
    pub fn store_repair(&self, reason: &'static str) {
        self.store_repairs.get_or_create(&ReasonLabel { reason }).inc();
    }

    /// A connection to LaunchDarkly was tried. Results are `ok`, `network`, `http`, `auth` and `data`.
    pub fn upstream_connect(&self, result: &'static str) {
        self.upstream_connects.get_or_create(&ResultLabel { result }).inc();
    }

    /// Everything, in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        text::encode(&mut text, &self.registry).expect("writing to a string cannot fail");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_metrics_are_there_from_the_first_scrape() {
        let text = Metrics::new().text();
        for line in [
            "# TYPE flotilla_environment_last_event_timestamp_seconds gauge",
            "# TYPE flotilla_environment_items_rejected gauge",
            "# TYPE flotilla_environment_items_in_doubt gauge",
            "# TYPE flotilla_environment_store_untracked gauge",
            "flotilla_propagation_seconds_count 0",
            "flotilla_store_writes_total{op=\"load\",result=\"ok\"} 0",
            "flotilla_fenced_writes_total 0",
            "flotilla_store_repairs_total{reason=\"lost\"} 0",
            "flotilla_upstream_connects_total{result=\"auth\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }

    #[test]
    fn an_environment_has_metrics_only_while_it_is_owned() {
        let metrics = Metrics::new();
        let name: EnvironmentName = "spree".parse().unwrap();
        metrics.event_received(&name, Timestamp(1_500));
        metrics.items(&name, 2, 0);
        assert!(metrics.text().contains("flotilla_environment_items_rejected{environment=\"spree\"} 2.0"));
        let line = "flotilla_environment_last_event_timestamp_seconds{environment=\"spree\"} 1.5";
        assert!(metrics.text().contains(line));
        metrics.environment_removed(&name);
        assert!(!metrics.text().contains("spree"));
    }
}
