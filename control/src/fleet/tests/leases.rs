use super::*;

fn two_workers() -> World {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.connect("w2");
    assert_eq!(world.owner("a"), "w1");
    world.effects.clear();
    world
}

#[test]
fn a_silent_worker_loses_its_environments_after_a_lease() {
    let mut world = two_workers();
    world.players.get_mut(&w("w1")).unwrap().silent = true;
    world.advance(LEASE.saturating_sub(Duration::from_secs(2)));
    assert_eq!(world.owner("a"), "w1");
    world.advance(Duration::from_secs(3));
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w2", 2));
    assert_eq!(world.players[&w("w1")].went_away, Some(GoAway::LeaseExpired));
    assert_eq!(world.fleet.counts().moves["lease_expired"], 1);
    assert_eq!(world.fleet.worker(&w("w1")).unwrap().state(), v1::WorkerState::Gone);
}

#[test]
fn a_closed_session_costs_the_environments_after_the_grace() {
    let mut world = two_workers();
    world.cut("w1");
    world.advance(GRACE / 2);
    assert_eq!(world.owner("a"), "w1");
    world.advance(GRACE);
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w2", 2));
    assert_eq!(world.fleet.counts().moves["disconnected"], 1);
    // It comes back, and learns that it is not its any more.
    world.connect("w1");
    assert!(world.players[&w("w1")].held.is_empty());
    assert_eq!(world.owner("a"), "w2");
}

#[test]
fn a_reconnect_within_the_grace_changes_nothing() {
    let mut world = two_workers();
    world.cut("w1");
    world.advance(GRACE / 2);
    world.connect("w1");
    world.advance(GRACE * 3);
    assert_eq!((world.owner("a").as_str(), world.epoch("a"), world.moves()), ("w1", 1, 0));
}

#[test]
fn a_goodbye_moves_at_once() {
    let mut world = two_workers();
    world.say("w1", WorkerMessage::Goodbye);
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w2", 2));
    assert_eq!(world.fleet.counts().moves["goodbye"], 1);
}

#[test]
fn a_draining_worker_gives_its_environments_away_and_gets_none() {
    let mut world = two_workers();
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    world.hand_over();
    assert_eq!(world.owner("a"), "w2");
    assert!(world.players[&w("w1")].held.is_empty());
    for name in ["b", "c", "d"] {
        world.create(name);
        assert_eq!(world.owner(name), "w2");
    }
}

#[test]
fn a_draining_worker_keeps_what_nobody_else_can_take() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    assert_eq!(world.owner("a"), "w1");
    assert!(world.players[&w("w1")].nothing_moves, "it is told not to wait");
    world.connect("w2");
    world.hand_over();
    assert_eq!(world.owner("a"), "w2");
}

#[test]
fn when_many_sessions_close_together_the_lease_applies() {
    let mut world = World::new();
    for worker in ["w1", "w2", "w3", "w4", "w5", "w6"] {
        world.connect(worker);
    }
    for number in 0..6 {
        world.create(&format!("e{number}"));
    }
    for worker in ["w1", "w2", "w3"] {
        world.cut(worker);
        world.advance(GRACE / 4);
    }
    world.advance(GRACE * 3);
    assert_eq!(world.moves(), 0, "a third and more of the sessions closed");
    world.connect("w1");
    world.connect("w2");
    world.advance(LEASE);
    assert_eq!(world.moves(), 1, "the third never came back");
}

#[test]
fn two_of_many_are_just_two() {
    let mut world = World::new();
    for number in 0..9 {
        world.connect(&format!("w{number}"));
    }
    for number in 0..9 {
        world.create(&format!("e{number}"));
    }
    for worker in ["w1", "w2", "w3"] {
        world.cut(worker);
    }
    world.advance(GRACE * 2);
    assert_eq!(world.moves(), 3, "three of nine are not more than a third");
}

#[test]
fn without_another_worker_nothing_moves_and_the_first_keeps_its_grant() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    world.cut("w1");
    world.advance(GRACE * 2);
    assert_eq!(world.owner("a"), "");
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "NoWorker");
    assert_eq!(world.initialization("a"), v1::Initialization::Stale);
    world.connect("w1");
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w1", 1));
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
}

#[test]
fn within_the_lease_the_last_status_stands() {
    let mut world = two_workers();
    world.report("w1", "a", |_| {});
    world.cut("w1");
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
    world.advance(GRACE * 2);
    assert_eq!(world.initialization("a"), v1::Initialization::Stale, "the new owner has not reported");
    world.report("w2", "a", |_| {});
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
}

#[test]
fn a_restart_of_control_moves_nothing() {
    let mut world = World::new();
    for worker in ["w1", "w2", "w3"] {
        world.connect(worker);
    }
    for number in 0..9 {
        world.create(&format!("e{number}"));
    }
    let before: Vec<_> = (0..9).map(|number| world.owner(&format!("e{number}"))).collect();
    world.restart();
    world.effects.clear();
    world.advance(Duration::from_secs(1));
    for worker in ["w3", "w1", "w2"] {
        world.connect(worker);
        world.advance(Duration::from_secs(1));
    }
    world.advance(LEASE * 2);
    let after: Vec<_> = (0..9).map(|number| world.owner(&format!("e{number}"))).collect();
    assert_eq!(after, before);
    assert!((0..9).all(|number| world.epoch(&format!("e{number}")) == 1));
    let is_event = |change: &Change| matches!(change, Change::PutEvent(_));
    assert!(
        world.effects.iter().all(|effect| !matches!(effect, Effect::Persist(change) if !is_event(change))),
        "nothing is changed but the history"
    );
}

#[test]
fn after_a_restart_the_absent_workers_environments_move_when_a_lease_is_over() {
    let mut world = two_workers();
    world.restart();
    world.connect("w2");
    world.advance(LEASE.saturating_sub(Duration::from_secs(1)));
    assert_eq!(world.owner("a"), "w1");
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "AwaitingWorker");
    world.advance(Duration::from_secs(2));
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w2", 2));
}

#[test]
fn after_a_restart_what_was_never_granted_is_placed_at_once() {
    let mut world = World::new();
    world.create("a");
    world.restart();
    world.connect("w1");
    assert_eq!(world.owner("a"), "w1");
    world.create("b");
    assert_eq!(world.owner("b"), "w1");
}

#[test]
fn a_standstill_of_control_is_nobodys_silence() {
    let mut world = two_workers();
    world.now = world.now.after(LEASE * 4);
    world.step(Input::Tick);
    world.advance(Duration::from_secs(5));
    assert_eq!((world.owner("a").as_str(), world.moves()), ("w1", 0));
}

#[test]
fn a_release_goes_to_the_owner_or_after_its_lease_to_any_worker() {
    let mut world = two_workers();
    world.cut("w1");
    world.act("a", Action::Delete(RemovalRequest::Purge)).unwrap();
    assert_eq!(world.owner("a"), "w1");
    world.advance(GRACE * 2);
    let assignment = world.assignment("w2", "a").unwrap();
    assert_eq!((assignment.grant.intent, assignment.grant.epoch), (Intent::Purge, Epoch(3)));
    world.report("w2", "a", |_| {});
    assert!(world.fleet.environment(&env("a")).is_none());
}

#[test]
fn a_pause_while_the_owner_is_away_for_a_moment_reaches_it_when_it_is_back() {
    let mut world = two_workers();
    world.cut("w1");
    world.act("a", Edit::Pause).unwrap();
    world.connect("w1");
    let assignment = world.assignment("w1", "a").unwrap();
    assert_eq!((assignment.grant.intent, assignment.grant.epoch), (Intent::Release, Epoch(2)));
}

#[test]
fn a_worker_that_is_long_gone_is_forgotten() {
    let mut world = two_workers();
    world.say("w1", WorkerMessage::Goodbye);
    for _ in 0..25 {
        world.now = world.now.after(Duration::from_hours(1));
        world.step(Input::Tick);
    }
    assert!(world.fleet.worker(&w("w1")).is_none());
    assert!(world.fleet.worker(&w("w2")).is_some());
}

#[test]
fn those_without_a_place_say_whether_any_worker_is_connected() {
    let mut world = World::new();
    world.connect("w1");
    let picky = EnvironmentSpec { worker_selector: [("a".to_owned(), "b".to_owned())].into(), ..spec("p") };
    let action = world.creation(picky);
    world.act("a", action).unwrap();
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "NoEligibleWorker");
    world.cut("w1");
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "NoWorker");
    world.connect("w1");
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "NoEligibleWorker");
}
