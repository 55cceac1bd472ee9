//! Breadth first from states that matter, and at random from the first one.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::digest::digest;
use super::state::{Act, Budget, State, Wish};

/// How many transitions each breadth-first search makes, at most.
const MOST_TRANSITIONS: usize = 12_000;
/// How many random histories there are, and how many things happen in each.
const HISTORIES: u64 = 100;
const LENGTH: usize = 120;

/// A state that is to be gone on from, and how it was reached.
struct Reached {
    state: State,
    path: Vec<Act>,
}

/// Carries out what happens; if a promise is broken by it, says how it came about.
fn happen(state: &mut State, path: &[Act], act: Act) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        state.happen(act);
        state.check();
    }));
    if let Err(panic) = result {
        eprintln!("it came about so: {path:?}, {act:?}");
        resume_unwind(panic);
    }
}

/// Every state within a budget of what may happen, breadth first, until there were enough transitions.
fn search(name: &str, mut start: State, budget: Budget) {
    let began = Instant::now();
    start.budget = budget;
    let mut seen = HashSet::from([digest(&start)]);
    let mut level = vec![Reached { state: start, path: Vec::new() }];
    let (mut transitions, mut depth) = (0, 0);
    while !level.is_empty() && transitions < MOST_TRANSITIONS {
        let mut next = Vec::new();
        for reached in &level {
            for act in reached.state.possible() {
                let mut state = reached.state.clone();
                happen(&mut state, &reached.path, act);
                transitions += 1;
                if seen.insert(digest(&state)) {
                    let path = reached.path.iter().copied().chain([act]).collect();
                    next.push(Reached { state, path });
                }
            }
        }
        level = next;
        depth += 1;
    }
    let end = if level.is_empty() { "all" } else { "bounded" };
    println!(
        "{name}: {} states, {transitions} transitions, depth {depth} ({end}), {:.1?}",
        seen.len(),
        began.elapsed()
    );
}

/// Both environments exist, both workers are connected, and all is well.
fn steady() -> State {
    let mut state = State::new();
    for act in [Act::Connect(0), Act::Connect(1), Act::User(0, Wish::Create), Act::User(1, Wish::Create)] {
        state.happen(act);
    }
    state.check_that_it_heals(&mut |_| {});
    state
}

#[test]
fn near_the_steady_state_no_promise_is_broken() {
    search("steady", steady(), Budget { faults: 2, wishes: 1, versions: 1, spans: 2 });
}

/// Numbers that look like chance and come again with the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }
}

/// How often something is chosen among what can happen.
fn weight(act: Act) -> usize {
    match act {
        Act::Up(_) | Act::UpOfOld(_) | Act::Down(_) | Act::Store(..) => 12,
        Act::Late(..) | Act::Connect(_) => 6,
        Act::Restart(_) | Act::Resume(_) | Act::Source(_) => 4,
        Act::RestartWithoutCache(_) | Act::Pass(_) => 2,
        Act::GiveUp(..) | Act::Crash(_) | Act::Pause(_) | Act::Cut(_) => 2,
        Act::Schedule(..) | Act::User(..) | Act::RestartControl | Act::Flush => 1,
    }
}

fn choose(random: &mut Random, possible: &[Act]) -> Act {
    let total = possible.iter().map(|act| weight(*act)).sum();
    let mut left = random.below(total);
    for act in possible {
        match left.checked_sub(weight(*act)) {
            None => return *act,
            Some(rest) => left = rest,
        }
    }
    unreachable!("the weights have a sum")
}

fn history(seed: u64) -> usize {
    let mut random = Random(seed);
    let mut state = State::new();
    let mut path = Vec::new();
    let budget = Budget { faults: u8::MAX, wishes: u8::MAX, versions: u8::MAX, spans: u8::MAX };
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..LENGTH {
            state.budget = budget;
            let act = choose(&mut random, &state.possible());
            path.push(act);
            state.happen(act);
            state.check();
        }
        state.check_that_it_heals(&mut |act| path.push(*act));
    }));
    if let Err(panic) = result {
        eprintln!("play it again with FLOTILLA_SEED={seed}; it came about so: {path:?}");
        resume_unwind(panic);
    }
    path.len()
}

#[test]
fn random_histories_break_no_promise_and_end_well() {
    let began = Instant::now();
    let seed = std::env::var("FLOTILLA_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = seed.map_or(0..HISTORIES, |seed: u64| seed..seed + 1);
    let steps: usize = seeds.clone().map(history).sum();
    println!("{} histories, {steps} steps, {:.1?}", seeds.count(), began.elapsed());
}
