//! Placements of a large fleet, for benchmarks.

use std::collections::{BTreeMap, BTreeSet};

use flotilla_proto::{EnvironmentName, Labels, WorkerName};

use super::{Candidate, Place, Seeker, excess, place};

/// Workers, and environments that each of them has, or that wait for a place.
#[derive(Debug)]
pub struct LargePlacement {
    workers: Vec<WorkerName>,
    environments: Vec<EnvironmentName>,
    labels: Labels,
}

impl LargePlacement {
    /// So many of each.
    pub fn new(environments: usize, workers: usize) -> Self {
        let worker = |number| format!("worker-{number:03}").parse().expect("a valid name");
        let environment = |number| format!("environment-{number:05}").parse().expect("a valid name");
        Self {
            workers: (0..workers).map(worker).collect(),
            environments: (0..environments).map(environment).collect(),
            labels: Labels::new(),
        }
    }

    /// Places all environments on workers that have none. Returns how many found a place.
    pub fn place_all(&self) -> usize {
        let candidates: Vec<_> = self.workers.iter().map(|worker| self.candidate(worker, 0)).collect();
        let seekers: Vec<_> = self.environments.iter().map(|name| self.seeker(name)).collect();
        place(&candidates, &seekers).iter().filter(|(_, worker)| worker.is_some()).count()
    }

    /// The environments are spread evenly over all workers but the last, which has just joined. Returns how many move.
    pub fn rebalance_after_a_join(&self) -> usize {
        let full = self.workers.len() - 1;
        let placed: BTreeMap<_, Vec<_>> = self.workers[..full]
            .iter()
            .enumerate()
            .map(|(at, worker)| (worker, self.environments.iter().skip(at).step_by(full).collect()))
            .collect();
        let of = |worker: &WorkerName| placed.get(worker).into_iter().flatten().copied();
        let candidate = |worker| self.candidate(worker, of(worker).count());
        let candidates: Vec<_> = self.workers.iter().map(candidate).collect();
        excess(&candidates, |worker| of(worker).map(|name| self.seeker(name)).collect()).len()
    }

    fn candidate<'a>(&'a self, worker: &'a WorkerName, count: usize) -> Candidate<'a> {
        Candidate { worker, labels: &self.labels, capacity: None, count, load: count as u64 }
    }

    fn seeker<'a>(&'a self, environment: &'a EnvironmentName) -> Seeker<'a> {
        Seeker { environment, weight: 1, place: Place::Selected(&self.labels), without: BTreeSet::new() }
    }
}
