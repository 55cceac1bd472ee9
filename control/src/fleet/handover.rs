//! Moving an environment without a gap: the next owner gets stream and data ready before the last one stops.
//!
//! *Warming*: the next owner holds a warm grant, streams, and writes nothing; the holder serves. *Promoted*: the next
//! owner holds the serve grant; the last one keeps stream and data, fenced, until the new one has reported serving, and
//! takes over again if that does not happen in time. Then it is told to stop. Whoever is lost meanwhile, one of the two
//! goes on.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::{EnvironmentName, EnvironmentReport, Grant, GrantState, Intent, Timestamp, WorkerName};

use super::Fleet;
use super::backoff::Backoff;
use super::boundary::Effect;
use super::environment::{Environment, MoveReason};
use super::event::Note;
use super::worker::Worker;

/// How long the next owner may take to get ready: a connection, and a full payload within its own time limit.
const WARM_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it may take to claim the prefix, compare, and say so.
const PROMOTION_TIMEOUT: Duration = Duration::from_secs(15);
/// For how long a worker that did not manage a handover is not asked again: the first time, doubling, and at most.
const SHORTEST_SHUNNED: Duration = Duration::from_secs(30);
const LONGEST_SHUNNED: Duration = Duration::from_mins(10);

/// A move that is under way.
#[derive(Debug, Clone)]
pub(super) enum Handover {
    /// The next owner gets ready.
    Warming {
        /// The next owner.
        to: WorkerName,
        /// Its warm grant.
        grant: Grant,
        /// Why the environment moves.
        reason: MoveReason,
        /// When it is given up.
        deadline: Timestamp,
    },
    /// The next owner has the serve grant; the last one is the record's predecessor.
    Promoted {
        /// When it is undone.
        deadline: Timestamp,
    },
}

impl Handover {
    /// A promotion that happened, or of which is known, at that time.
    pub(super) fn promoted(at: Timestamp) -> Self {
        Self::Promoted { deadline: at.after(PROMOTION_TIMEOUT) }
    }

    /// When it is given up, or undone.
    pub(super) fn deadline(&self) -> Timestamp {
        match self {
            Self::Warming { deadline, .. } | Self::Promoted { deadline } => *deadline,
        }
    }
}

/// Why a handover comes to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Abandonment {
    /// The next owner was not ready, or did not serve, in time.
    Timeout,
    /// The next owner is gone, or leaves itself.
    Lost,
    /// The next owner cannot carry the environment out.
    Rejected,
    /// It is no longer wanted.
    Superseded,
}

impl Abandonment {
    fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
        }
    }
}

/// Workers that did not manage to take an environment over, and until when they are not asked again.
#[derive(Debug, Clone, Default)]
pub(super) struct Shunned(BTreeMap<WorkerName, Backoff>);

impl Shunned {
    /// Notes a failure; returns when the worker may be asked again.
    fn add(&mut self, now: Timestamp, worker: WorkerName) -> Timestamp {
        self.0.retain(|known, backoff| *known == worker || now.since(backoff.next()) < LONGEST_SHUNNED);
        self.0.entry(worker).or_insert(Backoff::new(SHORTEST_SHUNNED, LONGEST_SHUNNED)).happened(now)
    }

    /// It managed after all, or is known no more.
    pub(super) fn forgive(&mut self, worker: &WorkerName) {
        self.0.remove(worker);
    }

    /// Those that are not to be asked now.
    pub(super) fn at(&self, now: Timestamp) -> impl Iterator<Item = &WorkerName> {
        self.0.iter().filter(move |(_, backoff)| backoff.next() > now).map(|(worker, _)| worker)
    }
}

impl Environment {
    /// Where it is, or soon will be: what counts for the load.
    pub(super) fn place(&self) -> Option<&WorkerName> {
        match &self.handover {
            Some(Handover::Warming { to, .. }) => Some(to),
            Some(Handover::Promoted { .. }) | None => self.holder.as_ref(),
        }
    }

    /// The worker besides the holder that has its stream and data.
    pub(super) fn standby(&self) -> Option<&WorkerName> {
        match &self.handover {
            Some(Handover::Warming { to, .. }) => Some(to),
            Some(Handover::Promoted { .. }) => self.record.predecessor.as_ref().map(|last| &last.worker),
            None => None,
        }
    }
}

impl Fleet {
    /// How many handovers may begin now.
    pub(super) fn free_handovers(&self) -> usize {
        self.settings.max_handovers.saturating_sub(self.handovers.len())
    }

    /// Lets another worker get an environment ready.
    pub(super) fn begin_handover(&mut self, name: &EnvironmentName, to: &WorkerName, reason: MoveReason) {
        let Some(grant) = self.next_grant(name, Intent::Warm) else { return };
        let deadline = self.now.after(WARM_TIMEOUT);
        let Some(environment) = self.environments.get_mut(name) else { return };
        let (epoch, from) = (grant.epoch, environment.holder.clone());
        environment.handover = Some(Handover::Warming { to: to.clone(), grant, reason, deadline });
        self.handovers.insert(name.clone());
        self.wakes.insert((deadline, name.clone()));
        self.tell_of(name, to);
        self.account(name);
        self.gathered.touched_workers.insert(to.clone());
        if let Some(from) = from {
            let (environment, to, reason) = (name.clone(), to.clone(), reason.as_str());
            let note = Note::HandoverBegun { environment, from, to, epoch, reason };
            self.gathered.effects.push(Effect::Note(note));
        }
    }

    /// The next owner says how far it is.
    pub(super) fn warm_reported(&mut self, name: &EnvironmentName, report: &EnvironmentReport) {
        let Some(environment) = self.environments.get(name) else { return };
        let is_ready = report.grant_state == GrantState::Synchronized
            && report.generation == environment.record.generation
            && report.changed_environment_id.is_none();
        if is_ready {
            self.promote(name);
        }
    }

    /// The standby becomes the owner.
    fn promote(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        let Some(Handover::Warming { to, reason, .. }) = environment.handover.take() else { return };
        // Durable, so that a restart of control in this moment forgets neither of the two.
        environment.record.predecessor = environment.record.grant.clone();
        environment.handover = Some(Handover::promoted(self.now));
        environment.moving = Some(reason);
        self.wakes.insert((self.now.after(PROMOTION_TIMEOUT), name.clone()));
        self.part_with(name);
        self.grant(name, &to, Intent::Serve);
    }

    /// The new owner serves: the last one is told to stop.
    pub(super) fn complete_handover(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        if let Some(holder) = &environment.holder {
            environment.shunned.forgive(holder);
        }
        self.end_handover(name);
        // What was asked of it meanwhile is seen to now.
        self.gathered.to_plan.insert(name.clone());
    }

    /// The holder is lost: if somebody else has stream and data, that one goes on.
    pub(super) fn succeed(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get(name).filter(|one| one.handover.is_some()) else { return };
        let serves = environment.wanted() == Some(Intent::Serve);
        let heir = environment.standby().filter(|heir| serves && self.is_connected(heir)).cloned();
        self.end_handover(name);
        if let Some(heir) = heir {
            self.grant(name, &heir, Intent::Serve);
        }
    }

    /// Nobody gets ready, or keeps ready, for an environment any more; who did is told to stop.
    pub(super) fn end_handover(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        let standby = environment.standby().cloned();
        if environment.handover.take().is_none() {
            return;
        }
        if environment.record.predecessor.take().is_some() {
            self.gathered.unsaved.insert(name.clone());
        }
        self.handovers.remove(name);
        self.gathered.handovers_due = true;
        self.account(name);
        if let Some(standby) = standby {
            self.gathered.touched_workers.insert(standby.clone());
            self.tell_of(name, &standby);
        }
    }

    /// The next owner does not get the environment; the holder, or the last one, goes on.
    pub(super) fn abandon_handover(&mut self, name: &EnvironmentName, why: Abandonment) {
        let Some(environment) = self.environments.get(name) else { return };
        let (to, undone_by, is_promoted) = match &environment.handover {
            None => return,
            Some(Handover::Warming { to, .. }) => (Some(to.clone()), None, false),
            Some(Handover::Promoted { .. }) => (
                environment.holder.clone(),
                environment
                    .standby()
                    .filter(|last| why != Abandonment::Superseded && self.is_connected(last))
                    .cloned(),
                true,
            ),
        };
        if let (Some(to), Abandonment::Timeout | Abandonment::Rejected) = (&to, why)
            && let Some(environment) = self.environments.get_mut(name)
        {
            let again = environment.shunned.add(self.now, to.clone());
            self.wakes.insert((again, name.clone()));
        }
        let stays = is_promoted && undone_by.is_none();
        if let Some(to) = to.filter(|_| !stays) {
            let note = Note::HandoverAbandoned { environment: name.clone(), to, reason: why.as_str() };
            self.gathered.effects.push(Effect::Note(note));
        }
        self.end_handover(name);
        if let Some(last) = undone_by {
            if let Some(environment) = self.environments.get_mut(name) {
                environment.moving = Some(MoveReason::Undone);
            }
            self.grant(name, &last, Intent::Serve);
        }
    }

    /// Time in which control stood still is no time that a handover took.
    pub(super) fn prolong_handovers(&mut self, gap: Duration) {
        for name in &self.handovers {
            if let Some(Handover::Warming { deadline, .. } | Handover::Promoted { deadline }) =
                self.environments.get_mut(name).and_then(|environment| environment.handover.as_mut())
            {
                *deadline = deadline.after(gap);
                self.wakes.insert((*deadline, name.clone()));
            }
        }
    }

    /// Sees to a handover whose situation may have changed; true if there is none, or none any more.
    pub(super) fn reconsider_handover(&mut self, name: &EnvironmentName) -> bool {
        let Some(environment) = self.environments.get(name) else { return true };
        let serves = environment.wanted() == Some(Intent::Serve);
        match &environment.handover {
            None => return true,
            Some(_) if !serves => self.abandon_handover(name, Abandonment::Superseded),
            Some(Handover::Warming { to, reason, deadline, .. }) => {
                let selector = &environment.record.spec.worker_selector;
                let holder = environment.holder.as_ref().and_then(|holder| self.workers.get(holder));
                let holder_stays = holder.is_some_and(|holder| match reason {
                    MoveReason::Draining => !holder.is_to_be_emptied(),
                    MoveReason::Selector => holder.carries(selector),
                    MoveReason::LeaseExpired
                    | MoveReason::Disconnected
                    | MoveReason::Goodbye
                    | MoveReason::Rejected
                    | MoveReason::LaterGrant
                    | MoveReason::Rebalanced
                    | MoveReason::Undone
                    | MoveReason::Forgotten => false,
                });
                let takes = |worker: &Worker| worker.may_take_more() && worker.carries(selector);
                if !self.workers.get(to).is_some_and(takes) {
                    self.abandon_handover(name, Abandonment::Lost);
                } else if environment.is_parked(to, Intent::Serve) {
                    self.abandon_handover(name, Abandonment::Rejected);
                } else if *deadline <= self.now {
                    self.abandon_handover(name, Abandonment::Timeout);
                } else if holder_stays {
                    self.abandon_handover(name, Abandonment::Superseded);
                } else {
                    return false;
                }
            }
            Some(Handover::Promoted { deadline, .. }) => {
                let rejected =
                    environment.holder.as_ref().is_some_and(|holder| environment.is_parked(holder, Intent::Serve));
                if rejected {
                    self.abandon_handover(name, Abandonment::Rejected);
                } else if *deadline <= self.now {
                    self.abandon_handover(name, Abandonment::Timeout);
                } else {
                    return false;
                }
            }
        }
        true
    }

    /// A worker is lost: what it got ready, or kept ready, is no longer so.
    pub(super) fn lose_standby(&mut self, worker: &WorkerName) {
        let of_worker = |name: &&EnvironmentName| {
            self.environments.get(*name).is_some_and(|environment| environment.standby() == Some(worker))
        };
        let names: Vec<_> = self.handovers.iter().filter(of_worker).cloned().collect();
        for name in names {
            let promoted = self
                .environments
                .get(&name)
                .is_some_and(|environment| matches!(environment.handover, Some(Handover::Promoted { .. })));
            if promoted {
                // The new owner is on its own: there is nobody who could take over again.
                self.end_handover(&name);
            } else {
                self.abandon_handover(&name, Abandonment::Lost);
            }
            self.gathered.to_plan.insert(name);
        }
    }
}
