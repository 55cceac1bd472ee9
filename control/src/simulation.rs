//! Control in a simulated world: the real driver, fleet, SQL and API, on simulated time, connections and disk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flotilla_proto::access::Keys;
use flotilla_proto::process::{Chance, Clock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::transport::server::Connected;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::Settings;
use crate::app::{settle_default_store, start_driver};
use crate::audit::Door;
use crate::driver::Commits;
use crate::fleet::Change;
use crate::grpc;
use crate::store::{Loaded, SqliteStore, Store, StoreError};

pub use crate::fleet::LargePlacement;

/// A disk with control's database, which outlives control's crashes.
#[derive(Debug, Clone)]
pub struct Disk(Arc<Mutex<SqliteStore>>);

/// What a simulated control is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its options; addresses and directory are not used.
    pub settings: Settings,
    /// Where its database is.
    pub disk: Disk,
    /// Its clock.
    pub clock: Clock,
    /// Its random numbers.
    pub chance: Chance,
    /// How long a commit takes.
    pub commit_time: Duration,
}

impl Disk {
    /// An empty disk. `chance` makes the fleet's id.
    ///
    /// # Errors
    /// SQLite failed.
    pub fn new(chance: &Chance) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(SqliteStore::in_memory(&chance.uuid().to_string())?))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut SqliteStore) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Disk {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        self.with(Store::load)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        self.with(|store| store.commit(changes))
    }
}

/// Serves the API on these connections, until it fails or the future is dropped, which is a crash.
///
/// # Errors
/// The database or the server failed.
pub async fn serve<C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static>(
    parts: Parts,
    incoming: impl Stream<Item = std::io::Result<C>> + Send + 'static,
) -> anyhow::Result<()> {
    let Parts { settings, mut disk, clock, chance, commit_time } = parts;
    let mut loaded = disk.load()?;
    settle_default_store(&settings, &mut disk, &mut loaded)?;
    let store = (Box::new(disk) as Box<dyn Store>, Commits::Inline(commit_time));
    let (driver_task, driver) = start_driver(&settings, loaded, store, clock, &chance);
    let health = HealthReporter::new();
    grpc::report_health(&health, ServingStatus::Serving).await;
    let keys = watch::channel(Arc::new(Keys::Open)).1;
    // Nobody looks at records in a simulation.
    let audit = (Door::new().0, None);
    let api = grpc::Api::new(driver, TaskTracker::new(), CancellationToken::new(), chance, audit);
    tokio::select! {
        biased;
        ended = driver_task.run() => Ok(ended?),
        ended = grpc::serve(incoming, keys, api, health, std::future::pending()) => ended,
    }
}
