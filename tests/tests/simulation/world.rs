//! Everything of a simulated world that is not in a process: store, sources, links, and what was recorded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use flotilla_proto::v1;
use flotilla_worker::simulation::Memory;
use flotilla_worker::store::StoreNews;
use flotilla_worker::store::model::Model;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::dice::Dice;
use crate::history::Record;
use crate::source::{Delivered, EDGES, Environment};
use crate::store::{Delivery, Link};
use crate::user::prefix_of;

/// A world, as its processes share it.
pub(crate) type Shared = Arc<Mutex<World>>;

/// How one worker reaches the rest, but for control.
#[derive(Debug, Clone)]
pub(crate) struct Links {
    pub(crate) store: Link,
    pub(crate) source: Link,
    /// How often its streams were cut.
    pub(crate) cuts: u64,
}

/// What of a worker outlives its process.
#[derive(Debug, Clone, Default)]
pub(crate) struct WorkerDisk {
    pub(crate) starts: u64,
    /// What it left, and when: the disk gets it a little later.
    pub(crate) written: Vec<(u64, Memory)>,
    /// Asks the present run to leave.
    pub(crate) leave: CancellationToken,
}

/// What users said of an environment, as far as control has confirmed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Served,
    Paused,
    Gone,
}

/// A name in the fleet: its prefix, and which LaunchDarkly environment it is of.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) key: String,
    pub(crate) wanted: Wanted,
}

/// A key that a user gave an environment.
#[derive(Debug, Clone)]
pub(crate) struct GivenKey {
    pub(crate) at: u64,
    pub(crate) prefix: String,
    pub(crate) key: String,
}

pub(crate) struct World {
    /// Milliseconds since the beginning.
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) store: BTreeMap<String, Model>,
    /// When SDKs could last read the environment under a prefix: marker, a flag, and a serving fence.
    pub(crate) readable: BTreeMap<String, u64>,
    /// For how long at most something was shown as current that nobody could read.
    pub(crate) longest_untrue: u64,
    /// How often the store has lost data.
    pub(crate) store_lives: u64,
    pub(crate) store_is_slow: bool,
    pub(crate) deliveries: BTreeMap<(u64, u64), Delivery>,
    pub(crate) held: Vec<Delivery>,
    pub(crate) last_number: u64,
    pub(crate) links: Vec<Links>,
    pub(crate) news: BTreeMap<(usize, String), watch::Sender<StoreNews>>,
    /// LaunchDarkly's environments by SDK key.
    pub(crate) environments: BTreeMap<String, Environment>,
    pub(crate) behind: [bool; EDGES],
    pub(crate) disks: Vec<WorkerDisk>,
    /// The fleet's environments by name.
    pub(crate) named: BTreeMap<String, Named>,
    /// What the last list said, and when.
    pub(crate) listed: (u64, Vec<v1::Environment>),
    pub(crate) workers: Vec<v1::Worker>,
    /// The last events, oldest first.
    pub(crate) events: Vec<v1::Event>,
    /// What the watch has shown last of each environment.
    pub(crate) watched: BTreeMap<String, v1::Environment>,
    /// What was wrong with what control told.
    pub(crate) untruths: Vec<String>,
    pub(crate) records: Vec<Record>,
    pub(crate) delivered: Vec<Delivered>,
    /// When users asked first that an environment be purged, and its prefix.
    pub(crate) purges: Vec<(u64, String)>,
    /// The keys that users gave.
    pub(crate) given_keys: Vec<GivenKey>,
    /// What was done to the world.
    pub(crate) faults: Vec<(u64, String)>,
    /// When the store lost data.
    pub(crate) losses: Vec<u64>,
    /// Nothing goes wrong any more.
    pub(crate) is_healed: bool,
    /// The script has ended, and so may its client.
    pub(crate) is_over: bool,
}

impl World {
    pub(crate) fn new(seed: u64, workers: usize) -> Self {
        Self {
            now: 0,
            dice: Dice::new(seed),
            store: BTreeMap::new(),
            store_lives: 0,
            store_is_slow: false,
            deliveries: BTreeMap::new(),
            held: Vec::new(),
            last_number: 0,
            links: vec![Links { store: Link::Up, source: Link::Up, cuts: 0 }; workers],
            news: BTreeMap::new(),
            environments: BTreeMap::new(),
            behind: [false; EDGES],
            disks: vec![WorkerDisk::default(); workers],
            named: BTreeMap::new(),
            listed: (0, Vec::new()),
            workers: Vec::new(),
            events: Vec::new(),
            watched: BTreeMap::new(),
            untruths: Vec::new(),
            readable: BTreeMap::new(),
            longest_untrue: 0,
            records: Vec::new(),
            delivered: Vec::new(),
            purges: Vec::new(),
            given_keys: Vec::new(),
            faults: Vec::new(),
            losses: Vec::new(),
            is_healed: false,
            is_over: false,
        }
    }

    /// Notes what is done to the world.
    pub(crate) fn note(&mut self, what: impl Into<String>) {
        self.faults.push((self.now, what.into()));
    }

    /// Notes that a user is about to give an environment a key: a new one, or another than before.
    pub(crate) fn note_key(&mut self, name: &str, key: &str) {
        self.given_keys.push(GivenKey { at: self.now, prefix: prefix_of(name), key: key.to_owned() });
    }

    /// Notes that a user is about to have an environment purged.
    pub(crate) fn note_purge(&mut self, name: &str) {
        self.purges.push((self.now, prefix_of(name)));
    }

    /// What control says of what happened last, for people.
    pub(crate) fn told(&self) -> String {
        let line = |event: &v1::Event| {
            let at = event.time.map(|time| flotilla_proto::Timestamp::from_proto(&time)).unwrap_or_default();
            let since = at.0.saturating_sub(1_800_000_000_000);
            format!("{since:>7} {} {} {}", event.environment, event.worker, event.message)
        };
        let told = self.events.iter().map(line).collect::<Vec<_>>().join("\n");
        format!("{told}\nwhat was done to the world:\n{}", self.done_to_it(u64::MAX))
    }

    /// The last of what was done to the world, for people.
    pub(crate) fn done_to_it(&self, until: u64) -> String {
        let done: Vec<_> =
            self.faults.iter().filter(|(at, _)| *at <= until).map(|(at, what)| format!("{at:>7} {what}")).collect();
        done[done.len().saturating_sub(40)..].join("\n")
    }

    /// The wall clock of all processes.
    pub(crate) fn wall(&self) -> flotilla_proto::Timestamp {
        flotilla_proto::Timestamp(1_800_000_000_000 + self.now)
    }
}
