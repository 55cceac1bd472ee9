//! The pure heart of control: what should be, decided without clock, network or disk.
//!
//! [`Fleet::step`] takes an [`Input`] and returns [`Effect`]s; the driver makes the step's changes durable before it
//! carries out anything else. Each step goes the same way: take the input in, plan, tell workers, tell watchers.

// What goes in and what comes out.
mod boundary;
// One environment: said, held, reported.
mod environment;
// One worker: session, holds, told.
mod worker;
// What users may change.
mod mutation;
// Many environments at once.
mod apply;
// Request ids that were answered.
mod request;
// Environments that ended lately.
mod ended;
// Who is let in, and what workers say.
mod session;
// How long silence is borne.
mod lease;
// Cordon, drain, forget.
mod membership;
// Which environments need a grant.
mod planning;
// Which worker gets which environment.
mod placement;
// Moving without a gap.
mod handover;
// Pauses that double.
mod backoff;
// Grants, and the updates that carry them.
mod assignment;
// What workers report, and what follows.
mod report;
// What operators ask about afterwards.
mod event;
// Stores, and what they are told by.
mod stores;
// Replacing an SDK key.
mod rotation;
// Questions to workers.
mod question;
// Initialization and conditions.
mod conditions;
// The API's messages and the metrics' numbers.
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::store_url::StoreEndpoint;
use flotilla_proto::{
    EnvironmentName, EnvironmentSpec, Epoch, FleetId, Initialization, Prefix, Reason, Refusal, StoreName, StoreUrl,
    Term, Timestamp, Uid, WorkerName, v1,
};
use url::Url;

pub(crate) use apply::{Batch, BatchEntry, BatchStore, BlastRadius, Prune, Wanted};
pub(crate) use boundary::{
    Action, Change, Claim, Command, CommandId, Edit, Effect, EnvironmentRecord, FailedRotation, GrantIds,
    GrantRecord, Input, Mutation, Proof, Regression, Remembered, RemovalKind, RemovalRequest, Reply, RequestId,
    RotationFailure, Scheduling, SessionId, SpecChange, StoreAction, StoreChange, StoreCheck, StoreCommand,
    Subject, WorkerAction, WorkerCommand,
};
pub(crate) use event::{Event, EventRecord, Note, WorkerChange};
pub(crate) use membership::no_such_worker;
pub(crate) use mutation::no_such_environment;
#[cfg(feature = "simulation")]
pub use placement::LargePlacement;
pub(crate) use view::Glance;

use ended::Ended;
use environment::{Environment, MoveReason};
use planning::Gathering;
use question::Questions;
use request::Requests;
use worker::Worker;

/// What the fleet is told once, at start.
#[derive(Debug, Clone)]
pub(crate) struct FleetSettings {
    /// The fleet's id.
    pub(crate) fleet: FleetId,
    /// The term of this start, already durable: one more than the stored one.
    pub(crate) term: Term,
    /// Version of control, as `status` shows it.
    pub(crate) version: String,
    /// How often workers send a heartbeat.
    pub(crate) heartbeat_interval: Duration,
    /// After how long without one a worker's environments move.
    pub(crate) lease_duration: Duration,
    /// After how long its environments move when a session closes without a goodbye.
    pub(crate) reassign_grace: Duration,
    /// Streaming service of environments that name none.
    pub(crate) stream_uri: Url,
    /// Polling service of environments that name none.
    pub(crate) base_uri: Url,
    /// `application-id` of environments that name none.
    pub(crate) application_id: Option<String>,
    /// `application-version` of environments that name none.
    pub(crate) application_version: Option<String>,
    /// How many environments are handed over at a time, at most.
    pub(crate) max_handovers: usize,
    /// Makes the ids of grants.
    pub(crate) grant_ids: GrantIds,
}

/// Numbers for the metrics. Every word that can occur is a key from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Environments by initialization: `current`, `stale`, `uninitialized`, `unknown`.
    pub(crate) environments: BTreeMap<&'static str, u64>,
    /// Workers by state: `connected`, `disconnected`, `gone`.
    pub(crate) workers: BTreeMap<&'static str, u64>,
    /// Environments moved from one worker to another since start, by reason.
    pub(crate) moves: BTreeMap<&'static str, u64>,
    /// Sessions of workers that had one before, since start.
    pub(crate) session_reconnects: u64,
}

/// The whole state of control. Owned by one task.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    settings: FleetSettings,
    now: Timestamp,
    last_tick: Timestamp,
    /// The present term: that of the settings, or higher.
    term: Term,
    stores: BTreeMap<StoreName, Store>,
    environments: BTreeMap<EnvironmentName, Environment>,
    /// Who has a prefix of a store.
    prefixes: BTreeMap<(StoreEndpoint, Prefix), EnvironmentName>,
    /// The highest epoch granted or seen.
    epochs: BTreeMap<(StoreEndpoint, Prefix), Epoch>,
    workers: BTreeMap<WorkerName, Worker>,
    sessions: BTreeMap<SessionId, WorkerName>,
    /// Sessions that closed within the last grace.
    closures: Vec<(Timestamp, WorkerName)>,
    requests: Requests,
    ended: Ended,
    questions: Questions,
    /// Environments to look at again, and when.
    wakes: BTreeSet<(Timestamp, EnvironmentName)>,
    /// Environments for which there is no good place now.
    unplaced: BTreeSet<EnvironmentName>,
    /// Environments that their holder serves but shall not keep, and why.
    to_leave: BTreeMap<EnvironmentName, MoveReason>,
    /// Environments that are being handed over.
    handovers: BTreeSet<EnvironmentName>,
    /// Orphans wait for more workers to join.
    gathering: Option<Gathering>,
    /// Since when a worker has more than its share.
    uneven_since: Option<Timestamp>,
    /// When to see again whether one has.
    look_again_at: Option<Timestamp>,
    /// The number of the last event.
    last_event: u64,
    moves: BTreeMap<MoveReason, u64>,
    reconnects: u64,
    gathered: Gathered,
}

/// A store, and where it is.
#[derive(Debug, Clone)]
struct Store {
    url: StoreUrl,
    endpoint: StoreEndpoint,
}

/// What a step has come to so far.
#[derive(Debug, Clone, Default)]
struct Gathered {
    changes: Vec<Change>,
    effects: Vec<Effect>,
    replies: Vec<(CommandId, Answer)>,
    /// Environments whose record changed.
    unsaved: BTreeSet<EnvironmentName>,
    /// Environments whose public view may have changed.
    touched: BTreeSet<EnvironmentName>,
    /// Environments whose grant may have to change.
    to_plan: BTreeSet<EnvironmentName>,
    /// Workers that may have to be told something.
    updates_due: BTreeSet<WorkerName>,
    /// Environments that are no more.
    ended: Vec<(EnvironmentName, Uid)>,
    /// Workers whose public view may have changed.
    touched_workers: BTreeSet<WorkerName>,
    /// Whether there may be a place for those that have none.
    retry_unplaced: bool,
    /// Whether another handover may begin.
    handovers_due: bool,
}

/// A reply in the making.
#[derive(Debug, Clone)]
enum Answer {
    /// This.
    Ready(Result<Reply, Refusal>),
    /// The environment as it is at the end of the step.
    Present(EnvironmentName),
    /// The worker as it is at the end of the step.
    Worker(WorkerName),
    /// The store as it is at the end of the step.
    Store(StoreName),
    /// This, with the environments as they are at the end of the step.
    Applied(Box<v1::BatchApplyEnvironmentsResponse>),
}

impl Fleet {
    /// Takes up what was remembered. `remembered.stores` holds `default` with the URL that is in force.
    pub(crate) fn new(settings: FleetSettings, remembered: Remembered, now: Timestamp) -> Self {
        let mut fleet = Self {
            now,
            last_tick: now,
            term: settings.term,
            stores: BTreeMap::new(),
            environments: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            epochs: BTreeMap::new(),
            workers: BTreeMap::new(),
            sessions: BTreeMap::new(),
            closures: Vec::new(),
            requests: Requests::default(),
            ended: Ended::default(),
            questions: Questions::default(),
            wakes: BTreeSet::new(),
            unplaced: BTreeSet::new(),
            to_leave: BTreeMap::new(),
            handovers: BTreeSet::new(),
            gathering: None,
            uneven_since: None,
            look_again_at: None,
            last_event: remembered.events.last().map_or(0, |event| event.number),
            moves: BTreeMap::new(),
            reconnects: 0,
            gathered: Gathered::default(),
            settings,
        };
        for (name, url) in remembered.stores {
            fleet.put_store(name, url);
        }
        for (endpoint, prefix, epoch) in remembered.former_epochs {
            let highest = fleet.epochs.entry((fleet.place(endpoint), prefix)).or_default();
            *highest = epoch.max(*highest);
        }
        for (store, prefix, epoch) in remembered.epochs {
            if let Some(store) = fleet.stores.get(&store) {
                let highest = fleet.epochs.entry((store.endpoint.clone(), prefix)).or_default();
                *highest = epoch.max(*highest);
            }
        }
        for (request, subject, at) in remembered.requests {
            fleet.requests.answered(at, request, subject);
        }
        for (uid, at) in remembered.ended {
            fleet.ended.note(at, uid);
        }
        for (name, scheduling) in remembered.workers {
            let worker = Worker { scheduling, ..Worker::gone(now) };
            fleet.workers.insert(name, worker);
        }
        for record in remembered.environments {
            fleet.remember(record);
        }
        for name in std::mem::take(&mut fleet.gathered.touched) {
            fleet.refresh(&name);
        }
        fleet
    }

    /// Takes a record up. Its worker may come back within a lease; until then nothing moves.
    fn remember(&mut self, record: EnvironmentRecord) {
        let name = record.name.clone();
        if let Some(key) = self.epoch_key(&record.spec) {
            if let Some(granted) = &record.grant {
                let highest = self.epochs.entry(key.clone()).or_default();
                *highest = granted.grant.epoch.max(*highest);
            }
            self.prefixes.insert(key, name.clone());
        }
        let until = self.now.after(self.settings.lease_duration);
        for granted in record.grant.iter().chain(&record.predecessor) {
            self.workers.entry(granted.worker.clone()).or_insert_with(|| Worker::gone(self.now)).await_until(until);
        }
        if let Some(worker) = record.grant.as_ref().and_then(|granted| self.workers.get_mut(&granted.worker)) {
            worker.holds.insert(name.clone());
        }
        if record.predecessor.is_some() {
            self.handovers.insert(name.clone());
        }
        let environment = Environment::new(record, until);
        self.wakes.extend(environment.handover.as_ref().map(|handover| (handover.deadline(), name.clone())));
        self.environments.insert(name.clone(), environment);
        self.account(&name);
        self.gathered.to_plan.insert(name);
    }

    /// Takes one input in and returns what must happen. Time never goes back from step to step.
    pub(crate) fn step(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        self.now = self.now.max(now);
        let nobody_before = self.sessions.is_empty();
        match input {
            Input::Command { id, command: Command::Mutate(mutation) } => self.mutate(id, mutation),
            Input::Command { id, command: Command::Apply(batch) } => self.apply(id, batch),
            Input::Command { id, command: Command::Worker(command) } => self.decide_worker(id, &command),
            Input::Command { id, command: Command::Store(command) } => self.decide_store(id, command),
            Input::Command { id, command: Command::CheckStore(check) } => self.ask_to_check(id, check),
            Input::Command { id, command: Command::Ask { environment, question, timeout } } => {
                self.ask_for_command(id, &environment, question, timeout);
            }
            Input::CommandAbandoned { id } => self.questions.abandon(id),
            Input::SessionOpened { session, address, hello } => self.session_opened(session, address, hello),
            Input::SessionMessage { session, message } => self.session_message(session, message),
            Input::SessionClosed { session } => self.session_closed(session),
            Input::Tick => self.tick(),
        }
        self.plan();
        if self.sessions.is_empty() != nobody_before {
            // Those that wait for a place say whether any worker is connected.
            self.gathered.touched.extend(self.unplaced.iter().cloned());
        }
        self.ask_for_proofs();
        self.send_updates();
        self.finish()
    }

    /// The present term; it grows when a worker has seen a higher one.
    pub(crate) fn term(&self) -> Term {
        self.term
    }

    fn tick(&mut self) {
        self.check_leases();
        self.expire_questions();
        if self.look_again_at.take_if(|at| *at <= self.now).is_some() {
            self.gathered.handovers_due = true;
        }
        while let Some((at, _)) = self.wakes.first()
            && *at <= self.now
            && let Some((_, name)) = self.wakes.pop_first()
        {
            self.gathered.touched.insert(name.clone());
            self.gathered.to_plan.insert(name);
        }
        if let Some(before) = self.requests.forget(self.now) {
            self.gathered.changes.push(Change::ForgetRequests { before });
        }
        if let Some(before) = self.ended.forget(self.now) {
            self.gathered.changes.push(Change::ForgetEnded { before });
        }
    }

    fn ask_for_proofs(&mut self) {
        let is_pending = |name: &&EnvironmentName| {
            self.environments.get(*name).is_some_and(|environment| environment.record.pending_key.is_some())
        };
        let pending: Vec<_> = self.gathered.touched.iter().filter(is_pending).cloned().collect();
        for name in pending {
            self.ask_for_proof(&name);
        }
    }

    /// Puts the effects of the step in order: what is made durable, what is sent, what watchers and callers learn.
    fn finish(&mut self) -> Vec<Effect> {
        let mut gathered = std::mem::take(&mut self.gathered);
        self.gathered.retry_unplaced = gathered.retry_unplaced;
        self.gathered.handovers_due = gathered.handovers_due;
        let mut shown = self.show_environments(std::mem::take(&mut gathered.touched));
        shown.extend(self.show_workers(std::mem::take(&mut gathered.touched_workers)));
        gathered.effects.append(&mut shown);
        let ended = gathered.ended.into_iter();
        gathered.effects.extend(ended.map(|(environment, uid)| Effect::EnvironmentRemoved { environment, uid }));
        gathered.changes.extend(self.number_events(&gathered.effects));

        let mut effects: Vec<_> = gathered.changes.into_iter().map(Effect::Persist).collect();
        let records = gathered.unsaved.iter().filter_map(|name| self.environments.get(name));
        effects.extend(
            records
                .map(|environment| Effect::Persist(Change::PutEnvironment(Box::new(environment.record.clone())))),
        );
        effects.extend(gathered.effects);
        for (id, answer) in gathered.replies {
            let result = match answer {
                Answer::Ready(result) => result,
                Answer::Present(name) => Ok(Reply::Environment(self.environment(&name).map(Box::new))),
                Answer::Worker(name) => Ok(self.present_worker(&name)),
                Answer::Applied(applied) => Ok(Reply::Applied(Box::new(self.show_applied(*applied)))),
                Answer::Store(name) => Ok(Reply::Store(self.store(&name).map(Box::new))),
            };
            effects.push(Effect::Reply { id, result });
        }
        effects
    }

    /// What watchers learn of environments that may have changed.
    fn show_environments(&mut self, touched: BTreeSet<EnvironmentName>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for name in touched {
            let Some(from) = self.environments.get(&name).map(|environment| environment.initialization) else {
                continue;
            };
            let changed = self.refresh(&name);
            let Some(environment) = self.environments.get(&name) else { continue };
            let to = environment.initialization;
            let granted = environment.record.grant.as_ref();
            let is_known = granted.is_some_and(|granted| !self.settings.grant_ids.gave(&granted.grant.id));
            // That what was current still is so is no news after a start of control.
            let is_news = !(is_known && from == Initialization::Unknown && to == Initialization::Current);
            if from != to && is_news {
                effects.push(Effect::Note(Note::InitializationChanged { environment: name.clone(), from, to }));
            }
            if changed {
                effects.push(Effect::EnvironmentChanged { environment: name });
            }
        }
        effects
    }

    /// What watchers learn of workers that may have changed.
    fn show_workers(&mut self, touched: BTreeSet<WorkerName>) -> Vec<Effect> {
        let mut effects = Vec::new();
        for name in touched {
            let is_drained = self.workers.get(&name).is_some_and(|worker| self.is_drained(&name, worker));
            if let Some(worker) = self.workers.get_mut(&name)
                && std::mem::replace(&mut worker.noted_drained, is_drained) != is_drained
                && is_drained
            {
                let change = WorkerChange::Drained;
                effects.push(Effect::Note(Note::Worker { worker: name.clone(), change }));
            }
            let digest = self.workers.get(&name).map(|worker| self.worker_digest(&name, worker));
            if let Some((worker, digest)) = self.workers.get_mut(&name).zip(digest)
                && std::mem::replace(&mut worker.shown, digest) != digest
            {
                effects.push(Effect::WorkerChanged { worker: name });
            }
        }
        effects
    }

    /// The events among the effects, numbered.
    fn number_events(&mut self, effects: &[Effect]) -> Vec<Change> {
        let event_of = |effect: &Effect| if let Effect::Note(note) = effect { note.event() } else { None };
        let record = |event| {
            self.last_event += 1;
            let record = EventRecord { number: self.last_event, term: self.term, at: self.now, event };
            Change::PutEvent(Box::new(record))
        };
        effects.iter().filter_map(event_of).map(record).collect()
    }

    /// Brings an environment's conditions up to date; true if its public view changed.
    fn refresh(&mut self, name: &EnvironmentName) -> bool {
        let Some(environment) = self.environments.get(name) else { return false };
        let around = self.surroundings(environment);
        let conditions = conditions::conditions(environment, around, self.now);
        let initialization = conditions::initialization(environment, around.holder);
        let Some(environment) = self.environments.get_mut(name) else { return false };
        environment.conditions = conditions;
        environment.initialization = initialization;
        let Some(environment) = self.environments.get(name) else { return false };
        let digest = self.digest(environment);
        let changed = environment.shown != digest;
        if let Some(environment) = self.environments.get_mut(name) {
            environment.shown = digest;
        }
        changed
    }

    fn reply(&mut self, id: CommandId, result: Result<Reply, Refusal>) {
        self.gathered.replies.push((id, Answer::Ready(result)));
    }

    fn reply_present(&mut self, id: CommandId, environment: EnvironmentName) {
        self.gathered.replies.push((id, Answer::Present(environment)));
    }

    fn existing(&self, name: &EnvironmentName) -> Result<&Environment, Refusal> {
        self.environments.get(name).ok_or_else(|| no_such_environment(name))
    }

    /// What epochs belong to: a prefix of a store, however the store is called.
    fn epoch_key(&self, spec: &EnvironmentSpec) -> Option<(StoreEndpoint, Prefix)> {
        Some((self.stores.get(&spec.store)?.endpoint.clone(), spec.prefix.clone()))
    }
}

fn refuse<T>(reason: Reason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::new(reason, message))
}

#[cfg(test)]
mod tests;
