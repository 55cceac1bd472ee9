//! What a connection has shown of itself. Until a call over it was one of somebody known, it is a stranger: it ends when
//! it idles, and gives way when too many are like it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long a stranger may be without a call. A probe that asks every 10 s keeps its connection.
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many strangers there may be, handshakes under way included.
pub(super) const MOST_STRANGERS: usize = 4096;

/// Where a connection stands: shared by the connection, its listener and its calls.
#[derive(Debug, Default)]
pub struct Standing {
    is_known: AtomicBool,
    calls: AtomicUsize,
    has_called: AtomicBool,
    sent_away: Notify,
}

impl Standing {
    /// Somebody known has called: from now on only they end it.
    pub fn become_known(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    /// A call is under way until what is returned is dropped, whoever makes it.
    pub fn call(self: &Arc<Self>) -> CallUnderWay {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.has_called.store(true, Ordering::Relaxed);
        CallUnderWay(Arc::clone(self))
    }

    pub(super) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Resolves when the connection gives way to others.
    pub(super) async fn sent_away(&self) {
        self.sent_away.notified().await;
    }

    /// Resolves when the connection shall end: it gives way to others, or has been idle. Never once it is known.
    pub(super) async fn overdue(self: Arc<Self>) {
        loop {
            let is_away = timeout(IDLE_TIMEOUT, self.sent_away()).await.is_ok();
            if self.is_known() {
                std::future::pending::<()>().await;
            }
            let has_called = self.has_called.swap(false, Ordering::Relaxed);
            if is_away || !(has_called || self.calls.load(Ordering::Relaxed) > 0) {
                return;
            }
        }
    }
}

/// A call over a connection. Dropping it tells that it has ended.
#[derive(Debug)]
pub struct CallUnderWay(Arc<Standing>);

impl Drop for CallUnderWay {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The connections of a listener that are strangers, oldest first; some are so no more.
#[derive(Debug, Default)]
pub(super) struct Strangers(VecDeque<Weak<Standing>>);

impl Strangers {
    /// One more. Where that is too many, the oldest is sent away: it has most likely come to do nothing.
    pub(super) fn welcome(&mut self) -> Arc<Standing> {
        if self.0.len() >= MOST_STRANGERS {
            self.0.retain(|one| one.upgrade().is_some_and(|standing| !standing.is_known()));
        }
        if self.0.len() >= MOST_STRANGERS {
            self.send_oldest_away();
        }
        let standing = Arc::new(Standing::default());
        self.0.push_back(Arc::downgrade(&standing));
        standing
    }

    /// The oldest gives way, as where the system has no room for another connection.
    pub(super) fn send_oldest_away(&mut self) {
        while let Some(oldest) = self.0.pop_front() {
            if let Some(oldest) = oldest.upgrade().filter(|standing| !standing.is_known()) {
                // It is kept for whoever waits for it next, handshake or connection.
                oldest.sent_away.notify_one();
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_overdue_within(standing: &Arc<Standing>, time: Duration) -> bool {
        timeout(time, Arc::clone(standing).overdue()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_without_a_call_is_overdue() {
        let standing = Arc::new(Standing::default());
        assert!(!is_overdue_within(&standing, IDLE_TIMEOUT / 2).await);
        assert!(is_overdue_within(&standing, IDLE_TIMEOUT).await);
        standing.become_known();
        assert!(!is_overdue_within(&standing, IDLE_TIMEOUT * 9).await);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_keep_a_stranger() {
        let standing = Arc::new(Standing::default());
        let watching = standing.call();
        assert!(!is_overdue_within(&standing, IDLE_TIMEOUT * 9).await);
        drop(watching);
        drop(standing.call());
        assert!(!is_overdue_within(&standing, IDLE_TIMEOUT + Duration::from_secs(1)).await);
        assert!(is_overdue_within(&standing, IDLE_TIMEOUT + Duration::from_secs(1)).await);
    }

    #[tokio::test]
    async fn the_oldest_stranger_gives_way() {
        let mut strangers = Strangers::default();
        let known = strangers.welcome();
        let gone = strangers.welcome();
        let all: Vec<_> = (2..MOST_STRANGERS).map(|_| strangers.welcome()).collect();
        known.become_known();
        drop(gone);
        // Two have made room.
        let more = [strangers.welcome(), strangers.welcome()];
        let soon = Duration::from_millis(50);
        assert!(!is_overdue_within(&all[0], soon).await);
        let _last = strangers.welcome();
        assert!(is_overdue_within(&all[0], soon).await);
        for stays in [&all[1], &known, &more[0]] {
            assert!(!is_overdue_within(stays, soon).await);
        }
    }
}
