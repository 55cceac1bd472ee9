//! A whole worker, for `main` and for `flotilla dev`.

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::access::{Access, Listener, Protocol};
use flotilla_proto::connect::travels_readably;
use flotilla_proto::process::{Chance, Clock, SealingError};
use flotilla_proto::{FleetId, Incarnation};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::assignment_cache::{self, AssignmentCache, CacheError};
use crate::config::Settings;
use crate::environment::{EnvironmentContext, EnvironmentHandle};
use crate::http;
use crate::identity::StateDirectory;
pub use crate::identity::StateDirectoryError;
use crate::launchdarkly::{SharedSources, SourceTimeouts, Sources};
use crate::link;
use crate::metrics::Metrics;
use crate::secrets::Secrets;
pub use crate::session::Ended;
use crate::session::{FileSources, Profile, Session};
use crate::store::{OpenStore, StoreError, Stores};
use crate::supervisor::{Channels, Environments, Progress, Start, Supervisor};

/// How long the cache's last write and HTTP requests under way may take at the end.
const REST_TIMEOUT: Duration = Duration::from_millis(800);

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its state directory cannot be used.
    #[error(transparent)]
    StateDirectory(#[from] StateDirectoryError),
    /// The last assignments are sealed with a key that is not there.
    #[error(transparent)]
    Sealed(SealingError),
    /// Another program listens on its address.
    #[error("--http-listen {address} is in use by another program; stop it or choose another port")]
    AddressInUse {
        /// Which.
        address: SocketAddr,
    },
    /// The files that say who may ask over HTTP cannot be used.
    #[error("HTTP: {0}")]
    Access(String),
    /// Its address cannot be listened on.
    #[error("cannot listen on --http-listen {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}

/// Starts workers.
#[derive(Debug)]
pub struct App;

/// A worker that runs. Dropping it ends it at once, as a crash would: nothing is lost by that, but its environments
/// move only after a lease.
#[derive(Debug)]
pub struct Running {
    /// Where `/livez`, `/readyz` and `/metrics` are served.
    pub http_addr: SocketAddr,
    leave: CancellationToken,
    supervisor: JoinSet<Result<(), Ended>>,
    http: JoinSet<()>,
    http_end: CancellationToken,
    /// The link and the writer of the cache, which end when the supervisor has.
    others: JoinSet<()>,
    /// Held for as long as anything may be written there.
    _directory: StateDirectory,
}

impl App {
    /// Starts a worker in the present runtime. It does not wait for control, which may come later.
    ///
    /// # Errors
    /// The state directory or the address cannot be used.
    pub async fn start(settings: Settings) -> Result<Running, StartError> {
        let directory = StateDirectory::open(&settings.state_dir)?;
        warn_of_exposure(&settings);
        let access = settings.http_access.open().map_err(StartError::Access)?;
        let (listener, http_addr) = listen(settings.http_listen).await?;
        let incarnation = directory.begin_incarnation()?;
        if !settings.sealing.is_on() {
            tracing::info!(
                path = %settings.state_dir.display(),
                "the last assignments, with SDK keys and store passwords, are not sealed, only in a file that its owner alone can \
                 read; --encryption-key-file seals them"
            );
        }
        let cache =
            AssignmentCache { path: directory.file(assignment_cache::FILE), sealing: settings.sealing.clone() };
        let profile = profile(&settings, incarnation.clone());
        let memory = match cache.read(profile.file_sources) {
            Ok(memory) => memory,
            // As for control: a key that was forgotten is no reason to go on without sealing.
            Err(CacheError::Sealed(error)) => return Err(StartError::Sealed(error)),
            Err(error) => {
                tracing::warn!(%error, "the assignments of the last run are lost; control will give them again");
                None
            }
        };
        let metrics = Arc::new(Metrics::new());
        let (progress, progress_seen) = watch::channel(Progress {
            had_cache: memory.is_some(),
            environments: memory.as_ref().map_or(0, |memory| memory.assignments.len()),
            ..Progress::default()
        });
        let (memory_sender, memories) = watch::channel(None);
        let (link_events, link) = mpsc::channel(link::EVENT_QUEUE);
        let (leave, http_end) = (CancellationToken::new(), CancellationToken::new());
        let clock = Clock::start();
        let control = settings.control.clone();
        let name = settings.name.clone();
        let session = Session::new(profile, memory, clock.now());
        let drain_timeout = settings.drain_timeout;
        let chance = Chance::system();
        let environments = Surroundings {
            clock,
            chance: chance.clone(),
            incarnation,
            stores: Arc::new(Stores::new(settings.secrets.clone())),
            sources: SharedSources::new(
                settings.max_connecting,
                SourceTimeouts::default(),
                settings.secrets.clone(),
            ),
            secrets: settings.secrets,
            metrics: Arc::clone(&metrics),
            file_source_dir: settings.file_source_dir,
            context: None,
        };
        let channels = Channels { link, memory: memory_sender, progress, leave: leave.clone() };

        let mut supervisor = JoinSet::new();
        supervisor.spawn(Supervisor::new(clock, session, environments, channels, drain_timeout).run());
        let mut others = JoinSet::new();
        others.spawn(link::run(control, settings.connect, link::tcp(), chance, link_events));
        others.spawn(cache.keep(memories));
        let mut http = JoinSet::new();
        let sources = http::Sources { metrics, progress: progress_seen };
        http.spawn(serve_http(listener, access, sources, http_end.clone()));
        tracing::info!(http = %http_addr, worker = %name, "listening");
        Ok(Running { http_addr, leave, supervisor, http, http_end, others, _directory: directory })
    }
}

impl Running {
    /// Waits until the worker ends unasked, and says why. Nothing is lost when the future is dropped.
    pub async fn ended(&mut self) -> Ended {
        match self.supervisor.join_next().await {
            Some(Ok(Err(ended))) => ended,
            Some(Ok(Ok(()))) | None => Ended::Failed { message: "it was stopped before".to_owned() },
            Some(Err(failure)) => failed(&failure),
        }
    }

    /// Leaves the fleet. First control hands the environments over to others, within [`Settings::drain_timeout`]; that is
    /// not waited for when there is no session, or control says that nobody can take them. Then writes under way are
    /// finished and control is told, in less than 4 s.
    ///
    /// # Errors
    /// The worker ended by itself meanwhile.
    pub async fn stop(mut self) -> Result<(), Ended> {
        self.leave.cancel();
        let result = match self.supervisor.join_next().await {
            Some(Ok(result)) => result,
            Some(Err(failure)) => Err(failed(&failure)),
            None => Ok(()),
        };
        self.http_end.cancel();
        let rest = async {
            while self.others.join_next().await.is_some() {}
            while self.http.join_next().await.is_some() {}
        };
        if timeout(REST_TIMEOUT, rest).await.is_err() {
            tracing::warn!("tasks under way were cut off");
        }
        result
    }
}

/// Once, for all that is given up.
fn warn_of_exposure(settings: &Settings) {
    if let Some(lack) = settings.http_access.lacks(settings.http_listen) {
        tracing::warn!(
            without = lack.what(),
            consequence = "whoever reaches the port can read the metrics, names of environments included",
            "serving HTTP beyond loopback with --insecure"
        );
    }
    if let Some(url) = settings.control.iter().find(|url| travels_readably(url)) {
        tracing::warn!(
            control = %url,
            consequence = "whoever is on the way can read SDK keys and passwords, and be control or this worker",
            "control is reached without TLS, with --insecure"
        );
    }
}

fn failed(failure: &JoinError) -> Ended {
    Ended::Failed { message: failure.to_string() }
}

fn profile(settings: &Settings, incarnation: Incarnation) -> Profile {
    Profile {
        worker: settings.name.clone(),
        incarnation,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity: settings.capacity.map(Into::into),
        labels: settings.labels.clone(),
        file_sources: match settings.file_source_dir {
            Some(_) => FileSources::Available,
            None => FileSources::Unavailable,
        },
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::AddressInUse { address },
        _ => StartError::Listen { address, source },
    };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

async fn serve_http(listener: TcpListener, access: Access, sources: http::Sources, end: CancellationToken) {
    let listener = Listener::new(listener, Protocol::Http, access.tls);
    let serving = http::serve(listener, sources, access.keys, end.clone().cancelled_owned());
    let keeping = async {
        tokio::select! {
            () = access.keeper => {}
            () = end.cancelled() => {}
        }
    };
    let (served, ()) = tokio::join!(serving, keeping);
    if let Err(error) = served {
        tracing::error!(%error, "HTTP is served no more");
    }
}

/// Environments as they are outside of tests.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) clock: Clock,
    pub(crate) chance: Chance,
    pub(crate) incarnation: Incarnation,
    pub(crate) stores: Arc<dyn OpenStore>,
    pub(crate) sources: Arc<dyn Sources>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) secrets: Secrets,
    pub(crate) file_source_dir: Option<PathBuf>,
    /// Made with the first environment, for the fleet is not known before.
    pub(crate) context: Option<Arc<EnvironmentContext>>,
}

impl Surroundings {
    fn context(&mut self, fleet: FleetId) -> Arc<EnvironmentContext> {
        let context = self.context.get_or_insert_with(|| {
            Arc::new(EnvironmentContext {
                clock: self.clock,
                chance: self.chance.clone(),
                fleet,
                incarnation: self.incarnation.clone(),
                stores: Arc::clone(&self.stores),
                sources: Arc::clone(&self.sources),
                metrics: Arc::clone(&self.metrics),
                file_source_dir: self.file_source_dir.clone(),
                packing: Arc::new(Semaphore::new(1)),
            })
        });
        Arc::clone(context)
    }
}

impl Environments for Surroundings {
    type Running = EnvironmentHandle;

    fn start(&mut self, start: Start) -> Result<EnvironmentHandle, StoreError> {
        let Start { assignment, fleet, control, updates, first_write_number, ended } = start;
        EnvironmentHandle::start(assignment, self.context(fleet), control, updates, first_write_number, ended)
    }

    fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }
}
