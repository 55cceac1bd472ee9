//! Who asked for what: every call that changes something has its record, and so has whoever may not call.

use flotilla_proto::Reason;
use flotilla_proto::access::Role;
use tonic::Code;
use v1::audit_service_client::AuditServiceClient;
use v1::watch_audit_records_response::Event;

use super::access::{KeyFiles, call, session, with_token};
use super::*;
use crate::access::{CALLS, Needs};

async fn list(control: &Control, filter: v1::AuditFilter, page_size: u32) -> Vec<v1::AuditRecord> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListAuditRecordsRequest { page_size, page_token, filter: Some(filter.clone()) };
        let mut client = AuditServiceClient::new(control.channel.clone());
        let page = client.list_audit_records(with_token(request, Some("admin"))).await.unwrap().into_inner();
        all.extend(page.records);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

/// Waits for so many; those of the door come a moment later than their answers.
async fn until(control: &Control, count: usize) -> Vec<v1::AuditRecord> {
    for _ in 0..PATIENCE.as_millis() / 20 {
        let records = list(control, v1::AuditFilter::default(), 0).await;
        if records.len() >= count {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not {count}: {:#?}", list(control, v1::AuditFilter::default(), 0).await);
}

fn short(path: &str) -> &str {
    path.strip_prefix("/flotilla.v1.").unwrap()
}

/// What is for operators and admins changes something, all but the records themselves.
fn changing() -> impl Iterator<Item = &'static str> {
    let changes = |(path, needs): &(&'static str, Needs)| {
        let is_for_few = matches!(needs, Needs::Role(Role::Operator | Role::Admin));
        (is_for_few && !path.contains("AuditService")).then_some(*path)
    };
    CALLS.iter().filter_map(changes)
}

#[tokio::test]
async fn every_call_that_changes_something_has_a_record_also_when_it_is_wrong() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    let mut expected = Vec::new();
    for path in changing() {
        let code = call(&control, path, Some("admin")).await.err().map(|status| status.code());
        // An empty batch changes nothing.
        if path.ends_with("/BatchApplyEnvironments") {
            assert_eq!(code, None);
        } else {
            assert_eq!(code, Some(Code::InvalidArgument), "{path}");
            expected.push(short(path));
        }
    }
    let records = list(&control, v1::AuditFilter::default(), 3).await;
    let found: Vec<_> = records.iter().rev().map(|record| record.call.as_str()).collect();
    assert_eq!(found, expected);
    for record in &records {
        assert_eq!((record.actor.as_str(), record.role.as_str()), ("the-admin", "admin"));
        assert_eq!((record.reason.as_str(), record.code), ("INVALID_FIELD", 3));
        assert!(record.address.starts_with("127.0.0.1:") && !record.message.is_empty(), "{record:?}");
        assert!(!record.subject.contains('/'), "{record:?}");
    }
}

#[tokio::test]
async fn who_may_not_call_is_recorded_and_dry_runs_are_not() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    let create = v1::CreateEnvironmentRequest { validate_only: true, ..new_environment("a") };
    control.environments().create_environment(with_token(create.clone(), Some("admin"))).await.unwrap();
    assert!(list(&control, v1::AuditFilter::default(), 0).await.is_empty());

    refusal(control.environments().create_environment(with_token(create, Some("viewer"))).await);
    refusal(call(&control, "/flotilla.v1.FleetService/ListWorkers", Some("unknown")).await);
    refusal(call(&control, "/flotilla.v1.FleetService/ListWorkers", None).await);
    refusal(session(&control, "w2", "w1").await);
    let verify = v1::VerifyDataRequest { environment: "a".to_owned(), repair: true };
    refusal(control.data().verify_data(with_token(verify, Some("viewer"))).await);
    let records = until(&control, 5).await;
    let found: Vec<_> = records
        .iter()
        .rev()
        .map(|record| {
            let v1::AuditRecord { actor, role, call, subject, reason, left_out: 0, .. } = record else {
                panic!("none was left out: {record:?}")
            };
            format!("{actor} {role} {call} {subject} {reason}")
        })
        .collect();
    assert_eq!(
        found,
        [
            "the-viewer viewer EnvironmentService/CreateEnvironment  ROLE_TOO_SMALL",
            "  FleetService/ListWorkers  CREDENTIAL_UNKNOWN",
            "  FleetService/ListWorkers  CREDENTIAL_MISSING",
            "w1 worker WorkerService/Session worker/w2 WORKER_NAME_FORBIDDEN",
            "the-viewer viewer DataService/VerifyData environment/a ROLE_TOO_SMALL",
        ]
    );
}

#[tokio::test]
async fn a_flood_at_the_door_is_told_by_its_number() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    for _ in 0..200 {
        refusal(call(&control, "/flotilla.v1.FleetService/ListWorkers", None).await);
    }
    // After a second there is room for another one, which tells of those before it.
    let total = async || {
        refusal(call(&control, "/flotilla.v1.FleetService/ListWorkers", None).await);
        let records = list(&control, v1::AuditFilter::default(), 1000).await;
        let left_out: u64 = records.iter().map(|record| record.left_out).sum();
        (records.len() as u64, left_out)
    };
    for asked in 201.. {
        let (recorded, left_out) = total().await;
        assert!(recorded + left_out <= asked);
        if left_out > 0 && recorded + left_out >= 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(asked < 2000, "{recorded} and {left_out} of {asked}");
    }
}

async fn next(watch: &mut Streaming<v1::WatchAuditRecordsResponse>) -> (Option<v1::AuditRecord>, String) {
    let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("nothing seen").unwrap().unwrap();
    let record = match message.event.unwrap() {
        Event::Recorded(record) => Some(record),
        Event::Synced(_) => None,
    };
    (record, message.revision)
}

#[tokio::test]
async fn who_follows_the_records_misses_none_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let watch = async |control: &Control, from: &str, subject: &str| {
        let filter = v1::AuditFilter { subject: subject.to_owned(), ..Default::default() };
        let request = v1::WatchAuditRecordsRequest { resume_from_revision: from.to_owned(), filter: Some(filter) };
        let mut client = AuditServiceClient::new(control.channel.clone());
        client.watch_audit_records(request).await.unwrap().into_inner()
    };
    let mut first = watch(&control, "", "environment/*").await;
    assert_eq!(next(&mut first).await, (None, String::new()), "there is none yet");
    control.create("a").await;
    let (record, revision) = next(&mut first).await;
    let record = record.unwrap();
    assert_eq!(
        (record.subject.as_str(), record.actor.as_str(), record.role.as_str()),
        ("environment/a", "anyone", "all")
    );
    assert_eq!(record.revision, revision);
    let with_id = v1::CreateEnvironmentRequest { request_id: "r-1".to_owned(), ..new_environment("b") };
    control.environments().create_environment(with_id).await.unwrap();
    control.running.stop().await.unwrap();

    let control = start(settings(&directory)).await;
    control.create("c").await;
    let mut resumed = watch(&control, &revision, "environment/*").await;
    for (subject, id) in [("environment/b", "r-1"), ("environment/c", "")] {
        let record = next(&mut resumed).await.0.unwrap();
        assert_eq!((record.subject.as_str(), record.request_id.as_str()), (subject, id));
    }
    let (synced, newest) = next(&mut resumed).await;
    assert_eq!(synced, None);
    // What does not match moves a watch on all the same.
    let mut other = watch(&control, &revision, "store/*").await;
    assert_eq!(next(&mut other).await, (None, newest));
    for lost in ["1.4711", "9.1"] {
        let mut watch = watch(&control, lost, "").await;
        let status = tokio::time::timeout(PATIENCE, watch.message()).await.expect("nothing seen");
        assert_eq!(refusal(status).reason, Reason::RevisionCompacted, "{lost}");
    }
}

#[tokio::test]
async fn lines_of_the_audit_log_that_could_not_be_written_are_written_later() {
    let directory = tempfile::tempdir().unwrap();
    let logs = directory.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let path = logs.join("audit.jsonl");
    let audit_log = Some(crate::AuditLog::File(path.clone()));
    let control = start(Settings { audit_log: audit_log.clone(), ..settings(&directory) }).await;
    control.create("a").await;
    let lines = async |count: usize| {
        for _ in 0..PATIENCE.as_millis() / 20 {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            if text.lines().count() >= count {
                return text
                    .lines()
                    .map(|line| serde_json::from_str(line).unwrap())
                    .collect::<Vec<serde_json::Value>>();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no {count} lines");
    };
    let first = lines(1).await;
    assert_eq!((&first[0]["subject"], &first[0]["code"]), (&"environment/a".into(), &"OK".into()));
    // The place is gone for a while.
    std::fs::remove_dir_all(&logs).unwrap();
    control.create("b").await;
    for _ in 0..PATIENCE.as_millis() / 20 {
        if !control.http("/metrics").await.1.contains("flotilla_audit_log_failures_total 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!control.http("/metrics").await.1.contains("flotilla_audit_log_failures_total 0"));
    control.create("c").await;
    std::fs::create_dir(&logs).unwrap();
    let later = lines(2).await;
    let subjects: Vec<_> = later.iter().map(|line| line["subject"].as_str().unwrap()).collect();
    assert_eq!(subjects, ["environment/b", "environment/c"]);
    control.running.stop().await.unwrap();
    std::fs::remove_dir_all(&logs).unwrap();
    let error = App::start(Settings { audit_log, ..settings(&directory) }).await.unwrap_err().to_string();
    assert!(error.contains("--audit-log") && error.contains(path.to_str().unwrap()), "{error}");
}
