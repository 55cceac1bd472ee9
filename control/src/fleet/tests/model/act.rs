//! What can happen, when, and how often.

use super::node::{Life, Node};
use super::place::Operation;
use super::state::{ENVIRONMENTS, State, index_of};
use super::*;

/// For how long nothing else happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Span {
    /// Longer than the grace for a lost session.
    Grace,
    /// Longer than a lease, and than a promotion may take; twice it is longer than getting ready may take.
    Lease,
}

/// What users ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    Create,
    Pause,
    Resume,
    Purge,
    /// Overwrite the foreign fence that is shown.
    TakeOver,
}

/// One thing that happens. Workers and environments are named by their place in [`WORKERS`] and [`ENVIRONMENTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Control hears the next of a worker's messages.
    Up(usize),
    /// Control hears the next of what is left of its earlier sessions.
    UpOfOld(usize),
    /// A worker hears the next of control's messages.
    Down(usize),
    /// A worker's operation is carried out and answered.
    Store(usize, usize),
    /// A worker's operation is not answered in time, and may arrive later.
    GiveUp(usize, usize),
    /// An operation whose sender has given it up, or is gone, arrives.
    Late(usize, usize),
    /// The source sends a new version.
    Source(usize),
    Crash(usize),
    Restart(usize),
    RestartWithoutCache(usize),
    Pause(usize),
    Resume(usize),
    Cut(usize),
    Connect(usize),
    Pass(Span),
    Schedule(usize, Scheduling),
    User(usize, Wish),
    RestartControl,
    Flush,
}

/// How often each kind of thing may happen yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Crashes, pauses, cuts, answers that do not come, and the like.
    pub(super) faults: u8,
    /// Users' commands.
    pub(super) wishes: u8,
    /// New versions.
    pub(super) versions: u8,
    /// Spans of time.
    pub(super) spans: u8,
}

impl Act {
    /// How many kinds of things can happen.
    pub(super) const KINDS: usize = 19;
}

impl State {
    /// Everything that can happen now.
    pub(super) fn possible(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            self.possible_at(at, node, &mut acts);
        }
        for (at, name) in ENVIRONMENTS.iter().enumerate() {
            acts.extend((0..self.late[at].len()).map(|late| Act::Late(at, late)));
            if self.budget.versions > 0 {
                acts.push(Act::Source(at));
            }
            if self.budget.wishes > 0 {
                let wishes: &[_] = match self.stored.environments.get(&env(name)) {
                    None => &[Wish::Create],
                    Some(record) if record.removal.is_some() => &[],
                    Some(record) if record.paused => &[Wish::Resume, Wish::Purge],
                    Some(_) => &[Wish::Pause, Wish::Purge],
                };
                acts.extend(wishes.iter().map(|wish| Act::User(at, *wish)));
            }
        }
        if self.budget.spans > 0 {
            acts.extend([Act::Pass(Span::Grace), Act::Pass(Span::Lease)]);
        }
        if self.budget.faults > 0 {
            acts.push(Act::RestartControl);
            if self.places.iter().any(|place| place.fence.is_some()) {
                acts.push(Act::Flush);
            }
        }
        acts
    }

    fn possible_at(&self, at: usize, node: &Node, acts: &mut Vec<Act>) {
        let fails = self.budget.faults > 0;
        if !node.old.is_empty() {
            acts.push(Act::UpOfOld(at));
        }
        if node.line.as_ref().is_some_and(|line| !line.up.is_empty()) {
            acts.push(Act::Up(at));
        }
        for (name, writer) in &node.running {
            let Some(flight) = writer.flight.as_ref().filter(|flight| flight.answer.is_none()) else { continue };
            acts.push(Act::Store(at, index_of(name)));
            // A read that is given up is only read again.
            if fails && node.is_alive() && matches!(flight.operation, Operation::Write { .. }) {
                acts.push(Act::GiveUp(at, index_of(name)));
            }
        }
        match node.life {
            Life::Alive => {
                match &node.line {
                    None => acts.push(Act::Connect(at)),
                    Some(line) => {
                        if !line.down.is_empty() {
                            acts.push(Act::Down(at));
                        }
                        if fails {
                            acts.push(Act::Cut(at));
                        }
                    }
                }
                if fails {
                    acts.extend([Act::Crash(at), Act::Pause(at)]);
                }
            }
            Life::Paused => acts.push(Act::Resume(at)),
            Life::Crashed => acts.extend([Act::Restart(at), Act::RestartWithoutCache(at)]),
        }
        if self.budget.wishes > 0 {
            let present = self.fleet.workers.get(&node.name).map(|worker| worker.scheduling);
            let all = [Scheduling::Active, Scheduling::Cordoned, Scheduling::Draining];
            let others = all.into_iter().filter(|one| present.is_some_and(|present| present != *one));
            acts.extend(others.map(|one| Act::Schedule(at, one)));
        }
    }

    pub(super) fn spend(&mut self, act: Act) {
        let budget = &mut self.budget;
        let spent = match act {
            Act::Source(_) => &mut budget.versions,
            Act::Pass(_) => &mut budget.spans,
            Act::Schedule(..) | Act::User(..) => &mut budget.wishes,
            Act::GiveUp(..) | Act::Crash(_) | Act::Pause(_) | Act::Cut(_) | Act::RestartControl | Act::Flush => {
                &mut budget.faults
            }
            Act::Up(_)
            | Act::UpOfOld(_)
            | Act::Down(_)
            | Act::Store(..)
            | Act::Late(..)
            | Act::Restart(_)
            | Act::RestartWithoutCache(_)
            | Act::Resume(_)
            | Act::Connect(_) => return,
        };
        *spent = spent.saturating_sub(1);
    }
}
