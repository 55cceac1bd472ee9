//! Many environments at once: at the simulator, in a fleet, in Redis. What stands in Redis is compared with what the
//! simulator has, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::v1::environment_service_client::EnvironmentServiceClient;
use flotilla_proto::v1::fleet_service_client::FleetServiceClient;
use flotilla_proto::v1::{
    Environment, EnvironmentStatus, GetWorkerRequest, Initialization, ListEnvironmentsRequest, ListWorkersRequest,
    Worker, WorkerState,
};
use flotilla_tests::harness::{CliOutput, Fleet, wait_until};
use flotilla_tests::simulator::{Dataset, Item, Kind, generated_flags};
use flotilla_worker::fence::Fence;
use futures_util::StreamExt as _;
use redis::aio::MultiplexedConnection;
use tonic::transport::{Channel, Endpoint};

/// The promises are far shorter; a machine that does other things too needs the room.
pub(crate) const BOUND: Duration = Duration::from_secs(20);
/// A flag whose version tells in which order the data came.
pub(crate) const PROBE: &str = "probe";
/// Commands under way at once, when many environments are added.
const ADDS_UNDER_WAY: usize = 4;
/// Generated flags of each environment, beside the probe, and their size.
const FLAGS: (usize, usize) = (4, 1000);

/// Environments number 0 to `count`, their names, keys and prefixes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Population {
    pub(crate) count: usize,
}

/// Who owns an environment, and under which epoch.
pub(crate) type Owners = BTreeMap<String, (String, u64)>;

impl Population {
    pub(crate) fn name(index: usize) -> String {
        format!("env-{index:03}")
    }

    pub(crate) fn key(index: usize) -> String {
        format!("sdk-31000000-0000-4000-8000-{index:012}")
    }

    pub(crate) fn prefix(index: usize) -> String {
        format!("ld:env:{index:03}")
    }

    pub(crate) fn indices(self) -> std::ops::Range<usize> {
        0..self.count
    }

    /// Adds the environments to the simulator and, by the command line, to the fleet, whose workers must all be
    /// connected; waits until everything is current and in Redis.
    pub(crate) async fn settle_in(fleet: &Fleet, count: usize) -> Self {
        Self::settle_in_with(fleet, count, &[]).await
    }

    /// As [`Population::settle_in`], with more arguments for `env add`.
    pub(crate) async fn settle_in_with(fleet: &Fleet, count: usize, more: &[&str]) -> Self {
        wait_until_connected(fleet, fleet.worker_count()).await;
        let population = Self { count };
        for index in population.indices() {
            Self::add_to_simulator(fleet, index);
        }
        let adding = population.indices().map(|index| Self::add_with(fleet, index, more));
        let outputs: Vec<CliOutput> =
            futures_util::stream::iter(adding).buffer_unordered(ADDS_UNDER_WAY).collect().await;
        for output in outputs {
            output.expect_success();
        }
        population.wait_until_current(fleet, BOUND).await;
        population.wait_until_stored(fleet, BOUND).await;
        population
    }

    /// Gives the simulator this environment, with its probe in version 1.
    pub(crate) fn add_to_simulator(fleet: &Fleet, index: usize) {
        let (flags, size) = FLAGS;
        let seed = u64::try_from(index).unwrap();
        let mut data: Dataset = generated_flags(flags, size, seed);
        data.insert(Kind::Flag, probe(1));
        fleet.simulator.add_environment(&Self::key(index), Some(&format!("31{index:022}")), data);
    }

    /// `env add` for this environment.
    pub(crate) async fn add(fleet: &Fleet, index: usize) -> CliOutput {
        Self::add_with(fleet, index, &[]).await
    }

    async fn add_with(fleet: &Fleet, index: usize, more: &[&str]) -> CliOutput {
        let (name, prefix, key) = (Self::name(index), Self::prefix(index), Self::key(index));
        fleet.add_environment(&name, &prefix, &key, more).await.unwrap()
    }

    /// Sends the probe in this version, to every environment.
    pub(crate) fn patch(self, fleet: &Fleet, version: u64) {
        for index in self.indices() {
            fleet.simulator.patch(&Self::key(index), Kind::Flag, probe(version));
        }
    }

    /// Waits until every environment is current.
    pub(crate) async fn wait_until_current(self, fleet: &Fleet, bound: Duration) {
        let mut api = environments_api(fleet);
        wait_until("everything is current", bound, async || {
            let found = list(&mut api).await?;
            if found.len() != self.count {
                return Err(format!("{} environments", found.len()));
            }
            not_current(&found).map_or(Ok(()), Err)
        })
        .await;
    }

    /// Waits until every environment is current, and owned by one of these workers.
    pub(crate) async fn wait_until_owned_by(self, fleet: &Fleet, workers: &[&str], bound: Duration) {
        let mut api = environments_api(fleet);
        wait_until(&format!("everything is current at {workers:?}"), bound, async || {
            let found = list(&mut api).await?;
            let elsewhere = found.iter().find(|one| !workers.contains(&status(one).worker.as_str()));
            match elsewhere {
                Some(environment) => Err(describe(environment)),
                None => not_current(&found).map_or(Ok(()), Err),
            }
        })
        .await;
    }

    /// Waits until Redis holds what the simulator has, of every environment.
    pub(crate) async fn wait_until_stored(self, fleet: &Fleet, bound: Duration) {
        let mut redis = None;
        wait_until("Redis holds what LaunchDarkly sent", bound, async || {
            // The server may be away, and its connections with it.
            if redis.is_none() {
                redis = Some(fleet.redis.connection().await.map_err(|error| format!("{error:#}"))?);
            }
            let connection = redis.as_mut().unwrap();
            for index in self.indices() {
                let data = fleet.simulator.data(&Self::key(index));
                match difference(connection, &Self::prefix(index), &data).await {
                    Ok(()) => {}
                    Err(Difference::Data(what)) => return Err(what),
                    Err(Difference::Redis(error)) => {
                        redis = None;
                        return Err(error.to_string());
                    }
                }
            }
            Ok(())
        })
        .await;
    }

    /// The fences as they stand in Redis.
    pub(crate) async fn fences(self, fleet: &Fleet) -> Vec<String> {
        let mut connection = fleet.redis.connection().await.unwrap();
        let mut pipe = redis::pipe();
        for index in self.indices() {
            pipe.get(format!("{}:$flotilla", Self::prefix(index)));
        }
        let fences: Vec<Option<String>> = pipe.query_async(&mut connection).await.unwrap();
        fences.into_iter().map(|fence| fence.expect("every environment has a fence")).collect()
    }

    /// Streams that were opened so far, one number for each environment.
    pub(crate) fn connections(self, fleet: &Fleet) -> Vec<u64> {
        self.indices().map(|index| fleet.simulator.counters(&Self::key(index)).stream_connections).collect()
    }

    /// Waits until nothing moves, and asserts that control, the workers and Redis agree on one owner for each
    /// environment.
    pub(crate) async fn assert_owned_once(self, fleet: &Fleet) {
        let (owners, workers, fences) = wait_until("nothing moves", BOUND, async || {
            let before = owners(fleet).await;
            let seen = (workers(fleet).await, self.fences(fleet).await);
            let moves = seen.0.iter().any(|worker| worker.standby > 0) || owners(fleet).await != before;
            if moves { Err(format!("{before:?}")) } else { Ok((before, seen.0, seen.1)) }
        })
        .await;
        assert_eq!(owners.len(), self.count);
        let mut held = BTreeMap::new();
        for worker in workers {
            for environment in worker.environment_names {
                let before = held.insert(environment.clone(), worker.name.clone());
                assert_eq!(before, None, "{environment} is owned twice");
            }
        }
        for (index, fence) in fences.iter().enumerate() {
            let fence = Fence::parse(fence).unwrap();
            let (worker, epoch) = &owners[&Self::name(index)];
            assert_eq!(held.get(&Self::name(index)), Some(worker));
            assert_eq!(fence.epoch.0, *epoch, "{}", Self::name(index));
        }
    }
}

/// The flag whose version is watched.
pub(crate) fn probe(version: u64) -> Item {
    let on = version.is_multiple_of(2);
    let json = format!(r#"{{"key":"{PROBE}","version":{version},"on":{on},"variations":[true,false],"salt":"s"}}"#);
    Item::parse(&json).unwrap()
}

/// A client of the environments' service that finds control again after a restart.
pub(crate) fn environments_api(fleet: &Fleet) -> EnvironmentServiceClient<Channel> {
    EnvironmentServiceClient::new(channel(fleet))
}

/// A client of the fleet's service that finds control again after a restart.
pub(crate) fn fleet_api(fleet: &Fleet) -> FleetServiceClient<Channel> {
    FleetServiceClient::new(channel(fleet))
}

/// The channel to control, connected when it is used.
fn channel(fleet: &Fleet) -> Channel {
    Endpoint::from_shared(fleet.control_url()).unwrap().connect_lazy()
}

/// All environments, as control tells of them.
pub(crate) async fn list(api: &mut EnvironmentServiceClient<Channel>) -> Result<Vec<Environment>, String> {
    let request = ListEnvironmentsRequest { page_size: 500, ..ListEnvironmentsRequest::default() };
    let answer = api.list_environments(request).await.map_err(|status| status.to_string())?;
    Ok(answer.into_inner().environments)
}

/// Who owns what now.
pub(crate) async fn owners(fleet: &Fleet) -> Owners {
    let found = list(&mut environments_api(fleet)).await.unwrap();
    found
        .iter()
        .map(|environment| {
            let EnvironmentStatus { worker, epoch, .. } = status(environment);
            (environment.name.clone(), (worker, epoch))
        })
        .collect()
}

/// The names that this worker has among them.
pub(crate) fn owned_by(owners: &Owners, worker: &str) -> BTreeSet<String> {
    owners.iter().filter(|(_, (owner, _))| owner == worker).map(|(name, _)| name.clone()).collect()
}

/// All workers, with the names of their environments.
pub(crate) async fn workers(fleet: &Fleet) -> Vec<Worker> {
    find_workers(fleet).await.unwrap()
}

pub(crate) async fn find_workers(fleet: &Fleet) -> Result<Vec<Worker>, String> {
    let mut api = fleet_api(fleet);
    let request = ListWorkersRequest { page_size: 500, ..ListWorkersRequest::default() };
    let listed = api.list_workers(request).await.map_err(|status| status.to_string())?.into_inner().workers;
    let mut workers = Vec::new();
    for Worker { name, .. } in listed {
        let answer = api.get_worker(GetWorkerRequest { name }).await.map_err(|status| status.to_string())?;
        workers.extend(answer.into_inner().worker);
    }
    Ok(workers)
}

/// Waits until so many workers are connected.
pub(crate) async fn wait_until_connected(fleet: &Fleet, count: usize) {
    wait_until(&format!("{count} workers are connected"), BOUND, async || {
        let workers = find_workers(fleet).await?;
        let connected = workers.iter().filter(|worker| worker.state() == WorkerState::Connected).count();
        if connected == count { Ok(()) } else { Err(format!("{workers:?}")) }
    })
    .await;
}

/// The status; that of an environment of which nothing is known is empty.
pub(crate) fn status(environment: &Environment) -> EnvironmentStatus {
    environment.status.clone().unwrap_or_default()
}

fn not_current(found: &[Environment]) -> Option<String> {
    found.iter().find(|one| status(one).initialization() != Initialization::Current).map(describe)
}

pub(crate) fn describe(environment: &Environment) -> String {
    let EnvironmentStatus { worker, epoch, conditions, last_error, .. } = status(environment);
    let failing: Vec<String> =
        conditions.iter().map(|one| format!("{}={:?}: {}", one.r#type, one.status(), one.message)).collect();
    format!("{} at {worker:?} under {epoch}, {failing:?}, {last_error:?}", environment.name)
}

/// How Redis differs from what it should hold.
enum Difference {
    Redis(redis::RedisError),
    Data(String),
}

async fn difference(redis: &mut MultiplexedConnection, prefix: &str, data: &Dataset) -> Result<(), Difference> {
    let (flags, segments, marker): (BTreeMap<String, String>, BTreeMap<String, String>, bool) = redis::pipe()
        .atomic()
        .hgetall(format!("{prefix}:features"))
        .hgetall(format!("{prefix}:segments"))
        .exists(format!("{prefix}:$inited"))
        .query_async(redis)
        .await
        .map_err(Difference::Redis)?;
    for (kind, stored) in [(Kind::Flag, flags), (Kind::Segment, segments)] {
        let wanted = data.items(kind).map(|item| (item.key().to_owned(), item.json().to_owned())).collect();
        if stored != wanted {
            let keys: Vec<_> = stored.keys().collect();
            let probe = stored.get(PROBE);
            return Err(Difference::Data(format!("{prefix}: {kind:?} {keys:?} differ, the probe is {probe:?}")));
        }
    }
    if marker { Ok(()) } else { Err(Difference::Data(format!("{prefix}: no marker"))) }
}
