//! What one client may take of control: bytes of a message, and calls that are open.

use flotilla_proto::Reason;
use tonic::Code;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic_prost::ProstCodec;

use super::access::{KeyFiles, with_token};
use super::*;

/// A message with a field that no request has, which is skipped by whoever reads it.
#[derive(Clone, PartialEq, prost::Message)]
struct Filler {
    #[prost(bytes = "vec", tag = "1000")]
    content: Vec<u8>,
}

impl Filler {
    /// A message of this length.
    fn of(bytes: usize) -> Self {
        let mut filler = Self { content: vec![0; bytes] };
        filler.content.truncate(bytes - (prost::Message::encoded_len(&filler) - bytes));
        assert_eq!(prost::Message::encoded_len(&filler), bytes);
        filler
    }
}

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// A call of each service, and the largest message that it takes.
const LIMITS: [(&str, usize); 7] = [
    ("/grpc.health.v1.Health/Check", KIB),
    ("/flotilla.v1.FleetService/ListWorkers", 4 * MIB),
    ("/flotilla.v1.DataService/ListItems", 4 * MIB),
    ("/flotilla.v1.StoreService/ListStores", 4 * MIB),
    ("/flotilla.v1.AuditService/ListAuditRecords", 4 * MIB),
    ("/flotilla.v1.EnvironmentService/ListEnvironments", 16 * MIB),
    ("/flotilla.v1.WorkerService/Session", 64 * MIB),
];

/// Its library ends a call with a message that is too large, without a word.
const REFLECTION: (&str, usize) = ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", 4 * MIB);

/// Sends one message, and returns how the call ends; `None`: well.
async fn send(control: &Control, path: &'static str, message: Filler) -> Option<Status> {
    let mut grpc = Grpc::new(control.channel.clone());
    grpc.ready().await.unwrap();
    let request = tonic::Request::new(tokio_stream::once(message));
    let call = async {
        let codec = ProstCodec::<Filler, ()>::default();
        let mut answers = grpc.streaming(request, PathAndQuery::from_static(path), codec).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    tokio::time::timeout(PATIENCE, call).await.unwrap().err()
}

#[tokio::test]
async fn a_message_beyond_its_services_limit_is_refused_and_the_next_call_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    for (path, limit) in LIMITS {
        let status = send(&control, path, Filler::of(limit + 1)).await;
        let code = status.as_ref().map(Status::code);
        assert_eq!(code, Some(Code::OutOfRange), "{path}: {status:?}");
        let status = send(&control, path, Filler::of(limit)).await;
        let code = status.as_ref().map(Status::code);
        assert!(!matches!(code, Some(Code::OutOfRange | Code::ResourceExhausted)), "{path}: {status:?}");
    }
    let (path, limit) = REFLECTION;
    assert!(send(&control, path, Filler::of(limit + 1)).await.is_none());
    let status = send(&control, path, Filler::of(limit)).await.expect("it asks for nothing");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    control.create("spree").await;
    assert_eq!(control.get("spree").await.unwrap().name, "spree");
}

#[tokio::test]
async fn headers_beyond_their_limit_are_refused_and_the_next_call_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let control = start(settings(&directory)).await;
    for length in [20 * KIB, 8 * MIB] {
        let mut request = tonic::Request::new(v1::ListWorkersRequest::default());
        request.metadata_mut().insert("x-long", MetadataValue::try_from("x".repeat(length)).unwrap());
        let answer = tokio::time::timeout(PATIENCE, control.fleet().list_workers(request)).await.unwrap();
        assert!(answer.is_err(), "{length}");
    }
    control.create("spree").await;
}

#[tokio::test]
async fn a_token_may_have_a_thousand_watches_open_over_any_number_of_connections() {
    let files = KeyFiles::new();
    let control = start(files.settings()).await;
    let uri = format!("http://{}", control.running.grpc_addr());
    let mut channels = vec![control.channel.clone()];
    for _ in 1..3 {
        channels.push(Endpoint::from_shared(uri.clone()).unwrap().connect().await.unwrap());
    }
    let watch = async |at: usize, token: &str| {
        let mut client = FleetServiceClient::new(channels[at % channels.len()].clone());
        let answer = client.watch_workers(with_token(v1::WatchWorkersRequest::default(), Some(token)));
        tokio::time::timeout(PATIENCE, answer).await.unwrap().map(tonic::Response::into_inner)
    };
    let mut open = Vec::new();
    for at in 0..1000 {
        open.push(watch(at, "viewer").await.unwrap());
    }
    let refused = refusal(watch(1000, "viewer").await);
    assert_eq!(refused.reason, Reason::TooManyCalls);
    assert_eq!(
        refused.message,
        "\"the-viewer\" has 1000 calls open, and may not have more; end some, watches included"
    );
    // Any call counts, not watches alone.
    let request = with_token(v1::ListWorkersRequest::default(), Some("viewer"));
    assert_eq!(refusal(control.fleet().list_workers(request).await).reason, Reason::TooManyCalls);
    let _others = watch(1001, "admin").await.unwrap();

    open.pop();
    let mut attempts = 0;
    let admitted = loop {
        match watch(1002, "viewer").await {
            Ok(watch) => break watch,
            Err(status) if attempts == PATIENCE.as_millis() / 20 => panic!("{status:?}"),
            // The end of the other one is on its way.
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        attempts += 1;
    };
    open.push(admitted);
    assert_eq!(refusal(watch(1003, "viewer").await).reason, Reason::TooManyCalls);
}
