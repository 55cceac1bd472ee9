//! Which environments need a grant or another place, and seeing to it.
//!
//! Three things, in this order: orphans get a worker at once, what its worker shall not keep is handed over, and what is
//! above a worker's share is handed over too, while nothing else is going on. Of handovers few are under way at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use flotilla_proto::{EnvironmentName, Intent, Timestamp, WorkerName};

use super::Fleet;
use super::boundary::Effect;
use super::environment::{Environment, MoveReason};
use super::placement::{Candidate, Place, Seeker, bound, excess, place};
use super::worker::{Leaving, Link, Worker};
use flotilla_proto::session::ControlMessage;

/// From so many orphans on, a worker that joins does not get all of them at once: others may be about to join too.
const MANY_ORPHANS: usize = 50;
/// What does get a worker at once, so that there is something to load meanwhile: one in so many, and at most so many. For
/// each that is loaded another one may follow.
const HEAD_START_ONE_IN: usize = 4;
const LONGEST_HEAD_START: usize = 100;
/// How long after the last one has joined they wait, and how long at most.
const JOIN_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_JOIN_PAUSE: Duration = Duration::from_secs(5);
/// For how long a worker must be above its share before anything moves for that, and when to look again if none may move
/// yet.
const UNEVEN: Duration = Duration::from_secs(1);

/// Whether an environment is where it should be.
enum Standing {
    /// It is.
    Keep,
    /// It shall go, and its holder serves it until then.
    HandOver(MoveReason),
    /// It shall go at once, if there is another place: its holder does nothing for it.
    GoAtOnce(MoveReason),
}

/// Orphans that wait for more workers to join.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gathering {
    began: Timestamp,
    until: Timestamp,
    /// How many need not wait.
    head_start: usize,
}

impl Fleet {
    /// Brings the grants of all environments whose situation changed in line with what is wanted.
    pub(super) fn plan(&mut self) {
        let mut orphans = BTreeSet::new();
        for name in std::mem::take(&mut self.gathered.to_plan) {
            if self.reconsider(&name) {
                orphans.insert(name);
            }
        }
        if self.gathering.is_some_and(|gathering| gathering.until <= self.now) {
            self.gathering = None;
            self.gathered.retry_unplaced = true;
            // Nor has anything been balanced meanwhile.
            self.gathered.handovers_due = true;
        }
        // Room that came free is offered to those that wait, unless they wait for more of it.
        if std::mem::take(&mut self.gathered.retry_unplaced) && self.may_place() {
            for name in self.to_retry() {
                if self.reconsider(&name) {
                    orphans.insert(name);
                }
            }
        }
        self.place_orphans(orphans);
        if std::mem::take(&mut self.gathered.handovers_due) {
            self.hand_over();
            self.rebalance();
        }
        self.tell_the_stuck();
    }

    /// Whether somebody waits for a place, and somebody is there.
    fn may_place(&self) -> bool {
        !self.unplaced.is_empty() && self.workers.values().any(|worker| worker.session().is_some())
    }

    /// A worker has joined: when many wait for a place, they wait a little longer, so that not all go to the first.
    pub(super) fn gather_orphans(&mut self) {
        if self.unplaced.len() < MANY_ORPHANS {
            return;
        }
        let (began, head_start) = match self.gathering {
            Some(Gathering { began, head_start, .. }) => (began, head_start),
            None => (self.now, (self.unplaced.len() / HEAD_START_ONE_IN).min(LONGEST_HEAD_START)),
        };
        let until = self.now.after(JOIN_PAUSE).min(began.after(LONGEST_JOIN_PAUSE));
        self.gathering = Some(Gathering { began, until, head_start });
    }

    /// Those that wait and may be given a worker now.
    fn to_retry(&self) -> Vec<EnvironmentName> {
        match self.gathering {
            None => self.unplaced.iter().cloned().collect(),
            Some(Gathering { head_start, .. }) => {
                self.unplaced.iter().filter(|name| self.has_carrier(name)).take(head_start).cloned().collect()
            }
        }
    }

    /// Whether there is a worker with the labels that it selects.
    fn has_carrier(&self, name: &EnvironmentName) -> bool {
        let Some(environment) = self.environments.get(name) else { return false };
        let selector = &environment.record.spec.worker_selector;
        self.workers.values().any(|worker| worker.is_open() && worker.carries(selector))
    }

    /// Whoever has loaded one, while many wait for more workers, can load another.
    pub(super) fn one_is_loaded(&mut self) {
        if let Some(gathering) = &mut self.gathering {
            gathering.head_start = (gathering.head_start + 1).min(LONGEST_HEAD_START);
            self.gathered.retry_unplaced = true;
        }
    }

    /// Those of the orphans that need not wait for more workers; the others do.
    fn take_head_start(&mut self, orphans: BTreeSet<EnvironmentName>) -> BTreeSet<EnvironmentName> {
        let Some(mut gathering) = self.gathering else { return orphans };
        let (mut at_once, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for name in orphans {
            let goes = at_once.len() < gathering.head_start && self.has_carrier(&name);
            if goes {
                at_once.insert(name)
            } else {
                waiting.insert(name)
            };
        }
        gathering.head_start -= at_once.len();
        self.gathering = Some(gathering);
        self.gathered.touched.extend(waiting.iter().cloned());
        self.unplaced.extend(waiting);
        at_once
    }

    /// Sees to one environment; true if a worker is to be found for it now.
    fn reconsider(&mut self, name: &EnvironmentName) -> bool {
        let Some(environment) = self.environments.get(name) else { return false };
        if environment.holder.is_none() {
            self.succeed(name);
        }
        let is_handed_over = !self.reconsider_handover(name);
        let Some(environment) = self.environments.get(name) else { return false };
        let Some(intent) = environment.wanted() else {
            self.let_go(name);
            self.unplaced.remove(name);
            self.to_leave.remove(name);
            return false;
        };
        let Some(holder) = environment.holder.clone() else {
            self.to_leave.remove(name);
            return true;
        };
        match self.standing(environment, &holder, intent) {
            Standing::GoAtOnce(reason) if !is_handed_over => {
                self.set_moving(name, reason);
                return true;
            }
            Standing::HandOver(reason) if !is_handed_over => {
                self.to_leave.insert(name.clone(), reason);
                self.gathered.handovers_due = true;
            }
            Standing::Keep | Standing::GoAtOnce(_) | Standing::HandOver(_) => {
                self.to_leave.remove(name);
                self.unplaced.remove(name);
            }
        }
        self.renew(name, &holder, intent);
        false
    }

    /// A new grant where it is, if one is due or something else is wanted. Whether it was.
    fn renew(&mut self, name: &EnvironmentName, holder: &WorkerName, intent: Intent) -> bool {
        let Some(environment) = self.environments.get(name) else { return false };
        let is_due = environment.regrant_at.is_some_and(|at| at <= self.now);
        let renew = is_due || environment.granted_intent() != Some(intent);
        if renew {
            self.grant(name, holder, intent);
        }
        renew
    }

    fn set_moving(&mut self, name: &EnvironmentName, reason: MoveReason) {
        if let Some(environment) = self.environments.get_mut(name) {
            environment.moving = Some(reason);
        }
    }

    fn standing(&self, environment: &Environment, holder: &WorkerName, intent: Intent) -> Standing {
        let Some(worker) = self.workers.get(holder) else { return Standing::GoAtOnce(MoveReason::Disconnected) };
        if environment.is_parked(holder, intent) && !self.serves_earlier(environment) {
            return Standing::GoAtOnce(MoveReason::Rejected);
        }
        match intent {
            Intent::Release | Intent::Purge => Standing::Keep,
            // One that is away for a moment can hand nothing over.
            Intent::Warm | Intent::Serve if worker.session().is_none() => Standing::Keep,
            Intent::Warm | Intent::Serve => {
                if !worker.carries(&environment.record.spec.worker_selector) {
                    return Standing::HandOver(MoveReason::Selector);
                }
                if worker.is_to_be_emptied() {
                    return Standing::HandOver(MoveReason::Draining);
                }
                Standing::Keep
            }
        }
    }

    /// Whether the holder goes on with an earlier generation under the present grant: better than a gap.
    fn serves_earlier(&self, environment: &Environment) -> bool {
        let Some((holder, granted)) = environment.holder.as_ref().zip(environment.record.grant.as_ref()) else {
            return false;
        };
        let key = (environment.record.name.clone(), environment.record.uid.clone());
        let told = self.workers.get(holder).and_then(|worker| worker.told.get(&key));
        told.and_then(|told| told.in_force.as_ref()).is_some_and(|(id, _)| *id == granted.grant.id)
    }

    fn place_orphans(&mut self, names: BTreeSet<EnvironmentName>) {
        let names = self.take_head_start(names);
        if names.is_empty() {
            return;
        }
        for (name, worker) in self.find_places(names.iter()) {
            let Some(environment) = self.environments.get(&name) else { continue };
            let (wanted, holder) = (environment.wanted(), environment.holder.clone());
            let Some(intent) = wanted else { continue };
            match (worker, holder) {
                (Some(worker), _) => self.grant(&name, &worker, intent),
                // It stays where it is for want of a better place, but learns of a new intent.
                (None, Some(holder)) => {
                    let reason = environment.moving;
                    if self.renew(&name, &holder, intent) {
                        // Its holder, who does nothing for it, hands nothing over; why it shall go stands.
                        self.to_leave.remove(&name);
                        if let Some(environment) = self.environments.get_mut(&name) {
                            environment.moving = reason;
                        }
                    }
                    self.unplaced.insert(name);
                }
                (None, None) => {
                    self.unplaced.insert(name.clone());
                    self.gathered.touched.insert(name);
                }
            }
        }
    }

    /// Begins to hand over what its holder shall not keep, as far as there are places.
    fn hand_over(&mut self) {
        if self.to_leave.is_empty() || self.free_handovers() == 0 {
            return;
        }
        let names: Vec<_> = self.to_leave.keys().cloned().collect();
        let mut places = self.find_places(names.iter());
        // Those that nobody has managed to take over yet do not hold the others up.
        places.sort_by_cached_key(|(name, _)| self.failed_takers(name));
        for (name, worker) in places {
            let Some(reason) = self.to_leave.get(&name).copied() else { continue };
            match worker {
                Some(worker) => {
                    self.unplaced.remove(&name);
                    self.move_to(&name, &worker, reason);
                }
                None if reason == MoveReason::Selector && self.failed_takers(&name) == 0 => {
                    // Where it may not be it does not stay, be there another place or not.
                    self.gathered.retry_unplaced = true;
                    self.to_leave.remove(&name);
                    self.let_go(&name);
                    self.set_moving(&name, reason);
                    self.unplaced.insert(name);
                }
                None => {
                    self.unplaced.insert(name);
                }
            }
        }
    }

    /// How many workers are not asked now because they did not manage to take it over.
    fn failed_takers(&self, name: &EnvironmentName) -> usize {
        self.environments.get(name).map_or(0, |environment| environment.shunned.at(self.now).count())
    }

    /// Hands an environment over if that is not too much at once, or moves it right away if there is nothing to hand over.
    fn move_to(&mut self, name: &EnvironmentName, worker: &WorkerName, reason: MoveReason) {
        let Some(environment) = self.environments.get(name) else { return };
        if environment.is_empty_handed(&self.settings.grant_ids) {
            self.set_moving(name, reason);
            self.grant(name, worker, Intent::Serve);
        } else if self.free_handovers() > 0 {
            self.to_leave.remove(name);
            self.begin_handover(name, worker, reason);
        }
    }

    /// Hands over what workers have above their share. Not while anybody may come back soon: that would move twice.
    fn rebalance(&mut self) {
        let away = |worker: &Worker| matches!(worker.link, Link::Disconnected { .. });
        if self.workers.values().any(away) || self.gathering.is_some() {
            self.uneven_since = None;
            return;
        }
        if self.free_handovers() == 0 {
            return;
        }
        if !self.is_uneven() {
            self.uneven_since = None;
            return;
        }
        // It may pass, and some may have moved too lately to move again.
        self.look_again_at = Some(self.now.after(UNEVEN));
        if self.now.since(*self.uneven_since.get_or_insert(self.now)) < UNEVEN {
            return;
        }
        for (name, worker) in excess(&self.candidates(), |worker| self.movable(worker)) {
            self.move_to(&name, &worker, MoveReason::Rebalanced);
        }
    }

    fn is_uneven(&self) -> bool {
        let candidates = self.candidates();
        let share = bound(&candidates, 0);
        candidates.iter().any(|one| one.load > share)
    }

    /// What a worker has that may move for the sake of balance.
    fn movable(&self, worker: &WorkerName) -> Vec<Seeker<'_>> {
        let Some(worker) = self.workers.get(worker) else { return Vec::new() };
        let may_move = |name: &&EnvironmentName| {
            self.environments.get(*name).is_some_and(|environment| {
                environment.handover.is_none()
                    && environment.wanted() == Some(Intent::Serve)
                    && environment.granted_intent() == Some(Intent::Serve)
                    && environment.regrant_at.is_none()
                    && environment.stay.next() <= self.now
            })
        };
        worker.holds.iter().filter(may_move).filter_map(|name| self.seeker(name)).collect()
    }

    /// Tells workers that wait to leave in vain.
    fn tell_the_stuck(&mut self) {
        let (handovers, unplaced) = (&self.handovers, &self.unplaced);
        for worker in self.workers.values_mut() {
            let Link::Connected(session) = &worker.link else { continue };
            let holds = &worker.holds;
            let is_stuck = |name| unplaced.contains(name) && !handovers.contains(name);
            if worker.leaving == Leaving::Waits && !holds.is_empty() && holds.iter().all(is_stuck) {
                worker.leaving = Leaving::Stuck;
                let send = Effect::Send { session: session.id, message: ControlMessage::NothingMoves };
                self.gathered.effects.push(send);
            }
        }
    }

    fn find_places<'a>(
        &self,
        names: impl Iterator<Item = &'a EnvironmentName>,
    ) -> Vec<(EnvironmentName, Option<WorkerName>)> {
        let seekers: Vec<_> = names.filter_map(|name| self.seeker(name)).collect();
        place(&self.candidates(), &seekers)
    }

    fn candidates(&self) -> Vec<Candidate<'_>> {
        self.workers
            .iter()
            .filter(|(_, worker)| worker.is_open())
            .filter_map(|(name, worker)| {
                let about = worker.about.as_ref()?;
                let Worker { count, load, .. } = worker;
                let (labels, capacity) = (&about.labels, about.capacity);
                Some(Candidate { worker: name, labels, capacity, count: *count, load: *load })
            })
            .collect()
    }

    fn seeker(&self, name: &EnvironmentName) -> Option<Seeker<'_>> {
        let (environment, known) = self.environments.get_key_value(name)?;
        let intent = known.wanted()?;
        let place = match intent {
            Intent::Warm | Intent::Serve => Place::Selected(&known.record.spec.worker_selector),
            Intent::Release | Intent::Purge => Place::Anywhere,
        };
        let mut without: BTreeSet<_> =
            known.parked.keys().filter(|worker| known.is_parked(worker, intent)).collect();
        if known.holder.is_some() {
            without.extend(known.shunned.at(self.now));
        }
        // Its holder is not another place.
        without.extend(known.holder.as_ref());
        Some(Seeker { environment, weight: known.weight, place, without })
    }
}
