//! What happened: lists of it, and following it.

use std::collections::BTreeSet;

use flotilla_proto::{EnvironmentName, FieldViolation, Refusal, Timestamp, WorkerName, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::page::Page;
use super::watch::{End, Sink, Watch, follow, lost, resume_from, spawn};
use super::{Api, environment_name, worker_name};
use crate::driver::{DriverHandle, Events, Lost, Revision, View};
use crate::fleet::EventRecord;

/// Events that are looked at in one go.
const LOOK: usize = 512;

type Happening = v1::watch_events_response::Event;

/// Which events are meant.
#[derive(Debug, Clone, Default)]
pub(super) struct Filter {
    environment: Option<EnvironmentName>,
    worker: Option<WorkerName>,
    types: BTreeSet<v1::EventType>,
}

impl Filter {
    fn parse(message: Option<v1::EventFilter>) -> Result<Self, Refusal> {
        let Some(message) = message else { return Ok(Self::default()) };
        let given = |text: &str| !text.is_empty();
        let types = message.types.iter().map(|number| match v1::EventType::try_from(*number) {
            Ok(kind) if kind != v1::EventType::Unspecified => Ok(kind),
            Ok(_) | Err(_) => Err(FieldViolation::new("filter.types", &format!("{number} is no type of event"))),
        });
        Ok(Self {
            types: types.collect::<Result<_, _>>()?,
            environment: given(&message.environment)
                .then(|| environment_name("filter.environment", &message.environment))
                .transpose()?,
            worker: given(&message.worker).then(|| worker_name("filter.worker", &message.worker)).transpose()?,
        })
    }

    fn matches(&self, record: &EventRecord) -> bool {
        let event = &record.event;
        let of_worker =
            |worker: &WorkerName| event.worker.as_ref() == Some(worker) || event.from.as_ref() == Some(worker);
        self.environment.as_ref().is_none_or(|wanted| event.environment.as_ref() == Some(wanted))
            && self.worker.as_ref().is_none_or(of_worker)
            && (self.types.is_empty() || self.types.contains(&event.kind))
    }
}

fn show(record: &EventRecord) -> v1::Event {
    let EventRecord { number: _, term: _, at, event } = record;
    let text = |name: Option<&str>| name.unwrap_or_default().to_owned();
    v1::Event {
        revision: Events::revision_of(record).to_string(),
        time: Some(Timestamp::to_proto(*at)),
        r#type: event.kind.into(),
        environment: text(event.environment.as_ref().map(EnvironmentName::as_str)),
        worker: text(event.worker.as_ref().map(WorkerName::as_str)),
        from_worker: text(event.from.as_ref().map(WorkerName::as_str)),
        epoch: event.epoch.unwrap_or_default().0,
        reason: event.reason.clone(),
        message: event.message.clone(),
    }
}

/// A page of what happened, newest first.
pub(super) async fn list(api: &Api, request: v1::ListEventsRequest) -> Result<v1::ListEventsResponse, Refusal> {
    let listing = request.filter.as_ref().map(prost::Message::encode_to_vec).unwrap_or_default();
    let page = Page::parse(request.page_size, &request.page_token, &listing)?;
    let filter = Filter::parse(request.filter)?;
    let before = page.after.parse::<u64>().ok();
    api.driver.read(move |view| list_page(view, &page, before, &filter)).await
}

fn list_page(view: &View<'_>, page: &Page, before: Option<u64>, filter: &Filter) -> v1::ListEventsResponse {
    let matching = view.events.before(before).filter(|record| filter.matches(record));
    let (events, next_page_token) = page.fill(matching.map(|record| (record.number.to_string(), show(record))));
    let revision = view.events.newest().map(|newest| newest.to_string()).unwrap_or_default();
    v1::ListEventsResponse { events, next_page_token, revision }
}

/// Starts to follow what happens. It ends when the caller leaves, its revision is lost, or control stops.
pub(super) fn watch(
    api: &Api,
    request: v1::WatchEventsRequest,
) -> Result<ReceiverStream<Result<v1::WatchEventsResponse, Status>>, Refusal> {
    let from = resume_from(&request.resume_from_revision)?;
    let filter = Filter::parse(request.filter)?;
    let driver = api.driver.clone();
    Ok(spawn(api, async move |sink| {
        follow(&driver, from.map(Some), Watcher { driver: driver.clone(), filter, sink }).await
    }))
}

struct Watcher {
    driver: DriverHandle,
    filter: Filter,
    sink: Sink<v1::WatchEventsResponse>,
}

impl Watch for Watcher {
    /// Before the first event there is none.
    type Place = Option<Revision>;

    /// What has happened is not told: that is what lists are for.
    async fn begin(&mut self) -> Result<Option<Revision>, End> {
        Ok(self.driver.read(|view| view.events.newest()).await?)
    }

    async fn catch_up(&mut self, mut at: Option<Revision>) -> Result<Option<Revision>, End> {
        loop {
            let look = move |view: &View<'_>| match at {
                Some(revision) => view.events.since(revision, LOOK),
                // There was nothing yet: all that there is now is news.
                None => Ok(view.events.oldest_first(LOOK)),
            };
            let records = self.driver.read(look).await?.map_err(|Lost| lost())?;
            let Some(last) = records.last() else { return Ok(at) };
            at = Some(Events::revision_of(last));
            for record in records.iter().filter(|record| self.filter.matches(record)) {
                self.send(Happening::Happened(show(record)), Some(Events::revision_of(record))).await?;
            }
        }
    }

    async fn synced(&mut self, at: Option<Revision>) -> Result<(), End> {
        self.send(Happening::Synced(v1::WatchEventsSynced {}), at).await
    }
}

impl Watcher {
    async fn send(&self, event: Happening, revision: Option<Revision>) -> Result<(), End> {
        let revision = revision.map(|revision| revision.to_string()).unwrap_or_default();
        let message = v1::WatchEventsResponse { event: Some(event), revision };
        self.sink.send(Ok(message)).await.map_err(|_| End::Left)
    }
}
