//! Readers of the store see one state after the other, never a mixture of two and never none.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use flotilla_tests::harness::{Fleet, RedisServer, wait_until};
use flotilla_tests::simulator::{Dataset, Item, Kind, generated_flag};
use redis::aio::MultiplexedConnection;

use crate::stored::{BOUND, SOON, Stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-0000000000e1";
const PREFIX: &str = "ld:spree";
const SEED: u64 = 15;

/// How one state is followed by the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// One flag changes.
    Patch,
    /// One flag goes.
    Delete,
    /// Everything changes.
    Put,
    /// The stream breaks off, and everything has changed when it is back.
    Cut,
    /// As a cut, on command.
    Resync,
}

struct Story {
    steps: Vec<(Step, Arc<Dataset>)>,
    /// When each state comes, by its digest.
    order: HashMap<u64, usize>,
}

fn digest(stored: &Stored) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&stored.flags, &stored.segments).hash(&mut hasher);
    hasher.finish()
}

/// Every flag and the segment of one version: a mixture with another has a digest that belongs to no state.
fn whole(flags: usize, bytes: usize, version: u64) -> Dataset {
    let mut data = Dataset::default();
    for index in 0..flags {
        data.insert(Kind::Flag, generated_flag(index, version, bytes, SEED));
    }
    let segment = format!(r#"{{"key":"segment","version":{version},"included":[]}}"#);
    data.insert(Kind::Segment, Item::raw("segment", version, &segment));
    data
}

impl Story {
    fn new(first: Dataset, steps: impl Iterator<Item = Step>, flags: usize, bytes: usize) -> Self {
        let mut story = Self { steps: Vec::new(), order: HashMap::new() };
        story.order.insert(digest(&Stored::of(&first)), 0);
        let mut data = first;
        for (step, version) in steps.zip(2u64..) {
            let index = usize::try_from(version).unwrap() % flags;
            match step {
                Step::Patch => data.insert(Kind::Flag, generated_flag(index, version, bytes, SEED)),
                Step::Delete => data.remove(Kind::Flag, &format!("flag-{index:05}")),
                // The number of items changes too.
                Step::Put => data = whole(flags + usize::try_from(version % 3).unwrap(), bytes, version),
                // What a new connection lacks, although it came just before, would stay for a while.
                Step::Cut | Step::Resync => data = whole(flags + 2, bytes, version),
            }
            story.order.insert(digest(&Stored::of(&data)), story.steps.len() + 1);
            story.steps.push((step, Arc::new(data.clone())));
        }
        story
    }
}

/// Reads until it is told to stop; returns how many different states it saw.
async fn read_on(
    mut connection: MultiplexedConnection,
    order: HashMap<u64, usize>,
    stop: Arc<AtomicBool>,
) -> usize {
    let (mut reached, mut states) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let stored = Stored::read(&mut connection, PREFIX).await;
        assert!(stored.marker, "the marker is gone after state {reached}");
        let found = order.get(&digest(&stored));
        let (flags, segments) = (stored.flags.len(), stored.segments.len());
        let found = *found
            .unwrap_or_else(|| panic!("after state {reached}: a mixture, {flags} flags, {segments} segments"));
        assert!(found >= reached, "state {found} after state {reached}");
        states += usize::from(found > reached);
        reached = found;
    }
    states
}

async fn perform(fleet: &Fleet, number: usize, step: Step, data: &Arc<Dataset>) {
    let simulator = &fleet.simulator;
    let version = u64::try_from(number).unwrap() + 2;
    let before = simulator.data(KEY);
    match step {
        Step::Patch => {
            let mut items = data.items(Kind::Flag);
            let changed = items.find(|item| item.version() == version).unwrap();
            simulator.patch(KEY, Kind::Flag, changed.clone());
        }
        Step::Delete => {
            let gone = before.items(Kind::Flag).find(|item| data.get(Kind::Flag, item.key()).is_none());
            if let Some(gone) = gone {
                simulator.delete(KEY, Kind::Flag, gone.key(), version);
            }
        }
        Step::Put => {
            simulator.set_data(KEY, Arc::clone(data));
            simulator.put(KEY);
        }
        Step::Cut => {
            simulator.set_data(KEY, Arc::clone(data));
            simulator.cut_streams(KEY);
        }
        Step::Resync => {
            simulator.set_data(KEY, Arc::clone(data));
            fleet.cli(&["env", "resync", "spree"]).await.unwrap().expect_success();
        }
    }
    assert_eq!(*simulator.data(KEY), **data, "step {number}, {step:?}");
}

/// Waits for one state; the bytes are compared by the readers.
async fn wait_for_state(redis: &RedisServer, data: &Dataset) {
    let mut connection = redis.connection().await.unwrap();
    let wanted = Stored::of(data);
    wait_until("the store has the state", BOUND, async || {
        Stored::read(&mut connection, PREFIX).await.compare(&wanted)
    })
    .await;
}

#[expect(clippy::disallowed_methods, reason = "the readers are awaited below")]
async fn tell(story: Story, first: Dataset, waits_every: usize) {
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("spree-id"), first);
    let more = ["--wait", "--initial-retry-delay", "100ms"];
    fleet.add_environment("spree", PREFIX, KEY, &more).await.unwrap().expect_success();
    let stop = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for _ in 0..2 {
        let connection = fleet.redis.connection().await.unwrap();
        readers.push(tokio::spawn(read_on(connection, story.order.clone(), Arc::clone(&stop))));
    }
    for (number, (step, data)) in story.steps.iter().enumerate() {
        perform(&fleet, number, *step, data).await;
        // What is sent on a stream that a reconnect ends would be lost, so that one is waited for.
        let reconnects = matches!(step, Step::Cut | Step::Resync);
        if reconnects || number % waits_every == 0 {
            wait_for_state(&fleet.redis, data).await;
        }
    }
    wait_for_state(&fleet.redis, &story.steps.last().unwrap().1).await;
    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        let states = reader.await.unwrap();
        assert!(states > story.steps.len() / 10, "a reader saw {states} states only");
    }
    fleet.wait_for_initialization("spree", "current", SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_mixture_or_a_gap() {
    let steps = (0..200).map(|number| match number % 20 {
        19 if number < 100 => Step::Cut,
        19 => Step::Resync,
        3 | 13 => Step::Delete,
        0 | 5 | 10 | 15 => Step::Put,
        _ => Step::Patch,
    });
    let (flags, bytes) = (40, 900);
    let first = whole(flags, bytes, 1);
    tell(Story::new(first.clone(), steps, flags, bytes), first, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn staged_loads_are_one_step_for_readers() {
    // 400 KB: too much for one script.
    let (flags, bytes) = (400, 1_000);
    let steps = (0..30).map(|number| match number % 6 {
        0 | 2 => Step::Put,
        5 => Step::Resync,
        _ => Step::Patch,
    });
    let first = whole(flags, bytes, 1);
    tell(Story::new(first.clone(), steps, flags, bytes), first, 1).await;
}
