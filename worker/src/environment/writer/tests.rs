//! The writer against a model of the store, with the answers lost, late or refused.

// Whatever is lost, late or refused, in any order.
mod faults;
// What a process that was taken for dead still sends.
mod zombies;
use flotilla_proto::{Epoch, GrantId, GrantState};

use super::*;
use crate::store::model::{Model, items};
use crate::store::{Outcome, StoreError};

fn me(epoch: u64, grant: &str, intent: Intent) -> Identity {
    Identity {
        fleet: "fleet".parse().unwrap(),
        uid: "uid".parse().unwrap(),
        incarnation: Incarnation {
            state_directory: format!("dir-{grant}").parse().unwrap(),
            start_counter: 1,
            random: 7,
        },
        grant: Grant { epoch: Epoch(epoch), id: GrantId::parse(grant).unwrap(), intent },
        lineage: Lineage::new(None, "0"),
        versions: Versions::Comparable,
        take_over: None,
    }
}

const ONLINE: ControlState = ControlState { connected: true, lease: Duration::from_secs(15), confirmed_at: NOW };
const OFFLINE: ControlState =
    ControlState { connected: false, lease: Duration::from_secs(15), confirmed_at: Timestamp(NOW.0 - 60_000) };

fn data(items: &[(&str, u64)]) -> Dataset {
    let mut dataset = Dataset::default();
    for (key, version) in items {
        dataset.patch(Kind::Flag, key, *version, format!("{{\"{key}\":{version}}}").as_bytes(), NOW);
    }
    dataset
}

/// Lets the writer work until it waits. Control confirms at once. Returns the operations that were carried out.
fn settle(writer: &mut Writer, model: &mut Model, data: Option<&Dataset>, now: Timestamp) -> Vec<Op> {
    let mut done = Vec::new();
    for _ in 0..50 {
        match writer.decide(now, data, ONLINE) {
            Decision::Run(op) => {
                done.push(op.clone());
                writer.outcome(now, model.execute(op));
            }
            Decision::Confirm => writer.confirmed(now, true),
            Decision::Wait(_) => return done,
        }
    }
    panic!("the writer does not come to rest: {writer:?}");
}

fn assert_in_line(writer: &Writer, model: &Model, data: &Dataset) {
    assert_eq!(writer.grant_state(), GrantState::Synchronized, "{writer:?}");
    assert_eq!(model.items, items(&data.snapshot()));
    assert!(model.marker);
}

/// Some time in 2026.
const NOW: Timestamp = Timestamp(1_790_000_000_000);

#[test]
fn a_first_load_claims_compares_and_writes() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1), ("b", 1)]));
    let ops = settle(&mut writer, &mut model, Some(&data), NOW);
    assert!(
        matches!(&ops[..], [Op::Look, Op::Write(claim), Op::Compare { .. }, Op::Write(_)] if claim.set.is_empty() && !claim.marker),
        "{ops:?}"
    );
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_claim_alone_is_not_current() {
    let (mut writer, mut model) = (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default());
    settle(&mut writer, &mut model, None, NOW);
    assert_eq!(writer.grant_state(), GrantState::Established);
    assert!(!model.marker);
}

#[test]
fn an_absent_fence_waits_for_control() {
    let (mut writer, mut model) = (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default());
    let Decision::Run(Op::Look) = writer.decide(NOW, None, ONLINE) else { panic!() };
    writer.outcome(NOW, model.execute(Op::Look));
    assert!(matches!(writer.decide(NOW, None, ONLINE), Decision::Confirm));
    assert!(matches!(writer.decide(NOW, None, ONLINE), Decision::Wait(None)));
    writer.confirmed(NOW, false);
    assert!(matches!(writer.decide(NOW, None, ONLINE), Decision::Wait(Some(_))));
    assert_eq!(model.fence, None);
}

#[test]
fn without_control_an_absent_fence_is_claimed_after_a_lease_and_never_from_an_old_cache() {
    let (mut writer, mut model) = (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default());
    let Decision::Run(look) = writer.decide(NOW, None, OFFLINE) else { panic!() };
    writer.outcome(NOW, model.execute(look));
    let lease_later = NOW.after(OFFLINE.lease);
    assert!(matches!(writer.decide(NOW, None, OFFLINE), Decision::Wait(Some(at)) if at == lease_later));
    let old = ControlState { confirmed_at: Timestamp::default(), ..OFFLINE };
    assert!(matches!(writer.decide(lease_later, None, old), Decision::Wait(None)));
    assert!(matches!(writer.decide(lease_later, None, OFFLINE), Decision::Run(Op::Write(_))));
}

#[test]
fn a_store_that_lost_its_data_is_refilled_at_once_without_control() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    model = Model::default();
    writer.check();
    for _ in 0..4 {
        let Decision::Run(op) = writer.decide(NOW, Some(&data), OFFLINE) else { panic!("{writer:?}") };
        writer.outcome(NOW, model.execute(op));
    }
    assert_in_line(&writer, &model, &data);
}

#[test]
fn an_unchanged_store_gets_a_fence_and_nothing_else() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    let mut next = Writer::new(me(2, "g2", Intent::Serve), 1);
    let ops = settle(&mut next, &mut model, Some(&data), NOW);
    assert!(
        matches!(&ops[..], [Op::Look, Op::Write(_), Op::Compare { .. }, Op::Write(last)] if last.set.is_empty() && last.remove.is_empty())
    );
    assert_in_line(&next, &model, &data);
}

#[test]
fn a_patch_writes_one_field() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1), ("b", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.changed(data.patch(Kind::Flag, "a", 2, b"two", NOW));
    let ops = settle(&mut writer, &mut model, Some(&data), NOW);
    assert!(matches!(&ops[..], [Op::Write(write)] if write.set.len() == 1 && write.remove.is_empty()));
    writer.changed(data.delete(Kind::Flag, "b", 2));
    let ops = settle(&mut writer, &mut model, Some(&data), NOW);
    assert!(matches!(&ops[..], [Op::Write(write)] if write.set.is_empty() && write.remove.len() == 1));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_large_difference_is_staged() {
    let keys: Vec<String> = (0..=SCRIPT_FIELDS).map(|number| format!("flag-{number}")).collect();
    let items: Vec<_> = keys.iter().map(|key| (key.as_str(), 1)).collect();
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&items));
    let ops = settle(&mut writer, &mut model, Some(&data), NOW);
    assert!(matches!(ops.last(), Some(Op::Load { .. })));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn an_older_owner_is_fenced_and_stops() {
    let (mut old, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut old, &mut model, Some(&data), NOW);
    let newer = data.clone();
    settle(&mut Writer::new(me(2, "g2", Intent::Serve), 1), &mut model, Some(&newer), NOW);
    old.changed(data.patch(Kind::Flag, "a", 0, b"late", NOW));
    old.changed(data.patch(Kind::Flag, "a", 9, b"late", NOW));
    settle(&mut old, &mut model, Some(&data), NOW);
    assert_eq!(old.grant_state(), GrantState::Fenced);
    assert_eq!(model.items, items(&newer.snapshot()));
    old.check();
    assert!(settle(&mut old, &mut model, Some(&data), NOW).is_empty(), "it does not even look again");
}

#[test]
fn a_conflict_stays_parked_until_the_user_takes_over() {
    let (mut writer, data) = (Writer::new(me(1, "g1", Intent::Serve), 1), data(&[("a", 1)]));
    let mut model = Model { fence: Some("somebody else's".to_owned()), ..Model::default() };
    settle(&mut writer, &mut model, Some(&data), NOW);
    assert_eq!((writer.grant_state(), writer.found_fence()), (GrantState::Conflict, Some("somebody else's")));
    writer.check();
    assert!(settle(&mut writer, &mut model, Some(&data), NOW).is_empty());
    writer.amend_take_over(Some(TakeOver::Value("somebody else's".to_owned())));
    settle(&mut writer, &mut model, Some(&data), NOW);
    assert_in_line(&writer, &model, &data);
    // The leave is spent: the next foreign value is a conflict again.
    model.fence = Some("somebody else's".to_owned());
    writer.check();
    settle(&mut writer, &mut model, Some(&data), NOW);
    assert_eq!(writer.grant_state(), GrantState::Conflict);
}

#[test]
fn a_release_keeps_the_data_and_a_purge_does_not() {
    for (intent, kept) in [(Intent::Release, true), (Intent::Purge, false)] {
        let (mut writer, mut model, data) =
            (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
        settle(&mut writer, &mut model, Some(&data), NOW);
        writer.regrant(me(2, "g1", intent));
        settle(&mut writer, &mut model, None, NOW);
        assert_eq!(writer.grant_state(), GrantState::Established);
        assert_eq!((model.marker, !model.items.is_empty()), (kept, kept));
        assert_eq!(Fence::parse(model.fence.as_deref().unwrap()).unwrap().kind, FenceKind::Released);
        // Another environment may begin there, above the released epoch.
        let mut other = me(3, "g9", Intent::Serve);
        other.uid = "another".parse().unwrap();
        let mut next = Writer::new(other, 1);
        settle(&mut next, &mut model, Some(&data), NOW);
        assert_in_line(&next, &model, &data);
    }
}

#[test]
fn a_late_twin_of_an_unknown_write_is_dead_after_the_advance() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.changed(data.patch(Kind::Flag, "a", 2, b"two", NOW));
    let Decision::Run(late) = writer.decide(NOW, Some(&data), ONLINE) else { panic!() };
    writer.outcome(NOW, Outcome::Failed(StoreError::Unknown("no answer".to_owned())));
    writer.changed(data.patch(Kind::Flag, "a", 3, b"three", NOW));
    let later = NOW.after(Duration::from_secs(5));
    let ops = settle(&mut writer, &mut model, Some(&data), later);
    assert!(
        !ops.iter().any(|op| matches!(op, Op::Compare { .. })),
        "the content is known, nothing is compared: {ops:?}"
    );
    assert_in_line(&writer, &model, &data);
    assert!(matches!(model.execute(late), Outcome::Refused(_)));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn an_old_value_put_back_leads_to_a_comparison() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    let old = model.clone();
    writer.changed(data.patch(Kind::Flag, "a", 2, b"two", NOW));
    settle(&mut writer, &mut model, Some(&data), NOW);
    model = old;
    writer.check();
    let ops = settle(&mut writer, &mut model, Some(&data), NOW.after(Duration::from_secs(5)));
    assert!(ops.iter().any(|op| matches!(op, Op::Compare { .. })));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_foreign_change_is_repaired_minimally() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1), ("b", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    model.items.insert(ItemId { kind: Kind::Flag, key: "a".into() }, (*b"foreign").into());
    writer.distrust(NOW);
    let ops = settle(&mut writer, &mut model, Some(&data), NOW.after(Duration::from_secs(2)));
    assert!(
        matches!(&ops[..], [Op::Look, Op::Compare { .. }, Op::Write(write)] if write.set.len() == 1),
        "{ops:?}"
    );
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_foreign_write_during_our_own_is_found() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1), ("b", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.changed(data.patch(Kind::Flag, "a", 2, b"two", NOW));
    let Decision::Run(op) = writer.decide(NOW, Some(&data), ONLINE) else { panic!() };
    model.items.insert(ItemId { kind: Kind::Flag, key: "b".into() }, (*b"foreign").into());
    writer.distrust(NOW);
    writer.outcome(NOW, model.execute(op));
    settle(&mut writer, &mut model, Some(&data), NOW.after(Duration::from_secs(2)));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_resync_during_a_write_is_not_forgotten() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.changed(data.patch(Kind::Flag, "a", 2, b"two", NOW));
    let Decision::Run(op) = writer.decide(NOW, Some(&data), ONLINE) else { panic!() };
    writer.resync();
    writer.outcome(NOW, model.execute(op));
    let done = settle(&mut writer, &mut model, Some(&data), NOW);
    assert!(done.iter().any(|op| matches!(op, Op::Compare { .. })), "{done:?}");
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_payload_that_is_not_written_yet_is_not_in_line() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.replaced(data.patch(Kind::Flag, "a", 2, b"two", NOW).into_iter().collect());
    assert_eq!(writer.grant_state(), GrantState::Established);
    settle(&mut writer, &mut model, Some(&data), NOW);
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_store_that_refuses_writes_is_unavailable_however_well_it_answers_looks() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.changed(data.patch(Kind::Flag, "a", 2, b"two", NOW));
    let (mut now, mut tries) = (NOW, 0);
    let end = NOW.after(Duration::from_secs(10));
    while now < end {
        match writer.decide(now, Some(&data), ONLINE) {
            Decision::Run(Op::Look) => drop(writer.outcome(now, model.execute(Op::Look))),
            Decision::Run(_) => {
                tries += 1;
                writer.outcome(now, Outcome::Failed(StoreError::NotDone("READONLY".to_owned())));
            }
            Decision::Wait(at) => now = at.unwrap(),
            Decision::Confirm => panic!(),
        }
        assert_eq!(writer.available(), Some(tries == 0));
    }
    assert!((8..20).contains(&tries), "{tries} tries in 10 s");
    settle(&mut writer, &mut model, Some(&data), now.after(Duration::from_secs(1)));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn one_large_item_is_one_script() {
    let (mut writer, mut model, mut data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1), ("b", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    writer.changed(data.patch(Kind::Flag, "a", 2, &vec![b'x'; SCRIPT_BYTES + 1], NOW));
    let ops = settle(&mut writer, &mut model, Some(&data), NOW);
    assert!(matches!(&ops[..], [Op::Write(write)] if write.set.len() == 1));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn what_a_flush_took_away_counts_as_a_repair() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    let mut repairs = 0;
    for _ in 0..2 {
        while let Decision::Run(op) = writer.decide(NOW, Some(&data), OFFLINE) {
            repairs += u32::from(writer.outcome(NOW, model.execute(op)).repair.is_some());
        }
        if repairs == 0 && model.fence.is_none() {
            // The first claim, of a store that never had anything, waits for control.
            assert!(matches!(writer.decide(NOW, Some(&data), ONLINE), Decision::Confirm));
            writer.confirmed(NOW, true);
            settle(&mut writer, &mut model, Some(&data), NOW);
            assert_eq!(repairs, 0);
            model = Model::default();
            writer.check();
        }
    }
    assert_eq!(repairs, 1);
    assert_in_line(&writer, &model, &data);
}

#[test]
fn however_often_the_store_is_checked_an_absent_fence_is_claimed_after_one_lease() {
    let long = ControlState { lease: Duration::from_mins(5), ..OFFLINE };
    let (mut writer, mut model) = (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default());
    let mut now = NOW;
    let end = NOW.after(long.lease + Duration::from_mins(1));
    while model.fence.is_none() {
        assert!(now < end, "{writer:?}");
        while let Decision::Run(op) = writer.decide(now, None, long) {
            writer.outcome(now, model.execute(op));
        }
        now = now.after(Duration::from_secs(20));
        writer.check();
        writer.distrust(now);
    }
    assert!(now >= NOW.after(long.lease));
}

#[test]
fn a_clock_that_was_set_back_is_no_confirmation() {
    let ahead = ControlState { confirmed_at: NOW.after(Duration::from_hours(1)), ..OFFLINE };
    let (mut writer, mut model) = (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default());
    let Decision::Run(look) = writer.decide(NOW, None, ahead) else { panic!() };
    writer.outcome(NOW, model.execute(look));
    assert!(matches!(writer.decide(NOW.after(ahead.lease * 2), None, ahead), Decision::Wait(None)));
}

#[test]
fn a_comparison_that_fails_is_tried_ever_less_often() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    let (mut now, mut comparisons) = (NOW, 0);
    let end = NOW.after(Duration::from_secs(10));
    while now < end {
        match writer.decide(now, Some(&data), ONLINE) {
            Decision::Run(Op::Compare { .. }) => {
                comparisons += 1;
                writer.outcome(now, Outcome::Failed(StoreError::NotDone("NOPERM".to_owned())));
            }
            Decision::Run(op) => drop(writer.outcome(now, model.execute(op))),
            Decision::Confirm => writer.confirmed(now, true),
            Decision::Wait(at) => now = at.unwrap_or(end),
        }
        assert!(comparisons == 0 || writer.available() == Some(false));
    }
    assert!((8..20).contains(&comparisons), "{comparisons} in 10 s");
    settle(&mut writer, &mut model, Some(&data), now.after(Duration::from_secs(2)));
    assert_in_line(&writer, &model, &data);
}

#[test]
fn a_fence_that_is_in_the_way_is_no_fault_of_the_store() {
    let mut model = Model::default();
    let mut writer = Writer::new(me(1, "g1", Intent::Serve), 1);
    settle(&mut writer, &mut model, None, NOW);
    writer.check();
    settle(&mut Writer::new(me(2, "g2", Intent::Serve), 1), &mut model, None, NOW);
    let Decision::Run(Op::Look) = writer.decide(NOW, None, ONLINE) else { panic!() };
    writer.outcome(NOW, Outcome::Failed(StoreError::Unknown("no answer".to_owned())));
    let later = NOW.after(Duration::from_secs(2));
    settle(&mut writer, &mut model, None, later);
    assert_eq!((writer.grant_state(), writer.available(), writer.error()), (GrantState::Fenced, Some(true), None));
}

#[test]
fn a_busy_foreign_writer_is_answered_at_a_distance() {
    let (mut writer, mut model, data) =
        (Writer::new(me(1, "g1", Intent::Serve), 1), Model::default(), data(&[("a", 1)]));
    settle(&mut writer, &mut model, Some(&data), NOW);
    let (mut looks, mut comparisons) = (0, 0);
    for step in 0..1000 {
        let now = NOW.after(Duration::from_millis(10 * step));
        model
            .items
            .insert(ItemId { kind: Kind::Flag, key: format!("foreign-{step}").as_str().into() }, (*b"x").into());
        writer.distrust(now);
        for op in settle(&mut writer, &mut model, Some(&data), now) {
            looks += u32::from(matches!(op, Op::Look));
            comparisons += u32::from(matches!(op, Op::Compare { .. }));
        }
    }
    assert!((5..=25).contains(&comparisons) && looks <= 130, "{comparisons} comparisons and {looks} looks in 10 s");
}
