//! `flotilla audit …`.

use std::io::Write as _;

use flotilla_proto::audit::{AuditDocument, code_name};
use flotilla_proto::client::{self as control, Broken, Messages};
use flotilla_proto::v1::watch_audit_records_response::Event as Message;
use flotilla_proto::v1::{AuditFilter, AuditRecord, ListAuditRecordsRequest, WatchAuditRecordsRequest};
use tonic::Code;

use crate::arguments::{AuditCommand, AuditSelection, ListAudit, OutputFormat, TailAudit};
use crate::client::Client;
use crate::failure::Failure;
use crate::newest::{Page, newest};
use crate::output::document::AuditRecordsDocument;
use crate::output::table::{Align, GrowingTable, columns};
use crate::output::text::{or_dash, rfc3339};
use crate::output::{Notation, Shown, Width, write_streamed};
use crate::session::Session;

/// Entries of a page, at most.
const PAGE_SIZE: u32 = 1000;

/// Runs `flotilla audit …`.
pub(crate) async fn run(session: &mut Session, command: AuditCommand) -> Result<(), Failure> {
    match command {
        AuditCommand::List(options) => list(session, options).await,
        AuditCommand::Tail(options) => tail(session, options).await,
    }
}

fn filter_of(selection: AuditSelection) -> AuditFilter {
    let AuditSelection { actor, subject, refused } = selection;
    AuditFilter { actor: actor.unwrap_or_default(), subject: subject.unwrap_or_default(), since: None, refused }
}

async fn list(session: &mut Session, options: ListAudit) -> Result<(), Failure> {
    let ListAudit { selection, since, limit } = options;
    let now = session.now();
    let since = since.map(|since| {
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        flotilla_proto::Timestamp(now.0.saturating_sub(millis)).to_proto()
    });
    let filter = AuditFilter { since, ..filter_of(selection) };
    let (records, _) = last(&session.client, &filter, limit).await?;
    if records.is_empty() && !session.wants_document() {
        session.note("no audit records");
        return Ok(());
    }
    session.show(&Shown {
        document: &AuditRecordsDocument { records: records.iter().map(AuditDocument::from).collect() },
        names: records.iter().map(name).collect(),
        table: &|width| columns(headers(width), &rows(&records, width)),
    })
}

/// The last records that match, oldest first, and from where to watch on.
async fn last(client: &Client, filter: &AuditFilter, number: u32) -> Result<(Vec<AuditRecord>, String), Failure> {
    newest(number, async |missing, page_token| {
        let (page_size, filter) = (missing.clamp(1, PAGE_SIZE), Some(filter.clone()));
        let request = ListAuditRecordsRequest { page_size, page_token, filter };
        let page = client.answer(client.audit().list_audit_records(client.request(request)).await)?;
        Ok(Page { entries: page.records, next_page_token: page.next_page_token, revision: page.revision })
    })
    .await
}

async fn tail(session: &mut Session, options: TailAudit) -> Result<(), Failure> {
    let TailAudit { selection, last: number } = options;
    let filter = filter_of(selection);
    let (records, revision) = last(&session.client, &filter, number).await?;
    let mut teller = Teller::begin(session, &records)?;
    follow(session, filter, revision, &mut teller).await
}

async fn follow(
    session: &mut Session,
    filter: AuditFilter,
    mut revision: String,
    teller: &mut Teller,
) -> Result<(), Failure> {
    let mut messages = Messages::after_an_answer(session.client.program());
    loop {
        let open = |client: &control::Client| {
            let (filter, resume_from_revision) = (Some(filter.clone()), revision.clone());
            let mut client = client.audit();
            async move { client.watch_audit_records(WatchAuditRecordsRequest { resume_from_revision, filter }).await }
        };
        match messages.next(open).await {
            Ok(message) => {
                if !message.revision.is_empty() {
                    revision = message.revision;
                }
                match message.event {
                    Some(Message::Recorded(record)) => teller.tell(session, &record)?,
                    Some(Message::Synced(_)) | None => {}
                }
            }
            Err(Broken::Compacted) => {
                session.note("what was recorded meanwhile is left out here; see it with `flotilla audit list`");
                revision.clear();
            }
            Err(Broken::Failed(error)) => return Err(error.into()),
        }
    }
}

/// Tells of records one after another.
enum Teller {
    Streamed(Notation),
    Names,
    Table(GrowingTable, Width),
}

impl Teller {
    /// Begins with some.
    fn begin(session: &mut Session, records: &[AuditRecord]) -> Result<Self, Failure> {
        let width = match session.format {
            OutputFormat::Json => return Self::Streamed(Notation::Json).all(session, records),
            OutputFormat::Yaml => return Self::Streamed(Notation::Yaml).all(session, records),
            OutputFormat::Name => return Self::Names.all(session, records),
            OutputFormat::Table => Width::Normal,
            OutputFormat::Wide => Width::Wide,
        };
        // The columns are as wide as those that come will need.
        let (table, text) = if records.is_empty() {
            let (table, text) = GrowingTable::begin(headers(width), &rows(&[typical()], width));
            let header = text.lines().next().map(|header| format!("{}\n", header.trim_end())).unwrap_or_default();
            (table, header)
        } else {
            GrowingTable::begin(headers(width), &rows(records, width))
        };
        session.out.write_all(text.as_bytes())?;
        session.out.flush()?;
        Ok(Self::Table(table, width))
    }

    fn all(mut self, session: &mut Session, records: &[AuditRecord]) -> Result<Self, Failure> {
        for record in records {
            self.tell(session, record)?;
        }
        Ok(self)
    }

    fn tell(&mut self, session: &mut Session, record: &AuditRecord) -> Result<(), Failure> {
        match self {
            Self::Streamed(notation) => {
                write_streamed(&mut session.out, *notation, &AuditDocument::from(record))?;
            }
            Self::Names => writeln!(session.out, "{}", name(record))?,
            Self::Table(table, width) => session.out.write_all(table.row(&row(record, *width)).as_bytes())?,
        }
        Ok(session.out.flush()?)
    }
}

/// A record as long as they usually are.
fn typical() -> AuditRecord {
    AuditRecord {
        time: Some(flotilla_proto::Timestamp(0).to_proto()),
        actor: "operator".to_owned(),
        role: "operator".to_owned(),
        address: "192.168.100.100:50000".to_owned(),
        call: "EnvironmentService/ResyncEnvironment".to_owned(),
        subject: "environment/spree-production".to_owned(),
        ..AuditRecord::default()
    }
}

fn name(record: &AuditRecord) -> String {
    format!("audit/{}", record.revision)
}

fn headers(width: Width) -> &'static [(&'static str, Align)] {
    const ALL: [(&str, Align); 10] = [
        ("time", Align::Left),
        ("actor", Align::Left),
        ("role", Align::Left),
        ("address", Align::Left),
        ("call", Align::Left),
        ("subject", Align::Left),
        ("result", Align::Left),
        ("details", Align::Left),
        ("request id", Align::Left),
        ("message", Align::Left),
    ];
    match width {
        Width::Normal => &ALL[..7],
        Width::Wide => &ALL,
    }
}

fn rows(records: &[AuditRecord], width: Width) -> Vec<Vec<String>> {
    records.iter().map(|record| row(record, width)).collect()
}

fn row(record: &AuditRecord, width: Width) -> Vec<String> {
    let mut row = vec![
        record.time.as_ref().map(rfc3339).unwrap_or_default(),
        or_dash(&record.actor),
        or_dash(&record.role),
        or_dash(&record.address),
        record.call.clone(),
        or_dash(&record.subject),
        result(record),
    ];
    if width == Width::Wide {
        row.extend([&record.details, &record.request_id, &record.message].map(|text| or_dash(text)));
    }
    row
}

/// What came of it, in a word; and how many others were refused that have no record.
fn result(record: &AuditRecord) -> String {
    let word = match record.reason.as_str() {
        "" => code_name(Code::from_i32(record.code)),
        reason => reason,
    };
    match record.left_out {
        0 => word.to_owned(),
        left_out => format!("{word} (and {left_out} more)"),
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::Timestamp;

    use super::*;

    fn records() -> [AuditRecord; 3] {
        let done = AuditRecord {
            revision: "3.7".to_owned(),
            time: Some(Timestamp(1_793_000_000_123).to_proto()),
            actor: "ops".to_owned(),
            role: "admin".to_owned(),
            address: "10.0.0.7:50123".to_owned(),
            call: "EnvironmentService/DeleteEnvironment".to_owned(),
            subject: "environment/spree-production".to_owned(),
            details: "purge".to_owned(),
            request_id: "r-1".to_owned(),
            ..AuditRecord::default()
        };
        let refused = AuditRecord {
            revision: "3.8".to_owned(),
            actor: "ci".to_owned(),
            role: "viewer".to_owned(),
            subject: String::new(),
            details: String::new(),
            request_id: String::new(),
            code: Code::PermissionDenied.into(),
            reason: "ROLE_TOO_SMALL".to_owned(),
            message: "EnvironmentService/DeleteEnvironment needs role admin; \"ci\" has role viewer".to_owned(),
            left_out: 12,
            ..done.clone()
        };
        let cancelled = AuditRecord {
            revision: "3.9".to_owned(),
            call: "StoreService/CheckStore".to_owned(),
            subject: "store/eu".to_owned(),
            address: String::new(),
            code: Code::Cancelled.into(),
            ..done.clone()
        };
        [done, refused, cancelled]
    }

    #[test]
    fn tables() {
        let table = |width| columns(headers(width), &rows(&records(), width));
        insta::assert_snapshot!("records", table(Width::Normal));
        insta::assert_snapshot!("records_wide", table(Width::Wide));
    }

    #[test]
    fn documents() {
        let [_, refused, _] = records();
        insta::assert_snapshot!("document", serde_json::to_string_pretty(&AuditDocument::from(&refused)).unwrap());
    }
}
