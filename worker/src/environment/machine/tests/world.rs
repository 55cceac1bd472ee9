//! A machine whose store operations are carried out on a model at once, and a LaunchDarkly that says what a test says.

use std::fmt::Write as _;

use bytes::Bytes;
use flotilla_proto::{Epoch, Grant, GrantId, Incarnation};

use super::*;
use crate::launchdarkly::event::{live_version, parse_poll};
use crate::source::Kind;
use crate::store::model::Model;

/// Items as tests write them: flags and their versions.
pub(super) type Flags<'a> = &'a [(&'a str, u64)];

/// A worker with one environment.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) machine: Machine,
    pub(super) now: Timestamp,
    /// What the source was asked, and what was written, in words.
    pub(super) done: Vec<String>,
    wake: Option<Timestamp>,
}

/// A grant of the environment "a" for the worker of that name.
pub(super) fn granted(worker: &str, epoch: u64, intent: Intent) -> Assignment {
    let grant = Grant { epoch: Epoch(epoch), id: GrantId::parse(&format!("g-{worker}-{epoch}")).unwrap(), intent };
    let assignment = assignment("a", "uid-a", epoch);
    // To end something takes no key, so control sends none.
    let sdk_key = assignment.sdk_key.filter(|_| matches!(intent, Intent::Warm | Intent::Serve));
    Assignment { grant, sdk_key, ..assignment }
}

fn text(key: &str, version: u64) -> String {
    format!(r#"{{"key":"{key}","version":{version}}}"#)
}

/// A full payload.
pub(super) fn payload(flags: Flags<'_>) -> SourceEvent {
    let mut items = String::new();
    for (key, version) in flags {
        let comma = if items.is_empty() { "" } else { "," };
        write!(items, r#"{comma}"{key}":{}"#, text(key, *version)).unwrap();
    }
    let body = Bytes::from(format!(r#"{{"flags":{{{items}}},"segments":{{}}}}"#));
    SourceEvent::Payload(parse_poll(&body).unwrap())
}

pub(super) fn patch(key: &str, version: u64) -> SourceEvent {
    let body = Bytes::from(text(key, version));
    SourceEvent::Patch { kind: Kind::Flag, key: key.into(), body, version, deleted: false }
}

pub(super) fn delete(key: &str, version: u64) -> SourceEvent {
    SourceEvent::Delete { kind: Kind::Flag, key: key.into(), version }
}

/// The flags that a store holds, and their versions.
pub(super) fn stored(store: &Model) -> Vec<(&str, u64)> {
    store.items.iter().map(|(id, body)| (&*id.key, live_version(&id.key, body).unwrap())).collect()
}

/// A store that holds this, without a fence.
pub(super) fn store_of(flags: Flags<'_>) -> Model {
    let item =
        |key: &str, version| (ItemId { kind: Kind::Flag, key: key.into() }, text(key, version).into_bytes().into());
    let items = flags.iter().map(|(key, version)| item(key, *version)).collect();
    Model { marker: true, items, ..Model::default() }
}

impl Worker {
    /// Starts with an assignment, on a state directory of its own.
    pub(super) fn start(store: &mut Model, assignment: Assignment, now: Timestamp) -> Self {
        let state_directory = format!("dir-{}", assignment.grant.id).parse().unwrap();
        let incarnation = Incarnation { state_directory, start_counter: 1, random: 7 };
        Self::start_as(incarnation, store, assignment, now)
    }

    pub(super) fn start_as(
        incarnation: Incarnation,
        store: &mut Model,
        assignment: Assignment,
        now: Timestamp,
    ) -> Self {
        let control = ControlState { connected: true, lease: Duration::from_secs(15), confirmed_at: now };
        let (machine, actions) = Machine::new(now, (FLEET.parse().unwrap(), incarnation), assignment, control, 1);
        let mut worker = Self { machine, now, done: Vec::new(), wake: None };
        worker.act(store, actions);
        worker
    }

    pub(super) fn act(&mut self, store: &mut Model, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::StartSource => self.done.push("start source".to_owned()),
                Action::StopSource => self.done.push("stop source".to_owned()),
                Action::AskAgain => self.done.push("ask again".to_owned()),
                Action::Wake(at) => self.wake = Some(at),
                Action::Confirm(_) => {
                    let actions = self.machine.confirmed(self.now, true);
                    self.act(store, actions);
                }
                Action::Run(op) => {
                    if let Op::Write(write) = &op {
                        let keys = write.set.iter().map(|(id, _)| id).chain(&write.remove);
                        self.done.extend(keys.map(|id| format!("write {}", id.key)));
                    }
                    let outcome = store.execute(op);
                    let (_, actions) = self.machine.store_outcome(self.now, outcome);
                    self.act(store, actions);
                }
            }
        }
    }

    pub(super) fn assign(&mut self, store: &mut Model, assignment: Assignment) {
        let actions = self.machine.assigned(self.now, assignment);
        self.act(store, actions);
    }

    pub(super) fn hear(&mut self, store: &mut Model, event: SourceEvent) {
        let actions = self.machine.source_event(self.now, event);
        self.act(store, actions);
    }

    /// A new connection of the source, to an environment of this id, and its first payload.
    pub(super) fn connect(&mut self, store: &mut Model, environment_id: Option<&str>, flags: Flags<'_>) {
        self.hear(store, SourceEvent::Connected { environment_id: environment_id.map(Into::into) });
        self.hear(store, payload(flags));
    }

    pub(super) fn disconnect(&mut self, store: &mut Model) {
        let failure = SourceFailure::Network { message: "reset".to_owned() };
        self.hear(store, SourceEvent::Interrupted { failure, retry_in: Duration::from_secs(1) });
    }

    /// What the second connection says.
    pub(super) fn hear_again(&mut self, store: &mut Model, event: SourceEvent) {
        let actions = self.machine.second_opinion(self.now, Some(event));
        self.act(store, actions);
    }

    pub(super) fn look(&mut self, store: &mut Model) {
        let actions = self.machine.check_store(self.now);
        self.act(store, actions);
    }

    /// Time passes, with paced looks, until `is_done`; says how long it took.
    pub(super) fn watch(&mut self, store: &mut Model, is_done: impl Fn(&Model) -> bool) -> Duration {
        let begin = self.now;
        while !is_done(store) {
            assert!(self.now.since(begin) < Duration::from_hours(1), "it is never found");
            self.wait(store, self.machine.check_pause());
            self.look(store);
            self.wait(store, Duration::ZERO);
        }
        self.now.since(begin)
    }

    /// Somebody touched the store; it is looked at, and compared.
    pub(super) fn touched(&mut self, store: &mut Model) {
        let news = StoreNews { touched: self.machine.news.touched + 1, ..self.machine.news };
        let actions = self.machine.store_news(self.now, news);
        self.act(store, actions);
        self.wait(store, Duration::from_secs(2));
    }

    /// Time passes, and nothing else happens.
    pub(super) fn wait(&mut self, store: &mut Model, time: Duration) {
        let end = self.now.after(time);
        while let Some(at) = self.wake.take_if(|at| *at <= end) {
            self.now = self.now.max(at);
            let actions = self.machine.woken(self.now);
            self.act(store, actions);
        }
        self.now = end;
    }

    pub(super) fn take_done(&mut self) -> Vec<String> {
        std::mem::take(&mut self.done)
    }

    pub(super) fn doubts(&self) -> Vec<String> {
        self.machine.report().doubted_items
    }

    pub(super) fn state(&self) -> GrantState {
        self.machine.report().grant_state
    }
}
