//! Each process is killed, stands still or is cut off at each stage of a handover. Whatever happens, there is no gap and
//! nothing falls back; and when it is over, the handover has come to its end.
//!
//! Each case has a fleet of its own, and several run at a time. The stage is held by the network of the worker that takes
//! over: without LaunchDarkly it does not get ready, and without Redis it does not get to serve.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use flotilla_proto::v1::{Event, EventType};
use flotilla_tests::harness::{Fleet, Link, require_tool, wait_until};
use flotilla_tests::proxy::{Client, Flow, Rule};
use futures_util::{FutureExt as _, StreamExt as _};

use crate::chronicle::{Events, sentences, wait_until_shared};
use crate::population::{BOUND, Population, find_workers};
use crate::reader::Reader;

const SHORT: [&str; 6] = ["--heartbeat-interval", "300ms", "--lease-duration", "2s", "--reassign-grace", "300ms"];
/// Longer than a lease, than a call to Redis may take, and than control may take for a step; shorter than a promotion.
const STANDSTILL: Duration = Duration::from_secs(4);
/// Fleets at a time. They wait most of the time.
const AT_A_TIME: usize = 8;
const ENVIRONMENTS: usize = 2;

/// How far the handover is when the fault comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The next owner has no stream yet.
    Warming,
    /// It has the serve grant, and has not claimed the prefix yet.
    Promoted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// The worker that is drained, number 0.
    Old,
    /// The one that takes over, number 1.
    New,
    Control,
    Redis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// kill -9, and a new start.
    Kill(Who),
    /// SIGSTOP, and after a while SIGCONT.
    Stop(Who),
    /// A worker is cut off.
    Cut(Who, Link, Rule),
}

const HOLE: Rule = Rule::both(Flow::BlackHole);

const FAULTS: [Fault; 15] = [
    Fault::Kill(Who::Old),
    Fault::Kill(Who::New),
    Fault::Kill(Who::Control),
    Fault::Stop(Who::Old),
    Fault::Stop(Who::New),
    Fault::Stop(Who::Control),
    Fault::Stop(Who::Redis),
    Fault::Cut(Who::Old, Link::Control, Rule::RESET),
    Fault::Cut(Who::Old, Link::Control, HOLE),
    Fault::Cut(Who::New, Link::Control, Rule::RESET),
    Fault::Cut(Who::New, Link::Control, HOLE),
    Fault::Cut(Who::Old, Link::Redis, Rule::RESET),
    Fault::Cut(Who::Old, Link::Redis, HOLE),
    Fault::Cut(Who::Old, Link::LaunchDarkly, Rule::RESET),
    Fault::Cut(Who::Old, Link::LaunchDarkly, HOLE),
];

/// A fleet in the middle of a handover.
struct Scene {
    fleet: Fleet,
    population: Population,
    events: Events,
    reader: Reader,
}

impl Scene {
    /// Everything is at the first worker, and on its way to the second, which is kept at a stage.
    async fn at(stage: Stage) -> Self {
        let builder = Fleet::builder().workers(2).control_arguments(&SHORT).through_proxies();
        let mut fleet = builder.start().await.unwrap();
        let population =
            Population::settle_in_with(&fleet, ENVIRONMENTS, &["--initial-retry-delay", "100ms"]).await;
        let say = async |fleet: &Fleet, arguments: &[&str]| fleet.cli(arguments).await.unwrap().expect_success();
        say(&fleet, &["worker", "drain", "w2", "--wait"]).await;
        population.patch(&fleet, 2);
        population.wait_until_stored(&fleet, BOUND).await;

        let events = Events::from_now(&fleet).await;
        let reader = Reader::start(&fleet, population).await;
        let next = Client::Process(fleet.worker(1).pid());
        let (link, rule, reached) = match stage {
            Stage::Warming => (Link::LaunchDarkly, Rule::down(Flow::Hold), EventType::HandoverBegun),
            Stage::Promoted => (Link::Redis, Rule::both(Flow::Hold), EventType::Moved),
        };
        fleet.links().proxy(link).set(next, rule);
        say(&fleet, &["worker", "drain", "w1"]).await;
        say(&fleet, &["worker", "uncordon", "w2"]).await;
        events.wait_for(reached, ENVIRONMENTS, BOUND, |event| event.worker == "w2").await;
        let standby =
            find_workers(&fleet).await.unwrap().into_iter().map(|worker| worker.standby).collect::<Vec<_>>();
        let held = if stage == Stage::Warming { [0, 2] } else { [2, 0] };
        assert_eq!(standby, held, "the stage is held");
        Self { fleet, population, events, reader }
    }

    fn pid(&mut self, who: Who) -> u32 {
        match who {
            Who::Old => self.fleet.worker(0).pid(),
            Who::New => self.fleet.worker(1).pid(),
            Who::Control => self.fleet.control().pid(),
            Who::Redis => self.fleet.redis.process().pid(),
        }
    }

    /// Waits until control holds a worker for lost.
    async fn wait_until_lost(&self, who: Who) {
        let name = match who {
            Who::Old => "w1",
            Who::New => "w2",
            Who::Control | Who::Redis => unreachable!("it is no worker"),
        };
        let is_gone = |reason: &str| reason == "gone";
        let kind = EventType::WorkerChanged;
        self.events.wait_for(kind, 1, BOUND, |event| event.worker == name && is_gone(&event.reason)).await;
    }

    /// Lets the fault happen, and ends it when it has had its effect.
    async fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Kill(Who::Control) => self.fleet.control().kill9(),
            Fault::Kill(Who::Old) => self.fleet.worker(0).kill9(),
            Fault::Kill(Who::New) => self.fleet.worker(1).kill9(),
            Fault::Kill(Who::Redis) => unreachable!("its data would be gone"),
            Fault::Stop(Who::Control) => self.fleet.control().stop_sigstop(),
            Fault::Stop(Who::Redis) => self.fleet.redis.process().stop_sigstop(),
            Fault::Stop(Who::Old) => self.fleet.worker(0).stop_sigstop(),
            Fault::Stop(Who::New) => self.fleet.worker(1).stop_sigstop(),
            Fault::Cut(who, link, rule) => {
                let client = Client::Process(self.pid(who));
                self.fleet.links().proxy(link).set(client, rule);
            }
        }
        self.population.patch(&self.fleet, 3);
        match fault {
            Fault::Kill(who @ (Who::Old | Who::New))
            | Fault::Stop(who @ (Who::Old | Who::New))
            | Fault::Cut(who, Link::Control, _) => self.wait_until_lost(who).await,
            Fault::Kill(Who::Control | Who::Redis) => {}
            // Not to wait for something: this long is what the fault is.
            Fault::Stop(Who::Control | Who::Redis) | Fault::Cut(..) => tokio::time::sleep(STANDSTILL).await,
        }
        self.population.patch(&self.fleet, 4);
        match fault {
            Fault::Kill(Who::Control) => self.fleet.restart_control().await.unwrap(),
            Fault::Kill(Who::Old) => self.fleet.restart_worker(0).await.unwrap(),
            Fault::Kill(Who::New) => self.fleet.restart_worker(1).await.unwrap(),
            Fault::Stop(Who::Control) => self.fleet.control().cont(),
            Fault::Stop(Who::Redis) => self.fleet.redis.process().cont(),
            Fault::Stop(Who::Old) => self.fleet.worker(0).cont(),
            Fault::Stop(Who::New) => self.fleet.worker(1).cont(),
            Fault::Kill(Who::Redis) | Fault::Cut(..) => {}
        }
        // The network last: what it held comes when everything has gone on without it.
        self.fleet.links().heal();
    }

    async fn assert_ends_well(self) {
        let Self { fleet, population, reader, .. } = self;
        wait_until_shared(&fleet, &[("w1", 0), ("w2", 2)], BOUND).await;
        population.wait_until_current(&fleet, BOUND).await;
        population.wait_until_stored(&fleet, BOUND).await;
        population.patch(&fleet, 5);
        population.wait_until_stored(&fleet, BOUND).await;
        population.assert_owned_once(&fleet).await;
        reader.stop().await.assert_never_rolled_back();
    }
}

async fn run(stage: Stage, fault: Fault) {
    let mut scene = Scene::at(stage).await;
    scene.suffer(fault).await;
    scene.assert_ends_well().await;
}

/// Runs all cases of a stage, and says which of them failed.
async fn run_all(stage: Stage) {
    let runs = FAULTS.map(|fault| {
        // A case that panics must not end the others.
        let run = AssertUnwindSafe(run(stage, fault)).catch_unwind();
        Box::pin(run.map(move |ended| ended.is_err().then(|| format!("{fault:?}"))))
    });
    let failed: Vec<_> = futures_util::stream::iter(runs)
        .buffer_unordered(AT_A_TIME)
        .filter_map(async |failed| failed)
        .collect()
        .await;
    assert_eq!(failed, Vec::<String>::new(), "at the stage {stage:?}");
}

/// The next owner never serves: the last one goes on all the time, and gets the environment back.
async fn undone(rule: Rule) {
    let mut scene = Scene::at(Stage::Promoted).await;
    let next = scene.pid(Who::New);
    scene.fleet.links().proxy(Link::Redis).set(Client::Process(next), rule);
    scene.population.patch(&scene.fleet, 3);
    scene.population.wait_until_stored(&scene.fleet, BOUND).await;
    let abandoned = |event: &Event| event.worker == "w2" && event.reason == "timeout";
    scene.events.wait_for(EventType::HandoverAbandoned, ENVIRONMENTS, BOUND, abandoned).await;
    let is_undone = |event: &Event| event.worker == "w1" && event.reason == "undone";
    scene.events.wait_for(EventType::Moved, ENVIRONMENTS, BOUND, is_undone).await;
    wait_until_shared(&scene.fleet, &[("w1", 2), ("w2", 0)], BOUND).await;
    scene.population.assert_owned_once(&scene.fleet).await;
    let fences = scene.population.fences(&scene.fleet).await;

    // What the next owner had sent comes late.
    scene.fleet.links().heal();
    let proxy = scene.fleet.links().proxy(Link::Redis).clone();
    wait_until("the held connections came to their end", BOUND, async || {
        let open = proxy.open();
        if open <= 4 { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
    assert_eq!(scene.population.fences(&scene.fleet).await, fences, "a late claim was accepted");
    // Under its new grant the last owner has to report first; until then it was current without a break.
    let told = scene.events.told().await.unwrap();
    let undone = told.iter().position(|event| event.r#type() == EventType::HandoverAbandoned).unwrap();
    let changed = |event: &Event| event.r#type() == EventType::InitializationChanged;
    assert!(!told[..undone].iter().any(changed), "{}", sentences(&told));
    scene.population.patch(&scene.fleet, 4);
    scene.population.wait_until_stored(&scene.fleet, BOUND).await;
    scene.population.assert_owned_once(&scene.fleet).await;
    scene.reader.stop().await.assert_never_rolled_back();
}

/// With the shipped time limit of a promotion, 15 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promotion_that_cannot_reach_redis_is_undone() {
    if !require_tool("redis-server") {
        return;
    }
    tokio::join!(undone(Rule::both(Flow::Hold)), undone(HOLE), undone(Rule::RESET));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_next_owner_gets_ready() {
    if !require_tool("redis-server") {
        return;
    }
    run_all(Stage::Warming).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_next_owner_takes_over() {
    if !require_tool("redis-server") {
        return;
    }
    run_all(Stage::Promoted).await;
}
