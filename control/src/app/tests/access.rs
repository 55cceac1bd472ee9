//! Who may call what: every call of the table by everybody.

use std::path::PathBuf;

use flotilla_proto::Reason;
use flotilla_proto::access::{AccessSettings, KeySource, TokenHash};
use tonic::Code;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;

use super::*;
use crate::access::CALLS;

pub(super) struct KeyFiles {
    directory: tempfile::TempDir,
}

impl KeyFiles {
    pub(super) fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        files.write(&["viewer", "operator", "admin"], &["w1", "edge-*"]);
        files
    }

    /// Each token is its own name.
    fn write(&self, roles: &[&str], workers: &[&str]) {
        let api = roles.iter().map(|role| {
            format!("[[token]]\nname = \"the {role}\"\nrole = \"{role}\"\nsha256 = \"{}\"\n", TokenHash::of(role))
        });
        let text = api.collect::<String>().replace("the ", "the-");
        std::fs::write(self.path("tokens.toml"), "# callers\n".to_owned() + &text).unwrap();
        let workers = workers
            .iter()
            .map(|name| format!("[[token]]\nname = \"{name}\"\nsha256 = \"{}\"\n", TokenHash::of(name)));
        std::fs::write(self.path("workers.toml"), "# workers\n".to_owned() + &workers.collect::<String>()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn settings(&self) -> Settings {
        let keys = KeySource::Files { api: self.path("tokens.toml"), workers: Some(self.path("workers.toml")) };
        // The workers of these tests say hello and nothing more.
        let lease_duration = PATIENCE * 2;
        Settings { access: AccessSettings { tls: None, keys }, lease_duration, ..settings(&self.directory) }
    }
}

pub(super) fn with_token<T>(message: T, token: Option<&str>) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", MetadataValue::try_from(format!("Bearer {token}")).unwrap());
    }
    request
}

/// Makes any call, with an empty message. Returns how it begins.
pub(super) async fn call(control: &Control, path: &'static str, token: Option<&str>) -> Result<(), Status> {
    let mut grpc = Grpc::new(control.channel.clone());
    grpc.ready().await.unwrap();
    let request = with_token(tokio_stream::once(()), token);
    let answer = grpc.streaming(request, PathAndQuery::from_static(path), ProstCodec::<(), ()>::default());
    tokio::time::timeout(PATIENCE, answer).await.unwrap().map(drop)
}

/// Who may make a call, by the first letters of these: written down once more, so that nobody gets more than was meant.
const CALLERS: [(char, Option<&str>); 6] = [
    ('n', None),
    ('u', Some("unknown")),
    ('v', Some("viewer")),
    ('o', Some("operator")),
    ('a', Some("admin")),
    ('w', Some("w1")),
];
const EXPECTED: [(&str, &str); 36] = [
    ("flotilla.v1.EnvironmentService/GetEnvironment", "voa"),
    ("flotilla.v1.EnvironmentService/ListEnvironments", "voa"),
    ("flotilla.v1.EnvironmentService/WatchEnvironments", "voa"),
    ("flotilla.v1.EnvironmentService/PauseEnvironment", "oa"),
    ("flotilla.v1.EnvironmentService/ResumeEnvironment", "oa"),
    ("flotilla.v1.EnvironmentService/ResyncEnvironment", "oa"),
    ("flotilla.v1.EnvironmentService/CreateEnvironment", "a"),
    ("flotilla.v1.EnvironmentService/UpdateEnvironment", "a"),
    ("flotilla.v1.EnvironmentService/DeleteEnvironment", "a"),
    ("flotilla.v1.EnvironmentService/RotateSdkKey", "a"),
    ("flotilla.v1.EnvironmentService/BatchApplyEnvironments", "a"),
    ("flotilla.v1.FleetService/ListWorkers", "voa"),
    ("flotilla.v1.FleetService/GetWorker", "voa"),
    ("flotilla.v1.FleetService/WatchWorkers", "voa"),
    ("flotilla.v1.FleetService/GetFleetStatus", "voa"),
    ("flotilla.v1.FleetService/ListEvents", "voa"),
    ("flotilla.v1.FleetService/WatchEvents", "voa"),
    ("flotilla.v1.FleetService/CordonWorker", "oa"),
    ("flotilla.v1.FleetService/UncordonWorker", "oa"),
    ("flotilla.v1.FleetService/DrainWorker", "oa"),
    ("flotilla.v1.FleetService/DeleteWorker", "a"),
    ("flotilla.v1.DataService/ListItems", "voa"),
    ("flotilla.v1.DataService/GetItem", "voa"),
    // With `repair` another role: see the next test.
    ("flotilla.v1.DataService/VerifyData", "voa"),
    ("flotilla.v1.StoreService/GetStore", "voa"),
    ("flotilla.v1.StoreService/ListStores", "voa"),
    ("flotilla.v1.StoreService/CheckStore", "oa"),
    ("flotilla.v1.StoreService/CreateStore", "a"),
    ("flotilla.v1.StoreService/UpdateStore", "a"),
    ("flotilla.v1.StoreService/DeleteStore", "a"),
    ("flotilla.v1.AuditService/ListAuditRecords", "a"),
    ("flotilla.v1.AuditService/WatchAuditRecords", "a"),
    ("flotilla.v1.WorkerService/Session", "w"),
    ("grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "voa"),
    ("grpc.health.v1.Health/Check", "nuvoaw"),
    ("grpc.health.v1.Health/Watch", "nuvoaw"),
];

#[tokio::test]
async fn every_call_by_everybody_is_answered_as_it_was_meant() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    let (mut admitted, mut refused) = (0, 0);
    for &(path, _) in CALLS {
        let row = EXPECTED.iter().find(|(call, _)| *call == &path[1..]);
        let (_, may) = row.unwrap_or_else(|| panic!("who may call {path} is not written down"));
        for (letter, token) in CALLERS {
            let result = call(&control, path, token).await;
            let code = result.as_ref().err().map(Status::code);
            let expected = match letter {
                _ if may.contains(letter) => None,
                'n' => Some((Code::Unauthenticated, Reason::CredentialMissing)),
                'u' => Some((Code::Unauthenticated, Reason::CredentialUnknown)),
                _ => Some((Code::PermissionDenied, Reason::RoleTooSmall)),
            };
            if let Some((expected, reason)) = expected {
                assert_eq!(code, Some(expected), "{path} {token:?}: {result:?}");
                assert_eq!(refusal(result).reason, reason);
                refused += 1;
            } else {
                assert!(
                    !matches!(code, Some(Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented)),
                    "{path} {token:?}: {result:?}"
                );
                admitted += 1;
            }
        }
    }
    println!("{} calls by {} callers: {admitted} admitted, {refused} refused", CALLS.len(), CALLERS.len());
    assert_eq!((CALLS.len(), admitted, refused), (EXPECTED.len(), 83, 133));
}

#[tokio::test]
async fn a_refusal_names_the_call_and_both_roles() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    let message = refusal(call(&control, "/flotilla.v1.EnvironmentService/PauseEnvironment", Some("viewer")).await);
    assert_eq!(
        message.message,
        "EnvironmentService/PauseEnvironment needs role operator; \"the-viewer\" has role viewer"
    );
    let message = refusal(call(&control, "/flotilla.v1.FleetService/ListWorkers", Some("w1")).await);
    assert_eq!(message.message, "FleetService/ListWorkers needs role viewer; \"w1\" has role worker (w1)");
    let verify = |token| {
        let request = v1::VerifyDataRequest { environment: "a".to_owned(), repair: true };
        let mut data = control.data();
        async move { data.verify_data(with_token(request, Some(token))).await }
    };
    let refused = refusal(verify("viewer").await);
    assert_eq!(refused.reason, Reason::RoleTooSmall);
    assert_eq!(refused.message, "DataService/VerifyData needs role operator; \"the-viewer\" has role viewer");
    assert_eq!(refusal(verify("operator").await).reason, Reason::EnvironmentNotFound);
    let unknown = call(&control, "/flotilla.v1.FleetService/Nothing", Some("admin")).await;
    assert_eq!(unknown.unwrap_err().code(), Code::Unimplemented);
}

pub(super) async fn session(
    control: &Control,
    worker: &str,
    token: &str,
) -> Result<Streaming<v1::SessionResponse>, Status> {
    let outgoing =
        tokio_stream::StreamExt::chain(tokio_stream::once(up(Up::Hello(hello(worker)))), tokio_stream::pending());
    let mut client = WorkerServiceClient::new(control.channel.clone());
    client.session(with_token(outgoing, Some(token))).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_worker_has_only_its_own_name() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    for (worker, token, may) in
        [("w1", "w1", true), ("w2", "w1", false), ("edge-7", "edge-*", true), ("core", "edge-*", false)]
    {
        let result = session(&control, worker, token).await;
        assert_eq!(result.is_ok(), may, "{worker} {token}");
        if !may {
            let refused = refusal(result);
            assert_eq!(refused.reason, Reason::WorkerNameForbidden);
            assert!(refused.message.contains(worker) && refused.message.contains(token), "{refused}");
        }
    }
}

#[tokio::test]
async fn what_has_begun_ends_when_the_token_is_withdrawn() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    let watch = async |token| {
        let request = with_token(v1::WatchWorkersRequest::default(), Some(token));
        control.fleet().watch_workers(request).await.map(tonic::Response::into_inner)
    };
    let mut kept = watch("admin").await.unwrap();
    let mut withdrawn = watch("viewer").await.unwrap();
    let mut worker = session(&control, "w1", "w1").await.unwrap();
    let mut other = session(&control, "edge-1", "edge-*").await.unwrap();
    files.write(&["admin"], &["edge-*"]);
    let end = async |stream: &mut Streaming<v1::WatchWorkersResponse>| loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ended without a word"),
            Err(status) => return status,
        }
    };
    let status = tokio::time::timeout(PATIENCE, end(&mut withdrawn)).await.unwrap();
    assert_eq!(Refusal::from_status(&status).unwrap().reason, Reason::CredentialUnknown, "{status:?}");
    let status = tokio::time::timeout(PATIENCE, async {
        loop {
            match worker.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ended without a word"),
                Err(status) => return status,
            }
        }
    });
    assert_eq!(Refusal::from_status(&status.await.unwrap()).unwrap().reason, Reason::CredentialUnknown);
    assert_eq!(refusal(watch("viewer").await).reason, Reason::CredentialUnknown);
    // The others have noticed nothing: there is still news for them.
    control
        .fleet()
        .cordon_worker(with_token(
            v1::CordonWorkerRequest { name: "edge-1".to_owned(), ..Default::default() },
            Some("admin"),
        ))
        .await
        .unwrap();
    let news = async {
        loop {
            let message = kept.message().await.unwrap().unwrap();
            if let Some(v1::watch_workers_response::Event::Changed(worker)) = message.event
                && worker.name == "edge-1"
                && worker.scheduling() == v1::WorkerScheduling::Cordoned
            {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, news).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, other.message()).await.unwrap().unwrap().is_some());
}

#[tokio::test]
async fn numbers_are_for_viewers_and_probes_for_all() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    for (path, token, expected) in [
        ("/livez", "", 200),
        ("/readyz", "", 200),
        ("/metrics", "", 401),
        ("/status", "", 401),
        ("/metrics", "unknown", 401),
        ("/metrics", "viewer", 200),
        ("/status", "admin", 200),
        ("/status", "w1", 403),
    ] {
        let mut connection = TcpStream::connect(control.running.http_addr()).await.unwrap();
        let header = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{header}Connection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{path} {token}: {answer}");
    }
}
