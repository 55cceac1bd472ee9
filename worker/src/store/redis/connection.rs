//! The connections of a store: made, watched and made anew by one task, and what they tell about the keys.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_proto::{Prefix, StoreUrl};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::super::{StoreError, StoreNews};
use super::script;
use super::target::{ClientError, Server, data_client, only_server};

/// Time limits of one call, of connecting, and between signs of life.
const CALL: Duration = Duration::from_secs(3);
const BULK_CALL: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Pause before connecting again: the first, and the longest.
const RETRY: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(1);
/// Commands that may wait for a connection's writer.
const QUEUE: usize = 1024;

/// The two connections of a store.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    /// Tracked: looks and writes.
    pub(super) main: MultiplexedConnection,
    /// For what takes long: staging, comparing, reading.
    pub(super) bulk: MultiplexedConnection,
}

/// How the connections are.
#[derive(Debug)]
enum State {
    /// The very first attempt is under way.
    Starting,
    Up(Connections),
    /// They are being made anew; what was wrong last.
    Down(String),
}

/// What calls tell the keeper of the connections.
#[derive(Debug)]
struct Hints {
    broken: Arc<Notify>,
    demoted: Arc<Notify>,
}

/// Who wants news of which prefix.
#[derive(Debug, Default)]
struct Registry {
    senders: Mutex<HashMap<String, watch::Sender<StoreNews>>>,
}

impl Registry {
    fn tell(&self, prefix: Option<&str>, change: impl Fn(&mut StoreNews)) {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        match prefix {
            Some(prefix) => senders.get(prefix).into_iter().for_each(|sender| sender.send_modify(&change)),
            None => senders.values().for_each(|sender| sender.send_modify(&change)),
        }
    }

    /// A push message of Redis: somebody touched keys, or flushed the database.
    fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        match push.data.first() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    let Value::BulkString(key) = key else { continue };
                    let prefix = std::str::from_utf8(key).ok().and_then(|key| key.rsplit_once(':'));
                    if let Some((prefix, _)) = prefix {
                        self.tell(Some(prefix), |news| news.touched += 1);
                    }
                }
            }
            Some(_) | None => self.tell(None, |news| news.touched += 1),
        }
    }
}

/// A store's connections, and the task that keeps them.
#[derive(Debug)]
pub(super) struct Link {
    current: watch::Receiver<State>,
    broken: Arc<Notify>,
    demoted: Arc<Notify>,
    registry: Arc<Registry>,
    keeper: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

impl Link {
    pub(super) fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        let server = only_server(&url.place).ok_or_else(|| {
            StoreError::NotDone("this worker knows no stores behind Sentinels and no clusters".to_owned())
        })?;
        let (sender, current) = watch::channel(State::Starting);
        let (broken, demoted) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let registry = Arc::new(Registry::default());
        let hints = Hints { broken: Arc::clone(&broken), demoted: Arc::clone(&demoted) };
        #[expect(clippy::disallowed_methods, reason = "the task is owned by the link and ends with it")]
        let keeper = tokio::spawn(keep(url.clone(), server, sender, hints, Arc::clone(&registry)));
        Ok(Self { current, broken, demoted, registry, keeper })
    }

    /// The connections, if there are any. Only the outcome of the very first attempt is waited for.
    pub(super) async fn connections(&self) -> Result<Connections, StoreError> {
        let mut current = self.current.clone();
        let attempted = current.wait_for(|state| !matches!(state, State::Starting));
        let state = tokio::time::timeout(CONNECT, attempted).await;
        let none = |why: &str| StoreError::NotDone(format!("there is no connection to the store: {why}"));
        match state {
            Ok(Ok(state)) => match &*state {
                State::Up(connections) => Ok(connections.clone()),
                State::Down(why) => Err(none(why)),
                State::Starting => Err(none("the first attempt is under way")),
            },
            Ok(Err(_)) => Err(none("the store is given up")),
            Err(_) => Err(none("it does not answer")),
        }
    }

    /// A call found its connection dead.
    pub(super) fn broken(&self) {
        self.broken.notify_one();
    }

    /// The server answers, but is no master: connect anew.
    pub(super) fn demoted(&self) {
        self.demoted.notify_one();
    }

    /// News of a prefix.
    pub(super) fn news(&self, prefix: &Prefix) -> watch::Receiver<StoreNews> {
        let mut senders = self.registry.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, sender| sender.receiver_count() > 0);
        senders.entry(prefix.as_str().to_owned()).or_default().subscribe()
    }
}

/// Connects, publishes the connections, waits until they fail, and so on for ever.
async fn keep(url: StoreUrl, server: Server, current: watch::Sender<State>, hints: Hints, registry: Arc<Registry>) {
    let shown = url.redacted();
    let mut pause = *RETRY.start();
    let mut told = false;
    loop {
        match connect(&url, &server, &hints.broken, &registry).await {
            Ok(connections) => {
                tracing::info!(store = shown, "connected to the store");
                (pause, told) = (*RETRY.start(), false);
                current.send_replace(State::Up(connections.clone()));
                registry.tell(None, |news| news.connection += 1);
                let why = until_broken(connections, &hints).await;
                tracing::warn!(store = shown, error = why, "lost the connection to the store");
                current.send_replace(State::Down(why));
                registry.tell(None, |news| news.connection += 1);
            }
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(store = shown, error = %error, "cannot connect to the store, will go on trying");
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
}

async fn connect(
    url: &StoreUrl,
    server: &Server,
    broken: &Arc<Notify>,
    registry: &Arc<Registry>,
) -> Result<Connections, ConnectError> {
    let client = data_client(url, server)?;
    let base = || {
        AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_pipeline_buffer_size(QUEUE)
            .set_write_backpressure_boundary(64 * 1024)
    };
    let (push_broken, push_registry) = (Arc::clone(broken), Arc::clone(registry));
    let pushed = move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            push_broken.notify_one();
        } else {
            push_registry.pushed(&push);
        }
        Ok::<(), ()>(())
    };
    let tracked = base().set_response_timeout(Some(CALL)).set_push_sender(pushed);
    let mut main = client.get_multiplexed_async_connection_with_config(&tracked).await?;
    for script in script::ALL {
        script.load().exec_async(&mut main).await?;
    }
    // Without tracking the paced looks find foreign writes, only later.
    if let Err(error) = cmd("CLIENT").arg("TRACKING").arg("ON").arg("NOLOOP").exec_async(&mut main).await {
        tracing::warn!(error = %error, "the store refuses client tracking, foreign writes will be found later");
    }
    let bulk =
        client.get_multiplexed_async_connection_with_config(&base().set_response_timeout(Some(BULK_CALL))).await?;
    Ok(Connections { main, bulk })
}

/// Returns when a connection is dead, with the reason.
async fn until_broken(mut connections: Connections, hints: &Hints) -> String {
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
        for connection in [&mut connections.main, &mut connections.bulk] {
            if let Err(error) = cmd("PING").exec_async(connection).await {
                return error.to_string();
            }
        }
    }
}
