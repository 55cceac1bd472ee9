//! Watching: a snapshot, a marker, then every change; or what came after a revision.

use flotilla_proto::Reason;
use v1::watch_environments_response::Event;

use super::*;

struct Watch(Streaming<v1::WatchEnvironmentsResponse>);

impl Watch {
    async fn start(control: &Control, filter: Option<v1::EnvironmentFilter>, from: &str) -> Self {
        let request = v1::WatchEnvironmentsRequest { filter, resume_from_revision: from.to_owned() };
        Self(control.environments().watch_environments(request).await.unwrap().into_inner())
    }

    async fn next(&mut self) -> Result<(String, String), Status> {
        let message = tokio::time::timeout(PATIENCE, self.0.message()).await.expect("nothing seen")?.unwrap();
        let text = match message.event.unwrap() {
            Event::Changed(environment) => format!("changed {}", environment.name),
            Event::Removed(removed) if removed.gone => format!("removed {}", removed.name),
            Event::Removed(unmatched) => format!("unmatched {}", unmatched.name),
            Event::Synced(_) => "synced".to_owned(),
        };
        Ok((text, message.revision))
    }

    /// The next one that is not the one before.
    async fn expect(&mut self, expected: &str) -> String {
        let mut before = String::new();
        loop {
            let (text, revision) = self.next().await.unwrap();
            if text == expected {
                return revision;
            }
            assert!(before.is_empty() || before == text, "{text} instead of {expected}");
            before = text;
        }
    }
}

async fn delete(control: &Control, name: &str) {
    let request = v1::DeleteEnvironmentRequest { name: name.to_owned(), ..Default::default() };
    control.environments().delete_environment(request).await.unwrap();
}

#[tokio::test]
async fn a_watch_begins_with_a_snapshot_and_goes_on_with_changes() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    control.create("a").await;
    let mut watch = Watch::start(&control, None, "").await;
    assert_eq!(watch.next().await.unwrap().0, "changed a");
    assert_eq!(watch.next().await.unwrap().0, "synced");
    control.create("b").await;
    let revision = watch.expect("changed b").await;
    delete(&control, "a").await;
    watch.expect("removed a").await;
    // Another one takes up where this one was.
    let mut resumed = Watch::start(&control, None, &revision).await;
    resumed.expect("removed a").await;
    resumed.expect("synced").await;
}

#[tokio::test]
async fn a_list_leads_on_to_a_watch() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    control.create("a").await;
    let list = control.environments().list_environments(v1::ListEnvironmentsRequest::default()).await.unwrap();
    control.create("b").await;
    let mut watch = Watch::start(&control, None, &list.into_inner().revision).await;
    watch.expect("changed b").await;
    watch.expect("synced").await;
}

#[tokio::test]
async fn one_that_stops_matching_is_told_as_that() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut request = new_environment("a");
    request.spec.as_mut().unwrap().labels.insert("team".to_owned(), "x".to_owned());
    control.environments().create_environment(request).await.unwrap();
    let labels = [("team".to_owned(), "x".to_owned())].into();
    let filter = v1::EnvironmentFilter { labels, ..Default::default() };
    let mut watch = Watch::start(&control, Some(filter), "").await;
    watch.expect("synced").await;
    control.create("other").await;
    let request = v1::UpdateEnvironmentRequest {
        name: "a".to_owned(),
        update_mask: Some(prost_types::FieldMask { paths: vec!["labels".to_owned()] }),
        ..Default::default()
    };
    control.environments().update_environment(request).await.unwrap();
    assert_eq!(watch.next().await.unwrap().0, "unmatched a");
}

#[tokio::test]
async fn a_revision_of_another_term_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut watch = Watch::start(&control, None, "").await;
    let revision = watch.expect("synced").await;
    control.running.stop().await.unwrap();
    let control = start(settings(&directory)).await;
    let mut watch = Watch::start(&control, None, &revision).await;
    assert_eq!(refusal(watch.next().await).reason, Reason::RevisionCompacted);
    let request = v1::WatchEnvironmentsRequest { resume_from_revision: "soon".to_owned(), filter: None };
    let refused = refusal(control.environments().watch_environments(request).await);
    assert_eq!(refused.violations[0].field, "resume_from_revision");
}

/// As the proto says of slow watchers: several changes are told as one, and nothing is kept for one that lags too far.
#[tokio::test]
async fn a_reader_that_is_slow_is_told_to_list_again() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    // Nothing more is on the way to a reader than it lets come.
    let uri = format!("http://{}", control.running.grpc_addr());
    let narrow = Endpoint::from_shared(uri).unwrap().initial_stream_window_size(65_535);
    let mut client = EnvironmentServiceClient::new(narrow.connect().await.unwrap());
    let watch = client.watch_environments(v1::WatchEnvironmentsRequest::default()).await.unwrap();
    let mut slow = Watch(watch.into_inner());
    let mut quick = Watch::start(&control, None, "").await;
    quick.expect("synced").await;
    for round in 0..3 {
        let entry = |number: u32| {
            let mut new = new_environment(&format!("e{number:03}"));
            let spec = new.spec.as_mut().unwrap();
            // Long, so that few of them fill the way.
            spec.display_name = round.to_string().repeat(256);
            v1::EnvironmentEntry { name: new.name, spec: new.spec, sdk_key: new.sdk_key, take_over: false }
        };
        let entries = (0..900).map(entry).collect();
        let request = v1::BatchApplyEnvironmentsRequest { entries, ..Default::default() };
        control.environments().batch_apply_environments(request).await.unwrap();
        while quick.next().await.unwrap().0 != "changed e899" {}
    }
    let mut told = 0;
    let lost = loop {
        match slow.next().await {
            Ok(_) => told += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(refusal(Err::<(), _>(lost)).reason, Reason::RevisionCompacted);
    assert!(told < 900, "{told} were kept for it");
}
