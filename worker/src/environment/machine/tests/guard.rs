//! Payloads that would remove too much.

use flotilla_proto::Guard;

use super::world::{Worker, delete, granted, patch, payload, store_of, stored};
use super::*;
use crate::store::model::Model;

const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(10);

const KEYS: [&str; 20] =
    ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "q", "r", "s", "t"];

/// Version 1 of so many flags.
fn first(flags: usize) -> Vec<(&'static str, u64)> {
    KEYS[..flags].iter().map(|key| (*key, 1)).collect()
}

/// One that serves twenty flags, and has held them for long.
fn serving() -> (Worker, Model) {
    let mut store = Model::default();
    let mut worker = Worker::start(&mut store, granted("w1", 1, Intent::Serve), NOW);
    worker.connect(&mut store, Some("env1"), &first(20));
    worker.wait(&mut store, LONG);
    assert_eq!((stored(&store), held_back(&worker)), (first(20), String::new()));
    worker.take_done();
    (worker, store)
}

/// One that has found twenty flags of which nobody knows where they came from, and was sent three of them.
fn taking_over() -> (Worker, Model) {
    let mut store = store_of(&first(20));
    let mut worker = Worker::start(&mut store, granted("w1", 1, Intent::Serve), NOW);
    worker.connect(&mut store, Some("env1"), &first(3));
    assert_eq!(stored(&store), first(20));
    assert_eq!(held_back(&worker), "it lacks 17 of 20 items found in the store");
    assert_eq!(worker.state(), GrantState::Established);
    (worker, store)
}

fn held_back(worker: &Worker) -> String {
    worker.machine.report().payload_held
}

fn accept(worker: &mut Worker, store: &mut Model) {
    let mut assignment = worker.machine.assignment().clone();
    (assignment.resync, assignment.accept_regression) = (assignment.resync + 1, true);
    worker.assign(store, assignment);
}

#[test]
fn what_a_payload_lacks_stays_until_another_lacks_it_too() {
    for (opinion, expected) in [(first(9), first(9)), (first(20), first(20)), (first(15), first(15))] {
        let (mut worker, mut store) = serving();
        worker.disconnect(&mut store);
        worker.connect(&mut store, Some("env1"), &first(9));
        assert_eq!((stored(&store), held_back(&worker).as_str()), (first(20), "it lacks 11 of 20 items held"));
        worker.wait(&mut store, HALF_A_MINUTE);
        assert_eq!(worker.take_done(), ["ask again"]);
        worker.hear_again(&mut store, payload(&opinion));
        assert_eq!((stored(&store), held_back(&worker)), (expected, String::new()));
        assert_eq!(worker.state(), GrantState::Synchronized);
    }
}

#[test]
fn nothing_of_unknown_origin_is_touched_until_another_payload_says_so_too() {
    for (opinion, expected) in [(first(3), first(3)), (first(18), first(18)), (first(0), first(0))] {
        let (mut worker, mut store) = taking_over();
        worker.touched(&mut store);
        worker.look(&mut store);
        assert_eq!(stored(&store), first(20));
        worker.take_done();
        worker.wait(&mut store, HALF_A_MINUTE);
        assert_eq!(worker.take_done(), ["ask again"]);
        worker.hear_again(&mut store, payload(&opinion));
        // What only the first one had came less than a minute ago, so that it is in doubt for itself.
        let both = if opinion.len() < 3 { first(3) } else { expected };
        assert_eq!((stored(&store), worker.state()), (both, GrantState::Synchronized), "{opinion:?}");
    }
}

#[test]
fn what_comes_while_a_payload_is_held_back_is_written_as_soon_as_may_be() {
    let (mut worker, mut store) = serving();
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env1"), &[]);
    for event in [patch("a", 2), patch("new", 1), delete("b", 2)] {
        worker.hear(&mut store, event);
    }
    let expected: Vec<_> =
        [("a", 2)].into_iter().chain(first(20)[2..].iter().copied()).chain([("new", 1)]).collect();
    let mut sorted = expected.clone();
    sorted.sort_unstable();
    assert_eq!((stored(&store), held_back(&worker).as_str()), (sorted, "it lacks 18 of 20 items held"));
    let (mut worker, mut store) = taking_over();
    for event in [patch("a", 2), patch("new", 1), delete("b", 2)] {
        worker.hear(&mut store, event);
    }
    assert_eq!(stored(&store), first(20));
    worker.wait(&mut store, HALF_A_MINUTE);
    worker.hear_again(&mut store, payload(&[("a", 2), ("c", 1), ("new", 1)]));
    assert_eq!(stored(&store), [("a", 2), ("c", 1), ("new", 1)]);
}

#[test]
fn the_next_owner_holds_back_what_the_last_one_did() {
    let (_gone, mut store) = taking_over();
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    next.connect(&mut store, Some("env1"), &first(3));
    assert_eq!(
        (stored(&store), held_back(&next).as_str()),
        (first(20), "it lacks 17 of 20 items found in the store")
    );
    let (mut gone, mut store) = serving();
    gone.disconnect(&mut store);
    gone.connect(&mut store, Some("env1"), &first(3));
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), gone.now);
    next.connect(&mut store, Some("env1"), &first(3));
    assert_eq!((stored(&store), held_back(&next).as_str()), (first(20), "it lacks 17 of 20 items held"));
    next.wait(&mut store, HALF_A_MINUTE);
    next.hear_again(&mut store, payload(&first(3)));
    assert_eq!((stored(&store), held_back(&next)), (first(3), String::new()));
}

#[test]
fn the_users_word_stands_until_a_payload_was_taken_so_and_outlives_a_restart() {
    let (gone, mut store) = taking_over();
    let assignment = gone.machine.assignment().clone();
    let accepting = Assignment { resync: 1, accept_regression: true, ..assignment };
    let mut again = Worker::start(&mut store, Assignment { accept_regression: false, ..accepting.clone() }, NOW);
    // It began without control, which now says what it has not seen done.
    again.assign(&mut store, accepting.clone());
    assert_eq!(again.take_done(), ["start source", "start source"]);
    again.connect(&mut store, Some("env1"), &first(3));
    assert_eq!((stored(&store), again.machine.report().accepted_resync), (first(3), Some(1)));
    again.take_done();
    again.assign(&mut store, accepting.clone());
    assert_eq!(again.take_done(), [""; 0], "it is done");
    let (_gone, mut store) = taking_over();
    let mut again = Worker::start(&mut store, accepting, NOW);
    again.connect(&mut store, Some("env1"), &first(3));
    assert_eq!((stored(&store), again.machine.report().accepted_resync), (first(3), Some(1)));
}

#[test]
fn the_user_may_decide_at_once() {
    let (mut worker, mut store) = serving();
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env1"), &first(3));
    accept(&mut worker, &mut store);
    assert_eq!(stored(&store), first(20), "it takes another payload");
    worker.connect(&mut store, Some("env1"), &first(3));
    assert_eq!((stored(&store), held_back(&worker), worker.doubts().len()), (first(3), String::new(), 0));
    // Once: the next one is as any other.
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env1"), &[]);
    assert_eq!(stored(&store), first(3));
    let (mut worker, mut store) = taking_over();
    accept(&mut worker, &mut store);
    worker.connect(&mut store, Some("env1"), &first(3));
    assert_eq!((stored(&store), held_back(&worker)), (first(3), String::new()));
    // An older version too, and the data of another LaunchDarkly environment.
    let (mut worker, mut store) = serving();
    worker.hear(&mut store, patch("a", 2));
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env2"), &first(3));
    assert_eq!(worker.machine.report().changed_environment_id.as_deref(), Some("env2"));
    accept(&mut worker, &mut store);
    worker.connect(&mut store, Some("env2"), &first(3));
    assert_eq!((stored(&store), worker.doubts().len()), (first(3), 0));
    assert_eq!(worker.machine.report().changed_environment_id, None);
}

#[test]
fn who_does_not_want_it_is_not_guarded() {
    let mut store = store_of(&first(20));
    let mut assignment = granted("w1", 1, Intent::Serve);
    assignment.spec.guard = Guard::Off;
    let mut worker = Worker::start(&mut store, assignment, NOW);
    worker.connect(&mut store, Some("env1"), &first(3));
    assert_eq!(stored(&store), first(3));
    worker.wait(&mut store, LONG);
    worker.disconnect(&mut store);
    worker.connect(&mut store, Some("env1"), &[]);
    assert_eq!(stored(&store), []);
}

#[test]
fn a_store_that_loses_what_was_held_back_is_filled() {
    let (mut worker, _lost) = taking_over();
    let mut store = Model::default();
    worker.touched(&mut store);
    assert_eq!((stored(&store), held_back(&worker)), (first(3), String::new()));
}
