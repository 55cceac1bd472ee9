use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::test_server::{KEY, TestServer, TestSource, shared};
use super::super::{Delivery, SourceSettings, SourceTimeouts, Sources as _};
use super::*;

const BODY: &str = r#"{"flags":{"a":{"key":"a","version":1}},"segments":{}}"#;

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("to memory");
    encoder.finish().expect("to memory")
}

fn start(server: &TestServer) -> TestSource {
    let settings = SourceSettings::LaunchDarkly(server.settings(Delivery::Poll));
    TestSource::start(settings, &shared(1, SourceTimeouts::default()))
}

async fn connected(source: &mut TestSource, expected: &str) {
    let event = source.event().await;
    assert!(
        matches!(&event, SourceEvent::Connected { environment_id: Some(id) } if &**id == expected),
        "{event:?}"
    );
}

async fn payload(source: &mut TestSource) {
    let event = source.event().await;
    assert!(matches!(&event, SourceEvent::Payload(payload) if payload.items().count() == 1), "{event:?}");
}

async fn interrupted(source: &mut TestSource) -> (SourceFailure, Duration) {
    match source.event().await {
        SourceEvent::Interrupted { failure, retry_in } => (failure, retry_in),
        other => panic!("not interrupted: {other:?}"),
    }
}

#[tokio::test]
async fn polls_are_conditional_and_may_be_packed() {
    let mut server = TestServer::start().await;
    let mut source = start(&server);
    let exchange = server.request().await;
    assert_eq!(exchange.request.uri().to_string(), "/base/sdk/latest-all");
    assert_eq!(exchange.header("authorization"), Some(KEY));
    assert_eq!(exchange.header("accept-encoding"), Some("gzip"));
    assert_eq!(exchange.header("if-none-match"), None);
    exchange.answer(200, &[("etag", "\"1\""), ("x-ld-envid", "e1")], BODY).await;
    connected(&mut source, "e1").await;
    payload(&mut source).await;

    let exchange = server.request().await;
    assert_eq!(exchange.header("if-none-match"), Some("\"1\""));
    exchange.answer(304, &[("x-ld-envid", "e1")], "").await;
    assert!(matches!(source.event().await, SourceEvent::Unchanged));

    let headers = [("content-encoding", "gzip"), ("etag", "\"2\""), ("x-ld-envid", "e2")];
    server.request().await.answer(200, &headers, gzip(BODY.as_bytes())).await;
    connected(&mut source, "e2").await;
    payload(&mut source).await;

    let exchange = server.request().await;
    assert_eq!(exchange.header("if-none-match"), Some("\"2\""));
    exchange.answer(200, &[("x-ld-envid", "e2")], "{\"flags\":").await;
    assert!(matches!(interrupted(&mut source).await.0, SourceFailure::Data { .. }));

    let exchange = server.request().await;
    assert_eq!(exchange.header("if-none-match"), Some("\"2\""), "bad data replaces nothing");
    exchange.answer(304, &[("x-ld-envid", "e2")], "").await;
    connected(&mut source, "e2").await;
    assert!(matches!(source.event().await, SourceEvent::Unchanged));
}

#[tokio::test]
async fn a_delay_is_never_below_the_interval_and_a_refused_key_is_slow() {
    let mut server = TestServer::start().await;
    let mut settings = server.settings(Delivery::Poll);
    settings.poll_interval = Duration::from_millis(100);
    let source = SourceSettings::LaunchDarkly(settings);
    let mut source = TestSource::start(source, &shared(1, SourceTimeouts::default()));
    server.request().await.answer(500, &[], "").await;
    let (failure, retry_in) = interrupted(&mut source).await;
    assert_eq!((failure, retry_in), (SourceFailure::Http { status: 500 }, Duration::from_millis(100)));
    server.request().await.answer(304, &[], "").await;
    assert_eq!(interrupted(&mut source).await.0, SourceFailure::Http { status: 304 }, "nobody asked for it");
    server.request().await.answer(403, &[], "").await;
    let (failure, retry_in) = interrupted(&mut source).await;
    assert_eq!(failure, SourceFailure::Auth { status: 403 });
    assert!(retry_in >= Duration::from_secs(150), "{retry_in:?}");
}

#[tokio::test]
async fn what_is_cut_broken_or_unknown_is_a_failure() {
    let mut server = TestServer::start().await;
    let mut source = start(&server);
    server.request().await.open(200, &[("content-length", "100")]).cut().await;
    assert!(matches!(interrupted(&mut source).await.0, SourceFailure::Network { .. }));
    server.request().await.answer(200, &[("content-encoding", "gzip")], BODY).await;
    assert!(matches!(interrupted(&mut source).await.0, SourceFailure::Data { .. }));
    server.request().await.answer(200, &[("content-encoding", "br")], BODY).await;
    assert!(matches!(interrupted(&mut source).await.0, SourceFailure::Data { .. }));
}

#[tokio::test]
async fn the_permit_is_free_between_polls() {
    let mut server = TestServer::start().await;
    let mut settings = server.settings(Delivery::Poll);
    settings.poll_interval = Duration::from_hours(1);
    let shared = shared(1, SourceTimeouts::default());
    let mut source = TestSource::start(SourceSettings::LaunchDarkly(settings.clone()), &shared);
    server.request().await.answer(200, &[("x-ld-envid", "e1")], BODY).await;
    connected(&mut source, "e1").await;
    payload(&mut source).await;
    let serve = async {
        server.request().await.answer(200, &[("x-ld-envid", "e1")], BODY).await;
    };
    let (proof, ()) =
        tokio::join!(Arc::clone(&shared).prove_key((*settings).clone(), Duration::from_secs(20)), serve);
    assert_eq!(proof.unwrap().environment_id.as_deref(), Some("e1"));
}

#[test]
fn what_unpacks_to_more_than_the_limit_is_refused() {
    let packed = gzip(&vec![b' '; 1 << 20]);
    assert!(packed.len() < 10_000);
    assert_eq!(unpack(&packed, 1 << 20).map(|text| text.len()), Ok(1 << 20));
    assert_eq!(unpack(&packed, (1 << 20) - 1), Err(too_large((1 << 20) - 1)));
}
