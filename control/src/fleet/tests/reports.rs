use flotilla_proto::session::TakeOver;
use flotilla_proto::status::ErrorKind;
use flotilla_proto::{Initialization, LastError};

use super::*;

fn one() -> World {
    let mut world = World::new();
    world.connect("w1");
    world.create("a");
    world.effects.clear();
    world
}

fn changes(world: &mut World) -> usize {
    let changed = |effect: &Effect| matches!(effect, Effect::EnvironmentChanged { .. });
    std::mem::take(&mut world.effects).into_iter().filter(changed).count()
}

#[test]
fn current_needs_everything() {
    let mut world = one();
    assert_eq!(world.initialization("a"), v1::Initialization::Unknown);
    world.report("w1", "a", |_| {});
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
    assert_eq!(world.condition("a", "Current").unwrap().0, v1::ConditionStatus::True);
    let spoil: [fn(&mut EnvironmentReport); 6] = [
        |report| report.grant_state = GrantState::Established,
        |report| report.grant_state = GrantState::Pending,
        |report| report.source_state = Some(SourceState::Interrupted),
        |report| report.source_state = None,
        |report| report.changed_environment_id = Some("ld-2".to_owned()),
        |report| report.payload_held = "it lacks 17 of 20 items held".to_owned(),
    ];
    for spoil in spoil {
        world.report("w1", "a", spoil);
        assert_eq!(world.initialization("a"), v1::Initialization::Stale);
        assert_eq!(world.condition("a", "Current").unwrap().0, v1::ConditionStatus::False);
    }
    world.report("w1", "a", |report| report.marker = Marker::Absent);
    assert_eq!(world.initialization("a"), v1::Initialization::Uninitialized);
    world.report("w1", "a", |report| report.marker = Marker::Unknown);
    assert_eq!(world.initialization("a"), v1::Initialization::Uninitialized, "as at the last look");
}

#[test]
fn what_is_held_back_or_in_doubt_is_shown_with_what_decides() {
    let mut world = one();
    world.report("w1", "a", |report| report.doubted_items = vec!["flag/x: version 3 is kept".to_owned()]);
    let v1::Condition { status, reason, message, .. } = world.shown_condition("a", "PayloadRegressed").unwrap();
    assert_eq!((status, reason.as_str()), (v1::ConditionStatus::True.into(), "OlderThanStored"));
    assert!(message.contains("flag/x: version 3 is kept") && message.contains("--accept-regression"), "{message}");
    assert_eq!(world.initialization("a"), v1::Initialization::Current, "the newest that is known is stored");
    world.report("w1", "a", |report| report.payload_held = "it lacks 17 of 20 items held".to_owned());
    let v1::Condition { status, reason, message, .. } = world.shown_condition("a", "PayloadHeld").unwrap();
    assert_eq!((status, reason.as_str()), (v1::ConditionStatus::True.into(), "LargeRemoval"));
    assert!(
        message.contains("it lacks 17 of 20 items held") && message.contains("--accept-regression"),
        "{message}"
    );
    assert_eq!(world.condition("a", "Current").unwrap().1, "PayloadHeld");
    world.report("w1", "a", |_| {});
    assert_eq!((world.condition("a", "PayloadHeld"), world.condition("a", "PayloadRegressed")), (None, None));
}

#[test]
fn a_move_goes_through_stale_and_never_through_unknown() {
    let mut world = one();
    world.report("w1", "a", |_| {});
    world.connect("w2");
    world.cut("w1");
    world.advance(GRACE * 2);
    assert_eq!((world.owner("a").as_str(), world.initialization("a")), ("w2", v1::Initialization::Stale));
    world.report("w2", "a", |report| {
        report.grant_state = GrantState::Pending;
        report.source_state = Some(SourceState::Connecting);
        report.marker = Marker::Unknown;
    });
    assert_eq!(world.initialization("a"), v1::Initialization::Stale, "the new holder has not looked yet");
    assert_eq!(world.condition("a", "Initialized").unwrap().0, v1::ConditionStatus::True);
    world.report("w2", "a", |report| report.marker = Marker::Unknown);
    assert_eq!(world.initialization("a"), v1::Initialization::Stale, "and what it did not see is not current");
    world.report("w2", "a", |_| {});
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
}

#[test]
fn watchers_hear_nothing_of_counters_and_times() {
    let mut world = one();
    world.report("w1", "a", |_| {});
    assert_eq!(changes(&mut world), 1);
    world.now = world.now.after(Duration::from_secs(9));
    world.report("w1", "a", |report| report.flags = 99);
    assert_eq!(changes(&mut world), 0);
    assert_eq!(world.view("a").status.unwrap().flags, Some(99));
    world.report("w1", "a", |report| report.store_available = Some(false));
    assert_eq!(changes(&mut world), 1);
}

#[test]
fn conditions_are_ordered_and_keep_their_time() {
    let mut world = one();
    world.report("w1", "a", |report| report.rejected_items = vec!["flag/x: too big".to_owned()]);
    let before = world.view("a").status.unwrap().conditions;
    assert!(before.is_sorted_by_key(|condition| condition.r#type.clone()));
    world.now = world.now.after(Duration::from_secs(9));
    world.report("w1", "a", |report| report.source_state = Some(SourceState::Interrupted));
    let after = world.view("a").status.unwrap().conditions;
    assert!(!after.iter().any(|condition| condition.r#type == "ItemsRejected"));
    for condition in &after {
        let old = before.iter().find(|old| old.r#type == condition.r#type).unwrap();
        let moved = old.status != condition.status;
        assert_eq!(old.last_transition_time != condition.last_transition_time, moved, "{}", condition.r#type);
    }
    assert_eq!(world.condition("a", "Connected").unwrap().1, "Interrupted");
}

#[test]
fn a_report_of_an_earlier_grant_or_another_uid_does_not_count() {
    let mut world = one();
    let early = world.report_of("w1", "a");
    world.act("a", Edit::Pause).unwrap();
    world.act("a", Edit::Resume).unwrap();
    world.report("w1", "a", |report| report.flags = 1);
    world.say("w1", WorkerMessage::Report(vec![EnvironmentReport { flags: 2, ..early.clone() }]));
    assert_eq!(world.view("a").status.unwrap().flags, Some(1));
    let other = EnvironmentReport { uid: "other".parse().unwrap(), flags: 3, ..world.report_of("w1", "a") };
    world.say("w1", WorkerMessage::Report(vec![other]));
    assert_eq!(world.view("a").status.unwrap().flags, Some(1));
}

#[test]
fn what_was_said_before_a_pause_is_no_status_after_it() {
    let mut world = one();
    world.report("w1", "a", |_| {});
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
    let before = world.report_of("w1", "a");
    world.act("a", Edit::Pause).unwrap();
    world.act("a", Edit::Resume).unwrap();
    assert_eq!(world.initialization("a"), v1::Initialization::Stale, "it may have released meanwhile");
    world.say("w1", WorkerMessage::Report(vec![before]));
    assert_eq!(world.initialization("a"), v1::Initialization::Stale, "said before it was told");
    world.report("w1", "a", |_| {});
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
}

#[test]
fn what_was_said_before_a_pause_is_no_status_after_a_restart_either() {
    let mut world = one();
    world.report("w1", "a", |_| {});
    let before = world.report_of("w1", "a");
    world.cut("w1");
    world.act("a", Edit::Pause).unwrap();
    world.act("a", Edit::Resume).unwrap();
    world.restart();
    world.connect("w1");
    world.say("w1", WorkerMessage::Report(vec![before]));
    assert_eq!(world.initialization("a"), v1::Initialization::Stale, "another may have released it");
}

#[test]
fn the_old_owners_word_stands_until_the_new_one_has_reported() {
    let mut world = one();
    world.report("w1", "a", |report| report.flags = 1);
    world.connect("w2");
    world.say("w1", WorkerMessage::Goodbye);
    let status = world.view("a").status.unwrap();
    assert_eq!((status.flags, status.worker.as_str()), (Some(1), "w2"));
    assert_eq!(world.initialization("a"), v1::Initialization::Stale);
    world.report("w2", "a", |report| report.flags = 2);
    assert_eq!(world.view("a").status.unwrap().flags, Some(2));
}

#[test]
fn a_refused_key_is_named() {
    let mut world = one();
    let time = world.now;
    world.report("w1", "a", |report| {
        report.source_state = Some(SourceState::Interrupted);
        report.source_error =
            Some(LastError { kind: ErrorKind::Auth, status: Some(401), message: "no".to_owned(), time });
        // What failed last is the store; that does not hide the key.
        report.last_error =
            Some(LastError { kind: ErrorKind::Store, status: None, message: "away".to_owned(), time });
    });
    let status = world.view("a").status.unwrap();
    assert_eq!(status.last_error.unwrap().message, "away");
    let connected = status.conditions.into_iter().find(|one| one.r#type == "Connected").unwrap();
    assert!(connected.reason == "KeyRefused" && connected.message.contains("401"), "{connected:?}");
}

#[test]
fn a_key_that_workers_cannot_read_is_told_as_they_tell_it() {
    let mut world = one();
    let time = world.now;
    let message = "the SDK key file:payments cannot be read: because".to_owned();
    world.report("w1", "a", |report| {
        report.source_state = Some(SourceState::Interrupted);
        report.source_error =
            Some(LastError { kind: ErrorKind::Auth, status: None, message: message.clone(), time });
    });
    let status = world.view("a").status.unwrap();
    let connected = status.conditions.into_iter().find(|one| one.r#type == "Connected").unwrap();
    assert_eq!((connected.reason.as_str(), connected.message), ("KeyUnreadable", message));
}

#[test]
fn an_interruption_says_what_the_source_said() {
    let mut world = one();
    let error =
        |kind, message: &str| LastError { kind, status: None, message: message.to_owned(), time: Timestamp(1) };
    world.report("w1", "a", |report| {
        report.source_state = Some(SourceState::Interrupted);
        report.source_error = Some(error(ErrorKind::Network, "refused"));
        report.last_error = Some(error(ErrorKind::Store, "away"));
    });
    let conditions = world.view("a").status.unwrap().conditions;
    let connected = conditions.into_iter().find(|one| one.r#type == "Connected").unwrap();
    assert!(connected.reason == "Interrupted" && connected.message.ends_with(": refused"), "{connected:?}");
}

#[test]
fn a_fenced_grant_is_replaced_at_a_limited_rate() {
    let mut world = one();
    let mut grants = Vec::new();
    let start = world.now;
    for _ in 0..400 {
        if world.report_of("w1", "a").grant.epoch.0 > grants.len() as u64 + 1 {
            grants.push(world.now.since(start).as_secs());
        }
        world.report("w1", "a", |report| report.grant_state = GrantState::Fenced);
        world.advance(Duration::from_secs(1));
    }
    assert!((8..=13).contains(&grants.len()), "{grants:?}");
    let last = grants.len() - 1;
    assert!(grants[last] - grants[last - 1] >= 59, "{grants:?}");
    world.report("w1", "a", |_| {});
    assert_eq!(world.initialization("a"), v1::Initialization::Current);
}

fn about_environments(world: &mut World) -> Vec<Note> {
    world.notes().into_iter().filter(|note| !matches!(note, Note::Worker { .. } | Note::Assigned { .. })).collect()
}

#[test]
fn moves_and_changes_of_initialization_are_noted() {
    let changed = |from, to| Note::InitializationChanged { environment: env("a"), from, to };
    let mut world = one();
    world.report("w1", "a", |_| {});
    world.report("w1", "a", |report| report.flags = 9);
    assert_eq!(about_environments(&mut world), [changed(Initialization::Unknown, Initialization::Current)]);
    world.connect("w2");
    world.say("w1", WorkerMessage::Goodbye);
    let (from, to) = (w("w1"), w("w2"));
    let moved = Note::Moved { environment: env("a"), from, to, epoch: Epoch(2), reason: "goodbye" };
    let expected = [moved, changed(Initialization::Current, Initialization::Stale)];
    assert_eq!(about_environments(&mut world), expected);
    world.report("w2", "a", |report| report.marker = Marker::Absent);
    let changed = changed(Initialization::Stale, Initialization::Uninitialized);
    assert_eq!(about_environments(&mut world), [changed]);
}

#[test]
fn the_grant_after_a_fence_is_above_it_at_once() {
    let fence = |fleet: &str, epoch: u64| {
        format!("flotilla1 {fleet} uid-1 -.0123456789abcdef {epoch} x-1 dir.1.0123456789abcdef 3 1.0 serving")
    };
    let cases = [
        (fence("fleet-1", 40), 41),
        (fence("fleet-2", 40), 2),
        (fence("fleet-1", u64::MAX), 2),
        (fence("fleet-1", 40).replace("flotilla1", "flotilla2"), 2),
        (fence("fleet-1", 40).replace(" 40 ", " 040 "), 2),
        (fence("fleet-1", 40).replace(" serving", ""), 2),
        (String::new(), 2),
    ];
    for (found, epoch) in cases {
        let mut world = one();
        world.report("w1", "a", |report| {
            report.grant_state = GrantState::Fenced;
            report.found_fence = Some(found.clone());
        });
        assert_eq!(world.epoch("a"), epoch, "{found}");
        assert_eq!(world.stored.epochs.values().copied().collect::<Vec<_>>(), [Epoch(epoch)]);
    }
    // Whoever is not fenced, but in conflict, does not outbid.
    let mut world = one();
    world.report("w1", "a", |report| {
        report.grant_state = GrantState::Conflict;
        report.found_fence = Some(fence("fleet-1", 40));
    });
    assert_eq!(world.stored.epochs.values().copied().collect::<Vec<_>>(), [Epoch(1)]);
}

#[test]
fn a_conflict_is_shown_and_taken_over_by_the_value_that_was_shown() {
    let mut world = one();
    world.report("w1", "a", |report| {
        report.grant_state = GrantState::Conflict;
        report.found_fence = Some("fence of another".to_owned());
    });
    assert_eq!(world.condition("a", "Conflict").unwrap().1, "ForeignFence");
    let conditions = world.view("a").status.unwrap().conditions;
    let conflict = conditions.into_iter().find(|one| one.r#type == "Conflict").unwrap();
    assert!(conflict.message.contains(", whose fence is \"fence of another\";"), "{conflict:?}");
    world.act("a", Edit::Resync { claim: Claim::TakeOver, regression: Regression::Doubt }).unwrap();
    let assignment = world.assignment("w1", "a").unwrap();
    assert_eq!(assignment.take_over, Some(TakeOver::Value("fence of another".to_owned())));
    assert_eq!((assignment.resync, assignment.grant.epoch), (1, Epoch(1)));

    world.report("w1", "a", |report| report.grant_state = GrantState::Established);
    assert_eq!(world.stored.environments[&env("a")].take_over, None, "the leave is spent");
    assert_eq!(world.assignment("w1", "a").unwrap().take_over, None);
    assert!(world.condition("a", "Conflict").is_none());
}

#[test]
fn leave_to_take_over_at_creation_is_spent_by_the_first_claim() {
    let mut world = World::new();
    world.connect("w1");
    let uid = "u".parse().unwrap();
    let action = Action::Create { uid, spec: spec("p"), sdk_key: Some(key("sdk-1")), claim: Claim::TakeOver };
    world.act("a", action).unwrap();
    assert_eq!(world.assignment("w1", "a").unwrap().take_over, Some(TakeOver::Any));
    world.report("w1", "a", |report| report.grant_state = GrantState::Pending);
    assert!(world.stored.environments[&env("a")].take_over.is_some());
    world.report("w1", "a", |_| {});
    assert!(world.stored.environments[&env("a")].take_over.is_none());
}

#[test]
fn the_fleet_is_summed_up() {
    let mut world = one();
    world.create("b");
    world.create("c");
    world.act("c", Edit::Pause).unwrap();
    world.report("w1", "a", |_| {});
    let early = Timestamp(5);
    world.report("w1", "b", |report| {
        report.marker = Marker::Absent;
        report.last_byte_time = Some(early);
    });
    let status = world.fleet.status();
    assert_eq!((status.environments, status.current, status.uninitialized, status.unknown), (3, 1, 1, 1));
    assert_eq!((status.paused, status.not_current), (1, 1));
    assert_eq!((status.workers, status.workers_connected), (1, 1));
    assert_eq!((status.oldest_environment.as_str(), status.oldest_byte_time), ("b", Some(early.to_proto())));
    let worker = world.fleet.worker(&w("w1")).unwrap();
    assert_eq!((worker.environments, worker.bytes), (3, 200));
    assert_eq!(worker.environment_names, ["a", "b", "c"]);
    let names: Vec<_> = world.fleet.glances_after(None).map(|one| one.name().to_string()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let after: Vec<_> = world.fleet.glances_after(Some(&env("a"))).map(|one| one.name().to_string()).collect();
    assert_eq!(after, ["b", "c"]);
    assert_eq!(world.fleet.counts().environments["current"], 1);
}

#[test]
fn what_belongs_to_somebody_else_is_removed_without_a_write() {
    for purge in [false, true] {
        let mut world = one();
        let removal = if purge { RemovalRequest::Purge } else { RemovalRequest::Release };
        world.act("a", Action::Delete(removal)).unwrap();
        world.report("w1", "a", |report| report.grant_state = GrantState::Conflict);
        assert!(world.fleet.environment(&env("a")).is_none());
    }
}
