//! Stores: what an environment asks of one, and what it answers.
//!
//! The operations are data, so that the environment's machine decides on them without doing I/O, and a model can stand in
//! for Redis. [`Stores`] hands out one [`FlagStore`] per store URL.

// Redis, alone or through a Unix socket.
pub mod redis;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_proto::{Prefix, StoreUrl};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use crate::dataset::{ItemId, Snapshot};
use crate::fence::Found;
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
    /// Read both hashes and name the items that differ.
    Compare(Arc<Snapshot>),
    /// Read the keys, versions and sizes of the items.
    List,
    /// Read one item.
    Read(ItemId),
}

/// From one value of the fence to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceStep {
    /// What must stand there; `None`: nothing.
    pub expected: Option<String>,
    /// What stands there afterwards.
    pub next: String,
    /// The next value is a released one, and expires after [`RELEASED_FENCE`].
    pub released: bool,
}

/// A small change, written by one script.
#[derive(Debug, Clone)]
pub struct Write {
    /// The fence before and after.
    pub step: FenceStep,
    /// Items to set.
    pub set: Vec<(ItemId, Arc<[u8]>)>,
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
}

/// An item as the store holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredItem {
    /// Which.
    pub id: ItemId,
    /// Its text.
    pub body: Vec<u8>,
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
    /// To a comparison: the items that differ.
    Compared(Vec<ItemId>),
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
}

/// A place that holds flag data.
pub trait FlagStore: fmt::Debug + Send + Sync {
    /// Carries out one operation, within a time limit of its own. Dropping the future leaves the outcome unknown.
    fn execute(&self, prefix: &Prefix, op: Op) -> BoxFuture<'static, Outcome>;

    /// News about the keys of a prefix, until the receiver is dropped.
    fn news(&self, prefix: &Prefix) -> watch::Receiver<StoreNews>;
}

/// The stores of a worker, one per URL, shared by its environments.
#[derive(Debug, Default)]
pub struct Stores {
    open: Mutex<HashMap<String, Arc<dyn FlagStore>>>,
}

impl Stores {
    /// The store behind a URL; connects in the background when it is new. An error names what is wrong with the URL.
    pub fn open(&self, url: &StoreUrl) -> Result<Arc<dyn FlagStore>, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = open.get(url.expose()) {
            return Ok(Arc::clone(store));
        }
        let store: Arc<dyn FlagStore> = Arc::new(redis::RedisStore::connect(url)?);
        open.insert(url.expose().to_owned(), Arc::clone(&store));
        Ok(store)
    }
}

/// The key suffix of a kind's hash.
pub fn hash_suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => ":features",
        Kind::Segment => ":segments",
    }
}
