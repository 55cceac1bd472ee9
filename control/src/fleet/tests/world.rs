//! Everything around the fleet, as tests play it.

use super::*;

pub(super) const LEASE: Duration = Duration::from_secs(15);
pub(super) const GRACE: Duration = Duration::from_secs(1);
pub(super) const TICK: Duration = Duration::from_millis(250);

/// What the simulated store holds.
#[derive(Debug, Default, Clone)]
pub(super) struct Stored {
    pub(super) environments: BTreeMap<EnvironmentName, EnvironmentRecord>,
    pub(super) epochs: BTreeMap<(StoreName, Prefix), Epoch>,
    pub(super) former_epochs: BTreeMap<(StoreEndpoint, Prefix), Epoch>,
    pub(super) requests: BTreeMap<String, (RequestId, Subject, Timestamp)>,
    pub(super) ended: BTreeMap<Uid, Timestamp>,
    pub(super) workers: BTreeMap<WorkerName, Scheduling>,
    pub(super) events: Vec<EventRecord>,
    pub(super) term: Term,
}

pub(super) struct World {
    pub(super) fleet: Fleet,
    pub(super) now: Timestamp,
    pub(super) stored: Stored,
    pub(super) stores: Vec<(StoreName, StoreUrl)>,
    pub(super) players: BTreeMap<WorkerName, Player>,
    pub(super) replies: BTreeMap<u64, Result<Reply, Refusal>>,
    /// Effects since the test last took them.
    pub(super) effects: Vec<Effect>,
    last_number: u64,
    last_beat: Timestamp,
}

pub(super) fn env(name: &str) -> EnvironmentName {
    name.parse().unwrap()
}

pub(super) fn w(name: &str) -> WorkerName {
    name.parse().unwrap()
}

pub(super) fn key(text: &str) -> SdkKeySource {
    SdkKeySource::parse("sdk_key", text).unwrap()
}

pub(super) fn spec(prefix: &str) -> EnvironmentSpec {
    EnvironmentSpec {
        display_name: String::new(),
        prefix: prefix.parse().unwrap(),
        store: StoreName::default_store(),
        source: Source::Stream { initial_retry_delay: DEFAULT_INITIAL_RETRY_DELAY },
        filter: None,
        stream_uri: None,
        base_uri: None,
        application_id: None,
        application_version: None,
        labels: Labels::new(),
        worker_selector: Labels::new(),
        guard: Guard::Confirm,
    }
}

pub(super) fn settings(term: Term) -> FleetSettings {
    FleetSettings {
        fleet: "fleet-1".parse().unwrap(),
        term,
        version: "0.1.0".to_owned(),
        heartbeat_interval: Duration::from_secs(3),
        lease_duration: LEASE,
        reassign_grace: GRACE,
        max_handovers: 4,
        stream_uri: "https://stream.launchdarkly.com".parse().unwrap(),
        base_uri: "https://sdk.launchdarkly.com".parse().unwrap(),
        application_id: None,
        application_version: None,
        grant_ids: GrantIds { start: format!("t{}", term.0), last: 0 },
    }
}

impl Stored {
    /// What a control that starts finds.
    pub(super) fn remembered(&self, stores: Vec<(StoreName, StoreUrl)>) -> Remembered {
        Remembered {
            environments: self.environments.values().cloned().collect(),
            epochs: self.epochs.iter().map(|((s, p), e)| (s.clone(), p.clone(), *e)).collect(),
            former_epochs: self.former_epochs.iter().map(|((s, p), e)| (s.clone(), p.clone(), *e)).collect(),
            stores,
            requests: self.requests.values().cloned().collect(),
            ended: self.ended.iter().map(|(uid, at)| (uid.clone(), *at)).collect(),
            workers: self.workers.iter().map(|(worker, how)| (worker.clone(), *how)).collect(),
            events: self.events.clone(),
        }
    }

    /// Makes a change durable.
    pub(super) fn persist(&mut self, change: &Change) {
        match change {
            Change::PutEnvironment(record) => {
                self.environments.insert(record.name.clone(), (**record).clone());
            }
            Change::DeleteEnvironment { environment } => {
                self.environments.remove(environment);
            }
            Change::PutEpoch { store, prefix, epoch } => {
                let before = self.epochs.insert((store.clone(), prefix.clone()), *epoch);
                assert!(before.is_none_or(|before| before < *epoch), "an epoch fell or was given twice");
            }
            Change::PutRequest { request, subject, at } => {
                self.requests.insert(request.id.clone(), (request.clone(), subject.clone(), *at));
            }
            Change::ForgetRequests { before } => self.requests.retain(|_, (_, _, at)| *at >= *before),
            Change::PutEnded { uid, at } => {
                self.ended.insert(uid.clone(), *at);
            }
            Change::ForgetEnded { before } => self.ended.retain(|_, at| *at >= *before),
            Change::PutTerm { term } => self.term = *term,
            Change::PutWorker { worker, scheduling } => {
                self.workers.insert(worker.clone(), *scheduling);
            }
            Change::DeleteWorker { worker } => {
                self.workers.remove(worker);
            }
            Change::PutEvent(event) => {
                let last = self.events.last().map_or(0, |event| event.number);
                assert_eq!(event.number, last + 1, "events follow each other");
                self.events.push((**event).clone());
            }
            Change::PutStore { .. } | Change::PutAudit(_) | Change::PruneAudit { .. } => {}
            Change::DeleteStore { store, endpoint } => {
                let gone = self.epochs.extract_if(.., |(name, _), _| name == store);
                for ((_, prefix), epoch) in gone.collect::<Vec<_>>() {
                    let highest = self.former_epochs.entry((endpoint.clone(), prefix)).or_default();
                    *highest = epoch.max(*highest);
                }
            }
        }
    }
}

impl World {
    pub(super) fn new() -> Self {
        let url = |url| StoreUrl::parse("url", url).unwrap();
        let stores = vec![
            (StoreName::default_store(), url("redis://localhost:6379")),
            ("alias".parse().unwrap(), url("redis://127.0.0.1/0")),
            ("other".parse().unwrap(), url("redis://localhost:6380")),
        ];
        let now = Timestamp(1_000_000);
        let remembered = Remembered { stores: stores.clone(), ..Remembered::default() };
        Self {
            fleet: Fleet::new(settings(Term(1)), remembered, now),
            now,
            stored: Stored { term: Term(1), ..Stored::default() },
            stores,
            players: BTreeMap::new(),
            replies: BTreeMap::new(),
            effects: Vec::new(),
            last_number: 0,
            last_beat: now,
        }
    }

    /// Control stops and starts from what is stored; all sessions are gone.
    pub(super) fn restart(&mut self) {
        self.stored.term = self.stored.term.next();
        let remembered = self.stored.remembered(self.stores.clone());
        for player in self.players.values_mut() {
            player.session = None;
        }
        self.fleet = Fleet::new(settings(self.stored.term), remembered, self.now);
    }

    pub(super) fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// One step, and all that the workers say to it.
    pub(super) fn step(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.fleet.step(self.now, input);
            assert_persists_come_first(&effects);
            for effect in effects {
                self.apply(&effect, &mut inputs);
                match effect {
                    Effect::Reply { id, result } => {
                        assert!(self.replies.insert(id.0, result).is_none(), "two replies to one command");
                    }
                    other => self.effects.push(other),
                }
            }
        }
    }

    fn apply(&mut self, effect: &Effect, inputs: &mut std::collections::VecDeque<Input>) {
        match effect {
            Effect::Persist(change) => {
                match change {
                    Change::PutStore { store, url } => {
                        match self.stores.iter_mut().find(|(name, _)| name == store) {
                            Some((_, present)) => present.clone_from(url),
                            None => self.stores.push((store.clone(), (**url).clone())),
                        }
                    }
                    Change::DeleteStore { store, .. } => self.stores.retain(|(name, _)| name != store),
                    _ => {}
                }
                self.stored.persist(change);
            }
            Effect::Send { session, message } => {
                let player = self.players.values_mut().find(|player| player.session == Some(*session));
                if let Some(answer) = player.and_then(|player| player.hear(message)) {
                    inputs.push_back(Input::SessionMessage { session: *session, message: answer });
                }
            }
            Effect::Close { session } | Effect::Refuse { session, .. } => {
                for player in self.players.values_mut().filter(|player| player.session == Some(*session)) {
                    player.session = None;
                }
            }
            Effect::Reply { .. }
            | Effect::EnvironmentChanged { .. }
            | Effect::EnvironmentRemoved { .. }
            | Effect::WorkerChanged { .. }
            | Effect::WorkerRemoved { .. }
            | Effect::Note(_) => {}
        }
    }

    pub(super) fn command(&mut self, command: Command) -> u64 {
        let id = self.number();
        self.step(Input::Command { id: CommandId(id), command });
        id
    }

    pub(super) fn mutate(&mut self, mutation: Mutation) -> Result<Option<v1::Environment>, Refusal> {
        let id = self.command(Command::Mutate(mutation));
        match self.replies.remove(&id).expect("a mutation is answered at once")? {
            Reply::Environment(environment) => Ok(environment.map(|environment| *environment)),
            other @ (Reply::Answer(_)
            | Reply::Worker(_)
            | Reply::Store(_)
            | Reply::Checked(_)
            | Reply::Applied(_)) => {
                panic!("not an environment: {other:?}")
            }
        }
    }

    pub(super) fn worker_command(
        &mut self,
        worker: &str,
        action: WorkerAction,
    ) -> Result<Option<v1::Worker>, Refusal> {
        let id = self.command(Command::Worker(WorkerCommand { worker: w(worker), action, validate_only: false }));
        match self.replies.remove(&id).expect("it is answered at once")? {
            Reply::Worker(worker) => Ok(worker.map(|worker| *worker)),
            other @ (Reply::Answer(_)
            | Reply::Environment(_)
            | Reply::Store(_)
            | Reply::Checked(_)
            | Reply::Applied(_)) => {
                panic!("not a worker: {other:?}")
            }
        }
    }

    /// Workers do what they were told, and report it, until no handover is under way.
    pub(super) fn hand_over(&mut self) {
        for _ in 0..1000 {
            if self.fleet.handovers.is_empty() {
                return;
            }
            self.report_everything();
            self.advance(TICK);
        }
        panic!("handovers go on for ever: {:?}", self.fleet.handovers);
    }

    /// All workers report that all is well.
    pub(super) fn report_everything(&mut self) {
        let held =
            self.players.iter().filter(|(_, player)| player.session.is_some()).flat_map(|(worker, player)| {
                player.held.keys().map(|(environment, _)| (worker.to_string(), environment.to_string()))
            });
        for (worker, environment) in held.collect::<Vec<_>>() {
            let there = self.players[&w(&worker)].session.is_some();
            if there && self.assignment(&worker, &environment).is_some() {
                self.report(&worker, &environment, |_| {});
            }
        }
    }

    pub(super) fn act(
        &mut self,
        name: &str,
        action: impl Into<Action>,
    ) -> Result<Option<v1::Environment>, Refusal> {
        self.mutate(mutation(name, action))
    }

    pub(super) fn create(&mut self, name: &str) -> v1::Environment {
        let action = self.creation(spec(&format!("p:{name}")));
        self.act(name, action).unwrap().unwrap()
    }

    pub(super) fn creation(&mut self, spec: EnvironmentSpec) -> Action {
        let uid = format!("uid-{}", self.number()).parse().unwrap();
        let sdk_key = (!spec.is_file()).then(|| key("sdk-1"));
        Action::Create { uid, spec, sdk_key, claim: Claim::Respect }
    }

    pub(super) fn hello(&self, worker: &str) -> Hello {
        let player = &self.players[&w(worker)];
        let held = player.held.values().map(|one| HeldGrant {
            environment: one.environment.clone(),
            uid: one.uid.clone(),
            generation: one.generation,
            grant: one.grant.clone(),
        });
        Hello {
            worker: w(worker),
            incarnation: Incarnation {
                state_directory: player.directory.parse().unwrap(),
                start_counter: player.starts,
                random: 7,
            },
            version: "0.1.0".to_owned(),
            capacity: player.capacity,
            labels: player.labels.clone(),
            held: held.collect(),
            highest_term: player.highest_term,
            fleet: None,
        }
    }

    /// A worker connects, for the first time or again with what it holds.
    pub(super) fn connect(&mut self, worker: &str) -> SessionId {
        let player = self.players.entry(w(worker)).or_default();
        if player.starts == 0 {
            player.starts = 1;
            player.directory = format!("dir-{worker}");
        }
        let hello = self.hello(worker);
        self.open(hello)
    }

    pub(super) fn open(&mut self, hello: Hello) -> SessionId {
        let session = SessionId(self.number());
        self.players.get_mut(&hello.worker).unwrap().session = Some(session);
        self.step(Input::SessionOpened { session, address: format!("10.0.0.{}:1", session.0), hello });
        session
    }

    pub(super) fn say(&mut self, worker: &str, message: WorkerMessage) {
        let session = self.players[&w(worker)].session.expect("connected");
        self.step(Input::SessionMessage { session, message });
    }

    pub(super) fn cut(&mut self, worker: &str) {
        let session = self.players.get_mut(&w(worker)).unwrap().session.take().expect("connected");
        self.step(Input::SessionClosed { session });
    }

    /// Time passes; workers that are not silent send heartbeats.
    pub(super) fn advance(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end {
            self.now = self.now.after(TICK).min(end);
            if self.now.since(self.last_beat) >= Duration::from_secs(1) {
                self.last_beat = self.now;
                self.beat();
            }
            self.step(Input::Tick);
        }
    }

    fn beat(&mut self) {
        let sessions: Vec<_> =
            self.players.values().filter(|player| !player.silent).filter_map(|player| player.session).collect();
        for session in sessions {
            self.step(Input::SessionMessage { session, message: WorkerMessage::Heartbeat });
        }
    }

    pub(super) fn report_of(&self, worker: &str, name: &str) -> EnvironmentReport {
        let mut held = self.players[&w(worker)].held.values();
        let assignment = held.find(|one| one.environment == env(name)).expect("held");
        let serving = matches!(assignment.grant.intent, Intent::Serve | Intent::Warm);
        let Assignment { environment, uid, generation, grant, .. } = assignment;
        EnvironmentReport {
            grant_state: if serving { GrantState::Synchronized } else { GrantState::Established },
            source_state: serving.then_some(SourceState::Connected),
            marker: Marker::Present,
            store_available: Some(true),
            flags: 3,
            segments: 1,
            bytes: 100,
            last_event_time: Some(self.now),
            last_byte_time: Some(self.now),
            last_write_time: Some(self.now),
            environment_id: Some("ld-1".to_owned()),
            ..EnvironmentReport::new(environment.clone(), uid.clone(), *generation, grant.clone())
        }
    }

    /// A worker reports that all is well with an environment, but for what `change` says.
    pub(super) fn report(&mut self, worker: &str, name: &str, change: impl FnOnce(&mut EnvironmentReport)) {
        let mut report = self.report_of(worker, name);
        change(&mut report);
        self.say(worker, WorkerMessage::Report(vec![report]));
    }

    pub(super) fn view(&self, name: &str) -> v1::Environment {
        self.fleet.environment(&env(name)).expect("exists")
    }

    pub(super) fn initialization(&self, name: &str) -> v1::Initialization {
        self.view(name).status.unwrap().initialization()
    }

    /// Status and reason of a condition, if it applies.
    pub(super) fn condition(&self, name: &str, kind: &str) -> Option<(v1::ConditionStatus, String)> {
        self.shown_condition(name, kind).map(|found| (found.status(), found.reason))
    }

    pub(super) fn shown_condition(&self, name: &str, kind: &str) -> Option<v1::Condition> {
        let conditions = self.view(name).status.unwrap().conditions;
        conditions.into_iter().find(|condition| condition.r#type == kind)
    }

    /// The worker that has an environment, by the view and by what the worker was told.
    pub(super) fn owner(&self, name: &str) -> String {
        self.view(name).status.unwrap().worker
    }

    pub(super) fn epoch(&self, name: &str) -> u64 {
        self.view(name).status.unwrap().epoch
    }

    pub(super) fn assignment(&self, worker: &str, name: &str) -> Option<&Assignment> {
        self.players.get(&w(worker))?.held.values().find(|one| one.environment == env(name))
    }

    /// The notes since effects were last taken.
    pub(super) fn notes(&mut self) -> Vec<Note> {
        let note = |effect| match effect {
            Effect::Note(note) => Some(note),
            _ => None,
        };
        std::mem::take(&mut self.effects).into_iter().filter_map(note).collect()
    }

    pub(super) fn moves(&self) -> u64 {
        self.fleet.counts().moves.values().sum()
    }
}

pub(super) fn mutation(name: &str, action: impl Into<Action>) -> Mutation {
    Mutation { environment: env(name), action: action.into(), etag: None, request: None, validate_only: false }
}

pub(super) fn assert_persists_come_first(effects: &[Effect]) {
    let is_persist = |effect: &Effect| matches!(effect, Effect::Persist(_));
    let first_other = effects.iter().position(|effect| !is_persist(effect)).unwrap_or(effects.len());
    assert!(!effects[first_other..].iter().any(is_persist), "something is done before all is durable");
}
