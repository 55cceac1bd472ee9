//! What workers report of environments, and what follows from it.

use flotilla_proto::{
    EnvironmentName, EnvironmentReport, EnvironmentSpec, Epoch, FleetId, GrantState, Intent, SourceState,
    WorkerName,
};

use super::Fleet;
use super::boundary::{Change, Effect, GrantRecord, RemovalKind};
use super::environment::Environment;
use super::event::Note;
use super::handover::Handover;

/// No fleet grants so often; an epoch above it is an error of its sender, and would leave no room above.
const HIGHEST_SENSIBLE: Epoch = Epoch(1 << 62);

impl Fleet {
    /// A worker reports environments that changed.
    pub(super) fn reported(&mut self, worker: &WorkerName, reports: Vec<EnvironmentReport>) {
        for report in reports {
            self.take_report(worker, report);
        }
    }

    fn take_report(&mut self, worker: &WorkerName, report: EnvironmentReport) {
        let Some(environment) = self.environments.get(&report.environment) else { return };
        if environment.record.uid != report.uid {
            return;
        }
        let name = report.environment.clone();
        let role = role(self.environments.get(&name), worker, &report);
        self.note_refused_writes(worker, role, &report);
        match role {
            Role::None => {}
            Role::Standby => self.warm_reported(&name, &report),
            Role::Owner => self.observe(&name, worker, report),
            Role::NewOwner => match report.grant_state {
                // Until it serves, the last owner's word stands.
                GrantState::Pending | GrantState::Established => {}
                GrantState::Fenced => self.observe_fence(&name, &report),
                GrantState::Synchronized | GrantState::Conflict => {
                    self.complete_handover(&name);
                    self.observe(&name, worker, report);
                }
            },
            Role::LastOwner => match report.grant_state {
                // That is how it learns of the new owner, from a refused write or a look.
                GrantState::Fenced => {}
                GrantState::Pending | GrantState::Established | GrantState::Synchronized | GrantState::Conflict => {
                    self.observe(&name, worker, report);
                }
            },
        }
    }

    fn observe(&mut self, name: &EnvironmentName, worker: &WorkerName, report: EnvironmentReport) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        let before = environment.observed.as_mut().filter(|before| before.worker == *worker);
        if let Some(before) = before.filter(|before| before.report.says_the_same(&report)) {
            // Most reports are of this kind, and nothing follows from them.
            before.report = report;
            return;
        }
        self.observe_fence(name, &report);
        self.note_repairs(worker, &report);
        let Some(environment) = self.environments.get_mut(name) else { return };
        // Nothing is known of the data before it is there.
        let has_data = report.flags + report.segments > 0 || report.source_state == Some(SourceState::Connected);
        if has_data && environment.weigh(report.bytes) {
            self.account(name);
        }
        let Some(environment) = self.environments.get_mut(name) else { return };
        // What the payload said is written: the leave is spent.
        let is_spent = report.grant_state == GrantState::Synchronized
            && report.accepted_resync.is_some()
            && report.accepted_resync == environment.record.accepted_resync;
        if is_spent {
            environment.record.accepted_resync = None;
            self.gathered.unsaved.insert(name.clone());
        }
        let is_loaded = |report: &EnvironmentReport| report.grant_state == GrantState::Synchronized;
        let was_loaded = environment.observed.as_ref().is_some_and(|before| is_loaded(&before.report));
        let is_news = is_loaded(&report) && !was_loaded;
        environment.observe(worker.clone(), report);
        if is_news {
            self.one_is_loaded();
        }
        if is_spent {
            self.tell_all(name);
        }
        self.gathered.touched.insert(name.clone());
        self.act_on_report(name);
    }

    /// The next grant is above every epoch that a report speaks of; a fenced grant is replaced.
    fn observe_fence(&mut self, name: &EnvironmentName, report: &EnvironmentReport) {
        let Some(environment) = self.environments.get(name) else { return };
        let spec = environment.record.spec.clone();
        let of_grant = environment.record.grant.as_ref().is_some_and(|granted| granted.grant.id == report.grant.id);
        self.raise_epoch(&spec, report.grant.epoch);
        if let Some(found) = fencing_epoch(report, &self.settings.fleet) {
            self.raise_epoch(&spec, found);
        }
        if report.grant_state == GrantState::Fenced && of_grant {
            self.grant_again(name);
        }
    }

    fn note_refused_writes(&mut self, worker: &WorkerName, role: Role, report: &EnvironmentReport) {
        let Some(environment) = self.environments.get_mut(&report.environment) else { return };
        let told = Some((report.grant.id.clone(), report.fenced_writes));
        if report.fenced_writes > 0 && environment.refused_writes != told {
            // What happened before control started has been noted then.
            let is_news = environment.refused_writes.is_some() || self.settings.grant_ids.gave(&report.grant.id);
            environment.refused_writes = told;
            // A last owner learns so of the new one.
            if !is_news || role == Role::LastOwner {
                return;
            }
            let (environment, worker, epoch) = (report.environment.clone(), worker.clone(), report.grant.epoch);
            self.gathered.effects.push(Effect::Note(Note::WriteFenced { environment, worker, epoch }));
        }
    }

    fn note_repairs(&mut self, worker: &WorkerName, report: &EnvironmentReport) {
        let Some(environment) = self.environments.get(&report.environment) else { return };
        let before = environment.observed.as_ref().filter(|before| before.report.grant.id == report.grant.id);
        // What happened before control started has been noted then.
        let is_known = before.is_some() || self.settings.grant_ids.gave(&report.grant.id);
        if is_known && report.repairs > before.map_or(0, |before| before.report.repairs) {
            let (environment, worker, epoch) = (report.environment.clone(), worker.clone(), report.grant.epoch);
            let reason = report.repair_reason.clone();
            self.gathered.effects.push(Effect::Note(Note::Repaired { environment, worker, epoch, reason }));
        }
    }

    /// No grant may be given below one that a worker has seen.
    pub(super) fn raise_epoch(&mut self, spec: &EnvironmentSpec, seen: Epoch) {
        let Some(key) = self.epoch_key(spec).filter(|_| seen <= HIGHEST_SENSIBLE) else { return };
        let stored = self.epochs.entry(key).or_default();
        if *stored < seen {
            *stored = seen;
            let change = Change::PutEpoch { store: spec.store.clone(), prefix: spec.prefix.clone(), epoch: seen };
            self.gathered.changes.push(change);
        }
    }

    fn act_on_report(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get(name) else { return };
        let Some(report) = environment.report_of_grant() else { return };
        match report.grant_state {
            // Of a fenced one a new grant is due already.
            GrantState::Pending | GrantState::Fenced => {}
            // What belongs to somebody else is not ours to release or purge: there is nothing left to do.
            GrantState::Conflict => match report.grant.intent {
                Intent::Warm | Intent::Serve => {}
                Intent::Release | Intent::Purge => self.established(name),
            },
            GrantState::Established | GrantState::Synchronized => self.established(name),
        }
    }

    /// The grant is over though its holder is the right one: give it a higher one, but not too often.
    fn grant_again(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        if environment.regrant_at.is_some() {
            return;
        }
        let at = environment.fenced.schedule(self.now);
        environment.regrant_at = Some(at);
        self.wakes.insert((at, name.clone()));
        self.gathered.to_plan.insert(name.clone());
    }

    fn established(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        if environment.record.take_over.take().is_some() {
            self.gathered.unsaved.insert(name.clone());
            self.tell_all(name);
        }
        let Some(environment) = self.environments.get(name) else { return };
        match (environment.granted_intent(), environment.record.removal) {
            (Some(Intent::Release), Some(RemovalKind::Release)) | (Some(Intent::Purge), Some(_)) => self.end(name),
            (Some(Intent::Release), None) if environment.record.paused => self.released(name),
            (Some(Intent::Warm | Intent::Serve | Intent::Release | Intent::Purge) | None, _) => {}
        }
    }

    /// The release of a paused environment stands in the store: nobody needs to hold it.
    fn released(&mut self, name: &EnvironmentName) {
        self.let_go(name);
        let Some(environment) = self.environments.get_mut(name) else { return };
        if let Some(granted) = environment.record.grant.take() {
            environment.record.released = Some(granted.grant.epoch);
        }
        self.unplaced.remove(name);
        self.gathered.unsaved.insert(name.clone());
    }

    /// An environment is no more.
    pub(super) fn end(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get(name) else { return };
        let uid = environment.record.uid.clone();
        if let Some(key) = self.epoch_key(&environment.record.spec) {
            self.prefixes.remove(&key);
        }
        self.end_handover(name);
        self.let_go(name);
        let counted = self.environments.remove(name).and_then(|environment| environment.counted);
        self.uncount(counted);
        for worker in self.workers.values_mut() {
            worker.rejected.remove(name);
        }
        self.unplaced.remove(name);
        self.to_leave.remove(name);
        self.gathered.effects.push(Effect::Note(Note::Ended { environment: name.clone() }));
        self.gathered.changes.push(Change::DeleteEnvironment { environment: name.clone() });
        self.gathered.changes.push(Change::PutEnded { uid: uid.clone(), at: self.now });
        self.ended.note(self.now, uid.clone());
        self.gathered.ended.push((name.clone(), uid));
    }
}

/// The epoch of the fence of this fleet that ended the grant of the report. The next grant has to be above it.
///
/// The fence's format is the worker's; here only its first words count: `flotilla1 FLEET UID LINEAGE EPOCH` and five
/// more.
fn fencing_epoch(report: &EnvironmentReport, fleet: &FleetId) -> Option<Epoch> {
    match report.grant_state {
        GrantState::Fenced => {}
        GrantState::Pending | GrantState::Established | GrantState::Synchronized | GrantState::Conflict => {
            return None;
        }
    }
    let words: Vec<_> = report.found_fence.as_deref()?.split(' ').collect();
    let ["flotilla1", owner, _uid, _lineage, epoch, _grant, _incarnation, _write, _counts, _state] = words[..]
    else {
        return None;
    };
    let number: u64 = epoch.parse().ok().filter(|number: &u64| number.to_string() == epoch)?;
    (owner == fleet.as_str()).then_some(Epoch(number))
}

/// What a report is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// The present grant.
    Owner,
    /// The present grant, which was given by a handover that is not complete.
    NewOwner,
    /// The grant before it, until the handover is complete.
    LastOwner,
    /// The warm grant.
    Standby,
    /// A grant that is over.
    None,
}

fn role(environment: Option<&Environment>, worker: &WorkerName, report: &EnvironmentReport) -> Role {
    let Some(environment) = environment else { return Role::None };
    let is = |granted: &GrantRecord| granted.worker == *worker && granted.grant.id == report.grant.id;
    let last = environment.record.predecessor.as_ref();
    match &environment.handover {
        Some(Handover::Warming { to, grant, .. }) if to == worker && grant.id == report.grant.id => Role::Standby,
        Some(Handover::Promoted { .. }) if environment.record.grant.as_ref().is_some_and(is) => Role::NewOwner,
        Some(Handover::Promoted { .. }) if last.is_some_and(is) => Role::LastOwner,
        // It writes nothing: that of a handover which is over says nothing of what is stored.
        Some(Handover::Warming { .. } | Handover::Promoted { .. }) | None
            if report.grant.intent == Intent::Warm =>
        {
            Role::None
        }
        Some(Handover::Warming { .. } | Handover::Promoted { .. }) | None => {
            if counts(environment, report) {
                Role::Owner
            } else {
                Role::None
            }
        }
    }
}

/// Whether a report is news: not of an earlier grant than the last one that counted.
fn counts(environment: &Environment, report: &EnvironmentReport) -> bool {
    let not_earlier =
        environment.observed.as_ref().is_none_or(|observed| report.grant.epoch >= observed.report.grant.epoch);
    let twin =
        environment.record.grant.as_ref().is_some_and(|granted| {
            granted.grant.epoch == report.grant.epoch && granted.grant.id != report.grant.id
        });
    not_earlier && !twin
}
