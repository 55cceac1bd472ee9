//! A worker in a simulated world: the real link, session, supervisor and environments, on simulated time, connections,
//! stores and sources.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::connect::{ConnectOptions, Plain};
use flotilla_proto::process::{Chance, Clock};
use flotilla_proto::{Incarnation, Labels, WorkerName};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::app::Surroundings;
use crate::launchdarkly::Sources;
use crate::link;
use crate::metrics::Metrics;
use crate::session::{self, Ended, FileSources, Profile, Session};
use crate::store::OpenStore;
use crate::supervisor::{Channels, Progress, Supervisor};

/// Makes a connection to control.
pub type Connector = link::Connector;

/// What a run leaves on its disk for the next one.
#[derive(Debug, Clone, Default)]
pub struct Memory(Option<session::Memory>);

/// What a simulated worker is made of.
pub struct Parts {
    /// Its name.
    pub name: WorkerName,
    /// Its labels.
    pub labels: Labels,
    /// How many environments it accepts; `None`: any number.
    pub capacity: Option<u32>,
    /// This run of it.
    pub incarnation: Incarnation,
    /// Where control is.
    pub control: Vec<Url>,
    /// Its clock.
    pub clock: Clock,
    /// Its random numbers.
    pub chance: Chance,
    /// How it connects to control.
    pub connector: Connector,
    /// Its stores.
    pub stores: Arc<dyn OpenStore>,
    /// Its sources.
    pub sources: Arc<dyn Sources>,
    /// What its last run left.
    pub memory: Memory,
    /// Takes what it leaves, whenever that has changed. When it is on disk is the caller's to say.
    pub keep: Arc<dyn Fn(Memory) + Send + Sync>,
    /// Asks it to leave, as SIGTERM does.
    pub leave: CancellationToken,
    /// How long its environments may take to move when it leaves.
    pub drain_timeout: Duration,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Works until it is asked to leave (`Ok`) or must end. Dropping the future is a crash.
///
/// # Errors
/// Why it must end.
pub async fn run(parts: Parts) -> Result<(), Ended> {
    let Memory(memory) = parts.memory;
    let (progress, _progress_seen) = watch::channel(Progress::default());
    let (memory_sender, memories) = watch::channel(None);
    let (link_events, link) = mpsc::channel(link::EVENT_QUEUE);
    let profile = Profile {
        worker: parts.name,
        incarnation: parts.incarnation.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity: parts.capacity,
        labels: parts.labels,
        file_sources: FileSources::Unavailable,
    };
    let environments = Surroundings {
        clock: parts.clock,
        chance: parts.chance.clone(),
        incarnation: parts.incarnation,
        stores: parts.stores,
        sources: parts.sources,
        metrics: Arc::new(Metrics::new()),
        secrets: crate::secrets::Secrets::default(),
        file_source_dir: None,
        context: None,
    };
    let session = Session::new(profile, memory, parts.clock.now());
    let channels = Channels { link, memory: memory_sender, progress, leave: parts.leave };
    let mut others = JoinSet::new();
    // A simulated network has no TLS.
    let options = ConnectOptions { plain: Plain::Anywhere, ..ConnectOptions::default() };
    others.spawn(link::run(parts.control, options, parts.connector, parts.chance, link_events));
    others.spawn(keep(memories, parts.keep));
    Supervisor::new(parts.clock, session, environments, channels, parts.drain_timeout).run().await
}

async fn keep(mut memories: watch::Receiver<Option<session::Memory>>, keep: Arc<dyn Fn(Memory) + Send + Sync>) {
    while memories.changed().await.is_ok() {
        let memory = memories.borrow_and_update().clone();
        keep(Memory(memory));
    }
}
