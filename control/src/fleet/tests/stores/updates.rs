use super::*;

/// The store is reached by this URL from now on.
fn update(url: &str) -> StoreAction {
    let url = StoreUrl::parse("url", url).unwrap();
    StoreAction::Update(StoreChange(Box::new(move |_| Ok(url))))
}

fn exposed(world: &World, worker: &str, name: &str) -> String {
    world.assignment(worker, name).expect("it is assigned").store_url.expose().to_owned()
}

#[test]
fn the_way_to_a_store_may_change_and_the_place_may_not() {
    for (present, new, refused) in [
        ("redis://h", "redis://u:p@h", None),
        ("redis://:old@h", "redis://:new@h", None),
        ("redis://:old@h", "redis://h", None),
        ("redis://h", "rediss://h", None),
        ("rediss://h?tls-ca=/a", "rediss://h?tls-ca=/b", None),
        ("redis+sentinel://a,b/m", "redis+sentinel://a,b,c/m", None),
        ("redis+sentinel://a,b/m", "redis+sentinel://b,c/m?sentinel-password=p", None),
        ("redis+cluster://a", "redis+cluster://a,b", None),
        ("redis://h", "redis://elsewhere", Some("it leads to elsewhere:6379/0 and store \"eu\" is h:6379/0")),
        ("redis://h", "redis://h:6380", Some("add another store")),
        ("redis://h/1", "redis://h/2", Some("add another store")),
        ("redis+sentinel://a/m", "redis+sentinel://a/other", Some("add another store")),
        ("redis+sentinel://a/m", "redis+sentinel://b/m", Some("add another store")),
        ("redis+sentinel://a/m", "redis+sentinel://a,taken/m", Some("the places of stores \"eu\" and \"us\"")),
        ("redis://h", "redis+cluster://h,b", Some("environment \"plain\"")),
    ] {
        let mut world = World::new();
        world.store(command("us", create("redis+sentinel://taken/m"))).unwrap();
        world.store(command("eu", create(present))).unwrap();
        world.add_to("tagged", "eu", "{ld}").unwrap();
        if !present.contains("cluster") {
            world.add_to("plain", "eu", "ld:plain").unwrap();
        }
        let before = world.stores.clone();
        match (world.store(command("eu", update(new))), refused) {
            (Ok(store), None) => {
                let wanted = StoreUrl::parse("url", new).unwrap();
                assert_eq!(store.unwrap().url, wanted.redacted());
                let stored = world.stores.iter().find(|(name, _)| name.as_str() == "eu");
                assert!(stored.is_some_and(|(_, stored)| *stored == wanted), "{new} is durable");
            }
            (Err(refusal), Some(words)) => {
                assert_eq!((refusal.reason, refusal.violations[0].field.as_str()), (Reason::InvalidField, "url"));
                assert!(refusal.message.contains(words), "{refusal}");
                assert!(world.stores == before, "{new}");
            }
            (answer, _) => panic!("{present} to {new}: {answer:?}"),
        }
    }
}

#[test]
fn the_default_store_and_an_unknown_one_are_not_updated() {
    let mut world = World::new();
    let refusal = world.store(command("default", update("redis://:p@localhost"))).unwrap_err();
    assert_eq!((refusal.reason, refusal.violations[0].field.as_str()), (Reason::InvalidField, "name"));
    assert!(refusal.message.contains("--redis-url"), "{refusal}");
    let refusal = world.store(command("eu", update("redis://eu.test"))).unwrap_err();
    assert_eq!(refusal.reason, Reason::StoreNotFound);
}

#[test]
fn every_environment_of_the_store_is_assigned_anew_under_its_grant() {
    let mut world = World::new();
    world.connect("w1");
    world.store(command("eu", create("redis://:old@eu.test"))).unwrap();
    world.add_to("a", "eu", "ld:a").unwrap();
    world.add_to("b", "eu", "ld:b").unwrap();
    world.add_to("c", "other", "ld:c").unwrap();
    let before = world.assignment("w1", "a").unwrap().clone();
    world.effects.clear();
    world.store(command("eu", update("redis://:new@eu.test"))).unwrap();
    for name in ["a", "b"] {
        assert_eq!(exposed(&world, "w1", name), "redis://eu.test:6379?pass=new");
    }
    let now = world.assignment("w1", "a").unwrap();
    assert_eq!((&now.grant, now.generation, now.resync), (&before.grant, before.generation, before.resync));
    let sent: usize = world.effects.iter().map(assigned).sum();
    assert_eq!(sent, 2, "one of another store is not told");
    let persisted =
        world.effects.iter().position(|effect| matches!(effect, Effect::Persist(Change::PutStore { .. })));
    let told = world.effects.iter().position(|effect| assigned(effect) > 0);
    assert!(persisted.is_some() && persisted < told, "it is durable before anybody hears of it");
    let changed = Note::StoreChanged { store: "eu".parse().unwrap(), action: "changed" };
    assert!(world.notes().contains(&changed));
    // The same once more.
    world.store(command("eu", update("redis://:new@eu.test"))).unwrap();
    assert!(world.effects.is_empty(), "{:?}", world.effects);
    world.restart();
    world.connect("w1");
    assert_eq!(exposed(&world, "w1", "b"), "redis://eu.test:6379?pass=new");
}

fn assigned(effect: &Effect) -> usize {
    match effect {
        Effect::Send { message: ControlMessage::Update(update), .. } => update.assignments.len(),
        _ => 0,
    }
}

#[test]
fn an_update_during_an_unacknowledged_one_is_sent_after_it() {
    let mut world = World::new();
    let session = world.connect("w1");
    world.store(command("eu", create("redis://:1@eu.test"))).unwrap();
    world.add_to("a", "eu", "ld:a").unwrap();
    // The worker hears, and says nothing yet.
    let player = world.players.get_mut(&w("w1")).unwrap();
    player.session = None;
    world.store(command("eu", update("redis://:2@eu.test"))).unwrap();
    world.store(command("eu", update("redis://:3@eu.test"))).unwrap();
    let sent = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Send { message: ControlMessage::Update(update), .. } => Some(update.nonce),
        _ => None,
    });
    world.players.get_mut(&w("w1")).unwrap().session = Some(session);
    world.say("w1", WorkerMessage::Ack { nonce: sent.unwrap() });
    assert_eq!(exposed(&world, "w1", "a"), "redis://eu.test:6379?pass=3");
}

#[test]
fn a_dry_run_and_a_retry_of_an_update_change_nothing() {
    let mut world = World::new();
    world.store(command("eu", create("redis://eu.test"))).unwrap();
    let dry = StoreCommand { validate_only: true, ..command("eu", update("redis://:p@eu.test")) };
    assert!(world.store(dry).unwrap().unwrap().has_password);
    assert!(!world.fleet.store(&"eu".parse().unwrap()).unwrap().has_password);
    let request = |digest: &str| Some(RequestId { id: "r".to_owned(), digest: digest.to_owned() });
    world.store(StoreCommand { request: request("d"), ..command("eu", update("redis://:p@eu.test")) }).unwrap();
    world.store(command("eu", update("redis://eu.test"))).unwrap();
    let retry = StoreCommand { request: request("d"), ..command("eu", update("redis://:p@eu.test")) };
    assert!(!world.store(retry).unwrap().unwrap().has_password, "it is answered, not carried out again");
    let other = StoreCommand { request: request("other"), ..command("eu", update("redis://:p@eu.test")) };
    assert_eq!(world.store(other).unwrap_err().reason, Reason::RequestIdReused);
}

#[test]
fn stores_of_one_place_stay_known_as_one() {
    let mut world = World::new();
    world.store(command("s1", create("redis+sentinel://a,b/m"))).unwrap();
    world.store(command("s2", create("redis+sentinel://b,c/m"))).unwrap();
    world.add_to("a", "s1", "ld:a").unwrap();
    let refusal = world.store(command("s1", update("redis+sentinel://a/m"))).unwrap_err();
    assert!(refusal.message.contains("no address in common with store \"s2\""), "{refusal}");
    world.store(command("s1", update("redis+sentinel://a,c/m"))).unwrap();
    for _ in 0..2 {
        assert_eq!(world.add_to("b", "s2", "ld:a").unwrap_err().reason, Reason::PrefixTaken);
        world.restart();
    }
}

#[test]
fn addresses_that_are_given_up_may_be_another_place_and_epochs_go_along() {
    let mut world = World::new();
    world.connect("w1");
    world.store(command("eu", create("redis+sentinel://a,b/m"))).unwrap();
    world.add_to("a", "eu", "ld:a").unwrap();
    let epoch = world.epoch("a");
    for url in ["redis+sentinel://b,c/m", "redis+sentinel://c,d/m"] {
        world.store(command("eu", update(url))).unwrap();
    }
    world.store(command("us", create("redis+sentinel://a/m"))).unwrap();
    world.add_to("b", "us", "ld:a").unwrap();
    for name in ["a", "b"] {
        world.act(name, Action::Delete(RemovalRequest::Abandon)).unwrap();
    }
    world.store(command("eu", StoreAction::Delete)).unwrap();
    world.store(command("anew", create("redis+sentinel://d/m"))).unwrap();
    world.add_to("a", "anew", "ld:a").unwrap();
    assert!(world.epoch("a") > epoch, "{} after {epoch}", world.epoch("a"));
}
