//! Adding, listing and removing stores.

use flotilla_proto::Reason;

use super::*;

fn new_store(name: &str, url: &str) -> v1::CreateStoreRequest {
    v1::CreateStoreRequest { name: name.to_owned(), url: url.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_store_is_added_listed_removed_and_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let request = v1::CreateStoreRequest {
        login: Some(v1::StoreLogin {
            username: "writer".to_owned(),
            password: "hunter2".to_owned(),
            ..Default::default()
        }),
        tls: Some(v1::StoreTls { ca_file: "/etc/ca.pem".to_owned(), ..Default::default() }),
        request_id: "r1".to_owned(),
        ..new_store("eu", "rediss://eu.test/2")
    };
    assert!(!format!("{request:?}").contains("hunter2"));
    let mut stores = control.stores();
    for _ in 0..2 {
        let store = stores.create_store(request.clone()).await.unwrap().into_inner().store.unwrap();
        assert_eq!((store.url.as_str(), store.username.as_str()), ("rediss://eu.test:6379/2", "writer"));
        assert_eq!(store.tls.unwrap().ca_file, "/etc/ca.pem");
        assert!(store.has_password);
    }
    drop(control.running.stop().await);
    let control = start(settings(&directory)).await;
    let mut stores = control.stores();
    let first = v1::ListStoresRequest { page_size: 1, ..Default::default() };
    let first = stores.list_stores(first).await.unwrap().into_inner();
    assert_eq!((first.stores.len(), first.stores[0].name.as_str()), (1, "default"));
    let second = v1::ListStoresRequest { page_token: first.next_page_token, ..Default::default() };
    let second = stores.list_stores(second).await.unwrap().into_inner();
    assert_eq!((second.stores[0].name.as_str(), second.next_page_token.as_str()), ("eu", ""));
    assert!(!format!("{second:?}").contains("hunter2"));

    let mut environment = new_environment("a");
    environment.spec.as_mut().unwrap().store = "eu".to_owned();
    control.environments().create_environment(environment).await.unwrap();
    let delete = v1::DeleteStoreRequest { name: "eu".to_owned(), ..Default::default() };
    assert_eq!(refusal(stores.delete_store(delete.clone()).await).reason, Reason::StoreInUse);
    let request = v1::DeleteEnvironmentRequest { name: "a".to_owned(), ..Default::default() };
    control.environments().delete_environment(request).await.unwrap();
    stores.delete_store(delete).await.unwrap();
    let get = v1::GetStoreRequest { name: "eu".to_owned() };
    assert_eq!(refusal(stores.get_store(get).await).reason, Reason::StoreNotFound);
}

#[tokio::test]
async fn wrong_stores_are_refused_by_field_and_without_their_passwords() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let tls = Some(v1::StoreTls { ca_file: "/ca".to_owned(), ..Default::default() });
    for (request, field) in [
        (new_store("A B", "redis://eu.test"), "name"),
        (new_store("eu", "http://:hunter2@eu.test"), "url"),
        (new_store("eu", "redis://:hunter2@"), "url"),
        (v1::CreateStoreRequest { tls, ..new_store("eu", "redis://:hunter2@eu.test") }, "url"),
    ] {
        let refusal = refusal(control.stores().create_store(request).await);
        assert_eq!((refusal.reason, refusal.violations[0].field.as_str()), (Reason::InvalidField, field));
        assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
    }
    let taken = control.stores().create_store(new_store("default", "redis://eu.test")).await;
    assert_eq!(refusal(taken).reason, Reason::StoreNameTaken);
}

#[tokio::test]
async fn an_update_of_a_store_is_there_after_a_restart_and_shows_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    control.stores().create_store(new_store("ha", "redis+sentinel://u:hunter1@s1,s2/m")).await.unwrap();
    let request = |paths: &[&str]| v1::UpdateStoreRequest {
        name: "ha".to_owned(),
        url: "redis+sentinel://s1,s2,s3/m".to_owned(),
        login: Some(v1::StoreLogin { password: "hunter2".to_owned(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() }),
        ..Default::default()
    };
    assert!(!format!("{:?}", request(&["login"])).contains("hunter2"));
    let dry = v1::UpdateStoreRequest { validate_only: true, ..request(&["url", "login.password"]) };
    let retried = v1::UpdateStoreRequest { request_id: "r1".to_owned(), ..request(&["url", "login.password"]) };
    for request in [dry, retried.clone(), retried] {
        let store = control.stores().update_store(request).await.unwrap().into_inner().store.unwrap();
        assert_eq!(store.url, "redis+sentinel://s1:26379,s2:26379,s3:26379/m");
        assert_eq!((store.username.as_str(), store.has_password), ("u", true), "they are not named");
        assert!(!format!("{store:?}").contains("hunter"), "{store:?}");
    }
    for (request, reason, field) in [
        (request(&["password"]), Reason::InvalidField, "update_mask"),
        (
            v1::UpdateStoreRequest { url: "redis+sentinel://s4/m".to_owned(), ..request(&["url", "login"]) },
            Reason::InvalidField,
            "url",
        ),
        (
            v1::UpdateStoreRequest { name: "default".to_owned(), ..request(&["login"]) },
            Reason::InvalidField,
            "name",
        ),
        (v1::UpdateStoreRequest { name: "eu".to_owned(), ..request(&["login"]) }, Reason::StoreNotFound, ""),
    ] {
        let refusal = refusal(control.stores().update_store(request).await);
        let found = refusal.violations.first().map_or("", |violation| violation.field.as_str());
        assert_eq!((refusal.reason, found), (reason, field), "{refusal}");
    }
    drop(control.running.stop().await);
    let control = start(settings(&directory)).await;
    let get = v1::GetStoreRequest { name: "ha".to_owned() };
    let store = control.stores().get_store(get).await.unwrap().into_inner().store.unwrap();
    assert_eq!(store.url, "redis+sentinel://s1:26379,s2:26379,s3:26379/m");
    assert!(store.has_password);
}

#[tokio::test]
async fn a_check_needs_a_store_and_a_worker() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    let check = |name: &str, worker: &str, prefix: &str| v1::CheckStoreRequest {
        name: name.to_owned(),
        worker: worker.to_owned(),
        prefix: prefix.to_owned(),
    };
    for (request, reason) in [
        (check("default", "", ""), Reason::NoWorker),
        (check("default", "w1", ""), Reason::WorkerNotFound),
        (check("elsewhere", "", ""), Reason::StoreNotFound),
        (check("default", "", "a b"), Reason::InvalidField),
    ] {
        assert_eq!(refusal(control.stores().check_store(request).await).reason, reason);
    }
}
