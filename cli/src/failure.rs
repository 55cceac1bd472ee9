//! Why a command failed: exit status, message for a person, hints. One place maps what control says to both.

use std::error::Error as _;
use std::io;

use flotilla_proto::client::ClientError;
use flotilla_proto::{FieldViolation, Reason, Refusal};
use tonic::{Code, Status};

/// How the process ends. Scripts depend on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Done,
    /// Failed, or the answer is no.
    Failed,
    /// The command line or a value in it is wrong.
    Usage,
    /// No such thing.
    NotFound,
    /// It exists already, or was changed meanwhile.
    Exists,
    /// Control cannot be reached.
    Unreachable,
    /// Control wants to know who asks, or does not allow it.
    Denied,
    /// Time ran out.
    TimedOut,
}

impl ExitStatus {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Exists => 4,
            Self::Unreachable => 5,
            Self::Denied => 6,
            Self::TimedOut => 124,
        }
    }
}

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Whoever read standard output has gone: there is nobody to write to, which is success.
    #[error("standard output was closed")]
    OutputClosed,
    /// Something is said about it on standard error.
    #[error("{message}")]
    Reported {
        /// How the process ends.
        status: ExitStatus,
        /// What happened.
        message: String,
        /// What the user can do.
        hints: Vec<String>,
    },
}

impl Failure {
    /// A failure without hints.
    pub fn new(status: ExitStatus, message: impl Into<String>) -> Self {
        Self::Reported { status, message: message.into(), hints: Vec::new() }
    }

    /// The command line, or a value in it, is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitStatus::Usage, message)
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        match &mut self {
            Self::OutputClosed => {}
            Self::Reported { hints, .. } => hints.push(hint.into()),
        }
        self
    }

    /// How the process ends.
    pub fn status(&self) -> ExitStatus {
        match self {
            Self::OutputClosed => ExitStatus::Done,
            Self::Reported { status, .. } => *status,
        }
    }

    /// For commands whose exit status 1 means only "the answer is no": what would be 1 otherwise is 2.
    #[must_use]
    pub fn where_failed_means_no(mut self) -> Self {
        match &mut self {
            Self::Reported { status, .. } if *status == ExitStatus::Failed => *status = ExitStatus::Usage,
            Self::Reported { .. } | Self::OutputClosed => {}
        }
        self
    }

    /// What control at `control` answered, or that it did not.
    pub fn from_status(control: &str, status: &Status) -> Self {
        Self::from(ClientError::new(control, status.clone()))
    }
}

/// What a call of control ended in.
impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { refusal, status } => {
                let exit = exit_status(status.code(), Some(refusal.reason));
                hints(Self::new(exit, refusal_message(&refusal)), &refusal)
            }
            ClientError::Unreachable { control, status } => {
                let cause = cause(&status);
                let failure =
                    Self::new(ExitStatus::Unreachable, format!("cannot reach control at {control}: {cause}"));
                if let Some(hint) = tls_hint(&control, &cause) {
                    return failure.hint(hint);
                }
                failure
                    .hint(
                        "start one with `flotilla-control`, or say where it is with --control or FLOTILLA_CONTROL",
                    )
                    .hint("to try everything on this machine: `flotilla dev`")
            }
            ClientError::TimedOut { control, .. } => {
                Self::new(ExitStatus::TimedOut, format!("control at {control} did not answer in time"))
                    .hint("--request-timeout sets how long to wait")
            }
            ClientError::Failed { control, status } => {
                let exit = exit_status(status.code(), None);
                let failure = Self::new(exit, format!("control at {control}: {}", status.message()));
                if status.code() == Code::Unimplemented {
                    failure.hint("control may be older than this command line: see `flotilla version`")
                } else {
                    failure
                }
            }
        }
    }
}

/// For writes to standard output only: elsewhere a broken pipe is no success.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::new(ExitStatus::Failed, format!("cannot write: {error}"))
        }
    }
}

impl From<FieldViolation> for Failure {
    fn from(violation: FieldViolation) -> Self {
        Self::usage(violation.to_string())
    }
}

/// The exit status that goes with what a call ended in.
fn exit_status(code: Code, reason: Option<Reason>) -> ExitStatus {
    match code {
        Code::Ok => ExitStatus::Done,
        Code::InvalidArgument => ExitStatus::Usage,
        Code::NotFound => ExitStatus::NotFound,
        Code::AlreadyExists | Code::Aborted => ExitStatus::Exists,
        Code::Unauthenticated | Code::PermissionDenied => ExitStatus::Denied,
        Code::DeadlineExceeded | Code::Cancelled => ExitStatus::TimedOut,
        Code::Unavailable => match reason {
            None | Some(Reason::ShuttingDown) => ExitStatus::Unreachable,
            Some(_) => ExitStatus::Failed,
        },
        Code::Unknown
        | Code::Internal
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::ResourceExhausted
        | Code::Unimplemented
        | Code::DataLoss => ExitStatus::Failed,
    }
}

/// The innermost cause says most ("Connection refused"); the layers around it say only "transport error".
fn cause(status: &Status) -> String {
    let mut deepest: Option<&dyn std::error::Error> = status.source();
    while let Some(next) = deepest.and_then(std::error::Error::source) {
        deepest = Some(next);
    }
    deepest.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

/// What to do about a connection that came to be, and then to nothing.
fn tls_hint(control: &str, cause: &str) -> Option<&'static str> {
    let says = |words: &[&str]| words.iter().any(|word| cause.contains(word));
    if !control.starts_with("https://") {
        // What TLS answers to one that does not speak it.
        return says(&["frame", "preface", "connection closed", "broken pipe", "Broken pipe", "reset"])
            .then_some("if control speaks TLS there, its URL begins with https://");
    }
    if says(&["UnknownIssuer", "BadSignature"]) {
        Some("--ca FILE says whose certificates are trusted, such as the ca.pem of `flotilla init tls`")
    } else if says(&["not valid for name", "NotValidForName"]) {
        Some("reach control by a name of its certificate, or make one with `flotilla init tls --host NAME`")
    } else if says(&["certificate expired", "certificate not valid yet"]) {
        Some("control's certificate is renewed with `flotilla init tls --renew`, and a wrong clock is set right")
    } else if says(&["InvalidContentType", "corrupt message"]) {
        Some("control does not speak TLS there: its URL begins with http://")
    } else if says(&["fatal alert", "connection closed", "broken pipe", "Broken pipe", "reset"]) {
        // The connection may be gone before the reason for it has been read.
        Some(
            "control may want a client certificate, valid and of its --client-ca: --client-cert FILE --client-key FILE; \
             its log tells why at --log-level debug",
        )
    } else {
        None
    }
}

/// Fields are named as the options that set them.
fn refusal_message(refusal: &Refusal) -> String {
    if refusal.violations.is_empty() {
        return refusal.message.clone();
    }
    let lines: Vec<String> = refusal
        .violations
        .iter()
        .map(|violation| format!("{}: {}", option_of(&violation.field), violation.description))
        .collect();
    lines.join("\n       ")
}

fn option_of(field: &str) -> String {
    match field {
        "name" | "environment" => "NAME".to_owned(),
        "key" => "KEY".to_owned(),
        "url" => "URL".to_owned(),
        "worker" => "--worker".to_owned(),
        "prefix" => "--prefix".to_owned(),
        "spec.source.stream.initial_retry_delay" => "--initial-retry-delay".to_owned(),
        "spec.source.poll.interval" => "--poll-interval".to_owned(),
        "spec.source.file.path" => "--source".to_owned(),
        "spec.labels" => "--label".to_owned(),
        "sdk_key" => "SDK key".to_owned(),
        other => match other.strip_prefix("spec.") {
            Some(name) => format!("--{}", name.replace('_', "-")),
            None => other.to_owned(),
        },
    }
}

fn hints(failure: Failure, refusal: &Refusal) -> Failure {
    let hint = match refusal.reason {
        Reason::InvalidField if refusal.violations.iter().any(|one| one.field == "sdk_key") => {
            "give the key with --sdk-key-file FILE, --sdk-key-env VARIABLE or --sdk-key-stdin"
        }
        Reason::NameTaken => "see it with `flotilla env get NAME`, change it with `flotilla env update NAME`",
        Reason::StoreNameTaken => "see it with `flotilla store get NAME`",
        Reason::StoreNotFound => "see what there is with `flotilla store list`, add one with `flotilla store add`",
        Reason::StoreInUse | Reason::PrefixTaken => "see who uses it with `flotilla env list -o wide`",
        Reason::EtagMismatch => "somebody changed it at the same time: look at it, then try again",
        Reason::EnvironmentNotFound => "see what there is with `flotilla env list`",
        Reason::WorkerNotFound => "see what there is with `flotilla worker list`",
        Reason::ItemNotFound => "see what there is with `flotilla data list NAME`",
        Reason::BlastRadius => "see what would go with `flotilla plan --prune`; if all of it shall, say --yes",
        Reason::EnvironmentRemoving => {
            "wait for the end of the removal with `flotilla env wait NAME --for removed`"
        }
        Reason::EnvironmentPaused => "resume it with `flotilla env resume NAME`",
        Reason::NoWorker => "see the workers with `flotilla worker list`",
        Reason::WorkerConnected => "stop it first, or move what it has away with `flotilla worker drain W`",
        Reason::KeyRejected => "copy the key from the environment's settings in LaunchDarkly",
        Reason::CredentialMissing => "show a token with --token-file FILE or FLOTILLA_TOKEN_FILE",
        Reason::CredentialUnknown => "control's --token-file says who is known; see docs/access.md",
        Reason::RoleTooSmall => "use a token of that role with --token-file FILE or FLOTILLA_TOKEN_FILE",
        Reason::ShuttingDown => "control is stopping: try again when it is back",
        Reason::Internal => "control's log says more",
        Reason::InvalidField
        | Reason::RequestIdReused
        | Reason::InvalidPageToken
        | Reason::WorkerNameTaken
        | Reason::WorkerNameForbidden
        | Reason::NoSdkKey
        | Reason::NoConflict
        | Reason::StoreUnavailable
        | Reason::UpstreamUnavailable
        | Reason::RevisionCompacted
        | Reason::TooManyRequestIds
        | Reason::TooManyParts
        | Reason::TooManyCalls
        | Reason::WorkerTimeout => return failure,
    };
    failure.hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_exit_status() {
        let shown: Vec<String> = Reason::ALL
            .iter()
            .map(|reason| format!("{} {}", reason.as_str(), exit_status(reason.code(), Some(*reason)).code()))
            .collect();
        insta::assert_snapshot!(shown.join("\n"));
    }

    #[test]
    fn answers_made_here_are_told_from_those_of_control() {
        let exit = |status: &Status| Failure::from_status("http://x", status).status().code();
        let control = |code| exit(&Status::new(code, "x"));
        let here = |code| {
            let mut status = Status::new(code, "x");
            status.set_source(std::sync::Arc::new(io::Error::from(io::ErrorKind::ConnectionReset)));
            exit(&status)
        };
        assert_eq!((here(Code::Unavailable), control(Code::Unavailable)), (5, 5));
        assert_eq!((here(Code::Unknown), control(Code::Unknown)), (5, 1));
        assert_eq!(control(Code::DeadlineExceeded), 124);
        assert_eq!((here(Code::Cancelled), control(Code::Cancelled)), (5, 124));
        assert_eq!(control(Code::PermissionDenied), 6);
        assert_eq!(control(Code::Unauthenticated), 6);
        assert_eq!(control(Code::FailedPrecondition), 1);
    }

    #[test]
    fn a_deadline_is_told_from_a_lost_connection() {
        let late = Status::from_error(Box::new(tonic::TimeoutExpired(())));
        assert_eq!(Failure::from_status("http://x", &late).status().code(), 124);
    }

    #[test]
    fn one_means_only_no_for_some_commands() {
        let turned = |status| Failure::new(status, "x").where_failed_means_no().status();
        assert_eq!(turned(ExitStatus::Failed), ExitStatus::Usage);
        assert_eq!(turned(ExitStatus::Unreachable), ExitStatus::Unreachable);
    }

    #[test]
    fn fields_are_named_as_their_options() {
        let refusal = Refusal::fields(vec![
            FieldViolation::new("spec.stream_uri", "plain http"),
            FieldViolation::new("sdk_key", "the SDK key is missing"),
        ]);
        let failure = Failure::from_status("http://x", &refusal.into());
        let Failure::Reported { status, message, hints } = failure else {
            panic!("reported");
        };
        assert_eq!(status, ExitStatus::Usage);
        assert_eq!(message, "--stream-uri: plain http\n       SDK key: the SDK key is missing");
        assert!(hints[0].contains("--sdk-key-file"));
    }
}
