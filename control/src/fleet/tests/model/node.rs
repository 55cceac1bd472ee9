//! An abstract worker: its process, its session with control, and what is assigned to it.

use std::collections::VecDeque;

use flotilla_proto::{FleetId, GrantId};

use super::place::{Operation, Outcome};
use super::writer::{Confirmation, Flight, Me, Standing, Writer};
use super::*;

/// Whether the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    /// It stands still: nothing that it has sent is taken back, and nothing that arrives is looked at.
    Paused,
    Crashed,
}

/// From worker to control, or the end of its connection.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Up {
    Message(WorkerMessage),
    Closed,
}

/// From control to worker, or the end of the connection.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Down {
    Message(ControlMessage),
    Closed,
}

/// The worker's end of a session.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) id: SessionId,
    pub(super) welcomed: bool,
    pub(super) up: VecDeque<Up>,
    pub(super) down: VecDeque<Down>,
}

/// One worker.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) life: Life,
    fleet: FleetId,
    pub(super) name: WorkerName,
    pub(super) incarnation: Incarnation,
    highest_term: Term,
    /// The last number of a write or a question.
    last_number: u64,
    pub(super) line: Option<Line>,
    /// What is still on its way from sessions that this worker has given up.
    pub(super) old: VecDeque<(SessionId, Up)>,
    pub(super) running: BTreeMap<EnvironmentName, Writer>,
    /// Assignments on its disk, which do not run yet or any more.
    pub(super) cached: BTreeMap<EnvironmentName, Assignment>,
}

/// What the sources send, by environment.
pub(super) type Sources = BTreeMap<EnvironmentName, u64>;

impl Node {
    pub(super) fn new(name: &str) -> Self {
        Self {
            life: Life::Alive,
            fleet: settings(Term(1)).fleet,
            name: w(name),
            incarnation: Incarnation {
                state_directory: format!("dir-{name}").parse().unwrap(),
                start_counter: 1,
                random: 7,
            },
            highest_term: Term(0),
            last_number: 0,
            line: None,
            old: VecDeque::new(),
            running: BTreeMap::new(),
            cached: BTreeMap::new(),
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.life == Life::Alive
    }

    fn is_live(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.welcomed)
    }

    /// It opens a session and says hello.
    pub(super) fn connect(&mut self, id: SessionId) {
        let running = self.running.values().map(|writer| &writer.assignment);
        let held = running.chain(self.cached.values()).map(|one| HeldGrant {
            environment: one.environment.clone(),
            uid: one.uid.clone(),
            generation: one.generation,
            grant: one.grant.clone(),
        });
        let hello = Hello {
            worker: self.name.clone(),
            incarnation: self.incarnation.clone(),
            version: "0.1.0".to_owned(),
            capacity: None,
            labels: Labels::new(),
            held: held.collect(),
            highest_term: self.highest_term,
            fleet: None,
        };
        let up = VecDeque::from([Up::Message(WorkerMessage::Hello(hello))]);
        self.line = Some(Line { id, welcomed: false, up, down: VecDeque::new() });
    }

    /// Its session breaks. What is on its way up may arrive yet, what is on its way down does not.
    pub(super) fn cut(&mut self) {
        let Some(line) = self.line.take() else { return };
        self.old.extend(line.up.into_iter().map(|up| (line.id, up)));
        self.old.push_back((line.id, Up::Closed));
        self.session_lost();
    }

    /// Its session breaks together with control: nothing of it is left.
    pub(super) fn control_is_gone(&mut self) {
        self.line = None;
        self.old.clear();
        self.session_lost();
    }

    fn session_lost(&mut self) {
        for writer in self.running.values_mut() {
            writer.told = None;
            writer.ask_again();
        }
    }

    /// Its process dies. Returns the operations whose bytes are on their way.
    pub(super) fn crash(&mut self) -> Vec<(EnvironmentName, Operation)> {
        self.cut();
        self.life = Life::Crashed;
        for (name, writer) in &self.running {
            self.cached.insert(name.clone(), writer.assignment.clone());
        }
        let running = std::mem::take(&mut self.running);
        running.into_iter().filter_map(|(name, writer)| Some((name, on_its_way(writer)?))).collect()
    }

    /// A new process starts.
    pub(super) fn restart(&mut self) {
        self.life = Life::Alive;
        self.incarnation.start_counter += 1;
    }

    /// It starts what an earlier process held and nobody has taken away.
    pub(super) fn start_cached(&mut self, sources: &Sources) {
        for (name, assignment) in std::mem::take(&mut self.cached) {
            self.running.insert(name, Writer::new(assignment));
        }
        self.advance(sources);
    }

    /// It hears something from control. Returns operations whose sender is no more.
    pub(super) fn hear(&mut self, down: Down, sources: &Sources) -> Vec<(EnvironmentName, Operation)> {
        let mut late = Vec::new();
        match down {
            Down::Closed => {
                self.line = None;
                self.session_lost();
            }
            Down::Message(ControlMessage::Welcome(welcome)) => {
                self.highest_term = self.highest_term.max(welcome.term);
                if let Some(line) = &mut self.line {
                    line.welcomed = true;
                }
            }
            Down::Message(ControlMessage::Update(update)) => {
                let nonce = update.nonce;
                late = self.update(update);
                self.say(WorkerMessage::Ack { nonce });
            }
            Down::Message(ControlMessage::InitialStateComplete) => self.start_cached(sources),
            Down::Message(ControlMessage::Confirmed { id, grants }) => {
                for writer in self.running.values_mut() {
                    writer.confirmed(id, &grants);
                }
            }
            Down::Message(
                ControlMessage::HeartbeatReply
                | ControlMessage::NothingMoves
                | ControlMessage::Request { .. }
                | ControlMessage::GoAway { .. },
            ) => {}
        }
        self.advance(sources);
        late
    }

    fn update(&mut self, update: flotilla_proto::session::Update) -> Vec<(EnvironmentName, Operation)> {
        let mut late = Vec::new();
        for Removal { environment, uid } in update.removals {
            if self.cached.get(&environment).is_some_and(|one| one.uid == uid) {
                self.cached.remove(&environment);
            }
            if self.running.get(&environment).is_some_and(|one| one.assignment.uid == uid) {
                let stopped = self.running.remove(&environment).and_then(on_its_way);
                late.extend(stopped.map(|operation| (environment, operation)));
            }
        }
        for assignment in update.assignments.into_iter().flatten() {
            let name = assignment.environment.clone();
            self.cached.remove(&name);
            match self.running.get_mut(&name) {
                Some(writer) if writer.assignment.uid == assignment.uid => writer.reassign(assignment),
                Some(_) | None => {
                    let stopped = self.running.insert(name.clone(), Writer::new(assignment)).and_then(on_its_way);
                    late.extend(stopped.map(|operation| (name, operation)));
                }
            }
        }
        late
    }

    fn say(&mut self, message: WorkerMessage) {
        if let Some(line) = &mut self.line {
            line.up.push_back(Up::Message(message));
        }
    }

    /// The store answers, or does not.
    pub(super) fn outcome(&mut self, name: &EnvironmentName, outcome: Outcome, sources: &Sources) {
        if self.life == Life::Paused {
            let flight = self.running.get_mut(name).and_then(|writer| writer.flight.as_mut());
            if let Some(flight) = flight {
                flight.answer = Some(outcome);
            }
            return;
        }
        self.step(name, sources, |writer, me| writer.outcome(me, outcome));
        self.advance(sources);
    }

    /// It goes on after it stood still.
    pub(super) fn resume(&mut self, sources: &Sources) {
        self.life = Life::Alive;
        let names: Vec<_> = self.running.keys().cloned().collect();
        for name in names {
            let answer = self.running.get_mut(&name).and_then(|writer| writer.flight.as_mut()?.answer.take());
            if let Some(answer) = answer {
                self.step(&name, sources, |writer, me| writer.outcome(me, answer));
            }
        }
        self.advance(sources);
    }

    /// A lease has passed while it was running.
    pub(super) fn lease_passed(&mut self, sources: &Sources) {
        for writer in self.running.values_mut() {
            writer.lease_passed();
        }
        self.while_passed(sources);
    }

    /// A moment has passed while it was running.
    pub(super) fn while_passed(&mut self, sources: &Sources) {
        for writer in self.running.values_mut() {
            if writer.standing == Standing::Absent(Confirmation::Denied) {
                writer.ask_again();
            }
        }
        self.start_cached(sources);
    }

    fn step(&mut self, name: &EnvironmentName, sources: &Sources, act: impl FnOnce(&mut Writer, &mut Me<'_>)) {
        let live = self.is_live();
        let Some(writer) = self.running.get_mut(name) else { return };
        let mut me = Me {
            fleet: &self.fleet,
            incarnation: &self.incarnation,
            live,
            source: sources[name],
            next_number: &mut self.last_number,
        };
        act(writer, &mut me);
    }

    /// Does all that can be done without waiting, and says what control does not know.
    pub(super) fn advance(&mut self, sources: &Sources) {
        if !self.is_alive() {
            return;
        }
        let names: Vec<_> = self.running.keys().cloned().collect();
        for name in names {
            let mut asked = None;
            self.step(&name, sources, |writer, me| asked = writer.advance(me));
            let live = self.is_live();
            let Some(writer) = self.running.get_mut(&name) else { continue };
            let Assignment { environment, uid, generation, grant, .. } = writer.assignment.clone();
            let report = live.then(|| writer.report()).filter(|report| writer.told.as_deref() != Some(report));
            if let Some(report) = report {
                writer.told = Some(Box::new(report.clone()));
                self.say(WorkerMessage::Report(vec![report]));
            }
            if let Some(id) = asked {
                let held = HeldGrant { environment, uid, generation, grant };
                self.say(WorkerMessage::Confirm { id, grants: vec![held] });
            }
        }
    }

    /// Whether its writer of that environment takes what stands in the fence for its own last write.
    pub(super) fn expects(&self, name: &EnvironmentName, fence: Option<&String>) -> bool {
        let writer = self.running.get(name).filter(|_| fence.is_some());
        writer.is_some_and(|writer| writer.expected.as_ref() == fence && writer.standing == Standing::Held)
    }

    /// Whether that grant is assigned here.
    pub(super) fn has(&self, name: &EnvironmentName, grant: &GrantId) -> bool {
        let running = self.running.get(name).map(|writer| &writer.assignment);
        running.or_else(|| self.cached.get(name)).is_some_and(|one| one.grant.id == *grant)
    }
}

/// What of a writer's operation the store may see yet, though nobody waits for the answer.
fn on_its_way(writer: Writer) -> Option<Operation> {
    match writer.flight? {
        Flight { answer: None, operation: operation @ Operation::Write { .. }, .. } => Some(operation),
        Flight { .. } => None,
    }
}
