//! `flotilla events`.

use std::io::Write as _;

use flotilla_proto::client::{self as control, Broken, Messages};
use flotilla_proto::v1::watch_events_response::Event as Message;
use flotilla_proto::v1::{Event, EventFilter, EventType, ListEventsRequest, WatchEventsRequest};

use crate::arguments::{Events, OutputFormat};
use crate::client::Client;
use crate::failure::Failure;
use crate::newest::{Page, newest};
use crate::output::document::{EventDocument, EventsDocument, event_type_text};
use crate::output::text::{or_dash, printable, rfc3339};
use crate::output::{Notation, Shown, write_streamed};
use crate::session::Session;

/// Entries of a page, at most.
const PAGE_SIZE: u32 = 500;

/// Runs `flotilla events`.
pub(crate) async fn run(session: &mut Session, options: &Events) -> Result<(), Failure> {
    let filter = EventFilter {
        environment: options.environment.as_ref().map(ToString::to_string).unwrap_or_default(),
        worker: options.worker.as_ref().map(ToString::to_string).unwrap_or_default(),
        types: options.types.iter().map(|kind| EventType::from(*kind).into()).collect(),
    };
    let (events, revision) = last(&session.client, &filter, options.last).await?;
    if options.follow {
        for event in &events {
            tell(session, event)?;
        }
        return follow(session, filter, revision).await;
    }
    if events.is_empty() && !session.wants_document() {
        session.note("no events");
        return Ok(());
    }
    session.show(&Shown {
        document: &EventsDocument { events: events.iter().map(Into::into).collect() },
        names: events.iter().map(|event| format!("event/{}", event.revision)).collect(),
        table: &|_| events.iter().map(line).collect(),
    })
}

/// The last events that match, oldest first, and from where to watch on.
async fn last(client: &Client, filter: &EventFilter, number: u32) -> Result<(Vec<Event>, String), Failure> {
    newest(number, async |missing, page_token| {
        let (page_size, filter) = (missing.clamp(1, PAGE_SIZE), Some(filter.clone()));
        let request = ListEventsRequest { page_size, page_token, filter };
        let page = client.answer(client.fleet().list_events(client.request(request)).await)?;
        Ok(Page { entries: page.events, next_page_token: page.next_page_token, revision: page.revision })
    })
    .await
}

async fn follow(session: &mut Session, filter: EventFilter, mut revision: String) -> Result<(), Failure> {
    let mut messages = Messages::after_an_answer(session.client.program());
    loop {
        let open = |client: &control::Client| {
            let (filter, resume_from_revision) = (Some(filter.clone()), revision.clone());
            let mut client = client.fleet();
            async move { client.watch_events(WatchEventsRequest { resume_from_revision, filter }).await }
        };
        match messages.next(open).await {
            Ok(message) => {
                if !message.revision.is_empty() {
                    revision = message.revision;
                }
                match message.event {
                    Some(Message::Happened(event)) => tell(session, &event)?,
                    Some(Message::Synced(_)) | None => {}
                }
            }
            Err(Broken::Compacted) => {
                session.note("what happened meanwhile is left out here; see it with `flotilla events`");
                revision.clear();
            }
            Err(Broken::Failed(error)) => return Err(error.into()),
        }
    }
}

/// One event of a stream of them.
fn tell(session: &mut Session, event: &Event) -> Result<(), Failure> {
    match session.format {
        OutputFormat::Json => write_streamed(&mut session.out, Notation::Json, &EventDocument::from(event)),
        OutputFormat::Yaml => write_streamed(&mut session.out, Notation::Yaml, &EventDocument::from(event)),
        OutputFormat::Name => Ok(writeln!(session.out, "event/{}", event.revision)?),
        OutputFormat::Table | OutputFormat::Wide => Ok(session.out.write_all(line(event).as_bytes())?),
    }?;
    Ok(session.out.flush()?)
}

/// An event as a person reads it: when, what, about what, and a sentence.
fn line(event: &Event) -> String {
    let time = event.time.as_ref().map(rfc3339).unwrap_or_default();
    let subject = match (event.environment.as_str(), event.worker.as_str()) {
        ("", worker) => or_dash(worker),
        (environment, _) => environment.to_owned(),
    };
    let kind = event_type_text(event.r#type());
    format!("{time}  {kind:<22}  {subject:<24}  {}\n", printable(&event.message))
}

#[cfg(test)]
mod tests {
    use flotilla_proto::Timestamp;

    use super::*;

    #[test]
    fn lines() {
        let moved = Event {
            revision: "3.7".to_owned(),
            time: Some(Timestamp(1_793_000_000_123).to_proto()),
            r#type: EventType::Moved.into(),
            environment: "spree-production".to_owned(),
            worker: "w2".to_owned(),
            from_worker: "w1".to_owned(),
            epoch: 7,
            reason: "draining".to_owned(),
            message: "moved from w1 to w2, epoch 7 (draining)".to_owned(),
        };
        let gone = Event {
            r#type: EventType::WorkerChanged.into(),
            environment: String::new(),
            worker: "w1".to_owned(),
            message: "worker w1 has nothing left".to_owned(),
            ..moved.clone()
        };
        insta::assert_snapshot!(format!("{}{}", line(&moved), line(&gone)));
    }
}
