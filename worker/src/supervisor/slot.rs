//! One environment: its task, and what it has not been told yet.
//!
//! Telling an environment may take as long as it is busy. So its handle travels with the mail, in a task of its own,
//! and what is posted meanwhile waits here, where newer mail takes the place of older: nothing grows, nobody waits.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use flotilla_proto::session::Assignment;
use flotilla_proto::{EnvironmentName, GrantId};
use tokio::task::JoinSet;

use super::RunningEnvironment;
use crate::environment::{ControlState, EnvironmentInput};

/// How many questions may wait for one environment. Those that find no room are answered as if it had ended.
const QUESTIONS: usize = 32;

/// Something for an environment.
#[derive(Debug)]
pub(super) enum Mail {
    /// Control came or went. Only the newest counts.
    Control(ControlState),
    /// Control's answer about a grant. Void when another grant has come since.
    Confirmed { grant: GrantId, valid: bool },
    /// A question; all count.
    Ask(EnvironmentInput),
}

/// What was done away from the supervisor.
#[derive(Debug)]
pub(super) enum Errand<R> {
    /// The mail is delivered.
    Delivered { environment: EnvironmentName, running: R },
    /// The environment has ended.
    Stopped { environment: EnvironmentName, next_write_number: u64 },
}

/// One environment; see the module.
#[derive(Debug)]
pub(super) struct Slot<R> {
    environment: EnvironmentName,
    whereabouts: Whereabouts<R>,
    then: Then,
    mailbox: Mailbox,
}

#[derive(Debug)]
enum Whereabouts<R> {
    /// Here.
    Home(R),
    /// Away with mail, or being stopped.
    Away,
}

/// What follows when the handle is here.
#[derive(Debug)]
enum Then {
    /// It goes on.
    GoOn,
    /// It ends.
    End,
    /// It ends, and this follows under its name.
    Replace(Arc<Assignment>),
}

#[derive(Debug, Default)]
struct Mailbox {
    control: Option<ControlState>,
    assigned: Option<Arc<Assignment>>,
    confirmed: Option<(GrantId, bool)>,
    questions: VecDeque<EnvironmentInput>,
}

impl Mailbox {
    /// Everything, in the order in which it is to be told.
    fn take(&mut self) -> Vec<EnvironmentInput> {
        let Self { control, assigned, confirmed, questions } = mem::take(self);
        let control = control.map(EnvironmentInput::Control);
        let assigned = assigned.map(|assignment| EnvironmentInput::Assigned(Box::new(assignment.as_ref().clone())));
        let confirmed = confirmed.map(|(_, valid)| EnvironmentInput::Confirmed { valid });
        control.into_iter().chain(assigned).chain(confirmed).chain(questions).collect()
    }
}

impl<R: RunningEnvironment> Slot<R> {
    /// An environment that has just been started.
    pub(super) fn new(environment: EnvironmentName, running: R) -> Self {
        Self { environment, whereabouts: Whereabouts::Home(running), then: Then::GoOn, mailbox: Mailbox::default() }
    }

    /// Something to tell.
    pub(super) fn post(&mut self, mail: Mail) {
        match (&self.then, mail) {
            // What follows is started with the present state, and nothing was asked about it yet.
            (Then::End | Then::Replace(_), _) => {}
            (Then::GoOn, Mail::Control(control)) => self.mailbox.control = Some(control),
            (Then::GoOn, Mail::Confirmed { grant, valid }) => self.mailbox.confirmed = Some((grant, valid)),
            (Then::GoOn, Mail::Ask(question)) => {
                if self.mailbox.questions.len() < QUESTIONS {
                    self.mailbox.questions.push_back(question);
                }
            }
        }
    }

    /// A new assignment of the same environment.
    pub(super) fn reassign(&mut self, assignment: Arc<Assignment>) {
        match self.then {
            Then::GoOn => {
                self.mailbox.confirmed.take_if(|(grant, _)| *grant != assignment.grant.id);
                self.mailbox.assigned = Some(assignment);
            }
            Then::End | Then::Replace(_) => self.then = Then::Replace(assignment),
        }
    }

    /// Another environment of the same name follows.
    pub(super) fn replace(&mut self, assignment: Arc<Assignment>) {
        self.mailbox = Mailbox::default();
        self.then = Then::Replace(assignment);
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) {
        self.mailbox = Mailbox::default();
        self.then = Then::End;
    }

    /// The handle is back from a delivery.
    pub(super) fn came_back(&mut self, running: R) {
        self.whereabouts = Whereabouts::Home(running);
    }

    /// What is to be started now that this one has ended.
    pub(super) fn successor(self) -> Option<Arc<Assignment>> {
        match self.then {
            Then::GoOn | Then::End => None,
            Then::Replace(assignment) => Some(assignment),
        }
    }

    /// Begins what is due, if the handle is here.
    pub(super) fn send_off(&mut self, errands: &mut JoinSet<Errand<R>>) {
        let running = match mem::replace(&mut self.whereabouts, Whereabouts::Away) {
            Whereabouts::Home(running) => running,
            Whereabouts::Away => return,
        };
        let environment = self.environment.clone();
        match self.then {
            Then::GoOn => {
                let mail = self.mailbox.take();
                if mail.is_empty() {
                    self.whereabouts = Whereabouts::Home(running);
                    return;
                }
                errands.spawn(async move {
                    for input in mail {
                        running.tell(input).await;
                    }
                    Errand::Delivered { environment, running }
                });
            }
            Then::End | Then::Replace(_) => {
                errands.spawn(async move {
                    let next_write_number = running.stop().await;
                    Errand::Stopped { environment, next_write_number }
                });
            }
        }
    }
}
