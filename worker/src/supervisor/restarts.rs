//! When an environment whose task ends by itself is started again. Pure.

use std::time::Duration;

use flotilla_proto::Timestamp;

/// The first pause, and the longest; each is twice the one before.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
/// One that has run for so long is well: its next failure is a first one.
const RUNS_WELL: Duration = Duration::from_mins(5);

/// The failures of one environment, one after another.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Restarts {
    failures: u32,
    started_at: Timestamp,
}

impl Restarts {
    /// It has been started, for the first time or again.
    pub(super) fn started(self, now: Timestamp) -> Self {
        Self { started_at: now, ..self }
    }

    /// Its task has ended by itself. Returns how long it is left alone.
    pub(super) fn failed(&mut self, now: Timestamp) -> Duration {
        if now.since(self.started_at) >= RUNS_WELL {
            self.failures = 0;
        }
        let pause = PAUSE.0.saturating_mul(1 << self.failures.min(10)).min(PAUSE.1);
        self.failures = self.failures.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_790_000_000_000);

    #[test]
    fn pauses_double_to_a_minute_while_it_keeps_failing() {
        let mut restarts = Restarts::default();
        let mut now = NOW;
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            restarts = restarts.started(now);
            now = now.after(Duration::from_mins(1));
            let pause = restarts.failed(now);
            assert_eq!(pause.as_secs(), seconds);
            now = now.after(pause);
        }
    }

    #[test]
    fn one_that_ran_well_begins_anew() {
        let mut restarts = Restarts::default().started(NOW);
        restarts.failed(NOW);
        restarts = restarts.started(NOW);
        assert_eq!(restarts.failed(NOW.after(RUNS_WELL)).as_secs(), 1);
        assert_eq!(restarts.failed(NOW.after(RUNS_WELL)).as_secs(), 1, "it was not started meanwhile");
        assert_eq!(restarts.started(NOW.after(RUNS_WELL)).failed(NOW.after(RUNS_WELL)).as_secs(), 2);
    }
}
