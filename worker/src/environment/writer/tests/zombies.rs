//! What a process that was taken for dead still sends, after others have gone on.

use super::*;

/// As [`me`], but another start of one state directory.
fn started(start_counter: u64) -> Identity {
    let random = 100 + start_counter;
    let incarnation = Incarnation { state_directory: "dir".parse().unwrap(), start_counter, random };
    Identity { incarnation, ..me(1, "g1", Intent::Serve) }
}

/// Writes the next change, but it stays on its way.
fn send_late(writer: &mut Writer, data: &Dataset) -> Op {
    match writer.decide(NOW, Some(data), ONLINE) {
        Decision::Run(op @ (Op::Write(_) | Op::Load { .. })) => op,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_write_whose_number_was_used_again_is_refused() {
    let mut model = Model::default();
    let mut data = data(&[("a", 1)]);
    let mut before = Writer::new(started(1), 1);
    settle(&mut before, &mut model, Some(&data), NOW);
    before.changed(data.patch(Kind::Flag, "a", 2, b"late", NOW));
    let late = send_late(&mut before, &data);
    // The same grant, started again: it counts from the same number, and comes as far.
    let mut after = Writer::new(started(2), 1);
    settle(&mut after, &mut model, Some(&data), NOW);
    while after.next_number() <= before.next_number() {
        let version = after.next_number() + 10;
        after.changed(data.patch(Kind::Flag, "a", version, b"new", NOW));
        settle(&mut after, &mut model, Some(&data), NOW);
        assert!(matches!(model.execute(late.clone()), Outcome::Refused(_)), "whatever number stands there");
    }
    assert_in_line(&after, &model, &data);
}

#[test]
fn a_patch_that_arrives_after_its_successor_of_another_owner_is_refused() {
    let mut model = Model::default();
    let mut data = data(&[("a", 1)]);
    let mut before = Writer::new(me(1, "g1", Intent::Serve), 1);
    settle(&mut before, &mut model, Some(&data), NOW);
    before.changed(data.patch(Kind::Flag, "a", 2, b"late", NOW));
    let late = send_late(&mut before, &data);
    before.outcome(NOW, Outcome::Failed(StoreError::Unknown("no answer".to_owned())));
    data.patch(Kind::Flag, "a", 3, b"successor", NOW);
    let mut next = Writer::new(me(2, "g2", Intent::Serve), 1);
    settle(&mut next, &mut model, Some(&data), NOW);
    assert!(matches!(model.execute(late), Outcome::Refused(_)));
    assert_in_line(&next, &model, &data);
    settle(&mut before, &mut model, Some(&data), NOW.after(Duration::from_secs(5)));
    assert_eq!(before.grant_state(), GrantState::Fenced);
    assert_in_line(&next, &model, &data);
}

/// The environment is deleted, with its data or without, and another one is made on its prefix, while the old owner has
/// staged a load and only the last script is missing.
#[test]
fn deleted_and_created_again_while_a_zombie_has_a_load_staged() {
    for ending in [Intent::Release, Intent::Purge] {
        let mut model = Model::default();
        let mut zombie = Writer::new(me(1, "g1", Intent::Serve), 1);
        let mut old = data(&[("a", 1)]);
        settle(&mut zombie, &mut model, Some(&old), NOW);
        for number in 0..=SCRIPT_FIELDS {
            zombie.changed(old.patch(Kind::Flag, &format!("old-{number}"), 1, b"{}", NOW));
        }
        let staged = send_late(&mut zombie, &old);
        assert!(matches!(staged, Op::Load { .. }));

        let mut remover = Writer::new(me(2, "g2", ending), 1);
        settle(&mut remover, &mut model, None, NOW);
        assert_eq!(remover.grant_state(), GrantState::Established);
        assert!(matches!(model.clone().execute(staged.clone()), Outcome::Refused(_)), "over the released fence");

        let mut new = Writer::new(Identity { uid: "new".parse().unwrap(), ..me(3, "g3", Intent::Serve) }, 1);
        let data = data(&[("a", 1), ("b", 1)]);
        settle(&mut new, &mut model, Some(&data), NOW);
        let refused = model.execute(staged);
        assert!(matches!(refused, Outcome::Refused(_)), "over the new one's");
        zombie.outcome(NOW, refused);
        settle(&mut zombie, &mut model, Some(&old), NOW.after(Duration::from_secs(5)));
        assert_eq!(zombie.grant_state(), GrantState::Conflict, "the prefix is another environment's");
        assert_in_line(&new, &model, &data);
    }
}
