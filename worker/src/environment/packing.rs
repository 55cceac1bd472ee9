//! When what has been quiet is packed: a part at a time, one environment of a worker after the other, with pauses, so that
//! nothing waits for it.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::Timestamp;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An item that has not changed for so long is packed.
pub(super) const QUIET: Duration = Duration::from_secs(5);
/// Before each part, for what else there is to do. A part takes about a third of it.
const PAUSE: Duration = Duration::from_millis(1);

/// One environment of a worker packs at a time.
pub(super) type Turns = Arc<Semaphore>;

/// When the next part is due.
#[derive(Default)]
pub(super) struct Schedule {
    due: Option<Timestamp>,
    /// Waits for the turn.
    queued: Option<BoxFuture<'static, OwnedSemaphorePermit>>,
    /// When an item changed last.
    changed: Timestamp,
}

impl Schedule {
    /// Items may have changed.
    pub(super) fn changed(&mut self, now: Timestamp) {
        self.changed = now;
        if self.queued.is_none() {
            self.due.get_or_insert(now.after(QUIET));
        }
    }

    /// When there is something to pack, if there is.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.due
    }

    /// Waits for the turn, if something is due.
    pub(super) fn queue_if_due(&mut self, now: Timestamp, turns: &Turns) {
        if self.due.take_if(|due| *due <= now).is_some() {
            self.queue(turns);
        }
    }

    /// Waits for the turn.
    pub(super) fn queue(&mut self, turns: &Turns) {
        let turns = Arc::clone(turns);
        let turn = async move {
            let permit = turns.acquire_owned().await.expect("the semaphore is never closed");
            tokio::time::sleep(PAUSE).await;
            permit
        };
        self.queued = Some(turn.boxed());
    }

    /// The turn, when it comes. It ends when the permit is dropped.
    pub(super) async fn turn(&mut self) -> OwnedSemaphorePermit {
        let Some(queued) = &mut self.queued else { return std::future::pending().await };
        let permit = queued.await;
        self.queued = None;
        permit
    }

    /// All that was quiet is packed.
    pub(super) fn end(&mut self, now: Timestamp) {
        let quiet_at = self.changed.after(QUIET);
        self.due = (quiet_at > now).then_some(quiet_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_change_is_packed_when_it_has_been_quiet_and_it_is_ones_turn() {
        let turns: Turns = Arc::new(Semaphore::new(1));
        let (mut one, mut other) = (Schedule::default(), Schedule::default());
        assert_eq!(one.due(), None);
        one.changed(Timestamp(1_000));
        one.changed(Timestamp(3_000));
        one.queue_if_due(Timestamp(5_999), &turns);
        assert_eq!(one.due(), Some(Timestamp(6_000)));
        one.queue_if_due(Timestamp(6_000), &turns);
        assert_eq!(one.due(), None);
        let turn = one.turn().await;
        other.queue(&turns);
        assert_eq!(other.turn().now_or_never().map(drop), None, "it is the other's turn");
        one.end(Timestamp(6_001));
        drop(turn);
        drop(other.turn().await);
        assert_eq!(one.due(), Some(Timestamp(8_000)), "of the later change");
        one.queue_if_due(Timestamp(8_000), &turns);
        drop(one.turn().await);
        one.end(Timestamp(8_000));
        assert_eq!(one.due(), None);
    }
}
