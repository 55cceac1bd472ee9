//! Events: rows to types and back. Of them only the last ones are kept.

use flotilla_proto::{EnvironmentName, Epoch, Term, Timestamp, WorkerName, v1};
use rusqlite::{Connection, Row, params};

use super::rows::{corrupt, number};
use crate::driver::EVENTS_KEPT;
use crate::fleet::{Event, EventRecord};
use crate::store::StoreError;

/// Adds an event, and takes off what is one too many.
pub(super) fn put(transaction: &Connection, record: &EventRecord) -> Result<(), StoreError> {
    let EventRecord { number, term, at, event } = record;
    transaction
        .prepare(
            "INSERT OR REPLACE INTO events
                (number, term, at, kind, environment, worker, from_worker, epoch, reason, message)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            number.cast_signed(),
            term.0.cast_signed(),
            at.0.cast_signed(),
            i32::from(event.kind),
            event.environment.as_ref().map(EnvironmentName::as_str),
            event.worker.as_ref().map(WorkerName::as_str),
            event.from.as_ref().map(WorkerName::as_str),
            event.epoch.map(|epoch| epoch.0.cast_signed()),
            event.reason,
            event.message,
        ])?;
    let last_to_go = number.saturating_sub(EVENTS_KEPT as u64).cast_signed();
    transaction.prepare("DELETE FROM events WHERE number <= ?1")?.execute([last_to_go])?;
    Ok(())
}

/// Reads those that are kept, oldest first.
pub(super) fn read(connection: &Connection) -> Result<Vec<EventRecord>, StoreError> {
    let mut statement = connection.prepare("SELECT * FROM events ORDER BY number")?;
    let mut rows = statement.query([])?;
    let mut events = Vec::new();
    while let Some(row) = rows.next()? {
        events.push(event(row)?);
    }
    Ok(events)
}

fn event(row: &Row<'_>) -> Result<EventRecord, StoreError> {
    let kind: i32 = row.get("kind")?;
    Ok(EventRecord {
        number: number(row, "number")?,
        term: Term(number(row, "term")?),
        at: Timestamp(number(row, "at")?),
        event: Event {
            kind: v1::EventType::try_from(kind).map_err(|error| corrupt("the kind of an event", &error))?,
            environment: name(row, "environment")?,
            worker: name(row, "worker")?,
            from: name(row, "from_worker")?,
            epoch: row.get::<_, Option<i64>>("epoch")?.map(|epoch| Epoch(epoch.cast_unsigned())),
            reason: row.get("reason")?,
            message: row.get("message")?,
        },
    })
}

fn name<T: std::str::FromStr<Err = flotilla_proto::InvalidName>>(
    row: &Row<'_>,
    column: &str,
) -> Result<Option<T>, StoreError> {
    let text: Option<String> = row.get(column)?;
    text.map(|text| text.parse().map_err(|error| corrupt(column, &error))).transpose()
}
