//! All of control together, as a program ([`run`]) or inside another one ([`App::start`]).

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use flotilla_proto::access::{Listener, Protocol};
use flotilla_proto::process::{Chance, Clock, install_tls_provider};
use flotilla_proto::{FleetId, StoreName, Term};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::audit::{Door, LastRecord, LogFailures, LogWriter};
use crate::config::Settings;
use crate::driver::{AuditTerms, Commits, Driver, DriverHandle, driver};
use crate::environments_file::{self, FileHealth};
use crate::fleet::{Change, Fleet, FleetSettings, GrantIds};
use crate::store::{AuditReader, Loaded, SqliteStore, Store, StoreError};
use crate::{grpc, http};

/// How long calls under way may take to end once control stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Serves until `shutdown` resolves, then stops in order; or fails, as it does when `shutdown` does.
pub async fn run(settings: Settings, shutdown: impl Future<Output = io::Result<()>>) -> anyhow::Result<()> {
    let mut shutdown = pin!(shutdown);
    // Signals are listened for before anybody can know that control is there.
    let mut running = tokio::select! {
        biased;
        asked = &mut shutdown => return asked.context("cannot listen for signals"),
        started = App::start(settings) => started?,
    };
    tokio::select! {
        asked = shutdown => {
            tracing::info!("stopping");
            let stopped = running.stop().await;
            asked.context("cannot listen for signals")?;
            stopped
        }
        error = running.failed() => {
            // What failed has been told; the rest ends as well as it can.
            let _ = running.stop().await;
            Err(error)
        }
    }
}

/// Starts control.
#[derive(Debug)]
pub struct App;

/// A control that serves. Dropping it ends it at once, [`stop`](Running::stop) in order.
#[derive(Debug)]
pub struct Running {
    grpc: SocketAddr,
    http: SocketAddr,
    fleet: FleetId,
    term: Term,
    driver: DriverHandle,
    health: HealthReporter,
    stopping: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
    /// The tasks behind streams.
    streams: TaskTracker,
}

impl App {
    /// Takes the ports, opens the store, and serves. Needs a Tokio runtime. Errors are one clear line.
    pub async fn start(settings: Settings) -> anyhow::Result<Running> {
        install_tls_provider();
        warn_of_exposure(&settings);
        let access = settings.access.open().map_err(|error| anyhow!(error))?;
        let (grpc_listener, grpc) = listen("--listen", settings.listen).await?;
        let (http_listener, http) = listen("--http-listen", settings.http_listen).await?;
        let (settings, store, loaded, records) = tokio::task::spawn_blocking(move || {
            let (store, loaded) = open_store(&settings).map_err(|error| with_way_out(error, &settings.data_dir))?;
            let records = open_records(&settings, loaded.audit)?;
            anyhow::Ok((settings, store, loaded, records))
        })
        .await
        .context("opening the store did not end")??;
        tell_of_secrets(&settings);
        let (fleet_id, term, data_dir) = (loaded.fleet.clone(), loaded.term, settings.data_dir.clone());
        let (reader, audit_log) = records;
        let clock = Clock::start();
        let chance = Chance::system();
        let store = (Box::new(store) as Box<dyn Store>, Commits::OnThread);
        let (driver_task, driver) = start_driver(&settings, loaded, store, clock, &chance);

        let stopping = CancellationToken::new();
        let health = HealthReporter::new();
        grpc::report_health(&health, ServingStatus::NotServing).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(until_stopped(access.keeper, stopping.clone()));
        tasks.spawn(async move { driver_task.run().await.map_err(|error| with_way_out(error.into(), &data_dir)) });
        let streams = TaskTracker::new();
        let (door, doorkeeper) = Door::new();
        tasks.spawn(until_stopped(doorkeeper.keep(driver.clone(), clock), stopping.clone()));
        let log_failures = LogFailures::default();
        if let Some(log) = audit_log {
            tasks.spawn(log.keep(driver.clone(), log_failures.clone(), stopping.clone()));
        }
        let audit = (door, Some(reader));
        let api = grpc::Api::new(driver.clone(), streams.clone(), stopping.clone(), chance, audit);
        let stopped = stopping.clone();
        let incoming = Listener::new(grpc_listener, Protocol::Grpc, access.tls.clone()).into_stream();
        let serving = grpc::serve(incoming, access.keys.clone(), api.clone(), health.clone(), async move {
            stopped.cancelled().await;
        });
        tasks.spawn(serving);
        let file = settings.environments.map(|path| {
            let health = FileHealth::default();
            tasks.spawn(environments_file::keep(path, api.clone(), health.clone(), stopping.clone()));
            health
        });
        let site = http::Site::new(driver.clone(), stopping.clone(), file, log_failures);
        let stopped = stopping.clone();
        let listener = Listener::new(http_listener, Protocol::Http, access.tls);
        tasks.spawn(http::serve(listener, site, access.keys, async move {
            stopped.cancelled().await;
        }));
        // The driver is up when it has answered once.
        driver.read(|_| ()).await?;
        grpc::report_health(&health, ServingStatus::Serving).await;
        tracing::info!(%grpc, %http, fleet = fleet_id.as_str(), term = term.0, "listening");
        Ok(Running { grpc, http, fleet: fleet_id, term, driver, health, stopping, tasks, streams })
    }
}

impl Running {
    /// The address of the gRPC API, with the port that was taken.
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc
    }

    /// The address of the HTTP endpoints, with the port that was taken.
    pub fn http_addr(&self) -> SocketAddr {
        self.http
    }

    /// The fleet's id.
    pub fn fleet_id(&self) -> &FleetId {
        &self.fleet
    }

    /// The term that began with this start.
    pub fn term(&self) -> Term {
        self.term
    }

    /// Resolves when a part of control ended that should not have. Then only [`stop`](Self::stop) is of use.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(ended) => match flatten(ended) {
                Ok(()) => anyhow!("a part of control ended unexpectedly"),
                Err(error) => error,
            },
            None => anyhow!("control has ended"),
        }
    }

    /// Stops in order: nobody new is sent here, workers are sent away, calls end, at the latest after 3 s.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        grpc::report_health(&self.health, ServingStatus::NotServing).await;
        let mut result = Ok(());
        let end = async {
            self.driver.stop().await;
            self.stopping.cancel();
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = flatten(ended) {
                    result = Err(error);
                }
            }
            self.streams.close();
            self.streams.wait().await;
        };
        if tokio::time::timeout(STOP_TIMEOUT, end).await.is_err() {
            // Callers that hold on to a stream do not hold up the end.
            tracing::info!("calls under way were cut");
            self.tasks.shutdown().await;
        }
        tracing::info!("stopped");
        result
    }
}

/// Does this until control stops.
async fn until_stopped(work: impl Future<Output = ()>, stopping: CancellationToken) -> anyhow::Result<()> {
    tokio::select! {
        () = work => {}
        () = stopping.cancelled() => {}
    }
    stopping.cancelled().await;
    Ok(())
}

fn flatten(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended.unwrap_or_else(|error| Err(anyhow!(error).context("a part of control panicked")))
}

/// Once, for all that is given up.
fn warn_of_exposure(settings: &Settings) {
    let lack = settings.access.lacks(settings.listen).or_else(|| settings.access.lacks(settings.http_listen));
    if let Some(lack) = lack {
        tracing::warn!(
            without = lack.what(),
            consequence = lack.consequence(),
            "listening beyond loopback with --insecure"
        );
    }
}

fn tell_of_secrets(settings: &Settings) {
    let path = settings.data_dir.display();
    if settings.sealing.is_on() {
        tracing::info!(%path, "SDK keys and store passwords are sealed");
    } else {
        tracing::info!(%path, "SDK keys and store passwords are not sealed, only in files that their owner alone can read; --encryption-key-file seals them");
    }
}

/// Opens what reads the audit records of a store that is open, and what writes them to a log, if they go to one.
fn open_records(settings: &Settings, last: LastRecord) -> anyhow::Result<(AuditReader, Option<LogWriter>)> {
    let reader = AuditReader::open(&settings.data_dir)?;
    let Some(log) = settings.audit_log.clone() else { return Ok((reader, None)) };
    let writer = LogWriter::open(log, reader.clone(), last)
        .map_err(|error| anyhow!("cannot write to the file of --audit-log: {error}"))?;
    Ok((reader, Some(writer)))
}

async fn listen(option: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await;
    let bound = listener.and_then(|listener| {
        let address = listener.local_addr()?;
        Ok((listener, address))
    });
    bound.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            anyhow!("{option} {address} is in use by another program; stop it or choose another port")
        }
        _ => anyhow!("cannot listen on {option} {address}: {error}"),
    })
}

/// What to do when the database fails, which does not know where it is. Other errors name their place.
fn with_way_out(error: anyhow::Error, data_dir: &Path) -> anyhow::Error {
    match error.downcast_ref() {
        Some(StoreError::Database(_)) => error.context(format!(
            "the data directory {} (see --data-dir) cannot be read or written; if its disk is full, make room, then start \
             flotilla-control again: nothing that was answered is lost",
            data_dir.display()
        )),
        Some(_) | None => error,
    }
}

fn open_store(settings: &Settings) -> anyhow::Result<(SqliteStore, Loaded)> {
    let mut store = SqliteStore::open(&settings.data_dir, settings.sealing.clone())?;
    let mut loaded = store.load()?;
    settle_default_store(settings, &mut store, &mut loaded)?;
    Ok((store, loaded))
}

/// The driver of a fleet that has just been loaded.
pub(crate) fn start_driver(
    settings: &Settings,
    loaded: Loaded,
    store: (Box<dyn Store>, Commits),
    clock: Clock,
    chance: &Chance,
) -> (Driver, DriverHandle) {
    let events = loaded.remembered.events.clone();
    let fleet = Fleet::new(fleet_settings(settings, &loaded, chance), loaded.remembered, clock.now());
    let audit = AuditTerms { last: loaded.audit, retention: settings.audit_retention };
    driver(fleet, events, audit, store, clock)
}

/// Puts `--redis-url` in force as the store `default`, unless that would lead environments elsewhere unasked.
pub(crate) fn settle_default_store(
    settings: &Settings,
    store: &mut dyn Store,
    loaded: &mut Loaded,
) -> anyhow::Result<()> {
    let name = StoreName::default_store();
    let remembered = &mut loaded.remembered;
    let before = remembered.stores.iter().position(|(store, _)| *store == name);
    let url = settings.redis_url.clone();
    if let Some((_, stored)) = before.map(|at| &remembered.stores[at]) {
        if *stored == url {
            return Ok(());
        }
        let users = remembered.environments.iter().filter(|one| one.spec.store == name).count();
        let moves = !stored.endpoint().meets(&url.endpoint());
        if moves && users > 0 && !settings.replace_default_store {
            bail!(
                "--redis-url leads to {} but the store \"default\" is {}, and {users} environment(s) use it; \
                 give the former URL, or --replace-default-store to write their data to the new one",
                url.endpoint(),
                stored.endpoint(),
            );
        }
    }
    let others = remembered.stores.iter().filter(|(store, _)| *store != name);
    let met: Vec<_> = others.filter(|(_, other)| other.endpoint().meets(&url.endpoint())).collect();
    if let Some(pair) = met.windows(2).find(|pair| !pair[0].1.endpoint().meets(&pair[1].1.endpoint())) {
        bail!(
            "--redis-url leads to the places of stores \"{}\" and \"{}\", which were given as different ones; give another \
             URL, and remove one of them first",
            pair[0].0,
            pair[1].0
        );
    }
    for one in remembered.environments.iter().filter(|one| one.spec.store == name) {
        if let Err(why) = url.check_prefix(&one.spec.prefix) {
            bail!("--redis-url cannot be the store of environment {}: {why}", one.name);
        }
    }
    let change = Change::PutStore { store: name.clone(), url: Box::new(url.clone()) };
    store.commit(&[change])?;
    match before {
        Some(at) => remembered.stores[at].1 = url,
        None => remembered.stores.push((name, url)),
    }
    Ok(())
}

fn fleet_settings(settings: &Settings, loaded: &Loaded, chance: &Chance) -> FleetSettings {
    FleetSettings {
        fleet: loaded.fleet.clone(),
        term: loaded.term,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        heartbeat_interval: settings.heartbeat_interval,
        lease_duration: settings.lease_duration,
        reassign_grace: settings.reassign_grace,
        stream_uri: settings.stream_uri.clone(),
        base_uri: settings.base_uri.clone(),
        application_id: settings.application_id.clone(),
        application_version: settings.application_version.clone(),
        max_handovers: settings.max_handovers,
        grant_ids: GrantIds { start: chance.uuid().simple().to_string(), last: 0 },
    }
}
