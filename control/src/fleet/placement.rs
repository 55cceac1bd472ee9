//! Which worker gets which orphan: a pure function.
//!
//! What is well placed is not asked about and stays. Orphans go, one by one, to the worker with the least load that may
//! have them; among equals the highest rendezvous score wins, so that the answer depends on names and loads only.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::{EnvironmentName, Labels, WorkerName};

use super::worker::carries;

/// A worker that may be given environments.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) worker: &'a WorkerName,
    pub(super) labels: &'a Labels,
    /// How many it accepts; `None`: any number.
    pub(super) capacity: Option<u32>,
    /// How many it holds.
    pub(super) load: usize,
}

/// An environment without a worker.
#[derive(Debug, Clone)]
pub(super) struct Orphan<'a> {
    pub(super) environment: &'a EnvironmentName,
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

/// Places orphans. The answer has one entry for each, in the order of names; `None`: no worker may have it.
pub(super) fn place(
    candidates: &[Candidate<'_>],
    orphans: &[Orphan<'_>],
) -> Vec<(EnvironmentName, Option<WorkerName>)> {
    let mut rows: Rows<'_> = BTreeMap::new();
    for candidate in candidates {
        let hash = hash(candidate.worker.as_str());
        rows.entry(candidate.load).or_default().push(Seat { candidate, load: candidate.load, hash });
    }
    let mut order: Vec<&Orphan<'_>> = orphans.iter().collect();
    // Those that few workers may have choose first; the others can go elsewhere.
    order.sort_by_key(|orphan| (orphan.is_unconstrained(), orphan.environment));
    let mut placed: Vec<_> =
        order.into_iter().map(|orphan| (orphan.environment.clone(), take_seat(&mut rows, orphan))).collect();
    placed.sort();
    placed
}

/// The workers by their load, so that only those with the least are looked at.
type Rows<'a> = BTreeMap<usize, Vec<Seat<'a>>>;

struct Seat<'a> {
    candidate: &'a Candidate<'a>,
    load: usize,
    hash: u64,
}

impl Orphan<'_> {
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
                let room = seat.candidate.capacity.is_none_or(|capacity| seat.load < capacity as usize);
                room && carries(seat.candidate.labels, selector)
            }
        };
        fits && !self.without.contains(seat.candidate.worker)
    }
}

fn take_seat(rows: &mut Rows<'_>, orphan: &Orphan<'_>) -> Option<WorkerName> {
    let name = hash(orphan.environment.as_str());
    // The score costs less than the question who may have it, which only the best so far has to answer.
    let best_of = |row: &Vec<Seat<'_>>| {
        let mut best = None;
        for (at, seat) in row.iter().enumerate() {
            let score = (mix(name ^ seat.hash), seat.candidate.worker);
            if best.is_none_or(|(highest, _)| score > highest) && orphan.may_go_to(seat) {
                best = Some((score, at));
            }
        }
        best.map(|(_, at)| at)
    };
    let (load, at) = rows.iter().find_map(|(load, row)| Some((*load, best_of(row)?)))?;
    let row = rows.get_mut(&load)?;
    let mut seat = row.swap_remove(at);
    if row.is_empty() {
        rows.remove(&load);
    }
    seat.load += 1;
    let worker = seat.candidate.worker.clone();
    rows.entry(seat.load).or_default().push(seat);
    Some(worker)
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

#[cfg(test)]
mod tests;
