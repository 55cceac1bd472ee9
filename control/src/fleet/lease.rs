//! How long a worker keeps its environments when it is not heard of.

use std::time::Duration;

use flotilla_proto::WorkerName;
use flotilla_proto::session::GoAway;

use super::Fleet;
use super::boundary::{Scheduling, SessionId};
use super::environment::MoveReason;
use super::event::WorkerChange;
use super::worker::{Leaving, Link, Worker};

/// A step that comes so late means that control itself stood still, and heard nobody meanwhile.
const STANDSTILL: Duration = Duration::from_secs(2);
/// From so many sessions that close together on it may be the network, or ourselves.
const FEWEST_OF_MASS_CLOSURE: usize = 3;
/// For so long a worker that is gone is still shown.
const GONE_IS_SHOWN: Duration = Duration::from_hours(24);

impl Fleet {
    /// A session's connection is gone, and nobody said goodbye.
    pub(super) fn session_closed(&mut self, session: SessionId) {
        let Some(name) = self.sessions.remove(&session) else { return };
        self.fail_questions_of(session);
        let until = self.now.after(self.settings.reassign_grace);
        if let Some(worker) = self.workers.get_mut(&name) {
            worker.link = Link::Disconnected { until, reason: MoveReason::Disconnected };
            self.gathered.touched.extend(worker.holds.iter().cloned());
            self.note_worker(&name, WorkerChange::Disconnected);
        }
        self.closures.push((self.now, name));
        self.apply_lease_to_mass_closure();
    }

    /// When many sessions close together, it is hardly the workers: they get the whole lease to come back.
    fn apply_lease_to_mass_closure(&mut self) {
        let (now, grace) = (self.now, self.settings.reassign_grace);
        let workers = &self.workers;
        self.closures.retain(|(at, name)| {
            let back = workers.get(name).is_none_or(|worker| worker.session().is_some());
            now.since(*at) <= grace && !back
        });
        let closed = self.closures.len();
        if closed < FEWEST_OF_MASS_CLOSURE || closed * 3 <= closed + self.sessions.len() {
            return;
        }
        for (_, name) in &self.closures {
            let Some(worker) = self.workers.get_mut(name) else { continue };
            let Some(about) = &worker.about else { continue };
            let end_of_lease = about.last_heard.after(self.settings.lease_duration);
            if let Link::Disconnected { until, reason } = &mut worker.link
                && *until < end_of_lease
            {
                *until = end_of_lease;
                *reason = MoveReason::LeaseExpired;
            }
        }
    }

    /// Ends what time has ended.
    pub(super) fn check_leases(&mut self) {
        self.forgive_standstill();
        let lease = self.settings.lease_duration;
        let mut silent = Vec::new();
        let mut lost = Vec::new();
        for (name, worker) in &self.workers {
            match &worker.link {
                Link::Connected(session) => {
                    if worker.about.as_ref().is_some_and(|about| self.now.since(about.last_heard) >= lease) {
                        silent.push((name.clone(), session.id));
                    }
                }
                Link::Disconnected { until, reason } if *until <= self.now => lost.push((name.clone(), *reason)),
                Link::Disconnected { .. } | Link::Gone { .. } => {}
            }
        }
        for (name, session) in silent {
            let message = format!("nothing was heard of worker \"{name}\" for {lease:?}");
            self.go_away(session, GoAway::LeaseExpired, message);
            self.sessions.remove(&session);
            self.fail_questions_of(session);
            self.lose(&name, MoveReason::LeaseExpired);
        }
        for (name, reason) in lost {
            self.lose(&name, reason);
        }
        self.forget_long_gone();
    }

    /// While we stood still we read nothing, so nobody's silence counts.
    fn forgive_standstill(&mut self) {
        let gap = self.now.since(self.last_tick);
        self.last_tick = self.now;
        if gap <= STANDSTILL {
            return;
        }
        for worker in self.workers.values_mut() {
            if let Some(about) = &mut worker.about {
                about.last_heard = about.last_heard.after(gap).min(self.now);
            }
            if let Link::Disconnected { until, .. } = &mut worker.link {
                *until = until.after(gap);
            }
        }
        self.prolong_handovers(gap);
    }

    /// A worker holds nothing any more.
    pub(super) fn lose(&mut self, name: &WorkerName, reason: MoveReason) {
        let Some(worker) = self.workers.get_mut(name) else { return };
        let held = std::mem::take(&mut worker.holds);
        if matches!(std::mem::replace(&mut worker.link, Link::Gone { since: self.now }), Link::Gone { .. }) {
            return;
        }
        worker.leaving = Leaving::No;
        self.gathered.handovers_due = true;
        self.lose_standby(name);
        for environment in held {
            if let Some(lost) = self.environments.get_mut(&environment) {
                lost.holder = None;
                lost.moving = Some(reason);
            }
            self.account(&environment);
            self.gathered.to_plan.insert(environment);
        }
        self.note_worker(name, WorkerChange::Gone(reason.as_str()));
    }

    fn forget_long_gone(&mut self) {
        let is_long_gone = |(_, worker): &(&WorkerName, &Worker)| match worker.link {
            Link::Connected(_) | Link::Disconnected { .. } => false,
            Link::Gone { since } => {
                self.now.since(since) >= GONE_IS_SHOWN && worker.scheduling == Scheduling::Active
            }
        };
        let gone: Vec<_> = self.workers.iter().filter(is_long_gone).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.remove_worker(&name);
        }
    }
}
