//! What was applied, or would be.

use flotilla_proto::manifest::key_of;
use flotilla_proto::v1::{
    ApplyError, ApplyOutcome, BatchApplyEnvironmentsResponse, EnvironmentResult, FieldChange, StoreResult,
};
use serde::Serialize;

use crate::environment::Run;

/// `plan` and `apply`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AppliedDocument {
    dry_run: bool,
    stores: Vec<AppliedStore>,
    environments: Vec<AppliedEnvironment>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct AppliedStore {
    name: String,
    outcome: &'static str,
    error: Option<AppliedError>,
}

#[derive(Debug, Serialize)]
struct AppliedEnvironment {
    name: String,
    outcome: &'static str,
    changes: Vec<AppliedChange>,
    error: Option<AppliedError>,
}

#[derive(Debug, Serialize)]
struct AppliedChange {
    field: String,
    before: Option<String>,
    after: Option<String>,
}

#[derive(Debug, Serialize)]
struct AppliedError {
    reason: String,
    field: Option<String>,
    message: String,
}

/// How many environments had which outcome.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub(crate) created: usize,
    pub(crate) updated: usize,
    pub(crate) unchanged: usize,
    pub(crate) removed: usize,
    pub(crate) failed: usize,
}

impl Summary {
    pub(crate) fn of(applied: &BatchApplyEnvironmentsResponse) -> Self {
        let mut summary = Self::default();
        for result in &applied.results {
            match result.outcome() {
                ApplyOutcome::Created => summary.created += 1,
                ApplyOutcome::Updated => summary.updated += 1,
                ApplyOutcome::Unchanged => summary.unchanged += 1,
                ApplyOutcome::Removed => summary.removed += 1,
                ApplyOutcome::Failed | ApplyOutcome::Unspecified => summary.failed += 1,
            }
        }
        summary
    }
}

/// One word for it.
pub(crate) fn outcome_text(outcome: ApplyOutcome) -> &'static str {
    match outcome {
        ApplyOutcome::Created => "created",
        ApplyOutcome::Updated => "updated",
        ApplyOutcome::Unchanged => "unchanged",
        ApplyOutcome::Removed => "removed",
        ApplyOutcome::Failed => "failed",
        ApplyOutcome::Unspecified => "unknown",
    }
}

impl AppliedDocument {
    pub(crate) fn new(applied: &BatchApplyEnvironmentsResponse, run: Run) -> Self {
        Self {
            dry_run: run == Run::Dry,
            stores: applied.stores.iter().map(AppliedStore::from).collect(),
            environments: applied.results.iter().map(AppliedEnvironment::from).collect(),
            summary: Summary::of(applied),
        }
    }
}

impl From<&StoreResult> for AppliedStore {
    fn from(result: &StoreResult) -> Self {
        let outcome = outcome_text(result.outcome());
        Self { name: result.name.clone(), outcome, error: result.error.as_ref().map(AppliedError::from) }
    }
}

impl From<&EnvironmentResult> for AppliedEnvironment {
    fn from(result: &EnvironmentResult) -> Self {
        let change = |change: &FieldChange| AppliedChange {
            field: change.path.clone(),
            before: change.before.clone(),
            after: change.after.clone(),
        };
        Self {
            name: result.name.clone(),
            outcome: outcome_text(result.outcome()),
            changes: result.changes.iter().map(change).collect(),
            error: result.error.as_ref().map(AppliedError::from),
        }
    }
}

impl From<&ApplyError> for AppliedError {
    fn from(error: &ApplyError) -> Self {
        let field = super::some(&key_of(&error.field));
        Self { reason: error.reason.clone(), field, message: error.message.clone() }
    }
}
