//! Simulation: the real control and workers on a simulated network, clock, store and LaunchDarkly, with chaos by seed.
//!
//! `FLOTILLA_SEED=n` runs that seed alone; `FLOTILLA_SEEDS=n` runs seeds 1 to n. What a seed does is the same each time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

// Chance by seed.
#[path = "simulation/dice.rs"]
mod dice;
// What is shared by all processes.
#[path = "simulation/world.rs"]
mod world;
// The fenced store and the way to it.
#[path = "simulation/store.rs"]
mod store;
// LaunchDarkly.
#[path = "simulation/source.rs"]
mod source;
// Control and workers.
#[path = "simulation/hosts.rs"]
mod hosts;
// A user of the API.
#[path = "simulation/user.rs"]
mod user;
// What goes wrong.
#[path = "simulation/chaos.rs"]
mod chaos;
// What happened.
#[path = "simulation/history.rs"]
mod history;
// What must hold of versions.
#[path = "simulation/versions.rs"]
mod versions;
// What must hold of what control tells.
#[path = "simulation/shown.rs"]
mod shown;
// What must hold at the end.
#[path = "simulation/rest.rs"]
mod rest;
// What must hold.
#[path = "simulation/checker.rs"]
mod checker;
// That the checker finds what it is there for.
#[path = "simulation/checker_tests.rs"]
mod checker_tests;
// One seed from beginning to end.
#[path = "simulation/run.rs"]
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that are run when nothing else is asked for.
const SEEDS: u64 = 30;
/// Threads, each of which runs one seed after the other.
const THREADS: usize = 2;

fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn histories_keep_the_properties() {
    if let Some(seed) = asked("FLOTILLA_SEED") {
        let done = run::run(seed).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        println!("seed {seed}: {done}");
        return;
    }
    let seeds = asked("FLOTILLA_SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(1), std::sync::Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let done = catch_unwind(AssertUnwindSafe(|| run::run(seed)));
                    if let Err(why) = done.unwrap_or_else(|_| Err("it panicked".to_owned())) {
                        println!("seed {seed} failed: {why}\nreplay it with FLOTILLA_SEED={seed}");
                        failed.lock().unwrap().push(seed);
                    }
                    if seed.is_multiple_of(50) {
                        println!("{seed} of {seeds} seeds begun, {} failed", failed.lock().unwrap().len());
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds failed: {failed:?}; replay one with FLOTILLA_SEED",
        failed.len()
    );
}

#[test]
fn a_seed_does_the_same_each_time() {
    let once = || run::run(7).unwrap().digest;
    assert_eq!(once(), once());
}
