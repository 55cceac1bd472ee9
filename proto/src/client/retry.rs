//! Which failures pass, and how soon to try again.

use std::time::Duration;

use tonic::Status;

use super::error::{is_broken, is_out_of_time};
use crate::error::{Reason, Refusal};

/// How often and how soon what failed is tried again. The pauses double, and half of each is chance, so that many clients
/// do not come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all; 1 is no retry.
    pub attempts: u32,
    /// The pause after the first attempt, at most.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for Retry {
    /// 5 attempts with pauses of at most 1.5 s in all, more than a restart of control takes. Attempts that run out of time
    /// take their [`super::Client::with_request_timeout`] each.
    fn default() -> Self {
        Self { attempts: 5, first_pause: Duration::from_millis(100), longest_pause: Duration::from_secs(2) }
    }
}

impl Retry {
    /// Nothing is tried again.
    pub const NEVER: Self = Self { attempts: 1, first_pause: Duration::ZERO, longest_pause: Duration::ZERO };

    /// The pauses between the attempts.
    pub(super) fn pauses(self) -> impl Iterator<Item = Duration> + Send {
        (1..self.attempts).map(move |attempt| {
            let doubled = self.first_pause.saturating_mul(1 << (attempt - 1).min(16));
            jittered(doubled.min(self.longest_pause))
        })
    }
}

/// Half of it for sure, and up to the other half by chance.
pub(super) fn jittered(pause: Duration) -> Duration {
    // Without chance there is none: the whole pause then.
    let part = getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX));
    pause.mul_f64(0.5 + part / 2.0)
}

/// Whether the same may succeed a little later.
pub(super) fn passes(status: &Status) -> bool {
    match Refusal::from_status(status) {
        Some(refusal) => refusal.reason == Reason::ShuttingDown,
        None => is_broken(status) || is_out_of_time(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let retry = Retry {
            attempts: 5,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_millis(300),
        };
        let pauses: Vec<_> = retry.pauses().collect();
        assert_eq!(pauses.len(), 4);
        for (pause, most) in pauses.iter().zip([100, 200, 300, 300]) {
            let most = Duration::from_millis(most);
            assert!(*pause >= most / 2 && *pause <= most, "{pauses:?}");
        }
        assert_eq!(Retry::NEVER.pauses().count(), 0);
    }

    #[test]
    fn what_control_decided_does_not_pass() {
        assert!(passes(&Status::unavailable("nobody is there")));
        assert!(passes(&Refusal::new(Reason::ShuttingDown, "stopping").into()));
        assert!(!passes(&Refusal::new(Reason::StoreUnavailable, "the store is away").into()));
        assert!(!passes(&Status::not_found("no")) && !passes(&Status::internal("a fault")));
    }
}
