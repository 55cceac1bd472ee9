//! Results in words.

use std::fmt::Write as _;

use flotilla_proto::Refusal;
use flotilla_proto::manifest::key_of;
use flotilla_proto::v1::{
    ApplyError, ApplyOutcome, BatchApplyEnvironmentsResponse, EnvironmentResult, FieldChange, StoreResult,
};

use super::is_change;
use crate::environment::Run;
use crate::failure::{ExitStatus, Failure};
use crate::output::document::{Summary, apply_outcome_text};
use crate::output::text::printable;

/// Names that are longer do not move what stands beside the others.
const WIDEST_NAME: usize = 40;

/// What changed, or would.
pub(super) fn names(applied: &BatchApplyEnvironmentsResponse) -> Vec<String> {
    let stores = applied.stores.iter().filter(|store| is_change(store.outcome()));
    let environments = applied.results.iter().filter(|result| is_change(result.outcome()));
    let stores = stores.map(|store| format!("store/{}", store.name));
    stores.chain(environments.map(|result| format!("environment/{}", result.name))).collect()
}

/// Whether everything is as the files say.
pub(super) fn is_same(applied: &BatchApplyEnvironmentsResponse) -> bool {
    names(applied).is_empty() && failures(applied).is_empty()
}

/// What differs, field by field, and how much in all.
pub(super) fn plan(applied: &BatchApplyEnvironmentsResponse) -> String {
    let mut text = String::new();
    for store in applied.stores.iter().filter(|store| store.outcome() != ApplyOutcome::Unchanged) {
        let _ = writeln!(text, "{} store/{}", sign(store.outcome()), printable(&store.name));
    }
    let shown: Vec<_> =
        applied.results.iter().filter(|result| result.outcome() != ApplyOutcome::Unchanged).collect();
    let widths = shown.iter().map(|result| result.name.chars().count());
    let width = widths.max().unwrap_or_default().min(WIDEST_NAME);
    for result in shown {
        lines(&mut text, result, width);
    }
    let Summary { created, updated, unchanged, removed, failed } = Summary::of(applied);
    let _ = write!(text, "{created} to create, {updated} to update, {removed} to remove, {unchanged} unchanged");
    if failed > 0 {
        let _ = write!(text, ", {failed} that cannot be applied");
    }
    text.push('\n');
    text
}

fn lines(text: &mut String, result: &EnvironmentResult, width: usize) {
    let changes = result.changes.iter();
    let mut details: Vec<_> = changes.map(|change| difference(change, result.outcome())).collect();
    details.extend(result.error.iter().map(|error| error.reason.clone()));
    let mut head = format!("{} {:width$}", sign(result.outcome()), printable(&result.name));
    if details.is_empty() {
        let _ = writeln!(text, "{}", head.trim_end());
    }
    for detail in details {
        let _ = writeln!(text, "{head}  {detail}");
        head = format!("  {:width$}", "");
    }
}

fn sign(outcome: ApplyOutcome) -> char {
    match outcome {
        ApplyOutcome::Created => '+',
        ApplyOutcome::Updated => '~',
        ApplyOutcome::Removed => '-',
        ApplyOutcome::Unchanged => ' ',
        ApplyOutcome::Failed | ApplyOutcome::Unspecified => '!',
    }
}

fn difference(change: &FieldChange, outcome: ApplyOutcome) -> String {
    let value = |value: &Option<String>| match value {
        Some(value) => format!("\"{}\"", printable(value)),
        None => "none".to_owned(),
    };
    let path = printable(&change.path);
    if outcome == ApplyOutcome::Created {
        return format!("{path}: {}", value(&change.after));
    }
    format!("{path}: {} → {}", value(&change.before), value(&change.after))
}

/// One line for each change.
pub(super) fn applied(applied: &BatchApplyEnvironmentsResponse, run: Run) -> String {
    let suffix = run.suffix();
    let stores = applied.stores.iter().map(|store| ("store", &store.name, store.outcome()));
    let environments = applied.results.iter().map(|result| ("environment", &result.name, result.outcome()));
    let changes = stores.chain(environments).filter(|(_, _, outcome)| is_change(*outcome));
    changes.fold(String::new(), |mut text, (kind, name, outcome)| {
        let _ = writeln!(text, "{kind}/{} {}{suffix}", printable(name), apply_outcome_text(outcome));
        text
    })
}

/// How many environments there were, by what became of them.
pub(super) fn summary(applied: &BatchApplyEnvironmentsResponse, run: Run) -> String {
    let Summary { created, updated, unchanged, removed, failed } = Summary::of(applied);
    let suffix = run.suffix();
    format!(
        "{created} created, {updated} updated, {removed} removed, {unchanged} unchanged, {failed} failed{suffix}"
    )
}

/// That some could not be applied: each with its reason.
pub(super) fn failure(applied: &BatchApplyEnvironmentsResponse) -> Option<Failure> {
    let failures = failures(applied);
    let failed = failures.len();
    let all = applied.results.len() + applied.stores.len();
    let head = format!("{failed} of {all} cannot be applied; the others are not held up by that");
    let lines = std::iter::once(head).chain(failures).collect::<Vec<_>>().join("\n       ");
    (failed > 0).then(|| Failure::new(ExitStatus::Failed, lines).hint("docs/errors.md lists the reasons"))
}

fn failures(applied: &BatchApplyEnvironmentsResponse) -> Vec<String> {
    let of_store = |store: &StoreResult| tell("store", &store.name, store.error.as_ref());
    let of_environment = |result: &EnvironmentResult| tell("environment", &result.name, result.error.as_ref());
    let stores = applied.stores.iter().filter(|store| store.error.is_some()).map(of_store);
    stores.chain(applied.results.iter().filter(|result| result.error.is_some()).map(of_environment)).collect()
}

/// Fields are named as the files name them.
fn tell(kind: &str, name: &str, error: Option<&ApplyError>) -> String {
    let ApplyError { reason, message, field, .. } = error.cloned().unwrap_or_default();
    let message = match message.strip_prefix(&format!("{field}: ")) {
        Some(rest) if !field.is_empty() => format!("{}: {rest}", key_of(&field)),
        Some(_) | None => message,
    };
    format!("{kind}/{}: {reason}: {}", printable(name), printable(&message))
}

/// A refusal's message, without that nothing was done: it is not over yet.
pub(super) fn without_outcome(refusal: &Refusal) -> &str {
    refusal.message.trim_end_matches("; nothing was applied")
}
