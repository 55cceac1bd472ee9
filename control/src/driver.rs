//! The one task that owns the fleet: it takes what is waiting, steps each input, makes the changes of them all durable
//! in one transaction, and only then lets anybody hear of them.
//!
//! A commit that fails ends the task, and with it the process: the fleet in memory is then ahead of the disk, and
//! starting anew from the disk is the simple truth. The commands of that batch are refused with INTERNAL. Audit records of
//! what changed nothing are none of the fleet's: where only those cannot be written, they wait.

// How to speak to it.
mod handle;
// What changed lately, for those who watch.
mod history;
// What happened, as far as it is kept.
mod events;
// Who asked for what.
mod audit;
// What operators ask about afterwards.
mod notes;
// Who waits for an answer, and who is connected.
mod outlets;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::process::Clock;
use flotilla_proto::session::{GoAway, Hello, WorkerMessage};
use flotilla_proto::{Reason, Refusal, Term, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::audit::{Attempt, AuditEntry, Knock, LastRecord, Outcome, Place};
use crate::fleet::{Change, Command, Effect, EventRecord, Fleet, Input, Reply, SessionId};
use crate::store::{Store, StoreError};
use audit::Ledger;
use history::Fate;
use outlets::Outlets;

pub(crate) use events::{Events, KEPT as EVENTS_KEPT};
pub(crate) use handle::DriverHandle;
pub(crate) use history::{Environments, History, Lost, Revision, Workers};
pub(crate) use outlets::{SESSION_QUEUE, SessionSink};

/// Inputs and reads that may wait for the driver; more make their senders wait.
const QUEUE: usize = 1024;
/// How many of them share one transaction at most.
const BATCH: usize = 256;
/// How often the fleet is told that time passed.
const TICK: Duration = Duration::from_millis(100);

/// What a read sees: the fleet as it is durable, and what changed lately.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) history: &'a History<Environments>,
    pub(crate) workers: &'a History<Workers>,
    pub(crate) events: &'a Events,
    /// Where the last audit record stands; before the first one there is none.
    pub(crate) audit: Option<Revision>,
}

/// Where the last of everything that is watched stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Newest {
    environments: Revision,
    workers: Revision,
    events: Option<Revision>,
    audit: Option<Revision>,
}

type Read = Box<dyn FnOnce(&View<'_>) + Send>;
type Answer = oneshot::Sender<Result<Reply, Refusal>>;

/// What the driver is sent.
enum Message {
    Command {
        command: Box<Command>,
        /// For the record of it; `None`: it changes nothing, or is tried only.
        entry: Option<Box<AuditEntry>>,
        answer: Answer,
    },
    /// A call ended before it came to a command.
    Audit {
        entry: Box<AuditEntry>,
        outcome: Outcome,
        place: Place,
    },
    Read(Read),
    Opened {
        session: SessionId,
        address: String,
        hello: Box<Hello>,
        sink: SessionSink,
        ended: CancellationToken,
        /// For the record, should it be refused.
        knock: Box<Knock>,
    },
    /// A worker said something.
    Said {
        session: SessionId,
        message: Box<WorkerMessage>,
    },
    /// The worker said something that makes no sense: it is told so, and the session ends.
    Broken {
        session: SessionId,
        why: String,
    },
    Closed {
        session: SessionId,
    },
    Stop,
}

/// Where commits are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Commits {
    /// Where blocking is allowed.
    OnThread,
    /// In the driver itself, after this long: in a simulation, which has no threads.
    #[cfg_attr(not(feature = "simulation"), expect(dead_code, reason = "simulations only"))]
    Inline(Duration),
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Driver {
    fleet: Fleet,
    store: Option<Box<dyn Store>>,
    commits: Commits,
    clock: Clock,
    messages: mpsc::Receiver<Message>,
    history: History<Environments>,
    workers: History<Workers>,
    events: Events,
    newest: watch::Sender<Newest>,
    outlets: Outlets,
    ledger: Ledger,
    committing_since: Arc<AtomicU64>,
    last_tick: Timestamp,
    /// Inputs that follow from effects; they join the next batch.
    follow_up: Vec<Input>,
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message")
    }
}

/// Where the audit records stand, and how old they may become.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuditTerms {
    pub(crate) last: LastRecord,
    pub(crate) retention: Duration,
}

/// A driver over a fleet and events that have just been loaded from `store`, and the handle to speak to it.
pub(crate) fn driver(
    fleet: Fleet,
    events: Vec<EventRecord>,
    audit: AuditTerms,
    (store, commits): (Box<dyn Store>, Commits),
    clock: Clock,
) -> (Driver, DriverHandle) {
    let (sender, messages) = mpsc::channel(QUEUE);
    let (history, workers) = (History::new(fleet.term()), History::new(fleet.term()));
    let events = Events::new(events);
    let ledger = Ledger::new(audit.last, audit.retention);
    let (newest, newest_receiver) = watch::channel(Newest {
        environments: history.newest(),
        workers: workers.newest(),
        events: events.newest(),
        audit: ledger.newest(),
    });
    let committing_since = Arc::new(AtomicU64::new(0));
    let handle = DriverHandle {
        messages: sender,
        newest: newest_receiver,
        sessions: Arc::new(AtomicU64::new(1)),
        committing_since: Arc::clone(&committing_since),
        clock,
    };
    let driver = Driver {
        fleet,
        store: Some(store),
        commits,
        clock,
        messages,
        history,
        workers,
        events,
        newest,
        outlets: Outlets::default(),
        ledger,
        committing_since,
        last_tick: Timestamp(0),
        follow_up: Vec::new(),
    };
    (driver, handle)
}

/// What one batch did to the fleet, and what is left to do.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    effects: Vec<Effect>,
    reads: Vec<Read>,
    stop: bool,
}

impl Driver {
    /// Runs until it is told to stop, or a commit fails.
    pub(crate) async fn run(mut self) -> Result<(), StoreError> {
        let mut ticks = ticks();
        let mut waiting = Vec::with_capacity(BATCH);
        loop {
            if self.follow_up.is_empty() {
                tokio::select! {
                    biased;
                    count = self.messages.recv_many(&mut waiting, BATCH) => {
                        if count == 0 {
                            return Ok(());
                        }
                    }
                    _ = ticks.tick() => {}
                }
            }
            let mut batch = Batch::default();
            self.tick_if_due(&mut batch);
            for input in std::mem::take(&mut self.follow_up) {
                self.step(input, &mut batch);
            }
            for message in waiting.drain(..) {
                self.take(message, &mut batch);
            }
            if batch.stop {
                let now = self.now();
                batch.changes.extend(self.ledger.close(now));
            }
            let changes = self.ledger.with_kept_back(std::mem::take(&mut batch.changes));
            self.commit(changes).await?;
            self.carry_out(batch.effects);
            self.publish();
            let Self { fleet, history, workers, events, .. } = &self;
            let view = View { fleet, history, workers, events, audit: self.ledger.newest() };
            batch.reads.into_iter().for_each(|read| read(&view));
            if batch.stop {
                self.ledger.tell_of_lost();
                self.outlets.shut_down();
                return Ok(());
            }
        }
    }

    fn tick_if_due(&mut self, batch: &mut Batch) {
        let now = self.clock.now();
        if now.since(self.last_tick) < TICK {
            return;
        }
        self.last_tick = now;
        for id in self.outlets.abandoned() {
            self.step(Input::CommandAbandoned { id }, batch);
            let now = self.now();
            batch.changes.extend(self.ledger.abandoned(id, now));
        }
        self.step(Input::Tick, batch);
        batch.changes.extend(self.ledger.tick(now));
    }

    fn take(&mut self, message: Message, batch: &mut Batch) {
        if batch.stop {
            // Dropped, it is answered with SHUTTING_DOWN.
            let now = self.now();
            batch.changes.extend(self.ledger.too_late(now, message));
            return;
        }
        match message {
            Message::Command { command, entry, answer } => {
                let id = self.outlets.expect_answer(answer);
                let command = *command;
                if let Some(mut entry) = entry {
                    if self.fleet.is_repeated(&command) {
                        entry.attempt = Attempt::Repeated;
                    }
                    self.ledger.begin(id, *entry);
                }
                self.step(Input::Command { id, command }, batch);
                let now = self.now();
                batch.changes.extend(self.ledger.hold(id, now));
            }
            Message::Audit { entry, outcome, place } => {
                let now = self.now();
                batch.changes.push(self.ledger.record(now, *entry, outcome, place));
            }
            Message::Read(read) => batch.reads.push(read),
            Message::Opened { session, address, hello, sink, ended, knock } => {
                self.outlets.open(session, sink, ended);
                let (hello, before) = (*hello, batch.effects.len());
                let opened = Input::SessionOpened { session, address, hello };
                self.step(opened, batch);
                let refusal_of = |effect: &Effect| {
                    if let Effect::Refuse { refusal, .. } = effect { Some(refusal.clone()) } else { None }
                };
                // An opening can refuse the one that is opened only.
                if let Some(refusal) = batch.effects[before..].iter().find_map(refusal_of) {
                    knock.refused(&refusal);
                }
            }
            // A session that was ended here may still have words on the way: they are too late.
            Message::Said { session, message } => {
                if self.outlets.is_open(session) {
                    let message = *message;
                    self.step(Input::SessionMessage { session, message }, batch);
                }
            }
            Message::Broken { session, why } => {
                if self.outlets.is_open(session) {
                    tracing::warn!(session = session.0, error = why, "a worker's message makes no sense");
                    self.outlets.send_away(session, GoAway::ProtocolError, &why);
                    self.step(Input::SessionClosed { session }, batch);
                }
            }
            Message::Closed { session } => {
                if self.outlets.is_open(session) {
                    self.outlets.close(session);
                    self.step(Input::SessionClosed { session }, batch);
                }
            }
            Message::Stop => batch.stop = true,
        }
    }

    fn step(&mut self, input: Input, batch: &mut Batch) {
        for effect in self.fleet.step(self.clock.now(), input) {
            match effect {
                Effect::Persist(change) => batch.changes.push(change),
                Effect::Reply { id, result } => {
                    let now = self.now();
                    batch.changes.extend(self.ledger.answered(id, now, &result));
                    batch.effects.push(Effect::Reply { id, result });
                }
                other @ (Effect::Send { .. }
                | Effect::Refuse { .. }
                | Effect::Close { .. }
                | Effect::EnvironmentChanged { .. }
                | Effect::EnvironmentRemoved { .. }
                | Effect::WorkerChanged { .. }
                | Effect::WorkerRemoved { .. }
                | Effect::Note(_)) => batch.effects.push(other),
            }
        }
    }

    /// Makes the changes durable. On failure everybody who waits is refused, and the driver is at its end; but where only
    /// records could not be kept, of what changed nothing, they are kept back: strangers can bring those about.
    async fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let records = audit::are_records(&changes).then(|| changes.clone());
        let last_record = audit::last_record(&changes);
        let events: Vec<_> = changes.iter().filter_map(event_of).cloned().collect();
        let mut store = self.store.take().expect("it is put back after every commit");
        self.committing_since.store(self.clock.now().0.max(1), Ordering::Relaxed);
        let commit = move || {
            let result = store.commit(&changes);
            (store, result)
        };
        let done = match self.commits {
            Commits::OnThread => tokio::task::spawn_blocking(commit).await,
            Commits::Inline(duration) => {
                tokio::time::sleep(duration).await;
                Ok(commit())
            }
        };
        let result = match done {
            Ok((store, result)) => {
                self.store = Some(store);
                result
            }
            Err(error) => Err(StoreError::Corrupt { what: format!("the commit did not end: {error}") }),
        };
        self.committing_since.store(0, Ordering::Relaxed);
        for event in events {
            self.events.push(event);
        }
        let Err(error) = &result else {
            self.ledger.committed(last_record);
            return Ok(());
        };
        let error = whole(error);
        if let Some(records) = records.filter(|_| self.store.is_some()) {
            self.ledger.keep_back(records, &error);
            return Ok(());
        }
        tracing::error!(error, "a change could not be made durable; control stops, to start anew from the disk");
        let message = format!("the change could not be made durable, and control starts anew: {error}");
        self.outlets.refuse_all(&Refusal::new(Reason::Internal, message));
        result
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        self.history.keep_to(self.fleet.term());
        self.workers.keep_to(self.fleet.term());
        for effect in effects {
            match effect {
                Effect::Persist(_) => unreachable!("changes are taken out in `step`"),
                Effect::Reply { id, result } => self.outlets.answer(id, result),
                Effect::Send { session, message } => {
                    if !self.outlets.send(session, &message) {
                        self.follow_up.push(Input::SessionClosed { session });
                    }
                }
                Effect::Refuse { session, refusal } => self.outlets.refuse(session, refusal),
                Effect::Close { session } => self.outlets.close(session),
                Effect::Note(note) => notes::log(&note),
                Effect::EnvironmentChanged { environment } => {
                    self.history.record(environment, Fate::Changed);
                }
                Effect::EnvironmentRemoved { environment, uid } => {
                    tracing::info!(environment = environment.as_str(), uid = uid.as_str(), "environment is gone");
                    self.history.record(environment, Fate::Removed(uid));
                }
                Effect::WorkerChanged { worker } => self.workers.record(worker, Fate::Changed),
                Effect::WorkerRemoved { worker } => self.workers.record(worker, Fate::Removed(())),
            }
        }
    }

    /// When it is, for records.
    fn now(&self) -> (Term, Timestamp) {
        (self.fleet.term(), self.clock.now())
    }

    fn publish(&self) {
        let newest = Newest {
            environments: self.history.newest(),
            workers: self.workers.newest(),
            events: self.events.newest(),
            audit: self.ledger.newest(),
        };
        self.newest.send_if_modified(|known| std::mem::replace(known, newest) != newest);
    }
}

fn event_of(change: &Change) -> Option<&EventRecord> {
    match change {
        Change::PutEvent(event) => Some(event),
        Change::PutEnvironment(_)
        | Change::DeleteEnvironment { .. }
        | Change::PutEpoch { .. }
        | Change::PutStore { .. }
        | Change::DeleteStore { .. }
        | Change::PutRequest { .. }
        | Change::ForgetRequests { .. }
        | Change::PutEnded { .. }
        | Change::ForgetEnded { .. }
        | Change::PutTerm { .. }
        | Change::PutWorker { .. }
        | Change::PutAudit(_)
        | Change::PruneAudit { .. }
        | Change::DeleteWorker { .. } => None,
    }
}

/// An error and what it came from, in one line.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn ticks() -> Interval {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
