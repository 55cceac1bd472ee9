//! The fenced store, and the network between it and each worker.
//!
//! What is sent is delivered, also when its sender has crashed since; what is held is delivered late. The store does what
//! the scripts do on Redis, and every step of it is recorded.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::{Prefix, StoreUrl};
use flotilla_worker::store::model::Model;
use flotilla_worker::store::{FlagStore, Op, OpenStore, Outcome, StoreError, StoreNews};
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

use crate::history::{Record, What, next_fence};
use crate::world::{Shared, World};

/// How a worker reaches something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// At once, and nothing is sent.
    Refused,
    /// What is sent gets lost.
    Mute,
    /// What is sent arrives, the answer gets lost.
    Deaf,
    /// What is sent arrives when the link is up again.
    Held,
}

/// Something on its way to the store.
pub(crate) struct Delivery {
    pub(crate) worker: usize,
    prefix: Prefix,
    op: Op,
    answer: Option<oneshot::Sender<Outcome>>,
}

/// The time limits of the real connections.
const CALL: Duration = Duration::from_secs(3);
const BULK_CALL: Duration = Duration::from_secs(10);

impl World {
    /// Delivers to the store what has arrived by now.
    pub(crate) fn deliver(&mut self) {
        while let Some(entry) = self.deliveries.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let delivery = entry.remove();
            self.carry_out(delivery);
        }
    }

    fn carry_out(&mut self, delivery: Delivery) {
        let Delivery { worker, prefix, op, answer } = delivery;
        let keys = self.store.entry(prefix.to_string()).or_default();
        let before = keys.clone();
        let (what, next) = (What::of(&op), next_fence(&op));
        let outcome = keys.execute(op);
        let after = keys.clone();
        if let Some(what) = what {
            let accepted = matches!(outcome, Outcome::Done { .. } | Outcome::Compared(_));
            self.records.push(Record {
                at: self.now,
                worker,
                prefix: prefix.to_string(),
                what,
                next,
                accepted,
                before,
                after,
            });
            if accepted && what != What::Compare {
                self.touched(&prefix, Some(worker));
            }
        }
        if let Some(answer) = answer {
            // An error means that the worker has crashed or given up.
            let _ = answer.send(outcome);
        }
    }

    /// Tells the workers whose connection is up that somebody else changed the keys of a prefix.
    pub(crate) fn touched(&mut self, prefix: &Prefix, by: Option<usize>) {
        for ((worker, of), news) in &self.news {
            if of == prefix.as_str() && by != Some(*worker) && self.links[*worker].store == Link::Up {
                news.send_modify(|news| news.touched += 1);
            }
        }
    }

    /// The store loses everything, or goes back to an earlier state.
    pub(crate) fn replace_store(&mut self, with: BTreeMap<String, Model>) {
        self.store = with;
        self.store_lives += 1;
        let prefixes: Vec<String> = self.news.keys().map(|(_, prefix)| prefix.clone()).collect();
        for prefix in prefixes {
            self.touched(&prefix.parse().unwrap(), None);
        }
    }

    /// Changes how a worker reaches the store; what was held is delivered when the link is up again.
    pub(crate) fn set_store_link(&mut self, worker: usize, link: Link) {
        let before = std::mem::replace(&mut self.links[worker].store, link);
        if before == link {
            return;
        }
        if link == Link::Up {
            let held: Vec<_> = self.held.extract_if(.., |delivery| delivery.worker == worker).collect();
            for delivery in held {
                let at = self.now + self.dice.of(1..20);
                self.post(at, delivery);
            }
        }
        for ((of, _), news) in &self.news {
            if *of == worker && link != Link::Held {
                news.send_modify(|news| news.connection += 1);
            }
        }
    }

    fn post(&mut self, at: u64, delivery: Delivery) {
        self.last_number += 1;
        self.deliveries.insert((at, self.last_number), delivery);
    }

    /// Sends an operation; `None`: it was not sent.
    fn send(&mut self, worker: usize, prefix: Prefix, op: Op) -> Option<oneshot::Receiver<Outcome>> {
        let (answer, answered) = oneshot::channel();
        let latency = self.dice.of(1..4) + if self.store_is_slow { self.dice.of(0..1500) } else { 0 };
        let at = self.now + latency;
        let delivery = |answer| Delivery { worker, prefix, op, answer };
        match self.links[worker].store {
            Link::Refused => return None,
            Link::Up => self.post(at, delivery(Some(answer))),
            Link::Deaf => self.post(at, delivery(None)),
            Link::Mute => {}
            Link::Held => self.held.push(delivery(Some(answer))),
        }
        Some(answered)
    }
}

/// The store, as one worker reaches it.
#[derive(Clone)]
pub(crate) struct WorkerStore {
    pub(crate) world: Shared,
    pub(crate) worker: usize,
}

impl fmt::Debug for WorkerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerStore").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl OpenStore for WorkerStore {
    fn open(&self, _url: &StoreUrl) -> Result<Arc<dyn FlagStore>, StoreError> {
        Ok(Arc::new(self.clone()))
    }
}

impl FlagStore for WorkerStore {
    fn execute(&self, prefix: &Prefix, op: Op) -> BoxFuture<'static, Outcome> {
        let (world, worker, prefix) = (Arc::clone(&self.world), self.worker, prefix.clone());
        Box::pin(async move {
            let limit = match op {
                Op::Look | Op::Write(_) | Op::Purge(_) | Op::Read(_) => CALL,
                Op::Load { .. } | Op::Compare { .. } | Op::List => BULK_CALL,
            };
            let Some(answered) = world.lock().unwrap().send(worker, prefix, op) else {
                tokio::time::sleep(Duration::from_millis(1)).await;
                return Outcome::Failed(StoreError::NotDone("connection refused".to_owned()));
            };
            let unknown = || Outcome::Failed(StoreError::Unknown("the store did not answer in time".to_owned()));
            match tokio::time::timeout(limit, answered).await {
                Ok(Ok(outcome)) => {
                    let is_open = matches!(world.lock().unwrap().links[worker].store, Link::Up);
                    if is_open { outcome } else { unknown() }
                }
                // Without an answer the connection is given up in time, as without one at all.
                Ok(Err(_)) => {
                    tokio::time::sleep(limit).await;
                    unknown()
                }
                Err(_) => unknown(),
            }
        })
    }

    fn news(&self, prefix: &Prefix) -> watch::Receiver<StoreNews> {
        let mut world = self.world.lock().unwrap();
        world.news.entry((self.worker, prefix.to_string())).or_default().subscribe()
    }
}
