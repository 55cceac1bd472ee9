//! When a wait is over. No I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::client::Event;
use flotilla_proto::v1::{Environment, Initialization};

use super::obstacle::{RotationState, obstacle, rotation_state};
use crate::arguments::WaitGoal;
use crate::failure::{ExitStatus, Failure};
use flotilla_proto::time::duration_text;

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Stale or current.
    Initialized,
    /// Current.
    Current,
    /// Gone, or replaced by another of the same name.
    Removed {
        /// The uids that go, by name. Of a name that is not here, the one that is seen first goes.
        uids: BTreeMap<String, String>,
    },
    /// The new SDK key is in force.
    KeyRotated {
        /// The environment's generation when the rotation began; putting the new key in force makes it grow.
        begun_at: u64,
    },
}

impl From<WaitGoal> for Goal {
    fn from(goal: WaitGoal) -> Self {
        match goal {
            WaitGoal::Initialized => Self::Initialized,
            WaitGoal::Current => Self::Current,
            WaitGoal::Removed => Self::Removed { uids: BTreeMap::new() },
        }
    }
}

/// What a wait that has reached its goal was about.
#[derive(Debug)]
pub(crate) struct Waited {
    /// Those that reached it, ordered by name.
    pub(crate) names: Vec<String>,
    /// What there is, ordered by name; also those that `--all` did not mean.
    pub(crate) environments: Vec<Environment>,
}

/// How a wait stands.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Not there yet.
    Pending,
    /// Everything has reached the goal.
    Reached,
    /// It cannot be reached.
    Failed(Failure),
}

/// A wait under way.
#[derive(Debug)]
pub(crate) struct Progress {
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
    pub(crate) fn new(names: Vec<String>, goal: Goal) -> Self {
        let first_uids = match &goal {
            Goal::Removed { uids } => uids.clone(),
            Goal::Initialized | Goal::Current | Goal::KeyRotated { .. } => BTreeMap::new(),
        };
        Self { names, goal, seen: None, first_uids, gone: BTreeSet::new() }
    }

    /// Takes the next event of the watch.
    pub(crate) fn receive(&mut self, event: Event) -> Outcome {
        match event {
            Event::Snapshot(environments) => {
                let first = self.seen.is_none();
                let now: BTreeMap<_, _> =
                    environments.into_iter().map(|environment| (environment.name.clone(), environment)).collect();
                if first {
                    for one in now.values() {
                        self.first_uids.entry(one.name.clone()).or_insert_with(|| one.uid.clone());
                    }
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

    /// What a wait that has reached its goal was about.
    pub(crate) fn finish(self) -> Waited {
        let seen = self.seen.unwrap_or_default();
        let names = match &self.goal {
            _ if !self.names.is_empty() => self.names,
            Goal::Removed { .. } => self.first_uids.into_keys().collect(),
            Goal::Initialized | Goal::Current | Goal::KeyRotated { .. } => {
                seen.values().filter(|one| !is_set_aside(one)).map(|one| one.name.clone()).collect()
            }
        };
        Waited { names, environments: seen.into_values().collect() }
    }

    /// The failure of a wait whose time is over.
    pub(crate) fn time_ran_out(&self, control: &str, timeout: Duration) -> Failure {
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
        if !matches!(self.goal, Goal::Removed { .. }) {
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
        if let Goal::KeyRotated { begun_at } = self.goal {
            return match rotation_state(environment) {
                RotationState::Replaced => None,
                RotationState::Rejected { reason, message } => Some(rejected(name, &reason, &message)),
                RotationState::Pending | RotationState::Absent if environment.removing => Some(being_removed(name)),
                RotationState::Pending => environment.paused.then(|| waits_for_resumption(name)),
                RotationState::Absent => (environment.generation <= begun_at).then(|| called_off(name)),
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
        let not_meant = self.names.is_empty() && is_set_aside(environment);
        match &self.goal {
            Goal::Initialized => {
                not_meant || matches!(initialization, Initialization::Stale | Initialization::Current)
            }
            Goal::Current => not_meant || initialization == Initialization::Current,
            Goal::Removed { .. } => {
                self.gone.contains(&environment.name)
                    || self.first_uids.get(&environment.name).is_none_or(|uid| *uid != environment.uid)
            }
            Goal::KeyRotated { begun_at } => match rotation_state(environment) {
                RotationState::Replaced => true,
                // A control that was started since says nothing of what it has carried out.
                RotationState::Absent => environment.generation > *begun_at,
                RotationState::Pending | RotationState::Rejected { .. } => false,
            },
        }
    }
}

/// Paused or going: not meant where all were asked for.
fn is_set_aside(environment: &Environment) -> bool {
    environment.paused || environment.removing
}

fn waits_for_resumption(name: &str) -> Failure {
    Failure::new(
        ExitStatus::Failed,
        format!("environment/{name} is paused: the new key is kept and tried when the environment is resumed"),
    )
    .hint(format!("resume it with `flotilla env resume {name}`"))
}

fn called_off(name: &str) -> Failure {
    Failure::new(
        ExitStatus::Failed,
        format!("environment/{name}: the rotation was called off; the SDK key is the one from before"),
    )
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
