//! Telling workers what to do: grants, and the updates that carry them.

use flotilla_proto::session::{Assignment, ControlMessage, Rejection, Removal, Update};
use flotilla_proto::{EnvironmentName, EnvironmentSpec, Grant, Intent, WorkerName};

use super::Fleet;
use super::boundary::{Change, Effect, GrantRecord};
use super::environment::{Environment, Parked};
use super::event::Note;
use super::handover::Handover;
use super::placement::Weight;
use super::worker::{EnvironmentKey, Fingerprint, InFlight, InitialState};

/// The most assignments and removals of one update. The longest specs and keys make it 3 MB, well below what a message
/// of a session may have; the rest follows the acknowledgement, so that a large fleet is told of bit by bit.
const LARGEST_UPDATE: usize = 100;

impl Fleet {
    /// The next grant of an environment's prefix, its epoch durable before anybody hears of it.
    pub(super) fn next_grant(&mut self, name: &EnvironmentName, intent: Intent) -> Option<Grant> {
        let spec = &self.environments.get(name)?.record.spec;
        let endpoint = self.stores.get(&spec.store)?.endpoint.clone();
        let highest = self.epochs.entry((endpoint, spec.prefix.clone())).or_default();
        *highest = highest.next();
        let epoch = *highest;
        let change = Change::PutEpoch { store: spec.store.clone(), prefix: spec.prefix.clone(), epoch };
        self.gathered.changes.push(change);
        Some(Grant { epoch, id: self.settings.grant_ids.next_id(), intent })
    }

    /// Gives an environment to a worker under a new grant.
    pub(super) fn grant(&mut self, name: &EnvironmentName, worker: &WorkerName, intent: Intent) {
        let Some(grant) = self.next_grant(name, intent) else { return };
        let now = self.now;
        let Some(environment) = self.environments.get_mut(name) else { return };
        let record = &mut environment.record;
        let epoch = grant.epoch;
        let before = record.grant.replace(GrantRecord { worker: worker.clone(), grant });
        match intent {
            Intent::Warm | Intent::Serve => record.released = None,
            Intent::Release | Intent::Purge => environment.last_ending = epoch,
        }
        environment.regrant_at = None;
        let reason = environment.moving.take();
        let from = before.as_ref().map(|before| &before.worker).filter(|from| *from != worker).cloned();
        let (environment_name, to) = (name.clone(), worker.clone());
        let note = match (from, reason) {
            (Some(from), Some(reason)) if intent == Intent::Serve => {
                *self.moves.entry(reason).or_default() += 1;
                environment.stay.happened(now);
                Note::Moved { environment: environment_name, from, to, epoch, reason: reason.as_str() }
            }
            (Some(_) | None, Some(_) | None) => {
                let reason = why_assigned(before.as_ref(), worker, intent);
                Note::Assigned { environment: environment_name, worker: to, epoch, reason }
            }
        };
        self.gathered.effects.push(Effect::Note(note));
        // A new grant where it is does not change that it shall go.
        if environment.holder.as_ref() != Some(worker) {
            self.let_go(name);
            self.unplaced.remove(name);
            self.to_leave.remove(name);
        }
        self.take_hold(name, worker);
        self.gathered.unsaved.insert(name.clone());
    }

    /// A worker holds an environment from now on.
    pub(super) fn take_hold(&mut self, name: &EnvironmentName, worker: &WorkerName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        environment.holder = Some(worker.clone());
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.holds.insert(name.clone());
        }
        self.gathered.touched_workers.insert(worker.clone());
        self.account(name);
        self.tell_of(name, worker);
    }

    /// Nobody holds an environment from now on; who did is told so.
    pub(super) fn let_go(&mut self, name: &EnvironmentName) {
        if let Some(holder) = self.part_with(name) {
            self.tell_of(name, &holder);
        }
    }

    /// Nobody holds an environment from now on. Returns who did, and is not told yet.
    pub(super) fn part_with(&mut self, name: &EnvironmentName) -> Option<WorkerName> {
        let holder = self.environments.get_mut(name)?.holder.take()?;
        if let Some(worker) = self.workers.get_mut(&holder) {
            worker.holds.remove(name);
        }
        self.gathered.touched_workers.insert(holder.clone());
        self.account(name);
        Some(holder)
    }

    /// Brings the workers' loads in line with where an environment is, and with what it weighs.
    pub(super) fn account(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        // What a worker cannot carry out is no load.
        let place = environment.place().filter(|worker| !environment.is_parked(worker, Intent::Serve));
        let counted = place.cloned().map(|worker| (worker, environment.weight));
        self.gathered.touched.insert(name.clone());
        if environment.counted == counted {
            return;
        }
        let before = std::mem::replace(&mut environment.counted, counted.clone());
        self.uncount(before);
        if let Some((worker, weight)) = counted
            && let Some(worker) = self.workers.get_mut(&worker)
        {
            worker.count += 1;
            worker.load += weight;
        }
    }

    /// Takes off a worker's load what was counted for an environment.
    pub(super) fn uncount(&mut self, counted: Option<(WorkerName, Weight)>) {
        self.gathered.handovers_due = true;
        if let Some((worker, weight)) = counted
            && let Some(worker) = self.workers.get_mut(&worker)
        {
            worker.count -= 1;
            worker.load -= weight;
            // Room has come free for one that waits.
            if worker.about.as_ref().is_some_and(|about| about.capacity.is_some()) {
                self.gathered.retry_unplaced = true;
            }
        }
    }

    /// What the workers that have to do with an environment were told may differ from what they should know.
    pub(super) fn tell_all(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get(name) else { return };
        let workers: Vec<_> = environment.holder.iter().chain(environment.standby()).cloned().collect();
        for worker in workers {
            self.tell_of(name, &worker);
        }
    }

    /// What a worker was told of an environment may differ from what it should know.
    pub(super) fn tell_of(&mut self, name: &EnvironmentName, worker: &WorkerName) {
        let Some(environment) = self.environments.get(name) else { return };
        let key = (name.clone(), environment.record.uid.clone());
        if let Some(session) = self.workers.get_mut(worker).and_then(|worker| worker.session_mut()) {
            session.pending.insert(key);
            self.gathered.updates_due.insert(worker.clone());
        }
    }

    /// Whether the holder has taken over the present grant and generation.
    pub(super) fn is_in_force(&self, environment: &Environment) -> bool {
        let Some((holder, granted)) = environment.holder.as_ref().zip(environment.record.grant.as_ref()) else {
            return false;
        };
        let key = (environment.record.name.clone(), environment.record.uid.clone());
        let told = self.workers.get(holder).and_then(|worker| worker.told.get(&key));
        told.and_then(|told| told.in_force.as_ref())
            .is_some_and(|(id, generation)| *id == granted.grant.id && *generation == environment.record.generation)
    }

    /// Sends what is due, to each worker that has no update in flight.
    pub(super) fn send_updates(&mut self) {
        for worker in std::mem::take(&mut self.gathered.updates_due) {
            self.send_update(&worker);
        }
    }

    fn send_update(&mut self, name: &WorkerName) {
        loop {
            let Some(session) = self.workers.get_mut(name).and_then(|worker| worker.session_mut()) else { return };
            if session.in_flight.is_some() {
                return;
            }
            let mut batch = Vec::new();
            while batch.len() < LARGEST_UPDATE
                && let Some(key) = session.pending.pop_first()
            {
                batch.push(key);
            }
            let id = session.id;
            if batch.is_empty() {
                if session.initial == InitialState::Underway {
                    session.initial = InitialState::Complete;
                    let message = ControlMessage::InitialStateComplete;
                    self.gathered.effects.push(Effect::Send { session: id, message });
                }
                return;
            }
            let Some((update, assigned)) = self.compose(name, batch) else { continue };
            let Some(session) = self.workers.get_mut(name).and_then(|worker| worker.session_mut()) else { return };
            session.last_nonce += 1;
            session.in_flight = Some(InFlight { nonce: session.last_nonce, assigned });
            // The worker knows everything only once the last part has been sent, which follows the acknowledgement.
            let last = session.pending.is_empty() && session.initial == InitialState::Underway;
            let message = ControlMessage::Update(Update { nonce: session.last_nonce, ..update });
            if last {
                session.initial = InitialState::Complete;
            }
            self.gathered.effects.push(Effect::Send { session: id, message });
            if last {
                let message = ControlMessage::InitialStateComplete;
                self.gathered.effects.push(Effect::Send { session: id, message });
            }
            return;
        }
    }

    /// Assignments and removals that the worker does not know yet; `None`: it knows all of the batch.
    fn compose(&mut self, name: &WorkerName, batch: Vec<EnvironmentKey>) -> Option<(Update, Vec<EnvironmentKey>)> {
        let mut update = Update { nonce: 0, assignments: Vec::new(), removals: Vec::new() };
        let mut assigned = Vec::new();
        for key in batch {
            let desired = self.desired(name, &key);
            let worker = self.workers.get_mut(name)?;
            match desired {
                Some((assignment, fingerprint)) => {
                    let told = worker.told.entry(key.clone()).or_default();
                    if told.sent.as_ref() != Some(&fingerprint) {
                        told.sent = Some(fingerprint);
                        update.assignments.push(Ok(assignment));
                        assigned.push(key);
                    }
                }
                None if self.is_held_back(name, &key) => {}
                None => {
                    if self.workers.get_mut(name)?.told.remove(&key).is_some() {
                        let (environment, uid) = key;
                        update.removals.push(Removal { environment, uid });
                    }
                }
            }
        }
        let empty = update.assignments.is_empty() && update.removals.is_empty();
        (!empty).then_some((update, assigned))
    }

    /// Whether the worker keeps what it was told: the environment is its, and it could not carry it out as it is now; or it
    /// had it last, and goes on until the new owner serves.
    fn is_held_back(&self, worker: &WorkerName, (name, uid): &EnvironmentKey) -> bool {
        self.environments.get(name).is_some_and(|environment| {
            let mut kept = environment.holder.iter().chain(environment.standby());
            environment.record.uid == *uid && kept.any(|one| one == worker)
        })
    }

    fn desired(&self, worker: &WorkerName, (name, uid): &EnvironmentKey) -> Option<(Assignment, Fingerprint)> {
        let environment = self.environments.get(name)?;
        let record = &environment.record;
        let grant = match (&environment.handover, record.grant.as_ref()) {
            (_, Some(granted)) if environment.holder.as_ref() == Some(worker) => &granted.grant,
            (Some(Handover::Warming { to, grant, .. }), _) if to == worker => grant,
            (Some(Handover::Warming { .. } | Handover::Promoted { .. }) | None, _) => return None,
        };
        let intent = grant.intent;
        if record.uid != *uid || environment.is_parked(worker, intent) {
            return None;
        }
        let store_url = self.stores.get(&record.spec.store)?.url.clone();
        let accept_regression = record.accepted_resync == Some(record.resync);
        let fingerprint = Fingerprint {
            grant: grant.id.clone(),
            generation: record.generation,
            resync: record.resync,
            take_over: record.take_over.clone(),
            store_url: store_url.clone(),
            accept_regression,
        };
        let sdk_key = match intent {
            Intent::Warm | Intent::Serve => record.sdk_key.clone(),
            Intent::Release | Intent::Purge => None,
        };
        let assignment = Assignment {
            environment: name.clone(),
            uid: uid.clone(),
            generation: record.generation,
            grant: grant.clone(),
            spec: self.with_defaults(&record.spec),
            sdk_key,
            store_url,
            resync: record.resync,
            take_over: record.take_over.clone(),
            accept_regression,
        };
        Some((assignment, fingerprint))
    }

    fn with_defaults(&self, spec: &EnvironmentSpec) -> EnvironmentSpec {
        let mut spec = spec.clone();
        let settings = &self.settings;
        spec.stream_uri.get_or_insert_with(|| settings.stream_uri.clone());
        spec.base_uri.get_or_insert_with(|| settings.base_uri.clone());
        spec.application_id = spec.application_id.or_else(|| settings.application_id.clone());
        spec.application_version = spec.application_version.or_else(|| settings.application_version.clone());
        spec
    }

    /// A worker has taken an update over, but for what it rejects.
    pub(super) fn acknowledged(&mut self, name: &WorkerName, nonce: u64, rejections: &[Rejection]) {
        let Some(worker) = self.workers.get_mut(name) else { return };
        let Some(in_flight) =
            worker.session_mut().and_then(|session| session.in_flight.take_if(|one| one.nonce == nonce))
        else {
            return;
        };
        self.gathered.updates_due.insert(name.clone());
        for key in in_flight.assigned {
            let rejection =
                rejections.iter().find(|one| one.environment == key.0.as_str() && one.uid == key.1.as_str());
            match rejection {
                None => self.taken_over(name, &key),
                Some(rejection) => self.rejected(name, &key, rejection),
            }
        }
    }

    fn taken_over(&mut self, name: &WorkerName, key: &EnvironmentKey) {
        let Some(worker) = self.workers.get_mut(name) else { return };
        if let Some(told) = worker.told.get_mut(key) {
            told.in_force = told.sent.as_ref().map(|sent| (sent.grant.clone(), sent.generation));
        }
        self.gathered.touched.insert(key.0.clone());
    }

    fn rejected(&mut self, name: &WorkerName, key: &EnvironmentKey, rejection: &Rejection) {
        let sent =
            self.workers.get(name).and_then(|worker| worker.told.get(key)).and_then(|told| told.sent.clone());
        let Some(environment) = self.environments.get_mut(&key.0).filter(|one| one.record.uid == key.1) else {
            return;
        };
        let warming = match &environment.handover {
            Some(Handover::Warming { grant, .. }) => Some(grant),
            Some(Handover::Promoted { .. }) | None => None,
        };
        let granted = environment.record.grant.as_ref().map(|granted| &granted.grant);
        // Only what was sent under a present grant says something about its intent.
        let of_sent = |grant: &&Grant| sent.as_ref().is_some_and(|sent| sent.grant == grant.id);
        let Some(intent) = granted.into_iter().chain(warming).find(of_sent).map(|grant| grant.intent) else {
            return;
        };
        let parked = Parked { generation: rejection.generation, intent, message: rejection.message.clone() };
        environment.parked.insert(name.clone(), parked);
        if let Some(worker) = self.workers.get_mut(name) {
            worker.rejected.insert(key.0.clone());
        }
        let note =
            Note::Rejected { environment: key.0.clone(), worker: name.clone(), message: rejection.message.clone() };
        self.gathered.effects.push(Effect::Note(note));
        self.account(&key.0);
        self.gathered.to_plan.insert(key.0.clone());
    }
}

/// Why a worker gets a grant that is no move, in a word.
fn why_assigned(before: Option<&GrantRecord>, worker: &WorkerName, intent: Intent) -> &'static str {
    match intent {
        Intent::Release => "release",
        Intent::Purge => "purge",
        Intent::Warm => "warm",
        Intent::Serve => match before {
            Some(before) if before.grant.intent != Intent::Serve => "serve",
            Some(before) if before.worker == *worker => "renewed",
            Some(_) | None => "new",
        },
    }
}
