//! Which environments need a grant, and giving it to them.

use std::collections::BTreeSet;

use flotilla_proto::{EnvironmentName, Intent, WorkerName};

use super::Fleet;
use super::environment::{Environment, MoveReason};
use super::placement::{Candidate, Orphan, Place, place};

/// Whether an environment is where it should be.
enum Standing {
    /// It is.
    Keep,
    /// Better elsewhere, if there is another place.
    PreferElsewhere(MoveReason),
    /// Its holder may not have it.
    MustLeave(MoveReason),
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
        // Room that came free is offered to those that wait.
        if std::mem::take(&mut self.gathered.retry_unplaced) && self.has_room() {
            for name in self.unplaced.clone() {
                if self.reconsider(&name) {
                    orphans.insert(name);
                }
            }
        }
        self.place_orphans(&orphans);
    }

    fn has_room(&self) -> bool {
        !self.unplaced.is_empty() && self.workers.values().any(|worker| worker.session().is_some())
    }

    /// Sees to one environment; true if a place is to be found for it.
    fn reconsider(&mut self, name: &EnvironmentName) -> bool {
        let Some(environment) = self.environments.get(name) else { return false };
        let Some(intent) = environment.wanted() else {
            self.let_go(name);
            self.unplaced.remove(name);
            return false;
        };
        let Some(holder) = environment.holder.clone() else { return true };
        let elsewhere = match self.standing(environment, &holder, intent) {
            Standing::Keep => None,
            Standing::PreferElsewhere(reason) => Some(reason),
            Standing::MustLeave(reason) => {
                self.let_go(name);
                self.set_moving(name, reason);
                return true;
            }
        };
        let due = environment.regrant_at.is_some_and(|at| at <= self.now);
        let renew = due || environment.granted_intent() != Some(intent);
        if let Some(reason) = elsewhere {
            self.set_moving(name, reason);
            return true;
        }
        self.unplaced.remove(name);
        if renew {
            self.grant(name, &holder, intent);
        }
        false
    }

    fn set_moving(&mut self, name: &EnvironmentName, reason: MoveReason) {
        if let Some(environment) = self.environments.get_mut(name) {
            environment.moving = Some(reason);
        }
    }

    fn standing(&self, environment: &Environment, holder: &WorkerName, intent: Intent) -> Standing {
        let Some(worker) = self.workers.get(holder) else { return Standing::MustLeave(MoveReason::Disconnected) };
        if environment.is_parked(holder, intent) && !self.serves_earlier(environment) {
            return Standing::PreferElsewhere(MoveReason::Rejected);
        }
        match intent {
            Intent::Release | Intent::Purge => Standing::Keep,
            Intent::Warm | Intent::Serve => {
                if !worker.carries(&environment.record.spec.worker_selector) {
                    return Standing::MustLeave(MoveReason::Selector);
                }
                if worker.session().is_some_and(|session| session.draining) {
                    return Standing::PreferElsewhere(MoveReason::Draining);
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

    fn place_orphans(&mut self, names: &BTreeSet<EnvironmentName>) {
        if names.is_empty() {
            return;
        }
        let placed = {
            let candidates = self.candidates();
            let orphans: Vec<_> = names.iter().filter_map(|name| self.orphan(name)).collect();
            place(&candidates, &orphans)
        };
        for (name, worker) in placed {
            let Some(environment) = self.environments.get(&name) else { continue };
            let (wanted, holder) = (environment.wanted(), environment.holder.clone());
            let Some(intent) = wanted else { continue };
            match (worker, holder) {
                (Some(worker), _) => self.grant(&name, &worker, intent),
                // It stays where it is for want of a better place, but learns of a new intent.
                (None, Some(holder)) => {
                    self.unplaced.insert(name.clone());
                    self.renew_in_place(&name, &holder, intent);
                }
                (None, None) => {
                    self.unplaced.insert(name.clone());
                    self.gathered.touched.insert(name);
                }
            }
        }
    }

    fn renew_in_place(&mut self, name: &EnvironmentName, holder: &WorkerName, intent: Intent) {
        let Some(environment) = self.environments.get(name) else { return };
        let due = environment.regrant_at.is_some_and(|at| at <= self.now);
        if due || environment.granted_intent() != Some(intent) {
            let reason = environment.moving;
            self.grant(name, holder, intent);
            self.unplaced.insert(name.clone());
            if let Some(environment) = self.environments.get_mut(name) {
                environment.moving = reason;
            }
        }
    }

    fn candidates(&self) -> Vec<Candidate<'_>> {
        self.workers
            .iter()
            .filter(|(_, worker)| worker.session().is_some_and(|session| !session.draining))
            .filter_map(|(name, worker)| {
                let about = worker.about.as_ref()?;
                Some(Candidate {
                    worker: name,
                    labels: &about.labels,
                    capacity: about.capacity,
                    load: worker.holds.len(),
                })
            })
            .collect()
    }

    fn orphan(&self, name: &EnvironmentName) -> Option<Orphan<'_>> {
        let (environment, record) = self.environments.get_key_value(name)?;
        let intent = record.wanted()?;
        let place = match intent {
            Intent::Warm | Intent::Serve => Place::Selected(&record.record.spec.worker_selector),
            Intent::Release | Intent::Purge => Place::Anywhere,
        };
        let mut without: BTreeSet<_> =
            record.parked.keys().filter(|worker| record.is_parked(worker, intent)).collect();
        // Its holder is not another place.
        without.extend(record.holder.as_ref());
        Some(Orphan { environment, place, without })
    }
}
