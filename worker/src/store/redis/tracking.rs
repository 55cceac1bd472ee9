//! Client tracking: a server tells at once when somebody else touches a key, as long as it may and has room to remember
//! whom to tell. The tracked connection also says which run of the server it leads to.

use std::collections::HashMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::sync::watch;

use super::plain;

/// Why a server does not tell who else changes its keys; nothing: it does.
pub(super) type Untracked = Option<Arc<str>>;

/// The setting that says how many keys a server remembers, and Redis' default of it.
const LIMIT: &str = "tracking-table-max-keys";
const DEFAULT_LIMIT: u64 = 1_000_000;

/// What a server is known to tell.
#[derive(Debug)]
pub(super) struct Tracking {
    /// Another one: the server was restarted, or is not the same. `None`: the user may not ask.
    pub(super) run_id: Option<String>,
    untracked: watch::Sender<Untracked>,
    /// Keys that the server remembers; 0: as many as there are, or none anyway.
    limit: u64,
    is_full: bool,
}

/// Whether a server still remembers what it is to tell.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// It does as it did.
    AsBefore,
    /// It has begun to forget: changes may have gone untold.
    Full,
}

impl Tracking {
    /// Asks the server to tell. A server may refuse: then the paced looks find foreign writes, only later.
    pub(super) async fn begin(
        connection: &mut MultiplexedConnection,
    ) -> Result<(Self, watch::Receiver<Untracked>), RedisError> {
        let asked = cmd("CLIENT").arg("TRACKING").arg("ON").arg("NOLOOP").exec_async(connection).await;
        let refused = match asked {
            Ok(()) => None,
            Err(error) if error.is_connection_dropped() || error.is_timeout() => return Err(error),
            Err(error) => Some(format!("the server refuses client tracking: {}", plain(&error)).into()),
        };
        if let Some(why) = &refused {
            tracing::warn!(error = %why, "foreign writes to the store will be found later");
        }
        let run_id = info(connection, "server", "run_id").await?;
        let limit = if refused.is_some() { 0 } else { limit(connection).await };
        let (untracked, told) = watch::channel(refused);
        Ok((Self { run_id, untracked, limit, is_full: false }, told))
    }

    /// Asks for a sign of life, and whether all keys are remembered: a key for which there is no room is forgotten
    /// unannounced.
    pub(super) async fn check(&mut self, connection: &mut MultiplexedConnection) -> Result<Memory, RedisError> {
        let Some(tracked) = info(connection, "stats", "tracking_total_keys").await? else {
            cmd("PING").exec_async(connection).await?;
            return Ok(Memory::AsBefore);
        };
        let tracked: u64 = tracked.parse().unwrap_or_default();
        // One that has just forgotten some is as good as full.
        let bound = if self.is_full { self.limit / 10 * 9 } else { self.limit };
        let is_full = self.limit > 0 && tracked >= bound;
        if is_full == std::mem::replace(&mut self.is_full, is_full) {
            return Ok(Memory::AsBefore);
        }
        if !is_full {
            self.untracked.send_replace(None);
            return Ok(Memory::AsBefore);
        }
        let why = format!("the server's table of tracked keys is full ({LIMIT} is {})", self.limit);
        tracing::warn!(error = why, "foreign writes to the store will be found later");
        self.untracked.send_replace(Some(why.into()));
        Ok(Memory::Full)
    }
}

/// How many keys the server remembers. Not every user may ask.
async fn limit(connection: &mut MultiplexedConnection) -> u64 {
    let mut question = cmd("CONFIG");
    question.arg("GET").arg(LIMIT);
    let answer = question.query_async::<HashMap<String, u64>>(connection).await.unwrap_or_default();
    answer.get(LIMIT).copied().unwrap_or(DEFAULT_LIMIT)
}

/// One figure of `INFO`; `None`: the server does not have it, or the user may not ask.
async fn info(
    connection: &mut MultiplexedConnection,
    section: &str,
    name: &str,
) -> Result<Option<String>, RedisError> {
    match cmd("INFO").arg(section).query_async::<String>(connection).await {
        Ok(text) => Ok(text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value.trim().to_owned())),
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        Err(error) => Err(error),
    }
}
