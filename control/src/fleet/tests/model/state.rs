//! The whole of it: control, two workers, two prefixes, and what is on its way; and what can happen to it.

use flotilla_proto::Grant;

use super::act::{Act, Budget, Span, Wish};
use super::node::{Down, Life, Node, Sources, Up};
use super::place::{Operation, Outcome, Place};
use super::*;

pub(super) const WORKERS: [&str; 2] = ["w0", "w1"];
pub(super) const ENVIRONMENTS: [&str; 2] = ["a", "b"];
/// A step of the clock that control does not take for a standstill of its own.
const STRIDE: Duration = Duration::from_secs(2);
/// Bytes on their way whose sender is gone, at most, for one prefix.
const MOST_LATE: usize = 2;

/// The state.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) fleet: Fleet,
    pub(super) now: Timestamp,
    pub(super) stored: Stored,
    pub(super) nodes: [Node; 2],
    pub(super) places: [Place; 2],
    pub(super) sources: Sources,
    /// Writes on their way to each prefix whose sender waits for them no more.
    pub(super) late: [Vec<Operation>; 2],
    pub(super) budget: Budget,
    /// Every grant that was sent, by prefix.
    pub(super) grants: [BTreeMap<Epoch, Grant>; 2],
    last_number: u64,
}

fn stores() -> Vec<(StoreName, StoreUrl)> {
    vec![(StoreName::default_store(), StoreUrl::parse("url", "redis://localhost:6379").unwrap())]
}

pub(super) fn index_of(name: &EnvironmentName) -> usize {
    ENVIRONMENTS.iter().position(|one| *one == name.as_str()).expect("one of the two")
}

impl State {
    /// Nobody is connected, and nothing exists.
    pub(super) fn new() -> Self {
        let now = Timestamp(1_000_000);
        let remembered = Remembered { stores: stores(), ..Remembered::default() };
        Self {
            fleet: Fleet::new(settings(Term(1)), remembered, now),
            now,
            stored: Stored { term: Term(1), ..Stored::default() },
            nodes: WORKERS.map(Node::new),
            places: Default::default(),
            sources: ENVIRONMENTS.iter().map(|name| (env(name), 1)).collect(),
            late: Default::default(),
            budget: Budget { faults: 0, wishes: 0, versions: 0, spans: 0 },
            grants: Default::default(),
            last_number: 0,
        }
    }

    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// It happens.
    pub(super) fn happen(&mut self, act: Act) {
        self.spend(act);
        match act {
            Act::Up(at) => self.up(at),
            Act::UpOfOld(at) => {
                if let Some((session, up)) = self.nodes[at].old.pop_front() {
                    self.control_hears(at, session, up);
                }
            }
            Act::Down(at) => self.down(at),
            Act::Store(at, environment) => self.carry_out(at, environment),
            Act::GiveUp(at, environment) => self.give_up(at, environment),
            Act::Late(environment, late) => {
                let operation = self.late[environment].remove(late);
                self.arrive(environment, &operation);
            }
            Act::Source(environment) => {
                *self.sources.get_mut(&env(ENVIRONMENTS[environment])).expect("one of the two") += 1;
                for node in &mut self.nodes {
                    node.advance(&self.sources);
                }
            }
            Act::Crash(at) => {
                let late = self.nodes[at].crash();
                self.leave_behind(late);
            }
            Act::Restart(at) => self.nodes[at].restart(),
            Act::RestartWithoutCache(at) => {
                self.nodes[at].cached.clear();
                self.nodes[at].restart();
            }
            Act::Pause(at) => self.nodes[at].life = Life::Paused,
            Act::Resume(at) => self.nodes[at].resume(&self.sources),
            Act::Cut(at) => {
                self.nodes[at].cut();
                self.nodes[at].advance(&self.sources);
            }
            Act::Connect(at) => {
                let session = SessionId(self.number());
                self.nodes[at].connect(session);
            }
            Act::Pass(Span::Grace) => self.pass_grace(),
            Act::Pass(Span::Lease) => self.pass_lease(),
            Act::Schedule(at, scheduling) => {
                let action = WorkerAction::Schedule(scheduling);
                let command = WorkerCommand { worker: w(WORKERS[at]), action, validate_only: false };
                self.command(Command::Worker(command));
            }
            Act::User(environment, wish) => self.wish(environment, wish),
            Act::RestartControl => self.restart_control(),
            Act::Flush => self.places.iter_mut().for_each(Place::flush),
        }
    }

    fn up(&mut self, at: usize) {
        // What is merely acknowledged goes with the next message.
        loop {
            let Some(line) = &mut self.nodes[at].line else { return };
            let session = line.id;
            let Some(up) = line.up.pop_front() else { return };
            let is_ack = matches!(up, Up::Message(WorkerMessage::Ack { .. }));
            self.control_hears(at, session, up);
            if !is_ack {
                return;
            }
        }
    }

    fn control_hears(&mut self, at: usize, session: SessionId, up: Up) {
        let input = match up {
            Up::Message(WorkerMessage::Hello(hello)) => {
                Input::SessionOpened { session, address: format!("10.0.0.{at}:1"), hello }
            }
            Up::Message(message) => Input::SessionMessage { session, message },
            Up::Closed => Input::SessionClosed { session },
        };
        self.step(input);
    }

    fn down(&mut self, at: usize) {
        // The welcome says nothing that matters without what follows.
        loop {
            let node = &mut self.nodes[at];
            let Some(down) = node.line.as_mut().and_then(|line| line.down.pop_front()) else { return };
            let is_welcome = matches!(down, Down::Message(ControlMessage::Welcome(_)));
            let late = node.hear(down, &self.sources);
            self.leave_behind(late);
            if !is_welcome {
                return;
            }
        }
    }

    fn leave_behind(&mut self, operations: Vec<(EnvironmentName, Operation)>) {
        for (name, operation) in operations {
            let late = &mut self.late[index_of(&name)];
            if late.len() == MOST_LATE {
                late.remove(0);
            }
            late.push(operation);
        }
    }

    fn carry_out(&mut self, at: usize, environment: usize) {
        let name = env(ENVIRONMENTS[environment]);
        let flight = self.nodes[at].running.get(&name).and_then(|writer| writer.flight.clone());
        let Some(flight) = flight.filter(|flight| flight.answer.is_none()) else { return };
        let outcome = self.arrive(environment, &flight.operation);
        self.nodes[at].outcome(&name, outcome, &self.sources);
    }

    fn arrive(&mut self, environment: usize, operation: &Operation) -> Outcome {
        let place = &mut self.places[environment];
        let outcome = place.carry_out(operation);
        let writes = |grant: &&Grant| grant.intent != Intent::Warm;
        let last = self.grants[environment].values().rfind(writes);
        // A claim alone puts nothing right.
        if place.marker || place.purged {
            place.lost &= place.fence().map(|fence| fence.grant) != last.map(|grant| grant.id.clone());
        }
        outcome
    }

    fn give_up(&mut self, at: usize, environment: usize) {
        let name = env(ENVIRONMENTS[environment]);
        let flight = self.nodes[at].running.get(&name).and_then(|writer| writer.flight.clone());
        let Some(flight) = flight else { return };
        self.leave_behind(vec![(name.clone(), flight.operation)]);
        self.nodes[at].outcome(&name, Outcome::Unknown, &self.sources);
    }

    fn pass_grace(&mut self) {
        self.now = self.now.after(STRIDE);
        self.step(Input::Tick);
        for node in self.nodes.iter_mut().filter(|node| node.is_alive()) {
            node.while_passed(&self.sources);
        }
    }

    /// Whoever has something on its way all the time is cut off: neither side hears of the other.
    fn pass_lease(&mut self) {
        let is_idle = |node: &Node| {
            let line =
                node.line.as_ref().filter(|line| line.welcomed && line.up.is_empty() && line.down.is_empty());
            line.filter(|_| node.is_alive()).map(|line| line.id)
        };
        let heard = self.nodes.each_ref().map(is_idle);
        let strides = LEASE.as_secs() / STRIDE.as_secs() + 1;
        for stride in 0..strides {
            self.now = self.now.after(STRIDE);
            for session in heard.into_iter().flatten().filter(|_| stride % 2 == 1) {
                self.step(Input::SessionMessage { session, message: WorkerMessage::Heartbeat });
            }
            self.step(Input::Tick);
        }
        for (node, heard) in self.nodes.iter_mut().zip(heard).filter(|(node, _)| node.is_alive()) {
            if heard.is_none() {
                node.cut();
            }
            node.lease_passed(&self.sources);
        }
    }

    fn wish(&mut self, environment: usize, wish: Wish) {
        let name = ENVIRONMENTS[environment];
        let action = match wish {
            Wish::Create => {
                let uid = format!("uid-{}", self.number()).parse().unwrap();
                let (spec, sdk_key) = (spec(&format!("p:{name}")), Some(key("sdk-1")));
                Action::Create { uid, spec, sdk_key, claim: Claim::Respect }
            }
            Wish::Pause => Edit::Pause.into(),
            Wish::Resume => Edit::Resume.into(),
            Wish::TakeOver => Edit::Resync { claim: Claim::TakeOver, regression: Regression::Doubt }.into(),
            Wish::Purge => Action::Delete(RemovalRequest::Purge),
        };
        self.command(Command::Mutate(mutation(name, action)));
    }

    fn command(&mut self, command: Command) {
        let id = CommandId(self.number());
        self.step(Input::Command { id, command });
    }

    fn restart_control(&mut self) {
        self.stored.term = self.stored.term.next();
        self.fleet = Fleet::new(settings(self.stored.term), self.stored.remembered(stores()), self.now);
        for node in &mut self.nodes {
            node.control_is_gone();
            node.advance(&self.sources);
        }
    }

    /// One step of control, and what it wants done.
    fn step(&mut self, input: Input) {
        let effects = self.fleet.step(self.now, input);
        assert_persists_come_first(&effects);
        for effect in effects {
            match effect {
                Effect::Persist(change) => self.persist(&change),
                Effect::Send { session, message } => self.send(session, message),
                Effect::Close { session } | Effect::Refuse { session, .. } => {
                    self.push_down(session, Down::Closed);
                }
                Effect::Reply { result, .. } => assert!(result.is_ok(), "refused: {result:?}"),
                Effect::EnvironmentChanged { .. }
                | Effect::EnvironmentRemoved { .. }
                | Effect::WorkerChanged { .. }
                | Effect::WorkerRemoved { .. }
                | Effect::Note(_) => {}
            }
        }
        // Of the events only the number of the last one matters.
        let known = self.stored.events.len();
        self.stored.events.drain(..known.saturating_sub(1));
    }

    fn persist(&mut self, change: &Change) {
        if let Change::DeleteEnvironment { environment } = change {
            self.check_removal(environment);
        }
        self.stored.persist(change);
    }

    fn send(&mut self, session: SessionId, message: ControlMessage) {
        match &message {
            ControlMessage::HeartbeatReply => return,
            ControlMessage::Update(update) => {
                for assignment in update.assignments.iter().flatten() {
                    self.check_sent(assignment);
                }
            }
            ControlMessage::Confirmed { grants, .. } => self.check_confirmed(session, grants),
            ControlMessage::Welcome(_)
            | ControlMessage::InitialStateComplete
            | ControlMessage::NothingMoves
            | ControlMessage::Request { .. }
            | ControlMessage::GoAway { .. } => {}
        }
        self.push_down(session, Down::Message(message));
    }

    fn push_down(&mut self, session: SessionId, down: Down) {
        let lines = self.nodes.iter_mut().filter_map(|node| node.line.as_mut());
        if let Some(line) = lines.into_iter().find(|line| line.id == session) {
            line.down.push_back(down);
        }
    }
}
