use std::time::Duration;

use flotilla_proto::v1::{Condition, ConditionStatus, Environment, EnvironmentStatus, Initialization};

use super::{Goal, Outcome, Progress};
use crate::failure::Failure;
use crate::watch::Event;

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
    let removed = Event::Removed { name: "a".to_owned(), uid: "a-1".to_owned() };
    let failed = failure(progress.receive(removed));
    assert_eq!(failed.status().code(), 3);
    assert!(failed.to_string().contains("removed meanwhile"));
}

#[test]
fn removal_is_met_by_unknown_names_and_by_successors() {
    let unknown = named(Goal::Removed, &["a"]).receive(Event::Snapshot(Vec::new()));
    assert!(matches!(unknown, Outcome::Reached));
    let mut progress = named(Goal::Removed, &["a"]);
    let first = progress.receive(Event::Snapshot(vec![environment("a", Initialization::Current)]));
    assert!(matches!(first, Outcome::Pending));
    let mut successor = environment("a", Initialization::Unknown);
    successor.uid = "a-2".to_owned();
    assert!(matches!(progress.receive(Event::Snapshot(vec![successor])), Outcome::Reached));
}

#[test]
fn a_rotation_ends_with_proof_or_rejection() {
    let rotation = |status, reason| {
        let environment = environment("a", Initialization::Current);
        let snapshot = Event::Snapshot(vec![with_condition(environment, "KeyRotation", status, reason)]);
        named(Goal::KeyRotated, &["a"]).receive(snapshot)
    };
    assert!(matches!(rotation(ConditionStatus::Unknown, "Pending"), Outcome::Pending));
    assert!(matches!(rotation(ConditionStatus::True, "Proved"), Outcome::Reached));
    let failed = failure(rotation(ConditionStatus::False, "Rejected"));
    assert!(failed.to_string().contains("message of KeyRotation"));
    let gone =
        named(Goal::KeyRotated, &["a"]).receive(Event::Snapshot(vec![environment("a", Initialization::Current)]));
    assert!(matches!(gone, Outcome::Reached));
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
