//! One seed from beginning to end: a calm start, chaos, healing, rest.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use flotilla_control::simulation::Disk;
use flotilla_proto::process::Chance;
use flotilla_proto::v1;
use turmoil::{Builder, Sim};

use crate::chaos::Chaos;
use crate::checker::check_history;
use crate::hosts::{control, worker, worker_name};
use crate::rest::{all_began, at_rest};
use crate::user::{self, Act, Acts};
use crate::world::{Shared, Wanted, World};

/// Milliseconds between two looks at the world.
const TICK: u64 = 5;
/// When chaos begins, and when everything is healed.
const CALM: u64 = 4_000;
const HEALED: u64 = 60_000;
/// How long a dead connection goes unnoticed: a lease, and what was on its way. The simulated network sends nothing again.
const SETTLED: u64 = 17_000;
/// How long it may take to come to rest: fenced grants and those that did not manage pause for up to a minute.
const REST: u64 = 240_000;
/// For how long it is watched that it stays at rest, control restarted meanwhile.
const STILL: u64 = 20_000;

/// What came of a seed.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) digest: u64,
    rest: u64,
    writes: usize,
    refused: usize,
    /// For how long something unreadable was shown as current.
    untrue: u64,
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, rest, writes, refused, untrue } = self;
        write!(
            f,
            "at rest after {rest} ms, {writes} writes, {refused} refused, {untrue} ms untrue, digest {digest:016x}"
        )
    }
}

struct Run<'a> {
    sim: Sim<'a>,
    world: Shared,
    acts: Acts,
    chaos: Chaos,
    /// A worker that is not started again for the time being.
    lost: Option<usize>,
}

/// Runs a seed; the error says which property does not hold, and what happened.
pub(crate) fn run(seed: u64) -> Result<Done, String> {
    let workers = usize::try_from(3 + seed % 3).unwrap();
    let names = usize::try_from(4 + seed % 4).unwrap();
    let world: Shared = Arc::new(Mutex::new(World::new(seed, workers)));
    let acts: Acts = Arc::new(Mutex::new(VecDeque::new()));
    let sim = build(seed, workers, &world, &acts);
    let chaos = Chaos::new(&world, &acts, workers, names);
    let mut run = Run { sim, world, acts: Arc::clone(&acts), chaos, lost: None };
    acts.lock().unwrap().push_back(Act::CreatePoison);
    for number in 0..names as u64 {
        let act = run.chaos.create(number);
        acts.lock().unwrap().push_back(act);
    }
    run.until(CALM, |_| {})?;
    all_began(&run.world.lock().unwrap(), names)?;
    run.until(HEALED, |run| run.chaos.step(&mut run.sim))?;
    run.chaos.heal(&mut run.sim);
    // Connections that died before the healing are noticed by then.
    run.until(HEALED + SETTLED, |_| {})?;
    let rest = run.rest(HEALED + REST)?;
    let rest_of_moves = run.moves_no_more_than_it_must(seed)?;
    run.stays_at_rest(rest_of_moves)?;
    let world = run.world.lock().unwrap();
    check_history(&world)?;
    let refused = world.records.iter().filter(|record| !record.accepted).count();
    Ok(Done {
        digest: world.digest(),
        rest: rest - HEALED,
        writes: world.records.len(),
        refused,
        untrue: world.longest_untrue,
    })
}

fn build<'a>(seed: u64, workers: usize, world: &Shared, acts: &Acts) -> Sim<'a> {
    let mut sim = Builder::new()
        .rng_seed(seed)
        .epoch(UNIX_EPOCH + Duration::from_hours(500_000))
        .simulation_duration(Duration::from_hours(1))
        .tick_duration(Duration::from_millis(TICK))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(20))
        .tcp_capacity(100_000)
        .build();
    let dice = Mutex::new(world.lock().unwrap().dice.clone());
    let disk = Disk::new(&Chance::from_fn(move || dice.lock().unwrap().next())).unwrap();
    let of_control = Arc::clone(world);
    sim.host("control", move || control(Arc::clone(&of_control), disk.clone()));
    for number in 0..workers {
        let of_worker = Arc::clone(world);
        sim.host(worker_name(number), move || worker(Arc::clone(&of_worker), number));
    }
    sim.client("user", user::run(Arc::clone(world), Arc::clone(acts)));
    sim
}

/// Who has an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    environment: String,
    worker: String,
    epoch: u64,
}

/// Who has what of that which is served. The poison, which goes round, is not of the script.
fn owners(world: &World) -> Vec<Owner> {
    let is_served = |name: &str| world.named.get(name).is_some_and(|named| named.wanted == Wanted::Served);
    let served = world.listed.1.iter().filter(|shown| is_served(&shown.name));
    let owner = |shown: &v1::Environment| {
        let v1::EnvironmentStatus { worker, epoch, .. } = shown.status.clone().unwrap_or_default();
        Owner { environment: shown.name.clone(), worker, epoch }
    };
    served.map(owner).collect()
}

impl Run<'_> {
    fn step(&mut self) -> Result<(), String> {
        self.sim.step().map_err(|error| format!("a process failed: {error}"))?;
        let mut world = self.world.lock().unwrap();
        world.now += TICK;
        world.deliver();
        world.note_what_is_readable();
        let behind = world.behind;
        let changes = world.now < HEALED && world.now > 1_000 && world.dice.one_in(30);
        if changes && !world.environments.is_empty() {
            let World { environments, dice, .. } = &mut *world;
            let keys: Vec<_> = environments.keys().cloned().collect();
            if let Some(environment) = environments.get_mut(dice.pick(&keys)) {
                environment.change(dice);
            }
        }
        for environment in world.environments.values_mut() {
            environment.catch_up(behind);
        }
        Ok(())
    }

    fn now(&self) -> u64 {
        self.world.lock().unwrap().now
    }

    fn until(&mut self, end: u64, mut each: impl FnMut(&mut Self)) -> Result<(), String> {
        while self.now() < end {
            self.step()?;
            each(self);
        }
        Ok(())
    }

    /// Waits until everything has come to rest; returns when that was.
    fn rest(&mut self, bound: u64) -> Result<u64, String> {
        loop {
            let now = self.now();
            self.until(now + 500, |_| {})?;
            // One that was asked to leave may end only now.
            self.chaos.start_all(&mut self.sim, self.lost);
            self.take_over_conflicts();
            let world = self.world.lock().unwrap();
            let seen_lately = world.now - world.listed.0 < 1_000 && self.acts.lock().unwrap().is_empty();
            match at_rest(&world, self.lost) {
                Ok(()) if seen_lately => return Ok(world.now),
                Err(why) if world.now >= bound => return Err(format!("not at rest: {why}\n{}", world.told())),
                Ok(()) if world.now >= bound => return Err("the user is not done".to_owned()),
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// A store that went back in time may hold the fence of an environment that has ended since: a user has to say that it
    /// may be overwritten.
    fn take_over_conflicts(&self) {
        let mut acts = self.acts.lock().unwrap();
        if acts.is_empty() {
            let world = self.world.lock().unwrap();
            let conflicts = world.listed.1.iter().filter(|shown| {
                let status = shown.status.as_ref();
                status.is_some_and(|status| status.conditions.iter().any(|one| one.r#type == "Conflict"))
            });
            acts.extend(conflicts.map(|shown| Act::TakeOver(shown.name.clone())));
        }
    }

    /// When a worker is lost, what it had moves, and nothing else; when it is back, what others have above the share.
    fn moves_no_more_than_it_must(&mut self, seed: u64) -> Result<u64, String> {
        let workers = self.world.lock().unwrap().links.len();
        let lost = usize::try_from(seed).unwrap() % workers;
        let before = owners(&self.world.lock().unwrap());
        self.sim.crash(worker_name(lost));
        self.world.lock().unwrap().note(format!("{} is lost", worker_name(lost)));
        self.lost = Some(lost);
        let bound = self.now() + REST;
        self.rest(bound)?;
        let without = owners(&self.world.lock().unwrap());
        let moved = |one: &&(Owner, Owner)| one.0 != one.1;
        let pairs: Vec<_> = before.into_iter().zip(without.clone()).collect();
        if let Some(moved) = pairs.iter().filter(moved).find(|(before, _)| before.worker != worker_name(lost)) {
            return Err(format!("{moved:?} moved, and {} was lost\n{}", worker_name(lost), self.told()));
        }
        self.lost = None;
        self.rest(bound + REST)?;
        let world = self.world.lock().unwrap();
        let served = without.iter().filter(|one| !one.worker.is_empty()).count();
        let share = served.div_ceil(workers);
        let load = |worker| without.iter().filter(|one| one.worker == worker_name(worker)).count();
        let excess: usize = (0..workers).map(|worker| load(worker).saturating_sub(share)).sum();
        let pairs: Vec<_> = without.iter().cloned().zip(owners(&world)).collect();
        let changes = pairs.iter().filter(moved).count();
        if changes > excess {
            return Err(format!("{changes} moved, {excess} were above the share: {pairs:?}\n{}", world.told()));
        }
        Ok(world.now)
    }

    fn told(&self) -> String {
        self.world.lock().unwrap().told()
    }

    /// A restart of control moves nothing, and nothing else does.
    fn stays_at_rest(&mut self, since: u64) -> Result<(), String> {
        let before = owners(&self.world.lock().unwrap());
        self.sim.crash("control");
        self.sim.bounce("control");
        self.until(since + STILL, |_| {})?;
        let bound = self.now() + STILL;
        self.rest(bound)?;
        let mut world = self.world.lock().unwrap();
        let after = owners(&world);
        world.is_over = true;
        if before == after {
            Ok(())
        } else {
            Err(format!("it did not stay at rest: {before:?}, then {after:?}\n{}", world.told()))
        }
    }
}
