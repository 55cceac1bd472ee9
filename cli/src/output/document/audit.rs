//! Who asked for what. One record is the document that control writes too.

use flotilla_proto::audit::AuditDocument;
use serde::Serialize;

/// Records.
#[derive(Debug, Serialize)]
pub(crate) struct AuditRecordsDocument {
    /// Oldest first.
    pub(crate) records: Vec<AuditDocument>,
}
