//! What goes wrong, by seed, and how it ends.

// Data are lost, and somebody else writes.
#[path = "chaos/meddling.rs"]
mod meddling;

use std::collections::BTreeMap;
use std::sync::Arc;

use flotilla_worker::store::model::Model;
use turmoil::Sim;

use crate::dice::Dice;
use crate::hosts::worker_name;
use crate::source::{EDGES, Environment};
use crate::store::Link;
use crate::user::{Act, Acts};
use crate::world::{Shared, Wanted};

/// Chaos over a world and its processes.
pub(crate) struct Chaos {
    world: Shared,
    acts: Acts,
    dice: Dice,
    workers: usize,
    names: usize,
    next: u64,
    /// What ends when.
    ends: Vec<(u64, End)>,
    snapshot: BTreeMap<String, Model>,
}

/// The end of something that goes wrong.
#[derive(Debug, Clone, Copy)]
enum End {
    ControlLink(usize),
    Store(usize),
    Source(usize),
    Pause(usize),
    Worker(usize),
    Control,
    Slow,
    Edge(usize),
    Refusal,
}

impl Chaos {
    pub(crate) fn new(world: &Shared, acts: &Acts, workers: usize, names: usize) -> Self {
        let seed = world.lock().unwrap().dice.next();
        let (world, acts) = (Arc::clone(world), Arc::clone(acts));
        let dice = Dice::new(seed);
        Self { world, acts, dice, workers, names, next: 0, ends: Vec::new(), snapshot: BTreeMap::new() }
    }

    /// Ends what is over, and begins something new if it is time.
    pub(crate) fn step(&mut self, sim: &mut Sim<'_>) {
        let now = self.world.lock().unwrap().now;
        let over: Vec<_> = self.ends.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, end) in over {
            self.end(sim, end);
        }
        if self.next <= now {
            self.next = now + self.dice.of(150..1500);
            self.something(sim, now);
        }
    }

    /// Ends everything: whatever went wrong is well again.
    pub(crate) fn heal(&mut self, sim: &mut Sim<'_>) {
        for (_, end) in std::mem::take(&mut self.ends) {
            self.end(sim, end);
        }
        self.acts.lock().unwrap().retain(|act| !act.is_trouble());
        self.world.lock().unwrap().is_healed = true;
        for worker in 0..self.workers {
            self.end(sim, End::Pause(worker));
            self.acts.lock().unwrap().push_back(Act::Uncordon(worker));
        }
        self.end(sim, End::Slow);
        self.end(sim, End::Refusal);
        for edge in 0..EDGES {
            self.end(sim, End::Edge(edge));
        }
        self.end(sim, End::Control);
        self.start_all(sim, None);
        self.note("healed");
    }

    /// Starts the workers that do not run, but for one that is lost.
    pub(crate) fn start_all(&self, sim: &mut Sim<'_>, lost: Option<usize>) {
        for worker in (0..self.workers).filter(|worker| Some(*worker) != lost) {
            self.end(sim, End::Worker(worker));
        }
    }

    fn note(&self, what: &str) {
        self.world.lock().unwrap().note(what);
    }

    fn worker(&mut self) -> usize {
        usize::try_from(self.dice.of(0..self.workers as u64)).unwrap()
    }

    fn something(&mut self, sim: &mut Sim<'_>, now: u64) {
        let until = now + self.dice.of(300..9000);
        let worker = self.worker();
        match self.dice.of(0..29) {
            0 => self.refuse_control(sim, worker, until),
            1 => self.hold_control(sim, worker, until),
            2 | 3 => self.break_store_link(worker, until),
            4 => self.break_source_link(worker, until),
            5 | 6 => self.crash_worker(sim, worker, until),
            7 => self.crash_control(sim, now),
            8 | 9 => self.pause_worker(sim, worker, now),
            10 => self.ask_to_leave(worker, until),
            11 => self.slow_store(until),
            12 => self.lose_data(),
            13 | 14 => self.leave_edge_behind(now, until),
            15 => self.cut_streams(worker),
            16 => self.acts.lock().unwrap().push_back(Act::Drain(worker)),
            17 => self.acts.lock().unwrap().push_back(Act::Cordon(worker)),
            18 | 19 => self.acts.lock().unwrap().push_back(Act::Uncordon(worker)),
            20 => self.with_environment("LaunchDarkly refuses", |environment| environment.is_refused = true, until),
            21 => self.with_environment("LaunchDarkly puts again", |environment| environment.puts += 1, until),
            22 | 23 => self.write_as_another(),
            _ => self.act_on_environment(),
        }
    }

    fn refuse_control(&mut self, sim: &mut Sim<'_>, worker: usize, until: u64) {
        let name = worker_name(worker);
        self.note(&format!("{name} and control cannot connect"));
        sim.partition(name, "control");
        self.ends.push((until, End::ControlLink(worker)));
    }

    fn hold_control(&mut self, sim: &mut Sim<'_>, worker: usize, until: u64) {
        let name = worker_name(worker);
        self.note(&format!("between {name} and control everything is held"));
        sim.hold(name, "control");
        self.ends.push((until, End::ControlLink(worker)));
    }

    fn break_store_link(&mut self, worker: usize, until: u64) {
        let link = *self.dice.pick(&[Link::Refused, Link::Mute, Link::Deaf, Link::Held]);
        self.note(&format!("{} and the store: {link:?}", worker_name(worker)));
        self.world.lock().unwrap().set_store_link(worker, link);
        self.ends.push((until, End::Store(worker)));
    }

    fn break_source_link(&mut self, worker: usize, until: u64) {
        let link = *self.dice.pick(&[Link::Refused, Link::Mute]);
        self.note(&format!("{} and LaunchDarkly: {link:?}", worker_name(worker)));
        self.world.lock().unwrap().links[worker].source = link;
        self.ends.push((until, End::Source(worker)));
    }

    fn crash_worker(&mut self, sim: &mut Sim<'_>, worker: usize, until: u64) {
        let name = worker_name(worker);
        self.note(&format!("{name} crashes"));
        sim.crash(name);
        self.ends.push((until, End::Worker(worker)));
    }

    fn crash_control(&mut self, sim: &mut Sim<'_>, now: u64) {
        self.note("control crashes");
        sim.crash("control");
        self.ends.push((now + self.dice.of(100..4000), End::Control));
    }

    fn pause_worker(&mut self, sim: &mut Sim<'_>, worker: usize, now: u64) {
        let name = worker_name(worker);
        self.note(&format!("{name} stands still for all others"));
        sim.hold(name, "control");
        let mut world = self.world.lock().unwrap();
        world.set_store_link(worker, Link::Held);
        world.links[worker].source = Link::Held;
        drop(world);
        self.ends.push((now + self.dice.of(300..25_000), End::Pause(worker)));
    }

    fn ask_to_leave(&mut self, worker: usize, until: u64) {
        self.note(&format!("{} is asked to leave", worker_name(worker)));
        self.world.lock().unwrap().disks[worker].leave.cancel();
        self.ends.push((until + 11_000, End::Worker(worker)));
    }

    fn slow_store(&mut self, until: u64) {
        self.note("the store is slow");
        self.world.lock().unwrap().store_is_slow = true;
        self.ends.push((until, End::Slow));
    }

    fn leave_edge_behind(&mut self, now: u64, until: u64) {
        let edge = usize::try_from(self.dice.of(0..EDGES as u64)).unwrap();
        self.note(&format!("edge {edge} falls behind"));
        self.world.lock().unwrap().behind[edge] = true;
        // Some longer than a doubt takes to ripen.
        let until = if self.dice.one_in(3) { now + self.dice.of(20_000..50_000) } else { until };
        self.ends.push((until, End::Edge(edge)));
    }

    fn cut_streams(&mut self, worker: usize) {
        self.note(&format!("the streams of {} are cut", worker_name(worker)));
        self.world.lock().unwrap().links[worker].cuts += 1;
    }

    /// Does something to one of LaunchDarkly's environments.
    fn with_environment(&mut self, what: &str, change: impl FnOnce(&mut Environment), until: u64) {
        let mut world = self.world.lock().unwrap();
        let keys: Vec<_> = world.environments.keys().cloned().collect();
        let key = self.dice.pick(&keys);
        change(world.environments.get_mut(key).unwrap());
        world.note(format!("{what} {key}"));
        self.ends.push((until, End::Refusal));
    }

    fn act_on_environment(&mut self) {
        let number = self.dice.of(0..self.names as u64);
        let name = format!("e{number}");
        let wanted = self.world.lock().unwrap().named.get(&name).map_or(Wanted::Gone, |named| named.wanted);
        let act = match (wanted, self.dice.of(0..6)) {
            (Wanted::Gone, _) => self.create(number),
            (Wanted::Paused, 0..4) => Act::Resume(name),
            (Wanted::Served, 0) => Act::Resync(name),
            (Wanted::Served, 1) => Act::Rotate { name, key: self.environment() },
            (Wanted::Served, 2 | 3) => Act::Pause(name),
            (Wanted::Served | Wanted::Paused, _) => Act::Remove { name, purge: self.dice.one_in(2) },
        };
        self.acts.lock().unwrap().push_back(act);
    }

    /// The prefix is always the same; the LaunchDarkly environment is another each time.
    pub(crate) fn create(&mut self, number: u64) -> Act {
        Act::Create { name: format!("e{number}"), prefix: format!("p{number}"), key: self.environment() }
    }

    /// The key of a new LaunchDarkly environment.
    fn environment(&mut self) -> String {
        let mut world = self.world.lock().unwrap();
        let count = world.environments.len();
        let key = format!("sdk-{count}");
        world.environments.insert(key.clone(), Environment::new(count, &mut self.dice));
        key
    }

    fn end(&self, sim: &mut Sim<'_>, end: End) {
        match end {
            End::ControlLink(worker) => {
                sim.release(worker_name(worker), "control");
                sim.repair(worker_name(worker), "control");
            }
            End::Store(worker) => self.world.lock().unwrap().set_store_link(worker, Link::Up),
            End::Source(worker) => self.world.lock().unwrap().links[worker].source = Link::Up,
            End::Pause(worker) => {
                for end in [End::ControlLink(worker), End::Store(worker), End::Source(worker)] {
                    self.end(sim, end);
                }
            }
            End::Worker(worker) => {
                if !sim.is_host_running(worker_name(worker)) {
                    self.note(&format!("{} starts", worker_name(worker)));
                    sim.bounce(worker_name(worker));
                }
            }
            End::Control => {
                if !sim.is_host_running("control") {
                    self.note("control starts");
                    sim.bounce("control");
                }
            }
            End::Slow => self.world.lock().unwrap().store_is_slow = false,
            End::Edge(edge) => self.world.lock().unwrap().behind[edge] = false,
            End::Refusal => {
                for environment in self.world.lock().unwrap().environments.values_mut() {
                    environment.is_refused = false;
                }
            }
        }
    }
}
