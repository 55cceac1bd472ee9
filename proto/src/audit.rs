//! Audit records as documents: the same on the command line and in the lines of control's `--audit-log`.

use serde::Serialize;
use tonic::Code;

use crate::time::Timestamp;
use crate::v1;

/// A record. Programs depend on it: fields may be added, never changed. What is empty is null.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditDocument {
    revision: String,
    time: Option<String>,
    actor: Option<String>,
    role: Option<String>,
    address: Option<String>,
    call: String,
    subject: Option<String>,
    details: Option<String>,
    code: &'static str,
    reason: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
    left_out: u64,
}

impl From<&v1::AuditRecord> for AuditDocument {
    fn from(record: &v1::AuditRecord) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let time = record.time.as_ref().map(Timestamp::from_proto);
        Self {
            revision: record.revision.clone(),
            time: time.map(|time| humantime::format_rfc3339_millis(time.into()).to_string()),
            actor: some(&record.actor),
            role: some(&record.role),
            address: some(&record.address),
            call: record.call.clone(),
            subject: some(&record.subject),
            details: some(&record.details),
            code: code_name(Code::from_i32(record.code)),
            reason: some(&record.reason),
            message: some(&record.message),
            request_id: some(&record.request_id),
            left_out: record.left_out,
        }
    }
}

/// The name of a code, as gRPC's documentation writes it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
