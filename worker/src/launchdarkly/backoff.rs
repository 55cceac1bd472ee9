//! When to try again: two regimes of growing, jittered delays.
//!
//! The rules are those of LaunchDarkly's own retry specification: ordinary failures wait from one second up to
//! thirty, answers that will hardly change by themselves (a refused key, an address that is not there) wait from
//! five minutes up to an hour. Nothing is ever final. Time and chance are handed in.

use std::time::{Duration, Instant};

use crate::source::SourceFailure;

/// The first delay of the normal regime unless configured.
pub const DEFAULT_INITIAL_RETRY_DELAY: Duration = Duration::from_secs(1);

const NORMAL_CEILING: Duration = Duration::from_secs(30);
const EXTENDED_FIRST: Duration = Duration::from_mins(5);
const EXTENDED_CEILING: Duration = Duration::from_hours(1);

/// A server's `retry:` may not make a worker hammer it. The longest that is heeded is [`NORMAL_CEILING`].
const SHORTEST_SERVER_RETRY: Duration = Duration::from_millis(100);

/// So long must a stream have been healthy before its next failure counts as a first one.
const HEALTHY_AFTER: Duration = Duration::from_mins(1);

/// So many polls in a row must succeed before the next failure counts as a first one.
const HEALTHY_POLLS: u8 = 2;

/// What a failure says about the chances of the next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureClass {
    /// Likely to pass: network, TLS, overload, bad data, a stream that ended.
    Normal,
    /// Not likely to pass unless somebody acts.
    Unexpected,
}

impl FailureClass {
    /// 400, 408, 429 and 5xx are normal; other 4xx, and successes that carry no data (204), are unexpected.
    pub(crate) fn of(failure: &SourceFailure) -> Self {
        match failure {
            SourceFailure::Network { .. } | SourceFailure::Data { .. } => Self::Normal,
            SourceFailure::Auth { .. } | SourceFailure::Key { .. } => Self::Unexpected,
            SourceFailure::Http { status } => match status {
                400 | 408 | 429 => Self::Normal,
                200..=299 | 401..=499 => Self::Unexpected,
                _ => Self::Normal,
            },
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Regime {
    Normal,
    Extended,
}

/// A number from 0 to 1 that decides how much of the jitter is subtracted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Jitter(f64);

impl Jitter {
    /// Spreads a random 32-bit number over 0 to 1.
    pub(crate) fn from_random(random: u32) -> Self {
        Self(f64::from(random) / f64::from(u32::MAX))
    }
}

/// The back-off of one source.
#[derive(Debug)]
pub(crate) struct Backoff {
    base: Duration,
    regime: Regime,
    /// Failures since the regime was entered or its base was replaced.
    failures: u32,
    /// When the present connection delivered its first event.
    first_event: Option<Instant>,
    successful_polls: u8,
}

impl Backoff {
    /// A source that has not failed yet; `initial_delay` is the first delay of the normal regime.
    pub(crate) fn new(initial_delay: Duration) -> Self {
        Self { base: initial_delay, regime: Regime::Normal, failures: 0, first_event: None, successful_polls: 0 }
    }

    /// The stream delivered an event; the first one on a connection starts the clock of its health.
    pub(crate) fn event_received(&mut self, now: Instant) {
        self.first_event.get_or_insert(now);
    }

    /// A poll was answered with data or with "not modified".
    pub(crate) fn poll_succeeded(&mut self) {
        self.successful_polls = self.successful_polls.saturating_add(1);
        if self.successful_polls >= HEALTHY_POLLS {
            self.reset();
        }
    }

    /// The server asked for another base of the normal regime. Our bounds hold also for what a server asks: below a tenth
    /// of a second it is taken as that, above the ceiling of the normal regime, thirty seconds, as the ceiling; every delay
    /// is the ceiling then. The extended regime does not heed it, and a server that repeats itself on every connection
    /// does not undo the doubling. What is no number of milliseconds never comes here: the parser drops it.
    pub(crate) fn server_retry(&mut self, base: Duration) {
        let base = base.clamp(SHORTEST_SERVER_RETRY, NORMAL_CEILING);
        if base == self.base {
            return;
        }
        self.base = base;
        match self.regime {
            Regime::Normal => self.failures = 0,
            Regime::Extended => {}
        }
    }

    /// The attempt or connection failed: how long to wait before the next one.
    pub(crate) fn failed(&mut self, class: FailureClass, now: Instant, jitter: Jitter) -> Duration {
        let healthy_for = self.first_event.take().map(|first| now.saturating_duration_since(first));
        if healthy_for.is_some_and(|healthy| healthy >= HEALTHY_AFTER) {
            self.reset();
        }
        self.successful_polls = 0;
        match (class, self.regime) {
            (FailureClass::Unexpected, Regime::Normal) => {
                self.regime = Regime::Extended;
                self.failures = 0;
            }
            (FailureClass::Unexpected, Regime::Extended)
            | (FailureClass::Normal, Regime::Normal | Regime::Extended) => {}
        }
        let (first, ceiling) = match self.regime {
            // A configured initial delay above the ceiling is what the user wants.
            Regime::Normal => (self.base, NORMAL_CEILING.max(self.base)),
            Regime::Extended => (EXTENDED_FIRST, EXTENDED_CEILING),
        };
        let doubled = first.saturating_mul(2u32.saturating_pow(self.failures)).min(ceiling);
        self.failures = self.failures.saturating_add(1);
        doubled.saturating_sub((doubled / 2).mul_f64(jitter.0))
    }

    fn reset(&mut self) {
        self.regime = Regime::Normal;
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::sse::{SseItem, SseParser};
    use super::*;

    const NONE: Jitter = Jitter(0.0);
    const SECOND: Duration = Duration::from_secs(1);

    #[expect(clippy::disallowed_methods, reason = "std has no other way to make an instant")]
    fn start() -> Instant {
        Instant::now()
    }

    fn delays(backoff: &mut Backoff, class: FailureClass, count: usize) -> Vec<u64> {
        let now = start();
        (0..count).map(|_| backoff.failed(class, now, NONE).as_secs()).collect()
    }

    #[test]
    fn the_normal_regime_doubles_from_its_base_to_thirty_seconds() {
        let mut backoff = Backoff::new(SECOND);
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 7), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 80).last(), Some(&30), "and never overflows");
    }

    #[test]
    fn the_extended_regime_doubles_from_five_minutes_to_an_hour_and_normal_failures_do_not_end_it() {
        let mut backoff = Backoff::new(SECOND);
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 2), [1, 2]);
        assert_eq!(delays(&mut backoff, FailureClass::Unexpected, 2), [300, 600]);
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 3), [1200, 2400, 3600]);
        assert_eq!(delays(&mut backoff, FailureClass::Unexpected, 1), [3600]);
    }

    #[test]
    fn jitter_subtracts_up_to_half() {
        let now = start();
        assert_eq!(Backoff::new(SECOND).failed(FailureClass::Normal, now, Jitter(1.0)), SECOND / 2);
        assert_eq!(
            Backoff::new(SECOND).failed(FailureClass::Unexpected, now, Jitter(1.0)),
            Duration::from_secs(150)
        );
    }

    #[test]
    fn health_is_counted_from_the_first_event_and_judged_at_the_next_failure() {
        let now = start();
        for class in [FailureClass::Normal, FailureClass::Unexpected] {
            let mut backoff = Backoff::new(SECOND);
            backoff.failed(class, now, NONE);
            let second = backoff.failed(class, now, NONE);
            backoff.event_received(now);
            backoff.event_received(now + 59 * SECOND);
            let third = backoff.failed(class, now + Duration::from_millis(59_999), NONE);
            assert!(third > second, "not healthy for long enough");
            backoff.event_received(now);
            assert_eq!(backoff.failed(FailureClass::Normal, now + 60 * SECOND, NONE), SECOND);
        }
    }

    #[test]
    fn a_connection_without_an_event_is_not_healthy() {
        let mut backoff = Backoff::new(SECOND);
        backoff.failed(FailureClass::Normal, start(), NONE);
        assert_eq!(backoff.failed(FailureClass::Normal, start() + 600 * SECOND, NONE), 2 * SECOND);
    }

    #[test]
    fn two_polls_in_a_row_reset_and_one_does_not() {
        let mut backoff = Backoff::new(SECOND);
        delays(&mut backoff, FailureClass::Unexpected, 2);
        backoff.poll_succeeded();
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 1), [1200]);
        backoff.poll_succeeded();
        backoff.poll_succeeded();
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 2), [1, 2]);
    }

    #[test]
    fn a_servers_retry_replaces_the_base_once_and_never_shortens_the_extended_regime() {
        let mut backoff = Backoff::new(SECOND);
        delays(&mut backoff, FailureClass::Normal, 3);
        backoff.server_retry(5 * SECOND);
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 2), [5, 10]);
        backoff.server_retry(5 * SECOND);
        assert_eq!(delays(&mut backoff, FailureClass::Normal, 1), [20]);
        assert_eq!(delays(&mut backoff, FailureClass::Unexpected, 1), [300]);
        backoff.server_retry(SECOND);
        assert_eq!(delays(&mut backoff, FailureClass::Unexpected, 1), [600]);
    }

    /// What the stream says, by way of the parser, and the delays that follow, in milliseconds.
    #[test]
    fn a_servers_retry_is_heeded_within_our_bounds() {
        for (said, expected) in [
            ("retry: 0\n", [100, 200, 400]),
            ("retry: 5000\n", [5_000, 10_000, 20_000]),
            ("retry: 30000\n", [30_000, 30_000, 30_000]),
            ("retry: 90000\n", [30_000, 30_000, 30_000]),
            ("retry: soon\n", [1_000, 2_000, 4_000]),
            ("retry: 5s\n", [1_000, 2_000, 4_000]),
            ("retry: -1\n", [1_000, 2_000, 4_000]),
            ("retry:\n", [1_000, 2_000, 4_000]),
            ("retry: 5000\nretry: soon\n", [5_000, 10_000, 20_000]),
        ] {
            let (mut backoff, mut input) = (Backoff::new(SECOND), said.as_bytes());
            let mut parser = SseParser::new(64);
            while let Some(item) = parser.next(&mut input).expect("below the limit") {
                let SseItem::Retry(base) = item else { panic!("{said:?}: {item:?}") };
                backoff.server_retry(base);
            }
            let now = start();
            let delays = expected.map(|_| backoff.failed(FailureClass::Normal, now, NONE).as_millis());
            assert_eq!(delays, expected, "{said:?}");
        }
    }

    #[test]
    fn statuses_are_classed_as_launchdarkly_does() {
        let class = |status| FailureClass::of(&SourceFailure::Http { status });
        for status in [400, 408, 429, 500, 502, 503, 304] {
            assert_eq!(class(status), FailureClass::Normal, "{status}");
        }
        for status in [204, 402, 404, 405, 418] {
            assert_eq!(class(status), FailureClass::Unexpected, "{status}");
        }
        assert_eq!(FailureClass::of(&SourceFailure::Auth { status: 401 }), FailureClass::Unexpected);
        assert_eq!(FailureClass::of(&SourceFailure::Network { message: String::new() }), FailureClass::Normal);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_zero_nor_above_its_ceiling(random: u32, failures in 1usize..100, unexpected: bool) {
            let (class, ceiling) = if unexpected {
                (FailureClass::Unexpected, EXTENDED_CEILING)
            } else {
                (FailureClass::Normal, NORMAL_CEILING)
            };
            let mut backoff = Backoff::new(SECOND);
            let now = start();
            for _ in 0..failures {
                let delay = backoff.failed(class, now, Jitter::from_random(random));
                prop_assert!(delay >= SECOND / 2);
                prop_assert!(delay <= ceiling);
            }
        }
    }
}
