//! Workers that are cordoned, drained and forgotten, watched; and the history of events.

use flotilla_proto::Reason;
use v1::watch_events_response::Event as Happening;
use v1::watch_workers_response::Event as Change;

use super::*;

async fn next_worker(watch: &mut Streaming<v1::WatchWorkersResponse>) -> (Change, String) {
    let message = tokio::time::timeout(PATIENCE, watch.message()).await.expect("nothing seen").unwrap().unwrap();
    (message.event.unwrap(), message.revision)
}

/// Waits until the watch shows the worker as it should be. Returns where that was.
async fn until_worker(
    watch: &mut Streaming<v1::WatchWorkersResponse>,
    holds: impl Fn(&v1::Worker) -> bool,
) -> String {
    loop {
        if let (Change::Changed(worker), revision) = next_worker(watch).await
            && holds(&worker)
        {
            return revision;
        }
    }
}

async fn watch_workers(control: &Control, from: &str) -> Streaming<v1::WatchWorkersResponse> {
    let request = v1::WatchWorkersRequest { resume_from_revision: from.to_owned() };
    control.fleet().watch_workers(request).await.unwrap().into_inner()
}

async fn events(control: &Control, filter: v1::EventFilter, page_size: u32) -> Vec<v1::Event> {
    let (mut all, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListEventsRequest { page_size, page_token, filter: Some(filter.clone()) };
        let page = control.fleet().list_events(request).await.unwrap().into_inner();
        assert!(page.events.len() <= page_size as usize);
        all.extend(page.events);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

fn named(name: &str) -> String {
    name.to_owned()
}

#[tokio::test]
async fn a_worker_is_cordoned_drained_and_watched_on_the_way() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut watch = watch_workers(&control, "").await;
    assert!(matches!(next_worker(&mut watch).await.0, Change::Synced(_)));
    let mut w1 = control.connect(hello("w1")).await.unwrap();
    w1.welcome().await;
    until_worker(&mut watch, |worker| worker.name == "w1" && worker.state() == v1::WorkerState::Connected).await;

    let request = v1::CordonWorkerRequest { name: named("w1"), validate_only: false };
    let cordoned = control.fleet().cordon_worker(request).await.unwrap().into_inner().worker.unwrap();
    assert_eq!(cordoned.scheduling(), v1::WorkerScheduling::Cordoned);
    let revision = until_worker(&mut watch, |worker| worker.scheduling() == v1::WorkerScheduling::Cordoned).await;
    let request = v1::DrainWorkerRequest { name: named("w1"), validate_only: false };
    control.fleet().drain_worker(request).await.unwrap();
    let request = v1::UncordonWorkerRequest { name: named("w1"), validate_only: false };
    control.fleet().uncordon_worker(request).await.unwrap();
    // Another one takes up where this one was.
    let mut resumed = watch_workers(&control, &revision).await;
    until_worker(&mut resumed, |worker| worker.scheduling() == v1::WorkerScheduling::Active).await;

    let forget = |validate_only| v1::DeleteWorkerRequest { name: named("w1"), validate_only };
    let refused = refusal(control.fleet().delete_worker(forget(false)).await);
    assert_eq!(refused.reason, Reason::WorkerConnected);
    w1.say(Up::Goodbye(v1::Goodbye {})).await;
    until_worker(&mut watch, |worker| worker.state() == v1::WorkerState::Gone).await;
    control.fleet().delete_worker(forget(true)).await.unwrap();
    control.fleet().delete_worker(forget(false)).await.unwrap();
    loop {
        if let (Change::Removed(removed), _) = next_worker(&mut watch).await {
            assert_eq!(removed.name, "w1");
            break;
        }
    }
    let refused = refusal(control.fleet().delete_worker(forget(false)).await);
    assert_eq!(refused.reason, Reason::WorkerNotFound);
}

#[tokio::test]
async fn events_are_listed_newest_first_filtered_and_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut w1 = control.connect(hello("w1")).await.unwrap();
    w1.welcome().await;
    for name in ["a", "b"] {
        control.create(name).await;
        let assignment = w1.assignment(name).await;
        let report = v1::Report { environments: vec![current(&assignment)] };
        w1.say(Up::Report(report)).await;
        control.until(name, "current", |one| initialization(one) == v1::Initialization::Current).await;
    }
    let of_a = v1::EventFilter { environment: named("a"), ..Default::default() };
    let kinds = |events: &[v1::Event]| events.iter().map(v1::Event::r#type).collect::<Vec<_>>();
    let expected =
        [v1::EventType::InitializationChanged, v1::EventType::Assigned, v1::EventType::EnvironmentChanged];
    let found = events(&control, of_a.clone(), 1).await;
    assert_eq!(kinds(&found), expected);
    assert_eq!((found[1].worker.as_str(), found[1].epoch, found[1].reason.as_str()), ("w1", 1, "new"));
    let assigned = v1::EventFilter { types: vec![v1::EventType::Assigned.into()], ..Default::default() };
    assert_eq!(events(&control, assigned, 10).await.len(), 2);
    let wrong = v1::EventFilter { types: vec![99], ..Default::default() };
    let request = v1::ListEventsRequest { filter: Some(wrong), ..Default::default() };
    assert_eq!(refusal(control.fleet().list_events(request).await).violations[0].field, "filter.types");

    control.running.stop().await.unwrap();
    let control = start(settings(&directory)).await;
    assert_eq!(events(&control, of_a, 10).await, found, "they are kept");
}

#[tokio::test]
async fn who_follows_events_misses_none_across_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    control.create("a").await;
    let request = v1::WatchEventsRequest::default();
    let mut watch = control.fleet().watch_events(request).await.unwrap().into_inner();
    let next = async |watch: &mut Streaming<v1::WatchEventsResponse>| {
        tokio::time::timeout(PATIENCE, watch.message()).await.expect("nothing seen").unwrap().unwrap()
    };
    assert!(matches!(next(&mut watch).await.event, Some(Happening::Synced(_))), "from now on");
    control.create("b").await;
    let seen = next(&mut watch).await;
    let Some(Happening::Happened(event)) = seen.event else { panic!("{seen:?}") };
    assert_eq!((event.environment.as_str(), event.reason.as_str()), ("b", "create"));
    control.create("c").await;
    control.running.stop().await.unwrap();

    let control = start(settings(&directory)).await;
    control.create("d").await;
    let resume = |revision: &str| {
        let resume_from_revision = revision.to_owned();
        let mut fleet = control.fleet();
        async move {
            let request = v1::WatchEventsRequest { resume_from_revision, filter: None };
            fleet.watch_events(request).await.unwrap().into_inner()
        }
    };
    let mut resumed = resume(&seen.revision).await;
    for name in ["c", "d"] {
        let message = next(&mut resumed).await;
        let Some(Happening::Happened(event)) = message.event else { panic!("{message:?}") };
        assert_eq!(event.environment, name);
    }
    let mut lost = resume("1.4711").await;
    let status = tokio::time::timeout(PATIENCE, lost.message()).await.expect("nothing seen");
    assert_eq!(refusal(status).reason, Reason::RevisionCompacted);
}
