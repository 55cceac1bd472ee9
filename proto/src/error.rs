//! Reasons for refusals, and their way through gRPC.
//!
//! Inside, a refusal is a [`Refusal`]; on the wire it is a status with `google.rpc.ErrorInfo` (domain `flotilla`, the
//! reason's name) and, where fields are at fault, `google.rpc.BadRequest`.

use std::collections::HashMap;
use std::fmt::Write as _;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::spec::FieldViolation;

/// Fields at fault that are told.
const MOST_VIOLATIONS: usize = 32;

/// The domain of `ErrorInfo`.
pub const ERROR_DOMAIN: &str = "flotilla";

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal => $code:ident),* $(,)?) => {
        /// Why something was refused. The name on the wire never changes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason { $($(#[$doc])* $variant),* }

        impl Reason {
            /// All reasons, for the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The status code that goes with it.
            pub fn code(self) -> Code {
                match self { $(Self::$variant => Code::$code),* }
            }
        }
    };
}

reasons! {
    /// A field is missing or wrong.
    InvalidField = "INVALID_FIELD" => InvalidArgument,
    /// The request id was used with another body.
    RequestIdReused = "REQUEST_ID_REUSED" => InvalidArgument,
    /// The page token is not one of this listing's.
    InvalidPageToken = "INVALID_PAGE_TOKEN" => InvalidArgument,
    /// An environment of that name exists.
    NameTaken = "NAME_TAKEN" => AlreadyExists,
    /// A store of that name exists.
    StoreNameTaken = "STORE_NAME_TAKEN" => AlreadyExists,
    /// Another environment has that prefix on the same store.
    PrefixTaken = "PREFIX_TAKEN" => AlreadyExists,
    /// A worker of that name is alive elsewhere.
    WorkerNameTaken = "WORKER_NAME_TAKEN" => AlreadyExists,
    /// The environment was changed since it was read.
    EtagMismatch = "ETAG_MISMATCH" => Aborted,
    /// The caller shows neither a token nor a client certificate.
    CredentialMissing = "CREDENTIAL_MISSING" => Unauthenticated,
    /// The caller's token or client certificate is not known, or not any more.
    CredentialUnknown = "CREDENTIAL_UNKNOWN" => Unauthenticated,
    /// The caller's role does not include that.
    RoleTooSmall = "ROLE_TOO_SMALL" => PermissionDenied,
    /// The caller may not be the worker of that name.
    WorkerNameForbidden = "WORKER_NAME_FORBIDDEN" => PermissionDenied,
    /// No such environment.
    EnvironmentNotFound = "ENVIRONMENT_NOT_FOUND" => NotFound,
    /// No such worker.
    WorkerNotFound = "WORKER_NOT_FOUND" => NotFound,
    /// No such store.
    StoreNotFound = "STORE_NOT_FOUND" => NotFound,
    /// No such item in the store.
    ItemNotFound = "ITEM_NOT_FOUND" => NotFound,
    /// Environments use the store.
    StoreInUse = "STORE_IN_USE" => FailedPrecondition,
    /// More environments would be removed than goes without saying.
    BlastRadius = "BLAST_RADIUS" => FailedPrecondition,
    /// The environment is being removed.
    EnvironmentRemoving = "ENVIRONMENT_REMOVING" => FailedPrecondition,
    /// The environment is paused.
    EnvironmentPaused = "ENVIRONMENT_PAUSED" => FailedPrecondition,
    /// The environment takes no SDK key.
    NoSdkKey = "NO_SDK_KEY" => FailedPrecondition,
    /// There is no conflict to take over.
    NoConflict = "NO_CONFLICT" => FailedPrecondition,
    /// No worker serves the environment.
    NoWorker = "NO_WORKER" => FailedPrecondition,
    /// The worker is connected.
    WorkerConnected = "WORKER_CONNECTED" => FailedPrecondition,
    /// LaunchDarkly refused the key.
    KeyRejected = "KEY_REJECTED" => FailedPrecondition,
    /// The worker cannot use the store.
    StoreUnavailable = "STORE_UNAVAILABLE" => Unavailable,
    /// The worker cannot reach LaunchDarkly.
    UpstreamUnavailable = "UPSTREAM_UNAVAILABLE" => Unavailable,
    /// The cursor is from another term, or too old: list again.
    RevisionCompacted = "REVISION_COMPACTED" => OutOfRange,
    /// Control remembers no more request ids for now.
    TooManyRequestIds = "TOO_MANY_REQUEST_IDS" => ResourceExhausted,
    /// The message has more parts than are read.
    TooManyParts = "TOO_MANY_PARTS" => ResourceExhausted,
    /// The client has as many calls open as it may.
    TooManyCalls = "TOO_MANY_CALLS" => ResourceExhausted,
    /// The worker did not answer in time.
    WorkerTimeout = "WORKER_TIMEOUT" => DeadlineExceeded,
    /// Control is stopping.
    ShuttingDown = "SHUTTING_DOWN" => Unavailable,
    /// Control failed; the change may or may not have been kept.
    Internal = "INTERNAL" => Internal,
}

impl Reason {
    /// The reason of that name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == text)
    }
}

/// Something was refused: why, in words for a person, and the fields at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Why, for programs.
    pub reason: Reason,
    /// Why, for people; never a secret.
    pub message: String,
    /// The fields at fault, where it is fields.
    pub violations: Vec<FieldViolation>,
}

impl Refusal {
    /// A refusal that is no field's fault.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new() }
    }

    /// Fields are at fault. Of many, the first are told.
    pub fn fields(mut violations: Vec<FieldViolation>) -> Self {
        let more = violations.len().saturating_sub(MOST_VIOLATIONS);
        violations.truncate(MOST_VIOLATIONS);
        let mut message = violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        if more > 0 {
            // Writing to a string cannot fail.
            let _ = write!(message, "; and {more} more");
        }
        Self { reason: Reason::InvalidField, message, violations }
    }

    /// What a status says, if it is one of ours.
    pub fn from_status(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == ERROR_DOMAIN)?;
        let violations = details
            .bad_request()
            .map(|bad| {
                bad.field_violations.iter().map(|one| FieldViolation::new(&one.field, &one.description)).collect()
            })
            .unwrap_or_default();
        Some(Self { reason: Reason::parse(&info.reason)?, message: status.message().to_owned(), violations })
    }
}

impl From<FieldViolation> for Refusal {
    fn from(violation: FieldViolation) -> Self {
        Self::fields(vec![violation])
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let mut details = ErrorDetails::new();
        details.set_error_info(refusal.reason.as_str(), ERROR_DOMAIN, HashMap::new());
        for violation in &refusal.violations {
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
        Self::with_error_details(refusal.reason.code(), refusal.message, details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_survives_the_wire() {
        for reason in Reason::ALL {
            let refusal = Refusal {
                violations: vec![FieldViolation::new("spec.prefix", "taken")],
                ..Refusal::new(*reason, "because")
            };
            let status = Status::from(refusal.clone());
            assert_eq!(status.code(), reason.code());
            assert_eq!(Refusal::from_status(&status), Some(refusal));
        }
    }

    #[test]
    fn the_documentation_has_a_row_for_every_reason() {
        let table = include_str!("../../docs/errors.md");
        for reason in Reason::ALL {
            let code = format!("{:?}", reason.code()).to_ascii_uppercase();
            let row = table.lines().find(|line| line.starts_with(&format!("| `{}` |", reason.as_str())));
            let row = row.unwrap_or_else(|| panic!("no row for {}", reason.as_str()));
            let documented = row.split('|').nth(2).unwrap_or_default().replace(['_', ' '], "");
            assert_eq!(documented, code, "{row}");
        }
    }
}
