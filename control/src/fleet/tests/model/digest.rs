//! What tells two states apart: nearly everything from which something may follow, and nothing else. Left out is what only
//! delays something, such as for how long loads have been uneven. Instants count as how far they are ahead, epochs as how
//! far they are behind the highest, fences as which of those that occur they are.

use flotilla_proto::{Grant, Uid};
use flotilla_worker::fence::Fence;

use super::node::{Down, Node, Up};
use super::place::{Item, Operation, Outcome, Place, Put};
use super::state::{ENVIRONMENTS, State, index_of};
use super::writer::{Confirmation, Content, Flight, Standing, Writer};
use super::*;
use crate::fleet::environment::Environment;
use crate::fleet::handover::Handover;
use crate::fleet::worker::{Link, Told, Worker};

/// Further ahead than that, one instant is as good as another.
const HORIZON: Duration = Duration::from_mins(3);

/// Numbers, one after the other, as one number.
struct Digest<'a> {
    state: &'a State,
    value: u128,
    /// The fences met so far.
    fences: Vec<&'a str>,
    /// The environments met so far.
    uids: Vec<&'a Uid>,
}

/// The digest of a state.
pub(super) fn digest(state: &State) -> u128 {
    let mut digest =
        Digest { state, value: 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, fences: vec![], uids: vec![] };
    let budget = &state.budget;
    for spent in [budget.faults, budget.wishes, budget.versions, budget.spans] {
        digest.number(spent.into());
    }
    for at in 0..ENVIRONMENTS.len() {
        digest.place(&state.places[at]);
        let late = &state.late[at];
        digest.number(late.len() as u64);
        for operation in late {
            digest.operation(operation, at);
        }
    }
    for node in &state.nodes {
        digest.node(node);
    }
    digest.fleet(&state.fleet);
    digest.value
}

impl<'a> Digest<'a> {
    fn number(&mut self, number: u64) {
        self.value = (self.value ^ u128::from(number)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        self.value ^= self.value >> 61;
    }

    fn flag(&mut self, flag: bool) {
        self.number(flag.into());
    }

    /// A value of an enum without data.
    fn word<T>(&mut self, value: &T) {
        self.number(hash_of(&std::mem::discriminant(value)));
    }

    fn name(&mut self, name: Option<&str>) {
        let last = name.and_then(|name| name.bytes().next_back());
        self.number(last.map_or(0, u64::from));
    }

    fn instant(&mut self, at: Option<Timestamp>) {
        let ahead = |at: Timestamp| 1 + at.since(self.state.now).min(HORIZON).as_millis();
        self.number(at.map_or(0, |at| u64::try_from(ahead(at)).unwrap_or(u64::MAX)));
    }

    fn age(&mut self, of: Timestamp) {
        self.number(u64::try_from(self.state.now.since(of).min(HORIZON).as_millis()).unwrap_or(u64::MAX));
    }

    fn uid(&mut self, uid: &'a Uid) {
        let known = self.uids.iter().position(|known| *known == uid);
        let at = known.unwrap_or(self.uids.len());
        if known.is_none() {
            self.uids.push(uid);
        }
        self.number(at as u64);
    }

    fn epoch(&mut self, epoch: Epoch, at: usize) {
        let highest = self.state.fleet.epochs.iter().nth(at).map_or(Epoch(0), |(_, epoch)| *epoch);
        self.number(highest.0.wrapping_sub(epoch.0));
    }

    fn grant(&mut self, grant: Option<&Grant>, at: usize) {
        match grant {
            None => self.number(99),
            Some(grant) => {
                self.word(&grant.intent);
                self.epoch(grant.epoch, at);
            }
        }
    }

    fn version(&mut self, version: u64, at: usize) {
        self.number(self.state.sources.values().nth(at).map_or(0, |source| source.wrapping_sub(version)));
    }

    fn fence(&mut self, text: Option<&'a str>) {
        let Some(text) = text else { return self.number(98) };
        if let Some(known) = self.fences.iter().position(|known| *known == text) {
            return self.number(known as u64);
        }
        self.number(self.fences.len() as u64);
        self.fences.push(text);
        let Some(fence) = Fence::parse(text) else { return };
        self.word(&fence.kind);
        let state = self.state;
        for (at, node) in state.nodes.iter().enumerate() {
            if node.incarnation.state_directory == fence.incarnation.state_directory {
                self.number(at as u64);
                self.number(node.incarnation.start_counter - fence.incarnation.start_counter);
            }
        }
        for granted in &state.grants {
            let at = granted.values().position(|grant| grant.epoch == fence.epoch && grant.id == fence.grant);
            self.number(at.map_or(97, |at| (granted.len() - at) as u64));
        }
    }

    fn item(&mut self, item: Option<&'a Item>, at: usize) {
        self.flag(item.is_some());
        if let Some(item) = item {
            self.uid(&item.uid);
            self.version(item.version, at);
        }
    }

    fn place(&mut self, place: &'a Place) {
        let at = self.state.places.iter().position(|one| std::ptr::eq(one, place)).unwrap_or_default();
        self.fence(place.fence.as_deref());
        self.item(place.item.as_ref(), at);
        for flag in [place.marker, place.lost, place.purged] {
            self.flag(flag);
        }
    }

    fn operation(&mut self, operation: &'a Operation, at: usize) {
        self.word(operation);
        if let Operation::Write { expected, next, put } = operation {
            self.fence(expected.as_deref());
            self.fence(Some(next));
            self.word(put);
            if let Put::Item(item) = put {
                self.item(Some(item), at);
            }
        }
    }

    fn node(&mut self, node: &'a Node) {
        self.word(&node.life);
        self.number(node.old.len() as u64);
        for (_, up) in &node.old {
            self.up(up);
        }
        self.flag(node.line.is_some());
        if let Some(line) = &node.line {
            self.flag(line.welcomed);
            for queue in [line.up.len(), line.down.len()] {
                self.number(queue as u64);
            }
            line.up.iter().for_each(|up| self.up(up));
            line.down.iter().for_each(|down| self.down(down));
        }
        for (name, assignment) in &node.cached {
            self.name(Some(name.as_str()));
            self.assignment(assignment);
        }
        self.number(node.running.len() as u64);
        for (name, writer) in &node.running {
            self.name(Some(name.as_str()));
            self.writer(writer, index_of(name));
        }
    }

    fn assignment(&mut self, assignment: &'a Assignment) {
        self.uid(&assignment.uid);
        self.number(assignment.generation.0);
        self.flag(assignment.take_over.is_some());
        self.grant(Some(&assignment.grant), index_of(&assignment.environment));
    }

    fn writer(&mut self, writer: &'a Writer, at: usize) {
        self.assignment(&writer.assignment);
        self.word(&writer.standing);
        match &writer.standing {
            Standing::Absent(confirmation) => {
                self.word(confirmation);
                self.flag(matches!(confirmation, Confirmation::Asked(_)));
            }
            Standing::Claimable(found) | Standing::Conflict(found) | Standing::Fenced(found) => {
                self.fence(Some(found));
            }
            Standing::Unknown | Standing::Held | Standing::Ended => {}
        }
        self.fence(writer.expected.as_deref());
        self.number(writer.attempts.len() as u64);
        for attempt in &writer.attempts {
            self.fence(Some(&attempt.value));
            self.item(attempt.wrote.as_ref(), at);
        }
        self.word(&writer.content);
        if writer.content != Content::Unknown {
            self.item(writer.stored.as_ref(), at);
        }
        self.word(&writer.marker);
        for flag in [writer.must_advance, writer.good_lately, writer.absent_for_long, writer.flight.is_some()] {
            self.flag(flag);
        }
        if let Some(Flight { operation, answer, outdated }) = &writer.flight {
            self.operation(operation, at);
            self.flag(*outdated);
            self.flag(answer.is_some());
            if let Some(answer) = answer {
                self.word(answer);
                if let Outcome::Looked { fence, .. } = answer {
                    self.fence(fence.as_deref());
                }
            }
        }
        self.flag(writer.told.is_some());
        if let Some(told) = &writer.told {
            self.report(told, at);
        }
    }

    fn report(&mut self, report: &'a EnvironmentReport, at: usize) {
        self.uid(&report.uid);
        self.number(report.generation.0);
        self.grant(Some(&report.grant), at);
        self.word(&report.grant_state);
        self.word(&report.marker);
        self.flag(report.source_state.is_some());
        self.fence(report.found_fence.as_deref());
        if report.flags > 0 {
            self.version(report.flags, at);
        }
    }

    fn up(&mut self, up: &'a Up) {
        let Up::Message(message) = up else { return self.number(96) };
        self.word(message);
        match message {
            WorkerMessage::Hello(hello) => self.held(&hello.held),
            WorkerMessage::Report(reports) => {
                for report in reports {
                    self.number(index_of(&report.environment) as u64);
                    self.report(report, index_of(&report.environment));
                }
            }
            WorkerMessage::Confirm { grants, .. } => self.held(grants),
            WorkerMessage::Ack { .. }
            | WorkerMessage::Nack { .. }
            | WorkerMessage::Heartbeat
            | WorkerMessage::Draining { .. }
            | WorkerMessage::Reply { .. }
            | WorkerMessage::Goodbye => {}
        }
    }

    fn held(&mut self, grants: &'a [HeldGrant]) {
        self.number(grants.len() as u64);
        for held in grants {
            self.uid(&held.uid);
            self.number(held.generation.0);
            self.grant(Some(&held.grant), index_of(&held.environment));
        }
    }

    fn down(&mut self, down: &'a Down) {
        let Down::Message(message) = down else { return self.number(95) };
        self.word(message);
        match message {
            ControlMessage::Update(update) => {
                for assignment in update.assignments.iter().flatten() {
                    self.assignment(assignment);
                }
                for removal in &update.removals {
                    self.uid(&removal.uid);
                }
            }
            ControlMessage::Confirmed { grants, .. } => {
                // A grant belongs to one prefix; of the other it is none.
                for granted in &self.state.grants {
                    let known = granted.values().position(|grant| grants.contains(&grant.id));
                    self.number(known.map_or(94, |at| (granted.len() - at) as u64));
                }
            }
            ControlMessage::Welcome(_)
            | ControlMessage::InitialStateComplete
            | ControlMessage::HeartbeatReply
            | ControlMessage::NothingMoves
            | ControlMessage::Request { .. }
            | ControlMessage::GoAway { .. } => {}
        }
    }

    fn fleet(&mut self, fleet: &'a Fleet) {
        self.age(fleet.last_tick);
        self.number(fleet.closures.len() as u64);
        self.instant(fleet.look_again_at);
        for unplaced in &fleet.unplaced {
            self.name(Some(unplaced.as_str()));
        }
        for (leaving, reason) in &fleet.to_leave {
            self.name(Some(leaving.as_str()));
            self.word(reason);
        }
        for (at, name) in &fleet.wakes {
            self.instant(Some(*at));
            self.name(Some(name.as_str()));
        }
        self.number(fleet.environments.len() as u64);
        for (name, environment) in &fleet.environments {
            self.environment(environment, index_of(name));
        }
        for (name, worker) in &fleet.workers {
            self.name(Some(name.as_str()));
            self.worker(worker);
        }
    }

    fn environment(&mut self, environment: &'a Environment, at: usize) {
        let record = &environment.record;
        self.number(at as u64);
        self.uid(&record.uid);
        self.number(record.generation.0);
        self.flag(record.paused);
        self.flag(record.removal.is_some());
        self.flag(record.released.is_some());
        for granted in [&record.grant, &record.predecessor] {
            self.name(granted.as_ref().map(|granted| granted.worker.as_str()));
            self.grant(granted.as_ref().map(|granted| &granted.grant), at);
        }
        // Only what this start of control granted may be known to serve nothing yet.
        let start = &self.state.fleet.settings.grant_ids.start;
        self.flag(record.grant.as_ref().is_some_and(|one| one.grant.id.as_str().starts_with(start.as_str())));
        self.name(environment.holder.as_ref().map(WorkerName::as_str));
        self.flag(environment.observed.is_some());
        if let Some(observed) = &environment.observed {
            self.name(Some(observed.worker.as_str()));
            self.word(&observed.marker);
            self.report(&observed.report, at);
            self.flag(observed.report.grant.epoch > environment.last_ending);
        }
        self.instant(environment.regrant_at);
        self.instant(Some(environment.fenced.next()));
        self.instant(Some(environment.stay.next()));
        for shunned in environment.shunned.at(self.state.now) {
            self.name(Some(shunned.as_str()));
        }
        self.flag(environment.moving.is_some());
        self.flag(environment.handover.is_some());
        match &environment.handover {
            None => {}
            Some(Handover::Promoted { deadline }) => self.instant(Some(*deadline)),
            Some(Handover::Warming { to, grant, reason, deadline }) => {
                self.name(Some(to.as_str()));
                self.grant(Some(grant), at);
                self.word(reason);
                self.instant(Some(*deadline));
            }
        }
    }

    fn worker(&mut self, worker: &'a Worker) {
        self.word(&worker.scheduling);
        self.word(&worker.link);
        match &worker.link {
            Link::Connected(session) => {
                self.word(&session.initial);
                self.number(session.pending.len() as u64);
                for (name, uid) in &session.pending {
                    self.name(Some(name.as_str()));
                    self.uid(uid);
                }
                self.flag(session.in_flight.is_some());
                self.number(session.in_flight.as_ref().map_or(0, |one| one.assigned.len() as u64));
                let nodes = &self.state.nodes;
                let is_present = |node: &Node| node.line.as_ref().is_some_and(|line| line.id == session.id);
                self.flag(nodes.iter().any(is_present));
            }
            Link::Disconnected { until, reason } => {
                self.instant(Some(*until));
                self.word(reason);
            }
            Link::Gone { .. } => {}
        }
        self.flag(worker.about.is_some());
        if let Some(about) = &worker.about {
            self.age(about.last_heard);
            let nodes = self.state.nodes.iter();
            let node = nodes
                .into_iter()
                .find(|node| node.incarnation.state_directory == about.incarnation.state_directory);
            self.number(node.map_or(0, |node| node.incarnation.start_counter - about.incarnation.start_counter));
        }
        for name in &worker.holds {
            self.name(Some(name.as_str()));
        }
        for ((name, uid), told) in &worker.told {
            self.name(Some(name.as_str()));
            self.uid(uid);
            self.told(told, index_of(name));
        }
    }

    fn told(&mut self, told: &'a Told, at: usize) {
        let state = self.state;
        let sent = told.sent.as_ref().map(|sent| (&sent.grant, sent.generation));
        let in_force = told.in_force.as_ref().map(|(grant, generation)| (grant, *generation));
        for known in [sent, in_force] {
            self.flag(known.is_some());
            let Some((grant, generation)) = known else { continue };
            self.number(generation.0);
            let granted = &state.grants[at];
            let place = granted.values().position(|one| one.id == *grant);
            self.number(place.map_or(93, |place| (granted.len() - place) as u64));
        }
    }
}

fn hash_of(value: &impl std::hash::Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}
