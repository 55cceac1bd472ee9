//! Adding, reading, changing and removing environments.

use flotilla_proto::Reason;
use tonic::Code;

use super::*;

#[tokio::test]
async fn an_environment_is_added_read_changed_and_removed() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let created = control.create("spree").await;
    assert_eq!((created.generation, created.sdk_key_masked.ends_with("99999")), (1, true));
    assert_eq!(control.get("spree").await.unwrap().uid, created.uid);
    let request = v1::UpdateEnvironmentRequest {
        name: "spree".to_owned(),
        spec: Some(v1::EnvironmentSpec { display_name: "Spree".to_owned(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["display_name".to_owned()] }),
        etag: created.etag.clone(),
        ..Default::default()
    };
    let updated = control.environments().update_environment(request.clone()).await.unwrap();
    let updated = updated.into_inner().environment.unwrap();
    assert_eq!(updated.spec.as_ref().unwrap().display_name, "Spree");
    assert_eq!(updated.spec.as_ref().unwrap().prefix, "ld:spree");
    assert_eq!(refusal(control.environments().update_environment(request).await).reason, Reason::EtagMismatch);
    let request = v1::PauseEnvironmentRequest { name: "spree".to_owned(), ..Default::default() };
    assert!(
        control.environments().pause_environment(request).await.unwrap().into_inner().environment.unwrap().paused
    );
    let request = v1::DeleteEnvironmentRequest { name: "spree".to_owned(), ..Default::default() };
    // It was never granted to a worker, so it is gone at once.
    let deleted = control.environments().delete_environment(request).await.unwrap().into_inner();
    assert_eq!(deleted.environment, None);
    assert_eq!(refusal(control.get("spree").await).reason, Reason::EnvironmentNotFound);
}

#[tokio::test]
async fn refusals_name_the_fields_and_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    control.create("a").await;
    let mut client = control.environments();
    let same_name = refusal(client.create_environment(new_environment("a")).await);
    assert_eq!(same_name.reason, Reason::NameTaken);
    let mut same_prefix = new_environment("b");
    same_prefix.spec.as_mut().unwrap().prefix = "ld:a".to_owned();
    assert_eq!(refusal(client.create_environment(same_prefix).await).reason, Reason::PrefixTaken);
    let mut no_store = new_environment("b");
    no_store.spec.as_mut().unwrap().store = "elsewhere".to_owned();
    assert_eq!(refusal(client.create_environment(no_store).await).reason, Reason::StoreNotFound);
    let mut all_wrong = new_environment("B B");
    all_wrong.spec.as_mut().unwrap().prefix = String::new();
    all_wrong.sdk_key = "sdk-****".to_owned();
    let status = client.create_environment(all_wrong).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let fields: Vec<_> =
        Refusal::from_status(&status).unwrap().violations.into_iter().map(|one| one.field).collect();
    assert_eq!(fields, ["name", "spec.prefix", "sdk_key"]);
    let mut file_with_key = new_environment("b");
    file_with_key.spec.as_mut().unwrap().source =
        Some(v1::Source { kind: Some(v1::source::Kind::File(v1::FileSource { path: "flags.json".to_owned() })) });
    let violations = refusal(client.create_environment(file_with_key.clone()).await).violations;
    assert_eq!(violations[0].field, "sdk_key");
    file_with_key.sdk_key.clear();
    client.create_environment(file_with_key).await.unwrap();
    for mask in [vec!["prefix"], vec!["nonsense"], vec![]] {
        let request = v1::UpdateEnvironmentRequest {
            name: "a".to_owned(),
            update_mask: Some(prost_types::FieldMask { paths: mask.into_iter().map(str::to_owned).collect() }),
            ..Default::default()
        };
        assert_eq!(refusal(client.update_environment(request).await).violations[0].field, "update_mask");
    }
}

#[tokio::test]
async fn a_retry_is_answered_and_a_dry_run_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let mut client = control.environments();
    let dry = v1::CreateEnvironmentRequest { validate_only: true, ..new_environment("a") };
    assert!(client.create_environment(dry).await.unwrap().into_inner().environment.is_some());
    assert_eq!(control.get("a").await.unwrap_err().code(), Code::NotFound);
    let request = v1::CreateEnvironmentRequest { request_id: "retry-1".to_owned(), ..new_environment("a") };
    let first = client.create_environment(request.clone()).await.unwrap().into_inner();
    let second = client.create_environment(request.clone()).await.unwrap().into_inner();
    assert_eq!(first.environment.unwrap().uid, second.environment.unwrap().uid);
    let mut other = request.clone();
    other.sdk_key = "sdk-other".to_owned();
    assert_eq!(refusal(client.create_environment(other).await).reason, Reason::RequestIdReused);
    // Also after a restart.
    control.running.stop().await.unwrap();
    let control = start(settings(&directory)).await;
    assert!(control.environments().create_environment(request).await.is_ok());
}

#[tokio::test]
async fn listing_goes_page_by_page_and_filters() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    for name in ["e", "b", "d", "a", "c"] {
        let mut request = new_environment(name);
        let team = if name < "c" { "x" } else { "y" };
        request.spec.as_mut().unwrap().labels.insert("team".to_owned(), team.to_owned());
        control.environments().create_environment(request).await.unwrap();
    }
    let (mut names, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = v1::ListEnvironmentsRequest { page_size: 2, page_token: token, filter: None };
        let page = control.environments().list_environments(request).await.unwrap().into_inner();
        assert_eq!(page.total_size, if pages == 0 { 5 } else { 0 }, "only on the first page");
        names.extend(page.environments.into_iter().map(|one| one.name));
        (token, pages) = (page.next_page_token, pages + 1);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!((names.join(""), pages), ("abcde".to_owned(), 3));
    let filter =
        v1::EnvironmentFilter { labels: [("team".to_owned(), "x".to_owned())].into(), ..Default::default() };
    let request = v1::ListEnvironmentsRequest { page_size: 1, filter: Some(filter), ..Default::default() };
    let page = control.environments().list_environments(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.environments.len(), page.total_size), (1, 2));
    let mixed_up = v1::ListEnvironmentsRequest { page_token: page.next_page_token, filter: None, page_size: 1 };
    assert_eq!(refusal(control.environments().list_environments(mixed_up).await).reason, Reason::InvalidPageToken);
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let created = control.create("a").await;
    let fleet = control.running.fleet_id().clone();
    // Dropped, not stopped: as abrupt as it gets within one process.
    drop(control);
    let control = loop {
        match App::start(settings(&directory)).await {
            Ok(running) => break running,
            Err(error) => assert!(error.to_string().contains("in use"), "{error:#}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((control.fleet_id(), control.term().0), (&fleet, 2));
    let uri = format!("http://{}", control.grpc_addr());
    let mut client = EnvironmentServiceClient::new(Endpoint::from_shared(uri).unwrap().connect().await.unwrap());
    let request = v1::GetEnvironmentRequest { name: "a".to_owned() };
    let found = client.get_environment(request).await.unwrap().into_inner().environment.unwrap();
    assert_eq!((found.uid, found.etag), (created.uid, created.etag));
}
