//! Workers' sessions: what is granted, what is said about it, and what stays over a restart.

use flotilla_proto::Reason;
use tonic::Code;
use v1::Initialization::Current;

use super::*;

/// A worker that serves one environment, which is current.
async fn serving(control: &Control, name: &str) -> (Worker, v1::Assignment) {
    let mut worker = control.connect(hello(name)).await.unwrap();
    worker.welcome().await;
    control.create("spree").await;
    let assignment = worker.assignment("spree").await;
    let environments = vec![current(&assignment)];
    worker.say(Up::Report(v1::Report { environments })).await;
    control.until("spree", "current", |one| initialization(one) == Current).await;
    (worker, assignment)
}

fn held(assignment: &v1::Assignment) -> v1::HeldGrant {
    v1::HeldGrant {
        environment: assignment.environment.clone(),
        uid: assignment.uid.clone(),
        generation: assignment.generation,
        grant: assignment.grant.clone(),
    }
}

#[tokio::test]
async fn an_environment_is_granted_and_becomes_current() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let (_worker, assignment) = serving(&control, "w1").await;
    assert_eq!(assignment.sdk_key, KEY);
    assert_eq!(assignment.grant.as_ref().unwrap().intent(), v1::Intent::Serve);
    let environment = control.get("spree").await.unwrap();
    let status = environment.status.unwrap();
    assert_eq!((status.worker.as_str(), status.epoch, status.flags), ("w1", 1, Some(3)));
    let listed = control.fleet().list_workers(v1::ListWorkersRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.workers.len(), listed.workers[0].environments), (1, 1));
    let summary = control.fleet().get_fleet_status(v1::GetFleetStatusRequest {}).await.unwrap().into_inner();
    assert_eq!((summary.current, summary.workers_connected, summary.term), (1, 1, 1));
    let missing = v1::GetWorkerRequest { name: "w9".to_owned() };
    assert_eq!(refusal(control.fleet().get_worker(missing).await).reason, Reason::WorkerNotFound);
}

#[tokio::test]
async fn watchers_hear_of_states_but_not_of_counters() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let (worker, assignment) = serving(&control, "w1").await;
    let request = v1::WatchEnvironmentsRequest::default();
    let mut watch = control.environments().watch_environments(request).await.unwrap().into_inner();
    for _ in ["changed", "synced"] {
        watch.message().await.unwrap();
    }
    let counted = v1::EnvironmentReport { flags: 4, ..current(&assignment) };
    worker.say(Up::Report(v1::Report { environments: vec![counted.clone()] })).await;
    control.until("spree", "counted", |one| one.status.as_ref().unwrap().flags == Some(4)).await;
    let cut_off = v1::EnvironmentReport { source_state: v1::SourceState::Interrupted.into(), ..counted };
    worker.say(Up::Report(v1::Report { environments: vec![cut_off] })).await;
    let message = tokio::time::timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    let Some(v1::watch_environments_response::Event::Changed(seen)) = message.event else { panic!("{message:?}") };
    assert_eq!(initialization(&seen), v1::Initialization::Stale, "the count alone was not told");
}

#[tokio::test]
async fn a_grant_outlives_a_restart_of_control() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let (mut worker, assignment) = serving(&control, "w1").await;
    let fleet = control.running.fleet_id().to_string();
    control.running.stop().await.unwrap();
    let last = loop {
        match worker.next().await {
            Some(Down::GoAway(go_away)) => break go_away,
            Some(_) => {}
            None => panic!("no GoAway before the end"),
        }
    };
    assert_eq!(last.reason, "SHUTTING_DOWN");
    let control = start(settings(&directory)).await;
    let again =
        v1::Hello { held: vec![held(&assignment)], highest_term: 1, fleet_id: fleet.clone(), ..hello("w1") };
    let mut worker = control.connect(again).await.unwrap();
    let welcome = worker.welcome().await;
    assert_eq!((welcome.fleet_id, welcome.term), (fleet, 2));
    let environments = vec![current(&assignment)];
    worker.say(Up::Report(v1::Report { environments })).await;
    let environment = control.until("spree", "current again", |one| initialization(one) == Current).await;
    assert_eq!(environment.status.unwrap().epoch, assignment.grant.unwrap().epoch);
}

#[tokio::test]
async fn questions_are_asked_of_the_worker_that_serves() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let ask = v1::GetItemRequest {
        environment: "spree".to_owned(),
        kind: v1::ItemKind::Flag.into(),
        key: "f".to_owned(),
    };
    let (mut data, asked) = (control.data(), ask.clone());
    assert_eq!(refusal(data.get_item(ask.clone()).await).reason, Reason::EnvironmentNotFound);
    let (mut worker, _) = serving(&control, "w1").await;
    let answering = async {
        loop {
            let Some(Down::Request(request)) = worker.next().await else { continue };
            assert_eq!(request.question, Some(v1::request::Question::GetItem(asked.clone())));
            let answer = v1::GetItemResponse { json: b"{}".to_vec(), item: None };
            let reply = v1::Reply { id: request.id, answer: Some(v1::reply::Answer::GetItem(answer)) };
            worker.say(Up::Reply(reply)).await;
            return worker;
        }
    };
    let (answer, worker) = tokio::join!(data.get_item(ask.clone()), answering);
    assert_eq!(answer.unwrap().into_inner().json, b"{}");
    // Nobody answers this one, and the caller does not wait for ever.
    let mut impatient = tonic::Request::new(ask);
    impatient.set_timeout(Duration::from_millis(300));
    let code = data.get_item(impatient).await.unwrap_err().code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    drop(worker);
    let wrong = v1::GetItemRequest { environment: "spree".to_owned(), ..Default::default() };
    assert_eq!(refusal(data.get_item(wrong).await).violations.len(), 2);
}

#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut first = control.connect(hello("w1")).await.unwrap();
    first.welcome().await;
    let mut elsewhere = hello("w1");
    elsewhere.incarnation.as_mut().unwrap().state_directory_id = "another".to_owned();
    let refused = match control.connect(elsewhere).await {
        Ok(mut worker) => worker.hear.message().await.map(|_| ()),
        Err(status) => Err(status),
    };
    assert_eq!(refusal(refused).reason, Reason::WorkerNameTaken);
    let nameless = control.connect(v1::Hello { worker: "W 1".to_owned(), ..hello("w1") }).await;
    assert_eq!(nameless.err().map(|status| status.code()), Some(Code::InvalidArgument));
    first.say.send(v1::SessionRequest { message: None }).await.unwrap();
    loop {
        match first.next().await {
            Some(Down::GoAway(go_away)) => {
                assert_eq!(go_away.reason, "PROTOCOL_ERROR");
                break;
            }
            Some(_) => {}
            None => panic!("no GoAway before the end"),
        }
    }
    assert_eq!(first.next().await, None);
}
