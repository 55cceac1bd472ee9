//! One server of a store: its connections, made, watched and made anew by one task.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::info::{Info, is_refusal};
use super::layout::Layout;
use super::registry::Registry;
use super::script;
use super::target::{ClientError, Server, Target};
use super::tracking::{Heard, Tracking, Untracked};

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
    pub(super) target: Target,
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

    /// A server has thrown keys away.
    fn evicted(&self, server: &Server) {
        let layout = self.layout.borrow();
        self.registry.evicted(|prefix| layout.server(prefix) == Some(server));
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
    let shown = around.target.url.redacted();
    let mut pause = *RETRY.start();
    let mut told = false;
    // Which run of the server the last connection led to, as far as the user may ask.
    let mut run = None;
    loop {
        // What is said of a connection ends with it.
        match connect(&server, &around, Hints::default()).await {
            Ok((connections, tracking, present)) => {
                let before = std::mem::replace(&mut run, present);
                if before.is_some() && run.is_some() && before != run {
                    tracing::warn!(store = shown, %server, "connected to the store, which was restarted or is another one");
                } else {
                    tracing::info!(store = shown, %server, "connected to the store");
                }
                (pause, told) = (*RETRY.start(), false);
                tell_whether_tracked(&shown, &server, &connections);
                current.send_replace(State::Up(connections.clone()));
                around.reconnected(&server);
                let heard = |heard| match heard {
                    Heard::Nothing => {}
                    Heard::RelianceChanged => {
                        tell_whether_tracked(&shown, &server, &connections);
                        around.reconnected(&server);
                    }
                    Heard::Evicted => around.evicted(&server),
                };
                let why = until_broken(connections.clone(), tracking, heard).await;
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
    #[error("the server at {server} is {role}, not a master")]
    NoMaster { server: Server, role: String },
}

async fn connect(
    server: &Server,
    around: &Surroundings,
    hints: Hints,
) -> Result<(Connections, Tracking, Option<String>), ConnectError> {
    let client = around.target.data_client(server).await?;
    let base = || {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(64 * 1024)
    };
    let (untracked, told) = watch::channel(None);
    let (push_broken, push_around, push_server) = (Arc::clone(&hints.broken), around.clone(), server.clone());
    let push_told = told.clone();
    let pushed = move |push: PushInfo| {
        let Surroundings { registry, layout, .. } = &push_around;
        if push.kind == PushKind::Disconnection {
            push_broken.notify_one();
        } else if push_told.borrow().is_some() {
            registry.pushed_by_forgetful(&push, &push_server, &layout.borrow());
        } else {
            registry.pushed(&push, &push_server, &layout.borrow());
        }
        Ok::<(), ()>(())
    };
    let tracked = base().set_response_timeout(Some(CALL)).set_push_sender(pushed);
    let mut main = client.get_multiplexed_async_connection_with_config(&tracked).await?;
    if let Some(role) = other_role(&mut main).await? {
        return Err(ConnectError::NoMaster { server: server.clone(), role });
    }
    for script in script::ALL {
        script.load().exec_async(&mut main).await?;
    }
    let tracking = Tracking::begin(&mut main, untracked).await?;
    let run = run_id(&mut main).await?;
    let bulk =
        client.get_multiplexed_async_connection_with_config(&base().set_response_timeout(Some(BULK_CALL))).await?;
    Ok((Connections { main, bulk, hints, untracked: told }, tracking, run))
}

/// What a server is, if it is no master: one that a failover has left behind may still be named, and a name may always have
/// led to a replica.
async fn other_role(connection: &mut MultiplexedConnection) -> Result<Option<String>, RedisError> {
    match cmd("ROLE").query_async::<Vec<Value>>(connection).await {
        Ok(parts) => match parts.into_iter().next() {
            Some(Value::BulkString(role)) if role == b"master" => Ok(None),
            Some(Value::BulkString(role)) if role == b"slave" => Ok(Some("a replica".to_owned())),
            Some(Value::BulkString(role)) => Ok(Some(format!("a {}", String::from_utf8_lossy(&role)))),
            Some(_) | None => Ok(Some("of unknown role".to_owned())),
        },
        // A user that may not ask learns it with the first write.
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Another one: the server was restarted, or is not the same. `None`: the user may not ask.
async fn run_id(connection: &mut MultiplexedConnection) -> Result<Option<String>, RedisError> {
    match Info::ask(connection, Some("server")).await {
        Ok(info) => Ok(Some(info.get("run_id").to_owned()).filter(|id| !id.is_empty())),
        Err(error) if is_refusal(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn tell_whether_tracked(store: &str, server: &Server, connections: &Connections) {
    if let Some(why) = connections.untracked() {
        tracing::warn!(store, %server, error = %why, "foreign writes to the store will be found later");
    }
}

/// Returns when a connection is dead, with the reason. Meanwhile it says what the server does not tell by itself.
async fn until_broken(mut connections: Connections, mut tracking: Tracking, heard: impl Fn(Heard)) -> String {
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
        match other_role(&mut connections.main).await {
            Ok(None) => {}
            Ok(Some(_)) => hints.demoted.notify_one(),
            Err(error) => return error.to_string(),
        }
        match tracking.check(&mut connections.main).await {
            Ok(news) => heard(news),
            Err(error) => return error.to_string(),
        }
        if let Err(error) = cmd("PING").exec_async(&mut connections.bulk).await {
            return error.to_string();
        }
    }
}
