//! One environment: its task, and what it has not been told yet.
//!
//! Telling an environment may take as long as it is busy. So its handle travels with the mail, in a task of its own,
//! and what is posted meanwhile waits here, where newer mail takes the place of older: nothing grows, nobody waits.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::{Answer, Assignment, Question};
use flotilla_proto::{EnvironmentName, GrantId, Timestamp};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::RunningEnvironment;
use super::questions::too_many_questions;
use super::restarts::Restarts;
use crate::environment::{ControlState, EnvironmentInput};

/// How many questions may wait for one environment. Those that find no room are answered so at once.
const QUESTIONS: usize = 32;

/// Something for an environment.
#[derive(Debug)]
pub(super) enum Mail {
    /// Control came or went. Only the newest counts.
    Control(ControlState),
    /// Control's answer about a grant. Void when another grant has come since.
    Confirmed { grant: GrantId, valid: bool },
    /// A question; all count.
    Ask(Ask),
}

/// A question, and where its answer goes.
#[derive(Debug)]
pub(super) struct Ask {
    /// The question.
    pub(super) question: Question,
    /// How long an answer is of use.
    pub(super) deadline: Duration,
    /// Takes the answer.
    pub(super) answer: oneshot::Sender<Answer>,
}

/// What was done away from the supervisor.
#[derive(Debug)]
pub(super) enum Errand<R> {
    /// The mail is delivered.
    Delivered { environment: EnvironmentName, running: R },
    /// The environment has ended.
    Stopped { environment: EnvironmentName },
}

/// One environment; see the module.
#[derive(Debug)]
pub(super) struct Slot<R> {
    environment: EnvironmentName,
    /// What it does, or is about to be told to do.
    assignment: Arc<Assignment>,
    /// Tells its task from an earlier one of the same name.
    run: Run,
    whereabouts: Whereabouts<R>,
    then: Then,
    restarts: Restarts,
    /// What is waited for after its end, before anything follows.
    pause: Duration,
    /// Ends the pause.
    hurry: CancellationToken,
    mailbox: Mailbox,
}

/// The number of a start of an environment in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run(pub(super) u64);

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
    questions: VecDeque<Ask>,
}

impl Mailbox {
    /// Everything, in the order in which it is to be told.
    fn take(&mut self) -> Vec<EnvironmentInput> {
        let Self { control, assigned, confirmed, questions } = mem::take(self);
        let control = control.map(EnvironmentInput::Control);
        let assigned = assigned.map(|assignment| EnvironmentInput::Assigned(Box::new(assignment.as_ref().clone())));
        let confirmed = confirmed.map(|(_, valid)| EnvironmentInput::Confirmed { valid });
        let questions = questions.into_iter().map(|Ask { question, deadline, answer }| EnvironmentInput::Ask {
            question,
            deadline,
            answer,
        });
        control.into_iter().chain(assigned).chain(confirmed).chain(questions).collect()
    }
}

impl<R: RunningEnvironment> Slot<R> {
    /// An environment that has just been started.
    pub(super) fn new(run: Run, assignment: Arc<Assignment>, running: R, restarts: Restarts) -> Self {
        Self {
            environment: assignment.environment.clone(),
            assignment,
            run,
            whereabouts: Whereabouts::Home(running),
            then: Then::GoOn,
            restarts,
            pause: Duration::ZERO,
            hurry: CancellationToken::new(),
            mailbox: Mailbox::default(),
        }
    }

    /// Something to tell.
    pub(super) fn post(&mut self, mail: Mail) {
        match (&self.then, mail) {
            // What follows is started with the present state, and nothing was asked about it yet.
            (Then::End | Then::Replace(_), Mail::Control(_) | Mail::Confirmed { .. } | Mail::Ask(_)) => {}
            (Then::GoOn, Mail::Control(control)) => self.mailbox.control = Some(control),
            (Then::GoOn, Mail::Confirmed { grant, valid }) => self.mailbox.confirmed = Some((grant, valid)),
            (Then::GoOn, Mail::Ask(ask)) => {
                if self.mailbox.questions.len() < QUESTIONS {
                    self.mailbox.questions.push_back(ask);
                } else {
                    // Nobody waits for the answer any more: then it is of no use.
                    let _ = ask.answer.send(too_many_questions());
                }
            }
        }
    }

    /// A new assignment of the same environment.
    pub(super) fn reassign(&mut self, assignment: Arc<Assignment>) {
        match self.then {
            Then::GoOn => {
                self.mailbox.confirmed.take_if(|(grant, _)| *grant != assignment.grant.id);
                self.assignment = Arc::clone(&assignment);
                self.mailbox.assigned = Some(assignment);
            }
            Then::End | Then::Replace(_) => self.then = Then::Replace(assignment),
        }
    }

    /// Another environment of the same name follows.
    pub(super) fn replace(&mut self, assignment: Arc<Assignment>) {
        self.mailbox = Mailbox::default();
        self.restarts = Restarts::default();
        self.hurry.cancel();
        self.then = Then::Replace(assignment);
    }

    /// Nothing follows.
    pub(super) fn end(&mut self) {
        self.mailbox = Mailbox::default();
        self.hurry.cancel();
        self.then = Then::End;
    }

    /// A task has ended unasked: if it is this one's, what it did is started again after the pause returned.
    pub(super) fn failed(&mut self, run: Run, now: Timestamp) -> Option<Duration> {
        match self.then {
            Then::GoOn if self.run == run => {
                self.pause = self.restarts.failed(now);
                self.mailbox = Mailbox::default();
                self.then = Then::Replace(Arc::clone(&self.assignment));
                Some(self.pause)
            }
            Then::GoOn | Then::End | Then::Replace(_) => None,
        }
    }

    /// The handle is back from a delivery.
    pub(super) fn came_back(&mut self, running: R) {
        self.whereabouts = Whereabouts::Home(running);
    }

    /// What is to be started now that this one has ended, and how often it has failed before.
    pub(super) fn successor(self) -> Option<(Arc<Assignment>, Restarts)> {
        match self.then {
            Then::GoOn | Then::End => None,
            Then::Replace(assignment) => Some((assignment, self.restarts)),
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
                let (pause, hurry) = (self.pause, self.hurry.clone());
                errands.spawn(async move {
                    running.stop().await;
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = hurry.cancelled() => {}
                    }
                    Errand::Stopped { environment }
                });
            }
        }
    }
}
