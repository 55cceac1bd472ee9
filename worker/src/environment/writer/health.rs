//! How well the store does what the writer asks, and when to ask again.

use std::time::Duration;

use flotilla_proto::Timestamp;

use crate::store::StoreError;

/// Pause after a failure: the first, doubling, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// What failed last, while it has not succeeded since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failing {
    /// Looks: then nothing works.
    Looks,
    /// Writes or comparisons, although looks may succeed: an answered look is no recovery.
    Work,
}

/// The state of the store, as one environment sees it.
#[derive(Debug, Default)]
pub(super) struct Health {
    available: Option<bool>,
    error: Option<String>,
    failing: Option<Failing>,
    failures: u32,
    /// Writes that the fence refused, one after another.
    refusals: u32,
    retry_at: Option<Timestamp>,
}

impl Health {
    /// A look was answered.
    pub(super) fn looked(&mut self) {
        if self.failing != Some(Failing::Work) {
            self.recovered();
        }
    }

    /// A write or comparison was carried out.
    pub(super) fn worked(&mut self) {
        self.refusals = 0;
        self.recovered();
    }

    /// Nothing is to be written any more: what was wrong with writing is of no interest.
    pub(super) fn recovered(&mut self) {
        *self = Self { available: Some(true), refusals: self.refusals, ..Self::default() };
    }

    /// The fence refused a write. Should looks see nothing wrong, the pause keeps them from chasing each other.
    pub(super) fn refused(&mut self, now: Timestamp) {
        self.recovered();
        self.retry_at = (self.refusals > 0).then(|| now.after(RETRY.1));
        self.refusals += 1;
    }

    /// A look failed.
    pub(super) fn look_failed(&mut self, now: Timestamp, error: &StoreError) {
        self.failed(now, error, Failing::Looks);
    }

    /// A write or comparison failed.
    pub(super) fn work_failed(&mut self, now: Timestamp, error: &StoreError) {
        self.failed(now, error, Failing::Work);
    }

    fn failed(&mut self, now: Timestamp, error: &StoreError, what: Failing) {
        let pause = RETRY.0.saturating_mul(1 << self.failures.min(5)).min(RETRY.1);
        self.available = Some(false);
        self.error = Some(error.to_string());
        self.failing = match self.failing {
            Some(Failing::Work) => Some(Failing::Work),
            Some(Failing::Looks) | None => Some(what),
        };
        self.failures += 1;
        self.retry_at = Some(now.after(pause));
    }

    /// Wait until then.
    pub(super) fn wait_until(&mut self, at: Timestamp) {
        self.retry_at = Some(at);
    }

    /// There is reason to believe that it works now.
    pub(super) fn retry_now(&mut self) {
        self.retry_at = None;
    }

    /// Before then nothing is to be asked.
    pub(super) fn pause(&self, now: Timestamp) -> Option<Timestamp> {
        self.retry_at.filter(|at| now < *at)
    }

    /// Whether it did what was asked last; `None`: nothing was asked.
    pub(super) fn available(&self) -> Option<bool> {
        self.available
    }

    /// What was wrong last, if something is.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}
