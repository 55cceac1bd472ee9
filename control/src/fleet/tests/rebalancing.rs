//! Who has too much gives some away: how much, what, and when.

use super::*;

/// Two workers with eight environments.
fn two_with_eight() -> World {
    let mut world = World::new();
    for worker in ["w1", "w2"] {
        world.connect(worker);
    }
    for number in 0..8 {
        world.create(&format!("e{number}"));
    }
    world.report_everything();
    world
}

#[test]
fn who_joins_gets_its_share_and_nothing_else_moves() {
    let mut world = World::new();
    for worker in 0..10 {
        world.connect(&format!("w{worker}"));
    }
    for number in 0..200 {
        world.create(&format!("e{number}"));
    }
    world.report_everything();
    world.connect("w10");
    for _ in 0..20 {
        world.advance(TICK);
        world.hand_over();
    }
    // 200 on 11 are at most 19 each; 20 each were there before: one of each goes.
    assert_eq!(world.moves(), 10);
    let loads: Vec<_> = world.fleet.workers().map(|worker| worker.environments).collect();
    assert!(loads.iter().all(|load| *load <= 19), "{loads:?}");
    world.advance(Duration::from_mins(20));
    assert_eq!(world.moves(), 10, "and then it is quiet");
}

#[test]
fn what_moved_lately_stays_though_its_worker_has_too_much() {
    let mut world = two_with_eight();
    world.say("w2", WorkerMessage::Goodbye);
    world.report_everything();
    let moved: Vec<_> = world.notes().into_iter().filter_map(moved).collect();
    assert_eq!(moved.len(), 4);
    world.connect("w2");
    for _ in 0..4 {
        world.advance(TICK);
        world.hand_over();
    }
    let back: Vec<_> = world.notes().into_iter().filter_map(self::moved).collect();
    assert_eq!(back.len(), 4, "the others go");
    assert!(back.iter().all(|name| !moved.contains(name)), "{moved:?} {back:?}");
}

fn moved(note: Note) -> Option<EnvironmentName> {
    match note {
        Note::Moved { environment, .. } => Some(environment),
        _ => None,
    }
}

#[test]
fn heavy_environments_count_for_more() {
    let mut world = World::new();
    world.connect("w1");
    for name in ["heavy", "a", "b", "c", "d"] {
        world.create(name);
        world.report("w1", name, |report| report.bytes = if name == "heavy" { 16 << 20 } else { 1000 });
    }
    world.connect("w2");
    for _ in 0..10 {
        world.advance(TICK);
        world.hand_over();
    }
    let owner = world.owner("heavy");
    let others = ["a", "b", "c", "d"].iter().filter(|name| world.owner(name) != owner).count();
    assert_eq!(others, 4, "it weighs as much as all the others");
    // Noise moves nothing.
    world.report(&owner, "heavy", |report| report.bytes = 17 << 20);
    let moves = world.moves();
    world.advance(Duration::from_mins(20));
    assert_eq!(world.moves(), moves);
}

#[test]
fn many_that_nobody_may_have_do_not_keep_a_new_worker_empty() {
    let mut world = World::new();
    world.connect("w1");
    for number in 0..60 {
        let mut spec = spec(&format!("p:nowhere-{number}"));
        spec.worker_selector = [("zone".to_owned(), "nowhere".to_owned())].into();
        let action = world.creation(spec);
        world.act(&format!("nowhere-{number}"), action).unwrap();
    }
    for name in ["a", "b"] {
        world.create(name);
        world.report("w1", name, |_| {});
    }
    world.connect("w2");
    for _ in 0..20 {
        world.advance(TICK);
        world.hand_over();
    }
    assert_ne!(world.owner("a"), world.owner("b"));
}

#[test]
fn of_many_that_wait_the_first_to_join_gets_a_quarter_until_others_may_have_come() {
    let mut world = World::new();
    for number in 0..100 {
        world.create(&format!("e{number}"));
    }
    let loads = |world: &World| world.fleet.workers().map(|worker| worker.environments).collect::<Vec<_>>();
    world.connect("w1");
    assert_eq!(loads(&world), [25]);
    world.report_everything();
    assert_eq!(loads(&world), [50], "another for each that is loaded");
    world.connect("w2");
    assert_eq!(loads(&world), [50, 0], "one head start for all of them");
    world.advance(Duration::from_secs(1));
    assert_eq!(loads(&world), [50, 50]);
    assert_eq!(world.moves(), 0);
}

#[test]
fn of_many_that_wait_few_move_again_when_a_large_fleet_starts() {
    let mut world = World::new();
    for number in 0..1000 {
        world.create(&format!("e{number}"));
    }
    for worker in 0..20 {
        world.connect(&format!("w{worker}"));
    }
    world.advance(Duration::from_secs(1));
    world.report_everything();
    for _ in 0..100 {
        world.advance(TICK);
        world.hand_over();
    }
    let loads: Vec<_> = world.fleet.workers().map(|worker| worker.environments).collect();
    assert!(loads.iter().all(|load| *load <= 50), "{loads:?}");
    assert!(world.moves() <= 50, "the head start of the first, above its share: {}", world.moves());
}

#[test]
fn the_head_start_is_not_lost_to_what_nobody_may_have() {
    let mut world = World::new();
    for number in 0..60 {
        let mut spec = spec(&format!("p:nowhere-{number}"));
        spec.worker_selector = [("zone".to_owned(), "nowhere".to_owned())].into();
        let action = world.creation(spec);
        world.act(&format!("a-nowhere-{number}"), action).unwrap();
    }
    for number in 0..20 {
        world.create(&format!("e{number}"));
    }
    world.connect("w1");
    let loads: Vec<_> = world.fleet.workers().map(|worker| worker.environments).collect();
    assert_eq!(loads, [20]);
}

#[test]
fn nothing_is_rebalanced_while_somebody_may_come_back() {
    let mut world = two_with_eight();
    world.restart();
    world.connect("w1");
    world.connect("w3");
    world.advance(LEASE / 2);
    assert_eq!(world.fleet.handovers.len(), 0);
    world.connect("w2");
    world.report_everything();
    for _ in 0..8 {
        world.advance(TICK);
        world.hand_over();
    }
    assert_eq!(world.moves(), 2, "8 on 3 are at most 3 each");
}
