use super::super::tests::{NOW, payload};
use super::super::{Authority, ItemId, SECOND_OPINION_AFTER};
use super::*;
use crate::source::{FullPayload, Kind};

const HOUR: u64 = 3_600_000;

fn flags(numbers: std::ops::Range<usize>) -> FullPayload {
    let keys: Vec<_> = numbers.map(|number| format!("flag-{number:03}")).collect();
    payload(&keys.iter().map(|key| (key.as_str(), 1, "text", false)).collect::<Vec<_>>())
}

/// A guarded data set that has held so many flags for long.
fn holding(flags_held: usize) -> Dataset {
    let mut dataset = Dataset::default();
    dataset.replace(&flags(0..flags_held), Authority::Binding, Timestamp(NOW.0 - HOUR));
    dataset.set_guarded(true);
    dataset
}

#[test]
fn more_than_half_of_many_or_all_is_too_much() {
    for (going, held, too_much) in [
        (0, 0, false),
        (0, 20, false),
        (1, 1, true),
        (18, 19, false),
        (19, 19, true),
        (10, 20, false),
        (11, 20, true),
        (20, 20, true),
    ] {
        assert_eq!(is_too_much(going, held), too_much, "{going} of {held}");
    }
}

#[test]
fn what_a_payload_lacks_stays_if_it_is_too_much() {
    for authority in [Authority::OfNewConnection, Authority::OfPoll, Authority::Binding] {
        let mut dataset = holding(20);
        assert_eq!(dataset.replace(&flags(11..30), authority, NOW).len(), 10, "what is new applies");
        assert_eq!(dataset.held_back(), Some(Lacking { items: 11, held: 30 }));
        let mut dataset = holding(20);
        assert!(dataset.replace(&flags(0..9), authority, NOW).is_empty());
        assert_eq!(dataset.held_back(), Some(Lacking { items: 11, held: 20 }));
        assert_eq!(dataset.doubts().count(), 11);
        let mut dataset = holding(20);
        assert_eq!(dataset.replace(&flags(0..10), authority, NOW).len(), 10, "half of them may go");
        let mut dataset = holding(20);
        dataset.set_guarded(false);
        assert_eq!(dataset.replace(&flags(0..0), authority, NOW).len(), 20, "nobody guards");
    }
    assert_eq!(holding(20).replace(&flags(0..0), Authority::OfAnotherLineage, NOW).len(), 20);
}

#[test]
fn a_second_payload_decides_and_says_what_stays() {
    let mut dataset = holding(20);
    dataset.replace(&flags(0..0), Authority::OfNewConnection, NOW);
    let due = NOW.after(SECOND_OPINION_AFTER);
    assert_eq!(dataset.second_opinion_due(), Some(due));
    assert_eq!(dataset.decide(&flags(0..20), due), []);
    assert_eq!((dataset.held_back(), dataset.doubts().count()), (None, 0), "it was a mistake");
    dataset.replace(&flags(0..0), Authority::OfNewConnection, due);
    assert_eq!(dataset.decide(&flags(0..0), due.after(SECOND_OPINION_AFTER)).len(), 20);
    assert_eq!((dataset.held_back(), dataset.count(Kind::Flag)), (None, 0), "it was not");
}

#[test]
fn the_next_poll_and_a_later_payload_of_the_same_stream_decide() {
    for authority in [Authority::OfPoll, Authority::Binding] {
        let mut dataset = holding(20);
        dataset.replace(&flags(0..0), authority, NOW);
        assert_eq!(dataset.replace(&flags(0..0), authority, NOW).len(), 20, "{authority:?}");
    }
}

#[test]
fn events_on_what_is_held_back_apply() {
    let mut dataset = holding(20);
    dataset.replace(&flags(0..0), Authority::OfNewConnection, NOW);
    let flag = |number: usize| ItemId { kind: Kind::Flag, key: format!("flag-{number:03}").into() };
    assert_eq!(dataset.patch(Kind::Flag, "flag-003", 2, b"two", NOW), Some(flag(3)));
    assert_eq!(dataset.delete(Kind::Flag, "flag-004", 2), Some(flag(4)));
    assert_eq!(dataset.held_back(), Some(Lacking { items: 18, held: 19 }));
    assert_eq!(dataset.decide(&flags(0..0), NOW.after(SECOND_OPINION_AFTER)).len(), 18);
    assert!(dataset.body(&flag(3)).is_some(), "LaunchDarkly has spoken of it since");
}
