//! Changes that never cease: what is lost on the way is missing, or too much, in Redis for ever.

use std::time::Duration;

use flotilla_tests::harness::Fleet;
use flotilla_tests::simulator::{Item, Kind, Simulator};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::population::{Population, probe};

/// Pause between two rounds.
const PAUSE: Duration = Duration::from_millis(20);
/// The first version of the probe, above those that tests send themselves before.
const FIRST_VERSION: u64 = 100;
/// Every so many rounds a flag of an earlier one is deleted.
const DELETED: u64 = 4;

/// Changes under way.
#[derive(Debug)]
pub(crate) struct Patcher {
    stop: oneshot::Sender<()>,
    task: JoinHandle<u64>,
}

impl Patcher {
    /// Begins to change every environment: the probe, and in each round a flag that no other round touches.
    #[expect(clippy::disallowed_methods, reason = "the patcher owns the task and waits for its end")]
    pub(crate) fn start(fleet: &Fleet, population: Population) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(patch(fleet.simulator.clone(), population, stopped));
        Self { stop, task }
    }

    /// Ends the changes, and returns the version of the probe.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.send(()).unwrap();
        self.task.await.unwrap()
    }
}

async fn patch(simulator: Simulator, population: Population, mut stopped: oneshot::Receiver<()>) -> u64 {
    let name = |round: u64| format!("steady-{round:05}");
    for round in 0.. {
        for key in population.indices().map(Population::key) {
            simulator.patch(&key, Kind::Flag, probe(FIRST_VERSION + round));
            let flag = format!(r#"{{"key":"{}","version":1}}"#, name(round));
            simulator.patch(&key, Kind::Flag, Item::parse(&flag).unwrap());
            if round % DELETED == DELETED - 1 {
                simulator.delete(&key, Kind::Flag, &name(round - 1), 2);
            }
        }
        if tokio::time::timeout(PAUSE, &mut stopped).await.is_ok() {
            return FIRST_VERSION + round;
        }
    }
    unreachable!("there are enough numbers")
}
