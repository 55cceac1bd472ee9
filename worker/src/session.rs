//! The worker's end of the control session, without I/O: what is assigned here, what control was told, what it is owed.
//!
//! [`Session::step`] takes one [`Input`] and returns [`Effect`]s; time comes in with the input. The shells are `link`
//! (the stream) and `supervisor` (the environments). What a lost session owed, a new one gives: reports and confirms
//! are sent again, and what control does not mention stays.

// What goes in and what comes out.
mod boundary;
// What is assigned here.
mod assignments;
// Grants that environments want confirmed.
mod confirms;
// Status that control has not been told.
mod reports;
// What tests are made of, here and in other modules.
#[cfg(test)]
mod pair_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::time::Duration;

use flotilla_proto::session::{ControlMessage, GoAway, Hello, Update, Welcome, WorkerMessage};
use flotilla_proto::{FleetId, Term, Timestamp, v1};

pub(crate) use self::assignments::check;
use self::assignments::{Assignments, Change};
pub use self::boundary::Ended;
pub(crate) use self::boundary::{CloseReason, Effect, FileSources, Input, Memory, Profile, SessionNumber};
use self::confirms::Confirms;
use self::reports::Reports;
use crate::environment::ControlState;

/// How long control may take to answer a hello.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a new process waits for control before it starts what it had before.
const CACHE_PATIENCE: Duration = Duration::from_secs(2);
/// How often the time of control's last word is written down while nothing else changes.
const CONFIRMATION_SAVE_INTERVAL: Duration = Duration::from_mins(10);
/// The lease that is assumed until control has named one.
const DEFAULT_LEASE: Duration = Duration::from_secs(15);
/// No heartbeat is sent more often, whatever control says.
const SHORTEST_HEARTBEAT_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum Phase {
    Away,
    Greeting { until: Timestamp },
    Live(Live),
}

#[derive(Debug)]
struct Live {
    heartbeat_interval: Duration,
    next_heartbeat: Timestamp,
    last_reply: Timestamp,
}

/// Whether what is left of the last run has been started.
#[derive(Debug)]
enum Cache {
    /// There is something, and control is given until then to say better.
    Waiting { until: Timestamp },
    /// It runs, or there was nothing.
    Spent,
}

/// Whether this worker is about to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    /// It is not.
    No,
    /// Its environments may move first.
    MovesAwaited { deadline: Duration },
    /// Nobody can take what is left of them.
    NothingMoves { deadline: Duration },
}

/// The worker's end of the session, over all reconnects.
#[derive(Debug)]
pub(crate) struct Session {
    profile: Profile,
    fleet: Option<FleetId>,
    highest_term: Term,
    lease: Duration,
    last_confirmed: Timestamp,
    last_saved_confirmation: Timestamp,
    phase: Phase,
    number: SessionNumber,
    cache: Cache,
    leaving: Leaving,
    assignments: Assignments,
    unusable: Vec<v1::Assignment>,
    confirms: Confirms,
    reports: Reports,
}

impl Session {
    /// A session of a process that has just started, with what the last one left.
    pub(crate) fn new(profile: Profile, memory: Option<Memory>, now: Timestamp) -> Self {
        let (fleet, highest_term, lease, last_confirmed, cached, unusable) = match memory {
            Some(Memory { fleet, highest_term, lease, last_confirmed, assignments, unusable }) => {
                (Some(fleet), highest_term, lease, last_confirmed, assignments, unusable)
            }
            None => (None, Term::default(), DEFAULT_LEASE, Timestamp::default(), Vec::new(), Vec::new()),
        };
        Self {
            profile,
            cache: if fleet.is_some() { Cache::Waiting { until: now.after(CACHE_PATIENCE) } } else { Cache::Spent },
            fleet,
            highest_term,
            lease,
            last_confirmed,
            last_saved_confirmation: last_confirmed,
            phase: Phase::Away,
            number: SessionNumber::default(),
            leaving: Leaving::No,
            assignments: Assignments::from_cache(cached),
            unusable,
            confirms: Confirms::default(),
            reports: Reports::default(),
        }
    }

    /// Takes one input at the time `now`, which never goes back.
    pub(crate) fn step(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        let mut effects = Vec::new();
        match input {
            Input::Opened => self.greet(now, &mut effects),
            Input::Closed => self.lose(&mut effects),
            Input::NameTaken(message) => self.refused(message, &mut effects),
            Input::Received(message) => self.receive(now, message, &mut effects),
            Input::Reported(report) => {
                if self.assignments.is_running(&report.environment, &report.uid) {
                    self.reports.take(now, *report);
                }
            }
            Input::Failed { environment, pause } => self.reports.failed(now, &environment, pause),
            Input::ConfirmWanted(held) => {
                if self.assignments.holds(&held.environment, &held.grant.id) {
                    self.confirms.want(held);
                }
            }
            Input::CannotStart(environment) => {
                self.assignments.forget(&environment);
                self.save(&mut effects);
            }
            Input::Answered { asked_by, id, answer } => {
                if self.is_live() && asked_by == self.number {
                    effects.push(Effect::Send(WorkerMessage::Reply { id, answer }));
                }
            }
            Input::Leave { deadline } => {
                self.leaving = Leaving::MovesAwaited { deadline };
                if self.is_live() {
                    effects.push(Effect::Send(WorkerMessage::Draining { deadline }));
                }
            }
            Input::Left => {
                if self.is_live() {
                    effects.push(Effect::Send(WorkerMessage::Goodbye));
                }
                self.phase = Phase::Away;
            }
            Input::TimePassed => {}
        }
        self.look_at_the_clock(now, &mut effects);
        self.send_what_is_owed(now, &mut effects);
        effects
    }

    /// When [`Input::TimePassed`] is due.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        let cache = match self.cache {
            Cache::Waiting { until } => Some(until),
            Cache::Spent => None,
        };
        let phase = match &self.phase {
            Phase::Away => None,
            Phase::Greeting { until } => Some(*until),
            Phase::Live(live) => {
                let own = live.next_heartbeat.min(live.last_reply.after(self.lease));
                Some(self.reports.next_due().map_or(own, |due| due.min(own)))
            }
        };
        cache.into_iter().chain(phase).min()
    }

    /// What environments are told about control.
    pub(crate) fn control_state(&self, now: Timestamp) -> ControlState {
        let connected = self.is_live();
        ControlState {
            connected,
            lease: self.lease,
            confirmed_at: if connected { now } else { self.last_confirmed },
        }
    }

    /// What a later process needs; `None` before the first welcome.
    pub(crate) fn memory(&self) -> Option<Memory> {
        Some(Memory {
            fleet: self.fleet.clone()?,
            highest_term: self.highest_term,
            lease: self.lease,
            last_confirmed: self.last_confirmed,
            assignments: self.assignments.all(),
            unusable: self.unusable.clone(),
        })
    }

    /// The fleet, once it is known.
    pub(crate) fn fleet(&self) -> Option<&FleetId> {
        self.fleet.as_ref()
    }

    /// Whether control has accepted the present stream.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    /// Whether control has accepted any stream of this process.
    pub(crate) fn was_live(&self) -> bool {
        self.number != SessionNumber::default()
    }

    /// How many environments are assigned here.
    pub(crate) fn assigned(&self) -> usize {
        self.assignments.len()
    }

    /// Whether a worker that wants to leave still has something to wait for: control moves what it holds to others.
    pub(crate) fn awaits_moves(&self) -> bool {
        let may_move = match self.leaving {
            Leaving::MovesAwaited { .. } => true,
            Leaving::No | Leaving::NothingMoves { .. } => false,
        };
        may_move && self.is_live() && self.assigned() > 0
    }

    fn greet(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.phase = Phase::Greeting { until: now.after(WELCOME_TIMEOUT) };
        effects.push(Effect::Send(WorkerMessage::Hello(Hello {
            worker: self.profile.worker.clone(),
            incarnation: self.profile.incarnation.clone(),
            version: self.profile.version.clone(),
            capacity: self.profile.capacity,
            labels: self.profile.labels.clone(),
            held: self.assignments.held(),
            highest_term: self.highest_term,
            fleet: self.fleet.clone(),
        })));
    }

    fn lose(&mut self, effects: &mut Vec<Effect>) {
        let was_live = self.is_live();
        self.phase = Phase::Away;
        self.confirms.session_lost();
        self.reports.session_lost();
        if was_live {
            self.save(effects);
            effects.push(Effect::TellControlState);
        }
    }

    fn close(&mut self, reason: CloseReason, effects: &mut Vec<Effect>) {
        effects.push(Effect::Close(reason));
        self.lose(effects);
    }

    fn refused(&mut self, message: String, effects: &mut Vec<Effect>) {
        self.lose(effects);
        // Later in a process's life it is a name that was lost for a while, and may come back.
        if !self.was_live() {
            let worker = self.profile.worker.clone();
            effects.push(Effect::End(Ended::NameTaken { worker, message }));
        }
    }

    fn receive(&mut self, now: Timestamp, message: ControlMessage, effects: &mut Vec<Effect>) {
        let live = match (&mut self.phase, message) {
            // What was on its way when the stream was given up.
            (
                Phase::Away,
                ControlMessage::Welcome(_)
                | ControlMessage::Update(_)
                | ControlMessage::InitialStateComplete
                | ControlMessage::Confirmed { .. }
                | ControlMessage::HeartbeatReply
                | ControlMessage::NothingMoves
                | ControlMessage::Request { .. }
                | ControlMessage::GoAway { .. },
            ) => return,
            (Phase::Greeting { .. } | Phase::Live(_), ControlMessage::GoAway { reason, message }) => {
                return self.go_away(reason, message, effects);
            }
            (Phase::Greeting { .. }, ControlMessage::Welcome(welcome)) => {
                return self.welcome(now, welcome, effects);
            }
            (
                Phase::Greeting { .. },
                ControlMessage::Update(_)
                | ControlMessage::InitialStateComplete
                | ControlMessage::Confirmed { .. }
                | ControlMessage::HeartbeatReply
                | ControlMessage::NothingMoves
                | ControlMessage::Request { .. },
            ) => return self.close(CloseReason::Protocol("a message before the welcome"), effects),
            (Phase::Live(live), message) => (live, message),
        };
        match live {
            (_, ControlMessage::Welcome(_)) => {
                self.close(CloseReason::Protocol("a second welcome"), effects);
            }
            (_, ControlMessage::Update(update)) => self.update(update, effects),
            (_, ControlMessage::InitialStateComplete) => {
                self.last_confirmed = now;
                self.unusable.clear();
                self.start_cached(effects);
                self.save(effects);
            }
            (_, ControlMessage::Confirmed { id, grants }) => {
                self.last_confirmed = now;
                effects.extend(self.confirms.answered(id, &grants));
            }
            (live, ControlMessage::HeartbeatReply) => {
                live.last_reply = now;
                self.last_confirmed = now;
                if now.since(self.last_saved_confirmation) >= CONFIRMATION_SAVE_INTERVAL {
                    self.save(effects);
                }
            }
            (_, ControlMessage::NothingMoves) => match self.leaving {
                Leaving::MovesAwaited { deadline } => self.leaving = Leaving::NothingMoves { deadline },
                Leaving::No | Leaving::NothingMoves { .. } => {}
            },
            (_, ControlMessage::Request { id, deadline, question }) => {
                effects.push(Effect::Ask { asked_by: self.number, id, deadline, question });
            }
            (_, ControlMessage::GoAway { reason, message }) => self.go_away(reason, message, effects),
        }
    }

    fn go_away(&mut self, reason: GoAway, message: String, effects: &mut Vec<Effect>) {
        match reason {
            GoAway::Superseded => {
                self.lose(effects);
                effects.push(Effect::End(Ended::Superseded { message }));
            }
            GoAway::ShuttingDown | GoAway::LeaseExpired | GoAway::ProtocolError | GoAway::WrongFleet => {
                self.close(CloseReason::GoAway { reason, message }, effects);
            }
        }
    }

    fn welcome(&mut self, now: Timestamp, welcome: Welcome, effects: &mut Vec<Effect>) {
        if let Some(expected) = self.fleet.as_ref().filter(|fleet| **fleet != welcome.fleet) {
            let expected = expected.clone();
            return self.close(CloseReason::AnotherFleet { expected, found: welcome.fleet }, effects);
        }
        let heartbeat_interval = welcome.heartbeat_interval.max(SHORTEST_HEARTBEAT_INTERVAL);
        self.fleet = Some(welcome.fleet);
        self.highest_term = self.highest_term.max(welcome.term);
        self.lease = welcome.lease_duration.max(heartbeat_interval);
        self.number = self.number.next();
        self.phase = Phase::Live(Live {
            heartbeat_interval,
            next_heartbeat: now.after(heartbeat_interval),
            last_reply: now,
        });
        self.reports.session_begun(now);
        match self.leaving {
            Leaving::No => {}
            Leaving::MovesAwaited { deadline } | Leaving::NothingMoves { deadline } => {
                effects.push(Effect::Send(WorkerMessage::Draining { deadline }));
            }
        }
        effects.push(Effect::TellControlState);
        self.save(effects);
    }

    fn update(&mut self, update: Update, effects: &mut Vec<Effect>) {
        let mut rejections = Vec::new();
        let mut changed = false;
        for removal in &update.removals {
            let change = self.assignments.remove(removal);
            changed |= self.apply(change, effects);
        }
        for assignment in update.assignments {
            let checked = assignment.and_then(|assignment| {
                check(&assignment, self.profile.file_sources)?;
                Ok(assignment)
            });
            match checked {
                Ok(assignment) => {
                    let change = self.assignments.assign(assignment);
                    changed |= self.apply(change, effects);
                }
                Err(rejection) => rejections.push(rejection),
            }
        }
        if changed {
            self.save(effects);
        }
        effects.push(Effect::AnswerUpdate { nonce: update.nonce, rejections });
    }

    /// Returns whether anything changed.
    fn apply(&mut self, change: Change, effects: &mut Vec<Effect>) -> bool {
        match change {
            Change::Nothing => return false,
            Change::Start(assignment) => {
                self.confirms.forget(&assignment.environment);
                self.reports.forget(&assignment.environment);
                effects.push(Effect::Start(assignment));
            }
            Change::Reassign(assignment) => {
                self.confirms.keep_only(&assignment.environment, &assignment.grant.id);
                effects.push(Effect::Reassign(assignment));
            }
            Change::Stop(environment) => {
                self.confirms.forget(&environment);
                self.reports.forget(&environment);
                effects.push(Effect::Stop(environment));
            }
            Change::Forget => {}
        }
        true
    }

    fn start_cached(&mut self, effects: &mut Vec<Effect>) {
        self.cache = Cache::Spent;
        for change in self.assignments.start_waiting() {
            self.apply(change, effects);
        }
    }

    fn save(&mut self, effects: &mut Vec<Effect>) {
        self.last_saved_confirmation = self.last_confirmed;
        effects.push(Effect::Save);
    }

    fn look_at_the_clock(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        match self.cache {
            Cache::Waiting { until } if until <= now => self.start_cached(effects),
            Cache::Waiting { .. } | Cache::Spent => {}
        }
        match &mut self.phase {
            Phase::Greeting { until } if *until <= now => self.close(CloseReason::NoWelcome, effects),
            Phase::Live(live) if live.last_reply.after(self.lease) <= now => {
                self.close(CloseReason::NoHeartbeatReply, effects);
            }
            Phase::Live(live) if live.next_heartbeat <= now => {
                live.next_heartbeat = now.after(live.heartbeat_interval);
                effects.push(Effect::Send(WorkerMessage::Heartbeat));
            }
            Phase::Away | Phase::Greeting { .. } | Phase::Live(_) => {}
        }
    }

    fn send_what_is_owed(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        if !self.is_live() {
            return;
        }
        effects.extend(self.confirms.next().map(Effect::Send));
        effects.extend(self.reports.next(now).map(Effect::Send));
    }
}
