use flotilla_proto::Intent;
use proptest::prelude::*;

use super::*;

fn incarnation(directory: &str, start_counter: u64, random: u64) -> Incarnation {
    Incarnation { state_directory: directory.parse().unwrap(), start_counter, random }
}

fn fence() -> Fence {
    Fence {
        fleet: "fleet".parse().unwrap(),
        uid: "uid".parse().unwrap(),
        lineage: Lineage::new(Some("507f1f77bcf86cd799439011"), "0123456789abcdef"),
        epoch: Epoch(5),
        grant: GrantId::parse("grant-1").unwrap(),
        incarnation: incarnation("dir", 3, 7),
        write: 11,
        flags: 2,
        segments: 1,
        kind: FenceKind::Serving,
    }
}

fn verdict(found: &Found, expected: Option<&str>, take_over: Option<&TakeOver>) -> Verdict {
    let (fleet, uid) = ("fleet".parse().unwrap(), "uid".parse().unwrap());
    let grant = Grant { epoch: Epoch(5), id: GrantId::parse("grant-1").unwrap(), intent: Intent::Serve };
    let me = incarnation("dir", 3, 7);
    judge(found, &Claimant { fleet: &fleet, uid: &uid, grant: &grant, incarnation: &me, expected, take_over })
}

/// Every row of the design's table, in its order, and what each admits.
#[test]
fn the_table() {
    let with = |change: fn(&mut Fence)| {
        let mut fence = fence();
        change(&mut fence);
        Found::Value(fence.to_string())
    };
    let exact = fence().to_string();
    let rows = [
        ("exactly what we expect", Found::Value(exact.clone()), Verdict::Expected),
        ("another fleet", with(|f| f.fleet = "other".parse().unwrap()), Verdict::Conflict),
        (
            "another fleet, released",
            with(|f| (f.fleet, f.kind) = ("other".parse().unwrap(), FenceKind::Released)),
            Verdict::Conflict,
        ),
        ("unreadable", Found::Value("hello".to_owned()), Verdict::Conflict),
        ("empty", Found::Value(String::new()), Verdict::Conflict),
        ("wrong type", Found::WrongType, Verdict::Conflict),
        ("another uid", with(|f| f.uid = "old".parse().unwrap()), Verdict::Conflict),
        (
            "another uid, lower epoch",
            with(|f| (f.uid, f.epoch) = ("old".parse().unwrap(), Epoch(1))),
            Verdict::Conflict,
        ),
        ("higher epoch", with(|f| f.epoch = Epoch(6)), Verdict::Fenced),
        ("higher epoch, released", with(|f| (f.epoch, f.kind) = (Epoch(6), FenceKind::Released)), Verdict::Fenced),
        (
            "another uid, released, higher epoch",
            with(|f| {
                (f.uid, f.kind, f.epoch) = ("old".parse().unwrap(), FenceKind::Released, Epoch(6));
            }),
            Verdict::Fenced,
        ),
        ("own grant and incarnation, another number", with(|f| f.write = 12), Verdict::Ours),
        ("own grant, lower start counter", with(|f| f.incarnation = incarnation("dir", 2, 9)), Verdict::Claimable),
        ("own grant, higher start counter", with(|f| f.incarnation = incarnation("dir", 4, 9)), Verdict::Fenced),
        (
            "own grant, equal start counter, other random",
            with(|f| f.incarnation = incarnation("dir", 3, 9)),
            Verdict::Fenced,
        ),
        ("own grant, another directory", with(|f| f.incarnation = incarnation("other", 1, 7)), Verdict::Fenced),
        ("equal epoch, another grant", with(|f| f.grant = GrantId::parse("grant-2").unwrap()), Verdict::Fenced),
        ("lower epoch", with(|f| f.epoch = Epoch(4)), Verdict::Claimable),
        (
            "lower epoch, released",
            with(|f| (f.epoch, f.kind) = (Epoch(4), FenceKind::Released)),
            Verdict::Claimable,
        ),
        (
            "another uid, released, lower epoch",
            with(|f| {
                (f.uid, f.kind, f.epoch) = ("old".parse().unwrap(), FenceKind::Released, Epoch(4));
            }),
            Verdict::Claimable,
        ),
        ("absent", Found::Absent, Verdict::Absent),
    ];
    for (row, found, expected) in rows {
        assert_eq!(verdict(&found, Some(&exact), None), expected, "{row}");
        // The table admits a patch in its first row only.
        assert_eq!(
            verdict(&found, Some(&exact), None) == Verdict::Expected,
            row == "exactly what we expect",
            "{row}"
        );
    }
}

#[test]
fn taking_over_is_for_conflicts_and_for_the_value_that_was_shown() {
    let other = "other relay".to_owned();
    let found = Found::Value(other.clone());
    assert_eq!(verdict(&found, None, Some(&TakeOver::Any)), Verdict::Claimable);
    assert_eq!(verdict(&found, None, Some(&TakeOver::Value(other))), Verdict::Claimable);
    assert_eq!(verdict(&found, None, Some(&TakeOver::Value("something else".to_owned()))), Verdict::Conflict);
    let newer = Found::Value(Fence { epoch: Epoch(9), ..fence() }.to_string());
    assert_eq!(verdict(&newer, None, Some(&TakeOver::Any)), Verdict::Fenced, "nobody outbids a newer owner");
    let later = Fence { uid: "old".parse().unwrap(), epoch: Epoch(6), ..fence() }.to_string();
    for leave in [TakeOver::Any, TakeOver::Value(later.clone())] {
        let found = Found::Value(later.clone());
        assert_eq!(verdict(&found, None, Some(&leave)), Verdict::Fenced, "within a fleet epochs do not fall");
    }
    assert_eq!(verdict(&Found::Absent, None, Some(&TakeOver::Any)), Verdict::Absent);
}

#[test]
fn an_environment_id_that_cannot_stand_in_a_fence_counts_as_absent() {
    for id in ["", "a b", "a.b", &"x".repeat(65)] {
        assert_eq!(Lineage::new(Some(id), "0").environment_id, None, "{id}");
    }
}

proptest! {
    /// Any fence is read back as it was written, and nothing else is taken for it.
    #[test]
    fn a_fence_survives_the_store(epoch in 1u64.., write: u64, start: u64, random: u64, flags: u64, released: bool, noise in ".{0,3}") {
        let kind = if released { FenceKind::Released } else { FenceKind::Serving };
        let fence = Fence { epoch: Epoch(epoch), write, flags, kind, incarnation: incarnation("d-1", start, random), ..fence() };
        let text = fence.to_string();
        prop_assert_eq!(Fence::parse(&text), Some(fence.clone()));
        if !noise.is_empty() {
            prop_assert_eq!(Fence::parse(&format!("{text}{noise}")).filter(|other| *other == fence), None);
        }
    }

    /// Whatever stands there, reading it does not panic.
    #[test]
    fn any_text_is_read_or_refused(text in "(flotilla1 )?.{0,120}") {
        if let Some(fence) = Fence::parse(&text) {
            prop_assert_eq!(fence.to_string(), text);
        }
    }
}
