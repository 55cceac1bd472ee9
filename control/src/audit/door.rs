//! Calls that are refused before they are read, for want of a credential or of rights. Strangers can make as many as
//! they like, so they wait for nothing here, and not each has a record: the next one that has tells how many have none.
//! They do not hide what somebody known was refused: that is counted on its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::process::Clock;
use flotilla_proto::{Refusal, Timestamp};
use tokio::sync::mpsc;

use super::{AuditEntry, Outcome, Place};
use crate::driver::DriverHandle;

/// Refusals that may wait to be recorded, of strangers and of others.
const QUEUE: usize = 64;
/// How many are recorded in a second, at most, of strangers and of others.
const MOST_A_SECOND: u32 = 10;
const SECOND: Duration = Duration::from_secs(1);

/// Tells of calls that were refused. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    strangers: Queue,
    others: Queue,
}

#[derive(Debug, Clone)]
struct Queue {
    refused: mpsc::Sender<(AuditEntry, Outcome)>,
    left_out: Arc<AtomicU64>,
}

/// Somebody who may yet be refused.
#[derive(Debug)]
pub(crate) struct Knock {
    /// Where that is told.
    pub(crate) door: Door,
    /// What is known of them.
    pub(crate) entry: AuditEntry,
}

/// Has the refusals recorded.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    strangers: Waiting,
    others: Waiting,
}

#[derive(Debug)]
struct Waiting {
    refused: mpsc::Receiver<(AuditEntry, Outcome)>,
    left_out: Arc<AtomicU64>,
    limit: Limit,
}

impl Door {
    /// A door, and who keeps it.
    pub(crate) fn new() -> (Self, Doorkeeper) {
        let ((strangers, waiting_strangers), (others, waiting)) = (queue(), queue());
        (Self { strangers, others }, Doorkeeper { strangers: waiting_strangers, others: waiting })
    }

    /// Somebody was refused. Returns at once.
    pub(crate) fn refused(&self, entry: AuditEntry, refusal: &Refusal) {
        let queue = if entry.actor.is_empty() { &self.strangers } else { &self.others };
        if queue.refused.try_send((entry, Outcome::refused(refusal))).is_err() {
            queue.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn queue() -> (Queue, Waiting) {
    let (sender, refused) = mpsc::channel(QUEUE);
    let left_out = Arc::new(AtomicU64::new(0));
    let queue = Queue { refused: sender, left_out: Arc::clone(&left_out) };
    (queue, Waiting { refused, left_out, limit: Limit::default() })
}

impl Knock {
    /// They were.
    pub(crate) fn refused(self, refusal: &Refusal) {
        self.door.refused(self.entry, refusal);
    }
}

impl Doorkeeper {
    /// Records what it may, until control stops.
    pub(crate) async fn keep(self, driver: DriverHandle, clock: Clock) {
        tokio::join!(self.strangers.keep(&driver, clock), self.others.keep(&driver, clock));
    }
}

impl Waiting {
    async fn keep(mut self, driver: &DriverHandle, clock: Clock) {
        while let Some((entry, outcome)) = self.refused.recv().await {
            if self.limit.allows(clock.now()) {
                let left_out = self.left_out.swap(0, Ordering::Relaxed);
                driver.record(entry, outcome, Place::Door { left_out }).await;
            } else {
                self.left_out.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// So many in a second.
#[derive(Debug, Default)]
struct Limit {
    second: Timestamp,
    count: u32,
}

impl Limit {
    fn allows(&mut self, now: Timestamp) -> bool {
        if now.since(self.second) >= SECOND {
            *self = Self { second: now, count: 0 };
        }
        self.count += 1;
        self.count <= MOST_A_SECOND
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::Reason;

    use super::*;
    use crate::audit::Attempt;

    #[test]
    fn ten_a_second_are_recorded() {
        let mut limit = Limit::default();
        let allowed = |limit: &mut Limit, at| (0..25).filter(|_| limit.allows(Timestamp(at))).count();
        assert_eq!(allowed(&mut limit, 5_000), 10);
        assert_eq!(allowed(&mut limit, 5_999), 0);
        assert_eq!(allowed(&mut limit, 6_000), 10);
    }

    #[test]
    fn nobody_waits_at_the_door_and_those_left_out_are_counted() {
        let (door, keeper) = Door::new();
        let entry = AuditEntry::of_file(std::path::Path::new("f"), Attempt::First);
        let stranger = AuditEntry { actor: String::new(), ..entry.clone() };
        for _ in 0..QUEUE + 7 {
            door.refused(stranger.clone(), &Refusal::new(Reason::CredentialMissing, "no"));
        }
        door.refused(entry, &Refusal::new(Reason::RoleTooSmall, "no"));
        assert_eq!(keeper.strangers.left_out.load(Ordering::Relaxed), 7);
        assert_eq!(keeper.others.left_out.load(Ordering::Relaxed), 0, "they are not hidden by strangers");
    }
}
