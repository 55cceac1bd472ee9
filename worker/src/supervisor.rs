//! Owns the environments of this worker and does what the session decides.
//!
//! One task: what the link and the environments say goes into [`Session::step`], and its effects are carried out. No
//! environment is waited for here: each has a [`Slot`], whose deliveries run beside.

// One environment: its task, and what it has not been told yet.
mod slot;
// The way out: hand over, stop, say goodbye.
mod leaving;
// When one that failed is started again.
mod restarts;
// Control's questions: whom they are for, and answers when nobody can.
mod questions;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::process::Clock;
use flotilla_proto::session::{Answer, Assignment, Question, Rejection, WorkerMessage};
use flotilla_proto::{EnvironmentName, FleetId, Reason, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::questions::{environment_of, failure, too_many_questions, wait_for_answer};
use self::restarts::Restarts;
use self::slot::{Ask, Errand, Mail, Run, Slot};
use crate::environment::{ControlState, EnvironmentHandle, EnvironmentInput, EnvironmentUpdate};
use crate::link::{Closed, Connection, LinkEvent};
use crate::secrets::Secrets;
use crate::session::{CloseReason, Effect, Ended, Input, Memory, Session, SessionNumber};
use crate::store::StoreError;

/// How many updates of all environments together may wait.
pub(crate) const UPDATE_QUEUE: usize = 1024;
/// How many questions of control may be under way; more are refused.
const QUESTIONS: usize = 256;
/// Write numbers that one start of an environment has to itself, so that none repeats even when nobody knows which were
/// used. A thousand writes a second use them up in 34 years; 16 million starts use up all.
const WRITE_NUMBERS_PER_RUN: u64 = 1 << 40;

/// What an environment says, under its name.
type FromEnvironment = (EnvironmentName, EnvironmentUpdate);

/// An environment that runs.
pub(crate) trait RunningEnvironment: Send + Sync + 'static {
    /// Tells it something; may take as long as it is busy.
    fn tell(&self, input: EnvironmentInput) -> impl Future<Output = ()> + Send;
    /// Ends it, after the store operation under way.
    fn stop(self) -> impl Future<Output = ()> + Send;
}

impl RunningEnvironment for EnvironmentHandle {
    async fn tell(&self, input: EnvironmentInput) {
        Self::tell(self, input).await;
    }

    async fn stop(self) {
        Self::stop(self).await;
    }
}

/// Where environments come from.
pub(crate) trait Environments: Send + 'static {
    /// What runs.
    type Running: RunningEnvironment;
    /// Starts one; fails when the assignment cannot be carried out here.
    fn start(&mut self, start: Start) -> Result<Self::Running, StoreError>;
    /// Where passwords are, for stores that are looked over.
    fn secrets(&self) -> Secrets;
}

/// What an environment is started with.
#[derive(Debug)]
pub(crate) struct Start {
    /// What it is to do.
    pub(crate) assignment: Assignment,
    /// The fleet that it belongs to.
    pub(crate) fleet: FleetId,
    /// Control, now.
    pub(crate) control: ControlState,
    /// Takes what it says.
    pub(crate) updates: mpsc::Sender<FromEnvironment>,
    /// Above all that this process may have used so far.
    pub(crate) first_write_number: u64,
    /// To be dropped when the environment's task ends, however it ends.
    pub(crate) ended: oneshot::Sender<Infallible>,
}

/// How far the worker is, for those who ask whether it is ready.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Whether a session is established now.
    pub(crate) has_session: bool,
    /// Whether one ever was.
    pub(crate) had_session: bool,
    /// Whether assignments of an earlier process were found.
    pub(crate) had_cache: bool,
    /// How many environments are assigned.
    pub(crate) environments: usize,
}

/// The ends of the channels that the supervisor holds.
#[derive(Debug)]
pub(crate) struct Channels {
    /// What the link says.
    pub(crate) link: mpsc::Receiver<LinkEvent>,
    /// What is to be kept on disk.
    pub(crate) memory: watch::Sender<Option<Memory>>,
    /// How far the worker is.
    pub(crate) progress: watch::Sender<Progress>,
    /// Asks the worker to leave.
    pub(crate) leave: CancellationToken,
}

/// See the module.
pub(crate) struct Supervisor<E: Environments> {
    clock: Clock,
    session: Session,
    environments: E,
    slots: BTreeMap<EnvironmentName, Slot<E::Running>>,
    /// Counts the starts of environments; each has write numbers of its own.
    last_run: Run,
    errands: JoinSet<Errand<E::Running>>,
    /// One for each environment, done when its task has ended.
    watches: JoinSet<(EnvironmentName, Run)>,
    questions: JoinSet<(SessionNumber, u64, Answer)>,
    updates: mpsc::Receiver<FromEnvironment>,
    updates_sender: mpsc::Sender<FromEnvironment>,
    connection: Option<Connection>,
    /// What could not be started, until control is told.
    rejected: Vec<Rejection>,
    /// Why the last session that was never established was given up.
    last_close: Option<CloseReason>,
    channels: Channels,
    /// How long environments may be handed over before this worker leaves.
    drain_timeout: Duration,
    ended: Option<Ended>,
}

impl<E: Environments> Supervisor<E> {
    /// A supervisor of no environments yet.
    pub(crate) fn new(
        clock: Clock,
        session: Session,
        environments: E,
        channels: Channels,
        drain_timeout: Duration,
    ) -> Self {
        let (updates_sender, updates) = mpsc::channel(UPDATE_QUEUE);
        Self {
            clock,
            session,
            environments,
            slots: BTreeMap::new(),
            last_run: Run(0),
            errands: JoinSet::new(),
            watches: JoinSet::new(),
            questions: JoinSet::new(),
            updates,
            updates_sender,
            connection: None,
            rejected: Vec::new(),
            last_close: None,
            channels,
            drain_timeout,
            ended: None,
        }
    }

    /// Works until it is asked to leave (`Ok`), or must end.
    pub(crate) async fn run(mut self) -> Result<(), Ended> {
        let leave = self.channels.leave.clone();
        while self.ended.is_none() && !leave.is_cancelled() {
            tokio::select! {
                biased;
                () = leave.cancelled() => {}
                () = self.work() => {}
            }
        }
        if self.ended.is_none() {
            self.let_environments_move().await;
        }
        self.stop_environments().await;
        if self.ended.is_none() {
            self.say_goodbye().await;
        }
        self.ended.map_or(Ok(()), Err)
    }

    /// Waits for one thing to happen, and sees to it. Nothing is lost when this is dropped.
    async fn work(&mut self) {
        let now = self.clock.now();
        let wait = self.session.next_deadline().map(|deadline| deadline.since(now));
        tokio::select! {
            biased;
            Some(errand) = self.errands.join_next() => match errand {
                Ok(errand) => self.errand_done(errand),
                Err(error) => tracing::error!(%error, "a delivery to an environment failed"),
            },
            Some(watch) = self.watches.join_next() => match watch {
                Ok((environment, run)) => self.task_ended(&environment, run),
                Err(error) => tracing::error!(%error, "a watch over an environment failed"),
            },
            Some(answered) = self.questions.join_next() => match answered {
                Ok((asked_by, id, answer)) => self.step(Input::Answered { asked_by, id, answer }),
                Err(error) => tracing::error!(%error, "a question to an environment failed"),
            },
            event = self.channels.link.recv() => match event {
                Some(event) => self.link_event(event),
                None => {
                    self.ended = Some(Ended::Failed { message: "the link to control is gone".to_owned() });
                }
            },
            Some((environment, update)) = self.updates.recv() => self.updated(&environment, update),
            () = sleep(wait.unwrap_or(Duration::from_hours(1))) => self.step(Input::TimePassed),
        }
    }

    fn updated(&mut self, environment: &EnvironmentName, update: EnvironmentUpdate) {
        match update {
            EnvironmentUpdate::Report(report) => self.step(Input::Reported(report)),
            EnvironmentUpdate::Confirm(held) => {
                tracing::debug!(%environment, "asks whether its grant is still valid");
                self.step(Input::ConfirmWanted(held));
            }
        }
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Opened(connection) => {
                self.connection = Some(connection);
                self.step(Input::Opened);
            }
            LinkEvent::Received(message) => self.step(Input::Received(message)),
            LinkEvent::Closed(Closed::Lost) => {
                self.connection = None;
                self.step(Input::Closed);
            }
            LinkEvent::Closed(Closed::NameTaken(message)) => {
                self.connection = None;
                self.step(Input::NameTaken(message));
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.take(input);
        self.disown_rejected();
    }

    /// Without an update to answer, control learns only from a new hello that something does not run here: it gives the
    /// assignment again, and hears why not.
    fn disown_rejected(&mut self) {
        if self.rejected.is_empty() {
            return;
        }
        self.rejected.clear();
        if let Some(connection) = self.connection.take() {
            tracing::warn!("giving the session up, so that control learns what could not be started");
            connection.abort();
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        let had_session = self.session.is_live();
        let has_left = matches!(input, Input::Left);
        for effect in self.session.step(now, input) {
            self.carry_out(now, effect);
        }
        match (had_session, self.session.is_live()) {
            (false, true) => {
                self.last_close = None;
                tracing::info!("session with control established");
            }
            (true, false) if !has_left => tracing::warn!("session with control lost"),
            (true, _) | (false, false) => {}
        }
        self.channels.progress.send_if_modified(|progress| {
            let new = Progress {
                has_session: self.session.is_live(),
                had_session: self.session.was_live(),
                had_cache: progress.had_cache,
                environments: self.session.assigned(),
            };
            std::mem::replace(progress, new) != new
        });
    }

    fn carry_out(&mut self, now: Timestamp, effect: Effect) {
        match effect {
            Effect::Send(message) => self.send(message),
            Effect::AnswerUpdate { nonce, mut rejections } => {
                rejections.append(&mut self.rejected);
                self.send(if rejections.is_empty() {
                    WorkerMessage::Ack { nonce }
                } else {
                    WorkerMessage::Nack { nonce, rejections }
                });
            }
            Effect::Start(assignment) => self.start(now, assignment),
            Effect::Reassign(assignment) => {
                let environment = assignment.environment.clone();
                tracing::info!(%environment, epoch = %assignment.grant.epoch, intent = ?assignment.grant.intent, "reassigned");
                match self.slots.get_mut(&environment) {
                    Some(slot) => {
                        slot.reassign(assignment);
                        slot.send_off(&mut self.errands);
                    }
                    None => self.start(now, assignment),
                }
            }
            Effect::Stop(environment) => {
                tracing::info!(%environment, "no longer assigned");
                self.with_slot(&environment, Slot::end);
            }
            Effect::TellControlState => {
                let control = self.session.control_state(now);
                for slot in self.slots.values_mut() {
                    slot.post(Mail::Control(control));
                    slot.send_off(&mut self.errands);
                }
            }
            Effect::Confirmed { environment, grant, valid } => {
                self.with_slot(&environment, |slot| slot.post(Mail::Confirmed { grant, valid }));
            }
            Effect::Ask { asked_by, id, deadline, question } => self.ask(asked_by, id, deadline, question),
            Effect::Save => {
                self.channels.memory.send_replace(self.session.memory());
            }
            Effect::Close(reason) => {
                // A fleet that never accepts this worker says the same every two seconds.
                if self.last_close.as_ref() == Some(&reason) {
                    tracing::debug!(%reason, "giving the session up");
                } else {
                    tracing::warn!(%reason, "giving the session up");
                }
                self.last_close = Some(reason);
                if let Some(connection) = self.connection.take() {
                    connection.abort();
                }
            }
            Effect::End(ended) => self.ended = Some(ended),
        }
    }

    fn start(&mut self, now: Timestamp, assignment: Arc<Assignment>) {
        let environment = assignment.environment.clone();
        tracing::info!(%environment, epoch = %assignment.grant.epoch, intent = ?assignment.grant.intent, "assigned");
        if self.slots.contains_key(&environment) {
            self.with_slot(&environment, |slot| slot.replace(assignment));
            return;
        }
        self.launch(now, assignment, Restarts::default());
    }

    /// Starts the task of an environment that has none.
    fn launch(&mut self, now: Timestamp, assignment: Arc<Assignment>, restarts: Restarts) {
        let environment = assignment.environment.clone();
        let Some(fleet) = self.session.fleet().cloned() else {
            tracing::error!(%environment, "an assignment without a fleet");
            return;
        };
        self.last_run.0 += 1;
        let run = self.last_run;
        let (ended, watch) = oneshot::channel();
        let started = self.environments.start(Start {
            assignment: assignment.as_ref().clone(),
            fleet,
            control: self.session.control_state(now),
            updates: self.updates_sender.clone(),
            first_write_number: run.0 * WRITE_NUMBERS_PER_RUN,
            ended,
        });
        match started {
            Ok(running) => {
                self.slots.insert(environment.clone(), Slot::new(run, assignment, running, restarts.started(now)));
                self.watches.spawn(async move {
                    // Nothing is ever sent: this is the sender's end.
                    let _ = watch.await;
                    (environment, run)
                });
            }
            Err(error) => {
                tracing::error!(%environment, %error, "cannot be started");
                self.rejected.push(Rejection {
                    environment: environment.to_string(),
                    uid: assignment.uid.to_string(),
                    generation: assignment.generation,
                    message: error.to_string(),
                });
                self.take(Input::CannotStart(environment));
            }
        }
    }

    fn send(&mut self, message: WorkerMessage) {
        let sent = self.connection.as_ref().map(|connection| connection.send(message));
        if let Some(Err(error)) = sent {
            tracing::warn!(%error, "giving the session up");
            // The link tells when it is closed, and that tells the session.
            if let Some(connection) = self.connection.take() {
                connection.abort();
            }
        }
    }

    fn with_slot(&mut self, environment: &EnvironmentName, change: impl FnOnce(&mut Slot<E::Running>)) {
        if let Some(slot) = self.slots.get_mut(environment) {
            change(slot);
            slot.send_off(&mut self.errands);
        }
    }

    fn errand_done(&mut self, errand: Errand<E::Running>) {
        match errand {
            Errand::Delivered { environment, running } => {
                self.with_slot(&environment, |slot| slot.came_back(running));
            }
            Errand::Stopped { environment } => {
                if let Some((assignment, restarts)) = self.slots.remove(&environment).and_then(Slot::successor) {
                    self.launch(self.clock.now(), assignment, restarts);
                    self.disown_rejected();
                }
            }
        }
    }

    /// Most have been stopped; one that has not is started again.
    fn task_ended(&mut self, environment: &EnvironmentName, run: Run) {
        let now = self.clock.now();
        let Some(slot) = self.slots.get_mut(environment) else { return };
        let Some(pause) = slot.failed(run, now) else { return };
        slot.send_off(&mut self.errands);
        tracing::error!(%environment, ?pause, "ended unexpectedly and is started again");
        // What it said before it ended must not be heard after that.
        while let Ok((environment, update)) = self.updates.try_recv() {
            self.updated(&environment, update);
        }
        self.step(Input::Failed { environment: environment.clone(), pause });
    }

    fn ask(&mut self, asked_by: SessionNumber, id: u64, deadline: Duration, question: Question) {
        let environment = match environment_of(&question) {
            Ok(environment) => environment,
            Err(probe) if self.questions.len() < QUESTIONS => {
                let probe = questions::probe(deadline, probe.clone(), self.environments.secrets());
                self.questions.spawn(async move { (asked_by, id, probe.await) });
                return;
            }
            Err(_) => return self.step(Input::Answered { asked_by, id, answer: too_many_questions() }),
        };
        let refusal = match environment.parse::<EnvironmentName>() {
            Ok(environment) if self.questions.len() < QUESTIONS => match self.slots.get_mut(&environment) {
                Some(slot) => {
                    let (answer, answered) = oneshot::channel();
                    self.questions.spawn(async move { (asked_by, id, wait_for_answer(deadline, answered).await) });
                    slot.post(Mail::Ask(Ask { question, deadline, answer }));
                    slot.send_off(&mut self.errands);
                    return;
                }
                None => failure(Reason::NoWorker, "this worker does not hold the environment"),
            },
            Ok(_) => too_many_questions(),
            Err(error) => failure(Reason::NoWorker, &error.to_string()),
        };
        self.step(Input::Answered { asked_by, id, answer: refusal });
    }
}
