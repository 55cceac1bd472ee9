//! Ten thousand environments on two hundred workers.

use super::*;

const ENVIRONMENTS: usize = 10_000;
const WORKERS: usize = 200;

fn large() -> World {
    let mut world = World::new();
    for worker in 0..WORKERS {
        world.connect(&format!("w{worker}"));
    }
    for number in 0..ENVIRONMENTS {
        world.create(&format!("e{number}"));
        world.effects.clear();
    }
    world
}

#[expect(clippy::disallowed_methods, reason = "this test is about how long steps take")]
fn measured(world: &mut World, input: Input) -> (Duration, usize) {
    let start = std::time::Instant::now();
    let effects = world.fleet.step(world.now, input);
    (start.elapsed(), effects.len())
}

#[expect(clippy::disallowed_methods, reason = "this test is about how long planning takes")]
fn planning(world: &mut World) -> Duration {
    let start = std::time::Instant::now();
    world.fleet.plan();
    start.elapsed()
}

fn loads(world: &World) -> Vec<u32> {
    let connected = |worker: &v1::Worker| worker.state() == v1::WorkerState::Connected;
    world.fleet.workers().filter(connected).map(|worker| worker.environments).collect()
}

#[test]
fn the_load_is_even() {
    let world = large();
    assert!(loads(&world).iter().all(|load| *load == 50), "{:?}", loads(&world));
}

/// Bounds are for an unoptimized build beside other work; optimized steps are tens of times faster.
#[test]
fn steps_stay_short() {
    let mut world = large();
    let now = world.now.after(Duration::from_millis(250));
    world.now = now;
    let (idle, effects) = measured(&mut world, Input::Tick);
    assert_eq!(effects, 0);
    let session = world.players[&w("w7")].session.unwrap();
    let (goodbye, effects) =
        measured(&mut world, Input::SessionMessage { session, message: WorkerMessage::Goodbye });
    assert!(effects > 50);
    assert!(loads(&world).iter().all(|load| (50..=51).contains(load)));

    world.restart();
    for number in 0..WORKERS {
        world.players.insert(w(&format!("n{number}")), Player::default());
        world.connect(&format!("n{number}"));
    }
    world.advance(LEASE.saturating_sub(Duration::from_millis(250)));
    world.now = world.now.after(Duration::from_millis(250));
    world.fleet.now = world.now;
    world.fleet.tick();
    let planning = planning(&mut world);
    let (everything, effects) = measured(&mut world, Input::Tick);
    assert!(effects > ENVIRONMENTS, "all of them move");
    assert!(loads(&world).iter().all(|load| *load == 50));
    println!("tick {idle:?}, one worker leaves {goodbye:?}, all move: plan {planning:?}, rest {everything:?}");
    assert!(idle < Duration::from_millis(20), "{idle:?}");
    assert!(goodbye < Duration::from_millis(200), "{goodbye:?}");
    assert!(planning < Duration::from_secs(2), "{planning:?}");
    assert!(everything < Duration::from_secs(5), "{everything:?}");
}
