//! Breadth first from states that matter, and at random from the first one.

use std::collections::{HashSet, VecDeque};
use std::mem::discriminant;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::Scheduling;
use super::act::{Act, Budget, Span, Wish};
use super::digest::digest;
use super::state::{State, index_of};

/// How many transitions each breadth-first search makes, at most.
const MOST_TRANSITIONS: usize = 12_000;
/// How many states the smallest search must find, so that none passes for want of anything that can happen.
const FEWEST_STATES: usize = 500;
/// How many random histories there are, and how many things happen in each.
const HISTORIES: u64 = 1000;
const LENGTH: usize = 200;
/// In a history everything may happen as often as it likes.
const UNLIMITED: Budget = Budget { faults: u8::MAX, wishes: u8::MAX, versions: u8::MAX, spans: u8::MAX };

/// A number from the environment of the process.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

#[expect(clippy::disallowed_methods, reason = "how long a search took is only printed")]
fn clock() -> Instant {
    Instant::now()
}

/// A state that is to be gone on from, and how it was reached.
struct Reached {
    state: State,
    /// From which of the first states.
    start: usize,
    path: Vec<Act>,
}

/// Carries out what happens; if a promise is broken by it, says how it came about.
fn happen(state: &mut State, from: &Reached, act: Act) {
    let result = catch_unwind(AssertUnwindSafe(|| {
        state.happen(act);
        state.check();
    }));
    if let Err(panic) = result {
        eprintln!("it came about so, from the start {}: {:?}, {act:?}", from.start, from.path);
        resume_unwind(panic);
    }
}

/// The states through which it comes to rest from a state, if nothing else happens.
fn course(mut state: State) -> Vec<State> {
    state.budget = Budget { faults: 0, wishes: 0, versions: 0, spans: 0 };
    let mut course = vec![state.clone()];
    while let Some(act) = state.possible().first() {
        state.happen(*act);
        course.push(state.clone());
    }
    course
}

/// Every state within a budget of what may happen, breadth first from all of these, until there were enough transitions.
fn search(name: &str, starts: Vec<State>, budget: Budget) {
    let began = clock();
    let mut seen = HashSet::new();
    let mut level: VecDeque<Reached> = VecDeque::new();
    for (at, mut state) in starts.into_iter().enumerate() {
        state.budget = budget;
        if seen.insert(digest(&state)) {
            level.push_back(Reached { state, start: at, path: Vec::new() });
        }
    }
    let most = number("FLOTILLA_TRANSITIONS").map_or(MOST_TRANSITIONS, |most| usize::try_from(most).unwrap());
    let (mut transitions, mut depth) = (0, 0);
    while let Some(reached) = level.pop_front().filter(|_| transitions < most) {
        depth = reached.path.len() + 1;
        for act in reached.state.possible() {
            let mut state = reached.state.clone();
            happen(&mut state, &reached, act);
            transitions += 1;
            if seen.insert(digest(&state)) {
                let path = reached.path.iter().copied().chain([act]).collect();
                level.push_back(Reached { state, start: reached.start, path });
            }
        }
    }
    assert!(seen.len() >= FEWEST_STATES, "{name}: only {} states", seen.len());
    let end = if transitions < most { "all" } else { "bounded" };
    let states = seen.len();
    println!(
        "{name}: {states} states, {transitions} transitions, depth {depth} ({end}), {:.1?}",
        clock().duration_since(began)
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

/// The first environment of the first worker that has one.
fn owned(state: &State) -> (usize, usize) {
    let owner = state.nodes.iter().position(|node| !node.running.is_empty()).expect("somebody owns it");
    let name = state.nodes[owner].running.keys().next().expect("it owns one");
    (owner, index_of(name))
}

#[test]
fn while_environments_find_their_places_no_promise_is_broken() {
    let mut state = State::new();
    for act in [Act::User(0, Wish::Create), Act::User(1, Wish::Create)] {
        state.happen(act);
    }
    search("start, nothing fails", vec![state.clone()], Budget { faults: 0, wishes: 0, versions: 0, spans: 0 });
    search("start, something fails", course(state), Budget { faults: 1, wishes: 0, versions: 0, spans: 1 });
    search("steady, much fails", vec![steady()], Budget { faults: 3, wishes: 0, versions: 1, spans: 1 });
}

#[test]
fn while_an_environment_moves_no_promise_is_broken() {
    let mut state = steady();
    state.happen(Act::Schedule(owned(&state).0, Scheduling::Draining));
    search("draining, nothing fails", vec![state.clone()], Budget { faults: 0, wishes: 0, versions: 2, spans: 1 });
    search(
        "draining, undone or more",
        course(state.clone()),
        Budget { faults: 0, wishes: 1, versions: 0, spans: 1 },
    );
    search("draining, something fails", course(state), Budget { faults: 1, wishes: 0, versions: 0, spans: 1 });
}

#[test]
fn while_an_environment_is_purged_no_promise_is_broken() {
    let mut state = steady();
    state.happen(Act::User(owned(&state).1, Wish::Purge));
    search("purge, created again", course(state.clone()), Budget { faults: 0, wishes: 1, versions: 0, spans: 1 });
    search("purge, something fails", course(state), Budget { faults: 1, wishes: 0, versions: 0, spans: 1 });
}

#[test]
fn while_an_owner_stands_still_no_promise_is_broken() {
    let mut state = steady();
    let (owner, environment) = owned(&state);
    state.happen(Act::Source(environment));
    state.happen(Act::Pause(owner));
    state.happen(Act::Pass(Span::Lease));
    search("paused, nothing else", course(state.clone()), Budget { faults: 0, wishes: 0, versions: 1, spans: 1 });
    search("paused, something else", course(state), Budget { faults: 1, wishes: 0, versions: 0, spans: 1 });
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
        Act::Pass(_) => 3,
        Act::Source(_)
        | Act::Schedule(..)
        | Act::User(..)
        | Act::GiveUp(..)
        | Act::Crash(_)
        | Act::Pause(_)
        | Act::Cut(_) => 2,
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

/// One random history, in which no promise may be broken, and after which everything must heal.
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
    let began = clock();
    let seeds = match number("FLOTILLA_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLOTILLA_HISTORIES").unwrap_or(HISTORIES),
    };
    let mut kinds = HashSet::new();
    let mut steps = 0;
    for seed in seeds.clone() {
        let path = history(seed);
        steps += path.len();
        kinds.extend(path.iter().map(discriminant));
    }
    println!("{} histories, {steps} steps, {:.1?}", seeds.clone().count(), clock().duration_since(began));
    assert!(seeds.count() == 1 || kinds.len() == Act::KINDS, "only {} kinds of things happened", kinds.len());
}
