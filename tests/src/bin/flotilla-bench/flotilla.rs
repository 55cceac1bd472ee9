//! A fleet, whose control holds the environments.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::{CreateEnvironmentRequest, EnvironmentSpec, GetEnvironmentRequest};
use flotilla_tests::harness::Fleet;
use flotilla_tests::simulator::Dataset;
use tonic::transport::{Channel, Endpoint};

use crate::Options;
use crate::contender::{add_to_simulator, key, name};

/// In which a second worker has taken its share.
const SETTLE: Duration = Duration::from_secs(5);

/// Control and one worker, with a Redis and a LaunchDarkly of their own.
pub(crate) struct Flotilla {
    pub(crate) fleet: Fleet,
    /// Workers that run.
    workers: Vec<usize>,
}

impl Flotilla {
    pub(crate) async fn prepare(
        environments: usize,
        data: &Arc<Dataset>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let fleet = Fleet::builder().workers(0).binaries(&options.binaries).start().await?;
        add_to_simulator(&fleet.simulator, 0..environments, data);
        let flotilla = Self { fleet, workers: Vec::new() };
        let mut api = flotilla.api().await?;
        for number in 0..environments {
            create(&mut api, number).await?;
        }
        Ok(flotilla)
    }

    async fn api(&self) -> anyhow::Result<EnvironmentServiceClient<Channel>> {
        Ok(EnvironmentServiceClient::new(Endpoint::from_shared(self.fleet.control_url())?.connect().await?))
    }

    /// Both start: control with what it has on disk, and a worker that nobody has seen before.
    pub(crate) async fn begin(&mut self) -> anyhow::Result<()> {
        self.fleet.restart_control().await?;
        self.add_worker().await
    }

    async fn add_worker(&mut self) -> anyhow::Result<()> {
        self.fleet.add_worker().await?;
        self.workers.push(self.fleet.worker_count() - 1);
        Ok(())
    }

    pub(crate) async fn add(&mut self, number: usize) -> anyhow::Result<()> {
        create(&mut self.api().await?, number).await
    }

    /// Has a second worker ready.
    pub(crate) async fn stand_by(&mut self) -> anyhow::Result<()> {
        self.add_worker().await?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    /// The worker that has this environment is killed; the other takes over.
    pub(crate) async fn kill_writer(&mut self, number: usize) -> anyhow::Result<()> {
        let request = GetEnvironmentRequest { name: name(number) };
        let environment = self.api().await?.get_environment(request).await?.into_inner().environment;
        let owner = environment.and_then(|environment| environment.status).context("no status")?.worker;
        let place = self.workers.iter().position(|worker| Fleet::worker_name(*worker) == owner);
        let owner = self.workers.remove(place.with_context(|| format!("no worker is named {owner:?}"))?);
        self.fleet.worker(owner).kill9();
        Ok(())
    }

    /// Control and the workers.
    pub(crate) fn processes(&mut self) -> Vec<u32> {
        let mut processes = vec![self.fleet.control().pid()];
        for worker in self.workers.clone() {
            processes.push(self.fleet.worker(worker).pid());
        }
        processes
    }
}

async fn create(api: &mut EnvironmentServiceClient<Channel>, number: usize) -> anyhow::Result<()> {
    let spec = EnvironmentSpec { prefix: name(number), ..EnvironmentSpec::default() };
    let request = CreateEnvironmentRequest {
        name: name(number),
        spec: Some(spec),
        sdk_key: key(number),
        ..CreateEnvironmentRequest::default()
    };
    api.create_environment(request).await?;
    Ok(())
}
