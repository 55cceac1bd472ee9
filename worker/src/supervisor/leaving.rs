//! The way out of the fleet: environments are handed over, what is left is stopped, control is told.

use std::time::Duration;

use tokio::time::timeout;

use super::{Environments, Supervisor};
use crate::link::LinkEvent;
use crate::session::Input;

/// How long store operations under way may take at the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the goodbye may take to reach control.
const GOODBYE_TIMEOUT: Duration = Duration::from_millis(500);

impl<E: Environments> Supervisor<E> {
    /// Goes on working until control has handed everything over to others, or says that nobody can take the rest.
    pub(super) async fn let_environments_move(&mut self) {
        let deadline = self.drain_timeout;
        self.step(Input::Leave { deadline });
        let moved = async {
            while self.session.awaits_moves() && self.ended.is_none() {
                self.work().await;
            }
        };
        // What has not moved in time moves at the goodbye.
        let in_time = timeout(deadline, moved).await.is_ok();
        let left = self.session.assigned();
        if left > 0 {
            tracing::info!(environments = left, in_time, "leaving with environments that were not handed over");
        }
    }

    pub(super) async fn stop_environments(&mut self) {
        for slot in self.slots.values_mut() {
            slot.end();
            slot.send_off(&mut self.errands);
        }
        let stopped = async {
            while !self.slots.is_empty() {
                self.work_on_errands().await;
            }
        };
        if timeout(STOP_TIMEOUT, stopped).await.is_err() {
            tracing::warn!(environments = self.slots.len(), "store operations under way were cut off");
        }
    }

    /// As [`Self::work`], but nothing new begins.
    async fn work_on_errands(&mut self) {
        tokio::select! {
            biased;
            Some(errand) = self.errands.join_next() => match errand {
                Ok(errand) => self.errand_done(errand),
                Err(error) => {
                    tracing::error!(%error, "an environment could not be stopped");
                    self.slots.clear();
                }
            },
            // Emptied so that no environment waits for room in it; nobody needs the last reports.
            Some(_) = self.updates.recv() => {}
        }
    }

    pub(super) async fn say_goodbye(&mut self) {
        self.step(Input::Left);
        self.channels.memory.send_replace(self.session.memory());
        // Without its sending half the stream ends as soon as all was sent, and the link says so.
        if self.connection.take().is_some() {
            let closed = async {
                while let Some(event) = self.channels.link.recv().await {
                    match event {
                        LinkEvent::Closed(_) => return,
                        LinkEvent::Opened(_) | LinkEvent::Received(_) => {}
                    }
                }
            };
            let _ = timeout(GOODBYE_TIMEOUT, closed).await;
        }
    }
}
