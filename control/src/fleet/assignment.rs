//! Telling workers what to do: grants, and the updates that carry them.

use flotilla_proto::session::{Assignment, ControlMessage, Rejection, Removal, Update};
use flotilla_proto::{EnvironmentName, EnvironmentSpec, Grant, Intent, WorkerName};

use super::Fleet;
use super::boundary::{Change, Effect, GrantRecord, Note};
use super::environment::{Environment, Parked};
use super::worker::{EnvironmentKey, Fingerprint, InFlight, InitialState};

/// The most assignments and removals of one update. The longest specs and keys make it 3 MB, well below what a message
/// of a session may have; the rest follows the acknowledgement, so that a large fleet is told of bit by bit.
const LARGEST_UPDATE: usize = 100;

impl Fleet {
    /// Gives an environment to a worker under a new grant.
    pub(super) fn grant(&mut self, name: &EnvironmentName, worker: &WorkerName, intent: Intent) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        let record = &mut environment.record;
        let Some(store) = self.stores.get(&record.spec.store) else { return };
        let highest = self.epochs.entry((store.endpoint.clone(), record.spec.prefix.clone())).or_default();
        *highest = highest.next();
        let grant = Grant { epoch: *highest, id: self.settings.grant_ids.next_id(), intent };
        self.gathered.changes.push(Change::PutEpoch {
            store: record.spec.store.clone(),
            prefix: record.spec.prefix.clone(),
            epoch: grant.epoch,
        });
        let before = record.grant.replace(GrantRecord { worker: worker.clone(), grant });
        if intent == Intent::Serve {
            record.released = None;
        }
        environment.regrant_at = None;
        let reason = environment.moving.take();
        let from = before.map(|before| before.worker).filter(|from| from != worker && intent == Intent::Serve);
        if let Some((reason, from)) = reason.zip(from) {
            *self.moves.entry(reason).or_default() += 1;
            let (environment, to, epoch) = (name.clone(), worker.clone(), *highest);
            let note = Note::Moved { environment, from, to, epoch, reason: reason.as_str() };
            self.gathered.effects.push(Effect::Note(note));
        }
        if environment.holder.as_ref().is_some_and(|holder| holder != worker) {
            self.let_go(name);
        }
        self.take_hold(name, worker);
        self.unplaced.remove(name);
        self.gathered.unsaved.insert(name.clone());
    }

    /// A worker holds an environment from now on.
    pub(super) fn take_hold(&mut self, name: &EnvironmentName, worker: &WorkerName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        environment.holder = Some(worker.clone());
        let key = (name.clone(), environment.record.uid.clone());
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.holds.insert(name.clone());
        }
        self.gathered.touched.insert(name.clone());
        self.tell(worker, key);
    }

    /// Nobody holds an environment from now on; who did is told so.
    pub(super) fn let_go(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get_mut(name) else { return };
        let Some(holder) = environment.holder.take() else { return };
        let uid = environment.record.uid.clone();
        if let Some(worker) = self.workers.get_mut(&holder) {
            worker.holds.remove(name);
            // Room has come free for one that waits.
            if worker.about.as_ref().is_some_and(|about| about.capacity.is_some()) {
                self.gathered.retry_unplaced = true;
            }
        }
        self.gathered.touched.insert(name.clone());
        self.tell(&holder, (name.clone(), uid));
    }

    /// What the holder was told of an environment may differ from what it should know.
    pub(super) fn tell_holder(&mut self, name: &EnvironmentName) {
        let Some(environment) = self.environments.get(name) else { return };
        if let Some(holder) = environment.holder.clone() {
            let key = (name.clone(), environment.record.uid.clone());
            self.tell(&holder, key);
        }
    }

    fn tell(&mut self, worker: &WorkerName, key: EnvironmentKey) {
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

    /// Whether the environment is the worker's, which could not carry it out as it is now.
    fn is_held_back(&self, worker: &WorkerName, (name, uid): &EnvironmentKey) -> bool {
        self.environments.get(name).is_some_and(|environment| {
            environment.record.uid == *uid && environment.holder.as_ref() == Some(worker)
        })
    }

    fn desired(&self, worker: &WorkerName, (name, uid): &EnvironmentKey) -> Option<(Assignment, Fingerprint)> {
        let environment = self.environments.get(name)?;
        let record = &environment.record;
        let granted = record.grant.as_ref()?;
        let intent = granted.grant.intent;
        if record.uid != *uid
            || environment.holder.as_ref() != Some(worker)
            || environment.is_parked(worker, intent)
        {
            return None;
        }
        let fingerprint = Fingerprint {
            grant: granted.grant.id.clone(),
            generation: record.generation,
            resync: record.resync,
            take_over: record.take_over.clone(),
        };
        let sdk_key = match intent {
            Intent::Warm | Intent::Serve => record.sdk_key.clone(),
            Intent::Release | Intent::Purge => None,
        };
        let assignment = Assignment {
            environment: name.clone(),
            uid: uid.clone(),
            generation: record.generation,
            grant: granted.grant.clone(),
            spec: self.with_defaults(&record.spec),
            sdk_key,
            store_url: self.stores.get(&record.spec.store)?.url.clone(),
            resync: record.resync,
            take_over: record.take_over.clone(),
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
        let Some(environment) = self.environments.get_mut(&key.0) else { return };
        let Some(granted) = environment.record.grant.as_ref() else { return };
        // Only what was sent under the present grant says something about its intent.
        if environment.record.uid != key.1 || sent.is_none_or(|sent| sent.grant != granted.grant.id) {
            return;
        }
        let parked = Parked {
            generation: rejection.generation,
            intent: granted.grant.intent,
            message: rejection.message.clone(),
        };
        environment.parked.insert(name.clone(), parked);
        if let Some(worker) = self.workers.get_mut(name) {
            worker.rejected.insert(key.0.clone());
        }
        self.gathered.touched.insert(key.0.clone());
        self.gathered.to_plan.insert(key.0.clone());
    }
}
