//! All servers of a store: which they are now, by one task, and the way to the one that has a prefix.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_proto::Prefix;
use flotilla_proto::store_url::{Address, StorePlace};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::super::{StoreError, StoreNews};
use super::guide::Guide;
use super::layout::Layout;
use super::node::{CONNECT, Connections, Node, State, Surroundings};
use super::registry::Registry;
use super::target::{Server, Target, only_server};

/// How often Sentinels, and nodes of a cluster, are asked: a failover takes them longer than this.
const ASK_SENTINELS: Duration = Duration::from_millis(500);
const ASK_CLUSTER: Duration = Duration::from_secs(2);
/// Slots heard to have moved that may wait to be seen to.
const MOVES: usize = 64;

/// The servers of a store.
#[derive(Debug)]
pub(super) struct Link {
    layout: watch::Receiver<Layout>,
    /// Why nobody tells the layout.
    lost: watch::Receiver<Option<String>>,
    nodes: Arc<Nodes>,
    moves: mpsc::Sender<(u16, Server)>,
    registry: Arc<Registry>,
    /// None is needed where the only server is known.
    scout: Option<JoinHandle<()>>,
}

/// The servers that are connected to, or shall be.
#[derive(Debug, Default)]
struct Nodes {
    open: Mutex<BTreeMap<Server, Node>>,
}

impl Nodes {
    fn state(&self, server: &Server) -> Option<watch::Receiver<State>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(server).map(|node| node.state.clone())
    }

    /// Opens those of the layout that are not, and closes the others.
    fn settle(&self, layout: &Layout, around: &Surroundings) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let servers = layout.servers();
        open.retain(|server, _| servers.contains(&server));
        for server in servers {
            open.entry(server.clone()).or_insert_with(|| Node::open(server.clone(), around.clone()));
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(scout) = &self.scout {
            scout.abort();
        }
    }
}

impl Link {
    /// Finds the servers and connects to them in the background.
    pub(super) fn open(target: Target) -> Self {
        let place = target.url.place.clone();
        let first = only_server(&place).map(Layout::single).unwrap_or_default();
        let (layouts, layout) = watch::channel(first);
        let (told, lost) = watch::channel(None);
        let (moves, heard) = mpsc::channel(MOVES);
        let registry = Arc::new(Registry::default());
        let nodes = Arc::new(Nodes::default());
        let around = Surroundings { target, registry: Arc::clone(&registry), layout: layout.clone() };
        nodes.settle(&layout.borrow(), &around);
        let interval = match place {
            StorePlace::Server(_) | StorePlace::Socket(_) => None,
            StorePlace::Sentinel { .. } => Some(ASK_SENTINELS),
            StorePlace::Cluster(_) => Some(ASK_CLUSTER),
        };
        let scout = interval.map(|interval| {
            let scout = Scout { nodes: Arc::clone(&nodes), around, layouts, lost: told };
            #[expect(clippy::disallowed_methods, reason = "the task is owned by the link and ends with it")]
            tokio::spawn(scout.run(interval, heard))
        });
        Self { layout, lost, nodes, moves, registry, scout }
    }

    /// The connections to the server that has a prefix, if there are any. Only the outcome of the very first attempt is
    /// waited for.
    pub(super) async fn connections(&self, prefix: &Prefix) -> Result<Connections, StoreError> {
        let found = tokio::time::timeout(CONNECT, self.find(prefix)).await;
        found.unwrap_or_else(|_| Err(no_connection("it does not answer")))
    }

    async fn find(&self, prefix: &Prefix) -> Result<Connections, StoreError> {
        let server = self.server(prefix).await?;
        let mut state =
            self.nodes.state(&server).ok_or_else(|| no_connection("the server is no longer one of the store's"))?;
        let state = state.wait_for(|state| !matches!(state, State::Starting)).await;
        match state.as_deref() {
            Ok(State::Up(connections)) => Ok(connections.clone()),
            Ok(State::Down(why)) => Err(no_connection(why)),
            Ok(State::Starting) => Err(no_connection("the first attempt is under way")),
            Err(_) => Err(no_connection("the store is given up")),
        }
    }

    async fn server(&self, prefix: &Prefix) -> Result<Server, StoreError> {
        let known = |layout: &Layout| layout.server(prefix.as_str()).cloned();
        if let Some(server) = known(&self.layout.borrow()) {
            return Ok(server);
        }
        let (mut layout, mut lost) = (self.layout.clone(), self.lost.clone());
        tokio::select! {
            layout = layout.wait_for(|layout| *layout != Layout::default()) => {
                let server = layout.ok().and_then(|layout| known(&layout));
                server.ok_or_else(|| no_connection("no node of the cluster has the slot of the prefix"))
            }
            lost = lost.wait_for(Option::is_some) => {
                let why = lost.ok().and_then(|why| why.clone());
                Err(no_connection(&why.unwrap_or_default()))
            }
        }
    }

    /// A server said that another one has a slot now.
    pub(super) fn moved(&self, slot: u16, to: &str) {
        // A server that does not know the other's name leaves it out; then the next look at the whole tells.
        if let Some((host, port)) = to.rsplit_once(':')
            && let Ok(port) = port.parse()
            && !host.is_empty()
        {
            let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
            // If too many have moved at once, the next look at the whole finds this one.
            let _ = self.moves.try_send((slot, Server::Tcp(Address { host, port })));
        }
    }

    /// News of a prefix.
    pub(super) fn news(&self, prefix: &Prefix) -> watch::Receiver<StoreNews> {
        self.registry.subscribe(prefix)
    }
}

fn no_connection(why: &str) -> StoreError {
    StoreError::NotDone(format!("there is no connection to the store: {why}"))
}

/// Finds out which servers there are.
struct Scout {
    nodes: Arc<Nodes>,
    around: Surroundings,
    layouts: watch::Sender<Layout>,
    lost: watch::Sender<Option<String>>,
}

impl Scout {
    async fn run(self, interval: Duration, mut moved: mpsc::Receiver<(u16, Server)>) {
        let mut guide = Guide::new(self.around.target.clone());
        loop {
            match guide.layout().await {
                Ok(layout) => {
                    self.lost.send_replace(None);
                    self.take(&layout);
                }
                Err(why) => {
                    // What is known stays: the servers may do without those who name them.
                    let is_news = self.lost.send_replace(Some(why.clone())).is_none();
                    if is_news {
                        let store = self.around.target.url.redacted();
                        tracing::warn!(
                            store,
                            error = why,
                            "cannot find the servers of the store, will go on trying"
                        );
                    }
                }
            }
            let asked_again = tokio::time::sleep(interval);
            tokio::pin!(asked_again);
            loop {
                tokio::select! {
                    () = &mut asked_again => break,
                    Some((slot, to)) = moved.recv() => {
                        let layout = self.layouts.borrow().moved(slot, to);
                        self.take(&layout);
                    }
                }
            }
        }
    }

    /// Puts a layout in force, and tells those whose server is another one.
    fn take(&self, layout: &Layout) {
        if *self.layouts.borrow() == *layout {
            return;
        }
        self.nodes.settle(layout, &self.around);
        let before = self.layouts.send_replace(layout.clone());
        if before.servers() != layout.servers() {
            let servers: Vec<_> = layout.servers().iter().map(ToString::to_string).collect();
            tracing::info!(
                store = self.around.target.url.redacted(),
                servers = servers.join(","),
                "the store's servers are others"
            );
        }
        self.around.registry.reconnected(|prefix| before.server(prefix) != layout.server(prefix));
    }
}
