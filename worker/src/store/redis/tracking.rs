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

/// What a server does not tell by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// Nothing new.
    Nothing,
    /// What it tells can be relied on from now on, or can be no more: changes may have gone untold.
    RelianceChanged,
    /// It has thrown keys away to make room. Of those that our own commands made it throw away it says nothing.
    Evicted,
}

/// How a server stands.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) untracked: Untracked,
    /// Keys thrown away since it started.
    evicted: u64,
}

/// Asks a server to tell, on one connection, and watches whether it does.
#[derive(Debug)]
pub(super) struct Tracking {
    untracked: watch::Sender<Untracked>,
    evicted: u64,
}

impl Tracking {
    /// Asks the server to tell. It may refuse: then the paced looks find foreign writes, only later.
    pub(super) async fn begin(
        connection: &mut MultiplexedConnection,
        untracked: watch::Sender<Untracked>,
    ) -> Result<Self, RedisError> {
        let standing = standing(connection, false).await?;
        untracked.send_replace(standing.untracked);
        Ok(Self { untracked, evicted: standing.evicted })
    }

    /// Asks again. It is a sign of life, too.
    pub(super) async fn check(&mut self, connection: &mut MultiplexedConnection) -> Result<Heard, RedisError> {
        let before = self.untracked.borrow().clone();
        let now = standing(connection, before.is_some()).await?;
        let evicted = std::mem::replace(&mut self.evicted, now.evicted);
        if now.untracked != before {
            self.untracked.send_replace(now.untracked);
            return Ok(Heard::RelianceChanged);
        }
        Ok(if now.evicted == evicted { Heard::Nothing } else { Heard::Evicted })
    }
}

/// Has the server tell who else changes keys, and asks what it does not tell by itself. A key for which there is no room
/// among those that it remembers is forgotten, unannounced to whoever caused it. One that has just forgotten some is as good
/// as full.
pub(super) async fn standing(
    connection: &mut MultiplexedConnection,
    was_untracked: bool,
) -> Result<Standing, RedisError> {
    let refused = match cmd("CLIENT").arg("TRACKING").arg("ON").arg("NOLOOP").exec_async(connection).await {
        Ok(()) => None,
        Err(error) if is_refusal(&error) => {
            Some(format!("the server refuses client tracking: {}", plain(&error)).into())
        }
        Err(error) => return Err(error),
    };
    let stats = match Info::ask(connection, Some("stats")).await {
        Ok(stats) => stats,
        // Not every user may ask.
        Err(error) if is_refusal(&error) => return Ok(Standing { untracked: refused, evicted: 0 }),
        Err(error) => return Err(error),
    };
    let figure = |name| stats.get(name).parse::<u64>().unwrap_or_default();
    let evicted = figure("evicted_keys");
    if refused.is_some() {
        return Ok(Standing { untracked: refused, evicted });
    }
    let limit = limit(connection).await?;
    let bound = if was_untracked { limit / 10 * 9 } else { limit };
    let is_full = limit > 0 && figure("tracking_total_keys") >= bound;
    let full = || format!("the server's table of tracked keys is full ({LIMIT} is {limit})").into();
    Ok(Standing { untracked: is_full.then(full), evicted })
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
