//! Commands about stores.

use std::sync::{Arc, Mutex};

use flotilla_proto::v1::store_service_server::{StoreService, StoreServiceServer};
use flotilla_proto::v1::*;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::run;

type Answer<T> = Result<Response<T>, Status>;

/// A control that changes stores, whatever is asked.
#[derive(Default, Clone)]
struct Fake {
    /// The last update.
    update: Arc<Mutex<Option<UpdateStoreRequest>>>,
}

impl Fake {
    /// Serves until the test's runtime ends; returns the URL.
    #[expect(clippy::disallowed_methods, reason = "the server lives as long as the test")]
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = StoreServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener)),
        );
        url
    }
}

fn not_asked<T>() -> Answer<T> {
    Err(Status::internal("no test asks this"))
}

#[tonic::async_trait]
impl StoreService for Fake {
    async fn update_store(&self, request: Request<UpdateStoreRequest>) -> Answer<UpdateStoreResponse> {
        let name = request.get_ref().name.clone();
        *self.update.lock().unwrap() = Some(request.into_inner());
        let store = Some(Store { name, has_password: true, ..Store::default() });
        Ok(Response::new(UpdateStoreResponse { store }))
    }

    async fn create_store(&self, _: Request<CreateStoreRequest>) -> Answer<CreateStoreResponse> {
        not_asked()
    }

    async fn get_store(&self, _: Request<GetStoreRequest>) -> Answer<GetStoreResponse> {
        not_asked()
    }

    async fn list_stores(&self, _: Request<ListStoresRequest>) -> Answer<ListStoresResponse> {
        not_asked()
    }

    async fn check_store(&self, _: Request<CheckStoreRequest>) -> Answer<CheckStoreResponse> {
        not_asked()
    }

    async fn delete_store(&self, _: Request<DeleteStoreRequest>) -> Answer<DeleteStoreResponse> {
        not_asked()
    }
}

#[tokio::test]
async fn an_update_names_what_is_given_and_nothing_else() {
    let fake = Fake::default();
    let url = fake.serve().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let file = file.to_str().unwrap();
    let password = format!("--password-file {file}");
    for (options, paths) in [
        ("--url redis://h", &["url"][..]),
        ("--username u", &["login.username"]),
        ("--username= --tls-ca=", &["login.username", "tls.ca_file"]),
        (&password, &["login.password"]),
        ("--password-from file:redis", &["login.password_from"]),
        ("--sentinel-password-from env:S", &["sentinel_login.password_from"]),
        ("--sentinel-username u", &["sentinel_login.username"]),
        (&format!("--sentinel-password-file {file}"), &["sentinel_login.password"]),
        ("--tls-cert /c --tls-key /k", &["tls.cert_file", "tls.key_file"]),
    ] {
        let (status, out, err) = run(&url, &format!("store update eu {options}")).await;
        assert_eq!((status, out.as_str(), err.as_str()), (0, "store/eu updated\n", ""), "{options}");
        let request = fake.update.lock().unwrap().take().unwrap();
        assert_eq!((request.name.as_str(), request.validate_only), ("eu", false));
        assert_eq!(request.update_mask.unwrap().paths, paths, "{options}");
    }
    let (_, out, _) = run(&url, &format!("store update eu {password} --dry-run")).await;
    assert_eq!(out, "store/eu updated (dry run)\n");
    let request = fake.update.lock().unwrap().take().unwrap();
    assert_eq!((request.login.unwrap().password.as_str(), request.validate_only), ("hunter2", true));
    let (_, out, _) = run(&url, &format!("store update eu {password} -o json")).await;
    let document: serde_json::Value = serde_json::from_str(&out).expect("one document");
    assert_eq!((&document["name"], &document["hasPassword"]), (&"eu".into(), &true.into()));
}

#[tokio::test]
async fn an_update_of_nothing_is_refused_here() {
    let fake = Fake::default();
    let (status, out, err) = run(&fake.serve().await, "store update eu --dry-run").await;
    assert_eq!((status, out.as_str()), (2, ""));
    assert!(err.contains("nothing to change") && err.contains("--url, --username"), "{err}");
    assert!(fake.update.lock().unwrap().is_none());
}

#[tokio::test]
async fn a_password_in_the_url_is_warned_of_and_not_repeated() {
    let (status, _, err) = run(&Fake::default().serve().await, "store update eu --url redis://:hunter2@h").await;
    assert_eq!(status, 0);
    assert!(err.starts_with("warning: a password in the URL") && !err.contains("hunter2"), "{err}");
}
