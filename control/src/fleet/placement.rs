//! Which worker gets which environment: pure functions, sticky bounded rendezvous.
//!
//! What is well placed is not asked about and stays. An environment that needs a place goes to the worker with the
//! highest rendezvous score for it among those that stay within the [`bound`], the mean load rounded up; so the answer
//! depends on names and loads only, and few move when workers come and go. [`excess`] names what a worker above the bound
//! gives away, and to whom: just so much that nobody is above it.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::{EnvironmentName, Labels, WorkerName};

use super::worker::carries;

#[cfg(feature = "simulation")]
pub use scale::LargePlacement;

/// What an environment costs its worker: 1 and one more for every 4 MiB of data.
pub(super) type Weight = u64;

/// A worker that may be given environments.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) worker: &'a WorkerName,
    pub(super) labels: &'a Labels,
    /// How many environments it accepts; `None`: any number.
    pub(super) capacity: Option<u32>,
    /// How many it has.
    pub(super) count: usize,
    /// The sum of their weights.
    pub(super) load: Weight,
}

/// An environment that needs a place.
#[derive(Debug, Clone)]
pub(super) struct Seeker<'a> {
    pub(super) environment: &'a EnvironmentName,
    pub(super) weight: Weight,
    /// Which workers may have it.
    pub(super) place: Place<'a>,
    /// Workers that may not.
    pub(super) without: BTreeSet<&'a WorkerName>,
}

/// Which workers may have an environment.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place<'a> {
    /// Those with room that carry these labels.
    Selected(&'a Labels),
    /// Any, however full: to end something takes no room for long.
    Anywhere,
}

/// One environment, and where it goes.
pub(super) type Placed = (EnvironmentName, Option<WorkerName>);

/// The most that a worker shall bear: the mean load of the workers that have room, rounded up. `waiting` is the weight of
/// what has no place yet.
pub(super) fn bound(candidates: &[Candidate<'_>], waiting: Weight) -> Weight {
    let mut rest: Weight = candidates.iter().map(|candidate| candidate.load).sum::<Weight>() + waiting;
    // A worker's capacity counts environments, each of which weighs at least 1: what it surely bears is taken off first.
    let mut limits: Vec<Weight> = candidates
        .iter()
        .map(|one| one.capacity.map_or(Weight::MAX, |capacity| one.load.max(capacity.into())))
        .collect();
    limits.sort_unstable();
    let mut workers = candidates.len() as Weight;
    for limit in limits {
        let mean = rest.div_ceil(workers);
        if limit >= mean {
            return mean;
        }
        rest -= limit;
        workers -= 1;
    }
    // All are full, or there are none: nobody is above it.
    Weight::MAX
}

/// Places seekers. The answer has one entry for each, in the order of names; `None`: no worker may have it.
pub(super) fn place(candidates: &[Candidate<'_>], seekers: &[Seeker<'_>]) -> Vec<Placed> {
    let mut order: Vec<&Seeker<'_>> = seekers.iter().collect();
    // Those that few workers may have choose first, then the heavy ones: the others fit in anywhere.
    order.sort_by_key(|seeker| (seeker.is_unconstrained(), std::cmp::Reverse(seeker.weight), seeker.environment));
    let waiting: Weight = order.iter().map(|seeker| seeker.weight).sum();
    let mut places = places(candidates, &order, bound(candidates, waiting));
    let stranded = order.iter().zip(&places).filter(|(_, place)| place.is_none());
    let stranded: Weight = stranded.map(|(seeker, _)| seeker.weight).sum();
    if stranded > 0 {
        // What nobody may have is no load: it must not make room for more than a share elsewhere.
        places = self::places(candidates, &order, bound(candidates, waiting - stranded));
    }
    let named = order.iter().zip(places).map(|(seeker, place)| (seeker.environment.clone(), place));
    named.collect::<BTreeMap<_, _>>().into_iter().collect()
}

fn places(candidates: &[Candidate<'_>], order: &[&Seeker<'_>], bound: Weight) -> Vec<Option<WorkerName>> {
    let mut seats: Vec<_> = candidates.iter().map(Seat::new).collect();
    order
        .iter()
        .map(|seeker| {
            let at = best(&seats, seeker, bound).or_else(|| least(&seats, seeker));
            at.map(|at| seats[at].take(seeker.weight))
        })
        .collect()
}

/// What workers above the bound give away, and to whom; `movable` tells what such a worker has that may move. Those that
/// suit their worker least go first. Nothing is moved that would not find a place within the bound.
pub(super) fn excess<'a>(
    candidates: &[Candidate<'_>],
    movable: impl Fn(&WorkerName) -> Vec<Seeker<'a>>,
) -> Vec<(EnvironmentName, WorkerName)> {
    let bound = bound(candidates, 0);
    let mut seats: Vec<_> = candidates.iter().map(Seat::new).collect();
    let mut moves = Vec::new();
    for giver in 0..seats.len() {
        if seats[giver].load <= bound {
            continue;
        }
        let mut seekers = movable(seats[giver].candidate.worker);
        seekers.sort_by_cached_key(|seeker| {
            (seats[giver].score(hash(seeker.environment.as_str())), seeker.environment)
        });
        for seeker in seekers {
            if seats[giver].load <= bound {
                break;
            }
            let Some(taker) = best(&seats, &seeker, bound).filter(|taker| *taker != giver) else { continue };
            seats[giver].load -= seeker.weight;
            seats[giver].count -= 1;
            moves.push((seeker.environment.clone(), seats[taker].take(seeker.weight)));
        }
    }
    moves
}

#[derive(Debug)]
struct Seat<'a> {
    candidate: &'a Candidate<'a>,
    count: usize,
    load: Weight,
    hash: u64,
}

impl<'a> Seat<'a> {
    fn new(candidate: &'a Candidate<'a>) -> Self {
        let Candidate { count, load, worker, .. } = candidate;
        Self { candidate, count: *count, load: *load, hash: hash(worker.as_str()) }
    }

    fn take(&mut self, weight: Weight) -> WorkerName {
        self.count += 1;
        self.load += weight;
        self.candidate.worker.clone()
    }

    fn score(&self, environment: u64) -> u64 {
        mix(environment ^ self.hash)
    }
}

impl Seeker<'_> {
    fn is_unconstrained(&self) -> bool {
        match self.place {
            Place::Selected(selector) => selector.is_empty() && self.without.is_empty(),
            Place::Anywhere => self.without.is_empty(),
        }
    }

    fn may_go_to(&self, seat: &Seat<'_>) -> bool {
        let fits = match self.place {
            Place::Anywhere => true,
            Place::Selected(selector) => {
                let room = seat.candidate.capacity.is_none_or(|capacity| seat.count < capacity as usize);
                room && carries(seat.candidate.labels, selector)
            }
        };
        fits && !self.without.contains(seat.candidate.worker)
    }
}

/// The seat with the highest score that stays within the bound.
fn best(seats: &[Seat<'_>], seeker: &Seeker<'_>, bound: Weight) -> Option<usize> {
    let name = hash(seeker.environment.as_str());
    let mut best = None;
    for (at, seat) in seats.iter().enumerate() {
        // The score costs less than the question who may have it, which only the best so far has to answer.
        let score = (seat.score(name), seat.candidate.worker);
        if best.is_none_or(|(highest, _)| score > highest)
            && seat.load.saturating_add(seeker.weight) <= bound
            && seeker.may_go_to(seat)
        {
            best = Some((score, at));
        }
    }
    best.map(|(_, at)| at)
}

/// The seat with the least load, when none stays within the bound: a full worker is better than none.
fn least(seats: &[Seat<'_>], seeker: &Seeker<'_>) -> Option<usize> {
    let open = seats.iter().enumerate().filter(|(_, seat)| seeker.may_go_to(seat));
    open.min_by_key(|(_, seat)| (seat.load, seat.candidate.worker)).map(|(at, _)| at)
}

/// FNV-1a: the same on every machine and in every version.
fn hash(text: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    mix(text.bytes().fold(0xcbf2_9ce4_8422_2325, step))
}

/// The finalizer of SplitMix64: spreads what is close far apart.
fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

// A large fleet, for benchmarks.
#[cfg(feature = "simulation")]
mod scale;
#[cfg(test)]
mod tests;
