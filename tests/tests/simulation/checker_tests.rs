//! The checker finds what it is there for: histories made by hand, each with one thing wrong.

use std::collections::BTreeMap;

use flotilla_proto::v1;
use flotilla_worker::dataset::ItemId;
use flotilla_worker::source::Kind;
use flotilla_worker::store::model::Model;
use v1::watch_environments_response::Event;

use crate::checker::check_history;
use crate::dice::Dice;
use crate::history::{Record, What};
use crate::source::{Delivered, Environment, Said};
use crate::world::World;

const UID: &str = "0c1a8b1e-9a4e-4a57-9d7e-3f4f6f0d6c11";

/// A fence: its epoch, the run of the worker, and the number of the write.
fn fence(epoch: u64, run: u64, write: u64) -> String {
    let state = if write == 99 { "released" } else { "serving" };
    format!(
        "flotilla1 1dfdcec4-ec04-463f-92f9-9e761c6d8b30 {UID} -.6456bdf5937ab785 {epoch} \
         c5a8d5f69e7948829077f1bdd617bf3b-{epoch} directory-w1.{run}.00000000000000aa {write} 1.0 {state}"
    )
}

fn item() -> ItemId {
    ItemId { kind: Kind::Flag, key: "flag-0".into() }
}

/// The keys with one flag, if it has a version.
fn keys(fence: Option<String>, version: Option<u64>) -> Model {
    let id = format!("{:024x}", 0);
    let body =
        |version| format!(r#"{{"key":"flag-0","version":{version},"of":"{id}","padding":""}}"#).into_bytes().into();
    let items = version.map(|version| (item(), body(version))).into_iter().collect();
    Model { fence, marker: version.is_some(), items, ..Model::default() }
}

/// A world in which the last of the operations follow each other, one every second.
fn world(steps: Vec<(What, Model)>) -> World {
    let mut world = World::new(1, 2);
    let mut environment = Environment::new(0, &mut Dice::new(1));
    environment.put(Kind::Flag, "flag-0");
    world.environments.insert("sdk-0".to_owned(), environment);
    world.environments.insert("sdk-1".to_owned(), Environment::new(1, &mut Dice::new(1)));
    let mut before = Model::default();
    for (at, (what, after)) in (1..).zip(steps) {
        let next = after.fence.clone().filter(|_| what != What::Compare);
        let record = Record {
            at: at * 1000,
            worker: 0,
            prefix: "p0".to_owned(),
            what,
            next,
            accepted: true,
            before: std::mem::replace(&mut before, after.clone()),
            after,
        };
        world.records.push(record);
    }
    world
}

/// A claim, a comparison, and a first write of version 2.
fn begun() -> Vec<(What, Model)> {
    vec![
        (What::Claim, keys(Some(fence(1, 1, 1)), None)),
        (What::Compare, keys(Some(fence(1, 1, 1)), None)),
        (What::Write, keys(Some(fence(1, 1, 2)), Some(2))),
    ]
}

fn then(more: impl IntoIterator<Item = (What, Model)>) -> World {
    world(begun().into_iter().chain(more).collect())
}

#[track_caller]
fn assert_found(world: &World, what: &str) {
    let found = check_history(world).unwrap_err();
    let first = found.lines().next().unwrap_or_default();
    assert!(first.contains(what), "{found}");
}

#[test]
fn a_good_history_has_nothing_wrong() {
    let world = then([(What::Write, keys(Some(fence(1, 1, 3)), Some(3)))]);
    assert_eq!(check_history(&world), Ok(()));
}

#[test]
fn an_epoch_that_falls_is_found() {
    let mut world = then([(What::Claim, keys(Some(fence(2, 2, 1)), Some(2)))]);
    // A claim of the first epoch, as if nothing had stood there.
    let mut late = world.records[0].clone();
    (late.at, late.next, late.after.fence) = (5000, Some(fence(1, 1, 7)), Some(fence(1, 1, 7)));
    world.records.push(late);
    assert_found(&world, "epoch 1 was accepted after 2");
    world.losses.push(4500);
    assert_eq!(check_history(&world), Ok(()), "a store that lost everything begins anew");
}

#[test]
fn two_writers_of_an_epoch_are_found() {
    let other = fence(1, 1, 3).replace("00aa", "00bb");
    assert_found(&then([(What::Write, keys(Some(other), Some(2)))]), "two writers under epoch 1");
    assert_found(&then([(What::Write, keys(Some(fence(1, 1, 1)), Some(2)))]), "two writers under epoch 1");
}

#[test]
fn a_number_that_is_used_twice_is_found() {
    let mut world = then([(What::Claim, keys(Some(fence(1, 1, 3)), Some(2)))]);
    let mut again = world.records[3].clone();
    (again.before, again.accepted) = (again.after.clone(), false);
    world.records.push(again);
    assert_found(&world, "sent twice");
    // A flush makes the store forget, and not the numbers.
    let mut world = then([]);
    world.losses.push(3500);
    let mut lower = world.records[0].clone();
    (lower.at, lower.next, lower.after.fence) = (4000, Some(fence(1, 1, 0)), Some(fence(1, 1, 0)));
    world.records.push(lower);
    assert_found(&world, "write 0 was accepted after 2");
}

#[test]
fn a_refused_write_that_changes_something_is_found() {
    let mut world = then([(What::Write, keys(Some(fence(1, 1, 3)), Some(3)))]);
    world.records[3].accepted = false;
    assert_found(&world, "what is not accepted changed something");
}

#[test]
fn an_owner_that_does_not_compare_first_is_found() {
    let new_grant = (What::Write, keys(Some(fence(2, 1, 3)), Some(3)));
    assert_found(&then([new_grant]), "epoch 2 wrote before it compared");
}

#[test]
fn a_version_that_falls_is_found_unless_two_payloads_say_so() {
    let falls = || {
        let mut world = then([(What::Write, keys(Some(fence(1, 1, 3)), Some(1)))]);
        world.records[3].at = 60_000;
        world
    };
    assert_found(&falls(), "flag-0 fell from 2 to Some(1)");
    // The environment has its first flag in version 1 from the first change on.
    let told = |world: &mut World, at, said| {
        world.delivered.push(Delivered { at, worker: 0, run: 1, key: "sdk-0".to_owned(), said });
    };
    let mut world = falls();
    told(&mut world, 4000, Said::Payload { position: 1 });
    assert_found(&world, "flag-0 fell from 2 to Some(1)");
    told(&mut world, 20_000, Said::Payload { position: 1 });
    assert_found(&world, "flag-0 fell from 2 to Some(1)");
    told(&mut world, 40_000, Said::Payload { position: 1 });
    assert_eq!(check_history(&world), Ok(()));
    let mut world = falls();
    for at in [4000, 40_000] {
        let said = Said::Payload { position: 1 };
        world.delivered.push(Delivered { at, worker: 0, run: 1, key: "sdk-1".to_owned(), said });
    }
    assert_found(&world, "flag-0 fell from 2 to Some(1)");
    let mut world = falls();
    told(&mut world, 4000, Said::PutAgain { position: 1 });
    assert_eq!(check_history(&world), Ok(()), "a second one on the same connection is LaunchDarkly's will");
}

#[test]
fn an_item_that_vanishes_is_found_unless_it_was_deleted() {
    let other = ItemId { kind: Kind::Flag, key: "other".into() };
    let mut world = then([(What::Write, keys(Some(fence(1, 1, 3)), Some(2)))]);
    let body = world.records[3].after.items[&item()].clone();
    world.records[2].after.items.insert(other.clone(), body.clone());
    world.records[3].before.items.insert(other.clone(), body);
    assert_found(&world, "other fell from 2 to None");
    let said = Said::Item { item: other, version: 3, deleted: true };
    world.delivered.push(Delivered { at: 3500, worker: 0, run: 1, key: "sdk-0".to_owned(), said });
    assert_eq!(check_history(&world), Ok(()));
}

#[test]
fn what_vanishes_without_a_purge_is_found() {
    let mut world = then([(What::Write, keys(Some(fence(1, 1, 3)), Some(2)))]);
    world.records[3].after.marker = false;
    assert_found(&world, "the marker vanished");
}

#[test]
fn a_purge_that_nobody_asked_for_is_found_and_one_that_leaves_something() {
    let mut world = then([(What::Purge, keys(Some(fence(1, 1, 99)), None))]);
    assert_found(&world, "purged, and nobody asked for it");
    world.purges.push((10, "p0".to_owned()));
    assert_eq!(check_history(&world), Ok(()));
    world.records[3].after = keys(Some(fence(1, 1, 99)), Some(2));
    assert_found(&world, "a purge left something");
}

#[test]
fn data_of_two_environments_in_one_prefix_is_found() {
    let mut world = then([(What::Write, keys(Some(fence(1, 1, 3)), Some(3)))]);
    let foreign = ItemId { kind: Kind::Flag, key: "foreign".into() };
    let body = format!(r#"{{"key":"foreign","version":1,"of":"{:024x}"}}"#, 1).into_bytes().into();
    world.records[3].after.items.insert(foreign, body);
    assert_found(&world, "are mixed");
}

/// An environment as control shows it.
fn shown(epoch: u64) -> v1::Environment {
    let wall = flotilla_proto::Timestamp(1_800_000_000_000).to_proto();
    let status = v1::EnvironmentStatus {
        initialization: v1::Initialization::Current.into(),
        epoch,
        last_byte_time: Some(wall),
        ..Default::default()
    };
    v1::Environment { name: "e0".to_owned(), uid: UID.to_owned(), status: Some(status), ..Default::default() }
}

#[test]
fn what_is_shown_as_current_and_is_not_is_found() {
    let mut world = then([]);
    world.listed = (4000, vec![shown(1)]);
    world.readable = BTreeMap::from([("p0".to_owned(), 4000)]);
    world.check_what_is_shown();
    assert_eq!(check_history(&world), Ok(()));
    world.listed = (80_000, vec![shown(1)]);
    world.check_what_is_shown();
    assert_found(&world, "e0 is current, unreadable for 76000 ms");
    let mut world = World::new(1, 2);
    world.listed = (4000, vec![shown(1)]);
    world.check_what_is_shown();
    assert_found(&world, "nothing written up to epoch 1");
    let mut world = then([]);
    world.listed = (4000, vec![shown(1)]);
    world.now = 400_000;
    world.check_what_is_shown();
    assert_found(&world, "its stream silent");
}

#[test]
fn a_watch_that_goes_back_is_found() {
    let mut world = World::new(1, 2);
    world.watched.insert("e0".to_owned(), shown(2));
    world.check_what_is_watched(Some(&Event::Changed(shown(2))));
    assert_eq!(check_history(&world), Ok(()));
    world.check_what_is_watched(Some(&Event::Changed(shown(1))));
    assert_found(&world, "was shown after");
}
