use super::world::{Worker, delete, granted, patch, payload, store_of, stored};
use super::*;
use crate::store::Damage;
use crate::store::model::Model;

const LONG: Duration = Duration::from_mins(10);
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// One that serves, and has held these flags for long.
fn serving(flags: &[(&str, u64)]) -> (Worker, Model) {
    let mut store = Model::default();
    let mut worker = Worker::start(&mut store, granted("w1", 1, Intent::Serve), NOW);
    worker.connect(&mut store, Some("env1"), flags);
    worker.wait(&mut store, LONG);
    assert_eq!((stored(&store), worker.state()), (flags.to_vec(), GrantState::Synchronized));
    worker.take_done();
    (worker, store)
}

/// One whose reconnect found a node that had not seen version 2 of "a".
fn in_doubt() -> (Worker, Model) {
    let (mut worker, mut store) = serving(&[("a", 2), ("b", 1)]);
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
    assert_eq!(worker.doubts(), ["flag/a: LaunchDarkly sent version 1, version 2 is kept"]);
    (worker, store)
}

#[test]
fn a_node_that_is_behind_takes_nothing_back_and_the_environment_stays_current() {
    let (mut worker, mut store) = serving(&[("a", 1), ("gone", 1)]);
    for event in [patch("a", 2), patch("new", 1), delete("gone", 2)] {
        worker.hear(&mut store, event);
    }
    worker.take_done();
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env1"), &[("a", 1), ("gone", 1)]);
    // The deletion comes undone until that node catches up: nothing tells it from a new creation.
    assert_eq!(stored(&store), [("a", 2), ("gone", 1), ("new", 1)]);
    assert_eq!((worker.doubts().len(), worker.state()), (2, GrantState::Synchronized));
    for event in [patch("a", 2), patch("new", 1), delete("gone", 2)] {
        worker.hear(&mut store, event);
    }
    assert_eq!(stored(&store), [("a", 2), ("new", 1)]);
    assert!(worker.doubts().is_empty(), "{:?}", worker.doubts());
    worker.wait(&mut store, LONG);
    assert!(!worker.take_done().contains(&"ask again".to_owned()));
}

#[test]
fn after_half_a_minute_launchdarkly_is_asked_again_and_believed() {
    for (opinion, expected) in [(&[("a", 2), ("b", 1)][..], 2), (&[("a", 1), ("b", 1)][..], 1)] {
        let (mut worker, mut store) = in_doubt();
        worker.wait(&mut store, Duration::from_millis(29_999));
        assert!(worker.take_done().is_empty());
        worker.wait(&mut store, Duration::from_millis(1));
        assert_eq!(worker.take_done(), ["ask again"]);
        worker.hear_again(&mut store, SourceEvent::Connected { environment_id: Some("env1".into()) });
        worker.hear_again(&mut store, payload(opinion));
        assert_eq!(stored(&store), [("a", expected), ("b", 1)]);
        assert!(worker.doubts().is_empty());
        worker.wait(&mut store, LONG);
        worker.touched(&mut store);
        assert_eq!((stored(&store)[0], worker.doubts().len()), (("a", expected), 0), "it is over");
    }
}

#[test]
fn what_cannot_be_answered_is_asked_again_later() {
    let (mut worker, mut store) = in_doubt();
    worker.wait(&mut store, HALF_A_MINUTE);
    let failure = SourceFailure::Network { message: "refused".to_owned() };
    worker.hear_again(&mut store, SourceEvent::Interrupted { failure, retry_in: LONG });
    worker.wait(&mut store, HALF_A_MINUTE);
    assert_eq!(worker.take_done(), ["ask again", "ask again"]);
    // Another environment's word counts for nothing.
    worker.hear_again(&mut store, SourceEvent::Connected { environment_id: Some("env2".into()) });
    worker.hear_again(&mut store, payload(&[]));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 2), ("b", 1)], 1));
    worker.wait(&mut store, HALF_A_MINUTE);
    assert_eq!(worker.take_done(), ["ask again"]);
    worker.machine.second_opinion(worker.now, None);
    worker.wait(&mut store, HALF_A_MINUTE);
    assert!(worker.take_done().is_empty(), "nobody woke it");
    worker.look(&mut store);
    assert_eq!(worker.take_done(), ["ask again"]);
}

#[test]
fn without_a_connection_nothing_is_asked_and_the_next_payload_decides() {
    let (mut worker, mut store) = in_doubt();
    worker.disconnect(&mut store);
    worker.wait(&mut store, LONG);
    worker.look(&mut store);
    assert!(worker.take_done().is_empty());
    worker.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 1), ("b", 1)], 0));
}

#[test]
fn a_second_put_on_one_connection_applies_in_full() {
    let (mut worker, mut store) = in_doubt();
    worker.hear(&mut store, patch("c", 1));
    worker.hear(&mut store, payload(&[("a", 1)]));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 1)], 0));
}

#[test]
fn patches_flow_while_another_item_is_in_doubt() {
    let (mut worker, mut store) = in_doubt();
    worker.hear(&mut store, patch("b", 2));
    worker.hear(&mut store, delete("a", 2));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 2), ("b", 2)], 1));
    worker.hear(&mut store, patch("a", 3));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 3), ("b", 2)], 0));
}

#[test]
fn the_next_poll_decides() {
    let mut store = Model::default();
    let mut assignment = granted("w1", 1, Intent::Serve);
    assignment.spec.source = Source::Poll { interval: Duration::from_secs(30) };
    let mut worker = Worker::start(&mut store, assignment, NOW);
    worker.connect(&mut store, None, &[("a", 2)]);
    worker.hear(&mut store, payload(&[("a", 1)]));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 2)], 1));
    worker.hear(&mut store, payload(&[("a", 1)]));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 1)], 0));
}

#[test]
fn a_poll_that_finds_nothing_changed_decides_too() {
    let mut store = Model::default();
    let mut assignment = granted("w1", 1, Intent::Serve);
    assignment.spec.source = Source::Poll { interval: Duration::from_secs(30) };
    let mut worker = Worker::start(&mut store, assignment, NOW);
    worker.connect(&mut store, None, &[("a", 2), ("gone", 1)]);
    worker.hear(&mut store, SourceEvent::Unchanged);
    worker.hear(&mut store, payload(&[("a", 2)]));
    assert_eq!((stored(&store).len(), worker.doubts().len()), (2, 1));
    worker.take_done();
    worker.hear(&mut store, SourceEvent::Unchanged);
    assert_eq!(worker.take_done(), ["ask again"], "for what is not changed was not sent");
    worker.hear_again(&mut store, payload(&[("a", 2)]));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 2)], 0));
}

#[test]
fn a_file_is_never_doubted() {
    let mut assignment = granted("w1", 1, Intent::Serve);
    assignment.spec.source = Source::File { path: "flags.json".to_owned() };
    let mut store = Model::default();
    let mut worker = Worker::start(&mut store, assignment.clone(), NOW);
    worker.connect(&mut store, None, &[("a", 2), ("b", 1)]);
    worker.connect(&mut store, None, &[("a", 1)]);
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 1)], 0));
    assignment.grant = granted("w2", 2, Intent::Serve).grant;
    store.items = store_of(&[("a", 9), ("x", 1)]).items;
    let mut next = Worker::start(&mut store, assignment, NOW);
    next.connect(&mut store, None, &[("a", 1)]);
    assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 1)], 0));
}

#[test]
fn versions_mean_nothing_as_soon_as_the_source_is_a_file_and_something_when_it_is_none() {
    let (mut worker, mut store) = serving(&[("a", 2)]);
    let stream = worker.machine.assignment().clone();
    let mut file = stream.clone();
    file.spec.source = Source::File { path: "flags.json".to_owned() };
    worker.assign(&mut store, file);
    worker.connect(&mut store, None, &[("a", 1)]);
    store.items.extend(store_of(&[("a", 9)]).items);
    worker.touched(&mut store);
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 1)], 0));
    worker.assign(&mut store, stream);
    worker.connect(&mut store, Some("env1"), &[("a", 2)]);
    store.items.extend(store_of(&[("a", 9)]).items);
    worker.touched(&mut store);
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 9)], 1));
}

fn change_key(assignment: &mut Assignment) {
    assignment.sdk_key = Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap());
}

/// To lower versions, to other items, to some of the flags: each in one step.
#[test]
fn where_the_user_changed_the_source_it_is_replaced_in_one_step() {
    let change_filter = |assignment: &mut Assignment| assignment.spec.filter = Some("mobile".to_owned());
    for (change, id) in
        [(change_key as fn(&mut Assignment), Some("env2")), (change_key, None), (change_filter, Some("env1"))]
    {
        for flags in [&[("a", 1)][..], &[("a", 1), ("z", 1)], &[("b", 7)]] {
            let (mut worker, mut store) = serving(&[("a", 5), ("b", 7)]);
            worker.hear(&mut store, patch("lately", 1));
            let mut assignment = worker.machine.assignment().clone();
            change(&mut assignment);
            worker.assign(&mut store, assignment);
            // Compared while the new source has said nothing yet, and once more afterwards.
            worker.touched(&mut store);
            worker.connect(&mut store, id, flags);
            assert_eq!((stored(&store), worker.doubts().len()), (flags.to_vec(), 0));
            worker.touched(&mut store);
            assert_eq!((stored(&store), worker.doubts().len()), (flags.to_vec(), 0));
        }
    }
}

#[test]
fn another_key_of_the_same_environment_lets_no_node_that_is_behind_take_anything_back() {
    let (mut worker, mut store) = serving(&[("a", 5), ("b", 7)]);
    let mut assignment = worker.machine.assignment().clone();
    change_key(&mut assignment);
    worker.assign(&mut store, assignment);
    worker.touched(&mut store);
    worker.connect(&mut store, Some("env1"), &[("a", 4), ("b", 7)]);
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 5), ("b", 7)], 1));
}

#[test]
fn what_somebody_else_wrote_in_a_higher_version_is_kept_until_launchdarkly_was_asked() {
    let (mut worker, mut store) = serving(&[("a", 5), ("b", 7)]);
    store.items.extend(store_of(&[("a", 6), ("b", 6), ("foreign", 1)]).items);
    worker.touched(&mut store);
    assert_eq!(stored(&store), [("a", 6), ("b", 7)], "lower ones, and what nobody sent, are mended");
    assert_eq!(worker.doubts(), ["flag/a: LaunchDarkly sent version 5, version 6 is kept"]);
    assert_eq!((worker.machine.report().repairs, worker.state()), (1, GrantState::Synchronized));
    worker.wait(&mut store, HALF_A_MINUTE);
    worker.hear_again(&mut store, payload(&[("a", 5), ("b", 7)]));
    assert_eq!((stored(&store), worker.doubts().len()), (vec![("a", 5), ("b", 7)], 0));
}

#[test]
fn a_new_source_is_not_asked_about_the_doubts_of_the_old_one() {
    let (mut worker, mut store) = in_doubt();
    worker.wait(&mut store, HALF_A_MINUTE);
    let mut assignment = worker.machine.assignment().clone();
    assignment.sdk_key = Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap());
    worker.assign(&mut store, assignment);
    worker.hear_again(&mut store, payload(&[]));
    assert_eq!(stored(&store), [("a", 2), ("b", 1)], "the answer of the old one came too late");
    assert_eq!(worker.take_done(), ["ask again", "start source"]);
}

#[test]
fn damage_of_whole_keys_is_mended_once_and_told_by_name() {
    let (mut worker, mut store) = serving(&[("a", 1), ("b", 1)]);
    for (damage, word) in [(Damage::Expiry, "expiry"), (Damage::Type, "type")] {
        let before = worker.machine.report().repairs;
        store.damage = Some(damage);
        if damage == Damage::Type {
            store.items.clear();
        }
        worker.touched(&mut store);
        assert_eq!((store.damage, stored(&store)), (None, vec![("a", 1), ("b", 1)]), "{word}");
        let report = worker.machine.report();
        assert_eq!((report.repairs, report.repair_reason.as_str()), (before + 1, word));
        assert_eq!(worker.state(), GrantState::Synchronized);
    }
    store.marker = false;
    worker.touched(&mut store);
    assert_eq!((store.marker, worker.machine.report().repair_reason.as_str()), (true, "marker"));
    store = Model::default();
    worker.touched(&mut store);
    assert_eq!((stored(&store).len(), worker.machine.report().repair_reason.as_str()), (2, "lost"));
    store.fence = None;
    worker.touched(&mut store);
    assert_eq!((store.fence.is_some(), worker.machine.report().repair_reason.as_str()), (true, "fence"));
    assert_eq!(worker.machine.report().repairs, 5);
}

#[test]
fn who_writes_again_and_again_is_answered_less_and_less_often() {
    let (mut worker, mut store) = serving(&[("a", 1)]);
    let tampered = || store_of(&[("foreign", 0)]).items;
    let mut waits = 0;
    for time in 1..=12 {
        store.items.extend(tampered());
        worker.touched(&mut store);
        let waits_now = stored(&store).len() == 2;
        assert!(!waits_now || time > 6, "{time}");
        waits += u32::from(waits_now);
        assert_eq!(worker.machine.report().contended, time > 5, "{time}");
    }
    assert!(waits > 2, "it takes its time: {waits}");
    store.items.extend(tampered());
    worker.touched(&mut store);
    worker.hear(&mut store, patch("a", 2));
    worker.wait(&mut store, Duration::from_secs(1));
    assert!(stored(&store).contains(&("a", 2)), "what LaunchDarkly says does not wait");
    worker.wait(&mut store, Duration::from_mins(1));
    assert_eq!(stored(&store), [("a", 2)]);
    worker.wait(&mut store, Duration::from_mins(2));
    assert!(!worker.machine.report().contended, "nobody has written since");
    store.items.extend(tampered());
    worker.touched(&mut store);
    assert_eq!(stored(&store), [("a", 2)]);
    for time in 1..=12 {
        store.marker = false;
        worker.touched(&mut store);
        assert!(worker.machine.report().contended || time <= 5, "the marker, {time}");
    }
}

#[test]
fn a_wrong_type_that_a_new_owner_finds_is_replaced() {
    let (_gone, mut store) = serving(&[("a", 1), ("b", 1)]);
    store.damage = Some(Damage::Type);
    store.items.clear();
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
    assert_eq!((stored(&store), store.damage), (vec![("a", 1), ("b", 1)], None));
    assert_eq!((next.state(), next.machine.report().repairs), (GrantState::Synchronized, 0));
}
