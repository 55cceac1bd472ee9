use flotilla_proto::Incarnation;

use super::world::{Worker, delete, granted, patch, payload, store_of, stored};
use super::*;
use crate::fence::{Fence, FenceKind};
use crate::store::model::Model;

const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// A store that an owner of epoch 1 keeps, and the owner.
fn served(environment_id: Option<&str>, flags: &[(&str, u64)]) -> (Worker, Model) {
    let mut store = Model::default();
    let mut owner = Worker::start(&mut store, granted("w1", 1, Intent::Serve), NOW);
    owner.connect(&mut store, environment_id, flags);
    assert_eq!((stored(&store), owner.state()), (flags.to_vec(), GrantState::Synchronized));
    (owner, store)
}

fn fence(store: &Model) -> Fence {
    Fence::parse(store.fence.as_deref().unwrap()).unwrap()
}

#[test]
fn a_warm_one_holds_the_data_and_writes_nothing() {
    let (_owner, mut store) = served(Some("env1"), &[("a", 1)]);
    let before = store.clone();
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Warm), NOW);
    assert_eq!(next.state(), GrantState::Pending);
    next.connect(&mut store, Some("env1"), &[("a", 1)]);
    next.hear(&mut store, patch("a", 2));
    next.touched(&mut store);
    next.look(&mut store);
    let report = next.machine.report();
    assert_eq!((report.grant_state, report.flags, report.store_available), (GrantState::Synchronized, 1, None));
    assert_eq!(
        (next.take_done(), &store.fence, &store.items),
        (vec!["start source".to_owned()], &before.fence, &before.items)
    );
    next.disconnect(&mut store);
    assert_eq!(next.state(), GrantState::Pending);
    next.connect(&mut store, Some("env1"), &[("a", 2)]);
    assert_eq!(next.state(), GrantState::Synchronized);
}

#[test]
fn a_warm_one_that_is_promoted_claims_at_once_and_keeps_its_stream() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 1), ("b", 1)]);
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Warm), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
    // Both hear of a change; the old owner does not write it any more.
    next.hear(&mut store, patch("a", 2));
    next.hear(&mut store, delete("b", 2));
    next.take_done();
    next.assign(&mut store, granted("w2", 3, Intent::Serve));
    assert_eq!(next.take_done(), ["write a", "write b"]);
    assert_eq!((next.state(), stored(&store), next.doubts().len()), (GrantState::Synchronized, vec![("a", 2)], 0));
    assert_eq!(fence(&store).epoch.0, 3);
    // The old one learns it from its next write, and keeps its stream and data until it is told to end.
    owner.take_done();
    owner.hear(&mut store, patch("a", 2));
    owner.wait(&mut store, HALF_A_MINUTE);
    owner.hear(&mut store, patch("a", 3));
    let report = owner.machine.report();
    assert_eq!((report.grant_state, report.fenced_writes), (GrantState::Fenced, 1));
    assert_eq!((report.source_state, report.flags), (Some(SourceState::Connected), 2));
    assert_eq!(stored(&store), [("a", 2)]);
    // The promotion is undone: it goes on at once, with all that it heard meanwhile.
    owner.assign(&mut store, granted("w1", 4, Intent::Serve));
    assert!(!owner.take_done().contains(&"start source".to_owned()));
    assert_eq!((owner.state(), stored(&store)), (GrantState::Synchronized, vec![("a", 3), ("b", 1)]));
    assert_eq!(owner.machine.report().fenced_writes, 0, "of this grant");
}

/// Behind by a patch, a creation and a deletion.
#[test]
fn a_new_owner_whose_node_is_behind_rolls_nothing_back() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 1), ("gone", 1), ("same", 1)]);
    for event in [patch("a", 2), patch("new", 1), delete("gone", 2)] {
        owner.hear(&mut store, event);
    }
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 1), ("gone", 1), ("same", 1)]);
    // A deletion that the node has not seen comes undone until it does.
    assert_eq!(stored(&store), [("a", 2), ("gone", 1), ("new", 1), ("same", 1)]);
    assert_eq!(
        next.doubts(),
        [
            "flag/a: LaunchDarkly sent version 1, version 2 is kept",
            "flag/new: LaunchDarkly did not send it, version 1 is kept",
        ]
    );
    assert_eq!(next.state(), GrantState::Synchronized);
    // What was kept is in memory: an emptied store gets it back.
    store = Model::default();
    next.look(&mut store);
    assert_eq!(stored(&store), [("a", 2), ("gone", 1), ("new", 1), ("same", 1)]);
    // The node catches up.
    for event in [patch("a", 2), patch("new", 1), delete("gone", 2)] {
        next.hear(&mut store, event);
    }
    assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 2), ("new", 1), ("same", 1)], 0));
}

#[test]
fn what_was_deleted_while_nobody_served_is_kept_until_launchdarkly_was_asked() {
    let (_owner, mut store) = served(Some("env1"), &[("a", 1), ("gone", 1)]);
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 1)]);
    assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 1), ("gone", 1)], 1));
    next.take_done();
    next.wait(&mut store, HALF_A_MINUTE);
    assert_eq!(next.take_done(), ["ask again"]);
    next.hear_again(&mut store, payload(&[("a", 1)]));
    assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 1)], 0));
}

#[test]
fn a_process_that_was_started_again_doubts_like_any_new_owner() {
    let first = Incarnation { state_directory: "dir".parse().unwrap(), start_counter: 1, random: 7 };
    let again = Incarnation { start_counter: 2, random: 8, ..first.clone() };
    let mut store = Model::default();
    let mut before = Worker::start_as(first, &mut store, granted("w1", 1, Intent::Serve), NOW);
    before.connect(&mut store, None, &[("a", 1)]);
    before.hear(&mut store, patch("a", 2));
    before.hear(&mut store, patch("new", 1));
    let mut after = Worker::start_as(again, &mut store, granted("w1", 1, Intent::Serve), NOW);
    after.connect(&mut store, None, &[("a", 1)]);
    assert_eq!((stored(&store), after.doubts().len()), (vec![("a", 2), ("new", 1)], 2));
}

/// The ids that the old and the new owner's LaunchDarkly sent; one that was not sent matches any.
#[test]
fn doubts_need_the_same_lineage() {
    for (before, after, is_same) in [
        (Some("env1"), Some("env1"), true),
        (None, Some("env1"), true),
        (Some("env1"), None, true),
        (None, None, true),
        (Some("env1"), Some("env2"), false),
    ] {
        let (_owner, mut store) = served(before, &[("a", 2), ("b", 1)]);
        let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
        // Claimed while the own id is not known: the fence goes on naming what is stored.
        assert_eq!(fence(&store).lineage.environment_id.as_deref(), before);
        assert_eq!(fence(&store).epoch.0, 2);
        next.connect(&mut store, after, &[("a", 1)]);
        let kept = if is_same { vec![("a", 2), ("b", 1)] } else { vec![("a", 1)] };
        assert_eq!(
            (stored(&store), next.doubts().len()),
            (kept, if is_same { 2 } else { 0 }),
            "{before:?} {after:?}"
        );
        assert_eq!(fence(&store).lineage.environment_id.as_deref(), after);
    }
}

#[test]
fn data_of_another_filter_or_of_nobody_knows_where_is_replaced_in_one_step() {
    let (_owner, filtered) = served(None, &[("a", 2), ("b", 1)]);
    let mut changed = granted("w2", 2, Intent::Serve);
    changed.spec.filter = Some("mobile".to_owned());
    let mut of_another_uid = filtered.clone();
    let released = Fence { uid: "uid-old".parse().unwrap(), kind: FenceKind::Released, ..fence(&filtered) };
    of_another_uid.fence = Some(released.to_string());
    for (mut store, assignment) in [
        (filtered, changed),
        (of_another_uid, granted("w2", 2, Intent::Serve)),
        (store_of(&[("a", 2), ("b", 1)]), granted("w2", 2, Intent::Serve)),
    ] {
        // Also when the first one to claim dies before it has compared.
        let _died = Worker::start(&mut store, assignment.clone(), NOW);
        let third = Assignment { grant: granted("w3", 3, Intent::Serve).grant, ..assignment };
        let mut next = Worker::start(&mut store, third, NOW);
        next.connect(&mut store, None, &[("a", 1)]);
        assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 1)], 0));
    }
}

#[test]
fn a_crash_between_claim_and_comparison_leaves_doubts_to_the_next() {
    let (_owner, mut store) = served(Some("env1"), &[("a", 2)]);
    let _died = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    let mut next = Worker::start(&mut store, granted("w3", 3, Intent::Serve), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 1)]);
    assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 2)], 1));
}

#[test]
fn a_key_that_was_changed_during_a_pause_begins_a_lineage_if_it_is_another_environments() {
    for (id, stored_then, doubts) in
        [(Some("env2"), &[("a", 1)][..], 0), (None, &[("a", 1)], 0), (Some("env1"), &[("a", 2)], 1)]
    {
        let (mut owner, mut store) = served(Some("env1"), &[("a", 2), ("b", 1)]);
        owner.assign(&mut store, granted("w1", 2, Intent::Release));
        assert_eq!((owner.state(), fence(&store).kind), (GrantState::Established, FenceKind::Released));
        let mut resumed = granted("w1", 3, Intent::Serve);
        resumed.sdk_key = Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap());
        owner.assign(&mut store, resumed);
        owner.wait(&mut store, 4 * HALF_A_MINUTE);
        owner.connect(&mut store, id, &[("a", 1)]);
        assert_eq!((stored(&store), owner.doubts().len()), (stored_then.to_vec(), doubts), "{id:?}");
    }
}

fn other_key(granted: Assignment) -> Assignment {
    Assignment { sdk_key: Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap()), ..granted }
}

#[test]
fn who_was_warm_when_the_key_was_changed_writes_nothing_of_before() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 9), ("old", 1)]);
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Warm), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 9), ("old", 1)]);
    assert_eq!(next.state(), GrantState::Synchronized);
    next.assign(&mut store, other_key(granted("w2", 2, Intent::Warm)));
    assert_eq!(next.state(), GrantState::Pending, "it is not warm any more");
    owner.assign(&mut store, other_key(granted("w1", 1, Intent::Serve)));
    owner.connect(&mut store, Some("env2"), &[("a", 1), ("b", 1)]);
    next.assign(&mut store, other_key(granted("w2", 3, Intent::Serve)));
    next.wait(&mut store, HALF_A_MINUTE);
    assert_eq!(stored(&store), [("a", 1), ("b", 1)]);
    next.connect(&mut store, Some("env2"), &[("a", 2), ("b", 1)]);
    assert_eq!((stored(&store), next.state()), (vec![("a", 2), ("b", 1)], GrantState::Synchronized));
}

#[test]
fn an_owner_without_new_data_since_a_change_takes_nothing_back_when_it_is_owner_again() {
    let filtered = |mut granted: Assignment| {
        granted.spec.filter = Some("mobile".to_owned());
        granted
    };
    let (mut owner, mut store) = served(Some("env1"), &[("a", 1), ("b", 1)]);
    owner.assign(&mut store, filtered(granted("w1", 1, Intent::Serve)));
    owner.touched(&mut store);
    assert_eq!((stored(&store), owner.state()), (vec![("a", 1), ("b", 1)], GrantState::Synchronized));
    let mut other = Worker::start(&mut store, filtered(granted("w2", 2, Intent::Serve)), NOW);
    other.connect(&mut store, Some("env1"), &[("b", 1)]);
    owner.assign(&mut store, filtered(granted("w1", 3, Intent::Serve)));
    owner.wait(&mut store, HALF_A_MINUTE);
    assert_eq!(stored(&store), [("b", 1)]);
}

#[test]
fn who_missed_a_change_of_key_takes_back_nothing_that_another_owner_wrote_since() {
    let (mut late, mut store) = served(Some("env1"), &[("a", 9), ("old", 1)]);
    let mut other = Worker::start(&mut store, other_key(granted("w2", 2, Intent::Serve)), NOW);
    other.connect(&mut store, Some("env2"), &[("a", 3), ("b", 1)]);
    assert_eq!(stored(&store), [("a", 3), ("b", 1)]);
    // Its first connection with the new key leads to a node that is behind.
    late.assign(&mut store, other_key(granted("w1", 3, Intent::Serve)));
    late.connect(&mut store, Some("env2"), &[("a", 2)]);
    assert_eq!((stored(&store), late.doubts().len()), (vec![("a", 3), ("b", 1)], 2));
}

#[test]
fn a_pause_does_not_let_a_node_that_is_behind_take_anything_back() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 2), ("b", 1)]);
    owner.assign(&mut store, granted("w1", 2, Intent::Release));
    owner.assign(&mut store, granted("w1", 3, Intent::Serve));
    owner.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
    assert_eq!((stored(&store), owner.doubts().len()), (vec![("a", 2), ("b", 1)], 1));
}

#[test]
fn what_a_restarted_worker_released_is_of_the_same_lineage_when_it_is_resumed() {
    let (_owner, mut store) = served(Some("env1"), &[("a", 2), ("b", 1)]);
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Release), NOW);
    next.assign(&mut store, granted("w2", 3, Intent::Serve));
    next.connect(&mut store, Some("env1"), &[("a", 1), ("b", 1)]);
    assert_eq!((stored(&store), next.doubts().len()), (vec![("a", 2), ("b", 1)], 1));
}

#[test]
fn a_comparison_from_before_the_key_was_changed_brings_nothing_of_the_old_lineage() {
    let (_owner, mut store) = served(Some("env1"), &[("a", 2), ("old", 1)]);
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    next.hear(&mut store, SourceEvent::Connected { environment_id: Some("env1".into()) });
    let mut asked = next.machine.source_event(NOW, payload(&[("a", 1)]));
    let Some(Action::Run(comparison @ Op::Compare { .. })) = asked.pop() else { panic!("{asked:?}") };
    let mut assignment = next.machine.assignment().clone();
    assignment.sdk_key = Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap());
    next.assign(&mut store, assignment);
    next.connect(&mut store, Some("env2"), &[("b", 1)]);
    let outcome = store.execute(comparison);
    let (_, actions) = next.machine.store_outcome(NOW, outcome);
    next.act(&mut store, actions);
    assert_eq!((stored(&store), next.doubts().len()), (vec![("b", 1)], 0));
}

#[test]
fn versions_from_before_a_change_of_key_are_no_measure_for_what_others_wrote_since() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 9)]);
    let mut assignment = owner.machine.assignment().clone();
    assignment.sdk_key = Some(SdkKeySource::parse("sdk_key", "sdk-other").unwrap());
    owner.assign(&mut store, assignment.clone());
    owner.connect(&mut store, Some("env2"), &[("a", 1)]);
    let with_key = |granted: Assignment| Assignment { sdk_key: assignment.sdk_key.clone(), ..granted };
    let mut other = Worker::start(&mut store, with_key(granted("w2", 2, Intent::Serve)), NOW);
    other.connect(&mut store, Some("env2"), &[("a", 2)]);
    assert_eq!(stored(&store), [("a", 2)]);
    // Its own connection is behind.
    owner.assign(&mut store, with_key(granted("w1", 3, Intent::Serve)));
    assert_eq!((stored(&store), owner.doubts().len()), (vec![("a", 2)], 1));
}

#[test]
fn a_resumed_one_does_not_doubt_its_own_deletions() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 1), ("gone", 1)]);
    owner.wait(&mut store, Duration::from_mins(5));
    owner.assign(&mut store, granted("w1", 2, Intent::Release));
    owner.assign(&mut store, granted("w1", 3, Intent::Serve));
    owner.connect(&mut store, Some("env1"), &[("a", 2)]);
    assert_eq!((stored(&store), owner.doubts().len()), (vec![("a", 2)], 0));
}

/// An old replica was promoted: what stands there is this owner's, or an earlier one's, and older than what it has.
#[test]
fn an_old_fence_put_back_brings_nothing_old_back() {
    let (mut owner, mut store) = served(Some("env1"), &[("a", 1), ("gone", 1)]);
    let of_the_first = store.clone();
    owner.hear(&mut store, patch("a", 2));
    let mut next = Worker::start(&mut store, granted("w2", 2, Intent::Serve), NOW);
    next.connect(&mut store, Some("env1"), &[("a", 2), ("gone", 1)]);
    let of_the_second = store.clone();
    next.hear(&mut store, patch("a", 3));
    next.hear(&mut store, delete("gone", 2));
    for old in [of_the_second, of_the_first] {
        store = old;
        next.wait(&mut store, Duration::from_secs(5));
        next.touched(&mut store);
        assert_eq!(
            (stored(&store), next.doubts().len(), next.state()),
            (vec![("a", 3)], 0, GrantState::Synchronized)
        );
        assert_eq!(fence(&store).epoch.0, 2);
    }
}
