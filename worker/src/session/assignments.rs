//! What is assigned to this worker, and what a change of it means for the environments that run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flotilla_proto::session::{Assignment, Rejection, Removal};
use flotilla_proto::{EnvironmentName, GrantId, HeldGrant, Intent, Source, Uid};

use super::FileSources;

/// Everything that is assigned here, by name.
#[derive(Debug, Default)]
pub(super) struct Assignments {
    by_name: BTreeMap<EnvironmentName, Arc<Assignment>>,
    /// Those of an earlier process that do not run yet.
    waiting: BTreeSet<EnvironmentName>,
}

/// What an update means for one environment.
#[derive(Debug)]
pub(super) enum Change {
    /// It is as it was.
    Nothing,
    /// It is to run; another one of that name ends.
    Start(Arc<Assignment>),
    /// It runs, and is told.
    Reassign(Arc<Assignment>),
    /// It is to end.
    Stop(EnvironmentName),
    /// It never ran, and never will.
    Forget,
}

/// Whether this worker can carry the assignment out; if not, why.
pub(crate) fn check(assignment: &Assignment, files: FileSources) -> Result<(), Rejection> {
    let reject = |message: &str| {
        Err(Rejection {
            environment: assignment.environment.to_string(),
            uid: assignment.uid.to_string(),
            generation: assignment.generation,
            message: message.to_owned(),
        })
    };
    match assignment.grant.intent {
        Intent::Warm | Intent::Serve => {}
        // Nothing is read for them.
        Intent::Release | Intent::Purge => return Ok(()),
    }
    match (&assignment.spec.source, files) {
        (Source::File { .. }, FileSources::Available) => Ok(()),
        (Source::File { .. }, FileSources::Unavailable) => {
            reject("the source is a file, and this worker was started without --file-source-dir")
        }
        (Source::Stream { .. } | Source::Poll { .. }, FileSources::Available | FileSources::Unavailable) => {
            if assignment.sdk_key.is_none() {
                return reject("the assignment has no SDK key");
            }
            if assignment.spec.stream_uri.is_none() || assignment.spec.base_uri.is_none() {
                return reject("the assignment does not say where LaunchDarkly is");
            }
            Ok(())
        }
    }
}

impl Assignments {
    /// What an earlier process held; it waits for [`Self::start_waiting`].
    pub(super) fn from_cache(assignments: Vec<Arc<Assignment>>) -> Self {
        let by_name: BTreeMap<_, _> =
            assignments.into_iter().map(|assignment| (assignment.environment.clone(), assignment)).collect();
        let waiting = by_name.keys().cloned().collect();
        Self { by_name, waiting }
    }

    /// A new or changed assignment.
    pub(super) fn assign(&mut self, assignment: Assignment) -> Change {
        let assignment = Arc::new(assignment);
        let name = assignment.environment.clone();
        let was_waiting = self.waiting.remove(&name);
        match self.by_name.insert(name, Arc::clone(&assignment)) {
            Some(before) if !was_waiting && before == assignment => Change::Nothing,
            Some(before) if !was_waiting && before.uid == assignment.uid => Change::Reassign(assignment),
            Some(_) | None => Change::Start(assignment),
        }
    }

    /// A removal; one of another uid is about an environment that is gone already.
    pub(super) fn remove(&mut self, removal: &Removal) -> Change {
        if self.by_name.get(&removal.environment).is_none_or(|held| held.uid != removal.uid) {
            return Change::Nothing;
        }
        self.by_name.remove(&removal.environment);
        if self.waiting.remove(&removal.environment) {
            Change::Forget
        } else {
            Change::Stop(removal.environment.clone())
        }
    }

    /// It cannot be carried out here.
    pub(super) fn forget(&mut self, environment: &EnvironmentName) {
        self.by_name.remove(environment);
        self.waiting.remove(environment);
    }

    /// Starts what an earlier process held and nobody has taken away.
    pub(super) fn start_waiting(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.waiting)
            .iter()
            .filter_map(|name| self.by_name.get(name))
            .map(|assignment| Change::Start(Arc::clone(assignment)))
            .collect()
    }

    /// Whether that environment runs here.
    pub(super) fn is_running(&self, environment: &EnvironmentName, uid: &Uid) -> bool {
        self.by_name.get(environment).is_some_and(|held| held.uid == *uid) && !self.waiting.contains(environment)
    }

    /// Whether the environment's present grant is that one.
    pub(super) fn holds(&self, environment: &EnvironmentName, grant: &GrantId) -> bool {
        self.by_name.get(environment).is_some_and(|held| held.grant.id == *grant)
    }

    /// All grants, for a hello.
    pub(super) fn held(&self) -> Vec<HeldGrant> {
        self.by_name
            .values()
            .map(|held| HeldGrant {
                environment: held.environment.clone(),
                uid: held.uid.clone(),
                generation: held.generation,
                grant: held.grant.clone(),
            })
            .collect()
    }

    /// All assignments, ordered by name.
    pub(super) fn all(&self) -> Vec<Arc<Assignment>> {
        self.by_name.values().cloned().collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_name.len()
    }
}
