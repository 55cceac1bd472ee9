//! Breadth first from states that matter, and at random from the first one.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::digest::digest;
use super::state::{Act, Budget, State, Wish};

/// How many transitions each breadth-first search makes, at most.
const MOST_TRANSITIONS: usize = 12_000;
/// How many random histories there are, and how many things happen in each.
const HISTORIES: u64 = 1000;
const LENGTH: usize = 200;
/// In a history everything may happen as often as it likes.
const UNLIMITED: Budget = Budget { faults: u8::MAX, wishes: u8::MAX, versions: u8::MAX, spans: u8::MAX };

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
    state.check_that_it_heals();
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

/// How often something is chosen among what can happen, in a history in which much or little fails.
fn weight(act: Act, quiet: usize) -> usize {
    match act {
        Act::Up(_) | Act::UpOfOld(_) | Act::Down(_) | Act::Store(..) => 12 * quiet,
        Act::Restart(_) | Act::Resume(_) | Act::Connect(_) => 6 * quiet,
        Act::RestartWithoutCache(_) | Act::Late(..) => 3 * quiet,
        Act::Source(_) | Act::Schedule(..) | Act::User(..) => 2,
        Act::Pass(_) => 3,
        Act::GiveUp(..) | Act::Crash(_) | Act::Pause(_) | Act::Cut(_) => 2,
        Act::RestartControl | Act::Flush => 1,
    }
}

fn choose(random: &mut Random, possible: &[Act], quiet: usize) -> Act {
    let total = possible.iter().map(|act| weight(*act, quiet)).sum();
    let mut left = random.below(total);
    for act in possible {
        match left.checked_sub(weight(*act, quiet)) {
            None => return *act,
            Some(rest) => left = rest,
        }
    }
    unreachable!("the weights have a sum")
}

/// What happens in one random history. Nothing is checked yet: that is done by [`play`].
fn history(seed: u64) -> Vec<Act> {
    let mut random = Random(seed);
    let mut state = State::new();
    let mut path = Vec::new();
    let quiet = 1 + random.below(20);
    let result = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..LENGTH {
            state.budget = UNLIMITED;
            let act = choose(&mut random, &state.possible(), quiet);
            path.push(act);
            state.happen(act);
            state.check();
        }
        state.check_that_it_heals();
    }));
    if result.is_err() {
        eprintln!("play it again with FLOTILLA_SEED={seed}");
        explain(&path);
    }
    path
}

/// Plays a history, leaving out what is not possible, and heals everything. Whether no promise is broken.
fn is_well(path: &[Act]) -> bool {
    let play = || {
        let mut state = State::new();
        for act in path {
            state.budget = UNLIMITED;
            if state.possible().contains(act) {
                state.happen(*act);
                state.check();
            }
        }
        state.check_that_it_heals();
    };
    catch_unwind(play).is_ok()
}

/// A promise was broken: leaves out of the history all that is not needed for it, and plays the rest for all to see.
fn explain(path: &[Act]) -> ! {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut path = path.to_vec();
    let mut piece = path.len();
    while piece > 0 {
        let before = path.len();
        let mut at = 0;
        while at < path.len() {
            let end = (at + piece).min(path.len());
            let shorter: Vec<_> = path[..at].iter().chain(&path[end..]).copied().collect();
            if is_well(&shorter) {
                at = end;
            } else {
                path = shorter;
            }
        }
        piece = if piece == 1 && path.len() < before { 1 } else { piece / 2 };
    }
    std::panic::set_hook(hook);
    is_well(&path);
    panic!("a promise is broken, as said above, by {path:?}");
}

#[test]
fn random_histories_break_no_promise_and_end_well() {
    let began = Instant::now();
    let seed = std::env::var("FLOTILLA_SEED").ok().map(|seed| seed.parse().expect("a number"));
    let seeds = seed.map_or(0..HISTORIES, |seed: u64| seed..seed + 1);
    let steps: usize = seeds.clone().map(|seed| history(seed).len()).sum();
    println!("{} histories, {steps} steps, {:.1?}", seeds.count(), began.elapsed());
}
