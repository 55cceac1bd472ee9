//! Client tracking: a server tells at once when somebody else touches a key, as long as it may and has room to remember
//! whom to tell.

use std::collections::HashMap;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, cmd};
use tokio::sync::watch;

use super::info::{Info, is_refusal};
use super::plain;

/// Why a server does not tell who else changes its keys; nothing: it does.
pub(super) type Untracked = Option<Arc<str>>;

/// The setting that says how many keys a server remembers, and Redis' default of it. 0: as many as there are.
const LIMIT: &str = "tracking-table-max-keys";
const DEFAULT_LIMIT: u64 = 1_000_000;

/// Whether what a server tells can be relied on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reliance {
    /// As before.
    Same,
    /// It can be from now on, or can be no more: changes may have gone untold.
    Changed,
}

/// Asks a server to tell, on one connection, and watches whether it does.
#[derive(Debug)]
pub(super) struct Tracking {
    untracked: watch::Sender<Untracked>,
}

impl Tracking {
    /// Asks the server to tell. It may refuse: then the paced looks find foreign writes, only later.
    pub(super) async fn begin(
        connection: &mut MultiplexedConnection,
        untracked: watch::Sender<Untracked>,
    ) -> Result<Self, RedisError> {
        let mut tracking = Self { untracked };
        tracking.check(connection).await?;
        Ok(tracking)
    }

    /// Asks again. It is a sign of life, too.
    pub(super) async fn check(&mut self, connection: &mut MultiplexedConnection) -> Result<Reliance, RedisError> {
        let before = self.untracked.borrow().clone();
        let now = why_untracked(connection, before.is_some()).await?;
        if now == before {
            return Ok(Reliance::Same);
        }
        self.untracked.send_replace(now);
        Ok(Reliance::Changed)
    }
}

/// Has the server tell who else changes keys; why it does not, or not reliably, if so. A key for which there is no room is
/// forgotten, unannounced to whoever caused it. One that has just forgotten some is as good as full.
pub(super) async fn why_untracked(
    connection: &mut MultiplexedConnection,
    was_untracked: bool,
) -> Result<Untracked, RedisError> {
    match cmd("CLIENT").arg("TRACKING").arg("ON").arg("NOLOOP").exec_async(connection).await {
        Ok(()) => {}
        Err(error) if is_refusal(&error) => {
            return Ok(Some(format!("the server refuses client tracking: {}", plain(&error)).into()));
        }
        Err(error) => return Err(error),
    }
    let stats = match Info::ask(connection, Some("stats")).await {
        Ok(stats) => stats,
        // Not every user may ask.
        Err(error) if is_refusal(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let tracked: u64 = stats.get("tracking_total_keys").parse().unwrap_or_default();
    let limit = limit(connection).await?;
    let bound = if was_untracked { limit / 10 * 9 } else { limit };
    let is_full = limit > 0 && tracked >= bound;
    Ok(is_full.then(|| format!("the server's table of tracked keys is full ({LIMIT} is {limit})").into()))
}

async fn limit(connection: &mut MultiplexedConnection) -> Result<u64, RedisError> {
    let mut question = cmd("CONFIG");
    question.arg("GET").arg(LIMIT);
    match question.query_async::<HashMap<String, u64>>(connection).await {
        Ok(answer) => Ok(answer.get(LIMIT).copied().unwrap_or(DEFAULT_LIMIT)),
        Err(error) if is_refusal(&error) => Ok(DEFAULT_LIMIT),
        Err(error) => Err(error),
    }
}
