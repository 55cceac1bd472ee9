//! What must hold in every state, and what must come about once nothing fails any more.

use flotilla_proto::{GrantId, Initialization};
use flotilla_worker::fence::{Fence, FenceKind};

use super::act::{Act, Budget, Span, Wish};
use super::node::{Life, Node};
use super::place::Item;
use super::state::{ENVIRONMENTS, State, WORKERS, index_of};
use super::*;

/// So many leases it may take until all is well: the longest pauses are of ten minutes.
const MOST_LEASES: usize = 60;
/// So many messages and operations there are between two moments of quiet.
const MOST_DELIVERIES: usize = 500;

impl State {
    /// What control sends was never granted to anybody else, and is durable.
    pub(super) fn check_sent(&mut self, assignment: &Assignment) {
        let grant = &assignment.grant;
        let granted = &mut self.grants[index_of(&assignment.environment)];
        let before = granted.insert(grant.epoch, grant.clone());
        assert!(before.is_none_or(|before| before == *grant), "an epoch was granted twice: {grant:?}");
        let key = (StoreName::default_store(), assignment.spec.prefix.clone());
        assert!(self.stored.epochs[&key] >= grant.epoch, "a grant was sent that is not durable: {grant:?}");
        let record = &self.stored.environments[&assignment.environment];
        assert_eq!((&record.uid, record.generation), (&assignment.uid, assignment.generation));
        if grant.intent != Intent::Warm {
            let granted = record.grant.as_ref().map(|granted| &granted.grant);
            assert_eq!(granted, Some(grant), "a grant was sent that is not durable");
        }
    }

    /// Control confirms a worker's grants: they are the present ones.
    pub(super) fn check_confirmed(&self, session: SessionId, grants: &[GrantId]) {
        let of_session = |node: &&Node| node.line.as_ref().is_some_and(|line| line.id == session);
        // One whose session is over does not hear of it.
        let Some(node) = self.nodes.iter().find(of_session) else { return };
        let present = |id: &GrantId| {
            let granted = self.stored.environments.values().filter_map(|record| record.grant.as_ref());
            granted.into_iter().any(|granted| granted.grant.id == *id && granted.worker == node.name)
        };
        assert!(grants.iter().all(present), "a grant that is over was confirmed: {grants:?}");
    }

    /// Control forgets an environment: if it was purged, only the released fence is left.
    pub(super) fn check_removal(&self, name: &EnvironmentName) {
        let record = &self.stored.environments[name];
        let place = &self.places[index_of(name)];
        // After a loss a worker that is cut off may have put its data there again.
        if record.removal != Some(RemovalKind::Purge) || record.grant.is_none() || place.lost {
            return;
        }
        assert_eq!((&place.item, place.marker), (&None, false), "a purge that is over left data");
        let fence = place.fence();
        let released = |fence: &Fence| fence.kind == FenceKind::Released && fence.uid == record.uid;
        assert!(fence.as_ref().is_none_or(released), "a purge that is over left {fence:?}");
    }

    /// What must hold in every state.
    pub(super) fn check(&self) {
        for (at, name) in ENVIRONMENTS.iter().enumerate() {
            let (name, place) = (env(name), &self.places[at]);
            let expecting = self.nodes.iter().filter(|node| node.expects(&name, place.fence.as_ref()));
            assert!(expecting.count() <= 1, "two workers take {:?} for theirs", place.fence);
            assert!(!place.purged || (place.item.is_none() && !place.marker), "a purge left data");
            if let Some(fence) = place.fence() {
                let granted = self.grants[at].get(&fence.epoch).map(|grant| &grant.id);
                assert_eq!(granted, Some(&fence.grant), "a fence of a grant that nobody was sent");
            }
            if let Some(record) = self.stored.environments.get(&name) {
                self.check_environment(record);
                self.check_current(record);
            }
        }
    }

    fn check_environment(&self, record: &EnvironmentRecord) {
        let known = &self.fleet.environments[&record.name];
        assert_eq!(known.record.grant, record.grant, "a grant is not durable");
        assert_eq!(known.record.predecessor, record.predecessor, "a predecessor is not durable");
        assert_eq!(known.handover.is_some(), self.fleet.handovers.contains(&record.name));
        if let (Some(holder), Some(granted)) = (&known.holder, &record.grant) {
            assert_eq!(*holder, granted.worker, "one holds it, another has the grant");
        }
    }

    /// Who is shown as current has its data in the store, under a fence that keeps others out.
    fn check_current(&self, record: &EnvironmentRecord) {
        let known = &self.fleet.environments[&record.name];
        let place = &self.places[index_of(&record.name)];
        // What was lost a moment ago is shown when its owner has noticed.
        if known.initialization != Initialization::Current || place.lost {
            return;
        }
        let report = known.standing_report().expect("a report of a standing grant");
        assert!(place.marker, "current without a marker");
        assert!(report.flags > 0, "current before the comparison's last write was acknowledged: {report:?}");
        let fence = place.fence().expect("current without a fence");
        assert_eq!((&fence.uid, fence.kind), (&record.uid, FenceKind::Serving), "current under another's fence");
        assert!(fence.epoch >= report.grant.epoch, "current under an earlier fence than the one reported");
        let highest = record.grant.as_ref().map(|granted| granted.grant.epoch);
        assert!(Some(fence.epoch) <= highest, "current under a fence above the last grant");
        let Item { uid, version } = place.item.as_ref().expect("current without data");
        assert_eq!(*uid, record.uid, "current with another environment's data");
        let source = self.sources[&record.name];
        assert!(report.flags <= *version && *version <= source, "{} <= {version} <= {source}", report.flags);
    }

    /// Nothing fails any more: in the end all is well.
    pub(super) fn check_that_it_heals(&mut self) {
        for (at, name) in WORKERS.into_iter().enumerate() {
            match self.nodes[at].life {
                Life::Alive => {}
                Life::Paused => self.heal_by(Act::Resume(at)),
                Life::Crashed => self.heal_by(Act::Restart(at)),
            }
            let scheduling = self.fleet.workers.get(&w(name)).map(|worker| worker.scheduling);
            if scheduling.is_some_and(|scheduling| scheduling != Scheduling::Active) {
                self.heal_by(Act::Schedule(at, Scheduling::Active));
            }
        }
        for _ in 0..MOST_LEASES {
            self.settle();
            if self.why_not_well().is_none() {
                return;
            }
            for at in 0..ENVIRONMENTS.len() {
                if self.is_left_to_the_user(at) {
                    self.heal_by(Act::User(at, Wish::TakeOver));
                }
            }
            self.heal_by(Act::Pass(Span::Lease));
        }
        panic!("it is not well in the end: {}", self.why_not_well().unwrap_or_default());
    }

    /// After a loss an earlier environment's owner, cut off, may have been the first to claim. That is shown as a conflict,
    /// and the user decides.
    fn is_left_to_the_user(&self, at: usize) -> bool {
        let known = self.fleet.environments.get(&env(ENVIRONMENTS[at]));
        let waits = |environment: &&environment::Environment| environment.record.take_over.is_none();
        self.places[at].lost && known.filter(waits).is_some_and(|environment| environment.conflict().is_some())
    }

    fn heal_by(&mut self, act: Act) {
        self.happen(act);
        self.check();
    }

    /// Everything that is on its way arrives.
    fn settle(&mut self) {
        self.budget = Budget { faults: 0, wishes: 0, versions: 0, spans: 0 };
        for _ in 0..MOST_DELIVERIES {
            let Some(act) = self.possible().first().copied() else { return };
            self.heal_by(act);
        }
        panic!("it does not become quiet");
    }

    /// What is missing, a sentence; `None`: all is well.
    pub(super) fn why_not_well(&self) -> Option<String> {
        if !self.fleet.handovers.is_empty() {
            return Some(format!("handovers are under way: {:?}", self.fleet.handovers));
        }
        self.stored.environments.values().find_map(|record| self.why_not_in_order(record))
    }

    fn why_not_in_order(&self, record: &EnvironmentRecord) -> Option<String> {
        let name = &record.name;
        let known = &self.fleet.environments[name];
        let no = |why: String| Some(format!("{name}: {why}"));
        if record.removal.is_some() {
            return no("it is still being removed".to_owned());
        }
        if record.paused {
            let given_back = record.grant.is_none() && known.holder.is_none();
            let held = self.nodes.iter().any(|node| node.running.contains_key(name));
            return if given_back && !held { None } else { no("it is paused, and held".to_owned()) };
        }
        if known.initialization != Initialization::Current {
            return no(format!("it is {:?}: {:?}", known.initialization, known.observed));
        }
        let place = &self.places[index_of(name)];
        let wanted = Item { uid: record.uid.clone(), version: self.sources[name] };
        if place.item.as_ref() != Some(&wanted) || !place.marker {
            return no(format!("the store has {place:?}, the source {wanted:?}"));
        }
        let granted = record.grant.as_ref().expect("current under a grant");
        let owners = self.nodes.iter().filter(|node| node.running.contains_key(name));
        let names: Vec<_> = owners.map(|node| &node.name).collect();
        if names != [&granted.worker] || known.holder.as_ref() != Some(&granted.worker) {
            return no(format!("granted to {}, held by {:?}, run by {names:?}", granted.worker, known.holder));
        }
        let owner = self.nodes.iter().find(|node| node.name == granted.worker).expect("one of the two");
        if !owner.has(name, &granted.grant.id) || !owner.expects(name, place.fence.as_ref()) {
            return no(format!("its owner has another grant, or not the fence: {place:?}"));
        }
        None
    }
}
