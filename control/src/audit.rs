//! Who asked for what, and what came of it: each change and each refusal, as it is recorded.
//!
//! An [`AuditEntry`] is what is known when a call begins. It goes to the driver with the call's command, and becomes a
//! record in the transaction of what the command changes: neither is there without the other. No secret gets in: names
//! are taken up if they are valid ones only, and messages are those of refusals.

// Calls that are refused before they are read.
mod door;
// Records as lines, in a file or on standard output.
mod log;

use flotilla_proto::access::{Rights, Role};
use flotilla_proto::{EnvironmentName, Reason, Refusal, StoreName, Term, Timestamp, WorkerName, v1};
use tonic::Code;
use v1::ApplyOutcome as Applied;

use crate::fleet::Reply;

pub(crate) use door::{Door, Knock};
pub(crate) use log::{LogFailures, LogWriter};

pub use log::AuditLog;

/// Characters of a message, and of details, that are kept: a caller can make them long.
const LONGEST_TEXT: usize = 500;

/// What is known of a call when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEntry {
    /// Who calls; empty: not known.
    pub(crate) actor: String,
    /// What they may, in one word; empty: not known.
    pub(crate) role: &'static str,
    /// Where they are; empty: on no network.
    pub(crate) address: String,
    /// Service and method.
    pub(crate) call: &'static str,
    /// Kind and name of what it is about; empty: not known, or many.
    pub(crate) subject: String,
    /// What else was asked for, or what was done.
    pub(crate) details: String,
    /// The caller's own id of the request.
    pub(crate) request_id: String,
    /// Whether the same was asked for before.
    pub(crate) attempt: Attempt,
}

/// Whether the same was asked for before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It was not, as far as control knows.
    First,
    /// Control itself asks again, by the clock: that it failed is recorded already.
    Again,
    /// The caller sent a request id again: it is answered, and nothing is done.
    Repeated,
}

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// `Ok`: it was carried out.
    pub(crate) code: Code,
    /// Why it was not, for programs.
    pub(crate) reason: String,
    /// The same, for people.
    pub(crate) message: String,
}

/// Where a call came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind the door: its caller has the rights to make it.
    Inside,
    /// Before it was read. Strangers can bring that about, so that not each has a record.
    Door {
        /// How many before it have none.
        left_out: u64,
    },
}

/// A record, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    /// Its place in the order of all records, from 1, across restarts.
    pub(crate) number: u64,
    /// The term in which it was made: a restored database gives numbers anew, but not under the same term.
    pub(crate) term: Term,
    /// When.
    pub(crate) at: Timestamp,
    /// What was asked for, and by whom.
    pub(crate) entry: AuditEntry,
    /// What came of it.
    pub(crate) outcome: Outcome,
    /// Where.
    pub(crate) place: Place,
}

/// Where the records stand when control starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LastRecord {
    /// The highest number that was ever given.
    pub(crate) number: u64,
    /// The term of the record that has it, if that is still kept.
    pub(crate) term: Option<Term>,
}

/// Which records are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct AuditFilter {
    /// By this actor.
    pub(crate) actor: Option<String>,
    /// About this.
    pub(crate) subject: Option<SubjectPattern>,
    /// Not older.
    pub(crate) since: Timestamp,
    /// How they ended.
    pub(crate) outcomes: Outcomes,
}

/// Subjects: one, or all that begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SubjectPattern {
    /// This one.
    Exactly(String),
    /// Those that begin so.
    Prefix(String),
}

/// How calls ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Outcomes {
    /// In whatever way.
    #[default]
    All,
    /// They were not carried out.
    Failed,
}

/// What subjects are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Environment,
    Store,
    Worker,
}

impl Kind {
    /// The subject of this name. What is no valid name may be anything, a secret in the wrong place too.
    pub(crate) fn named(self, name: &str) -> String {
        let (kind, is_valid) = match self {
            Self::Environment => ("environment", name.parse::<EnvironmentName>().is_ok()),
            Self::Store => ("store", name.parse::<StoreName>().is_ok()),
            Self::Worker => ("worker", name.parse::<WorkerName>().is_ok()),
        };
        // A key is a valid name, and may have been given in its place.
        if is_valid { format!("{kind}/{}", without_keys(name)) } else { kind.to_owned() }
    }
}

impl AuditEntry {
    /// Of control itself, which keeps to a file.
    pub(crate) fn of_file(path: &std::path::Path, attempt: Attempt) -> Self {
        Self {
            actor: format!("file:{}", path.display()),
            role: Role::Admin.as_str(),
            address: String::new(),
            call: "EnvironmentService/BatchApplyEnvironments",
            subject: String::new(),
            details: String::new(),
            request_id: String::new(),
            attempt,
        }
    }

    /// Of one of many; what was asked for all of them stays.
    fn about(&self, kind: Kind, name: &str, done: &str) -> Self {
        let details =
            [done, &self.details].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(", ");
        Self { subject: kind.named(name), details: cut(&details), ..self.clone() }
    }
}

impl Outcome {
    /// It was carried out.
    pub(crate) fn done() -> Self {
        Self { code: Code::Ok, reason: String::new(), message: String::new() }
    }

    /// It was refused.
    pub(crate) fn refused(refusal: &Refusal) -> Self {
        let Refusal { reason, message, violations } = refusal;
        let paths: Vec<_> = violations.iter().map(|violation| violation.field.as_str()).collect();
        Self::told(*reason, message, &paths)
    }

    /// The caller left before the answer.
    pub(crate) fn cancelled() -> Self {
        let message = "the caller left before the answer; it may have been carried out".to_owned();
        Self { code: Code::Cancelled, reason: String::new(), message }
    }

    fn of_error(error: &v1::ApplyError) -> Self {
        let reason = Reason::parse(&error.reason).unwrap_or(Reason::Internal);
        Self::told(reason, &error.message, &[&error.field])
    }

    /// What is said of a wrong field shows what stands in it, which may be anything: of those only the paths are kept.
    fn told(reason: Reason, message: &str, paths: &[&str]) -> Self {
        let message = if reason == Reason::InvalidField {
            format!("wrong: {}", paths.join(", "))
        } else {
            without_keys(message)
        };
        Self { code: reason.code(), reason: reason.as_str().to_owned(), message: cut(&message) }
    }
}

/// What is recorded of a command and its answer: of many things at once each that was changed, or could not be.
pub(crate) fn of_answer(entry: AuditEntry, answer: &Result<Reply, Refusal>) -> Vec<(AuditEntry, Outcome)> {
    let mut records = match answer {
        // The answer tells of what would be done now, or is there now.
        Ok(_) if entry.attempt == Attempt::Repeated => {
            vec![(AuditEntry { details: "sent again: nothing was done".to_owned(), ..entry }, Outcome::done())]
        }
        Ok(Reply::Applied(applied)) => of_many(&entry, applied),
        Ok(Reply::Environment(_) | Reply::Worker(_) | Reply::Store(_) | Reply::Answer(_) | Reply::Checked(_)) => {
            vec![(entry, Outcome::done())]
        }
        Err(refusal) => vec![(entry, Outcome::refused(refusal))],
    };
    records.retain(|(entry, outcome)| outcome.code == Code::Ok || entry.attempt != Attempt::Again);
    records
}

fn of_many(entry: &AuditEntry, applied: &v1::BatchApplyEnvironmentsResponse) -> Vec<(AuditEntry, Outcome)> {
    let stores = applied.stores.iter().filter_map(|result| {
        let details = done_to(result.outcome(), &[])?;
        let outcome = result.error.as_ref().map_or_else(Outcome::done, Outcome::of_error);
        Some((entry.about(Kind::Store, &result.name, &details), outcome))
    });
    let environments = applied.results.iter().filter_map(|result| {
        let details = done_to(result.outcome(), &result.changes)?;
        let outcome = result.error.as_ref().map_or_else(Outcome::done, Outcome::of_error);
        Some((entry.about(Kind::Environment, &result.name, &details), outcome))
    });
    stores.chain(environments).collect()
}

/// What was done, in words; `None`: nothing was to be done.
fn done_to(outcome: Applied, changes: &[v1::FieldChange]) -> Option<String> {
    match outcome {
        Applied::Created => Some("created".to_owned()),
        Applied::Updated => {
            let fields: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
            Some(format!("updated: {}", fields.join(", ")))
        }
        Applied::Removed => Some("removed".to_owned()),
        Applied::Failed => Some(String::new()),
        Applied::Unchanged | Applied::Unspecified => None,
    }
}

/// What somebody may, in one word.
pub(crate) fn role_of(rights: &Rights) -> &'static str {
    match rights {
        Rights::Everything => "all",
        Rights::Api(role) => role.as_str(),
        Rights::Worker(_) => "worker",
    }
}

/// The text with `********` for what looks like a key of LaunchDarkly's, or a token: a few letters and a UUID or random
/// characters. Callers mix up what they give.
pub(crate) fn without_keys(text: &str) -> String {
    let is_key_character = |character: char| character.is_ascii_alphanumeric() || "-_".contains(character);
    let is_key = |word: &str| {
        let key = ["sdk-", "mob-", "api-", "rel-", "flotilla_"].iter().find_map(|prefix| word.strip_prefix(prefix));
        key.is_some_and(|key| key.len() >= 32)
    };
    let words = text.split_inclusive(|character| !is_key_character(character));
    words.fold(String::new(), |shown, part| {
        let word = part.trim_end_matches(|character| !is_key_character(character));
        if is_key(word) { shown + "********" + &part[word.len()..] } else { shown + part }
    })
}

/// The beginning of a text.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::FieldViolation;

    use super::*;

    fn entry() -> AuditEntry {
        AuditEntry::of_file(std::path::Path::new("/etc/e.yaml"), Attempt::First)
    }

    fn batch() -> Reply {
        let result = |name: &str, outcome: Applied, error: Option<v1::ApplyError>| v1::EnvironmentResult {
            name: name.to_owned(),
            outcome: outcome.into(),
            changes: ["prefix", "sdkKey"]
                .map(|path| v1::FieldChange {
                    path: path.to_owned(),
                    before: None,
                    after: Some("not told".to_owned()),
                })
                .to_vec(),
            error,
            ..Default::default()
        };
        let error = v1::ApplyError {
            code: Code::AlreadyExists.into(),
            reason: "PREFIX_TAKEN".to_owned(),
            message: "it is taken".to_owned(),
            ..Default::default()
        };
        let store = v1::StoreResult { name: "eu".to_owned(), outcome: Applied::Created.into(), error: None };
        Reply::Applied(Box::new(v1::BatchApplyEnvironmentsResponse {
            results: vec![
                result("a", Applied::Created, None),
                result("b", Applied::Unchanged, None),
                result("c", Applied::Updated, None),
                result("Not A Name", Applied::Failed, Some(error)),
                result("d", Applied::Removed, None),
            ],
            stores: vec![store],
        }))
    }

    fn shown(records: &[(AuditEntry, Outcome)]) -> Vec<String> {
        let line = |(entry, outcome): &(AuditEntry, Outcome)| {
            format!("{} [{}] {:?} {}", entry.subject, entry.details, outcome.code, outcome.reason)
        };
        records.iter().map(line).collect()
    }

    #[test]
    fn each_of_many_that_was_changed_or_failed_has_a_record() {
        let records = of_answer(entry(), &Ok(batch()));
        assert_eq!(
            shown(&records),
            [
                "store/eu [created] Ok ",
                "environment/a [created] Ok ",
                "environment/c [updated: prefix, sdkKey] Ok ",
                "environment [] AlreadyExists PREFIX_TAKEN",
                "environment/d [removed] Ok ",
            ]
        );
        let again = AuditEntry { attempt: Attempt::Again, ..entry() };
        assert_eq!(of_answer(again.clone(), &Ok(batch())).len(), 4, "that it failed was recorded before");
        let refused = Err(Refusal::new(Reason::BlastRadius, "too many"));
        assert_eq!(shown(&of_answer(entry(), &refused)), [" [] FailedPrecondition BLAST_RADIUS"]);
        assert!(of_answer(again, &refused).is_empty());
        let repeated = AuditEntry { attempt: Attempt::Repeated, ..entry() };
        assert_eq!(shown(&of_answer(repeated, &Ok(batch()))), [" [sent again: nothing was done] Ok "]);
    }

    #[test]
    fn nothing_long_and_no_name_that_is_none_gets_in() {
        let refused = Outcome::refused(&Refusal::new(Reason::NoWorker, "é".repeat(10_000)));
        assert_eq!(refused.message.chars().count(), LONGEST_TEXT + 1);
        let wrong = FieldViolation::new("spec.prefix", "\"hunter 2\" is not valid");
        assert_eq!(Outcome::refused(&wrong.into()).message, "wrong: spec.prefix");
        assert_eq!(Kind::Store.named("eu"), "store/eu");
        assert_eq!(Kind::Worker.named("hunter 2"), "worker");
    }

    #[test]
    fn a_key_in_the_place_of_something_else_is_not_shown() {
        let key = "sdk-01234567-89ab-cdef-0123-456789abcdef";
        assert_eq!(Kind::Environment.named(key), "environment/********");
        let message = format!("environment \"{key}\" does not exist; nor does sdk-tools");
        let refused = Outcome::refused(&Refusal::new(Reason::EnvironmentNotFound, message));
        assert_eq!(refused.message, "environment \"********\" does not exist; nor does sdk-tools");
        assert_eq!(without_keys(&format!("flotilla_{}", "x".repeat(43))), "********");
    }
}
