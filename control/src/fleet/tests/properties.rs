//! Random histories keep the invariants, and end well when they become quiet.

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Event {
    Connect { worker: u8 },
    Restarted { worker: u8 },
    OtherDirectory { worker: u8 },
    Cut { worker: u8 },
    Goodbye { worker: u8 },
    Drain { worker: u8 },
    Silence { worker: u8 },
    Reject { worker: u8, environment: u8 },
    Report { worker: u8, state: GrantState },
    Create { environment: u8, zone: Option<u8> },
    Delete { environment: u8, purge: bool, abandon: bool },
    Pause { environment: u8 },
    Resume { environment: u8 },
    Resync { environment: u8 },
    Rotate { environment: u8, key: u8 },
    Schedule { worker: u8, scheduling: Scheduling },
    Forget { worker: u8 },
    Advance { millis: u16 },
    ControlRestart,
}

fn event() -> impl Strategy<Value = Event> {
    let worker = || 0u8..4;
    let environment = || 0u8..6;
    let state = prop_oneof![
        Just(GrantState::Pending),
        Just(GrantState::Established),
        Just(GrantState::Synchronized),
        Just(GrantState::Fenced),
        Just(GrantState::Conflict),
    ];
    let scheduling = prop_oneof![Just(Scheduling::Active), Just(Scheduling::Cordoned), Just(Scheduling::Draining)];
    prop_oneof![
        4 => worker().prop_map(|worker| Event::Connect { worker }),
        1 => worker().prop_map(|worker| Event::Restarted { worker }),
        1 => worker().prop_map(|worker| Event::OtherDirectory { worker }),
        2 => worker().prop_map(|worker| Event::Cut { worker }),
        1 => worker().prop_map(|worker| Event::Goodbye { worker }),
        1 => worker().prop_map(|worker| Event::Drain { worker }),
        1 => worker().prop_map(|worker| Event::Silence { worker }),
        1 => (worker(), environment()).prop_map(|(worker, environment)| Event::Reject { worker, environment }),
        4 => (worker(), state).prop_map(|(worker, state)| Event::Report { worker, state }),
        4 => (environment(), prop::option::weighted(0.2, 0u8..2))
            .prop_map(|(environment, zone)| Event::Create { environment, zone }),
        2 => (environment(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(environment, purge, abandon)| Event::Delete { environment, purge, abandon }),
        1 => environment().prop_map(|environment| Event::Pause { environment }),
        1 => environment().prop_map(|environment| Event::Resume { environment }),
        1 => environment().prop_map(|environment| Event::Resync { environment }),
        1 => (environment(), 0u8..3).prop_map(|(environment, key)| Event::Rotate { environment, key }),
        2 => (worker(), scheduling).prop_map(|(worker, scheduling)| Event::Schedule { worker, scheduling }),
        1 => worker().prop_map(|worker| Event::Forget { worker }),
        4 => (0u16..9000).prop_map(|millis| Event::Advance { millis }),
        1 => Just(Event::ControlRestart),
    ]
}

fn worker_name(worker: u8) -> String {
    format!("w{worker}")
}

fn player(world: &mut World, worker: u8) -> &mut Player {
    world.players.entry(w(&worker_name(worker))).or_insert_with(|| Player {
        starts: 1,
        directory: format!("dir-{worker}"),
        labels: Labels::from([("zone".to_owned(), (worker % 2).to_string())]),
        capacity: (worker == 3).then_some(2),
        ..Player::default()
    })
}

fn is_connected(world: &mut World, worker: u8) -> bool {
    player(world, worker).session.is_some()
}

fn happen(world: &mut World, event: &Event) {
    let name = |environment: u8| format!("e{environment}");
    match event.clone() {
        Event::Connect { worker } if !is_connected(world, worker) => {
            player(world, worker).silent = false;
            world.connect(&worker_name(worker));
        }
        Event::Restarted { worker } => {
            let player = player(world, worker);
            player.starts += 1;
            player.silent = false;
            world.connect(&worker_name(worker));
        }
        Event::OtherDirectory { worker } if !is_connected(world, worker) => {
            let player = player(world, worker);
            player.directory.push('x');
            player.held.clear();
            player.highest_term = Term(0);
            world.connect(&worker_name(worker));
        }
        Event::Cut { worker } if is_connected(world, worker) => world.cut(&worker_name(worker)),
        Event::Goodbye { worker } if is_connected(world, worker) => {
            world.say(&worker_name(worker), WorkerMessage::Goodbye);
        }
        Event::Drain { worker } if is_connected(world, worker) => {
            world.say(&worker_name(worker), WorkerMessage::Draining { deadline: LEASE });
        }
        Event::Silence { worker } => player(world, worker).silent = true,
        Event::Reject { worker, environment } => {
            player(world, worker).rejects.insert(env(&name(environment)));
        }
        Event::Report { worker, state } if is_connected(world, worker) => report_all(world, worker, state),
        Event::Create { environment, zone } => {
            let selector = zone.map(|zone| ("zone".to_owned(), zone.to_string())).into_iter().collect();
            let spec = EnvironmentSpec { worker_selector: selector, ..spec(&format!("p{environment}")) };
            let action = world.creation(spec);
            let _ = world.act(&name(environment), action);
        }
        Event::Delete { environment, purge, abandon } => {
            let removal = match (purge, abandon) {
                (_, true) => RemovalRequest::Abandon,
                (true, false) => RemovalRequest::Purge,
                (false, false) => RemovalRequest::Release,
            };
            let _ = world.act(&name(environment), Action::Delete(removal));
        }
        Event::Pause { environment } => drop(world.act(&name(environment), Edit::Pause)),
        Event::Resume { environment } => drop(world.act(&name(environment), Edit::Resume)),
        Event::Resync { environment } => drop(
            world.act(&name(environment), Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt }),
        ),
        Event::Rotate { environment, key: number } => {
            let action = Edit::RotateSdkKey { sdk_key: key(&format!("sdk-{number}")), proof: Proof::Required };
            drop(world.act(&name(environment), action));
        }
        Event::Schedule { worker, scheduling } => {
            let _ = world.worker_command(&worker_name(worker), WorkerAction::Schedule(scheduling));
        }
        Event::Forget { worker } => {
            let _ = world.worker_command(&worker_name(worker), WorkerAction::Forget);
        }
        Event::Advance { millis } => world.advance(Duration::from_millis(millis.into())),
        Event::ControlRestart => world.restart(),
        Event::Connect { .. }
        | Event::OtherDirectory { .. }
        | Event::Cut { .. }
        | Event::Goodbye { .. }
        | Event::Drain { .. }
        | Event::Report { .. } => {}
    }
}

fn report_all(world: &mut World, worker: u8, state: GrantState) {
    let name = worker_name(worker);
    let held: Vec<_> =
        world.players[&w(&name)].held.keys().map(|(environment, _)| environment.to_string()).collect();
    for environment in held {
        // A removal may have arrived meanwhile.
        if world.players[&w(&name)].session.is_some() && world.assignment(&name, &environment).is_some() {
            world.report(&name, &environment, |report| report.grant_state = state);
        }
    }
}

/// What must hold after every event.
fn check(world: &World) {
    let mut epochs = BTreeSet::new();
    for record in world.stored.environments.values() {
        let shown = world.view(record.name.as_str());
        assert_eq!(shown.generation, record.generation.0, "what is shown is durable");
        if let Some(granted) = &record.grant {
            assert!(epochs.insert((record.spec.prefix.clone(), granted.grant.epoch)));
            let stored = world.stored.epochs[&(record.spec.store.clone(), record.spec.prefix.clone())];
            assert!(granted.grant.epoch <= stored, "an epoch was granted that is not durable");
            let holder = shown.status.unwrap().worker;
            assert!(holder.is_empty() || holder == granted.worker.as_str(), "two workers for one environment");
        }
    }
    let messages = world.fleet.glances_after(None).flat_map(|one| one.show().status.unwrap().conditions);
    for message in messages.map(|condition| condition.message) {
        assert!(!["Some(", "None", "::", " { "].iter().any(|debug| message.contains(debug)), "{message}");
    }
    let counted: u32 = world.fleet.workers().map(|worker| worker.environments).sum();
    let held = world
        .fleet
        .glances_after(None)
        .filter(|one| !one.show().status.as_ref().unwrap().worker.is_empty())
        .count();
    assert_eq!(counted as usize, held, "each environment is counted once");
    check_loads(world);
    assert_eq!(world.fleet.environment_count(), world.stored.environments.len());
}

/// The loads of the workers are those of the places of the environments, and handovers are few and known.
fn check_loads(world: &World) {
    let mut loads: BTreeMap<WorkerName, (usize, u64)> = BTreeMap::new();
    for environment in world.fleet.environments.values() {
        let place = environment.place().filter(|place| !environment.is_parked(place, Intent::Serve));
        if let Some(place) = place.filter(|place| world.fleet.workers.contains_key(*place)) {
            let (count, load) = loads.entry(place.clone()).or_default();
            *count += 1;
            *load += environment.weight;
        }
    }
    for (name, worker) in &world.fleet.workers {
        assert_eq!((worker.count, worker.load), loads.get(name).copied().unwrap_or_default(), "{name}");
    }
    let under_way: BTreeSet<_> = world
        .fleet
        .environments
        .iter()
        .filter(|(_, environment)| environment.handover.is_some())
        .map(|(name, _)| name.clone())
        .collect();
    assert_eq!(under_way, world.fleet.handovers);
    for environment in world.fleet.environments.values() {
        let promoted = matches!(environment.handover, Some(handover::Handover::Promoted { .. }));
        assert_eq!(
            promoted,
            environment.record.predecessor.is_some(),
            "a predecessor is kept for as long as it may go on"
        );
        assert!(environment.standby().is_none_or(|standby| environment.holder.as_ref() != Some(standby)));
    }
}

/// Lets everything settle: all workers are there and well.
fn settle(world: &mut World) {
    for worker in 0..4 {
        let player = player(world, worker);
        player.silent = false;
        player.rejects.clear();
        player.starts += 1;
        world.connect(&worker_name(worker));
    }
    for worker in 0..4 {
        let _ = world.worker_command(&worker_name(worker), WorkerAction::Schedule(Scheduling::Active));
    }
    for _ in 0..3 {
        world.report_everything();
        world.advance(LEASE + GRACE);
        world.hand_over();
    }
}

fn check_settled(world: &World) {
    for record in world.stored.environments.values() {
        assert!(record.removal.is_none(), "{} is still being removed", record.name);
        let shown = world.view(record.name.as_str());
        let owner = shown.status.as_ref().unwrap().worker.clone();
        if record.paused {
            assert_eq!(owner, "", "{} is paused", record.name);
            continue;
        }
        let granted = record.grant.as_ref().expect("granted");
        assert_eq!((owner.as_str(), granted.grant.intent), (granted.worker.as_str(), Intent::Serve));
        let player = &world.players[&granted.worker];
        assert!(worker::carries(&player.labels, &record.spec.worker_selector));
        let held = &player.held[&(record.name.clone(), record.uid.clone())];
        assert_eq!((&held.grant, held.generation), (&granted.grant, record.generation));
    }
    let held: usize = world.players.values().map(|player| player.held.len()).sum();
    let expected = world.stored.environments.values().filter(|record| !record.paused).count();
    assert_eq!(held, expected, "workers hold what is theirs and nothing else");
}

proptest! {
    #[test]
    fn random_histories_keep_the_invariants(events in prop::collection::vec(event(), 0..60)) {
        let mut world = World::new();
        for event in &events {
            happen(&mut world, event);
            check(&world);
        }
        settle(&mut world);
        check(&world);
        check_settled(&world);
    }

    #[test]
    fn equal_histories_have_equal_effects(events in prop::collection::vec(event(), 0..40)) {
        let run = || {
            let mut world = World::new();
            for event in &events {
                happen(&mut world, event);
            }
            format!("{:?}", world.effects)
        };
        prop_assert_eq!(run(), run());
    }
}
