//! When a wait is over. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::v1::{Environment, Initialization};

use super::obstacle::{RotationState, obstacle, rotation_state};
use crate::failure::{ExitStatus, Failure};
use crate::output::text::duration_text;
use crate::watch::Event;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Goal {
    /// Stale or current.
    Initialized,
    /// Current.
    Current,
    /// Gone, or replaced by another of the same name.
    Removed,
    /// The rotation of the SDK key has an outcome.
    KeyRotated,
}

/// How a wait stands.
#[derive(Debug)]
pub enum Outcome {
    /// Not there yet.
    Pending,
    /// Everything has reached the goal.
    Reached,
    /// It cannot be reached.
    Failed(Failure),
}

/// A wait under way.
#[derive(Debug)]
pub struct Progress {
    /// Empty: all environments.
    names: Vec<String>,
    goal: Goal,
    /// What exists, by name. `None`: no snapshot yet.
    seen: Option<BTreeMap<String, Environment>>,
    /// Names that were gone at least once, and the uids that were seen first: for the goal of removal.
    first_uids: BTreeMap<String, String>,
    gone: BTreeSet<String>,
}

impl Progress {
    /// Waits for the named environments; for all when there are no names.
    pub fn new(names: Vec<String>, goal: Goal) -> Self {
        Self { names, goal, seen: None, first_uids: BTreeMap::new(), gone: BTreeSet::new() }
    }

    /// Takes the next event of the watch.
    pub fn receive(&mut self, event: Event) -> Outcome {
        match event {
            Event::Snapshot(environments) => {
                let first = self.seen.is_none();
                let now: BTreeMap<_, _> =
                    environments.into_iter().map(|environment| (environment.name.clone(), environment)).collect();
                if first {
                    self.first_uids = now.values().map(|one| (one.name.clone(), one.uid.clone())).collect();
                }
                let missing = self.first_uids.keys().filter(|name| !now.contains_key(*name));
                self.gone.extend(missing.cloned());
                self.seen = Some(now);
            }
            Event::Changed(environment) => {
                let seen = self.seen.get_or_insert_default();
                seen.insert(environment.name.clone(), *environment);
            }
            Event::Removed { name, .. } => {
                self.seen.get_or_insert_default().remove(&name);
                self.gone.insert(name);
            }
        }
        self.outcome()
    }

    /// The environments as they were last seen.
    pub fn into_environments(self) -> Vec<Environment> {
        self.seen.unwrap_or_default().into_values().collect()
    }

    /// The failure of a wait whose time is over.
    pub fn time_ran_out(&self, control: &str, timeout: Duration) -> Failure {
        let timeout = duration_text(timeout);
        let Some(seen) = &self.seen else {
            return Failure::new(
                ExitStatus::TimedOut,
                format!("time ran out after {timeout}: control at {control} sent no snapshot"),
            );
        };
        let waiting: Vec<String> = seen
            .values()
            .filter(|environment| !self.has_reached(environment))
            .map(|environment| format!("environment/{}: {}", environment.name, obstacle(environment, &self.goal)))
            .collect();
        Failure::new(
            ExitStatus::TimedOut,
            format!("time ran out after {timeout}; still waiting for\n       {}", waiting.join("\n       ")),
        )
    }

    fn outcome(&self) -> Outcome {
        let Some(seen) = &self.seen else {
            return Outcome::Pending;
        };
        if self.goal != Goal::Removed {
            if let Some(name) = self.names.iter().find(|name| !seen.contains_key(*name)) {
                return Outcome::Failed(self.absent(name));
            }
            if let Some(failure) = seen.values().find_map(|environment| self.hopeless(environment)) {
                return Outcome::Failed(failure);
            }
        }
        if seen.values().all(|environment| self.has_reached(environment)) {
            Outcome::Reached
        } else {
            Outcome::Pending
        }
    }

    fn absent(&self, name: &str) -> Failure {
        if self.gone.contains(name) || self.first_uids.contains_key(name) {
            Failure::new(ExitStatus::NotFound, format!("environment/{name} was removed meanwhile"))
        } else {
            Failure::new(ExitStatus::NotFound, format!("there is no environment {name:?}"))
                .hint("see what there is with `flotilla env list`")
        }
    }

    /// Why waiting longer would be in vain.
    fn hopeless(&self, environment: &Environment) -> Option<Failure> {
        let name = &environment.name;
        // Where all were asked for, those that cannot get there were not meant.
        if self.names.is_empty() {
            return None;
        }
        if self.goal == Goal::KeyRotated {
            return match rotation_state(environment) {
                RotationState::Rejected { reason, message } => Some(rejected(name, &reason, &message)),
                RotationState::Pending | RotationState::Done if environment.removing => Some(being_removed(name)),
                RotationState::Pending | RotationState::Done => None,
            };
        }
        if environment.removing {
            return Some(being_removed(name));
        }
        environment.paused.then(|| {
            Failure::new(ExitStatus::Failed, format!("environment/{name} is paused"))
                .hint(format!("resume it with `flotilla env resume {name}`"))
        })
    }

    fn has_reached(&self, environment: &Environment) -> bool {
        let status = environment.status.as_ref();
        let initialization =
            status.map_or(Initialization::Unspecified, flotilla_proto::v1::EnvironmentStatus::initialization);
        let not_meant = self.names.is_empty() && (environment.paused || environment.removing);
        match self.goal {
            Goal::Initialized => {
                not_meant || matches!(initialization, Initialization::Stale | Initialization::Current)
            }
            Goal::Current => not_meant || initialization == Initialization::Current,
            Goal::Removed => {
                self.gone.contains(&environment.name)
                    || self.first_uids.get(&environment.name).is_none_or(|uid| *uid != environment.uid)
            }
            Goal::KeyRotated => rotation_state(environment) == RotationState::Done,
        }
    }
}

fn being_removed(name: &str) -> Failure {
    Failure::new(ExitStatus::Failed, format!("environment/{name} is being removed"))
}

fn rejected(name: &str, reason: &str, message: &str) -> Failure {
    let failure = Failure::new(ExitStatus::Failed, format!("environment/{name}: {message}"));
    if reason == "KeyRejected" {
        failure.hint("copy the key from the environment's settings in LaunchDarkly")
    } else {
        failure.hint("--force replaces the key unproved")
    }
}
