//! What control keeps on disk, behind a narrow trait: everything at start, then changes, a transaction at a time.

// One SQLite file, for one process.
mod sqlite;

pub(crate) use sqlite::{AuditReader, AuditReading, SqliteStore};

use std::fmt;
use std::path::PathBuf;

use flotilla_proto::process::SealingError;
use flotilla_proto::{FleetId, Term};

use crate::audit::LastRecord;
use crate::fleet::{Change, Remembered};

/// What a store holds when control starts.
#[derive(Debug, Clone)]
pub(crate) struct Loaded {
    /// The fleet's identity, made at the first start.
    pub(crate) fleet: FleetId,
    /// The term that begins with this start: one above the highest stored.
    pub(crate) term: Term,
    /// Environments, epochs, stores and request ids.
    pub(crate) remembered: Remembered,
    /// Where the audit records stand.
    pub(crate) audit: LastRecord,
}

/// The durable memory of control. Calls block: the driver makes them where blocking is allowed.
pub(crate) trait Store: fmt::Debug + Send + 'static {
    /// Begins a term, durably, and returns what is remembered. Called once, first.
    fn load(&mut self) -> Result<Loaded, StoreError>;

    /// Makes the changes durable, all or none, in the order given.
    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError>;
}

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// Another control has the directory: stop that one, or choose another directory.
    #[error("the data directory {} is in use by another flotilla-control; stop it or choose another --data-dir", directory.display())]
    InUse {
        /// The data directory.
        directory: PathBuf,
    },
    /// A file cannot be made or opened: mend its place or its permissions.
    #[error("cannot use {} (see --data-dir)", path.display())]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was written by a later version: start that one.
    #[error(
        "{} was written by a newer flotilla-control (schema {found}, this version knows up to {known})",
        path.display()
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its schema.
        found: i64,
        /// The newest schema known here.
        known: i64,
    },
    /// What was read makes no sense: restore a backup.
    #[error("the database holds a value that cannot be read: {what}")]
    Corrupt {
        /// Which value; never a secret.
        what: String,
    },
    /// Secrets cannot be opened: give the key that they were sealed with.
    #[error(transparent)]
    Sealed(#[from] SealingError),
    /// The database failed: a full or broken disk.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
}
