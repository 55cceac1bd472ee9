//! Sessions of workers: who is let in, and what they say.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::session::{ControlMessage, GoAway, Hello, Welcome, WorkerMessage};
use flotilla_proto::{
    EnvironmentName, FieldViolation, GrantId, HeldGrant, Intent, Reason, Refusal, Term, WorkerName,
};

use super::Fleet;
use super::boundary::{Change, Effect, SessionId};
use super::environment::MoveReason;
use super::event::{Note, WorkerChange};
use super::worker::{About, InitialState, Leaving, Link, Session, Told, Worker};

/// No control starts so often; a term above it is an error of its sender, and would leave no room above.
const HIGHEST_SENSIBLE: Term = Term(1 << 62);

/// How a hello relates to what was there under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Continuity {
    /// Nobody of that name since control started.
    Unknown,
    /// The same state directory, not started earlier: what was granted then is still its.
    Same,
    /// Another one.
    Other,
}

impl Fleet {
    /// A worker said hello.
    pub(super) fn session_opened(&mut self, session: SessionId, address: String, hello: Hello) {
        if let Err(refusal) = self.admit(&hello) {
            self.gathered.effects.push(Effect::Refuse { session, refusal });
            return;
        }
        let continuity = self.continuity(&hello);
        self.supersede(&hello.worker);
        self.compare_terms(&hello);
        let held = self.take_held(&hello, continuity);
        self.connect(session, address, &hello);
        self.note_worker(&hello.worker, WorkerChange::Connected);
        self.settle_holds(&hello.worker, continuity, &held);
        let welcome = Welcome {
            fleet: self.settings.fleet.clone(),
            term: self.term,
            heartbeat_interval: self.settings.heartbeat_interval,
            lease_duration: self.settings.lease_duration,
        };
        let message = ControlMessage::Welcome(welcome);
        self.gathered.effects.push(Effect::Send { session, message });
        self.reconsider_worker(&hello.worker);
        self.gathered.updates_due.insert(hello.worker);
        self.gathered.retry_unplaced = true;
        self.gather_orphans();
    }

    fn admit(&self, hello: &Hello) -> Result<(), Refusal> {
        let ours = &self.settings.fleet;
        if let Some(theirs) = hello.fleet.as_ref().filter(|theirs| *theirs != ours) {
            let why = format!(
                "worker \"{}\" belongs to fleet {theirs}, this is fleet {ours}; point --control at its own fleet, or give it another --state-dir",
                hello.worker
            );
            return Err(FieldViolation::new("hello.fleet_id", &why).into());
        }
        let Some(worker) = self.workers.get(&hello.worker) else { return Ok(()) };
        let (Some(_), Some(about)) = (worker.session(), &worker.about) else { return Ok(()) };
        let (old, new) = (&about.incarnation, &hello.incarnation);
        let successor = old.state_directory == new.state_directory && new.start_counter > old.start_counter;
        if old == new || successor {
            return Ok(());
        }
        Err(Refusal::new(
            Reason::WorkerNameTaken,
            format!(
                "a worker named \"{}\" is alive at {}; stop that one, or give this one another --name",
                hello.worker, about.address
            ),
        ))
    }

    fn continuity(&self, hello: &Hello) -> Continuity {
        match self.workers.get(&hello.worker).and_then(|worker| worker.about.as_ref()) {
            None => Continuity::Unknown,
            Some(about)
                if about.incarnation.state_directory == hello.incarnation.state_directory
                    && about.incarnation.start_counter <= hello.incarnation.start_counter =>
            {
                Continuity::Same
            }
            Some(_) => Continuity::Other,
        }
    }

    /// Ends the session that is there, because its worker has opened another.
    fn supersede(&mut self, name: &WorkerName) {
        let Some(session) = self.workers.get(name).and_then(|worker| worker.session()).map(|session| session.id)
        else {
            return;
        };
        let message = format!("worker \"{name}\" has opened another session");
        self.go_away(session, GoAway::Superseded, message);
        self.sessions.remove(&session);
        self.fail_questions_of(session);
    }

    /// Our term must be above what every worker has seen. One that has seen ours already, without having been welcomed
    /// by us, knows of a control that this one does not remember: our database was restored from a backup.
    fn compare_terms(&mut self, hello: &Hello) {
        if hello.highest_term > HIGHEST_SENSIBLE {
            return;
        }
        // What a worker said of itself is known from the first welcome on, until the worker is forgotten.
        let ours = |worker: &Worker| {
            let about = worker.about.as_ref();
            about.is_some_and(|about| about.incarnation.state_directory == hello.incarnation.state_directory)
        };
        let first_hello = !self.workers.values().any(ours);
        if hello.highest_term > self.term || (first_hello && hello.highest_term == self.term) {
            self.term = hello.highest_term.next();
            self.gathered.changes.push(Change::PutTerm { term: self.term });
        }
    }

    /// Compares what a worker holds with the records. Returns the environments whose grant it really has.
    fn take_held(&mut self, hello: &Hello, continuity: Continuity) -> BTreeSet<EnvironmentName> {
        let mut confirmed = BTreeSet::new();
        for held in &hello.held {
            let Some(environment) = self.environments.get(&held.environment) else { continue };
            if environment.record.uid != held.uid {
                continue;
            }
            let spec = environment.record.spec.clone();
            let known = environment.epoch();
            let granted = environment.record.grant.as_ref();
            let same = granted.is_some_and(|granted| {
                granted.worker == hello.worker
                    && granted.grant.id == held.grant.id
                    && granted.grant.epoch == held.grant.epoch
            });
            self.raise_epoch(&spec, held.grant.epoch);
            if same && continuity != Continuity::Other {
                confirmed.insert(held.environment.clone());
            } else if held.grant.intent == Intent::Warm {
                // It writes nothing, and is told below whether it still gets ready.
            } else if known.is_none_or(|known| held.grant.epoch > known) {
                self.prefer(&held.environment, &hello.worker);
            }
        }
        confirmed
    }

    /// A worker has a later grant than we remember giving: it shall have the next one too.
    fn prefer(&mut self, name: &EnvironmentName, worker: &WorkerName) {
        let serves = self.environments.get(name).is_some_and(|environment| environment.wanted().is_some());
        if !serves {
            return;
        }
        self.end_handover(name);
        self.let_go(name);
        if let Some(environment) = self.environments.get_mut(name) {
            environment.regrant_at = Some(self.now);
            environment.moving = Some(MoveReason::LaterGrant);
            environment.holder = Some(worker.clone());
        }
        self.workers.entry(worker.clone()).or_insert_with(|| Worker::gone(self.now)).holds.insert(name.clone());
        self.account(name);
        self.gathered.to_plan.insert(name.clone());
    }

    fn connect(&mut self, session: SessionId, address: String, hello: &Hello) {
        let worker = self.workers.entry(hello.worker.clone()).or_insert_with(|| Worker::gone(self.now));
        if let Some(about) = &worker.about {
            self.reconnects += 1;
            if about.incarnation != hello.incarnation {
                worker.leaving = Leaving::No;
                for name in std::mem::take(&mut worker.rejected) {
                    // Another run of it may be another version: what it could not do then is offered again.
                    if let Some(environment) = self.environments.get_mut(&name) {
                        environment.parked.remove(&hello.worker);
                    }
                }
            }
        }
        worker.about = Some(About {
            address,
            version: hello.version.clone(),
            labels: hello.labels.clone(),
            capacity: hello.capacity,
            incarnation: hello.incarnation.clone(),
            connected_at: self.now,
            last_heard: self.now,
        });
        // What we merely do not know stays as it is: only what was told can be removed.
        let is_known = |held: &&HeldGrant| {
            self.ended.contains(&held.uid)
                || self.environments.get(&held.environment).is_some_and(|known| known.record.uid == held.uid)
        };
        let mut unknown = hello.held.iter().filter(|held| !is_known(held));
        if let Some(example) = unknown.next() {
            let (worker, example) = (hello.worker.clone(), example.environment.clone());
            let note = Note::UnknownHeld { worker, count: 1 + unknown.count(), example };
            self.gathered.effects.push(Effect::Note(note));
        }
        worker.told = hello.held.iter().filter(is_known).map(told_by_hello).collect::<BTreeMap<_, _>>();
        let mut pending: BTreeSet<_> = worker.told.keys().cloned().collect();
        let stands_by = |name: &&EnvironmentName| {
            self.environments.get(*name).is_some_and(|one| one.standby() == Some(&hello.worker))
        };
        for name in worker.holds.iter().chain(self.handovers.iter().filter(stands_by)) {
            if let Some(environment) = self.environments.get(name) {
                pending.insert((name.clone(), environment.record.uid.clone()));
            }
        }
        worker.link = Link::Connected(Session {
            id: session,
            pending,
            in_flight: None,
            last_nonce: 0,
            initial: InitialState::Underway,
        });
        self.sessions.insert(session, hello.worker.clone());
    }

    /// Sees which of the environments that the records give a worker are still its.
    fn settle_holds(&mut self, name: &WorkerName, continuity: Continuity, confirmed: &BTreeSet<EnvironmentName>) {
        for environment in confirmed {
            if self.environments.get(environment).is_some_and(|one| one.holder.is_none()) {
                self.take_hold(environment, name);
                self.unplaced.remove(environment);
            }
        }
        let holds = self.workers.get(name).map(|worker| worker.holds.clone()).unwrap_or_default();
        for held in holds {
            let lost = !confirmed.contains(&held) && continuity != Continuity::Same;
            if let Some(environment) = self.environments.get_mut(&held)
                && lost
            {
                environment.regrant_at = Some(self.now);
            }
            self.account(&held);
            self.gathered.to_plan.insert(held);
        }
    }

    /// A worker said something.
    pub(super) fn session_message(&mut self, session: SessionId, message: WorkerMessage) {
        let Some(name) = self.sessions.get(&session).cloned() else { return };
        if let Some(about) = self.workers.get_mut(&name).and_then(|worker| worker.about.as_mut()) {
            about.last_heard = self.now;
        }
        match message {
            WorkerMessage::Hello(_) => {
                let message = "a session begins with one hello, and only one".to_owned();
                self.go_away(session, GoAway::ProtocolError, message);
                self.session_closed(session);
            }
            WorkerMessage::Ack { nonce } => self.acknowledged(&name, nonce, &[]),
            WorkerMessage::Nack { nonce, rejections } => self.acknowledged(&name, nonce, &rejections),
            WorkerMessage::Report(reports) => self.reported(&name, reports),
            WorkerMessage::Heartbeat => {
                let message = ControlMessage::HeartbeatReply;
                self.gathered.effects.push(Effect::Send { session, message });
            }
            WorkerMessage::Confirm { id, grants } => {
                let grants = self.still_valid(&name, &grants);
                let message = ControlMessage::Confirmed { id, grants };
                self.gathered.effects.push(Effect::Send { session, message });
            }
            WorkerMessage::Draining { deadline: _ } => self.drain(&name),
            WorkerMessage::Reply { id, answer } => self.answered(session, id, answer),
            WorkerMessage::Goodbye => {
                self.sessions.remove(&session);
                self.fail_questions_of(session);
                self.lose(&name, MoveReason::Goodbye);
                self.gathered.effects.push(Effect::Close { session });
            }
        }
    }

    fn still_valid(&self, worker: &WorkerName, grants: &[HeldGrant]) -> Vec<GrantId> {
        let is_valid = |held: &&HeldGrant| {
            self.environments.get(&held.environment).is_some_and(|environment| {
                environment.record.uid == held.uid
                    && environment.holder.as_ref() == Some(worker)
                    && environment.record.grant.as_ref().is_some_and(|granted| granted.grant == held.grant)
            })
        };
        grants.iter().filter(is_valid).map(|held| held.grant.id.clone()).collect()
    }

    fn drain(&mut self, name: &WorkerName) {
        let Some(worker) = self.workers.get_mut(name) else { return };
        worker.leaving = Leaving::Waits;
        self.note_worker(name, WorkerChange::Leaving);
        self.reconsider_worker(name);
    }

    /// Ends a session, saying why.
    pub(super) fn go_away(&mut self, session: SessionId, reason: GoAway, message: String) {
        let message = ControlMessage::GoAway { reason, message };
        self.gathered.effects.push(Effect::Send { session, message });
        self.gathered.effects.push(Effect::Close { session });
    }
}

fn told_by_hello(held: &HeldGrant) -> ((EnvironmentName, flotilla_proto::Uid), Told) {
    let told = Told { sent: None, in_force: Some((held.grant.id.clone(), held.generation)) };
    ((held.environment.clone(), held.uid.clone()), told)
}
