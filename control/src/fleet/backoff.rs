//! Pauses that double while something keeps happening.

use std::time::Duration;

use flotilla_proto::Timestamp;

/// When something may happen again. The pause doubles each time, and is short again after a long quiet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    shortest: Duration,
    longest: Duration,
    pause: Duration,
    next: Timestamp,
}

impl Backoff {
    /// Nothing happened yet.
    pub(super) const fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, pause: shortest, next: Timestamp(0) }
    }

    /// It shall happen: returns when it may. From then on the next pause runs.
    pub(super) fn schedule(&mut self, now: Timestamp) -> Timestamp {
        let at = self.next.max(now);
        self.happened(at);
        at
    }

    /// It happened now, whether it might or not: returns when it may again.
    pub(super) fn happened(&mut self, now: Timestamp) -> Timestamp {
        if now.since(self.next) > self.longest {
            self.pause = self.shortest;
        }
        self.next = now.after(self.pause);
        self.pause = (self.pause * 2).min(self.longest);
        self.next
    }

    /// When it may happen again.
    pub(super) fn next(&self) -> Timestamp {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_short_again_after_a_quiet() {
        let second = Duration::from_secs(1);
        let mut backoff = Backoff::new(second, second * 4);
        let start = Timestamp(1_000_000);
        assert_eq!(backoff.schedule(start), start);
        assert_eq!(backoff.schedule(start), start.after(second));
        assert_eq!(backoff.schedule(start), start.after(second * 3));
        assert_eq!(backoff.next(), start.after(second * 7));
        let later = start.after(second * 12);
        assert_eq!(backoff.happened(later), later.after(second));
        assert_eq!(backoff.happened(later), later.after(second * 2));
    }
}
