//! The tables, and how each version changes those of the one before. A step, once released, is never edited.

use std::path::Path;

use rusqlite::{Connection, TransactionBehavior};

use crate::store::StoreError;

/// Step N takes a database from `user_version` N to N + 1.
pub(super) const MIGRATIONS: [&str; 7] = [
    // Numbers are 64 bits, stored as SQLite's signed ones; times are milliseconds since 1970.
    "CREATE TABLE fleet (
        only INTEGER PRIMARY KEY CHECK (only = 1),
        id TEXT NOT NULL,
        term INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE environments (
        name TEXT PRIMARY KEY,
        uid TEXT NOT NULL,
        spec BLOB NOT NULL,             -- flotilla.v1.EnvironmentSpec
        sdk_key TEXT,
        pending_key TEXT,
        paused INTEGER NOT NULL,
        removal TEXT,                   -- release, purge
        generation INTEGER NOT NULL,
        change_number INTEGER NOT NULL,
        resync INTEGER NOT NULL,
        take_over TEXT,                 -- any, or = and the fence's value
        grant_worker TEXT,
        grant_epoch INTEGER,
        grant_id TEXT,
        grant_intent INTEGER,           -- flotilla.v1.Intent
        released INTEGER,               -- an epoch
        created INTEGER NOT NULL,
        updated INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE epochs (
        store TEXT NOT NULL,
        prefix TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        PRIMARY KEY (store, prefix)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE stores (
        name TEXT PRIMARY KEY,
        url TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE requests (
        id TEXT PRIMARY KEY,
        digest TEXT NOT NULL,
        environment TEXT NOT NULL,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX requests_by_age ON requests (at);",
    // Environments that were removed or abandoned.
    "CREATE TABLE ended (
        uid TEXT PRIMARY KEY,
        at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX ended_by_age ON ended (at);",
    // How the last rotation of the SDK key failed.
    "ALTER TABLE environments ADD COLUMN rotation_failure TEXT;         -- other_environment, fewer_items, key_rejected
    ALTER TABLE environments ADD COLUMN rotation_message TEXT;",
    // Who had an environment before a handover that is not complete; workers that users cordoned or drained; events.
    "ALTER TABLE environments ADD COLUMN predecessor_worker TEXT;
    ALTER TABLE environments ADD COLUMN predecessor_epoch INTEGER;
    ALTER TABLE environments ADD COLUMN predecessor_id TEXT;
    CREATE TABLE workers (
        name TEXT PRIMARY KEY,
        scheduling TEXT NOT NULL        -- cordoned, draining
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE events (
        number INTEGER PRIMARY KEY,
        term INTEGER NOT NULL,
        at INTEGER NOT NULL,
        kind INTEGER NOT NULL,          -- flotilla.v1.EventType
        environment TEXT,
        worker TEXT,
        from_worker TEXT,
        epoch INTEGER,
        reason TEXT NOT NULL,
        message TEXT NOT NULL
    ) STRICT;",
    // Resync requests that accept what LaunchDarkly takes back.
    "ALTER TABLE environments ADD COLUMN accepted_resync INTEGER;",
    // Who asked for what. A number is never given twice, also when its record is deleted.
    "CREATE TABLE audit (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        term INTEGER NOT NULL,
        at INTEGER NOT NULL,
        actor TEXT NOT NULL,
        role TEXT NOT NULL,
        address TEXT NOT NULL,
        call TEXT NOT NULL,
        subject TEXT NOT NULL,
        details TEXT NOT NULL,
        code INTEGER NOT NULL,          -- google.rpc.Code
        reason TEXT NOT NULL,
        message TEXT NOT NULL,
        request_id TEXT NOT NULL,
        at_door INTEGER NOT NULL,       -- refused before it was read
        left_out INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX audit_by_age ON audit (at);
    CREATE INDEX audit_at_door ON audit (number) WHERE at_door = 1;
    CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit BEGIN
        SELECT RAISE(ABORT, 'audit records are never changed');
    END;",
    // The records of each kind are counted on their own.
    "CREATE INDEX audit_inside ON audit (number) WHERE at_door = 0;",
];

/// Brings the database to the newest schema, in one transaction.
pub(super) fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let known = i64::try_from(MIGRATIONS.len()).expect("a handful of migrations");
    let done = usize::try_from(found).ok().filter(|_| found <= known).ok_or_else(|| StoreError::TooNew {
        path: path.to_owned(),
        found,
        known,
    })?;
    for step in &MIGRATIONS[done..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "user_version", known)?;
    transaction.commit()?;
    Ok(())
}
