use flotilla_proto::{Generation, Grant, GrantId};

use super::*;

fn foreign_held(name: &str, uid: &str, epoch: u64) -> HeldGrant {
    let grant = Grant { epoch: Epoch(epoch), id: GrantId::parse("old-1").unwrap(), intent: Intent::Serve };
    HeldGrant { environment: env(name), uid: uid.parse().unwrap(), generation: Generation(1), grant }
}

fn refusal_of(world: &World) -> &Refusal {
    let refused = |effect: &'_ Effect| matches!(effect, Effect::Refuse { .. });
    match world.effects.iter().rfind(|effect| refused(effect)) {
        Some(Effect::Refuse { refusal, .. }) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn sent_to(world: &World, session: SessionId) -> Vec<&ControlMessage> {
    let of_session = |effect: &'_ Effect| match effect {
        Effect::Send { session: to, .. } => *to == session,
        _ => false,
    };
    world
        .effects
        .iter()
        .filter(|effect| of_session(effect))
        .map(|effect| match effect {
            Effect::Send { message, .. } => message,
            other => panic!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_session_begins_with_welcome_updates_and_their_completion() {
    let mut world = World::new();
    world.create("a");
    let session = world.connect("w1");
    let sent = sent_to(&world, session);
    assert!(
        matches!(
            sent[..],
            [ControlMessage::Welcome(_), ControlMessage::Update(_), ControlMessage::InitialStateComplete]
        ),
        "{sent:?}"
    );
    let empty = world.connect("w2");
    let sent = sent_to(&world, empty);
    assert!(matches!(sent[..], [ControlMessage::Welcome(_), ControlMessage::InitialStateComplete]), "{sent:?}");
}

#[test]
fn a_worker_of_another_fleet_is_refused() {
    let mut world = World::new();
    world.connect("w1");
    let hello = Hello { fleet: Some("fleet-2".parse().unwrap()), worker: w("w2"), ..world.hello("w1") };
    world.players.insert(w("w2"), Player::default());
    world.open(hello);
    assert!(refusal_of(&world).message.contains("fleet-2"));
    assert!(world.fleet.worker(&w("w2")).is_none());
}

#[test]
fn a_later_start_of_the_same_directory_supersedes() {
    let mut world = World::new();
    world.create("a");
    let first = world.connect("w1");
    world.players.get_mut(&w("w1")).unwrap().starts = 2;
    world.effects.clear();
    world.connect("w1");
    assert!(
        matches!(sent_to(&world, first)[..], [ControlMessage::GoAway { reason: GoAway::Superseded, .. }]),
        "{:?}",
        sent_to(&world, first)
    );
    assert!(world.effects.iter().any(|effect| matches!(effect, Effect::Close { session } if *session == first)));
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w1", 1));
    assert_eq!(world.fleet.counts().session_reconnects, 1);
    // The end of the old session is no news.
    world.step(Input::SessionClosed { session: first });
    world.advance(GRACE * 3);
    assert_eq!(world.owner("a"), "w1");
}

#[test]
fn another_directory_is_refused_while_the_named_session_is_alive() {
    let mut world = World::new();
    world.create("a");
    let session = world.connect("w1");
    let mut hello = world.hello("w1");
    hello.incarnation.state_directory = "elsewhere".parse().unwrap();
    hello.held.clear();
    let second = SessionId(999);
    world.step(Input::SessionOpened { session: second, address: "x".to_owned(), hello: hello.clone() });
    let refusal = refusal_of(&world);
    assert_eq!(refusal.reason, Reason::WorkerNameTaken);
    assert!(refusal.message.contains(&format!("10.0.0.{}:1", session.0)), "{refusal}");

    world.cut("w1");
    world.players.get_mut(&w("w1")).unwrap().held.clear();
    world.open(hello);
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w1", 2), "it gets a grant of its own");
}

#[test]
fn an_earlier_start_of_the_same_directory_is_refused() {
    let mut world = World::new();
    world.connect("w1");
    let mut hello = world.hello("w1");
    hello.incarnation.start_counter = 0;
    world.step(Input::SessionOpened { session: SessionId(999), address: "x".to_owned(), hello });
    assert_eq!(refusal_of(&world).reason, Reason::WorkerNameTaken);
}

fn removed_from(world: &World, worker: &str) -> Vec<String> {
    let mut removed: Vec<_> =
        world.players[&w(worker)].removals.iter().map(|one| one.environment.to_string()).collect();
    removed.sort();
    removed
}

#[test]
fn of_what_a_worker_holds_the_ended_is_removed_and_the_unknown_left() {
    let mut world = World::new();
    world.connect("w1");
    for name in ["a", "b", "d"] {
        world.create(name);
    }
    world.report("w1", "d", |_| {});
    world.cut("w1");
    world.act("b", Action::Delete(RemovalRequest::Abandon)).unwrap();
    world.act("d", Action::Delete(RemovalRequest::Purge)).unwrap();
    let uid = world.create("b").uid;
    world.restart();
    let mut hello = world.hello("w1");
    hello.held.push(foreign_held("c", "uid-c", 3));
    // An earlier environment of a name that exists; that it ended is not known here.
    hello.held.push(foreign_held("a", "uid-earlier", 3));
    world.open(hello);
    assert_eq!(world.epoch("a"), 1);
    assert_eq!(removed_from(&world, "w1"), ["b"]);
    assert_eq!(world.assignment("w1", "b").unwrap().uid.as_str(), uid);
    world.report("w1", "d", |_| {});
    assert_eq!(removed_from(&world, "w1"), ["b", "d"]);
}

#[test]
fn an_end_is_remembered_for_as_long_as_a_released_fence() {
    let mut world = World::new();
    world.create("a");
    world.act("a", Action::Delete(RemovalRequest::Abandon)).unwrap();
    let ended = world.now;
    assert_eq!(world.stored.ended.values().copied().collect::<Vec<_>>(), [ended]);
    let day = Duration::from_hours(24);
    world.now = ended.after(day * 6 + Duration::from_hours(23));
    world.restart();
    world.step(Input::Tick);
    assert_eq!(world.stored.ended.len(), 1);
    world.now = ended.after(day * 7);
    world.step(Input::Tick);
    assert!(world.stored.ended.is_empty());
}

#[test]
fn what_is_elsewhere_now_is_removed() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.connect("w2");
    world.cut("w1");
    world.advance(GRACE * 2);
    world.restart();
    world.connect("w1");
    assert_eq!(removed_from(&world, "w1"), ["a"]);
}

#[test]
fn a_backup_of_the_same_term_removes_nothing_that_was_added_since() {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    let backup = world.stored.clone();
    world.create("b");
    world.stored = backup;
    // The restored control starts under a term that no worker has seen, so terms tell nothing.
    world.restart();
    world.connect("w1");
    assert_eq!(world.fleet.term(), Term(2));
    assert!(removed_from(&world, "w1").is_empty());
    assert!(world.assignment("w1", "b").is_some(), "left running");
    assert_eq!(of_workers(world.notes()), [Note::UnknownHeld { worker: w("w1"), count: 1, example: env("b") }]);
    world.cut("w1");
    world.connect("w1");
    assert!(removed_from(&world, "w1").is_empty());
}

#[test]
fn a_higher_epoch_that_is_held_raises_ours() {
    let mut world = World::new();
    world.connect("w1");
    let uid = world.create("a").uid;
    world.cut("w1");
    world.players.insert(w("w2"), Player { starts: 1, directory: "d2".to_owned(), ..Player::default() });
    let hello = Hello { held: vec![foreign_held("a", &uid, 41)], ..world.hello("w2") };
    world.open(hello);
    assert_eq!((world.owner("a").as_str(), world.epoch("a")), ("w2", 42), "its holder gets the next grant");
    let (from, to) = (w("w1"), w("w2"));
    let moved = Note::Moved { environment: env("a"), from, to, epoch: Epoch(42), reason: "later_grant" };
    assert_eq!(of_workers(world.notes()), [moved]);
    assert_eq!(world.stored.epochs.values().copied().collect::<Vec<_>>(), [Epoch(42)]);
}

#[test]
fn a_restored_backup_rises_above_the_workers_and_removes_nothing_that_it_does_not_know() {
    // Equal is as telling as higher: this control has not welcomed that worker.
    for seen in [1, 9] {
        let mut world = World::new();
        world.players.insert(w("w1"), Player { starts: 1, directory: "d".to_owned(), ..Player::default() });
        let hello = Hello {
            highest_term: Term(seen),
            held: vec![foreign_held("lost", "uid-lost", 3)],
            ..world.hello("w1")
        };
        world.open(hello);
        assert_eq!((world.fleet.term(), world.stored.term), (Term(seen + 1), Term(seen + 1)));
        assert!(world.players[&w("w1")].removals.is_empty());
        assert_eq!(world.players[&w("w1")].highest_term, Term(seen + 1));
    }
}

#[test]
fn a_reconnect_is_not_taken_for_a_restored_backup() {
    let mut world = World::new();
    world.connect("w1");
    world.cut("w1");
    world.connect("w1");
    assert_eq!(world.fleet.term(), Term(1));
    world.restart();
    world.connect("w1");
    assert_eq!(world.fleet.term(), Term(2));
}

#[test]
fn one_update_is_in_flight_and_newer_intent_merges_behind_it() {
    let mut world = World::new();
    let session = world.connect("w1");
    world.players.get_mut(&w("w1")).unwrap().silent = true;
    world.effects.clear();
    world.create("a");
    world.create("b");
    for round in 0..3 {
        world.act("a", Edit::Resync { claim: Claim::Respect, regression: Regression::Doubt }).unwrap();
        assert_eq!(sent_to(&world, session).len(), 1, "round {round}");
    }
    world.effects.clear();
    world.say("w1", WorkerMessage::Ack { nonce: 77 });
    assert!(sent_to(&world, session).is_empty(), "a nonce of no update");
    world.say("w1", WorkerMessage::Ack { nonce: 1 });
    let [ControlMessage::Update(update)] = sent_to(&world, session)[..] else { panic!() };
    let resyncs: Vec<_> = update.assignments.iter().map(|one| one.as_ref().unwrap().resync).collect();
    assert_eq!(resyncs, [3, 0]);
}

#[test]
fn a_large_initial_state_comes_in_parts() {
    let mut world = World::new();
    for number in 0..1201 {
        world.create(&format!("e{number}"));
    }
    world.connect("w1");
    assert_eq!(world.players[&w("w1")].held.len(), 100, "with so many waiting, others may be about to join");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.players[&w("w1")].held.len(), 1201);
    // One that has forgotten them is given all of them again, and told once that this is all.
    world.restart();
    let player = world.players.get_mut(&w("w1")).unwrap();
    player.held.clear();
    player.initial_complete = 0;
    world.connect("w1");
    let player = &world.players[&w("w1")];
    assert_eq!((player.held.len(), player.initial_complete), (1201, 1));
}

#[test]
fn a_rejected_assignment_is_tried_on_another_worker_and_parked() {
    let mut world = World::new();
    world.connect("w1");
    world.players.get_mut(&w("w1")).unwrap().rejects.insert(env("a"));
    world.create("a");
    world.create("b");
    assert_eq!(world.condition("a", "Accepted"), Some((v1::ConditionStatus::False, "Rejected".to_owned())));
    assert_eq!(world.condition("b", "Accepted"), Some((v1::ConditionStatus::True, "Accepted".to_owned())));
    world.effects.clear();
    world.advance(Duration::from_secs(5));
    let updates = world
        .effects
        .iter()
        .filter(|effect| matches!(effect, Effect::Send { message: ControlMessage::Update(_), .. }));
    assert_eq!(updates.count(), 0, "the same generation is not offered again");

    world.connect("w2");
    assert_eq!(world.owner("a"), "w2");
    assert_eq!(world.condition("a", "Accepted").unwrap().0, v1::ConditionStatus::True);
    assert_eq!(world.fleet.counts().moves["rejected"], 1);
}

#[test]
fn a_new_generation_is_offered_to_who_rejected_the_old_one() {
    let mut world = World::new();
    world.connect("w1");
    world.players.get_mut(&w("w1")).unwrap().rejects.insert(env("a"));
    world.create("a");
    world.players.get_mut(&w("w1")).unwrap().rejects.clear();
    let change = SpecChange(Box::new(|old| Ok(EnvironmentSpec { filter: Some("f".to_owned()), ..old.clone() })));
    world.act("a", Edit::Update { change, sdk_key: None }).unwrap();
    assert!(world.assignment("w1", "a").is_some());
    assert_eq!(world.condition("a", "Accepted").unwrap().0, v1::ConditionStatus::True);
}

#[test]
fn a_rejected_update_leaves_the_environment_with_its_worker() {
    let mut world = World::new();
    world.connect("w1");
    world.connect("w2");
    world.create("a");
    let owner = world.owner("a");
    world.players.get_mut(&w(&owner)).unwrap().rejects.insert(env("a"));
    let change = SpecChange(Box::new(|old| Ok(EnvironmentSpec { filter: Some("f".to_owned()), ..old.clone() })));
    world.act("a", Edit::Update { change, sdk_key: None }).unwrap();
    assert_eq!((world.owner("a"), world.epoch("a")), (owner, 1));
    assert_eq!(world.condition("a", "Accepted").unwrap().1, "Rejected");
}

#[test]
fn another_run_of_a_worker_is_offered_what_it_rejected() {
    let mut world = World::new();
    world.connect("w1");
    world.players.get_mut(&w("w1")).unwrap().rejects.insert(env("a"));
    world.create("a");
    let player = world.players.get_mut(&w("w1")).unwrap();
    player.rejects.clear();
    player.starts += 1;
    world.connect("w1");
    assert!(world.assignment("w1", "a").is_some());
}

#[test]
fn confirmed_are_the_grants_that_are_still_valid() {
    let mut world = World::new();
    let session = world.connect("w1");
    world.create("a");
    let mut grants = world.hello("w1").held;
    let valid = grants[0].grant.id.clone();
    grants.push(foreign_held("a", grants[0].uid.clone().as_str(), 1));
    grants.push(foreign_held("b", "uid-b", 1));
    world.effects.clear();
    world.say("w1", WorkerMessage::Confirm { id: 5, grants });
    assert_eq!(sent_to(&world, session), [&ControlMessage::Confirmed { id: 5, grants: vec![valid] }]);
}

#[test]
fn a_second_hello_ends_the_session() {
    let mut world = World::new();
    world.connect("w1");
    let hello = world.hello("w1");
    world.say("w1", WorkerMessage::Hello(hello));
    assert_eq!(world.players[&w("w1")].went_away, Some(GoAway::ProtocolError));
}

#[test]
fn senseless_numbers_of_a_worker_are_not_taken_over() {
    let mut world = World::new();
    let uid = world.create("a").uid;
    world.players.insert(w("w1"), Player { starts: 1, directory: "d".to_owned(), ..Player::default() });
    let hello =
        Hello { highest_term: Term(u64::MAX), held: vec![foreign_held("a", &uid, u64::MAX)], ..world.hello("w1") };
    world.open(hello);
    assert_eq!((world.fleet.term(), world.epoch("a")), (Term(1), 1));
}

/// The notes that are not of what users asked for, nor of sessions and first grants.
fn of_workers(notes: Vec<Note>) -> Vec<Note> {
    let expected = |note: &Note| matches!(note, Note::Changed { .. } | Note::Worker { .. } | Note::Assigned { .. });
    notes.into_iter().filter(|note| !expected(note)).collect()
}
