//! Control with a large fleet: its workers are sessions that only say that all is well, so all the work is control's.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::fleet_service_client::FleetServiceClient;
use flotilla_proto::v1::{CreateEnvironmentRequest, EnvironmentSpec, ListWorkersRequest};
use flotilla_tests::harness::{Fleet, wait_until};
use futures_util::StreamExt as _;
use tonic::transport::Endpoint;

use crate::sessions::Session;
use flotilla_tests::figures::{cpu, memory, started};

/// How large the fleet is.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Environments
    #[arg(long, default_value_t = 10_000)]
    environments: usize,
    /// Workers
    #[arg(long, default_value_t = 200)]
    workers: usize,
    /// Handovers at once, at most
    #[arg(long, default_value_t = 4)]
    max_handovers: usize,
}

const BOUND: Duration = Duration::from_mins(10);
/// Time over which the load at rest is taken.
const REST: Duration = Duration::from_secs(30);
/// Requests under way at once.
const CREATES: usize = 32;

/// Measures, and prints what was found.
pub(crate) async fn run(binaries: &Path, options: &Options) -> anyhow::Result<()> {
    let handovers = options.max_handovers.to_string();
    let arguments = ["--max-handovers", handovers.as_str()];
    let mut fleet = Fleet::builder().workers(0).control_arguments(&arguments).binaries(binaries).start().await?;
    let control = fleet.control().pid();
    let begin = started();
    create(&fleet, options.environments).await?;
    println!("{} environments created in {:.1} s", options.environments, begin.elapsed().as_secs_f64());

    let (begin, used) = (started(), cpu(control)?);
    let url = fleet.control_url();
    let mut sessions: Vec<_> = (0..options.workers).map(|number| Session::start(&url, &worker(number))).collect();
    all_current(&fleet, options.environments).await;
    println!(
        "assigned to {} workers from cold, and all current, in {:.2} s, {:.2} s CPU",
        options.workers,
        begin.elapsed().as_secs_f64(),
        cpu(control)? - used
    );
    print_loads(&fleet).await?;

    let used = cpu(control)?;
    tokio::time::sleep(REST).await;
    let part = (cpu(control)? - used) / REST.as_secs_f64();
    println!(
        "at rest, every worker reporting every 3 s: {:.1} % of a core, {:.1} MB",
        part * 100.0,
        memory(control)?
    );

    let begin = started();
    let before = moves(&fleet).await?;
    let share = u32::try_from(options.environments.div_ceil(options.workers + 1))?;
    let excess: u32 = loads(&fleet).await?.iter().map(|load| load.saturating_sub(share)).sum();
    sessions.push(Session::start(&url, &worker(options.workers)));
    nobody_above(&fleet, share, options.workers + 1).await;
    println!(
        "a worker joined: {} moves, of {excess} that others had above the new share, in {:.1} s",
        moves(&fleet).await? - before,
        begin.elapsed().as_secs_f64()
    );
    let (begin, before) = (started(), moves(&fleet).await?);
    let had = loads(&fleet).await?.first().copied().unwrap_or_default();
    sessions.remove(0);
    all_current_again(&fleet, options, before + u64::from(had)).await;
    println!(
        "a worker of {had} environments was cut off: {} moves, in {:.1} s",
        moves(&fleet).await? - before,
        begin.elapsed().as_secs_f64()
    );
    print_loads(&fleet).await
}

fn worker(number: usize) -> String {
    format!("w{number:03}")
}

async fn create(fleet: &Fleet, environments: usize) -> anyhow::Result<()> {
    let client = EnvironmentServiceClient::new(Endpoint::from_shared(fleet.control_url())?.connect().await?);
    let creates = (0..environments).map(|number| {
        let mut client = client.clone();
        async move {
            let name = format!("env-{number:05}");
            let spec = EnvironmentSpec { prefix: name.clone(), ..EnvironmentSpec::default() };
            let sdk_key = format!("sdk-{number:08x}-0000-4000-8000-000000000000");
            let request =
                CreateEnvironmentRequest { name, spec: Some(spec), sdk_key, ..CreateEnvironmentRequest::default() };
            client.create_environment(request).await
        }
    });
    let mut answers = futures_util::stream::iter(creates).buffer_unordered(CREATES);
    while let Some(answer) = answers.next().await {
        answer?;
    }
    Ok(())
}

async fn metric(fleet: &Fleet, prefix: &str) -> Result<u64, String> {
    let answer = fleet.control_get("/metrics").await.map_err(|error| error.to_string())?;
    let values = answer.body.lines().filter(|line| line.starts_with(prefix));
    values
        .map(|line| line.rsplit(' ').next().unwrap_or_default().parse::<u64>().map_err(|error| error.to_string()))
        .sum()
}

async fn moves(fleet: &Fleet) -> anyhow::Result<u64> {
    metric(fleet, "flotilla_assignments_moved_total").await.map_err(anyhow::Error::msg)
}

async fn all_current(fleet: &Fleet, environments: usize) {
    wait_until("all are current", BOUND, async || {
        let current = metric(fleet, "flotilla_environments{state=\"current\"}").await?;
        if current == environments as u64 { Ok(()) } else { Err(format!("{current} are current")) }
    })
    .await;
}

async fn all_current_again(fleet: &Fleet, options: &Options, moved: u64) {
    wait_until("all have moved", BOUND, async || {
        let now = moves(fleet).await.map_err(|error| error.to_string())?;
        if now >= moved { Ok(()) } else { Err(format!("{now} moves")) }
    })
    .await;
    all_current(fleet, options.environments).await;
}

/// How many environments each worker has, in the order of names.
async fn loads(fleet: &Fleet) -> anyhow::Result<Vec<u32>> {
    let mut client = FleetServiceClient::new(Endpoint::from_shared(fleet.control_url())?.connect().await?);
    let request = ListWorkersRequest { page_size: 1000, ..ListWorkersRequest::default() };
    let workers = client.list_workers(request).await?.into_inner().workers;
    Ok(workers.iter().map(|worker| worker.environments).collect())
}

async fn nobody_above(fleet: &Fleet, share: u32, workers: usize) {
    wait_until("nobody has more than the share", BOUND, async || {
        let loads = loads(fleet).await.map_err(|error| error.to_string())?;
        let most = loads.iter().max().copied().unwrap_or_default();
        if loads.len() == workers && most <= share {
            Ok(())
        } else {
            Err(format!("{} workers, {most}", loads.len()))
        }
    })
    .await;
}

async fn print_loads(fleet: &Fleet) -> anyhow::Result<()> {
    // Who was cut off is still listed.
    let loads: Vec<_> = loads(fleet).await?.into_iter().filter(|load| *load > 0).collect();
    let (least, most) = (loads.iter().min().copied().unwrap_or(0), loads.iter().max().copied().unwrap_or(0));
    println!("loads: {} workers with {least} to {most}", loads.len());
    Ok(())
}
