//! Who asked for what: lists of it, and following it. Records are read from the database, not through the driver.

use flotilla_proto::{FieldViolation, Reason, Refusal, Timestamp, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Api;
use super::page::Page;
use super::watch::{End, Sink, Watch, follow, lost, resume_from, spawn};
use crate::audit::{AuditFilter, Outcomes, SubjectPattern};
use crate::driver::{DriverHandle, Revision};
use crate::store::{AuditReader, AuditReading, StoreError};

/// Records that are looked at in one go.
const LOOK: usize = 256;
/// Longest actor or subject, in bytes.
const LONGEST_TEXT: usize = 512;

type Event = v1::watch_audit_records_response::Event;

/// The handler of `AuditService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

impl Handler {
    fn reader(&self) -> Result<AuditReader, Refusal> {
        let reader = self.0.audit.clone();
        reader.ok_or_else(|| Refusal::new(Reason::Internal, "this control's records are in no file"))
    }

    async fn list(&self, request: v1::ListAuditRecordsRequest) -> Result<v1::ListAuditRecordsResponse, Refusal> {
        let listing = request.filter.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default();
        let page = Page::parse(request.page_size, &request.page_token, &[b"audit:", listing.as_slice()].concat())?;
        let filter = parse_filter(request.filter)?;
        // The driver answers after its commit: what was answered to others by now is in the database. What comes after its
        // answer is for those who watch from there.
        let newest = self.0.driver.read(|view| view.audit).await?;
        let first = newest.map_or(0, Revision::number) + 1;
        let before = page.after.parse::<u64>().unwrap_or(first);
        let limit = page.size() + 1;
        let records = read(&self.reader()?, move |reading| reading.before(before, &filter, limit)).await?;
        let (records, next_page_token) =
            page.fill(records.into_iter().map(|(number, record)| (number.to_string(), record)));
        let revision = newest.map(|newest| newest.to_string()).unwrap_or_default();
        Ok(v1::ListAuditRecordsResponse { records, next_page_token, revision })
    }
}

/// Reads from the database, where blocking is allowed.
async fn read<T: Send + 'static>(
    reader: &AuditReader,
    read: impl FnOnce(&AuditReading) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Refusal> {
    let reading = reader.begin().await;
    let result = tokio::task::spawn_blocking(move || read(&reading).map_err(|error| error.to_string())).await;
    result.map_err(|error| error.to_string()).flatten().map_err(|error| {
        tracing::error!(error, "the audit records cannot be read");
        Refusal::new(Reason::Internal, format!("the audit records cannot be read: {error}"))
    })
}

fn parse_filter(message: Option<v1::AuditFilter>) -> Result<AuditFilter, Refusal> {
    let Some(v1::AuditFilter { actor, subject, since, refused }) = message else {
        return Ok(AuditFilter::default());
    };
    for (field, text) in [("filter.actor", &actor), ("filter.subject", &subject)] {
        if text.len() > LONGEST_TEXT {
            return Err(FieldViolation::new(field, &format!("longer than {LONGEST_TEXT} bytes")).into());
        }
    }
    Ok(AuditFilter {
        actor: Some(actor).filter(|actor| !actor.is_empty()),
        subject: match subject.strip_suffix('*') {
            _ if subject.is_empty() => None,
            Some(prefix) => Some(SubjectPattern::Prefix(prefix.to_owned())),
            None => Some(SubjectPattern::Exactly(subject)),
        },
        since: since.as_ref().map(Timestamp::from_proto).unwrap_or_default(),
        outcomes: if refused { Outcomes::Failed } else { Outcomes::All },
    })
}

#[tonic::async_trait]
impl v1::audit_service_server::AuditService for Handler {
    async fn list_audit_records(
        &self,
        request: Request<v1::ListAuditRecordsRequest>,
    ) -> Result<Response<v1::ListAuditRecordsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    type WatchAuditRecordsStream = ReceiverStream<Result<v1::WatchAuditRecordsResponse, Status>>;

    async fn watch_audit_records(
        &self,
        request: Request<v1::WatchAuditRecordsRequest>,
    ) -> Result<Response<Self::WatchAuditRecordsStream>, Status> {
        let request = request.into_inner();
        let from = resume_from(&request.resume_from_revision)?;
        let filter = parse_filter(request.filter)?;
        let (driver, reader) = (self.0.driver.clone(), self.reader()?);
        Ok(Response::new(spawn(&self.0, async move |sink| {
            if let Some(revision) = from {
                match is_known(&driver, &reader, revision).await {
                    Ok(true) => {}
                    Ok(false) => return lost().into(),
                    Err(refusal) => return refusal.into(),
                }
            }
            follow(&driver, from.map(Some), Watcher { driver: driver.clone(), reader, filter, sink }).await
        })))
    }
}

/// Whether a watch can go on from a revision: that of the newest record, which a list gives also where that record was
/// deleted for its age, or of one that is kept.
async fn is_known(driver: &DriverHandle, reader: &AuditReader, revision: Revision) -> Result<bool, Refusal> {
    let newest = driver.read(|view| view.audit).await?;
    if newest == Some(revision) {
        return Ok(true);
    }
    read(reader, move |reading| reading.has(revision)).await
}

struct Watcher {
    driver: DriverHandle,
    reader: AuditReader,
    filter: AuditFilter,
    sink: Sink<v1::WatchAuditRecordsResponse>,
}

impl Watch for Watcher {
    /// Before the first record there is none.
    type Place = Option<Revision>;

    /// What was recorded is not told: that is what lists are for.
    async fn begin(&mut self) -> Result<Option<Revision>, End> {
        Ok(self.driver.read(|view| view.audit).await?)
    }

    async fn catch_up(&mut self, mut at: Option<Revision>) -> Result<Option<Revision>, End> {
        // All up to here is in the database, whether it matches or not.
        let newest = self.driver.read(|view| view.audit).await?;
        let mut after = at.map_or(0, Revision::number);
        loop {
            let filter = self.filter.clone();
            let records = read(&self.reader, move |reading| reading.after(after, &filter, LOOK)).await?;
            let Some((last, _)) = records.last() else { return Ok(newest.max(at)) };
            after = *last;
            for (_, record) in records {
                let revision = record.revision.clone();
                at = Revision::parse(&revision);
                self.send(Event::Recorded(record), revision).await?;
            }
        }
    }

    async fn synced(&mut self, at: Option<Revision>) -> Result<(), End> {
        let revision = at.map(|revision| revision.to_string()).unwrap_or_default();
        self.send(Event::Synced(v1::WatchAuditRecordsSynced {}), revision).await
    }
}

impl Watcher {
    async fn send(&self, event: Event, revision: String) -> Result<(), End> {
        let message = v1::WatchAuditRecordsResponse { event: Some(event), revision };
        self.sink.send(Ok(message)).await.map_err(|_| End::Left)
    }
}
