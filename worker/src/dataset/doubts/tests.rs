use bytes::Bytes;

use super::super::tests::{NOW, body, payload};
use super::*;
use crate::source::RejectedItem;

const MINUTE: Duration = Duration::from_mins(1);

/// A data set that has held these flags for longer than they could be lately.
fn holding(items: &[(&str, u64, &str)]) -> Dataset {
    let mut dataset = Dataset::default();
    let long_ago = Timestamp(NOW.0 - 3_600_000);
    for (key, version, body) in items {
        dataset.patch(Kind::Flag, key, *version, body.as_bytes(), long_ago);
    }
    dataset
}

fn flag(key: &str) -> ItemId {
    ItemId { kind: Kind::Flag, key: key.into() }
}

fn doubted(dataset: &Dataset) -> Vec<String> {
    dataset.doubts().map(|(id, why)| format!("{}: {why}", id.key)).collect()
}

fn stored(key: &str, version: u64) -> StoredText {
    StoredText { id: flag(key), version, body: (*b"stored").into() }
}

/// One whose doubt about "a", held as version 5 and sent as 3, began now.
fn in_doubt() -> Dataset {
    let mut dataset = holding(&[("a", 5, "five")]);
    dataset.replace(&payload(&[("a", 3, "three", false)]), Authority::OfNewConnection, NOW);
    assert_eq!(doubted(&dataset), ["a: LaunchDarkly sent version 3, version 5 is kept"]);
    dataset
}

#[test]
fn a_node_that_is_behind_by_a_patch_a_creation_and_a_deletion_takes_nothing_back() {
    let mut dataset = holding(&[("patched", 2, "two"), ("recreated", 9, "nine")]);
    dataset.patch(Kind::Flag, "created", 1, b"one", NOW);
    let behind = payload(&[("patched", 1, "one", false), ("recreated", 8, "", true), ("new", 1, "n", false)]);
    let changed = dataset.replace(&behind, Authority::OfNewConnection, NOW.after(MINUTE / 2));
    assert_eq!(changed, [flag("new")], "what is newer applies");
    assert_eq!(
        doubted(&dataset),
        [
            "created: LaunchDarkly did not send it, version 1 is kept",
            "patched: LaunchDarkly sent version 1, version 2 is kept",
            "recreated: LaunchDarkly sent its deletion by version 8, version 9 is kept",
        ]
    );
    assert_eq!(body(&dataset, "patched"), Some(&b"two"[..]));
}

#[test]
fn what_came_long_ago_and_is_not_sent_is_deleted() {
    let mut dataset = holding(&[("a", 5, "five")]);
    assert_eq!(dataset.replace(&payload(&[]), Authority::OfNewConnection, NOW), [flag("a")]);
    assert!(doubted(&dataset).is_empty());
    let mut dataset = holding(&[("a", 5, "five")]);
    let deletion = payload(&[("a", 6, "", true)]);
    assert_eq!(dataset.replace(&deletion, Authority::OfNewConnection, NOW), [flag("a")]);
}

#[test]
fn an_event_on_the_item_ends_the_doubt() {
    for version in [4, 5, 6] {
        let mut dataset = in_doubt();
        let changed = dataset.patch(Kind::Flag, "a", version, b"patched", NOW);
        let ends = version >= 5;
        assert_eq!((changed.is_some(), doubted(&dataset).is_empty()), (ends, ends), "version {version}");
        let mut dataset = in_doubt();
        let changed = dataset.delete(Kind::Flag, "a", version);
        let ends = version >= 6;
        assert_eq!((changed.is_some(), doubted(&dataset).is_empty()), (ends, ends), "version {version}");
    }
}

#[test]
fn patches_on_other_items_flow_and_end_no_doubt() {
    let mut dataset = in_doubt();
    assert!(dataset.patch(Kind::Flag, "b", 1, b"b", NOW).is_some());
    assert_eq!(doubted(&dataset).len(), 1);
}

#[test]
fn a_later_payload_of_the_same_connection_is_launchdarklys_will() {
    let mut dataset = in_doubt();
    let changed = dataset.replace(&payload(&[("a", 3, "three", false)]), Authority::Binding, NOW);
    assert_eq!((changed, doubted(&dataset).len()), (vec![flag("a")], 0));
    assert_eq!(body(&dataset, "a"), Some(&b"three"[..]));
}

#[test]
fn the_next_poll_decides_about_old_doubts_and_may_raise_new_ones() {
    let mut dataset = in_doubt();
    dataset.patch(Kind::Flag, "b", 7, b"seven", NOW);
    let changed =
        dataset.replace(&payload(&[("a", 3, "three", false), ("b", 6, "six", false)]), Authority::OfPoll, NOW);
    assert_eq!(changed, [flag("a")]);
    assert_eq!(doubted(&dataset), ["b: LaunchDarkly sent version 6, version 7 is kept"]);
}

#[test]
fn a_new_connection_decides_only_when_the_doubt_is_old_enough() {
    for (later, kept) in [(SECOND_OPINION_AFTER / 2, true), (SECOND_OPINION_AFTER, false)] {
        for again in [payload(&[("a", 3, "three", false)]), payload(&[])] {
            let mut dataset = in_doubt();
            dataset.replace(&again, Authority::OfNewConnection, NOW.after(later));
            assert_eq!((doubted(&dataset).len(), body(&dataset, "a") == Some(b"five")), (usize::from(kept), kept));
        }
    }
    let mut dataset = in_doubt();
    dataset.replace(&payload(&[("a", 5, "five", false)]), Authority::OfNewConnection, NOW);
    assert!(doubted(&dataset).is_empty(), "the new node has caught up");
}

#[test]
fn a_second_opinion_decides_about_what_is_in_doubt_and_nothing_else() {
    let due = NOW.after(SECOND_OPINION_AFTER);
    assert_eq!(in_doubt().second_opinion_due(), Some(due));
    for (sent, expected) in [
        (payload(&[("a", 5, "five", false)]), Some("five")),
        (payload(&[("a", 4, "four", false)]), Some("four")),
        (payload(&[("a", 6, "six", false)]), Some("six")),
        (payload(&[("a", 6, "", true)]), None),
        (payload(&[("other", 9, "nine", false)]), None),
    ] {
        let mut dataset = in_doubt();
        dataset.patch(Kind::Flag, "b", 1, b"b", NOW);
        assert!(dataset.decide(&sent, NOW).is_empty(), "the doubt is too young");
        let changed = dataset.decide(&sent, due);
        assert_eq!(changed.is_empty(), expected == Some("five"));
        assert_eq!(body(&dataset, "a"), expected.map(str::as_bytes));
        assert_eq!(
            (dataset.count(Kind::Flag), dataset.second_opinion_due()),
            (1 + u64::from(expected.is_some()), None)
        );
    }
}

#[test]
fn neither_of_two_nodes_is_believed_that_are_behind_each_in_its_own_way() {
    let live = |version| payload(&[("a", version, "again", false)]);
    let dead = |version| payload(&[("a", version, "", true)]);
    let nothing = || payload(&[]);
    let first = |sent: &FullPayload| {
        let mut dataset = holding(&[("b", 1, "b")]);
        dataset.patch(Kind::Flag, "a", 5, b"five", NOW);
        dataset.replace(sent, Authority::OfNewConnection, NOW);
        dataset
    };
    let due = NOW.after(SECOND_OPINION_AFTER);
    for (one, other, believed) in [
        (live(3), live(2), false),
        (live(3), live(3), true),
        (live(3), live(4), true),
        (live(3), dead(2), false),
        (live(3), dead(3), true),
        // It came less than a minute ago.
        (live(3), nothing(), false),
        (dead(3), live(3), false),
        (dead(3), live(4), true),
        (dead(3), dead(2), true),
        (nothing(), live(4), false),
        (nothing(), live(5), true),
        (nothing(), dead(4), true),
        (nothing(), nothing(), true),
    ] {
        let mut dataset = first(&one);
        dataset.decide(&other, due);
        assert_eq!(doubted(&dataset).is_empty(), believed, "{one:?} {other:?}");
        assert_eq!(body(&dataset, "a") == Some(b"five"), !believed, "{one:?} {other:?}");
        let mut dataset = first(&one);
        dataset.replace(&other, Authority::OfNewConnection, due);
        assert_eq!(doubted(&dataset).is_empty(), believed, "the next connection: {one:?} {other:?}");
        let mut dataset = first(&one);
        dataset.replace(&other, Authority::OfPoll, due);
        assert_eq!(doubted(&dataset).is_empty(), believed, "the next poll: {one:?} {other:?}");
        dataset.replace(&other, Authority::OfPoll, due);
        assert!(doubted(&dataset).is_empty(), "what two polls in succession say is believed: {other:?}");
    }
}

#[test]
fn the_text_of_somebody_else_gives_way_to_launchdarklys_of_the_same_version() {
    let mut dataset = holding(&[("a", 5, "five")]);
    dataset.adopt(vec![stored("a", 6)], NOW);
    assert_eq!(dataset.patch(Kind::Flag, "a", 6, b"six", NOW), Some(flag("a")));
    assert_eq!((body(&dataset, "a"), doubted(&dataset).len()), (Some(&b"six"[..]), 0));
    dataset.adopt(vec![stored("a", 7)], NOW);
    assert_eq!(dataset.decide(&payload(&[("a", 7, "seven", false)]), NOW.after(SECOND_OPINION_AFTER)), [flag("a")]);
}

#[test]
fn versions_of_somebody_else_hide_nothing_that_launchdarkly_creates_later() {
    let due = NOW.after(SECOND_OPINION_AFTER);
    let mut dataset = Dataset::default();
    dataset.adopt(vec![stored("a", 57)], NOW);
    assert_eq!(dataset.decide(&payload(&[]), due), [flag("a")]);
    assert!(dataset.adopt(vec![stored("a", 57)], due).is_empty(), "the store has not been told yet");
    assert!(dataset.patch(Kind::Flag, "a", 1, b"one", due).is_some());
    let mut dataset = holding(&[("a", 5, "five")]);
    dataset.adopt(vec![stored("a", 57)], NOW);
    assert_eq!(dataset.delete(Kind::Flag, "a", 6), None);
    assert_eq!(dataset.decide(&payload(&[]), due), [flag("a")]);
    assert_eq!(dataset.patch(Kind::Flag, "a", 4, b"late", due), None);
    assert!(dataset.patch(Kind::Flag, "a", 7, b"again", due).is_some());
}

#[test]
fn a_deletion_that_decides_is_remembered() {
    let due = NOW.after(SECOND_OPINION_AFTER);
    let mut dataset = in_doubt();
    assert_eq!(dataset.decide(&payload(&[("a", 7, "", true)]), due), [flag("a")]);
    for late in 4..=7 {
        assert_eq!(dataset.patch(Kind::Flag, "a", late, b"late", due), None, "{late}");
    }
    assert!(dataset.patch(Kind::Flag, "a", 8, b"again", due).is_some());
}

#[test]
fn who_decides_is_not_behind_any_connection_of_the_meantime() {
    let mut dataset = holding(&[("a", 5, "five")]);
    for (version, at) in [(4, NOW), (2, NOW.after(SECOND_OPINION_AFTER / 2))] {
        dataset.replace(&payload(&[("a", version, "old", false)]), Authority::OfNewConnection, at);
    }
    let due = NOW.after(SECOND_OPINION_AFTER);
    assert_eq!(dataset.decide(&payload(&[("a", 3, "three", false)]), due), []);
    assert_eq!(dataset.decide(&payload(&[("a", 4, "four", false)]), due), [flag("a")]);
}

#[test]
fn what_came_lately_is_not_taken_back_by_two_nodes_of_which_one_has_it() {
    let mut dataset = Dataset::default();
    dataset.patch(Kind::Flag, "a", 2, b"two", NOW);
    dataset.replace(&payload(&[("a", 1, "one", false)]), Authority::OfNewConnection, NOW);
    assert_eq!(dataset.decide(&payload(&[]), NOW.after(MINUTE / 2)), []);
    assert_eq!(dataset.decide(&payload(&[]), NOW.after(MINUTE)), [flag("a")], "that is no delay any more");
}

#[test]
fn whoever_decides_must_not_be_behind_the_events_since() {
    let due = NOW.after(SECOND_OPINION_AFTER);
    let event = |apply: fn(&mut Dataset) -> Option<ItemId>| {
        let mut dataset = in_doubt();
        assert_eq!(apply(&mut dataset), None);
        dataset
    };
    let mut patched = event(|dataset| dataset.patch(Kind::Flag, "a", 4, b"four", NOW));
    assert_eq!(patched.decide(&payload(&[("a", 3, "three", false)]), due), []);
    assert_eq!(doubted(&patched), ["a: LaunchDarkly sent version 4, version 5 is kept"]);
    assert_eq!(patched.decide(&payload(&[("a", 4, "four", false)]), due), [flag("a")]);
    let mut deleted = event(|dataset| dataset.delete(Kind::Flag, "a", 4));
    assert_eq!(deleted.decide(&payload(&[("a", 3, "three", false)]), due), []);
    assert_eq!(deleted.decide(&payload(&[]), due), [flag("a")]);
    let mut late = event(|dataset| dataset.patch(Kind::Flag, "a", 2, b"two", NOW));
    assert_eq!(late.decide(&payload(&[("a", 3, "three", false)]), due), [flag("a")]);
}

#[test]
fn a_second_opinion_that_cannot_be_stored_leaves_the_last_good_form() {
    let mut dataset = in_doubt();
    let bad = RejectedItem { kind: Kind::Flag, key: "a".into(), reason: "no version".into() };
    let opinion = FullPayload::new(Bytes::new(), Vec::new(), vec![bad]);
    assert!(dataset.decide(&opinion, NOW.after(SECOND_OPINION_AFTER)).is_empty());
    assert_eq!((body(&dataset, "a"), doubted(&dataset).len()), (Some(&b"five"[..]), 0));
}

#[test]
fn another_lineage_is_believed_in_one_step() {
    let mut dataset = holding(&[("a", 57, "old")]);
    dataset.patch(Kind::Flag, "b", 57, b"old", NOW);
    dataset.replace(&payload(&[("a", 1, "new", false)]), Authority::OfAnotherLineage, NOW);
    assert_eq!((body(&dataset, "a"), body(&dataset, "b")), (Some(&b"new"[..]), None));
    assert!(doubted(&dataset).is_empty());
    assert!(
        !dataset.adopt(vec![stored("a", 2)], NOW).is_empty(),
        "written since by another owner: versions of the old lineage are forgotten"
    );
}

#[test]
fn a_second_connection_brings_nothing_back_that_the_first_has_deleted() {
    let mut dataset = holding(&[("a", 4, "four"), ("b", 1, "b")]);
    dataset.delete(Kind::Flag, "a", 5);
    let behind = payload(&[("a", 4, "four", false), ("b", 1, "b", false), ("new", 1, "n", false)]);
    assert_eq!(dataset.replace(&behind, Authority::OfSecondConnection, NOW), [flag("new")]);
    assert_eq!(dataset.replace(&payload(&[("a", 6, "six", false)]), Authority::OfSecondConnection, NOW).len(), 2);
    assert_eq!(body(&dataset, "a"), Some(&b"six"[..]));
}

#[test]
fn an_item_of_another_lineage_is_no_last_good_form() {
    for (authority, kept) in [
        (Authority::OfAnotherLineage, None),
        (Authority::Accepted, Some(&b"old"[..])),
        (Authority::OfFile, Some(&b"old"[..])),
    ] {
        let mut dataset = holding(&[("a", 9, "old")]);
        let bad = RejectedItem { kind: Kind::Flag, key: "a".into(), reason: "no version".into() };
        dataset.replace(&FullPayload::new(Bytes::new(), Vec::new(), vec![bad]), authority, NOW);
        assert_eq!(body(&dataset, "a"), kept);
    }
}

#[test]
fn the_store_is_believed_where_it_is_newer_than_all_that_is_known() {
    let mut dataset = holding(&[("a", 5, "five"), ("gone", 4, "four")]);
    dataset.delete(Kind::Flag, "gone", 5);
    for (key, version) in [("a", 4), ("a", 5), ("gone", 4), ("gone", 5)] {
        assert!(dataset.adopt(vec![stored(key, version)], NOW).is_empty(), "{key} {version}");
    }
    for (key, version) in [("a", 6), ("gone", 6), ("foreign", 1)] {
        assert!(!dataset.adopt(vec![stored(key, version)], NOW).is_empty(), "{key} {version}");
        assert_eq!(body(&dataset, key), Some(&b"stored"[..]));
    }
    assert_eq!(
        doubted(&dataset),
        [
            "a: LaunchDarkly sent version 5, version 6 is kept",
            "foreign: LaunchDarkly did not send it, version 1 is kept",
            "gone: LaunchDarkly did not send it, version 6 is kept",
        ]
    );
}

#[test]
fn what_was_decided_is_not_doubted_again() {
    let mut dataset = in_doubt();
    dataset.decide(&payload(&[("a", 3, "three", false)]), NOW.after(SECOND_OPINION_AFTER));
    assert!(dataset.adopt(vec![stored("a", 5)], NOW).is_empty(), "the store has not been told yet");
    assert!(!dataset.adopt(vec![stored("a", 6)], NOW).is_empty());
    let mut dataset = in_doubt();
    dataset.decide(&payload(&[]), NOW.after(SECOND_OPINION_AFTER));
    assert!(dataset.adopt(vec![stored("a", 5)], NOW).is_empty(), "nor of the deletion");
}
