//! Options of the audit records.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use flotilla_proto::process::parse_duration;

use crate::audit::AuditLog;

/// How long records are kept, if nothing else is said.
pub(super) const DEFAULT_RETENTION: Duration = Duration::from_hours(90 * 24);
const SHORTEST_RETENTION: Duration = Duration::from_hours(1);
/// Ten years, leap days included.
const LONGEST_RETENTION: Duration = Duration::from_hours(3653 * 24);

/// Who asked for what.
#[derive(Debug, Clone, Args)]
pub struct AuditOptions {
    /// How long records of who asked for what are kept; see `flotilla audit`
    ///
    /// 1h to 10y, and a million records at most.
    #[arg(long, env = "FLOTILLA_AUDIT_RETENTION", value_name = "DURATION", default_value = "90d",
          value_parser = parse_duration)]
    pub audit_retention: Duration,

    /// Also append each record to this file, as one line of JSON; - is standard output
    ///
    /// The file is made with mode 0600 if it is not there, and made anew when it was renamed away, as by logrotate. While it
    /// cannot be written, control goes on, and says so; the database has every record.
    #[arg(long, env = "FLOTILLA_AUDIT_LOG", value_name = "FILE", value_parser = parse_log)]
    pub audit_log: Option<AuditLog>,
}

impl AuditOptions {
    /// What they mean. The error says what is allowed.
    pub(super) fn check(self) -> Result<(Duration, Option<AuditLog>), String> {
        if self.audit_retention < SHORTEST_RETENTION || self.audit_retention > LONGEST_RETENTION {
            let given = humantime::format_duration(self.audit_retention);
            return Err(format!("--audit-retention {given} is out of range: 1h to 10y"));
        }
        Ok((self.audit_retention, self.audit_log))
    }
}

#[expect(clippy::unnecessary_wraps, reason = "the form of a parser of values")]
fn parse_log(text: &str) -> Result<AuditLog, String> {
    Ok(if text == "-" { AuditLog::Stdout } else { AuditLog::File(PathBuf::from(text)) })
}
