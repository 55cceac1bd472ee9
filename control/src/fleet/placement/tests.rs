use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug)]
struct Case {
    workers: Vec<(WorkerName, Labels, Option<u32>, usize)>,
    environments: Vec<(EnvironmentName, Labels)>,
}

fn labels(zone: Option<u8>) -> Labels {
    zone.map(|zone| ("zone".to_owned(), zone.to_string())).into_iter().collect()
}

impl Case {
    fn place(&self) -> Vec<(EnvironmentName, Option<WorkerName>)> {
        let candidates: Vec<_> = self
            .workers
            .iter()
            .map(|(worker, labels, capacity, load)| Candidate { worker, labels, capacity: *capacity, load: *load })
            .collect();
        let orphans: Vec<_> = self
            .environments
            .iter()
            .map(|(environment, selector)| Orphan {
                environment,
                place: Place::Selected(selector),
                without: BTreeSet::new(),
            })
            .collect();
        place(&candidates, &orphans)
    }

    fn loads(&self) -> BTreeMap<WorkerName, usize> {
        let mut loads: BTreeMap<_, _> =
            self.workers.iter().map(|(name, _, _, load)| (name.clone(), *load)).collect();
        for worker in self.place().into_iter().filter_map(|(_, worker)| worker) {
            *loads.get_mut(&worker).unwrap() += 1;
        }
        loads
    }
}

prop_compose! {
    fn case(constrained: bool)(
        workers in prop::collection::vec((prop::option::of(0u8..3), prop::option::of(0u32..20), 0usize..10), 0..12),
        environments in prop::collection::vec(prop::option::of(0u8..3), 0..60),
    ) -> Case {
        Case {
            workers: workers.into_iter().enumerate().map(|(number, (zone, capacity, load))| {
                let name = format!("w{number}").parse().unwrap();
                if constrained { (name, labels(zone), capacity, load) } else { (name, Labels::new(), None, load) }
            }).collect(),
            environments: environments.into_iter().enumerate().map(|(number, zone)| {
                let name = format!("e{number}").parse().unwrap();
                (name, if constrained { labels(zone) } else { Labels::new() })
            }).collect(),
        }
    }
}

proptest! {
    #[test]
    fn loads_stay_at_the_mean_where_the_start_allows(case in case(false)) {
        prop_assume!(!case.workers.is_empty());
        let loads = case.loads();
        let mean = loads.values().sum::<usize>().div_ceil(loads.len());
        let start = case.workers.iter().map(|(_, _, _, load)| *load).max().unwrap();
        prop_assert!(loads.values().all(|load| *load <= mean.max(start)), "{loads:?}");
        prop_assert!(case.place().iter().all(|(_, worker)| worker.is_some()));
    }

    #[test]
    fn labels_and_capacity_hold_and_nobody_waits_beside_room(case in case(true)) {
        let loads = case.loads();
        let placed = case.place();
        prop_assert_eq!(placed.len(), case.environments.len());
        for (environment, worker) in placed {
            let (_, selector) = case.environments.iter().find(|(name, _)| *name == environment).unwrap();
            let fits = |labels: &Labels| carries(labels, selector);
            match worker {
                Some(worker) => {
                    let (_, labels, capacity, load) = case.workers.iter().find(|(name, ..)| *name == worker).unwrap();
                    prop_assert!(fits(labels));
                    prop_assert!(capacity.is_none_or(|capacity| loads[&worker] <= (capacity as usize).max(*load)));
                }
                None => for (name, labels, capacity, _) in &case.workers {
                    let full = capacity.is_some_and(|capacity| loads[name] >= capacity as usize);
                    prop_assert!(full || !fits(labels), "{environment} could go to {name}");
                },
            }
        }
    }

    #[test]
    fn order_of_the_question_does_not_matter(case in case(true)) {
        let mut turned = Case { workers: case.workers.clone(), environments: case.environments.clone() };
        turned.workers.reverse();
        turned.environments.reverse();
        prop_assert_eq!(turned.place(), case.place());
    }
}

#[test]
fn to_end_something_any_worker_will_do() {
    let worker = "w1".parse().unwrap();
    let labels = Labels::new();
    let full = Candidate { worker: &worker, labels: &labels, capacity: Some(1), load: 1 };
    let environment: EnvironmentName = "a".parse().unwrap();
    let orphan = |place| Orphan { environment: &environment, place, without: BTreeSet::new() };
    let found = |place_in| place(std::slice::from_ref(&full), &[orphan(place_in)])[0].1.clone();
    assert_eq!(found(Place::Selected(&labels)), None);
    assert_eq!(found(Place::Anywhere), Some(worker.clone()));
}
