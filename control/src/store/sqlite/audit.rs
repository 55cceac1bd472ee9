//! Audit records: written by the store, read over a connection of their own.

use std::path::Path;
use std::sync::Arc;

use flotilla_proto::{Term, Timestamp, v1};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, named_params, params};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::{BUSY_TIMEOUT, DATABASE, rows};
use crate::audit::{AuditFilter, AuditRecord, LastRecord, Outcomes, Place, SubjectPattern};
use crate::driver::Revision;
use crate::store::StoreError;

/// Records that are kept, at most, of each kind; the oldest go first. Those of the door are counted on their own, for
/// strangers must not push out what others did.
const MOST_KEPT: Most = Most { inside: 900_000, at_door: 100_000 };
/// Records that are deleted in one go, for each reason: more than are made between two.
const MOST_PRUNED: u64 = 5000;

#[derive(Clone, Copy)]
struct Most {
    inside: u64,
    at_door: u64,
}

/// Adds a record.
pub(super) fn put(transaction: &Connection, record: &AuditRecord) -> Result<(), StoreError> {
    let AuditRecord { number, term, at, entry, outcome, place } = record;
    let (at_door, left_out) = match place {
        Place::Inside => (false, 0),
        Place::Door { left_out } => (true, *left_out),
    };
    transaction
        .prepare(
            "INSERT INTO audit (number, term, at, actor, role, address, call, subject, details, code, reason,
                message, request_id, at_door, left_out)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            number.cast_signed(),
            term.0.cast_signed(),
            at.0.cast_signed(),
            entry.actor,
            entry.role,
            entry.address,
            entry.call,
            entry.subject,
            entry.details,
            i32::from(outcome.code),
            outcome.reason,
            outcome.message,
            entry.request_id,
            at_door,
            left_out.cast_signed(),
        ])?;
    Ok(())
}

/// Deletes some of those that are too old, or too many.
pub(super) fn prune(transaction: &Connection, before: Timestamp) -> Result<(), StoreError> {
    prune_to(transaction, before, MOST_KEPT)
}

fn prune_to(transaction: &Connection, before: Timestamp, most: Most) -> Result<(), StoreError> {
    transaction
        .prepare("DELETE FROM audit WHERE number IN (SELECT number FROM audit WHERE at < ?1 ORDER BY at LIMIT ?2)")?
        .execute([before.0.cast_signed(), MOST_PRUNED.cast_signed()])?;
    // Their numbers span at least as many: where they do not, there is nothing to count.
    let span: Option<i64> = transaction.query_row(
        "SELECT (SELECT max(number) FROM audit) - (SELECT min(number) FROM audit) + 1",
        [],
        |row| row.get(0),
    )?;
    for (kind, most) in [("at_door = 0", most.inside), ("at_door = 1", most.at_door)] {
        if span.unwrap_or_default().cast_unsigned() > most {
            let sql = format!(
                "DELETE FROM audit WHERE number IN
                    (SELECT number FROM audit WHERE {kind} ORDER BY number DESC LIMIT ?1 OFFSET ?2)"
            );
            transaction.prepare(&sql)?.execute([MOST_PRUNED.cast_signed(), most.cast_signed()])?;
        }
    }
    Ok(())
}

/// Where the records stand.
pub(super) fn last(connection: &Connection) -> Result<LastRecord, StoreError> {
    let number: Option<i64> = connection
        .query_row("SELECT seq FROM sqlite_sequence WHERE name = 'audit'", [], |row| row.get(0))
        .optional()?;
    let number = number.unwrap_or_default().cast_unsigned();
    Ok(LastRecord { number, term: term_of(connection, number)? })
}

fn term_of(connection: &Connection, number: u64) -> Result<Option<Term>, StoreError> {
    let term: Option<i64> = connection
        .query_row("SELECT term FROM audit WHERE number = ?1", [number.cast_signed()], |row| row.get(0))
        .optional()?;
    Ok(term.map(|term| Term(term.cast_unsigned())))
}

/// Reads records while the store writes, one reader at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AuditReader(Arc<Mutex<Connection>>);

/// The one that reads now. Calls block.
#[derive(Debug)]
pub(crate) struct AuditReading(OwnedMutexGuard<Connection>);

/// Records with their numbers.
pub(crate) type Numbered = Vec<(u64, v1::AuditRecord)>;

const MATCHING: &str = "(:actor IS NULL OR actor = :actor)
    AND (:subject IS NULL OR subject = :subject)
    AND (:prefix IS NULL OR substr(subject, 1, length(:prefix)) = :prefix)
    AND at >= :since AND (:failed = 0 OR code <> 0)";

impl AuditReader {
    /// Opens the database of a store that is open.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(directory.join(DATABASE), flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Waits for those who read. Who waits takes no thread, so that a commit never lacks one.
    pub(crate) async fn begin(&self) -> AuditReading {
        AuditReading(Arc::clone(&self.0).lock_owned().await)
    }
}

impl AuditReading {
    /// The last records that match of those before a number, newest first.
    pub(crate) fn before(&self, number: u64, filter: &AuditFilter, limit: usize) -> Result<Numbered, StoreError> {
        let sql =
            format!("SELECT * FROM audit WHERE number < :number AND {MATCHING} ORDER BY number DESC LIMIT :limit");
        self.query(&sql, number.cast_signed(), filter, limit)
    }

    /// The first records that match of those after a number, oldest first.
    pub(crate) fn after(&self, number: u64, filter: &AuditFilter, limit: usize) -> Result<Numbered, StoreError> {
        let sql = format!("SELECT * FROM audit WHERE number > :number AND {MATCHING} ORDER BY number LIMIT :limit");
        self.query(&sql, number.cast_signed(), filter, limit)
    }

    /// Whether a record is kept, and is the one that had its number in that term.
    pub(crate) fn has(&self, revision: Revision) -> Result<bool, StoreError> {
        Ok(term_of(&self.0, revision.number())? == Some(revision.term()))
    }

    fn query(&self, sql: &str, number: i64, filter: &AuditFilter, limit: usize) -> Result<Numbered, StoreError> {
        let (subject, prefix) = match &filter.subject {
            None => (None, None),
            Some(SubjectPattern::Exactly(subject)) => (Some(subject), None),
            Some(SubjectPattern::Prefix(prefix)) => (None, Some(prefix)),
        };
        let mut statement = self.0.prepare(sql)?;
        let mut found = statement.query(named_params! {
            ":number": number,
            ":actor": filter.actor,
            ":subject": subject,
            ":prefix": prefix,
            ":since": filter.since.0.cast_signed(),
            ":failed": filter.outcomes == Outcomes::Failed,
            ":limit": i64::try_from(limit).unwrap_or(i64::MAX),
        })?;
        let mut records = Vec::new();
        while let Some(row) = found.next()? {
            records.push(record(row)?);
        }
        Ok(records)
    }
}

fn record(row: &Row<'_>) -> Result<(u64, v1::AuditRecord), StoreError> {
    let number = rows::number(row, "number")?;
    let record = v1::AuditRecord {
        revision: Revision::at(Term(rows::number(row, "term")?), number).to_string(),
        time: Some(Timestamp(rows::number(row, "at")?).to_proto()),
        actor: row.get("actor")?,
        role: row.get("role")?,
        address: row.get("address")?,
        call: row.get("call")?,
        subject: row.get("subject")?,
        details: row.get("details")?,
        code: row.get("code")?,
        reason: row.get("reason")?,
        message: row.get("message")?,
        request_id: row.get("request_id")?,
        left_out: rows::number(row, "left_out")?,
    };
    Ok((number, record))
}

#[cfg(test)]
mod tests {
    use flotilla_proto::process::Sealing;
    use flotilla_proto::{Reason, Refusal};

    use super::*;
    use crate::audit::{Attempt, AuditEntry, Kind, Outcome};
    use crate::fleet::Change;
    use crate::store::{SqliteStore, Store as _};

    fn record(number: u64, actor: &str, subject: &str) -> AuditRecord {
        AuditRecord {
            number,
            term: Term(2),
            at: Timestamp(number * 1000),
            entry: AuditEntry {
                actor: actor.to_owned(),
                subject: Kind::Environment.named(subject),
                ..AuditEntry::of_file(Path::new("f"), Attempt::First)
            },
            outcome: Outcome::done(),
            place: Place::Inside,
        }
    }

    fn refused(record: AuditRecord, place: Place) -> AuditRecord {
        let refusal = Refusal::new(Reason::CredentialMissing, "no");
        AuditRecord { outcome: Outcome::refused(&refusal), place, ..record }
    }

    fn opened(directory: &Path) -> (SqliteStore, AuditReading, LastRecord) {
        let mut store = SqliteStore::open(directory, Sealing::default()).unwrap();
        let last = store.load().unwrap().audit;
        let reader = AuditReader::open(directory).unwrap();
        (store, AuditReading(reader.0.try_lock_owned().unwrap()), last)
    }

    fn commit(store: &mut SqliteStore, records: impl IntoIterator<Item = AuditRecord>) {
        let changes: Vec<_> = records.into_iter().map(|record| Change::PutAudit(Box::new(record))).collect();
        store.commit(&changes).unwrap();
    }

    fn numbers(found: Numbered) -> Vec<u64> {
        found.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn what_is_asked_for_is_found_in_both_orders() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, reader, last) = opened(directory.path());
        assert_eq!(last, LastRecord::default());
        let door = Place::Door { left_out: 3 };
        commit(
            &mut store,
            [
                record(1, "ops", "spree-eu"),
                record(2, "ci", "spree-us"),
                refused(record(3, "ops", "spree-eu"), Place::Inside),
                record(4, "ops", "other"),
                refused(record(5, "", ""), door),
            ],
        );
        let by = |actor: &str| AuditFilter { actor: Some(actor.to_owned()), ..Default::default() };
        let about = |subject| AuditFilter { subject: Some(subject), ..Default::default() };
        let exactly = about(SubjectPattern::Exactly("environment/spree-eu".to_owned()));
        let prefix = about(SubjectPattern::Prefix("environment/spree-".to_owned()));
        let since = AuditFilter { since: Timestamp(3000), ..Default::default() };
        let failed = AuditFilter { outcomes: Outcomes::Failed, ..Default::default() };
        for (filter, expected) in [
            (AuditFilter::default(), vec![1, 2, 3, 4, 5]),
            (by("ops"), vec![1, 3, 4]),
            (exactly, vec![1, 3]),
            (prefix, vec![1, 2, 3]),
            (since, vec![3, 4, 5]),
            (failed.clone(), vec![3, 5]),
            (AuditFilter { outcomes: Outcomes::Failed, ..by("ops") }, vec![3]),
        ] {
            assert_eq!(numbers(reader.after(0, &filter, 10).unwrap()), expected, "{filter:?}");
            let newest_first: Vec<_> = expected.into_iter().rev().collect();
            assert_eq!(numbers(reader.before(9, &filter, 10).unwrap()), newest_first, "{filter:?}");
        }
        assert_eq!(numbers(reader.before(4, &AuditFilter::default(), 2).unwrap()), [3, 2]);
        assert_eq!(numbers(reader.after(2, &AuditFilter::default(), 2).unwrap()), [3, 4]);
        let (_, shown) = reader.before(9, &failed, 1).unwrap().remove(0);
        assert_eq!((shown.revision.as_str(), shown.code, shown.left_out), ("2.5", 16, 3));
        assert!(reader.has(Revision::at(Term(2), 5)).unwrap());
        assert!(!reader.has(Revision::at(Term(1), 5)).unwrap() && !reader.has(Revision::at(Term(2), 6)).unwrap());
    }

    #[test]
    fn the_old_go_and_strangers_push_nobody_out_and_numbers_go_on() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, reader, _) = opened(directory.path());
        let door = |number| refused(record(number, "", ""), Place::Door { left_out: 0 });
        commit(&mut store, [record(1, "ops", "a"), record(2, "ops", "a"), door(3), door(4), door(5)]);
        store.commit(&[Change::PruneAudit { before: Timestamp(2000) }]).unwrap();
        let all = AuditFilter::default();
        assert_eq!(numbers(reader.after(0, &all, 10).unwrap()), [2, 3, 4, 5]);
        let most = Most { inside: 2, at_door: 2 };
        prune_to(&store.connection, Timestamp(0), most).unwrap();
        assert_eq!(numbers(reader.after(0, &all, 10).unwrap()), [2, 4, 5]);
        // However many of the door there were, what was done inside stays.
        commit(&mut store, [door(2_000_000), record(2_000_001, "ops", "a"), record(2_000_002, "ops", "a")]);
        prune_to(&store.connection, Timestamp(0), most).unwrap();
        assert_eq!(numbers(reader.after(0, &all, 10).unwrap()), [5, 2_000_000, 2_000_001, 2_000_002]);
        store.commit(&[Change::PruneAudit { before: Timestamp(u64::MAX >> 1) }]).unwrap();
        assert_eq!(reader.after(0, &all, 10).unwrap().len(), 0);
        drop((store, reader));
        let (_, _, last) = opened(directory.path());
        assert_eq!(last, LastRecord { number: 2_000_002, term: None });
    }

    #[test]
    fn a_change_whose_record_cannot_be_kept_is_not_kept_either() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, _, _) = opened(directory.path());
        commit(&mut store, [record(1, "ops", "a")]);
        let change = Change::PutEnded { uid: "u".parse().unwrap(), at: Timestamp(1) };
        store.commit(&[change, Change::PutAudit(Box::new(record(1, "ops", "a")))]).unwrap_err();
        assert!(store.load().unwrap().remembered.ended.is_empty());
    }

    #[test]
    fn records_are_not_changed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut store, reader, _) = opened(directory.path());
        commit(&mut store, [record(1, "ops", "a")]);
        let error = store.connection.execute("UPDATE audit SET actor = 'nobody'", []).unwrap_err();
        assert!(error.to_string().contains("never changed"), "{error}");
        let twice = [Change::PutAudit(Box::new(record(1, "nobody", "a")))];
        store.commit(&twice).unwrap_err();
        let (_, kept) = reader.after(0, &AuditFilter::default(), 10).unwrap().remove(0);
        assert_eq!(kept.actor, "ops");
        assert!(reader.0.execute("DELETE FROM audit", []).is_err(), "it only reads");
    }
}
