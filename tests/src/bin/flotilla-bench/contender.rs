//! The processes of one contender, with a Redis and a LaunchDarkly of their own.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use flotilla_tests::figures::{cpu, memory};
use flotilla_tests::harness::{RedisServer, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, Simulator};
use redis::aio::MultiplexedConnection;

use crate::Options;
use crate::flotilla::Flotilla;
use crate::relay::Relay;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contender {
    Flotilla,
    Relay,
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flotilla => "Flotilla",
            Self::Relay => "ld-relay",
        })
    }
}

/// The longest wait for anything that does come to an end.
pub(crate) const BOUND: Duration = Duration::from_mins(10);

/// One of them at work.
pub(crate) enum Running {
    Flotilla(Box<Flotilla>),
    Relay(Box<Relay>),
}

impl Running {
    /// Knows of the environments, whose data the simulator has, and has not begun.
    pub(crate) async fn prepare(
        contender: Contender,
        environments: usize,
        data: &Arc<Dataset>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        Ok(match contender {
            Contender::Flotilla => Self::Flotilla(Box::new(Flotilla::prepare(environments, data, options).await?)),
            Contender::Relay => Self::Relay(Box::new(Relay::prepare(environments, data, options).await?)),
        })
    }

    /// Begins: its processes start.
    pub(crate) async fn begin(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Flotilla(flotilla) => flotilla.begin().await,
            Self::Relay(relay) => relay.begin(),
        }
    }

    /// Brings an environment in that the simulator knows already.
    pub(crate) async fn add(&mut self, number: usize) -> anyhow::Result<()> {
        match self {
            Self::Flotilla(flotilla) => flotilla.add(number).await,
            Self::Relay(relay) => relay.add(number),
        }
    }

    /// Kills whoever writes this environment; somebody takes over, who for the relay is the one that starts it again.
    pub(crate) async fn kill_writer(&mut self, number: usize) -> anyhow::Result<()> {
        match self {
            Self::Flotilla(flotilla) => flotilla.kill_writer(number).await,
            Self::Relay(relay) => relay.restart(),
        }
    }

    /// Where it can, it has somebody ready to take over.
    pub(crate) async fn stand_by(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Flotilla(flotilla) => flotilla.stand_by().await,
            Self::Relay(_) => Ok(()),
        }
    }

    pub(crate) fn redis(&self) -> &RedisServer {
        match self {
            Self::Flotilla(flotilla) => &flotilla.fleet.redis,
            Self::Relay(relay) => &relay.redis,
        }
    }

    pub(crate) fn redis_mut(&mut self) -> &mut RedisServer {
        match self {
            Self::Flotilla(flotilla) => &mut flotilla.fleet.redis,
            Self::Relay(relay) => &mut relay.redis,
        }
    }

    pub(crate) fn simulator(&self) -> &Simulator {
        match self {
            Self::Flotilla(flotilla) => &flotilla.fleet.simulator,
            Self::Relay(relay) => &relay.simulator,
        }
    }

    fn processes(&mut self) -> Vec<u32> {
        match self {
            Self::Flotilla(flotilla) => flotilla.processes(),
            Self::Relay(relay) => relay.processes(),
        }
    }

    /// Resident memory of all its processes, in MB.
    pub(crate) fn memory(&mut self) -> anyhow::Result<f64> {
        self.processes().into_iter().map(memory).sum()
    }

    /// CPU time that all its processes have used, in seconds.
    pub(crate) fn cpu(&mut self) -> anyhow::Result<f64> {
        self.processes().into_iter().map(cpu).sum()
    }

    /// Waits until the environments have a marker, and as many flags as there are.
    pub(crate) async fn wait_until_filled(&self, environments: usize, flags: usize, bound: Duration) -> bool {
        let Ok(mut redis) = self.redis().connection().await else { return false };
        let waiting = wait_for_all(&mut redis, environments, flags);
        tokio::time::timeout(bound, waiting).await.is_ok()
    }
}

async fn wait_for_all(redis: &mut MultiplexedConnection, environments: usize, flags: usize) {
    let mut first = 0;
    wait_until("all is there", BOUND, async || {
        // What is there stays there.
        while first < environments {
            let mut pipe = redis::pipe();
            let next = first..environments.min(first + 50);
            for number in next.clone() {
                pipe.exists(format!("{}:$inited", name(number))).hlen(format!("{}:features", name(number)));
            }
            let found: Vec<usize> = pipe.query_async(redis).await.map_err(|error| error.to_string())?;
            if let Some(missing) = found.chunks(2).position(|pair| pair != [1, flags]) {
                return Err(format!("{} of {environments}", next.start + missing));
            }
            first = next.end;
        }
        Ok(())
    })
    .await;
}

/// An environment's name, which is its prefix too.
pub(crate) fn name(number: usize) -> String {
    format!("env-{number:05}")
}

/// Its SDK key.
pub(crate) fn key(number: usize) -> String {
    format!("sdk-{number:08x}-0000-4000-8000-000000000000")
}

/// Gives the simulator these environments, all with the same data.
pub(crate) fn add_to_simulator(simulator: &Simulator, numbers: impl Iterator<Item = usize>, data: &Arc<Dataset>) {
    for number in numbers {
        simulator.add_environment(&key(number), None, Arc::clone(data));
    }
}

/// How many bytes of keys and JSON there are.
pub(crate) fn bytes(data: &Dataset) -> usize {
    data.items(Kind::Flag).chain(data.items(Kind::Segment)).map(|item| item.json().len()).sum()
}
