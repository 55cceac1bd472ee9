//! Stores: what an environment asks of one, and what it answers.
//!
//! The operations are data, so that the environment's machine decides on them without doing I/O, and a model can stand in
//! for Redis. [`Stores`] hands out one [`FlagStore`] per store URL.

// Redis: a server, behind Sentinels, or a cluster.
pub mod redis;
// What stands in for it.
#[cfg(any(test, feature = "simulation"))]
pub mod model;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use flotilla_proto::{Prefix, StoreUrl};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::dataset::{Body, Differences, Evidence, ItemId, Snapshot};
use crate::fence::{FenceKind, Found};
use crate::secrets::Secrets;
use crate::source::Kind;

/// Above this many bytes of keys and bodies, or [`SCRIPT_FIELDS`], a difference is staged rather than written by one script.
pub const SCRIPT_BYTES: usize = 256 * 1024;
/// See [`SCRIPT_BYTES`].
pub const SCRIPT_FIELDS: usize = 500;
/// How long the fence of a paused or removed environment stays.
pub const RELEASED_FENCE: std::time::Duration = std::time::Duration::from_hours(7 * 24);

/// What an environment asks of its store. Each is atomic for readers.
#[derive(Debug, Clone)]
pub enum Op {
    /// Read the fence, the marker and the counts.
    Look,
    /// Change items if the fence is the expected one.
    Write(Write),
    /// Replace both hashes in one step if the fence is the expected one.
    Load { step: FenceStep, snapshot: Arc<Snapshot> },
    /// Delete everything but the fence, which becomes a released one, if the fence is the expected one.
    Purge(FenceStep),
    /// Read both hashes and name the items that differ, with the evidence that is asked for.
    Compare { snapshot: Arc<Snapshot>, urgency: Urgency, evidence: Evidence },
    /// Read the keys, versions and sizes of the items.
    List,
    /// Read one item.
    Read(ItemId),
}

impl Op {
    /// One word for it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Write(_) => "write",
            Self::Load { .. } => "load",
            Self::Purge(_) => "purge",
            Self::Compare { .. } => "compare",
            Self::List => "list",
            Self::Read(_) => "read",
        }
    }
}

/// Whether a comparison holds other work up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Nothing is written before it.
    Now,
    /// It verifies what should be known: if others are being compared, it can wait.
    WhenIdle,
}

/// From one value of the fence to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceStep {
    /// What must stand there; `None`: nothing.
    pub expected: Option<String>,
    /// What stands there afterwards.
    pub next: String,
    /// Of which kind the next value is. A released one expires after [`RELEASED_FENCE`].
    pub kind: FenceKind,
}

/// A small change, written by one script.
#[derive(Debug, Clone)]
pub struct Write {
    /// The fence before and after.
    pub step: FenceStep,
    /// Items to set.
    pub set: Vec<(ItemId, Body)>,
    /// Items to remove.
    pub remove: Vec<ItemId>,
    /// Set the marker if it is not there.
    pub marker: bool,
}

/// What stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The fence.
    pub found: Found,
    /// Whether the marker exists.
    pub marker: bool,
    /// Fields of the flags' hash.
    pub flags: u64,
    /// Fields of the segments' hash.
    pub segments: u64,
    /// What is wrong with the keys, if something is.
    pub damage: Option<Damage>,
    /// Why the store does not tell at once who else changes the keys; `None`: it does.
    pub untracked: Option<Arc<str>>,
}

/// What somebody else may have done to keys as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// One would expire. Every write under a serving fence ends that.
    Expiry,
    /// One of the items' or the marker is of another type. A load replaces it.
    Type,
}

/// An item that the store holds, without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// Which.
    pub id: ItemId,
    /// The version in its text; 0: there is none.
    pub version: u64,
    /// Bytes of its text.
    pub bytes: u64,
}

impl StoredItem {
    /// What a stored text is.
    pub fn of(id: ItemId, body: &[u8]) -> Self {
        #[derive(serde::Deserialize)]
        struct Versioned {
            #[serde(default)]
            version: u64,
        }
        let version = serde_json::from_slice::<Versioned>(body).map_or(0, |item| item.version);
        Self { id, version, bytes: body.len() as u64 }
    }
}

/// The answer to an [`Op`].
#[derive(Debug)]
pub enum Outcome {
    /// To a look.
    Looked(Look),
    /// The write, load or purge is done, and the fence is the next one.
    Done {
        /// Fields of the flags' hash afterwards.
        flags: u64,
        /// Fields of the segments' hash afterwards.
        segments: u64,
    },
    /// The fence is not the expected one; nothing was done.
    Refused(Found),
    /// To a comparison.
    Compared(Differences),
    /// To a comparison that can wait: the store is busy with others, nothing was compared.
    Busy,
    /// To a list.
    Listed(Vec<StoredItem>),
    /// To a read.
    Read(Option<Vec<u8>>),
    /// It failed.
    Failed(StoreError),
}

/// A store operation that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Nobody knows whether it was done: no answer in time, or the connection broke. Look, then go on from there.
    #[error("{0}")]
    Unknown(String),
    /// It was not done: no connection, or the store said no. Try again.
    #[error("{0}")]
    NotDone(String),
}

/// News of a store that an environment has not asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreNews {
    /// Grows with every new connection, and with every one that is lost.
    pub connection: u64,
    /// Grows when somebody else touched one of the prefix's keys.
    pub touched: u64,
    /// Grows when the server has thrown keys away, whosever they were.
    pub evictions: u64,
}

/// A place that holds flag data.
pub trait FlagStore: fmt::Debug + Send + Sync {
    /// Carries out one operation, within a time limit of its own. Dropping the future leaves the outcome unknown.
    fn execute(&self, prefix: &Prefix, op: Op) -> BoxFuture<'static, Outcome>;

    /// News about the keys of a prefix, until the receiver is dropped.
    fn news(&self, prefix: &Prefix) -> watch::Receiver<StoreNews>;
}

/// Where stores come from.
pub trait OpenStore: fmt::Debug + Send + Sync {
    /// The store behind a URL. It does not wait for a connection. An error names what is wrong with the URL.
    fn open(&self, url: &StoreUrl) -> Result<Arc<dyn FlagStore>, StoreError>;
}

/// The stores of a worker, one per URL, shared by its environments. A store lives for as long as one of them holds it.
#[derive(Default)]
pub struct Stores {
    /// Where passwords are that URLs do not hold.
    secrets: Secrets,
    /// By the whole URL, which may hold a password: never to be shown.
    open: Mutex<HashMap<String, Weak<dyn FlagStore>>>,
}

impl Stores {
    /// Passwords that URLs only refer to are read there.
    pub fn new(secrets: Secrets) -> Self {
        Self { secrets, open: Mutex::default() }
    }
}

impl OpenStore for Stores {
    /// Connects in the background when the store is new.
    fn open(&self, url: &StoreUrl) -> Result<Arc<dyn FlagStore>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, store| store.strong_count() > 0);
        if let Some(store) = open.get(url.expose()).and_then(Weak::upgrade) {
            return Ok(store);
        }
        let store: Arc<dyn FlagStore> = Arc::new(redis::RedisStore::connect(url, &self.secrets)?);
        open.insert(url.expose().to_owned(), Arc::downgrade(&store));
        Ok(store)
    }
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("Stores").field("open", &open).finish_non_exhaustive()
    }
}

/// The key suffix of a kind's hash.
pub fn hash_suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => ":features",
        Kind::Segment => ":segments",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stores_are_shared_forgotten_and_never_shown() {
        let url = |text| StoreUrl::parse("url", text).unwrap();
        let stores = Stores::default();
        let first = stores.open(&url("redis://:hunter2@127.0.0.1:1")).unwrap();
        let same = stores.open(&url("redis://:hunter2@127.0.0.1:1")).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        assert_eq!(format!("{stores:?}"), "Stores { open: 1, .. }");
        drop((first, same));
        let _other = stores.open(&url("redis://:hunter2@127.0.0.1:1/2")).unwrap();
        assert_eq!(format!("{stores:?}"), "Stores { open: 1, .. }", "the first was forgotten");
    }
}
