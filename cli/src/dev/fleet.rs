//! Control and workers in this process.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flotilla_control as control;
use flotilla_proto::access::AccessSettings;
use flotilla_proto::connect::ConnectOptions;
use flotilla_proto::process::Sealing;
use flotilla_proto::{Labels, StoreUrl};
use flotilla_worker as worker;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::client::Client;
use crate::failure::{ExitStatus, Failure};

const GRPC_PORT: u16 = 7400;
const HTTP_PORT: u16 = 7401;
const WORKER_PORT: u16 = 7402;
/// Shorter than a fleet's, for after a restart nothing is placed for one lease.
const HEARTBEAT_INTERVAL: Duration = Duration::from_millis(500);
const LEASE_DURATION: Duration = Duration::from_secs(2);
const MAX_CONNECTING: NonZeroUsize = NonZeroUsize::new(32).expect("32 is not 0");
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug)]
pub(super) struct FleetOptions<'a> {
    /// Where all data is kept.
    pub(super) directory: &'a Path,
    /// The store.
    pub(super) redis_url: StoreUrl,
    /// Instead of LaunchDarkly's.
    pub(super) stream_uri: Option<Url>,
    /// Instead of LaunchDarkly's.
    pub(super) base_uri: Option<Url>,
    /// How many workers.
    pub(super) workers: u8,
    /// Where flag files are.
    pub(super) file_source_dir: Option<PathBuf>,
}

/// Control and workers.
#[derive(Debug)]
pub(super) struct Fleet<'a> {
    options: FleetOptions<'a>,
    control: control::Running,
    /// Each task is one worker, from its start to its end.
    workers: JoinSet<Result<(), String>>,
    worker_addresses: Vec<(String, SocketAddr)>,
    leave: CancellationToken,
}

impl<'a> Fleet<'a> {
    /// Starts control.
    pub(super) async fn start_control(options: FleetOptions<'a>) -> Result<Self, Failure> {
        let mut settings = control::Settings::new(options.directory.join("control"), options.redis_url.clone());
        settings.listen = prefer(GRPC_PORT);
        settings.http_listen = prefer(HTTP_PORT);
        // The Redis of each run is another one, and the flags are at hand.
        settings.replace_default_store = true;
        settings.heartbeat_interval = HEARTBEAT_INTERVAL;
        settings.lease_duration = LEASE_DURATION;
        if let Some(uri) = &options.stream_uri {
            settings.stream_uri = uri.clone();
        }
        if let Some(uri) = &options.base_uri {
            settings.base_uri = uri.clone();
        }
        let mut started = control::App::start(settings.clone()).await;
        if started.is_err() {
            // A port may have been taken since it was looked at.
            (settings.listen, settings.http_listen) = (ANY_PORT, ANY_PORT);
            started = control::App::start(settings).await;
        }
        let control = started.map_err(|error| {
            Failure::new(ExitStatus::Failed, format!("control cannot start: {error:#}"))
                .hint("does another `flotilla dev` run in this directory?")
        })?;
        Ok(Self {
            options,
            control,
            workers: JoinSet::new(),
            worker_addresses: Vec::new(),
            leave: CancellationToken::new(),
        })
    }

    /// Starts the workers.
    pub(super) async fn start_workers(&mut self) -> Result<(), Failure> {
        for number in 1..=self.options.workers {
            let name = format!("dev-{number}");
            let settings = worker::config::Settings {
                control: vec![Url::parse(&self.control_url()).expect("an address makes a valid URL")],
                connect: ConnectOptions::default(),
                name: name.parse().expect("letters, a dash and a number make a valid name"),
                capacity: None,
                labels: Labels::new(),
                http_listen: if number == 1 { prefer(WORKER_PORT) } else { prefer(0) },
                http_access: AccessSettings::default(),
                state_dir: self.options.directory.join(format!("worker-{number}")),
                sealing: Sealing::default(),
                max_connecting: MAX_CONNECTING,
                secrets: worker::secrets::Secrets::default(),
                file_source_dir: self.options.file_source_dir.clone(),
                // All workers end together: there is nobody to hand anything over to.
                drain_timeout: Duration::ZERO,
            };
            let mut started = worker::app::App::start(settings.clone()).await;
            if started.is_err() {
                started =
                    worker::app::App::start(worker::config::Settings { http_listen: ANY_PORT, ..settings }).await;
            }
            let mut running = started.map_err(|error| {
                let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |cause| cause.source());
                let why = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
                Failure::new(ExitStatus::Failed, format!("worker {name} cannot start: {why}"))
                    .hint("does another `flotilla dev` run in this directory?")
            })?;
            self.worker_addresses.push((name.clone(), running.http_addr));
            let leave = self.leave.clone();
            self.workers.spawn(async move {
                tokio::select! {
                    ended = running.ended() => return Err(format!("worker {name} has ended: {ended}")),
                    () = leave.cancelled() => {}
                }
                running.stop().await.map_err(|ended| format!("worker {name} has ended: {ended}"))
            });
        }
        Ok(())
    }

    /// A client of this control.
    pub(super) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.control_url(), ConnectOptions::default(), REQUEST_TIMEOUT)
    }

    /// Where control listens.
    pub(super) fn control_url(&self) -> String {
        format!("http://{}", self.control.grpc_addr())
    }

    /// Where control shows its status.
    pub(super) fn status_url(&self) -> String {
        format!("http://{}/status", self.control.http_addr())
    }

    /// Names of the workers and where they answer.
    pub(super) fn worker_urls(&self) -> Vec<(String, String)> {
        let url = |(name, address): &(String, SocketAddr)| (name.clone(), format!("http://{address}"));
        self.worker_addresses.iter().map(url).collect()
    }

    /// Resolves when a part has ended unasked.
    pub(super) async fn failed(&mut self) -> Failure {
        let message = tokio::select! {
            error = self.control.failed() => format!("control has ended: {error:#}"),
            Some(ended) = self.workers.join_next() => match ended {
                Ok(Err(message)) => message,
                Ok(Ok(())) => "a worker has ended".to_owned(),
                Err(error) => format!("a worker has ended: {error}"),
            },
        };
        Failure::new(ExitStatus::Failed, message)
    }

    /// Stops in order: workers first, so that they can say goodbye.
    pub(super) async fn stop(mut self) {
        self.leave.cancel();
        while let Some(ended) = self.workers.join_next().await {
            if let Ok(Err(message)) = ended {
                tracing::warn!(%message, "a worker did not stop in order");
            }
        }
        if let Err(error) = self.control.stop().await {
            tracing::warn!(%error, "control did not stop in order");
        }
    }
}

/// Any free port of loopback.
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The port, if it is free, or any free one.
fn prefer(port: u16) -> SocketAddr {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match TcpListener::bind(address) {
        Ok(_) => address,
        Err(_) => ANY_PORT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_taken() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = holder.local_addr().unwrap().port();
        assert_eq!(prefer(port).port(), 0);
        drop(holder);
        assert_eq!(prefer(port).port(), port);
    }
}
