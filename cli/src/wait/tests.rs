use std::time::Duration;

use flotilla_proto::v1::{Condition, ConditionStatus, Environment, EnvironmentStatus, Initialization};

use super::{Goal, Outcome, Progress};
use crate::arguments::WaitGoal;
use crate::failure::Failure;
use flotilla_proto::client::{Departure, Event};

fn environment(name: &str, initialization: Initialization) -> Environment {
    Environment {
        name: name.to_owned(),
        uid: format!("{name}-1"),
        status: Some(EnvironmentStatus { initialization: initialization.into(), ..EnvironmentStatus::default() }),
        ..Environment::default()
    }
}

fn with_condition(mut environment: Environment, kind: &str, status: ConditionStatus, reason: &str) -> Environment {
    environment.status.get_or_insert_default().conditions.push(Condition {
        r#type: kind.to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: format!("message of {kind}"),
        ..Condition::default()
    });
    environment
}

fn named(goal: Goal, names: &[&str]) -> Progress {
    Progress::new(names.iter().map(|name| (*name).to_owned()).collect(), goal)
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        Outcome::Pending | Outcome::Reached => panic!("{outcome:?}"),
    }
}

fn changed(environment: Environment) -> Event {
    Event::Changed(Box::new(environment))
}

#[test]
fn initialized_is_met_by_stale_and_current_is_not() {
    for (goal, reached) in [(Goal::Initialized, true), (Goal::Current, false)] {
        let snapshot = Event::Snapshot(vec![environment("a", Initialization::Stale)]);
        let outcome = named(goal, &["a"]).receive(snapshot);
        assert_eq!(matches!(outcome, Outcome::Reached), reached, "{outcome:?}");
    }
}

#[test]
fn all_have_to_be_there_at_the_same_time() {
    let mut progress = named(Goal::Current, &["a", "b"]);
    let snapshot = vec![environment("a", Initialization::Current), environment("b", Initialization::Unknown)];
    assert!(matches!(progress.receive(Event::Snapshot(snapshot)), Outcome::Pending));
    let mut step = |name, state| progress.receive(changed(environment(name, state)));
    assert!(matches!(step("a", Initialization::Stale), Outcome::Pending));
    assert!(matches!(step("b", Initialization::Current), Outcome::Pending));
    assert!(matches!(step("a", Initialization::Current), Outcome::Reached));
}

#[test]
fn unknown_and_paused_names_fail_at_once() {
    let unknown = failure(named(Goal::Current, &["a"]).receive(Event::Snapshot(Vec::new())));
    assert_eq!(unknown.status().code(), 3);
    let mut paused = environment("a", Initialization::Stale);
    paused.paused = true;
    for goal in [Goal::Current, Goal::Initialized] {
        let failed = failure(named(goal, &["a"]).receive(Event::Snapshot(vec![paused.clone()])));
        assert_eq!(failed.status().code(), 1);
        assert!(failed.to_string().contains("environment/a is paused"));
    }
    let all = Progress::new(Vec::new(), Goal::Current).receive(Event::Snapshot(vec![paused]));
    assert!(matches!(all, Outcome::Reached), "those were not meant: {all:?}");
}

#[test]
fn removed_meanwhile_is_not_found() {
    let mut progress = named(Goal::Current, &["a"]);
    progress.receive(Event::Snapshot(vec![environment("a", Initialization::Unknown)]));
    let removed = Event::Removed { name: "a".to_owned(), uid: "a-1".to_owned(), departure: Departure::Gone };
    let failed = failure(progress.receive(removed));
    assert_eq!(failed.status().code(), 3);
    assert!(failed.to_string().contains("removed meanwhile"));
}

#[test]
fn removal_is_met_by_unknown_names_and_by_successors() {
    let removed = || Goal::from(WaitGoal::Removed);
    let unknown = named(removed(), &["a"]).receive(Event::Snapshot(Vec::new()));
    assert!(matches!(unknown, Outcome::Reached));
    let mut progress = named(removed(), &["a"]);
    let first = progress.receive(Event::Snapshot(vec![environment("a", Initialization::Current)]));
    assert!(matches!(first, Outcome::Pending));
    let mut successor = environment("a", Initialization::Unknown);
    successor.uid = "a-2".to_owned();
    assert!(matches!(progress.receive(Event::Snapshot(vec![successor.clone()])), Outcome::Reached));
    // The one whose removal was asked for is known: its successor is not waited for, even if nothing else was seen.
    let known = Goal::Removed { uids: [("a".to_owned(), "a-1".to_owned())].into() };
    let outcome = named(known.clone(), &["a"]).receive(Event::Snapshot(vec![successor]));
    assert!(matches!(outcome, Outcome::Reached), "{outcome:?}");
    let outcome = named(known, &["a"]).receive(Event::Snapshot(vec![environment("a", Initialization::Current)]));
    assert!(matches!(outcome, Outcome::Pending), "{outcome:?}");
}

#[test]
fn a_wait_for_all_names_those_that_it_meant() {
    let mut paused = environment("p", Initialization::Stale);
    paused.paused = true;
    let all = vec![environment("a", Initialization::Current), paused];
    let mut progress = Progress::new(Vec::new(), Goal::Current);
    assert!(matches!(progress.receive(Event::Snapshot(all.clone())), Outcome::Reached));
    let waited = progress.finish();
    assert_eq!((waited.names, waited.environments.len()), (vec!["a".to_owned()], 2));
    let mut progress = Progress::new(Vec::new(), Goal::from(WaitGoal::Removed));
    progress.receive(Event::Snapshot(all));
    assert!(matches!(progress.receive(Event::Snapshot(Vec::new())), Outcome::Reached));
    assert_eq!(progress.finish().names, ["a", "p"]);
}

fn rotated(environment: Environment) -> Outcome {
    named(Goal::KeyRotated { begun_at: 3 }, &["a"]).receive(Event::Snapshot(vec![environment]))
}

fn rotating(status: ConditionStatus, reason: &str) -> Environment {
    with_condition(environment("a", Initialization::Current), "KeyRotation", status, reason)
}

#[test]
fn a_rotation_ends_with_proof_or_rejection() {
    assert!(matches!(rotated(rotating(ConditionStatus::Unknown, "Proving")), Outcome::Pending));
    assert!(matches!(rotated(rotating(ConditionStatus::True, "Replaced")), Outcome::Reached));
    let failed = failure(rotated(rotating(ConditionStatus::False, "KeyRejected")));
    assert!(failed.to_string().contains("message of KeyRotation"));
}

#[test]
fn without_a_word_only_a_grown_generation_shows_that_a_rotation_succeeded() {
    let silent = |generation| Environment { generation, ..environment("a", Initialization::Current) };
    let failed = failure(rotated(silent(3)));
    assert_eq!(failed.status().code(), 1);
    assert!(failed.to_string().contains("called off"), "{failed}");
    assert!(matches!(rotated(silent(4)), Outcome::Reached));
}

#[test]
fn a_rotation_of_a_paused_environment_is_not_waited_for() {
    let mut paused = rotating(ConditionStatus::Unknown, "Waiting");
    paused.paused = true;
    let Failure::Reported { message, hints, status } = failure(rotated(paused)) else {
        panic!("reported");
    };
    assert_eq!(status.code(), 1);
    assert!(message.contains("the new key is kept and tried when the environment is resumed"), "{message}");
    assert!(hints[0].contains("flotilla env resume a"), "{hints:?}");
}

#[test]
fn when_time_runs_out_each_one_says_what_it_waits_for() {
    let mut progress = named(Goal::Current, &["a", "b", "c"]);
    let mut b = environment("b", Initialization::Stale);
    b = with_condition(b, "Accepted", ConditionStatus::True, "Valid");
    b = with_condition(b, "Connected", ConditionStatus::False, "KeyRejected");
    b = with_condition(b, "Current", ConditionStatus::False, "NotConnected");
    progress.receive(Event::Snapshot(vec![
        environment("a", Initialization::Current),
        b,
        environment("c", Initialization::Unknown),
    ]));
    let failed = progress.time_ran_out("http://x", Duration::from_mins(1));
    assert_eq!(failed.status().code(), 124);
    insta::assert_snapshot!(failed.to_string(), @r"
    time ran out after 1m; still waiting for
           environment/b: stale: Connected is false (KeyRejected): message of Connected
           environment/c: unknown
    ");
}
