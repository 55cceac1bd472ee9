use proptest::prelude::*;

use super::*;

type Worker = (WorkerName, Labels, Option<u32>);

/// Workers, and environments with the worker that has them, if one has.
#[derive(Debug, Clone)]
struct Case {
    workers: Vec<Worker>,
    environments: Vec<(EnvironmentName, Labels, Weight, Option<usize>)>,
}

fn labels(zone: Option<u8>) -> Labels {
    zone.map(|zone| ("zone".to_owned(), zone.to_string())).into_iter().collect()
}

impl Case {
    fn had(&self, worker: usize) -> impl Iterator<Item = &(EnvironmentName, Labels, Weight, Option<usize>)> {
        self.environments.iter().filter(move |(.., holder)| *holder == Some(worker))
    }

    fn candidates<'a>(&'a self) -> Vec<Candidate<'a>> {
        let candidate = |(at, (worker, labels, capacity)): (usize, &'a Worker)| Candidate {
            worker,
            labels,
            capacity: *capacity,
            count: self.had(at).count(),
            load: self.had(at).map(|(_, _, weight, _)| weight).sum(),
        };
        self.workers.iter().enumerate().map(candidate).collect()
    }

    fn seekers(&self, holder: Option<usize>) -> Vec<Seeker<'_>> {
        let wanted = self.environments.iter().filter(|(.., at)| *at == holder);
        wanted
            .map(|(environment, selector, weight, _)| Seeker {
                environment,
                weight: *weight,
                place: Place::Selected(selector),
                without: BTreeSet::new(),
            })
            .collect()
    }

    fn place(&self) -> Vec<Placed> {
        place(&self.candidates(), &self.seekers(None))
    }

    fn excess(&self) -> Vec<(EnvironmentName, WorkerName)> {
        let at = |worker: &WorkerName| self.workers.iter().position(|(name, ..)| name == worker);
        excess(&self.candidates(), |worker| self.seekers(at(worker)))
    }

    /// As it is when everything has gone where it was to go.
    fn after(&self, moves: &[(EnvironmentName, WorkerName)]) -> Self {
        let mut after = self.clone();
        for (environment, worker) in moves {
            let at = self.workers.iter().position(|(name, ..)| name == worker).unwrap();
            after.environments.iter_mut().find(|(name, ..)| name == environment).unwrap().3 = Some(at);
        }
        after
    }

    fn after_placing(&self) -> Self {
        let placed: Vec<_> =
            self.place().into_iter().filter_map(|(environment, worker)| Some((environment, worker?))).collect();
        self.after(&placed)
    }

    fn loads(&self) -> Vec<Weight> {
        self.candidates().iter().map(|candidate| candidate.load).collect()
    }

    fn assert_fits(&self, before: &Self) {
        for (at, (worker, labels, capacity)) in self.workers.iter().enumerate() {
            let mut came = self.had(at).filter(|(name, ..)| !before.had(at).any(|(had, ..)| had == name));
            assert!(came.all(|(_, selector, ..)| carries(labels, selector)), "labels of {worker}");
            let most = capacity.map_or(usize::MAX, |capacity| (capacity as usize).max(before.had(at).count()));
            assert!(self.had(at).count() <= most, "capacity of {worker}");
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Any worker takes any number, and all environments weigh the same.
    Plain,
    /// Labels, capacities and weights.
    Constrained,
}

prop_compose! {
    fn case(kind: Kind)(
        workers in prop::collection::vec((prop::option::of(0u8..3), prop::option::of(0u32..20)), 1..12),
        environments in prop::collection::vec(
            (prop::option::of(0u8..3), prop_oneof![4 => Just(1), 1 => 1u64..9], prop::option::of(0usize..12)),
            0..80,
        ),
    ) -> Case {
        let plain = kind == Kind::Plain;
        let count = workers.len();
        Case {
            workers: workers.into_iter().enumerate().map(|(number, (zone, capacity))| {
                let name = format!("w{number}").parse().unwrap();
                if plain { (name, Labels::new(), None) } else { (name, labels(zone), capacity) }
            }).collect(),
            environments: environments.into_iter().enumerate().map(|(number, (zone, weight, holder))| {
                let name = format!("e{number}").parse().unwrap();
                let holder = holder.map(|holder| holder % count);
                if plain { (name, Labels::new(), 1, holder) } else { (name, labels(zone), weight, holder) }
            }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn no_load_rises_above_the_mean(case in case(Kind::Plain)) {
        let after = case.after_placing();
        let mean = (after.environments.len() as Weight).div_ceil(after.workers.len() as Weight);
        for (before, after) in case.loads().into_iter().zip(after.loads()) {
            prop_assert!(after <= mean.max(before), "{after} above {mean}");
        }
        prop_assert!(after.environments.iter().all(|(.., holder)| holder.is_some()));
    }

    #[test]
    fn labels_and_capacity_hold_and_nobody_waits_beside_room(case in case(Kind::Constrained)) {
        let after = case.after_placing();
        after.assert_fits(&case);
        for (environment, selector, ..) in after.environments.iter().filter(|(.., holder)| holder.is_none()) {
            for candidate in after.candidates() {
                let full = candidate.capacity.is_some_and(|capacity| candidate.count >= capacity as usize);
                prop_assert!(full || !carries(candidate.labels, selector), "{environment} fits {}", candidate.worker);
            }
        }
    }

    #[test]
    fn order_of_the_question_does_not_matter(case in case(Kind::Constrained)) {
        let mut turned = case.clone();
        turned.environments.reverse();
        prop_assert_eq!(turned.place(), case.place());
        prop_assert_eq!(turned.excess(), case.excess());
    }

    #[test]
    fn exactly_the_excess_moves_and_then_nothing(case in case(Kind::Plain)) {
        let case = case.after_placing();
        let mean = (case.environments.len() as Weight).div_ceil(case.workers.len() as Weight);
        let excess: Weight = case.loads().iter().map(|load| load.saturating_sub(mean)).sum();
        let moves = case.excess();
        prop_assert_eq!(moves.len() as Weight, excess);
        let after = case.after(&moves);
        prop_assert!(after.loads().iter().all(|load| *load <= mean), "{:?}", after.loads());
        prop_assert_eq!(after.excess(), []);
    }

    #[test]
    fn what_moves_fits_and_nobody_is_put_above_the_bound(case in case(Kind::Constrained)) {
        let case = case.after_placing();
        let share = bound(&case.candidates(), 0);
        let moves = case.excess();
        let after = case.after(&moves);
        after.assert_fits(&case);
        for (before, after) in case.loads().into_iter().zip(after.loads()) {
            prop_assert!(after <= share.max(before), "{before} became {after}, above {share}");
            prop_assert!(after >= before.min(share).saturating_sub(8), "no more is given away than has to be");
        }
        let total = |case: &Case| case.loads().iter().sum::<Weight>();
        prop_assert_eq!(total(&case), total(&after));
    }

    #[test]
    fn when_a_worker_leaves_only_its_environments_move(case in case(Kind::Plain)) {
        let before = case.after_placing();
        let before = before.after(&before.excess());
        prop_assume!(before.workers.len() > 1);
        let mut left = before.clone();
        let leaver = left.workers.len() - 1;
        left.workers.pop();
        for environment in left.environments.iter_mut().filter(|(.., holder)| *holder == Some(leaver)) {
            environment.3 = None;
        }
        let after = left.after_placing();
        for (before, after) in before.environments.iter().zip(&after.environments) {
            prop_assert!(before.3 == after.3 || before.3 == Some(leaver), "{before:?} {after:?}");
        }
        prop_assert_eq!(after.excess(), [], "what remains is within the bound");
    }
}

#[test]
fn to_end_something_any_worker_will_do() {
    let worker = "w1".parse().unwrap();
    let labels = Labels::new();
    let full = Candidate { worker: &worker, labels: &labels, capacity: Some(1), count: 1, load: 1 };
    let environment: EnvironmentName = "a".parse().unwrap();
    let seeker = |place| Seeker { environment: &environment, weight: 1, place, without: BTreeSet::new() };
    let found = |place_in| place(std::slice::from_ref(&full), &[seeker(place_in)])[0].1.clone();
    assert_eq!(found(Place::Selected(&labels)), None);
    assert_eq!(found(Place::Anywhere), Some(worker.clone()));
}

#[test]
fn who_is_full_takes_no_share_of_the_others() {
    let names: Vec<WorkerName> = ["w1", "w2", "w3"].iter().map(|name| name.parse().unwrap()).collect();
    let labels = Labels::new();
    let candidate = |at: usize, capacity, load| Candidate {
        worker: &names[at],
        labels: &labels,
        capacity,
        count: usize::try_from(load).unwrap(),
        load,
    };
    let candidates = [candidate(0, Some(2), 2), candidate(1, None, 10), candidate(2, None, 0)];
    assert_eq!(bound(&candidates, 0), 5);
    assert_eq!(bound(&candidates, 2), 6);
    assert_eq!(bound(&[candidate(0, Some(1), 1)], 1), Weight::MAX, "nobody has room");
}

#[test]
fn what_finds_no_room_makes_none_for_others() {
    let names: Vec<WorkerName> = ["w1", "w2", "w3"].iter().map(|name| name.parse().unwrap()).collect();
    let gpu = Labels::from([("gpu".to_owned(), "yes".to_owned())]);
    let none = Labels::new();
    let environments: Vec<EnvironmentName> =
        (0..11).map(|number| format!("e{number:02}").parse().unwrap()).collect();
    let candidate = |at: usize| Candidate {
        worker: &names[at],
        labels: if at == 0 { &gpu } else { &none },
        capacity: (at == 0).then_some(1),
        count: 0,
        load: 0,
    };
    let seeker = |at: usize| Seeker {
        environment: &environments[at],
        weight: 1,
        place: Place::Selected(if at < 9 { &gpu } else { &none }),
        without: BTreeSet::new(),
    };
    let seekers: Vec<_> = (0..11).map(seeker).collect();
    let placed = place(&[candidate(0), candidate(1), candidate(2)], &seekers);
    assert_eq!(placed[..9].iter().filter(|(_, worker)| worker.is_some()).count(), 1);
    assert_ne!(placed[9].1, placed[10].1, "one each for the other two");
}

#[test]
fn what_nobody_may_have_makes_no_room_for_others() {
    let names: Vec<WorkerName> = ["w1", "w2"].iter().map(|name| name.parse().unwrap()).collect();
    let labels = Labels::new();
    for orphan in ["a", "b", "c", "d"] {
        let environments: [EnvironmentName; 2] = [orphan.parse().unwrap(), "poison".parse().unwrap()];
        for loaded in 0..2 {
            let candidate = |at: usize| {
                let load = usize::from(at == loaded);
                Candidate { worker: &names[at], labels: &labels, capacity: None, count: load, load: load as Weight }
            };
            let seeker = |at: usize, without| Seeker {
                environment: &environments[at],
                weight: 1,
                place: Place::Selected(&labels),
                without,
            };
            let seekers = [seeker(0, BTreeSet::new()), seeker(1, names.iter().collect())];
            let placed = place(&[candidate(0), candidate(1)], &seekers);
            assert_eq!(placed[0].1.as_ref(), Some(&names[1 - loaded]));
            assert_eq!(placed[1].1, None);
        }
    }
}
