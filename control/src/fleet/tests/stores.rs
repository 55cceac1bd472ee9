//! Stores come and go.

// How they are reached changes.
mod updates;

use super::*;

fn command(store: &str, action: StoreAction) -> StoreCommand {
    StoreCommand { store: store.parse().unwrap(), action, request: None, validate_only: false }
}

fn create(url: &str) -> StoreAction {
    StoreAction::Create(Box::new(StoreUrl::parse("url", url).unwrap()))
}

impl World {
    fn store(&mut self, command: StoreCommand) -> Result<Option<v1::Store>, Refusal> {
        let id = self.command(Command::Store(command));
        match self.replies.remove(&id).expect("it is answered at once")? {
            Reply::Store(store) => Ok(store.map(|store| *store)),
            other @ (Reply::Answer(_)
            | Reply::Environment(_)
            | Reply::Worker(_)
            | Reply::Checked(_)
            | Reply::Applied(_)) => {
                panic!("not a store: {other:?}")
            }
        }
    }

    fn add_to(&mut self, name: &str, store: &str, prefix: &str) -> Result<Option<v1::Environment>, Refusal> {
        let action = self.creation(EnvironmentSpec { store: store.parse().unwrap(), ..spec(prefix) });
        self.act(name, action)
    }
}

#[test]
fn a_store_is_added_used_and_removed_only_when_nobody_uses_it() {
    let mut world = World::new();
    let store = world.store(command("eu", create("redis://u:hunter2@eu.test"))).unwrap().unwrap();
    assert_eq!((store.url.as_str(), store.username.as_str()), ("redis://eu.test:6379", "u"));
    assert!(store.has_password && !format!("{store:?}").contains("hunter2"));
    let twice = world.store(command("eu", create("redis://eu.test"))).unwrap_err();
    assert_eq!(twice.reason, Reason::StoreNameTaken);

    world.add_to("a", "eu", "ld:a").unwrap();
    assert_eq!(world.fleet.store(&"eu".parse().unwrap()).unwrap().environments, 1);
    let refusal = world.store(command("eu", StoreAction::Delete)).unwrap_err();
    assert_eq!(refusal.reason, Reason::StoreInUse);
    assert!(refusal.message.contains("\"a\""), "{refusal}");
    world.act("a", Action::Delete(RemovalRequest::Release)).unwrap();
    assert_eq!(world.store(command("eu", StoreAction::Delete)).unwrap(), None);
    let refusal = world.store(command("eu", StoreAction::Delete)).unwrap_err();
    assert_eq!(refusal.reason, Reason::StoreNotFound);
    assert_eq!(world.store(command("default", StoreAction::Delete)).unwrap_err().reason, Reason::InvalidField);
}

#[test]
fn a_dry_run_and_a_retry_change_nothing() {
    let mut world = World::new();
    let dry = StoreCommand { validate_only: true, ..command("eu", create("redis://eu.test")) };
    assert!(world.store(dry).unwrap().is_some());
    assert_eq!(world.fleet.store(&"eu".parse().unwrap()), None);
    for digest in ["d", "d", "other"] {
        let request = Some(RequestId { id: "r".to_owned(), digest: digest.to_owned() });
        let answer = world.store(StoreCommand { request, ..command("eu", create("redis://eu.test")) });
        match digest {
            "other" => assert_eq!(answer.unwrap_err().reason, Reason::RequestIdReused),
            _ => assert_eq!(answer.unwrap().unwrap().name, "eu"),
        }
    }
}

#[test]
fn one_place_under_two_names_has_each_prefix_once() {
    let mut world = World::new();
    world.store(command("s1", create("redis+sentinel://a,b/m"))).unwrap();
    world.store(command("s2", create("redis+sentinel://c,b/m"))).unwrap();
    world.add_to("a", "s1", "ld:a").unwrap();
    assert_eq!(world.add_to("b", "s2", "ld:a").unwrap_err().reason, Reason::PrefixTaken);
    world.add_to("b", "s2", "ld:b").unwrap();
}

#[test]
fn an_address_of_two_places_is_refused() {
    let mut world = World::new();
    world.store(command("a", create("redis+sentinel://h1,h2/main"))).unwrap();
    world.store(command("b", create("redis+sentinel://h3/main"))).unwrap();
    let refusal = world.store(command("c", create("redis+sentinel://h2,h3/main"))).unwrap_err();
    assert!(refusal.message.contains(r#"the places of stores "a" and "b""#), "{refusal}");
    world.store(command("c", create("redis+sentinel://h2,h3/other"))).unwrap();
}

#[test]
fn epochs_survive_the_removal_of_their_store() {
    let mut world = World::new();
    world.connect("w1");
    world.store(command("eu", create("redis://eu.test"))).unwrap();
    world.add_to("a", "eu", "ld:a").unwrap();
    let epoch = world.epoch("a");
    world.act("a", Action::Delete(RemovalRequest::Abandon)).unwrap();
    world.store(command("eu", StoreAction::Delete)).unwrap();
    world.restart();
    world.store(command("anew", create("redis://eu.test:6379/0"))).unwrap();
    world.connect("w1");
    world.advance(LEASE);
    world.add_to("a", "anew", "ld:a").unwrap();
    assert!(world.epoch("a") > epoch, "{} after {epoch}", world.epoch("a"));
}

#[test]
fn a_cluster_takes_no_prefix_without_a_hash_tag() {
    let mut world = World::new();
    world.store(command("c", create("redis+cluster://a,b"))).unwrap();
    let refusal = world.add_to("a", "c", "ld:a").unwrap_err();
    assert_eq!(refusal.violations[0].field, "spec.prefix");
    assert!(refusal.message.contains("use {ld:a}"), "{refusal}");
    world.add_to("a", "c", "{ld:a}").unwrap();
}
