//! The store as one SQLite file, `flotilla.db`, in the data directory.
//!
//! The file is created with mode 0600, and SQLite gives its write-ahead log the mode of the file, so SDK keys and store
//! passwords are at no moment readable by others; with a key they are sealed besides. A second control is kept out by a
//! lock on `flotilla.lock`, which the kernel lets go when the process ends, however it ends. With `synchronous=FULL` a
//! commit that returned survives kill -9 and a power cut.

// Tables, and how a newer version changes them.
mod schema;
// Rows to types and back.
mod rows;
// Secrets in rows.
mod secrets;
// The last events.
mod events;
// Who asked for what.
mod audit;
#[cfg(test)]
mod tests;

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use flotilla_proto::process::{SealCondition, Sealing};
use flotilla_proto::{FleetId, Term};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior, params};

pub(crate) use audit::{AuditReader, AuditReading};

use super::{Loaded, Store, StoreError};
use crate::fleet::Change;

/// The file.
const DATABASE: &str = "flotilla.db";
/// How long to wait for another program (a backup) that reads the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A store in one SQLite file, used by one process at a time.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    connection: Connection,
    sealing: Sealing,
    // Held as long as the store: the lock goes with the file. None has a store that is in no file.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens or creates the store in `directory`, which is created (mode 0700) if it is not there.
    pub(crate) fn open(directory: &Path, sealing: Sealing) -> Result<Self, StoreError> {
        let unusable = |path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| StoreError::Unusable { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable(directory))?;
        let lock = lock(directory)?;
        let path = directory.join(DATABASE);
        private_file(&path).map_err(unusable(&path))?;
        // The entries of new files are part of what a power cut must not take.
        File::open(directory).and_then(|entry| entry.sync_all()).map_err(unusable(directory))?;
        let connection = connect(&path)?;
        Ok(Self { connection, sealing, _lock: Some(lock) })
    }
}

impl SqliteStore {
    /// Takes the write-ahead log into the database: it may hold what was not sealed yet, or with an earlier key, also from
    /// a start that was cut off.
    fn empty_log(&self) -> Result<(), StoreError> {
        let is_busy: bool = self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        if is_busy {
            tracing::warn!(
                "another program reads the database: secrets that were not sealed before may stay in its log until the next start"
            );
        }
        Ok(())
    }
}

#[cfg(feature = "simulation")]
impl SqliteStore {
    /// A store in memory, for a fleet of that id.
    pub(crate) fn in_memory(fleet: &str) -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        schema::migrate(&mut connection, Path::new(":memory:"))?;
        connection.execute("INSERT INTO fleet (only, id, term) VALUES (1, ?1, 0)", params![fleet])?;
        Ok(Self { connection, sealing: Sealing::default(), _lock: None })
    }
}

fn lock(directory: &Path) -> Result<File, StoreError> {
    let path = directory.join("flotilla.lock");
    let unusable = |source| StoreError::Unusable { path: path.clone(), source };
    let lock = private_file(&path).map_err(unusable)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

/// Opens or creates a file that only its owner can read: it is created so, there is no moment when it is not.
fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    // One that was there before, say restored from a backup, may have been left open to others.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        let source = io::Error::other(format!("the file system allows journal mode {mode:?} only, not WAL"));
        return Err(StoreError::Unusable { path: path.to_owned(), source });
    }
    connection.pragma_update(None, "synchronous", "FULL")?;
    // Deleted keys are overwritten in the database, not only unlinked. Its log has them until it is taken in and begun anew.
    connection.pragma_update(None, "secure_delete", "ON")?;
    schema::migrate(&mut connection, path)?;
    Ok(connection)
}

impl Store for SqliteStore {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let stored: Option<(String, i64)> = transaction
            .query_row("SELECT id, term FROM fleet", [], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (id, term) = stored.unwrap_or_else(|| (uuid::Uuid::new_v4().to_string(), 0));
        let fleet: FleetId = id.parse().map_err(|error| rows::corrupt("fleet id", &error))?;
        let term = Term(term.cast_unsigned()).next();
        transaction.execute(
            "INSERT INTO fleet (only, id, term) VALUES (1, ?1, ?2) ON CONFLICT (only) DO UPDATE SET term = ?2",
            params![fleet.as_str(), term.0.cast_signed()],
        )?;
        let (remembered, seals) = rows::remembered(&transaction, &self.sealing)?;
        if seals == SealCondition::Outdated {
            rows::seal_again(&transaction, &remembered, &self.sealing)?;
        }
        transaction.commit()?;
        if self.sealing.is_on() {
            self.empty_log()?;
        }
        let audit = audit::last(&self.connection)?;
        Ok(Loaded { fleet, term, remembered, audit })
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            rows::apply(&transaction, change, &self.sealing)?;
        }
        transaction.commit()?;
        Ok(())
    }
}
