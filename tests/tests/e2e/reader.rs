//! A reader of Redis that never looks away: what an SDK sees while owners change, and who wrote it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use flotilla_tests::harness::Fleet;
use flotilla_worker::fence::Fence;
use redis::aio::MultiplexedConnection;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::population::{PROBE, Population};

/// Pause between two looks at everything.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);

/// What was seen of one environment, when it was not what had been seen before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    pub(crate) at: Instant,
    /// The epoch in the fence.
    pub(crate) epoch: Option<u64>,
    /// Version of the probe.
    pub(crate) version: Option<u64>,
    pub(crate) marker: bool,
}

/// A reader at work.
#[derive(Debug)]
pub(crate) struct Reader {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<Vec<Sight>>>,
}

/// What a reader saw: for each environment, each change.
#[derive(Debug)]
pub(crate) struct Record(pub(crate) Vec<Vec<Sight>>);

impl Reader {
    /// Begins to read the environments of a population.
    #[expect(clippy::disallowed_methods, reason = "the reader owns the task and waits for its end")]
    pub(crate) async fn start(fleet: &Fleet, population: Population) -> Self {
        let connection = fleet.redis.connection().await.unwrap();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(read(connection, population, stopped));
        Self { stop, task }
    }

    /// Ends the reading.
    pub(crate) async fn stop(self) -> Record {
        self.stop.send(()).unwrap();
        Record(self.task.await.unwrap())
    }
}

impl Record {
    /// Asserts that nothing went backwards and that the data was there all the time.
    pub(crate) fn assert_never_rolled_back(&self) {
        for (index, sights) in self.0.iter().enumerate() {
            let name = Population::name(index);
            for sight in sights {
                assert!(sight.marker && sight.version.is_some(), "{name} had a gap: {sights:?}");
            }
            for pair in sights.windows(2) {
                assert!(pair[0].epoch <= pair[1].epoch, "{name}: an older owner wrote: {sights:?}");
                assert!(pair[0].version <= pair[1].version, "{name}: data fell back: {sights:?}");
            }
        }
    }

    /// How long after `since` the first, and the last, of the environments that changed their epoch did so.
    pub(crate) fn first_and_last_takeover(&self, since: Instant) -> Option<(Duration, Duration)> {
        let takeovers = self.0.iter().flat_map(|sights| {
            sights.windows(2).filter(|pair| pair[0].epoch != pair[1].epoch).map(|pair| pair[1].at)
        });
        let after: Vec<Duration> = takeovers.map(|at| at.saturating_duration_since(since)).collect();
        Some((*after.iter().min()?, *after.iter().max()?))
    }
}

async fn read(
    mut redis: MultiplexedConnection,
    population: Population,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<Vec<Sight>> {
    let mut seen: BTreeMap<usize, Vec<Sight>> = BTreeMap::new();
    loop {
        for index in population.indices() {
            let sight = look(&mut redis, &Population::prefix(index)).await;
            let sights = seen.entry(index).or_default();
            let known = sights.last().is_some_and(|last| Sight { at: last.at, ..sight.clone() } == *last);
            if !known {
                sights.push(sight);
            }
        }
        if tokio::time::timeout(LOOK_INTERVAL, &mut stopped).await.is_ok() {
            return seen.into_values().collect();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "says when something was seen")]
async fn look(redis: &mut MultiplexedConnection, prefix: &str) -> Sight {
    let (fence, probe, marker): (Option<String>, Option<String>, bool) = redis::pipe()
        .atomic()
        .get(format!("{prefix}:$flotilla"))
        .hget(format!("{prefix}:features"), PROBE)
        .exists(format!("{prefix}:$inited"))
        .query_async(redis)
        .await
        .unwrap();
    let version = |json: String| serde_json::from_str::<serde_json::Value>(&json).unwrap()["version"].as_u64();
    Sight {
        at: Instant::now(),
        epoch: fence.map(|fence| Fence::parse(&fence).expect("a fence is readable").epoch.0),
        version: probe.and_then(version),
        marker,
    }
}
