//! One environment as a pure state machine: what the source, the store and control say goes in, what is to be done comes
//! out. [`Writer`] decides about the store; this decides about everything else, and tells the status.

// What an assignment says.
mod assignment;
// What LaunchDarkly says when it is asked again about items in doubt.
mod second_opinion;
// How often the store is looked at.
mod pace;
// What is told of it all.
mod status;

use std::time::Duration;

use flotilla_proto::session::Assignment;
use flotilla_proto::status::ErrorKind;
use flotilla_proto::{FleetId, HeldGrant, Incarnation, Intent, LastError, Source, SourceState, Timestamp};

use self::assignment::{identity, is_guarded, is_same_source, origin, versions};
use self::second_opinion::SecondOpinion;
use super::ControlState;
use super::packing::QUIET;
use super::writer::{Decision, Effect, Repair, Writer};
use crate::dataset::{Authority, Dataset, Differences, ItemId, Packing, Snapshot};
use crate::fence::Lineage;
use crate::source::{FullPayload, RejectedItem, SourceEvent, SourceFailure};
use crate::store::{Op, Outcome, StoreNews};

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action {
    /// Connect to the source, anew if there is a connection.
    StartSource,
    /// End the source's connection.
    StopSource,
    /// Take one full payload over a second connection; the first stays up.
    AskAgain,
    /// Carry out an operation of the store and tell its outcome.
    Run(Op),
    /// Ask control whether the grant is still ours.
    Confirm(HeldGrant),
    /// Step again at this time, if nothing happens before.
    Wake(Timestamp),
}

/// What the next full payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NextPayload {
    /// The one that the user has said to be right, whatever it takes back.
    Accepted,
    /// The first since the user changed where the data comes from: its versions are not the old ones' successors.
    FirstOfLineage,
    /// The first of a connection: the node that sends it may be behind.
    FirstOfConnection,
    /// One more of the same connection.
    Later,
}

/// The machine of one environment.
#[derive(Debug)]
pub(super) struct Machine {
    fleet: FleetId,
    incarnation: Incarnation,
    assignment: Assignment,
    control: ControlState,
    dataset: Dataset,
    /// A full payload has been applied.
    filled: bool,
    /// It came before the user changed where the data comes from. An owner keeps it until there is something new.
    is_outdated: bool,
    writer: Writer,
    news: StoreNews,
    /// Paced looks so far.
    checks: u32,
    /// The last store operation failed.
    store_fails: bool,
    /// The last resync for which a payload was taken as right.
    accepted_resync: Option<u64>,
    /// Of the data set; before it is filled, of what it will be filled with.
    lineage: Lineage,
    next_payload: NextPayload,
    second_opinion: SecondOpinion,
    source_state: Option<SourceState>,
    environment_id: Option<Box<str>>,
    /// The connection brought another LaunchDarkly environment than before: what it sends is not applied.
    changed_environment_id: Option<Box<str>>,
    rejected: Vec<RejectedItem>,
    last_event: Option<Timestamp>,
    last_byte: Option<Timestamp>,
    last_heartbeat: Option<Timestamp>,
    last_write: Option<Timestamp>,
    last_error: Option<LastError>,
    /// Why the source has no connection; nothing while it has one, and before it was tried.
    source_error: Option<LastError>,
    /// Under the present grant.
    repairs: u64,
    /// The last of them.
    last_repair: Option<Repair>,
    /// Under the present grant: writes that the store refused for their fence.
    fenced_writes: u64,
}

impl Machine {
    /// A machine for an assignment, and its first actions.
    pub(super) fn new(
        now: Timestamp,
        (fleet, incarnation): (FleetId, Incarnation),
        assignment: Assignment,
        control: ControlState,
        first_write_number: u64,
    ) -> (Self, Vec<Action>) {
        let lineage = Lineage::new(None, &origin(&assignment.spec));
        let identity = identity(&fleet, &incarnation, &assignment, lineage.clone());
        let writer = Writer::new(identity, first_write_number);
        let mut dataset = Dataset::default();
        dataset.set_guarded(is_guarded(&assignment.spec));
        let mut machine = Self {
            fleet,
            incarnation,
            assignment,
            control,
            dataset,
            filled: false,
            is_outdated: false,
            writer,
            news: StoreNews::default(),
            checks: 0,
            store_fails: false,
            accepted_resync: None,
            lineage,
            next_payload: NextPayload::FirstOfConnection,
            second_opinion: SecondOpinion::NotAsked { not_before: now },
            source_state: None,
            environment_id: None,
            changed_environment_id: None,
            rejected: Vec::new(),
            last_event: None,
            last_byte: None,
            last_heartbeat: None,
            last_write: None,
            last_error: None,
            source_error: None,
            repairs: 0,
            last_repair: None,
            fenced_writes: 0,
        };
        if machine.is_to_accept() {
            machine.next_payload = NextPayload::Accepted;
        }
        let mut actions = Vec::new();
        if machine.wants_source() {
            machine.source_state = Some(SourceState::Connecting);
            actions.push(Action::StartSource);
        }
        machine.advance(now, &mut actions);
        (machine, actions)
    }

    /// Time passed.
    pub(super) fn woken(&mut self, now: Timestamp) -> Vec<Action> {
        self.after(now, Vec::new())
    }

    /// Control came or went.
    pub(super) fn control_changed(&mut self, now: Timestamp, control: ControlState) -> Vec<Action> {
        self.control = control;
        self.after(now, Vec::new())
    }

    /// Control answered about the grant.
    pub(super) fn confirmed(&mut self, now: Timestamp, valid: bool) -> Vec<Action> {
        self.writer.confirmed(now, valid);
        self.after(now, Vec::new())
    }

    /// The store has news.
    pub(super) fn store_news(&mut self, now: Timestamp, news: StoreNews) -> Vec<Action> {
        let old = std::mem::replace(&mut self.news, news);
        if news.connection != old.connection {
            self.writer.reconnected(now);
        } else if news.touched != old.touched {
            self.writer.distrust(now);
        } else if news.evictions != old.evictions {
            // They go as a whole, so a look shows it.
            self.writer.check();
        }
        self.after(now, Vec::new())
    }

    /// A new assignment of the same environment.
    pub(super) fn assigned(&mut self, now: Timestamp, mut assignment: Assignment) -> Vec<Action> {
        if matches!(assignment.grant.intent, Intent::Release | Intent::Purge) {
            // It comes without a key, for none is needed. What is resumed later with the same one is of the same lineage.
            assignment.sdk_key = assignment.sdk_key.or_else(|| self.assignment.sdk_key.clone());
        }
        let old = std::mem::replace(&mut self.assignment, assignment);
        let new = &self.assignment;
        let key_changed = matches!((&old.sdk_key, &new.sdk_key), (Some(old), Some(new)) if old != new);
        if key_changed || origin(&new.spec) != origin(&old.spec) {
            // The user says that the data may be another environment's now, with other versions.
            (self.environment_id, self.changed_environment_id) = (None, None);
            self.next_payload = NextPayload::FirstOfLineage;
            self.is_outdated = true;
        }
        if self.is_outdated && (new.grant != old.grant || new.grant.intent == Intent::Warm) {
            // Another owner may have written what the new source says already, and what is held would replace that.
            self.filled = false;
        }
        let identity = identity(&self.fleet, &self.incarnation, new, self.lineage.clone());
        if new.grant == old.grant {
            if new.take_over != old.take_over {
                self.writer.amend_take_over(identity.take_over);
            }
        } else {
            self.writer.regrant(identity);
            (self.repairs, self.fenced_writes) = (0, 0);
        }
        self.dataset.set_guarded(is_guarded(&new.spec));
        if !is_guarded(&new.spec) {
            self.writer.confirm();
        }
        let is_asked_anew = self.assignment.resync != old.resync;
        if is_asked_anew {
            // After a restored database a number may come again.
            self.accepted_resync = None;
        }
        let accept = self.is_to_accept() && self.next_payload != NextPayload::Accepted;
        let resync = accept || is_asked_anew;
        if resync {
            self.writer.resync();
        }
        if accept {
            (self.environment_id, self.changed_environment_id) = (None, None);
            self.next_payload = NextPayload::Accepted;
        }
        let same_source = is_same_source(&self.assignment, &old) && !resync;
        let mut actions = Vec::new();
        if !self.wants_source() {
            self.source_error = None;
            if self.source_state.take().is_some() {
                self.second_opinion = SecondOpinion::NotAsked { not_before: now };
                actions.push(Action::StopSource);
            }
        } else if self.source_state.is_none() || !same_source {
            self.source_state = Some(SourceState::Connecting);
            self.source_error = None;
            self.second_opinion = SecondOpinion::NotAsked { not_before: now };
            actions.push(Action::StartSource);
        }
        self.after(now, actions)
    }

    /// The source says something.
    pub(super) fn source_event(&mut self, now: Timestamp, event: SourceEvent) -> Vec<Action> {
        match event {
            SourceEvent::Connected { environment_id } => self.connected(now, environment_id),
            SourceEvent::Payload(payload) => self.payload(now, &payload),
            SourceEvent::Unchanged => {
                self.heard(now);
                self.last_event = Some(now);
                self.source_error = None;
                if self.filled && self.changed_environment_id.is_none() {
                    self.source_state = Some(SourceState::Connected);
                    self.said_again(now);
                }
            }
            SourceEvent::Patch { kind, key, version, deleted: true, .. }
            | SourceEvent::Delete { kind, key, version } => {
                self.item(now, |dataset| dataset.delete(kind, &key, version));
                self.rejected.retain(|item| item.kind != kind || item.key != key);
            }
            SourceEvent::Patch { kind, key, body, version, deleted: false } => {
                self.item(now, |dataset| dataset.patch(kind, &key, version, &body, now));
                self.rejected.retain(|item| item.kind != kind || item.key != key);
            }
            SourceEvent::Rejected(item) => {
                self.heard(now);
                self.rejected.retain(|known| known.kind != item.kind || known.key != item.key);
                self.rejected.push(item);
            }
            SourceEvent::Heartbeat => {
                self.heard(now);
                self.last_heartbeat = Some(now);
            }
            SourceEvent::Alive => self.heard(now),
            SourceEvent::Interrupted { failure, retry_in } => self.interrupted(now, &failure, retry_in),
        }
        self.after(now, Vec::new())
    }

    /// A store operation ended. The effect is for counters.
    pub(super) fn store_outcome(&mut self, now: Timestamp, mut outcome: Outcome) -> (Effect, Vec<Action>) {
        if let Outcome::Compared(differences) = &mut outcome
            && self.writer.is_comparing()
        {
            if self.writer.has_comparable_versions() {
                self.adopt(now, differences);
            }
            if is_guarded(&self.assignment.spec) {
                self.writer.guard(now, differences);
            }
        }
        let effect = self.writer.outcome(now, outcome);
        if effect.written {
            self.last_write = Some(now);
        }
        if let Some(repair) = effect.repair {
            self.repairs += 1;
            self.last_repair = Some(repair);
        }
        self.fenced_writes += u64::from(effect.fenced);
        let failed_before = std::mem::replace(&mut self.store_fails, self.writer.error().is_some());
        if let Some(message) = self.writer.error() {
            let same = |error: &LastError| error.kind == ErrorKind::Store && error.message == message;
            if !failed_before || !self.last_error.as_ref().is_some_and(same) {
                let message = message.to_owned();
                self.last_error = Some(LastError { kind: ErrorKind::Store, status: None, message, time: now });
            }
        }
        (effect, self.after(now, Vec::new()))
    }

    fn connected(&mut self, now: Timestamp, environment_id: Option<Box<str>>) {
        self.heard(now);
        if self.next_payload == NextPayload::Later {
            self.next_payload = NextPayload::FirstOfConnection;
        }
        match (&self.environment_id, environment_id) {
            (Some(known), Some(id)) if *known != id => self.changed_environment_id = Some(id),
            (None, Some(id)) => {
                self.environment_id = Some(id);
                self.changed_environment_id = None;
            }
            (Some(_) | None, Some(_) | None) => self.changed_environment_id = None,
        }
    }

    fn payload(&mut self, now: Timestamp, payload: &FullPayload) {
        self.heard(now);
        self.last_event = Some(now);
        self.source_error = None;
        if self.changed_environment_id.is_some() {
            return;
        }
        let lineage = Lineage::new(self.environment_id.as_deref(), &origin(&self.assignment.spec));
        let before = std::mem::replace(&mut self.lineage, lineage);
        let mut place = std::mem::replace(&mut self.next_payload, NextPayload::Later);
        if place == NextPayload::FirstOfLineage && self.lineage.is_proven_same(&before) {
            // Another key of the same environment.
            place = NextPayload::FirstOfConnection;
        }
        let authority = match (place, &self.assignment.spec.source) {
            (NextPayload::Accepted, _) if self.lineage.is_same(&before) => Authority::Accepted,
            (NextPayload::Accepted | NextPayload::FirstOfLineage, _) => Authority::OfAnotherLineage,
            (NextPayload::FirstOfConnection | NextPayload::Later, Source::File { .. }) => Authority::OfFile,
            (NextPayload::FirstOfConnection | NextPayload::Later, Source::Poll { .. }) => Authority::OfPoll,
            (NextPayload::FirstOfConnection, Source::Stream { .. }) => Authority::OfNewConnection,
            (NextPayload::Later, Source::Stream { .. }) => Authority::Binding,
        };
        match place {
            NextPayload::Accepted => {
                self.accepted_resync = Some(self.assignment.resync);
                self.writer.overrule(self.lineage.clone());
            }
            NextPayload::FirstOfLineage => {
                self.writer.begin_lineage(self.lineage.clone(), versions(&self.assignment.spec));
            }
            NextPayload::FirstOfConnection | NextPayload::Later => self.writer.amend_lineage(self.lineage.clone()),
        }
        let changed = self.dataset.replace(payload, authority, now);
        self.writer.replaced(changed);
        if authority != Authority::OfNewConnection || self.ripe_at().is_some_and(|at| at <= now) {
            self.writer.confirm();
        }
        self.rejected = payload.rejected().to_vec();
        (self.filled, self.is_outdated) = (true, false);
        self.source_state = Some(SourceState::Connected);
    }

    fn item(&mut self, now: Timestamp, apply: impl FnOnce(&mut Dataset) -> Option<ItemId>) {
        self.heard(now);
        self.last_event = Some(now);
        if self.changed_environment_id.is_none() && self.filled {
            self.writer.changed(apply(&mut self.dataset));
        }
    }

    /// What a comparison found in the store that may be newer than what LaunchDarkly sent is kept, in doubt.
    fn adopt(&mut self, now: Timestamp, differences: &mut Differences) {
        let adopted = self.dataset.adopt(std::mem::take(&mut differences.stored), now);
        differences.items.retain(|item| !adopted.contains(item));
    }

    fn interrupted(&mut self, now: Timestamp, failure: &SourceFailure, retry_in: Duration) {
        self.source_state = Some(SourceState::Interrupted);
        let (kind, status) = (failure.kind(), failure.status());
        let seconds = retry_in.as_secs_f64();
        let or_before = match failure {
            SourceFailure::Key { .. } => ", or as soon as its file changes",
            SourceFailure::Network { .. }
            | SourceFailure::Http { .. }
            | SourceFailure::Auth { .. }
            | SourceFailure::Data { .. } => "",
        };
        let message = format!("{failure}; next attempt in {seconds:.0} s{or_before}");
        let error = LastError { kind, status, message, time: now };
        self.last_error = Some(error.clone());
        self.source_error = Some(error);
    }

    fn heard(&mut self, now: Timestamp) {
        self.last_byte = Some(now);
    }

    /// Whether the user has said that LaunchDarkly is right, and no payload was taken so since.
    fn is_to_accept(&self) -> bool {
        self.assignment.accept_regression && self.accepted_resync != Some(self.assignment.resync)
    }

    fn wants_source(&self) -> bool {
        matches!(self.assignment.grant.intent, Intent::Warm | Intent::Serve)
    }

    fn after(&mut self, now: Timestamp, mut actions: Vec<Action>) -> Vec<Action> {
        self.advance(now, &mut actions);
        actions
    }

    fn advance(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let ask_again_at = self.ask_again(now, actions);
        let wait_until = match self.writer.decide(now, self.filled.then_some(&self.dataset), self.control) {
            Decision::Run(op) => {
                actions.push(Action::Run(op));
                None
            }
            Decision::Confirm => {
                actions.push(Action::Confirm(self.held()));
                None
            }
            Decision::Wait(until) => until,
        };
        actions.extend(wait_until.into_iter().chain(ask_again_at).min().map(Action::Wake));
    }

    fn held(&self) -> HeldGrant {
        HeldGrant {
            environment: self.assignment.environment.clone(),
            uid: self.assignment.uid.clone(),
            generation: self.assignment.generation,
            grant: self.assignment.grant.clone(),
        }
    }

    /// The assignment in force.
    pub(super) fn assignment(&self) -> &Assignment {
        &self.assignment
    }

    /// The environment is to be found in another store connection: nothing is known of it.
    pub(super) fn store_replaced(&mut self, now: Timestamp) -> Vec<Action> {
        let identity = identity(&self.fleet, &self.incarnation, &self.assignment, self.lineage.clone());
        self.writer.move_to_other_store(identity);
        // The connections are counted anew: the first may have the number of the last one before.
        self.news = StoreNews::default();
        self.after(now, Vec::new())
    }

    /// LaunchDarkly's id of the environment, once it was sent.
    pub(super) fn environment_id(&self) -> Option<&str> {
        self.environment_id.as_deref()
    }

    /// What is held; `None`: nothing yet.
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        self.filled.then(|| self.dataset.snapshot())
    }

    /// A write number that was never used.
    pub(super) fn next_write_number(&self) -> u64 {
        self.writer.next_number()
    }

    /// Packs a part of what has been quiet.
    pub(super) fn pack_some(&mut self, now: Timestamp) -> Packing {
        self.dataset.pack_some(now, QUIET)
    }

    /// Whether the store holds all that was received.
    pub(super) fn is_all_written(&self) -> bool {
        self.writer.is_all_written()
    }

    /// Whether changes wait to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.writer.is_behind()
    }
}

#[cfg(test)]
mod tests;
