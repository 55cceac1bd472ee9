//! One server of a store: its connections, made, watched and made anew by one task.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::StoreUrl;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::layout::Layout;
use super::registry::Registry;
use super::script;
use super::target::{ClientError, Server, data_client};
use super::tracking::{Memory, Tracking, Untracked};

/// Time limits of one call, of connecting, and between signs of life.
const CALL: Duration = Duration::from_secs(3);
const BULK_CALL: Duration = Duration::from_secs(10);
pub(super) const CONNECT: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pause before connecting again: the first, and the longest.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(1);
/// Commands that may wait for a connection's writer.
const QUEUE: usize = 1024;

/// The two connections of a server.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    /// Tracked: looks and writes.
    pub(super) main: MultiplexedConnection,
    /// For what takes long: staging, comparing, reading.
    pub(super) bulk: MultiplexedConnection,
    hints: Hints,
    untracked: watch::Receiver<Untracked>,
}

impl Connections {
    /// A call found its connection dead.
    pub(super) fn broken(&self) {
        self.hints.broken.notify_one();
    }

    /// Why the server does not tell who else changes its keys, if it does not.
    pub(super) fn untracked(&self) -> Untracked {
        self.untracked.borrow().clone()
    }

    /// The server answers, but is no master: connect anew.
    pub(super) fn demoted(&self) {
        self.hints.demoted.notify_one();
    }
}

/// How the connections are.
#[derive(Debug)]
pub(super) enum State {
    /// The very first attempt is under way.
    Starting,
    Up(Connections),
    /// They are being made anew; what was wrong last.
    Down(String),
}

/// What calls tell the keeper of the connections.
#[derive(Debug, Clone, Default)]
struct Hints {
    broken: Arc<Notify>,
    demoted: Arc<Notify>,
}

/// One server of a store, and the task that keeps its connections.
#[derive(Debug)]
pub(super) struct Node {
    /// How the connections are.
    pub(super) state: watch::Receiver<State>,
    keeper: JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// What a keeper needs to know.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// The store.
    pub(super) url: StoreUrl,
    /// Who wants news.
    pub(super) registry: Arc<Registry>,
    /// Which server has which keys.
    pub(super) layout: watch::Receiver<Layout>,
}

impl Surroundings {
    /// The connections of a server are new, or gone.
    fn reconnected(&self, server: &Server) {
        let layout = self.layout.borrow();
        self.registry.reconnected(|prefix| layout.server(prefix) == Some(server));
    }
}

impl Node {
    /// Connects in the background.
    pub(super) fn open(server: Server, around: Surroundings) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        #[expect(clippy::disallowed_methods, reason = "the task is owned by the node and ends with it")]
        let keeper = tokio::spawn(keep(server, around, sender));
        Self { state, keeper }
    }
}

/// Connects, publishes the connections, waits until they fail, and so on for ever.
async fn keep(server: Server, around: Surroundings, current: watch::Sender<State>) {
    let shown = around.url.redacted();
    let mut pause = *RETRY.start();
    let mut told = false;
    let mut run_id = None;
    loop {
        // What is said of a connection ends with it.
        match connect(&server, &around, Hints::default()).await {
            Ok((connections, tracking)) => {
                match (run_id.take(), &tracking.run_id) {
                    (Some(before), Some(now)) if before != *now => {
                        tracing::warn!(store = shown, %server, "connected to the store, which was restarted or is another one");
                    }
                    (Some(_) | None, Some(_) | None) => {
                        tracing::info!(store = shown, %server, "connected to the store");
                    }
                }
                (pause, told, run_id) = (*RETRY.start(), false, tracking.run_id.clone());
                current.send_replace(State::Up(connections.clone()));
                around.reconnected(&server);
                let why = until_broken(connections, tracking, || around.reconnected(&server)).await;
                tracing::warn!(store = shown, %server, error = why, "lost the connection to the store");
                current.send_replace(State::Down(why));
                around.reconnected(&server);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(store = shown, %server, error = %error, "cannot connect to the store, will go on trying");
                }
                current.send_replace(State::Down(error.to_string()));
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(*RETRY.end());
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("{0}")]
    Client(#[from] ClientError),
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("the server at {0} is a replica, which takes no writes")]
    NoMaster(Server),
}

async fn connect(
    server: &Server,
    around: &Surroundings,
    hints: Hints,
) -> Result<(Connections, Tracking), ConnectError> {
    let client = data_client(&around.url, server)?;
    let base = || {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(64 * 1024)
    };
    let (push_broken, push_around, push_server) = (Arc::clone(&hints.broken), around.clone(), server.clone());
    let pushed = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            push_broken.notify_one();
        } else {
            push_around.registry.pushed(&push, &push_server, &push_around.layout.borrow());
        }
        Ok::<(), ()>(())
    };
    let tracked = base().set_response_timeout(Some(CALL)).set_push_sender(pushed);
    let mut main = client.get_multiplexed_async_connection_with_config(&tracked).await?;
    if !is_master(&mut main).await? {
        return Err(ConnectError::NoMaster(server.clone()));
    }
    for script in script::ALL {
        script.load().exec_async(&mut main).await?;
    }
    let (tracking, untracked) = Tracking::begin(&mut main).await?;
    let bulk =
        client.get_multiplexed_async_connection_with_config(&base().set_response_timeout(Some(BULK_CALL))).await?;
    Ok((Connections { main, bulk, hints, untracked }, tracking))
}

/// A server that a failover has left behind may still be named, and a name may always have led to a replica.
async fn is_master(connection: &mut MultiplexedConnection) -> Result<bool, RedisError> {
    match cmd("ROLE").query_async(connection).await {
        Ok(Value::Array(parts)) => Ok(parts.first() == Some(&Value::BulkString(b"master".to_vec()))),
        Ok(_) => Ok(false),
        // A user that may not ask learns it with the first write.
        Err(error) if error.code() == Some("NOPERM") => Ok(true),
        Err(error) => Err(error),
    }
}

/// Returns when a connection is dead, with the reason. When the server begins to forget who is to be told what, it says so.
async fn until_broken(mut connections: Connections, mut tracking: Tracking, forgets: impl Fn()) -> String {
    let hints = connections.hints.clone();
    loop {
        tokio::select! {
            () = hints.broken.notified() => {}
            () = hints.demoted.notified() => {
                // Not in a tight loop, for a server that refuses writes may be the right one all the same.
                tokio::time::sleep(*RETRY.end()).await;
                return "the server refuses writes, it is no master".to_owned();
            }
            () = tokio::time::sleep(HEARTBEAT) => {}
        }
        // A name may lead elsewhere by now, and what it led to go on as a replica.
        match is_master(&mut connections.main).await {
            Ok(true) => {}
            Ok(false) => hints.demoted.notify_one(),
            Err(error) => return error.to_string(),
        }
        match tracking.check(&mut connections.bulk).await {
            Ok(Memory::AsBefore) => {}
            Ok(Memory::Full) => forgets(),
            Err(error) => return error.to_string(),
        }
    }
}
