//! Moves without a gap: who holds which grant at each stage, and what follows when somebody fails.

use flotilla_proto::{Generation, Grant, GrantId};

use super::*;

const PROMOTION: Duration = Duration::from_secs(15);
const WARM: Duration = Duration::from_secs(30);

/// "a" is current on w1; w2 is there, and w1 wants to leave: w2 gets ready.
fn warming() -> World {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    world.connect("w2");
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    assert_eq!(intent(&world, "w2"), Some((Intent::Warm, 2)));
    assert_eq!(intent(&world, "w1"), Some((Intent::Serve, 1)));
    world
}

/// As [`warming`], and w2 was ready: it has the serve grant, w1 has not been told.
fn promoted() -> World {
    let mut world = warming();
    world.report("w2", "a", |_| {});
    assert_eq!(intent(&world, "w2"), Some((Intent::Serve, 3)));
    assert_eq!(intent(&world, "w1"), Some((Intent::Serve, 1)));
    world.effects.clear();
    world
}

fn intent(world: &World, worker: &str) -> Option<(Intent, u64)> {
    world.assignment(worker, "a").map(|assignment| (assignment.grant.intent, assignment.grant.epoch.0))
}

fn is_current(world: &World) -> bool {
    world.initialization("a") == v1::Initialization::Current
}

#[test]
fn the_last_owner_stops_when_the_new_one_serves_and_it_is_current_all_the_time() {
    let mut world = warming();
    assert!(is_current(&world));
    let half_ready = |report: &mut EnvironmentReport| report.grant_state = GrantState::Pending;
    world.report("w2", "a", half_ready);
    assert_eq!(world.owner("a"), "w1", "not before it is ready");
    world.report("w2", "a", |_| {});
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w2", 3));
    assert!(is_current(&world), "the last owner was in line when the new one took over");
    // It is fenced by the claim, and the new owner compares.
    world.effects.clear();
    world.report("w1", "a", |report| {
        report.grant_state = GrantState::Fenced;
        report.fenced_writes = 1;
    });
    assert_eq!(world.notes(), [], "a refused write is how it learns of the new owner");
    world.report("w2", "a", |report| report.grant_state = GrantState::Established);
    assert!(is_current(&world));
    assert_eq!(intent(&world, "w1"), Some((Intent::Serve, 1)), "it keeps stream and data");
    world.report("w2", "a", |_| {});
    assert_eq!(intent(&world, "w1"), None);
    assert!(is_current(&world));
    assert_eq!(world.fleet.counts().moves["draining"], 1);
    assert!(!world.players[&w("w1")].nothing_moves);
}

#[test]
fn who_cannot_get_ready_in_time_is_dropped_and_another_is_asked() {
    let mut world = warming();
    world.advance(WARM);
    assert_eq!((intent(&world, "w1"), intent(&world, "w2")), (Some((Intent::Serve, 1)), None));
    assert!(world.players[&w("w1")].nothing_moves, "there is nobody else");
    world.connect("w3");
    assert_eq!(intent(&world, "w3").map(|(intent, _)| intent), Some(Intent::Warm));
    world.hand_over();
    assert_eq!(world.owner("a"), "w3");
}

#[test]
fn who_is_ready_when_nobody_waits_for_it_any_more_has_no_say() {
    let mut world = warming();
    let late = world.report_of("w2", "a");
    world.advance(WARM);
    assert_eq!(intent(&world, "w2"), None);
    world.say("w2", WorkerMessage::Report(vec![late]));
    assert!(is_current(&world));
    world.report("w1", "a", |report| report.source_state = Some(SourceState::Interrupted));
    assert!(!is_current(&world), "the holder's word counts");
}

#[test]
fn who_did_not_manage_is_asked_again_later() {
    let mut world = warming();
    world.advance(WARM);
    assert_eq!(intent(&world, "w2"), None);
    world.advance(WARM + Duration::from_secs(1));
    assert_eq!(intent(&world, "w2").map(|(intent, _)| intent), Some(Intent::Warm));
}

#[test]
fn a_payload_of_another_environment_is_not_ready() {
    let mut world = warming();
    world.report("w2", "a", |report| report.changed_environment_id = Some("other".to_owned()));
    assert_eq!(world.owner("a"), "w1");
}

#[test]
fn an_earlier_generation_is_not_ready() {
    let mut world = warming();
    let old = world.report_of("w2", "a");
    let change = |old: &EnvironmentSpec| {
        Ok(EnvironmentSpec { labels: [("a".to_owned(), "b".to_owned())].into(), ..old.clone() })
    };
    let change = SpecChange(Box::new(change));
    world.act("a", Edit::Update { change, sdk_key: None }).unwrap();
    world.say("w2", WorkerMessage::Report(vec![old]));
    assert_eq!(world.owner("a"), "w1");
    assert_eq!(world.assignment("w2", "a").unwrap().generation, Generation(2), "both are told of it");
    assert_eq!(world.assignment("w1", "a").unwrap().generation, Generation(2));
    world.report("w2", "a", |_| {});
    assert_eq!(world.owner("a"), "w2");
}

#[test]
fn a_promotion_that_is_not_reported_is_undone() {
    let mut world = promoted();
    world.report("w2", "a", |report| {
        report.grant_state = GrantState::Pending;
        report.store_available = Some(false);
    });
    assert!(is_current(&world));
    world.advance(PROMOTION);
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w1", 4));
    assert_eq!((intent(&world, "w1"), intent(&world, "w2")), (Some((Intent::Serve, 4)), None));
    assert!(is_current(&world), "it served all the time");
    world.report("w1", "a", |_| {});
    assert!(is_current(&world));
    let moves = world.fleet.counts().moves;
    assert_eq!((moves["draining"], moves["undone"]), (1, 1));
}

#[test]
fn when_the_holder_is_lost_who_gets_ready_goes_on() {
    let mut world = warming();
    world.connect("w3");
    world.cut("w1");
    assert_eq!(world.owner("a"), "w1", "it may come back within the grace");
    world.advance(GRACE + Duration::from_secs(1));
    assert_eq!((world.owner("a").as_str(), intent(&world, "w2")), ("w2", Some((Intent::Serve, 3))));
}

#[test]
fn when_the_new_owner_is_lost_the_last_one_goes_on() {
    let mut world = promoted();
    world.connect("w3");
    world.cut("w2");
    world.advance(GRACE + Duration::from_secs(1));
    assert_eq!((world.owner("a").as_str(), intent(&world, "w1")), ("w1", Some((Intent::Serve, 4))));
    assert!(is_current(&world), "it served all the time");
}

#[test]
fn when_the_last_owner_is_lost_the_new_one_goes_on() {
    let mut world = promoted();
    world.say("w1", WorkerMessage::Goodbye);
    assert_eq!((world.owner("a").as_str(), intent(&world, "w2")), ("w2", Some((Intent::Serve, 3))));
    assert!(world.fleet.handovers.is_empty());
    world.report("w2", "a", |_| {});
    assert!(is_current(&world));
}

#[test]
fn when_who_gets_ready_is_lost_or_leaves_another_is_asked() {
    let lose = |world: &mut World| {
        world.cut("w2");
        world.advance(GRACE + Duration::from_secs(1));
    };
    let leave = |world: &mut World| world.say("w2", WorkerMessage::Draining { deadline: LEASE });
    let cordon =
        |world: &mut World| drop(world.worker_command("w2", WorkerAction::Schedule(Scheduling::Cordoned)).unwrap());
    for change in [&lose as &dyn Fn(&mut World), &leave, &cordon] {
        let mut world = warming();
        world.connect("w3");
        change(&mut world);
        assert_eq!(world.fleet.environments[&env("a")].standby(), Some(&w("w3")));
        assert_eq!(world.owner("a"), "w1");
    }
}

#[test]
fn who_rejects_it_is_not_waited_for() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    world.connect("w2");
    world.players.get_mut(&w("w2")).unwrap().rejects.insert(env("a"));
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    assert_eq!(world.owner("a"), "w1");
    assert!(world.fleet.handovers.is_empty());
    assert!(world.players[&w("w1")].nothing_moves);
    assert!(is_current(&world));
}

#[test]
fn a_fenced_promotion_gets_a_higher_grant_and_goes_on() {
    let mut world = promoted();
    world.report("w2", "a", |report| {
        report.grant_state = GrantState::Fenced;
        report.found_fence = Some(
            "flotilla1 fleet-1 uid-1 -.0123456789abcdef 9 x-1 dir.1.0123456789abcdef 3 1.0 serving".to_owned(),
        );
    });
    assert_eq!(intent(&world, "w2"), Some((Intent::Serve, 10)));
    assert_eq!(intent(&world, "w1"), Some((Intent::Serve, 1)));
    world.report("w2", "a", |_| {});
    assert_eq!(intent(&world, "w1"), None);
    assert!(is_current(&world));
}

#[test]
fn a_pause_ends_a_handover_at_every_stage() {
    for mut world in [warming(), promoted()] {
        let owner = world.owner("a");
        world.act("a", Edit::Pause).unwrap();
        assert!(world.fleet.handovers.is_empty());
        let held = |worker: &str| world.assignment(worker, "a").map(|one| one.grant.intent);
        let (owners, others) = if owner == "w1" { ("w1", "w2") } else { ("w2", "w1") };
        assert_eq!((held(owners), held(others)), (Some(Intent::Release), None));
    }
}

#[test]
fn a_removal_ends_a_handover_at_every_stage() {
    for mut world in [warming(), promoted()] {
        let owner = world.owner("a");
        world.act("a", Action::Delete(RemovalRequest::Purge)).unwrap();
        world.report(&owner, "a", |_| {});
        assert!(world.fleet.environment(&env("a")).is_none());
        assert!(world.players.values().all(|player| player.held.is_empty()));
    }
}

#[test]
fn control_that_restarts_during_a_promotion_remembers_both() {
    let mut world = promoted();
    world.restart();
    world.connect("w1");
    assert_eq!(intent(&world, "w1"), Some((Intent::Serve, 1)), "it is kept for the case that the other fails");
    world.connect("w2");
    world.report("w1", "a", |report| report.grant_state = GrantState::Fenced);
    world.report("w2", "a", |_| {});
    assert_eq!((world.owner("a").as_str(), intent(&world, "w1")), ("w2", None));
    assert_eq!(world.epoch("a"), 3, "a restart is no reason for another grant");
    assert!(is_current(&world));
}

#[test]
fn control_that_restarts_during_a_promotion_can_undo_it() {
    let mut world = promoted();
    world.restart();
    world.connect("w1");
    world.connect("w2");
    world.advance(LEASE + PROMOTION);
    assert_eq!((world.owner("a").as_str(), intent(&world, "w1")), ("w1", Some((Intent::Serve, 4))));
    assert_eq!(intent(&world, "w2"), None);
}

#[test]
fn control_that_restarts_while_somebody_gets_ready_moves_nothing() {
    let mut world = warming();
    world.restart();
    world.connect("w1");
    world.connect("w2");
    assert_eq!(intent(&world, "w2"), None, "what is not on record is given up");
    world.advance(LEASE * 2);
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w1", 1));
}

#[test]
fn a_reconnect_of_either_changes_nothing() {
    for stage in [warming, promoted] {
        for worker in ["w1", "w2"] {
            let mut world = stage();
            let before = (intent(&world, "w1"), intent(&world, "w2"));
            world.cut(worker);
            world.connect(worker);
            assert_eq!((intent(&world, "w1"), intent(&world, "w2")), before, "{worker}");
        }
    }
}

#[test]
fn few_are_handed_over_at_a_time() {
    let mut world = World::new();
    world.connect("w1");
    for number in 0..20 {
        world.create(&format!("e{number}"));
        world.report("w1", &format!("e{number}"), |_| {});
    }
    world.connect("w2");
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    for _ in 0..40 {
        assert!(world.fleet.handovers.len() <= 4);
        world.report_everything();
    }
    assert_eq!(world.fleet.worker(&w("w2")).unwrap().environments, 20);
}

#[test]
fn what_its_worker_may_not_have_is_handed_over_or_taken_away() {
    let select = |zone: &str| [("zone".to_owned(), zone.to_owned())].into();
    let mut world = World::new();
    for (worker, zone) in [("w1", "eu"), ("w2", "us")] {
        let player = Player { starts: 1, directory: worker.to_owned(), labels: select(zone), ..Player::default() };
        world.players.insert(w(worker), player);
        world.connect(worker);
    }
    let action = world.creation(EnvironmentSpec { worker_selector: select("eu"), ..spec("p") });
    world.act("a", action).unwrap();
    world.report("w1", "a", |_| {});
    let ask_for = |world: &mut World, zone: &str| {
        let selector: Labels = select(zone);
        let change = move |old: &EnvironmentSpec| Ok(EnvironmentSpec { worker_selector: selector, ..old.clone() });
        world.act("a", Edit::Update { change: SpecChange(Box::new(change)), sdk_key: None }).unwrap();
    };
    ask_for(&mut world, "us");
    assert_eq!(world.owner("a"), "w1", "it serves until the other is ready");
    world.hand_over();
    assert_eq!(world.owner("a"), "w2");
    ask_for(&mut world, "asia");
    assert_eq!(world.owner("a"), "");
    assert_eq!(world.condition("a", "Assigned").unwrap().1, "NoEligibleWorker");
}

#[test]
fn what_an_earlier_start_of_control_granted_is_not_taken_for_empty() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.restart();
    world.connect("w1");
    world.connect("w2");
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    assert_eq!(intent(&world, "w1"), Some((Intent::Serve, 1)), "though it has not reported since");
    assert_eq!(intent(&world, "w2"), Some((Intent::Warm, 2)));
}

#[test]
fn what_nobody_has_yet_moves_at_once() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |report| {
        (report.source_state, report.flags, report.segments) = (Some(SourceState::Connecting), 0, 0);
        report.grant_state = GrantState::Pending;
    });
    world.connect("w2");
    world.say("w1", WorkerMessage::Draining { deadline: LEASE });
    assert_eq!((intent(&world, "w1"), intent(&world, "w2")), (None, Some((Intent::Serve, 2))));
}

#[test]
fn a_refused_write_of_somebody_else_is_noted_once() {
    let mut world = warming();
    world.say("w1", WorkerMessage::Goodbye);
    world.report("w2", "a", |_| {});
    world.players.get_mut(&w("w1")).unwrap().starts += 1;
    world.connect("w1");
    world.effects.clear();
    let mut zombie = world.report_of("w2", "a");
    zombie.grant = Grant { epoch: Epoch(1), id: GrantId::parse("t1-1").unwrap(), intent: Intent::Serve };
    (zombie.grant_state, zombie.fenced_writes) = (GrantState::Fenced, 1);
    for _ in 0..2 {
        world.say("w1", WorkerMessage::Report(vec![zombie.clone()]));
    }
    let (environment, worker) = (env("a"), w("w1"));
    assert_eq!(world.notes(), [Note::WriteFenced { environment, worker, epoch: Epoch(1) }]);
}
