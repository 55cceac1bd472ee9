//! Many environments at once: what is not there is created, what differs is changed, what is not named may go.
//!
//! One step does it all, so that it is durable in one transaction; each environment is decided by itself, after those
//! before it. A dry run is the same on a copy of the fleet.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::manifest::MANAGED_BY;
use flotilla_proto::spec::FieldDifference;
use flotilla_proto::{
    EnvironmentName, EnvironmentSpec, ManagerName, Reason, Refusal, SdkKeySource, StoreName, StoreUrl, Uid, v1,
};
use v1::ApplyOutcome as Outcome;

use super::boundary::{Change, Claim, CommandId, EnvironmentRecord, Proof, RemovalRequest, Reply, RequestId};
use super::boundary::{SpecChange, Subject};
use super::environment::Environment;
use super::mutation::{Decision, check_not_removing, moves_upstream};
use super::stores::some_of;
use super::{Answer, Fleet, refuse, request};

/// A prune may remove so many environments without more ado, unless that is all of them,
const PRUNED_AT_WILL: usize = 5;
/// and more of them up to one in so many.
const PRUNED_ONE_IN: usize = 5;

/// What many environments shall be. Entries that were wrong from the start come with their refusal.
#[derive(Debug)]
pub(crate) struct Batch {
    /// What environments shall be.
    pub(crate) entries: Vec<BatchEntry>,
    /// Stores that shall be there before.
    pub(crate) stores: Vec<BatchStore>,
    /// What to remove.
    pub(crate) prune: Option<Prune>,
    /// Makes a retry safe: the id, and a digest of the whole request.
    pub(crate) request: Option<RequestId>,
    /// Check everything, change nothing.
    pub(crate) validate_only: bool,
}

/// What one environment shall be.
#[derive(Debug)]
pub(crate) struct BatchEntry {
    /// The name as it was given.
    pub(crate) name: String,
    /// What it shall be, or what is wrong with that.
    pub(crate) wanted: Result<Box<Wanted>, Refusal>,
}

/// What one environment shall be.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// Its name.
    pub(crate) name: EnvironmentName,
    /// For one that is created.
    pub(crate) uid: Uid,
    /// All that users say of it.
    pub(crate) spec: EnvironmentSpec,
    /// Its key; `None`: the one that is there.
    pub(crate) sdk_key: Option<SdkKeySource>,
    /// For one that is created.
    pub(crate) claim: Claim,
}

/// What one store shall be.
#[derive(Debug)]
pub(crate) struct BatchStore {
    /// The name as it was given.
    pub(crate) name: String,
    /// What it shall be, or what is wrong with that.
    pub(crate) wanted: Result<(StoreName, Box<StoreUrl>), Refusal>,
}

/// Which environments to remove.
#[derive(Debug)]
pub(crate) struct Prune {
    /// Those that carry this value of the label `managed-by` and are not named.
    pub(crate) managed_by: ManagerName,
    /// How many of them.
    pub(crate) radius: BlastRadius,
}

/// How many environments may be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlastRadius {
    /// Few.
    Limited,
    /// All.
    Accepted,
}

/// What an entry comes to.
struct Decided {
    decision: Decision,
    outcome: Outcome,
    changes: Vec<FieldDifference>,
    /// For the log.
    action: &'static str,
}

impl Fleet {
    /// Carries a batch out, or says why nothing of it was.
    pub(super) fn apply(&mut self, command: CommandId, batch: Batch) {
        let is_replay = match self.replayed(batch.request.as_ref()) {
            Ok(before) => before.is_some(),
            Err(refusal) => return self.reply(command, Err(refusal)),
        };
        if batch.validate_only || is_replay {
            let mut trial = self.clone();
            let result = if is_replay {
                // What was done once is not done again: what is shown is what there is.
                trial.carry_out_batch(Batch { prune: None, ..batch }).map(|applied| self.show_applied(applied))
            } else {
                trial.carry_out_batch(batch).map(|applied| trial.show_applied(applied))
            };
            return self.reply(command, result.map(|applied| Reply::Applied(Box::new(applied))));
        }
        if batch.request.is_some() && self.requests.is_full() {
            return self.reply(command, refuse(Reason::TooManyRequestIds, request::FULL));
        }
        let request = batch.request.clone();
        let applied = match self.carry_out_batch(batch) {
            Ok(applied) => applied,
            Err(refusal) => return self.reply(command, Err(refusal)),
        };
        if let Some(request) = request {
            self.requests.answered(self.now, request.clone(), Subject::Batch);
            self.gathered.changes.push(Change::PutRequest { request, subject: Subject::Batch, at: self.now });
        }
        self.gathered.replies.push((command, Answer::Applied(Box::new(applied))));
    }

    /// The answer, with the environments as they are now.
    pub(super) fn show_applied(
        &self,
        mut applied: v1::BatchApplyEnvironmentsResponse,
    ) -> v1::BatchApplyEnvironmentsResponse {
        for result in &mut applied.results {
            let name: Option<EnvironmentName> = result.name.parse().ok();
            result.environment = name.and_then(|name| self.environment(&name));
        }
        applied
    }

    fn carry_out_batch(&mut self, batch: Batch) -> Result<v1::BatchApplyEnvironmentsResponse, Refusal> {
        let doomed = match &batch.prune {
            Some(prune) => self.doomed(prune, &batch.entries)?,
            None => Vec::new(),
        };
        let mut unusable = BTreeMap::new();
        let stores = batch.stores.into_iter().map(|store| self.apply_store(store, &mut unusable)).collect();
        // First, for a prefix that was never granted is free at once.
        let removed: Vec<_> = doomed.iter().map(|name| self.prune(name)).collect();
        let entries = batch.entries.into_iter();
        let mut results: Vec<_> = entries.map(|entry| self.apply_entry(entry, &unusable)).collect();
        results.extend(removed);
        Ok(v1::BatchApplyEnvironmentsResponse { results, stores })
    }

    fn apply_entry(&mut self, entry: BatchEntry, unusable: &BTreeMap<StoreName, Refusal>) -> v1::EnvironmentResult {
        let decide = |wanted: Box<Wanted>| {
            if let Some(refusal) = unusable.get(&wanted.spec.store) {
                return Err(refusal.clone());
            }
            let name = wanted.name.clone();
            self.decide_wanted(*wanted).map(|decided| (name, decided))
        };
        let mut result = v1::EnvironmentResult { name: entry.name, ..Default::default() };
        match entry.wanted.and_then(decide) {
            Ok((name, decided)) => {
                result.set_outcome(decided.outcome);
                let changes = decided.changes.into_iter();
                result.changes = changes
                    .map(|FieldDifference { path, before, after }| v1::FieldChange { path, before, after })
                    .collect();
                self.carry_out(&name, decided.decision, decided.action);
            }
            Err(refusal) => {
                result.set_outcome(Outcome::Failed);
                result.error = Some(error_of(refusal));
            }
        }
        result
    }

    fn decide_wanted(&self, wanted: Wanted) -> Result<Decided, Refusal> {
        let Wanted { name, uid, spec, sdk_key, claim } = wanted;
        let Some(present) = self.environments.get(&name) else {
            let mut changes = spec.differences_from(None);
            changes.extend(key_difference(None, sdk_key.as_ref()));
            let decision = self.decide_create(&name, uid, spec, sdk_key, claim)?;
            return Ok(Decided { decision, outcome: Outcome::Created, changes, action: "create" });
        };
        let before = &present.record;
        let mut changes = spec.differences_from(Some(&before.spec));
        let action = if changes.is_empty() { "rotate" } else { "update" };
        let decision = self.decide_change(present, spec, sdk_key)?;
        if let Decision::Put(after) = &decision {
            changes.extend(key_difference(wanted_key(before), wanted_key(after)));
        }
        let outcome = if changes.is_empty() { Outcome::Unchanged } else { Outcome::Updated };
        Ok(Decided { decision, outcome, changes, action })
    }

    /// An update and a rotation in one. A key that is given goes with a new address, as in an update; else it is rotated
    /// to.
    fn decide_change(
        &self,
        present: &Environment,
        spec: EnvironmentSpec,
        sdk_key: Option<SdkKeySource>,
    ) -> Result<Decision, Refusal> {
        check_not_removing(present)?;
        let before = &present.record;
        let goes_with_spec = spec.is_file() || before.sdk_key.is_none() || moves_upstream(&before.spec, &spec);
        let (with_spec, to_rotate) = if goes_with_spec { (sdk_key, None) } else { (None, sdk_key) };
        let updated = self.decide_update(present, SpecChange(Box::new(move |_| Ok(spec))), with_spec)?;
        let Some(key) = to_rotate else { return Ok(updated) };
        let rotated = match &updated {
            Decision::Put(record) => {
                let candidate = Environment { record: (**record).clone(), ..present.clone() };
                self.decide_rotate(&candidate, key, Proof::Required)?
            }
            Decision::Unchanged | Decision::End => self.decide_rotate(present, key, Proof::Required)?,
        };
        Ok(match rotated {
            Decision::Unchanged => updated,
            Decision::Put(_) | Decision::End => rotated,
        })
    }

    /// The environments that a prune removes, if they are not too many.
    fn doomed(&self, prune: &Prune, entries: &[BatchEntry]) -> Result<Vec<EnvironmentName>, Refusal> {
        let kept: BTreeSet<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        let manager = prune.managed_by.as_str();
        let has_label = |environment: &&Environment| {
            let record = &environment.record;
            record.removal.is_none() && record.spec.labels.get(MANAGED_BY).map(String::as_str) == Some(manager)
        };
        let carriers: Vec<_> = self.environments.values().filter(has_label).map(|one| &one.record.name).collect();
        let doomed: Vec<_> = carriers.iter().copied().filter(|name| !kept.contains(name.as_str())).collect();
        let (going, all) = (doomed.len(), carriers.len());
        let is_much = going > 0 && (going == all || (going > PRUNED_AT_WILL && going * PRUNED_ONE_IN > all));
        if is_much && prune.radius == BlastRadius::Limited {
            return refuse(
                Reason::BlastRadius,
                format!(
                    "prune would remove {going} of the {all} environments that carry {MANAGED_BY}={manager}: {}; nothing was applied",
                    some_of(&doomed)
                ),
            );
        }
        Ok(doomed.into_iter().cloned().collect())
    }

    fn prune(&mut self, name: &EnvironmentName) -> v1::EnvironmentResult {
        if let Some(environment) = self.environments.get(name) {
            let decision = self.decide_delete(environment, RemovalRequest::Release);
            self.carry_out(name, decision, "delete");
        }
        let mut result = v1::EnvironmentResult { name: name.to_string(), ..Default::default() };
        result.set_outcome(Outcome::Removed);
        result
    }

    fn apply_store(&mut self, entry: BatchStore, unusable: &mut BTreeMap<StoreName, Refusal>) -> v1::StoreResult {
        let mut result = v1::StoreResult { name: entry.name, ..Default::default() };
        let outcome = entry.wanted.and_then(|(name, url)| self.add_store_if_missing(&name, url));
        match outcome {
            Ok(outcome) => result.set_outcome(outcome),
            Err(refusal) => {
                unusable.extend(result.name.parse().ok().map(|name: StoreName| (name, refusal.clone())));
                result.set_outcome(Outcome::Failed);
                result.error = Some(error_of(refusal));
            }
        }
        result
    }
}

/// The key that a user wants: the one to be proved, or the one in force.
fn wanted_key(record: &EnvironmentRecord) -> Option<&SdkKeySource> {
    record.pending_key.as_ref().or(record.sdk_key.as_ref())
}

fn key_difference(before: Option<&SdkKeySource>, after: Option<&SdkKeySource>) -> Option<FieldDifference> {
    let masked = |key: Option<&SdkKeySource>| key.map(SdkKeySource::masked);
    let difference = FieldDifference { path: "sdkKey".to_owned(), before: masked(before), after: masked(after) };
    (before != after).then_some(difference)
}

fn error_of(refusal: Refusal) -> v1::ApplyError {
    v1::ApplyError {
        code: refusal.reason.code().into(),
        reason: refusal.reason.as_str().to_owned(),
        field: refusal.violations.into_iter().next().map(|violation| violation.field).unwrap_or_default(),
        message: refusal.message,
    }
}
