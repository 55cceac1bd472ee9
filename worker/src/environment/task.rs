//! The task that drives the machine of one environment: it owns the source, the one store operation under way and the
//! timer, and tells the supervisor when the status has changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use flotilla_proto::session::Assignment;
use flotilla_proto::{EnvironmentName, EnvironmentReport, Intent, Source, Timestamp};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use uuid::Uuid;

use super::log::log_changes;
use super::machine::{Action, Machine};
use super::packing::Schedule;
use super::propagation::{Propagation, Written};
use super::questions::{SnapshotRequests, Subject, answer};
use super::settings::launchdarkly_settings;
use super::{ControlState, EnvironmentContext, EnvironmentInput, EnvironmentUpdate};
use crate::dataset::{Packing, Snapshot};
use crate::file_source::FlagFile;
use crate::launchdarkly::SourceSettings;
use crate::source::{Received, SourceEvent, SourceFailure, SourceHandle, source_events};
use crate::store::{FlagStore, Outcome, StoreError, StoreNews};

/// Paced looks begin at multiples of so many milliseconds.
const TOGETHER: u64 = 250;
/// How often counters and times are told when nothing else changed.
const REPORT: Duration = Duration::from_secs(1);
/// Pause before a source that ended unexpectedly is started again.
const RESTART: Duration = Duration::from_secs(1);
/// How long the last store operation may take when the environment is stopped.
const LAST_OPERATION: Duration = Duration::from_millis(1500);

struct Task {
    name: EnvironmentName,
    context: Arc<EnvironmentContext>,
    machine: Machine,
    store: Arc<dyn FlagStore>,
    news: watch::Receiver<StoreNews>,
    source: Option<(SourceHandle, mpsc::Receiver<Received>)>,
    /// Gone after its first payload, or failure.
    second_source: Option<(SourceHandle, mpsc::Receiver<Received>)>,
    operation: Option<(&'static str, BoxFuture<'static, Outcome>)>,
    questions: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Some questions are also about what is held, at a moment that they choose.
    snapshots: (SnapshotRequests, mpsc::Receiver<oneshot::Sender<Snapshot>>),
    updates: mpsc::Sender<(EnvironmentName, EnvironmentUpdate)>,
    wake: Option<Timestamp>,
    restart_source_at: Option<Timestamp>,
    next_check: Timestamp,
    /// By how much the pause between two paced looks is longer, up to a half, so that environments do not look all at once.
    spread: f64,
    propagation: Propagation,
    packing: Schedule,
    /// The source has a connection.
    is_connected: bool,
    /// Why the source was interrupted, as it was logged last.
    told_failure: Option<SourceFailure>,
    told: Option<EnvironmentReport>,
    told_at: Timestamp,
    /// When counters and times that changed are told.
    report_due: Option<Timestamp>,
    instance_id: Uuid,
}

/// Makes the task, to be polled by the environment's handle. It ends when the inputs' sender is dropped.
pub(super) fn prepare(
    assignment: Assignment,
    context: Arc<EnvironmentContext>,
    control: ControlState,
    inputs: mpsc::Receiver<EnvironmentInput>,
    updates: mpsc::Sender<(EnvironmentName, EnvironmentUpdate)>,
    first_write_number: u64,
) -> Result<impl Future<Output = ()> + Send + 'static, StoreError> {
    let store = context.stores.open(&assignment.store_url)?;
    let news = store.news(&assignment.spec.prefix);
    let now = context.clock.now();
    let identity = (context.fleet.clone(), context.incarnation.clone());
    let name = assignment.environment.clone();
    let (machine, actions) = Machine::new(now, identity, assignment, control, first_write_number);
    let instance_id = context.chance.uuid();
    let [first, second, ..] = *instance_id.as_bytes();
    let spread = f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX) / 2.0;
    let next_check = check_due(now, &machine, spread);
    let task = Box::new(Task {
        name,
        context,
        machine,
        store,
        news,
        source: None,
        second_source: None,
        operation: None,
        questions: FuturesUnordered::new(),
        snapshots: mpsc::channel(1),
        updates,
        wake: None,
        restart_source_at: None,
        next_check,
        spread,
        propagation: Propagation::default(),
        packing: Schedule::default(),
        is_connected: false,
        told_failure: None,
        told: None,
        told_at: Timestamp::default(),
        report_due: None,
        instance_id,
    });
    Ok(task.run(inputs, actions))
}

/// What happened next.
enum Happened {
    Input(Option<EnvironmentInput>),
    Source(Option<Received>),
    SecondSource(Option<Received>),
    Operation(Outcome),
    News,
    Question,
    SnapshotWanted(oneshot::Sender<Snapshot>),
    TurnToPack(OwnedSemaphorePermit),
    Time,
}

impl Task {
    /// Boxed, for a future keeps what it was called with beside what it makes of it, and whoever awaits it once more.
    async fn run(mut self: Box<Self>, mut inputs: mpsc::Receiver<EnvironmentInput>, actions: Vec<Action>) {
        self.act(actions).await;
        self.report().await;
        loop {
            let actions = match self.next(&mut inputs).await {
                Happened::Input(None) => return self.end().await,
                Happened::Input(Some(input)) => self.take_input(input),
                Happened::Source(Some(Received { event, at })) => self.take_event(event, at),
                Happened::Source(None) => self.source_gone(),
                Happened::SecondSource(received) => {
                    self.take_second_opinion(received.map(|received| received.event))
                }
                Happened::Operation(outcome) => self.take_outcome(outcome),
                Happened::News => {
                    let news = *self.news.borrow_and_update();
                    self.machine.store_news(self.now(), news)
                }
                Happened::Question => Vec::new(),
                Happened::SnapshotWanted(receiver) => {
                    // Nobody waits for it any more, or there is nothing to give: then dropping it says so.
                    let _ = self.machine.snapshot().map(|snapshot| receiver.send(snapshot));
                    Vec::new()
                }
                Happened::TurnToPack(turn) => {
                    self.pack();
                    drop(turn);
                    continue;
                }
                Happened::Time => self.take_time(),
            };
            self.act(actions).await;
            self.report().await;
        }
    }

    fn now(&self) -> Timestamp {
        self.context.clock.now()
    }

    async fn next(&mut self, inputs: &mut mpsc::Receiver<EnvironmentInput>) -> Happened {
        let now = self.now();
        let due = [self.wake, self.restart_source_at, Some(self.next_check), self.report_due, self.packing.due()]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(self.next_check);
        let (source, second_source) = (next_event(&mut self.source), next_event(&mut self.second_source));
        let operation = async {
            match &mut self.operation {
                Some((_, operation)) => operation.await,
                None => std::future::pending().await,
            }
        };
        // The source comes last: however much it says, nothing else waits for it.
        tokio::select! {
            biased;
            outcome = operation => Happened::Operation(outcome),
            input = inputs.recv() => Happened::Input(input),
            Ok(()) = self.news.changed() => Happened::News,
            Some(()) = self.questions.next() => Happened::Question,
            Some(receiver) = self.snapshots.1.recv() => Happened::SnapshotWanted(receiver),
            () = tokio::time::sleep(due.since(now)) => Happened::Time,
            turn = self.packing.turn() => Happened::TurnToPack(turn),
            event = second_source => Happened::SecondSource(event),
            event = source => Happened::Source(event),
        }
    }

    fn take_time(&mut self) -> Vec<Action> {
        let now = self.now();
        self.wake = self.wake.filter(|at| *at > now);
        if self.restart_source_at.take_if(|at| *at <= now).is_some() {
            self.start_source();
        }
        self.packing.queue_if_due(now, &self.context.packing);
        if self.next_check <= now {
            self.next_check = check_due(now, &self.machine, self.spread);
            self.machine.check_store(now)
        } else {
            self.machine.woken(now)
        }
    }

    fn pack(&mut self) {
        match self.machine.pack_some(self.now()) {
            Packing::GoesOn => self.packing.queue(&self.context.packing),
            Packing::IsDone => self.packing.end(self.now()),
        }
    }

    fn take_input(&mut self, input: EnvironmentInput) -> Vec<Action> {
        let now = self.now();
        match input {
            EnvironmentInput::Assigned(assignment) => self.assigned(now, *assignment),
            EnvironmentInput::Confirmed { valid } => self.machine.confirmed(now, valid),
            EnvironmentInput::Control(control) => self.machine.control_changed(now, control),
            EnvironmentInput::Ask { question, deadline, answer: receiver } => {
                let assignment = self.machine.assignment();
                let subject = Subject {
                    store: Arc::clone(&self.store),
                    prefix: assignment.spec.prefix.clone(),
                    sources: Arc::clone(&self.context.sources),
                    settings: launchdarkly_settings(assignment, self.instance_id),
                    environment_id: self.machine.environment_id().map(ToOwned::to_owned),
                    snapshots: self.snapshots.0.clone(),
                };
                self.questions.push(Box::pin(async move {
                    // Nobody waits for the answer any more: then it is of no use.
                    let _ = receiver.send(answer(subject, question, deadline).await);
                }));
                Vec::new()
            }
        }
    }

    fn assigned(&mut self, now: Timestamp, assignment: Assignment) -> Vec<Action> {
        let moved = assignment.store_url != self.machine.assignment().store_url;
        let (url, prefix) = (assignment.store_url.clone(), assignment.spec.prefix.clone());
        let mut actions = self.machine.assigned(now, assignment);
        if moved {
            match self.context.stores.open(&url) {
                Ok(store) => {
                    self.news = store.news(&prefix);
                    self.store = store;
                    actions.extend(self.machine.store_replaced(now));
                }
                Err(error) => tracing::error!(environment = %self.name, %error, "cannot open the store"),
            }
        }
        actions
    }

    /// The source's task has ended by itself, which is a fault of ours: say so, and start it again.
    fn source_gone(&mut self) -> Vec<Action> {
        tracing::error!(environment = %self.name, "the source ended unexpectedly and is started again");
        self.source = None;
        self.restart_source_at = Some(self.now().after(RESTART));
        let failure = SourceFailure::Network { message: "the source ended unexpectedly".to_owned() };
        self.interrupted(&failure, RESTART);
        self.machine.source_event(self.now(), SourceEvent::Interrupted { failure, retry_in: RESTART })
    }

    fn take_event(&mut self, event: SourceEvent, received: Instant) -> Vec<Action> {
        let now = self.now();
        match &event {
            SourceEvent::Connected { .. } => {
                self.is_connected = true;
                self.told_failure = None;
                self.context.metrics.upstream_connect("ok");
            }
            SourceEvent::Interrupted { failure, retry_in } => self.interrupted(failure, *retry_in),
            SourceEvent::Payload(_)
            | SourceEvent::Patch { .. }
            | SourceEvent::Delete { .. }
            | SourceEvent::Unchanged => {
                if self.machine.assignment().grant.intent == Intent::Serve {
                    self.context.metrics.event_received(&self.name, now);
                }
            }
            SourceEvent::Rejected(item) => {
                tracing::warn!(environment = %self.name, item = %item.shown_key(), reason = %item.reason, "an item was not stored");
            }
            SourceEvent::Heartbeat | SourceEvent::Alive => {}
        }
        let may_change =
            matches!(event, SourceEvent::Payload(_) | SourceEvent::Patch { .. } | SourceEvent::Delete { .. });
        let actions = self.machine.source_event(now, event);
        if may_change {
            self.packing.changed(now);
            if self.machine.is_behind() {
                self.propagation.received(received);
            }
        }
        actions
    }

    fn interrupted(&mut self, failure: &SourceFailure, retry_in: Duration) {
        if !std::mem::take(&mut self.is_connected) {
            self.context.metrics.upstream_connect(failure.kind().as_str());
        }
        // One that is refused for hours says so once.
        if self.told_failure.as_ref() == Some(failure) {
            tracing::debug!(environment = %self.name, error = %failure, ?retry_in, "the source is interrupted");
        } else {
            tracing::warn!(environment = %self.name, error = %failure, ?retry_in, "the source is interrupted");
            self.told_failure = Some(failure.clone());
        }
    }

    /// The second connection ends with its first payload or failure, and a source does not end by itself otherwise.
    fn take_second_opinion(&mut self, event: Option<SourceEvent>) -> Vec<Action> {
        match &event {
            Some(SourceEvent::Interrupted { failure, .. }) => {
                tracing::warn!(environment = %self.name, error = %failure, "LaunchDarkly could not be asked again about items in doubt");
                self.second_source = None;
            }
            Some(SourceEvent::Payload(_)) | None => {
                self.packing.changed(self.now());
                self.second_source = None;
            }
            Some(
                SourceEvent::Connected { .. }
                | SourceEvent::Unchanged
                | SourceEvent::Patch { .. }
                | SourceEvent::Delete { .. }
                | SourceEvent::Rejected(_)
                | SourceEvent::Heartbeat
                | SourceEvent::Alive,
            ) => {}
        }
        self.machine.second_opinion(self.now(), event)
    }

    fn take_outcome(&mut self, outcome: Outcome) -> Vec<Action> {
        let metrics = &self.context.metrics;
        let what = self.operation.take().map_or("unknown", |(what, _)| what);
        let result = match &outcome {
            Outcome::Failed(_) => "failed",
            Outcome::Refused(_) => "refused",
            Outcome::Looked(_)
            | Outcome::Done { .. }
            | Outcome::Compared(_)
            | Outcome::Busy
            | Outcome::Listed(_)
            | Outcome::Read(_) => "ok",
        };
        if !matches!(what, "look" | "compare") {
            metrics.store_write(what, result);
        }
        let now = self.now();
        if matches!(outcome, Outcome::Compared(_)) {
            // What the store has may be taken over.
            self.packing.changed(now);
        }
        let (effect, actions) = self.machine.store_outcome(now, outcome);
        // It may have said that it tells of nothing.
        self.next_check = self.next_check.min(check_due(now, &self.machine, self.spread));
        if effect.fenced {
            metrics.fenced_write();
            tracing::info!(environment = %self.name, "the store refused a write: its fence is not ours");
        }
        if let Some(repair) = effect.repair {
            let reason = repair.as_str();
            metrics.store_repair(reason);
            tracing::warn!(environment = %self.name, reason, "the store is not as it was left, and is repaired");
        }
        let written = match effect.written {
            false => Written::Nothing,
            true if self.machine.is_all_written() => Written::Everything,
            true => Written::WhatWasCarried,
        };
        if let Some(since) = self.propagation.answered(written) {
            metrics.propagation(since.elapsed());
        }
        actions
    }

    async fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::StartSource => {
                    self.second_source = None;
                    self.start_source();
                }
                Action::StopSource => {
                    (self.source, self.second_source, self.restart_source_at) = (None, None, None);
                }
                Action::AskAgain => self.second_source = self.open_source(),
                Action::Run(op) => {
                    let what = op.name();
                    self.propagation.sent(&op);
                    self.operation = Some((what, self.store.execute(&self.machine.assignment().spec.prefix, op)));
                }
                Action::Confirm(grant) => {
                    // The supervisor ends before the environments: then nobody needs the answer.
                    let _ = self.updates.send((self.name.clone(), EnvironmentUpdate::Confirm(grant))).await;
                }
                Action::Wake(at) => self.wake = Some(at),
            }
        }
    }

    fn start_source(&mut self) {
        (self.restart_source_at, self.is_connected) = (None, false);
        // The old connection ends before the new one begins.
        self.source = None;
        self.source = self.open_source();
        if self.source.is_none() {
            tracing::error!(environment = %self.name, "the assignment has no usable source");
        }
    }

    /// Begins to read what the assignment names; `None` if it names nothing that can be read.
    fn open_source(&self) -> Option<(SourceHandle, mpsc::Receiver<Received>)> {
        let assignment = self.machine.assignment();
        let settings = match (&assignment.spec.source, &self.context.file_source_dir) {
            (Source::File { path }, Some(directory)) => {
                Some(SourceSettings::File(FlagFile { directory: directory.clone(), name: path.into() }))
            }
            (Source::File { .. }, None) => None,
            (Source::Stream { .. } | Source::Poll { .. }, _) => launchdarkly_settings(assignment, self.instance_id)
                .map(|settings| SourceSettings::LaunchDarkly(Box::new(settings))),
        };
        let (sender, events) = source_events();
        Some((Arc::clone(&self.context.sources).start(settings?, sender), events))
    }

    /// Tells the status if it is worth telling now, or notes when it will be.
    async fn report(&mut self) {
        let report = self.machine.report();
        let now = self.now();
        let due = match &self.told {
            None => now,
            Some(told) if *told == report => {
                self.report_due = None;
                return;
            }
            Some(told) if told.differs_beyond_counters(&report) => now,
            Some(_) => self.told_at.after(REPORT),
        };
        if due > now {
            self.report_due = Some(due);
            return;
        }
        log_changes(self.told.as_ref(), &report);
        if report.grant.intent == Intent::Serve {
            let [rejected, doubted] = self.machine.item_counts();
            self.context.metrics.items(&self.name, rejected, doubted);
            self.context.metrics.store_untracked(&self.name, report.untracked.as_deref());
        } else {
            self.context.metrics.environment_removed(&self.name);
        }
        self.report_due = None;
        self.told_at = now;
        self.told = Some(report.clone());
        // The supervisor ends before the environments: then nobody needs the report.
        let _ = self.updates.send((self.name.clone(), EnvironmentUpdate::Report(Box::new(report)))).await;
    }

    async fn end(mut self: Box<Self>) {
        (self.source, self.second_source) = (None, None);
        if let Some((_, operation)) = self.operation.take() {
            // What it does not finish is as good as a crash: the fence settles it.
            if let Ok(outcome) = tokio::time::timeout(LAST_OPERATION, operation).await {
                self.machine.store_outcome(self.now(), outcome);
            }
        }
        self.context.metrics.environment_removed(&self.name);
        tracing::debug!(environment = %self.name, next_write_number = self.machine.next_write_number(), "ended");
    }
}

/// When the next paced look is due. Those of many environments fall together, for a wake-up costs more than a look.
fn check_due(now: Timestamp, machine: &Machine, spread: f64) -> Timestamp {
    Timestamp(now.after(machine.check_pause().mul_f64(1.0 + spread)).0.next_multiple_of(TOGETHER))
}

async fn next_event(source: &mut Option<(SourceHandle, mpsc::Receiver<Received>)>) -> Option<Received> {
    match source {
        Some((_, events)) => events.recv().await,
        None => std::future::pending().await,
    }
}
