//! Redis: alone, behind Sentinels, as a cluster. Redis 6.2 or newer.
//!
//! Writes and looks go over one tracked connection, so that Redis tells of foreign writes; staging, comparisons and
//! reading go over a second one, so that they delay no patch.

// All servers of a store, and the way to the one that has a prefix.
mod link;
// One server: its connections.
mod node;
// Whether a server tells who else changes its keys.
mod tracking;
// What a server tells of itself.
mod info;
// Who wants to know what the servers tell.
mod registry;
// Which server has which keys.
mod layout;
// Whom to ask for that.
mod guide;
// Looks a store over, for those who want to know before they use it.
mod check;
// From a URL to clients of servers.
mod target;
// The Lua scripts, their arguments and answers.
mod script;

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::{Prefix, StoreUrl};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{FromRedisValue, RedisError, Value, cmd};
use tokio::sync::{Semaphore, SemaphorePermit, watch};

pub(crate) use self::check::check;
use self::link::Link;
use self::node::Connections;
use self::target::Target;
use super::{FenceStep, FlagStore, Look, Op, Outcome, StoreError, StoreNews, StoredItem, Urgency, hash_suffix};
use crate::dataset::{Body, Comparison, Evidence, ItemId, Snapshot};
use crate::secrets::Secrets;
use crate::source::Kind;

/// Comparisons and loads under way at once on one store, so that a thousand environments do not make a storm.
const HEAVY_AT_ONCE: usize = 8;
/// How long one of them waits for its turn.
const TURN: Duration = Duration::from_secs(30);
/// Fields asked for at a time when a hash is read: few enough that Redis answers others in between.
const PAGE: usize = 100;
/// Items, and bytes, that are staged by one script.
const CHUNK_ITEMS: usize = 100;
const CHUNK_BYTES: usize = 256 * 1024;

/// One Redis database.
#[derive(Debug)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    link: Link,
    heavy: Semaphore,
    listing: Semaphore,
}

/// The keys of a prefix.
#[derive(Debug, Clone)]
struct Keys {
    prefix: Prefix,
}

impl Keys {
    /// The four that every script declares: fence, features, segments, marker.
    fn all(&self) -> Vec<String> {
        ["$flotilla", "features", "segments", "$inited"]
            .iter()
            .map(|name| format!("{}:{name}", self.prefix))
            .collect()
    }

    fn hash(&self, kind: Kind) -> String {
        format!("{}{}", self.prefix, hash_suffix(kind))
    }
}

impl RedisStore {
    /// Opens a store; the connections are made in the background and made anew for ever.
    pub fn connect(url: &StoreUrl, secrets: &Secrets) -> Result<Self, StoreError> {
        let target = Target { url: url.clone(), secrets: secrets.clone() };
        Ok(Self {
            shared: Arc::new(Shared {
                link: Link::open(target),
                heavy: Semaphore::new(HEAVY_AT_ONCE),
                listing: Semaphore::new(1),
            }),
        })
    }
}

impl FlagStore for RedisStore {
    fn execute(&self, prefix: &Prefix, op: Op) -> BoxFuture<'static, Outcome> {
        let shared = Arc::clone(&self.shared);
        let keys = Keys { prefix: prefix.clone() };
        async move { shared.execute(&keys, op).await.unwrap_or_else(Outcome::Failed) }.boxed()
    }

    fn news(&self, prefix: &Prefix) -> watch::Receiver<StoreNews> {
        self.shared.link.news(prefix)
    }
}

impl Shared {
    async fn execute(&self, keys: &Keys, op: Op) -> Result<Outcome, StoreError> {
        match op {
            Op::Look => self.look(keys).await,
            Op::Write(write) => {
                self.script(keys, &script::WRITE, &keys.all(), |call| {
                    script::write_arguments(call, &write);
                })
                .await
            }
            Op::Purge(step) => {
                self.script(keys, &script::PURGE, &keys.all(), |call| {
                    script::step_arguments(call, &step);
                })
                .await
            }
            Op::Load { step, snapshot } => self.load(keys, &step, &snapshot).await,
            Op::Compare { snapshot, urgency, evidence } => self.compare(keys, &snapshot, urgency, evidence).await,
            Op::List => self.list(keys).await,
            Op::Read(id) => {
                let mut at = self.link.connections(&keys.prefix).await?;
                let mut call = cmd("HGET");
                call.arg(keys.hash(id.kind)).arg(&*id.key);
                match call.query_async(&mut at.bulk).await {
                    Ok(body) => Ok(Outcome::Read(body)),
                    Err(error) if error.code() == Some("WRONGTYPE") => Ok(Outcome::Read(None)),
                    Err(error) => Err(self.failed(&at, &error)),
                }
            }
        }
    }

    async fn look(&self, keys: &Keys) -> Result<Outcome, StoreError> {
        let at = self.link.connections(&keys.prefix).await?;
        let answer = self.call(&at, at.main.clone(), &script::LOOK, &keys.all(), |_| {}).await?;
        Ok(match script::outcome(answer)? {
            Outcome::Looked(look) => Outcome::Looked(Look { untracked: at.untracked(), ..look }),
            other => other,
        })
    }

    /// Runs a script on the tracked connection.
    async fn script(
        &self,
        keys: &Keys,
        script: &script::Script,
        names: &[String],
        fill: impl Fn(&mut redis::Cmd),
    ) -> Result<Outcome, StoreError> {
        let at = self.link.connections(&keys.prefix).await?;
        script::outcome(self.call(&at, at.main.clone(), script, names, fill).await?)
    }

    /// Runs a script on one of a server's connections, and loads it first where the server does not know it: then it has
    /// not run.
    async fn call(
        &self,
        at: &Connections,
        mut connection: MultiplexedConnection,
        script: &script::Script,
        names: &[String],
        fill: impl Fn(&mut redis::Cmd),
    ) -> Result<Value, StoreError> {
        let mut call = script.call(names);
        fill(&mut call);
        match call.query_async(&mut connection).await {
            Err(error) if error.code() == Some("NOSCRIPT") => {
                script.load().exec_async(&mut connection).await.map_err(|error| self.failed(at, &error))?;
                call.query_async(&mut connection).await.map_err(|error| self.failed(at, &error))
            }
            answer => answer.map_err(|error| self.failed(at, &error)),
        }
    }

    /// Waits for its turn among what takes long.
    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        let turn = tokio::time::timeout(TURN, self.heavy.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or_else(|| {
            StoreError::NotDone("too many comparisons and loads of the store are under way".to_owned())
        })
    }

    /// Stages both hashes under names of their own and renames them into place in one step.
    async fn load(&self, keys: &Keys, step: &FenceStep, snapshot: &Snapshot) -> Result<Outcome, StoreError> {
        let _turn = self.turn().await?;
        // The fence's next value is never used twice, and so neither are the names made of it.
        let nonce = crate::fence::digest(step.next.as_bytes());
        let staged = |part: &str| format!("{}:$flotilla:stage:{nonce}:{part}", keys.prefix);
        let names = ["features", "segments"].map(staged);
        let outcome = match self.stage(keys, &names, snapshot).await {
            Ok(()) => {
                let mut all = keys.all();
                all.extend(names.clone());
                all.extend(["old-features", "old-segments"].map(staged));
                let counts = [snapshot.flags.len(), snapshot.segments.len()];
                self.script(keys, &script::LOAD, &all, |call| script::load_arguments(call, step, counts)).await
            }
            Err(error) => Err(error),
        };
        if !matches!(outcome, Ok(Outcome::Done { .. })) {
            self.unstage(keys, &names).await;
        }
        outcome
    }

    async fn stage(&self, keys: &Keys, names: &[String; 2], snapshot: &Snapshot) -> Result<(), StoreError> {
        let at = self.link.connections(&keys.prefix).await?;
        for (name, items) in names.iter().zip([&snapshot.flags, &snapshot.segments]) {
            for chunk in chunks(items) {
                let key = std::slice::from_ref(name);
                let staging = self
                    .call(&at, at.bulk.clone(), &script::STAGE, key, |call| script::stage_arguments(call, chunk));
                // Nothing of the environment itself was touched yet.
                let answer = staging.await.map_err(|error| StoreError::NotDone(error.to_string()))?;
                if !script::is_staged(&answer) {
                    return Err(StoreError::NotDone("the store did not stage a chunk".to_owned()));
                }
            }
        }
        Ok(())
    }

    /// Takes back what a load that came to nothing has left. What stays for all that expires by itself.
    async fn unstage(&self, keys: &Keys, names: &[String; 2]) {
        if let Ok(Connections { mut bulk, .. }) = self.link.connections(&keys.prefix).await {
            let _ = cmd("UNLINK").arg(names).exec_async(&mut bulk).await;
        }
    }

    async fn compare(
        &self,
        keys: &Keys,
        snapshot: &Snapshot,
        urgency: Urgency,
        evidence: Evidence,
    ) -> Result<Outcome, StoreError> {
        let _turn = match urgency {
            Urgency::Now => self.turn().await?,
            Urgency::WhenIdle => match self.heavy.try_acquire() {
                Ok(turn) => turn,
                Err(_) => return Ok(Outcome::Busy),
            },
        };
        let mut comparison = Comparison::new(snapshot, evidence);
        for kind in [Kind::Flag, Kind::Segment] {
            self.scan(keys, kind, |field, value| comparison.found(kind, field, value)).await?;
        }
        Ok(Outcome::Compared(comparison.differences()))
    }

    async fn list(&self, keys: &Keys) -> Result<Outcome, StoreError> {
        // People who look must not hold up workers who write.
        let _turn = self.listing.acquire().await;
        let mut items = Vec::new();
        for kind in [Kind::Flag, Kind::Segment] {
            self.scan(keys, kind, |field, value| {
                let id = ItemId { kind, key: String::from_utf8_lossy(field).into() };
                items.push(StoredItem::of(id, value));
            })
            .await?;
        }
        // A scan may return a field twice.
        items.sort_by(|a, b| a.id.cmp(&b.id));
        items.dedup_by(|a, b| a.id == b.id);
        Ok(Outcome::Listed(items))
    }

    /// Reads a hash page by page.
    async fn scan(&self, keys: &Keys, kind: Kind, mut found: impl FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let mut at = self.link.connections(&keys.prefix).await?;
        let hash = keys.hash(kind);
        let mut cursor = "0".to_owned();
        loop {
            let mut call = cmd("HSCAN");
            call.arg(&hash).arg(&cursor).arg("COUNT").arg(PAGE);
            let page: Value = match call.query_async(&mut at.bulk).await {
                Ok(page) => page,
                // No hash, so nothing is in it.
                Err(error) if error.code() == Some("WRONGTYPE") => return Ok(()),
                Err(error) => return Err(self.failed(&at, &error)),
            };
            let (next, fields) = <(String, Vec<Vec<u8>>)>::from_redis_value(page)
                // The error would quote the whole page.
                .map_err(|_| StoreError::NotDone("the store's answer to HSCAN is not understood".to_owned()))?;
            for pair in fields.chunks_exact(2) {
                found(&pair[0], &pair[1]);
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }

    /// What an error means for the operation, and for the connection.
    fn failed(&self, at: &Connections, error: &RedisError) -> StoreError {
        if error.is_connection_dropped() || error.is_unrecoverable_error() {
            at.broken();
        }
        match error.code() {
            // The server answered with an error: a script that is refused has not begun. In a cluster it may be that the slot
            // has moved (MOVED), or is about to (ASK, TRYAGAIN), of which nothing follows about the keys.
            Some(code) => {
                let detail = error.detail().unwrap_or_default();
                // Redis 6 wraps what a script's command was answered.
                let says = |word: &str| code == word || detail.contains(&format!("-{word} "));
                if says("READONLY") || says("MASTERDOWN") {
                    // It may be a master no more, and its name may lead elsewhere by now.
                    at.demoted();
                }
                if code == "MOVED"
                    && let Some((to, slot)) = error.redirect_node()
                {
                    self.link.moved(slot, to);
                }
                let message = format!("the store answered {code}: {detail}");
                // A script may have done something before it came to what the user may not do.
                if says("NOPERM") { StoreError::Unknown(message) } else { StoreError::NotDone(message) }
            }
            None if error.is_timeout() => StoreError::Unknown("the store did not answer in time".to_owned()),
            None => StoreError::Unknown(format!("the connection to the store failed: {error}")),
        }
    }
}

/// Error and detail, without the client's own words around them.
fn plain(error: &RedisError) -> String {
    match (error.code(), error.detail()) {
        (Some(code), Some(detail)) => format!("{code} {detail}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => error.to_string(),
    }
}

/// Cuts items into pieces that one script may carry.
fn chunks(items: &[(Arc<str>, Body)]) -> impl Iterator<Item = &[(Arc<str>, Body)]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest
            .iter()
            .take(CHUNK_ITEMS)
            .take_while(|(key, body)| {
                bytes += key.len() + body.len();
                bytes <= CHUNK_BYTES
            })
            .count();
        // An item above the limit goes alone.
        let (chunk, others) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = others;
        (!chunk.is_empty()).then_some(chunk)
    })
}
