//! Cordon, drain, uncordon, forget.

use super::*;

const CORDON: WorkerAction = WorkerAction::Schedule(Scheduling::Cordoned);
const DRAIN: WorkerAction = WorkerAction::Schedule(Scheduling::Draining);
const UNCORDON: WorkerAction = WorkerAction::Schedule(Scheduling::Active);

fn two_workers(environments: usize) -> World {
    let mut world = World::new();
    world.connect("w1");
    world.connect("w2");
    for number in 0..environments {
        world.create(&format!("e{number}"));
    }
    world.report_everything();
    world.effects.clear();
    world
}

fn count(world: &World, worker: &str) -> u32 {
    world.fleet.worker(&w(worker)).unwrap().environments
}

fn changes(world: &mut World) -> Vec<WorkerChange> {
    let change = |note| match note {
        Note::Worker { change, .. } => Some(change),
        _ => None,
    };
    world.notes().into_iter().filter_map(change).collect()
}

#[test]
fn a_cordoned_worker_keeps_what_it_has_and_gets_no_more() {
    let mut world = two_workers(4);
    let shown = world.worker_command("w1", CORDON).unwrap().unwrap();
    assert_eq!((shown.scheduling(), shown.environments), (v1::WorkerScheduling::Cordoned, 2));
    for number in 4..8 {
        world.create(&format!("e{number}"));
    }
    assert_eq!((count(&world, "w1"), count(&world, "w2")), (2, 6));
    world.advance(Duration::from_mins(1));
    assert_eq!(world.moves(), 0);
    assert_eq!(changes(&mut world), [WorkerChange::Cordoned]);
}

#[test]
fn nothing_but_a_user_ends_a_cordon() {
    let mut world = two_workers(2);
    world.worker_command("w1", CORDON).unwrap();
    let is_cordoned =
        |world: &World| world.fleet.worker(&w("w1")).unwrap().scheduling() == v1::WorkerScheduling::Cordoned;
    world.restart();
    assert!(is_cordoned(&world));
    world.connect("w1");
    world.connect("w2");
    assert!(is_cordoned(&world));
    world.say("w1", WorkerMessage::Goodbye);
    for _ in 0..25 {
        world.now = world.now.after(Duration::from_hours(1));
        world.step(Input::Tick);
    }
    world.players.get_mut(&w("w1")).unwrap().starts += 1;
    world.connect("w1");
    assert!(is_cordoned(&world));
    world.worker_command("w1", UNCORDON).unwrap();
    assert!(!is_cordoned(&world));
    world.restart();
    world.connect("w1");
    assert!(!is_cordoned(&world));
}

#[test]
fn a_drain_empties_a_worker_and_says_so_once() {
    let mut world = two_workers(10);
    world.worker_command("w1", DRAIN).unwrap();
    for _ in 0..10 {
        world.hand_over();
        world.advance(TICK);
    }
    assert_eq!((count(&world, "w1"), count(&world, "w2")), (0, 10));
    assert_eq!(world.fleet.counts().moves["draining"], 5);
    assert_eq!(changes(&mut world), [WorkerChange::Draining, WorkerChange::Drained]);
    world.worker_command("w1", DRAIN).unwrap();
    assert_eq!(changes(&mut world), [], "it is so already");
    world.create("new");
    assert_eq!(world.owner("new"), "w2");
}

#[test]
fn a_drain_goes_on_after_a_restart_of_control() {
    let mut world = two_workers(6);
    world.worker_command("w1", DRAIN).unwrap();
    world.restart();
    world.connect("w1");
    world.connect("w2");
    for _ in 0..10 {
        world.report_everything();
        world.advance(TICK);
    }
    assert_eq!(count(&world, "w1"), 0);
}

#[test]
fn an_uncordon_ends_a_drain_with_what_it_has_begun() {
    let mut world = two_workers(10);
    world.worker_command("w1", DRAIN).unwrap();
    assert_eq!(world.fleet.handovers.len(), 4);
    world.worker_command("w1", UNCORDON).unwrap();
    assert!(world.fleet.handovers.is_empty());
    world.advance(Duration::from_mins(1));
    assert_eq!((count(&world, "w1"), world.moves()), (5, 0));
}

#[test]
fn a_drain_waits_for_a_worker_that_can_take_the_rest() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.report("w1", "a", |_| {});
    world.worker_command("w1", DRAIN).unwrap();
    world.advance(Duration::from_mins(1));
    assert_eq!(world.owner("a"), "w1");
    world.connect("w2");
    world.hand_over();
    assert_eq!(world.owner("a"), "w2");
}

#[test]
fn a_worker_is_forgotten_only_when_it_is_away_and_what_it_had_moves_at_once() {
    let mut world = two_workers(4);
    world.worker_command("w1", CORDON).unwrap();
    let refusal = world.worker_command("w1", WorkerAction::Forget).unwrap_err();
    assert_eq!(refusal.reason, Reason::WorkerConnected);
    world.restart();
    world.connect("w2");
    assert_eq!(count(&world, "w1"), 2, "awaited");
    assert_eq!(world.worker_command("w1", WorkerAction::Forget).unwrap(), None);
    assert_eq!(count(&world, "w2"), 4);
    assert_eq!(world.fleet.counts().moves["forgotten"], 2);
    assert!(world.fleet.worker(&w("w1")).is_none());
    assert!(world.stored.workers.is_empty(), "its cordon too");
    // It comes back as a stranger.
    world.report_everything();
    world.connect("w1");
    assert_eq!(world.fleet.worker(&w("w1")).unwrap().scheduling(), v1::WorkerScheduling::Active);
    let mut held = world.players[&w("w1")].held.values();
    assert!(held.all(|one| one.grant.intent == Intent::Warm), "only what balance gives it");
}

#[test]
fn an_unknown_worker_is_named_and_a_dry_run_changes_nothing() {
    let mut world = two_workers(2);
    let refusal = world.worker_command("w9", DRAIN).unwrap_err();
    assert_eq!(refusal.reason, Reason::WorkerNotFound);
    assert!(refusal.message.contains("w9"), "{}", refusal.message);
    let command = WorkerCommand { worker: w("w1"), action: DRAIN, validate_only: true };
    let id = world.command(Command::Worker(command));
    assert!(matches!(world.replies.remove(&id), Some(Ok(Reply::Worker(Some(_))))));
    assert_eq!(world.fleet.worker(&w("w1")).unwrap().scheduling(), v1::WorkerScheduling::Active);
}

#[test]
fn watchers_hear_of_workers_but_not_of_heartbeats() {
    let mut world = two_workers(2);
    let told = |world: &mut World| {
        let effects = std::mem::take(&mut world.effects);
        effects.iter().filter(|effect| matches!(effect, Effect::WorkerChanged { .. })).count()
    };
    world.advance(Duration::from_secs(10));
    world.report("w1", "e0", |report| report.bytes = 7);
    assert_eq!(told(&mut world), 0);
    world.worker_command("w1", CORDON).unwrap();
    assert_eq!(told(&mut world), 1);
    world.cut("w1");
    assert_eq!(told(&mut world), 1);
}
