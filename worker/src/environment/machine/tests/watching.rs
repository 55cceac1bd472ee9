//! What others do to a store that says nothing of it.

use super::world::{Worker, granted, stored};
use super::*;
use crate::environment::machine::pace::{TRACKED, UNTRACKED};
use crate::store::model::Model;

const FLAGS: [(&str, u64); 3] = [("a", 1), ("b", 1), ("c", 1)];

fn serving(untracked: Option<&str>) -> (Worker, Model) {
    let mut store = Model { untracked: untracked.map(Into::into), ..Model::default() };
    let mut worker = Worker::start(&mut store, granted("w1", 1, Intent::Serve), NOW);
    worker.connect(&mut store, Some("env1"), &FLAGS);
    assert_eq!(worker.machine.report().untracked.as_deref(), untracked);
    (worker, store)
}

/// How long it takes until a lost marker, a lost item, and an item's other text are found, without a word of the store.
fn found_after(untracked: Option<&str>) -> [u64; 3] {
    let (mut worker, mut store) = serving(untracked);
    store.marker = false;
    let marker = worker.watch(&mut store, |store| store.marker);
    store.items.retain(|id, _| &*id.key != "b");
    let item = worker.watch(&mut store, |store| stored(store) == FLAGS);
    let id = ItemId { kind: crate::source::Kind::Flag, key: "b".into() };
    store.items.insert(id, br#"{"key":"b","version":1,"on":true}"#.to_vec().into());
    let is_as_sent = |store: &Model| store.items.values().all(|body| !body.ends_with(b"true}"));
    let text = worker.watch(&mut store, is_as_sent);
    [marker, item, text].map(|time| time.as_secs())
}

#[test]
fn what_others_do_is_found_by_looking_and_sooner_where_the_store_never_tells() {
    let [marker, item, text] = found_after(None);
    assert!(marker <= 60 && item <= 60 && text <= 600, "{marker} {item} {text}");
    let [marker, item, text] = found_after(Some("the server refuses"));
    assert!(marker <= 10 && item <= 10 && text <= 300, "{marker} {item} {text}");
}

#[test]
fn that_a_store_does_not_tell_is_known_as_long_as_it_is_so() {
    let (mut worker, mut store) = serving(Some("full"));
    assert_eq!(worker.machine.check_pause(), UNTRACKED.look);
    store.untracked = None;
    worker.look(&mut store);
    assert_eq!(worker.machine.report().untracked, None);
    assert_eq!(worker.machine.check_pause(), TRACKED.look);
}
