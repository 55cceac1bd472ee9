use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::source::{ItemSpan, RejectedItem};

/// Some time in 2026.
pub(super) const NOW: Timestamp = Timestamp(1_790_000_000_000);

/// A payload of flags from (key, version, body, deleted).
pub(super) fn payload(items: &[(&str, u64, &str, bool)]) -> FullPayload {
    let mut text = String::new();
    let mut spans = Vec::new();
    for (key, version, body, deleted) in items {
        let start = text.len();
        text.push_str(body);
        spans.push(ItemSpan {
            kind: Kind::Flag,
            key: (*key).into(),
            body: start..text.len(),
            version: *version,
            deleted: *deleted,
        });
    }
    FullPayload::new(Bytes::from(text), spans, Vec::new())
}

fn keys(changed: &[ItemId]) -> Vec<&str> {
    changed.iter().map(|id| &*id.key).collect()
}

pub(super) fn body<'a>(dataset: &'a Dataset, key: &str) -> Option<&'a [u8]> {
    dataset.body(&ItemId { kind: Kind::Flag, key: key.into() }).map(Body::plain)
}

#[test]
fn an_unchanged_payload_changes_nothing() {
    let mut dataset = Dataset::default();
    let items = [("a", 1, "{\"a\":1}", false), ("b", 2, "{}", false)];
    assert_eq!(keys(&dataset.replace(&payload(&items), Authority::Binding, NOW)), ["a", "b"]);
    let before = dataset.snapshot();
    assert!(dataset.replace(&payload(&items), Authority::Binding, NOW).is_empty());
    assert!(
        Arc::ptr_eq(&before.flags[0].1.text(), &dataset.snapshot().flags[0].1.text()),
        "the body is still the same allocation"
    );
    assert_eq!(dataset.bytes(), 9);
}

#[test]
fn a_payload_replaces_whatever_the_versions() {
    let mut dataset = Dataset::default();
    dataset.replace(&payload(&[("a", 5, "new", false), ("b", 1, "b", false)]), Authority::Binding, NOW);
    assert_eq!(keys(&dataset.replace(&payload(&[("a", 3, "old", false)]), Authority::Binding, NOW)), ["a", "b"]);
    assert_eq!(body(&dataset, "a"), Some(&b"old"[..]));
    assert_eq!((dataset.count(Kind::Flag), dataset.bytes()), (1, 3));
}

#[test]
fn older_patches_and_deletions_are_ignored() {
    let mut dataset = Dataset::default();
    dataset.replace(&payload(&[("a", 5, "five", false)]), Authority::Binding, NOW);
    for version in [4, 5] {
        assert_eq!(dataset.patch(Kind::Flag, "a", version, b"late", NOW), None);
        assert_eq!(dataset.delete(Kind::Flag, "a", version), None);
    }
    assert!(dataset.patch(Kind::Flag, "a", 6, b"six", NOW).is_some());
    assert!(dataset.delete(Kind::Flag, "a", 7).is_some());
    assert_eq!(dataset.patch(Kind::Flag, "a", 6, b"late", NOW), None, "a deleted item does not come back");
    assert_eq!(dataset.patch(Kind::Flag, "a", 7, b"late", NOW), None);
    assert!(dataset.patch(Kind::Flag, "a", 8, b"eight", NOW).is_some());
}

#[test]
fn deletions_of_unknown_items_are_remembered() {
    let mut dataset = Dataset::default();
    assert_eq!(dataset.delete(Kind::Segment, "s", 9), None);
    assert_eq!(dataset.patch(Kind::Segment, "s", 9, b"late", NOW), None);
    dataset.replace(&payload(&[("gone", 4, "", true)]), Authority::Binding, NOW);
    assert_eq!(dataset.patch(Kind::Flag, "gone", 4, b"late", NOW), None);
    dataset.replace(&payload(&[]), Authority::Binding, NOW);
    assert_eq!(dataset.patch(Kind::Segment, "s", 8, b"late", NOW), None, "also after the next payload");
}

#[test]
fn an_item_that_left_with_a_payload_is_not_brought_back_by_an_older_patch() {
    let mut dataset = Dataset::default();
    dataset.replace(&payload(&[("a", 5, "five", false)]), Authority::Binding, NOW);
    dataset.replace(&payload(&[]), Authority::Binding, NOW);
    assert_eq!(dataset.patch(Kind::Flag, "a", 4, b"late", NOW), None);
    assert!(dataset.patch(Kind::Flag, "a", 6, b"six", NOW).is_some());
}

#[test]
fn a_node_that_had_not_seen_a_creation_yet_brings_it_when_it_has() {
    let flag = |key: &str| ItemId { kind: Kind::Flag, key: key.into() };
    for authority in [Authority::Binding, Authority::OfNewConnection] {
        let mut dataset = Dataset::default();
        dataset.replace(&payload(&[("a", 5, "five", false)]), Authority::Binding, NOW);
        let long_after = NOW.after(std::time::Duration::from_mins(2));
        dataset.replace(&payload(&[]), authority, long_after);
        let stored = StoredText { id: flag("a"), version: 5, body: b"stored".as_slice().into() };
        assert!(
            dataset.adopt(vec![stored], long_after).is_empty(),
            "it was taken back, and the store has not been told yet"
        );
        assert_eq!(dataset.patch(Kind::Flag, "a", 5, b"five", long_after), Some(flag("a")));
        assert_eq!(dataset.patch(Kind::Flag, "a", 5, b"five", long_after), None, "once");
    }
}

#[test]
fn a_rejected_item_keeps_its_last_good_form() {
    let mut dataset = Dataset::default();
    dataset.replace(&payload(&[("a", 1, "good", false)]), Authority::Binding, NOW);
    let bad = RejectedItem { kind: Kind::Flag, key: "a".into(), reason: "no version".into() };
    let changed = dataset.replace(&FullPayload::new(Bytes::new(), Vec::new(), vec![bad]), Authority::Binding, NOW);
    assert!(changed.is_empty());
    assert_eq!(body(&dataset, "a"), Some(&b"good"[..]));
}

#[test]
fn a_comparison_finds_what_is_missing_other_and_foreign() {
    let mut dataset = Dataset::default();
    dataset.replace(
        &payload(&[("a", 1, "a", false), ("b", 1, "b", false), ("c", 1, "c", false)]),
        Authority::Binding,
        NOW,
    );
    let snapshot = dataset.snapshot();
    let mut comparison = Comparison::new(&snapshot, Evidence::Nothing);
    comparison.found(Kind::Flag, b"a", b"a");
    comparison.found(Kind::Flag, b"b", b"other");
    comparison.found(Kind::Flag, b"x", b"foreign");
    let mut differing = comparison.differences().items;
    differing.sort();
    assert_eq!(keys(&differing), ["b", "c", "x"]);
}

#[test]
fn a_comparison_brings_back_what_may_be_newer_and_no_more() {
    let text = |key: &str, version: u64| format!(r#"{{"key":"{key}","version":{version}}}"#);
    let mut dataset = Dataset::default();
    for key in ["equal", "newer", "older", "unreadable", "deleted"] {
        dataset.patch(Kind::Flag, key, 2, text(key, 2).as_bytes(), NOW);
    }
    let snapshot = dataset.snapshot();
    for (evidence, expected) in [
        (Evidence::Nothing, vec![]),
        (Evidence::Newer, vec!["newer"]),
        (Evidence::NewerOrForeign, vec!["newer", "foreign"]),
    ] {
        let mut comparison = Comparison::new(&snapshot, evidence);
        for (key, body) in [
            ("equal", text("equal", 2)),
            ("newer", text("newer", 3)),
            ("older", text("older", 1)),
            ("unreadable", "{".to_owned()),
            ("deleted", r#"{"key":"deleted","version":9,"deleted":true}"#.to_owned()),
            ("foreign", text("foreign", 1)),
            ("misnamed", text("another", 9)),
            ("nothing", "null".to_owned()),
        ] {
            comparison.found(Kind::Flag, key.as_bytes(), body.as_bytes());
        }
        let Differences { items, foreign: _, stored } = comparison.differences();
        assert_eq!(stored.iter().map(|text| &*text.id.key).collect::<Vec<_>>(), expected);
        assert_eq!(items.len(), 7, "all but the equal one differ: {items:?}");
    }
}

proptest! {
    /// Whatever was held, the items that a payload is said to change are exactly those that a comparison of before and
    /// after finds, and the bytes are counted rightly.
    #[test]
    fn changes_are_exactly_the_differences(
        before in proptest::collection::btree_map("[a-f]", (1u64..4, "[xy]{0,3}"), 0..6),
        after in proptest::collection::btree_map("[a-f]", (1u64..4, "[xy]{0,3}"), 0..6),
    ) {
        let as_payload = |items: &BTreeMap<String, (u64, String)>| {
            let items: Vec<_> = items.iter().map(|(key, (version, body))| (key.as_str(), *version, body.as_str(), false)).collect();
            payload(&items)
        };
        let mut dataset = Dataset::default();
        dataset.replace(&as_payload(&before), Authority::Binding, NOW);
        let old = dataset.snapshot();
        let mut changed = dataset.replace(&as_payload(&after), Authority::Binding, NOW);
        let new = dataset.snapshot();
        let mut comparison = Comparison::new(&new, Evidence::Nothing);
        for (key, body) in &old.flags {
            comparison.found(Kind::Flag, key.as_bytes(), body.plain());
        }
        let mut differing = comparison.differences().items;
        differing.sort();
        changed.sort();
        prop_assert_eq!(changed, differing);
        prop_assert_eq!(dataset.bytes(), new.flags.iter().map(|(_, body)| body.len() as u64).sum::<u64>());
    }
}

/// What happens to a data set; texts are of a letter, and long enough to be packed.
#[derive(Debug, Clone)]
enum Happens {
    Payload(BTreeMap<String, (u64, char)>),
    Patch(String, u64, char),
    Delete(String, u64),
    Pack,
}

fn happens() -> impl Strategy<Value = Happens> {
    let letter = || proptest::sample::select(vec!['x', 'y', 'z']);
    let items = proptest::collection::btree_map("[a-f]", (1u64..6, letter()), 0..6);
    prop_oneof![
        items.prop_map(Happens::Payload),
        ("[a-f]", 1u64..8, letter()).prop_map(|(key, version, letter)| Happens::Patch(key, version, letter)),
        ("[a-f]", 1u64..8).prop_map(|(key, version)| Happens::Delete(key, version)),
        Just(Happens::Pack),
    ]
}

fn long(letter: char) -> String {
    letter.to_string().repeat(9_000)
}

fn happen(dataset: &mut Dataset, what: &Happens) -> Vec<ItemId> {
    match what {
        Happens::Payload(items) => {
            let texts: Vec<_> =
                items.iter().map(|(key, (version, letter))| (key, *version, long(*letter))).collect();
            let items: Vec<_> =
                texts.iter().map(|(key, version, text)| (key.as_str(), *version, text.as_str(), false)).collect();
            dataset.replace(&payload(&items), Authority::Binding, NOW)
        }
        Happens::Patch(key, version, letter) => {
            dataset.patch(Kind::Flag, key, *version, long(*letter).as_bytes(), NOW).into_iter().collect()
        }
        Happens::Delete(key, version) => dataset.delete(Kind::Flag, key, *version).into_iter().collect(),
        Happens::Pack => Vec::new(),
    }
}

proptest! {
    /// A data set that is packed now and then answers as one that never is.
    #[test]
    fn packing_changes_nothing(history in proptest::collection::vec(happens(), 1..20)) {
        let (mut packed, mut plain) = (Dataset::default(), Dataset::default());
        for what in &history {
            prop_assert_eq!(happen(&mut packed, what), happen(&mut plain, what));
            if matches!(what, Happens::Pack) {
                while packed.pack_some(NOW, Duration::ZERO) == Packing::GoesOn {}
            }
            let texts = |dataset: &Dataset| {
                let snapshot = dataset.snapshot();
                snapshot.flags.iter().map(|(key, body)| (Arc::clone(key), body.text())).collect::<Vec<_>>()
            };
            prop_assert_eq!(texts(&packed), texts(&plain));
            prop_assert_eq!(packed.bytes(), plain.bytes());
        }
    }
}

#[test]
fn versions_of_another_lineage_are_forgotten() {
    let mut dataset = Dataset::default();
    dataset.replace(&payload(&[("a", 57, "old", false)]), Authority::Binding, NOW);
    dataset.replace(&payload(&[("b", 1, "b", false)]), Authority::OfAnotherLineage, NOW);
    assert!(dataset.patch(Kind::Flag, "a", 1, b"new", NOW).is_some());
}

#[test]
fn what_is_packed_is_patched_compared_and_handed_out_like_anything_else() {
    let long = |text: &str| format!("{text}{}", "x".repeat(1_000));
    let texts: Vec<(String, String)> = (0..100).map(|n| (format!("flag-{n:03}"), long(&n.to_string()))).collect();
    let items: Vec<_> = texts.iter().map(|(key, text)| (key.as_str(), 1, text.as_str(), false)).collect();
    let mut dataset = Dataset::default();
    let later = NOW.after(Duration::from_secs(10));
    dataset.replace(&payload(&items), Authority::Binding, NOW);
    while dataset.pack_some(later, Duration::from_secs(5)) == Packing::GoesOn {}
    let flag = |key: &str| ItemId { kind: Kind::Flag, key: key.into() };
    let is_packed = |dataset: &Dataset, key| format!("{:?}", dataset.body(&flag(key)).unwrap()).contains("packed");
    assert!(is_packed(&dataset, "flag-000") && is_packed(&dataset, "flag-099"));

    assert_eq!(
        dataset.replace(&payload(&items), Authority::Binding, later),
        [],
        "the same payload changes nothing"
    );
    assert!(is_packed(&dataset, "flag-050"), "and unpacks nothing");
    assert_eq!(dataset.patch(Kind::Flag, "flag-007", 1, b"old", later), None);
    assert_eq!(dataset.patch(Kind::Flag, "flag-007", 2, b"new", later), Some(flag("flag-007")));
    while dataset.pack_some(later, Duration::from_secs(5)) == Packing::GoesOn {}
    assert!(!is_packed(&dataset, "flag-007"), "it has just changed");
    let all: usize = texts.iter().map(|(_, text)| text.len()).sum();
    assert_eq!(dataset.bytes(), (all - long("7").len() + "new".len()) as u64);

    let snapshot = dataset.snapshot();
    let mut comparison = Comparison::new(&snapshot, Evidence::Nothing);
    for (key, text) in &texts {
        comparison.found(Kind::Flag, key.as_bytes(), text.as_bytes());
    }
    assert_eq!(comparison.differences().items, [flag("flag-007")]);
    let mut unpacked = Unpacked::default();
    assert!(snapshot.flags.iter().zip(&texts).all(|((_, body), (key, text))| {
        let expected = if key == "flag-007" { "new" } else { text };
        unpacked.text(body) == expected.as_bytes() && *body.text() == *expected.as_bytes()
    }));
}
