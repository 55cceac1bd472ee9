//! Commands against a control that answers as the test says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "commands/fake.rs"]
mod fake;
#[path = "commands/manifests.rs"]
mod manifests;
#[path = "commands/stores.rs"]
mod stores;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Parser as _;
use fake::{Fake, changed, environment, removed, synced, unmatched};
use flotilla::arguments::{Cli, Command};
use flotilla::failure::Failure;
use flotilla::session::Session;
use flotilla_proto::v1::{Condition, ConditionStatus, Environment, Initialization};
use flotilla_proto::{Reason, Refusal};
use tonic::Status;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

/// Runs `flotilla env LINE`; returns its exit status and what it wrote.
async fn env(url: &str, line: &str) -> (u8, String, String) {
    run(url, &format!("env {line}")).await
}

/// Runs `flotilla LINE`; returns its exit status and what it wrote.
async fn run(url: &str, line: &str) -> (u8, String, String) {
    let words = ["flotilla", "--control", url, "--request-timeout", "2s"];
    let cli = Cli::try_parse_from(words.into_iter().chain(line.split(' '))).unwrap();
    let (out, err) = (Shared::default(), Shared::default());
    let mut session = Session::with_output(&cli.global, Box::new(out.clone()), Box::new(err.clone())).unwrap();
    let result = match cli.command {
        Command::Env(command) => flotilla::environment::run(&mut session, command).await,
        Command::Store(command) => flotilla::store::run(&mut session, command).await,
        Command::Plan(options) => {
            flotilla::manifest::plan(&mut session, &options).await.map_err(Failure::where_failed_means_no)
        }
        Command::Apply(options) => flotilla::manifest::apply(&mut session, &options).await,
        Command::Export(options) => flotilla::manifest::export(&mut session, &options).await,
        other => panic!("not a command of these tests: {other:?}"),
    };
    let (status, failure) = match result {
        Ok(status) => (status.code(), String::new()),
        Err(failure @ (Failure::OutputClosed | Failure::Reported { .. })) => {
            (failure.status().code(), failure.to_string())
        }
    };
    (status, out.text(), err.text() + &failure)
}

fn unavailable() -> Status {
    Refusal::new(Reason::ShuttingDown, "control is stopping").into()
}

#[tokio::test]
async fn a_wait_outlives_a_lost_stream_and_resumes_where_it_was() {
    let unknown = environment("a", Initialization::Unknown);
    let current = environment("a", Initialization::Current);
    let fake = Fake::with_watches(vec![
        (vec![changed(unknown.clone(), "r1"), synced("r1")], Some(unavailable())),
        (vec![changed(unknown, "r2"), synced("r2")], Some(unavailable())),
        (vec![synced("r2"), changed(current, "r3")], None),
    ]);
    let url = fake.serve().await;
    let (status, out, err) = env(&url, "wait a --for current").await;
    assert_eq!((status, out.as_str()), (0, "environment/a current\n"), "{err}");
    assert_eq!(*fake.resumed_from.lock().unwrap(), ["", "r1", "r2"]);
}

#[tokio::test]
async fn a_compacted_revision_makes_it_list_again() {
    let unknown = environment("a", Initialization::Unknown);
    let current = environment("a", Initialization::Current);
    let compacted = Refusal::new(Reason::RevisionCompacted, "from another term");
    let fake = Fake::with_watches(vec![
        (vec![changed(unknown, "r1"), synced("r1")], Some(unavailable())),
        (Vec::new(), Some(compacted.into())),
        (vec![changed(current, "t2"), synced("t2")], None),
    ]);
    let url = fake.serve().await;
    let (status, _, err) = env(&url, "wait a --for initialized").await;
    assert_eq!(status, 0, "{err}");
    assert_eq!(*fake.resumed_from.lock().unwrap(), ["", "r1", ""]);
}

#[tokio::test]
async fn a_wait_ends_with_124_and_says_what_is_missing() {
    let unknown = environment("a", Initialization::Unknown);
    let fake = Fake::with_watches(vec![(vec![changed(unknown, "r1"), synced("r1")], None)]);
    let url = fake.serve().await;
    let (status, out, err) = env(&url, "wait a --for current --timeout 300ms").await;
    assert_eq!((status, out.as_str()), (124, ""));
    assert!(err.contains("environment/a: unknown"), "{err}");
}

#[tokio::test]
async fn unknown_names_fail_at_once_but_not_when_they_shall_be_gone() {
    for (goal, expected) in [("current", 3), ("removed", 0)] {
        let fake = Fake::with_watches(vec![(vec![synced("r1")], None)]);
        let url = fake.serve().await;
        let (status, _, err) = env(&url, &format!("wait a --for {goal}")).await;
        assert_eq!(status, expected, "{err}");
    }
}

#[tokio::test]
async fn add_says_created_and_then_what_it_waited_for() {
    let scripts = || {
        let current = environment("a", Initialization::Current);
        vec![(vec![changed(current, "r1"), synced("r1")], None)]
    };
    let fake = Fake::with_watches(scripts());
    let url = fake.serve().await;
    let line = "add a --prefix a --sdk-key sdk-x1 --label team=a --wait";
    let (status, out, err) = env(&url, line).await;
    assert_eq!(status, 0, "{err}");
    assert_eq!(out, "environment/a created\nenvironment/a current\n");
    assert!(err.starts_with("warning: --sdk-key") && !err.contains("sdk-x1"), "{err}");
    let request = fake.create.lock().unwrap().take().unwrap();
    assert_eq!(request.sdk_key, "sdk-x1");
    assert_eq!(request.spec.unwrap().store, "default");

    let fake = Fake::with_watches(scripts());
    let (_, out, _) = env(&fake.serve().await, &format!("{line} -o json")).await;
    let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
    assert_eq!(document["initialization"], "current");
    let (_, out, _) = env(&url, "add b --prefix b --source file:x.json --dry-run --wait").await;
    assert_eq!(out, "environment/a created (dry run)\n");
}

#[tokio::test]
async fn remove_waits_until_it_is_gone_and_asks_nobody_without_a_terminal() {
    let a = environment("a", Initialization::Current);
    let messages = vec![changed(a, "r1"), synced("r1"), removed("a", "r2")];
    let fake = Fake::with_watches(vec![(messages, None)]);
    let url = fake.serve().await;
    let (status, out, err) = env(&url, "remove a --yes").await;
    assert_eq!((status, out.as_str()), (0, "environment/a removed\n"), "{err}");
    let (status, out, _) = env(&url, "remove a --yes --no-wait").await;
    assert_eq!((status, out.as_str()), (0, "environment/a removal started\n"));
}

#[tokio::test]
async fn labels_are_merged_with_those_that_are_there_also_when_somebody_interferes() {
    let fake = Fake::with_watches(Vec::new());
    *fake.refuse_updates.lock().unwrap() = 2;
    let url = fake.serve().await;
    let (status, out, err) = env(&url, "update a --label zone=eu").await;
    assert_eq!((status, out.as_str()), (0, "environment/a updated\n"), "{err}");
    let request = fake.update.lock().unwrap().take().unwrap();
    assert_eq!(request.etag, "e1");
    assert_eq!(request.update_mask.unwrap().paths, ["labels"]);
    assert_eq!(request.spec.unwrap().labels.len(), 2);
}

#[tokio::test]
async fn lists_have_all_pages_in_every_format() {
    let url = Fake::with_watches(Vec::new()).serve().await;
    let (_, names, _) = env(&url, "list -o name").await;
    assert_eq!(names, "environment/a\nenvironment/b\n");
    let (_, json, _) = env(&url, "list -o json").await;
    let document: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["environments"].as_array().unwrap().len(), 2);
    let (_, table, _) = env(&url, "status").await;
    assert_eq!(table.lines().count(), 3);
    let (status, _, err) = env(&url, "get zzz").await;
    assert_eq!(status, 3, "{err}");
}

#[tokio::test]
async fn a_watched_list_is_one_document_a_line() {
    let a = environment("a", Initialization::Unknown);
    let end = Some(Status::permission_denied("enough"));
    let fake = Fake::with_watches(vec![(
        vec![changed(a.clone(), "r1"), synced("r1"), changed(a, "r2"), removed("a", "r3")],
        end,
    )]);
    let (status, out, _) = env(&fake.serve().await, "list -w -o json").await;
    assert_eq!(status, 6);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[2]["removed"], true);
}

#[tokio::test]
async fn a_rotation_is_followed_to_its_outcome() {
    let proving = rotation(ConditionStatus::Unknown, "Proving");
    for (end, reason, expected) in
        [(ConditionStatus::True, "Replaced", 0), (ConditionStatus::False, "KeyRejected", 1)]
    {
        let messages = vec![changed(proving.clone(), "r1"), synced("r1"), changed(rotation(end, reason), "r2")];
        let fake = Fake::with_watches(vec![(messages, None)]);
        *fake.environment.lock().unwrap() = proving.clone();
        let (status, out, err) = env(&fake.serve().await, "rotate-key a --sdk-key sdk-x1").await;
        assert_eq!(status, expected, "{err}");
        assert_eq!(out.contains("key rotated"), expected == 0);
        assert_eq!(err.contains("because"), expected == 1);
    }
}

#[tokio::test]
async fn a_key_that_is_in_force_already_is_told_from_one_that_was_replaced() {
    let before = Environment { generation: 3, ..rotation(ConditionStatus::True, "Replaced") };
    let after = Environment { generation: 4, ..before.clone() };
    for options in ["", " --force", " --no-wait", " --dry-run"] {
        let suffix = if options == " --dry-run" { " (dry run)" } else { "" };
        let fake = Fake::with_watches(Vec::new());
        *fake.environment.lock().unwrap() = before.clone();
        let line = format!("rotate-key a --sdk-key sdk-x1{options}");
        let url = fake.serve().await;
        let (_, out, err) = env(&url, &line).await;
        assert_eq!(out, format!("environment/a key is in force already{suffix}\n"), "{err}");
        *fake.rotated.lock().unwrap() = Some(after.clone());
        let (_, out, err) = env(&url, &line).await;
        assert_eq!(out, format!("environment/a key rotated{suffix}\n"), "{err}");
    }
}

#[tokio::test]
async fn a_watched_list_tells_only_of_those_that_it_showed_and_why_they_left() {
    let a = environment("a", Initialization::Current);
    let end = Some(Status::permission_denied("enough"));
    let fake = Fake::with_watches(vec![(
        vec![
            changed(a.clone(), "r1"),
            synced("r1"),
            removed("x", "r2"),
            unmatched("a", "r3"),
            unmatched("x", "r4"),
        ],
        end,
    )]);
    let url = fake.serve().await;
    let (_, out, _) = env(&url, "list -w -l team=a -o json").await;
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[1], serde_json::json!({"name": "a", "uid": "a-1", "removed": false, "matches": false}));
    let messages = vec![changed(a, "r1"), synced("r1"), unmatched("a", "r2")];
    fake.watches.lock().unwrap().push_back((messages, Some(Status::permission_denied("enough"))));
    let (_, out, _) = env(&url, "list -w -l team=a").await;
    assert!(out.contains("no longer matches") && !out.contains("removed"), "{out}");
}

#[tokio::test]
async fn waiting_for_all_of_nothing_says_so() {
    let fake = Fake::with_watches(vec![(vec![synced("r1")], None)]);
    let (status, out, err) = env(&fake.serve().await, "wait --all --for current").await;
    assert_eq!((status, out.as_str(), err.as_str()), (0, "", "no environments\n"));
}

/// An environment whose key is being rotated.
fn rotation(status: ConditionStatus, reason: &str) -> Environment {
    let mut environment = environment("a", Initialization::Current);
    environment.status.get_or_insert_default().conditions.push(Condition {
        r#type: "KeyRotation".to_owned(),
        status: status.into(),
        reason: reason.to_owned(),
        message: "because".to_owned(),
        ..Condition::default()
    });
    environment
}
