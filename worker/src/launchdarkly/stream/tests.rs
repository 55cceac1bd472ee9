use super::super::test_server::{KEY, TestServer, TestSource, shared};
use super::super::{Delivery, SourceSettings, Sources as _};
use super::*;
use crate::source::Kind;

const PUT: &str = "event: put\ndata: {\"path\":\"/\",\"data\":{\"flags\":{\"a\":{\"key\":\"a\",\"version\":1}},\"segments\":{}}}\n\n";

fn patient() -> Arc<SharedSources> {
    shared(1, SourceTimeouts::default())
}

fn start(server: &TestServer, shared: &Arc<SharedSources>) -> TestSource {
    TestSource::start(SourceSettings::LaunchDarkly(server.settings(Delivery::Stream)), shared)
}

async fn connected(source: &mut TestSource) {
    let event = source.event().await;
    assert!(matches!(&event, SourceEvent::Connected { environment_id: Some(id) } if &**id == "env-1"), "{event:?}");
}

async fn payload(source: &mut TestSource) -> FullPayload {
    match source.event().await {
        SourceEvent::Payload(payload) => payload,
        other => panic!("no payload: {other:?}"),
    }
}

async fn interrupted(source: &mut TestSource) -> (SourceFailure, Duration) {
    match source.event().await {
        SourceEvent::Interrupted { failure, retry_in } => (failure, retry_in),
        other => panic!("not interrupted: {other:?}"),
    }
}

fn message(failure: &SourceFailure) -> String {
    let message = failure.to_string();
    assert!(!message.contains(KEY), "{message}");
    message
}

#[tokio::test]
async fn events_become_source_events_and_the_request_is_launchdarklys() {
    let mut server = TestServer::start().await;
    let mut settings = server.settings(Delivery::Stream);
    settings.filter = Some("a b".into());
    settings.application_id = Some("flags".into());
    let mut source = TestSource::start(SourceSettings::LaunchDarkly(settings), &patient());
    let exchange = server.request().await;
    assert_eq!(exchange.request.uri().to_string(), "/base/all?filter=a%20b");
    for (name, value) in [
        ("authorization", KEY),
        ("user-agent", http_user_agent()),
        ("accept", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("x-launchdarkly-tags", "application-id/flags"),
        ("x-launchdarkly-instance-id", "00000000-0000-0000-0000-000000000000"),
    ] {
        assert_eq!(exchange.header(name), Some(value), "{name}");
    }
    assert_eq!(exchange.header("last-event-id"), None);

    let mut body = exchange.open_stream();
    connected(&mut source).await;
    body.write(PUT).await;
    assert_eq!(payload(&mut source).await.items().map(|item| item.key).collect::<Vec<_>>(), ["a"]);
    body.write("event: patch\ndata: {\"path\":\"/flags/b\",\"data\":{\"key\":\"b\",").await;
    body.write("\"version\":2}}\n\n").await;
    let event = source.event().await;
    assert!(
        matches!(&event, SourceEvent::Patch { kind: Kind::Flag, key, body, version: 2, deleted: false }
            if &**key == "b" && &**body == br#"{"key":"b","version":2}"#),
        "{event:?}"
    );
    body.write("event: delete\ndata: {\"path\":\"/segments/s\",\"version\":3}\n\n").await;
    let event = source.event().await;
    assert!(
        matches!(&event, SourceEvent::Delete { kind: Kind::Segment, key, version: 3 } if &**key == "s"),
        "{event:?}"
    );
    body.write("event: patch\ndata: {\"path\":\"/flags/b\",\"data\":7}\n\n").await;
    assert!(matches!(source.event().await, SourceEvent::Rejected(_)));
    body.write("event: new\ndata: not json\n\n").await;
    assert!(matches!(source.event().await, SourceEvent::Alive));
    body.write(":\n".repeat(100)).await;
    body.write(PUT).await;
    let mut heartbeats = 0;
    loop {
        match source.event().await {
            SourceEvent::Heartbeat => heartbeats += 1,
            SourceEvent::Payload(_) => break,
            other => panic!("neither a heartbeat nor a payload: {other:?}"),
        }
    }
    assert!((1..10).contains(&heartbeats), "told at most once a second: {heartbeats}");
}

fn http_user_agent() -> &'static str {
    concat!("Flotilla/", env!("CARGO_PKG_VERSION"))
}

#[tokio::test]
async fn every_end_of_a_stream_is_followed_by_another_attempt() {
    let mut server = TestServer::start().await;
    let mut source = start(&server, &patient());

    let mut body = server.request().await.open_stream();
    connected(&mut source).await;
    body.write("id: 7\nretry: 150\ndata: x\n\n").await;
    assert!(matches!(source.event().await, SourceEvent::Alive));
    drop(body);
    let (failure, retry_in) = interrupted(&mut source).await;
    assert_eq!(message(&failure), "the server ended the stream");
    assert!((75..=150).contains(&retry_in.as_millis()), "the server's retry counts: {retry_in:?}");

    let exchange = server.request().await;
    assert_eq!(exchange.header("last-event-id"), Some("7"));
    let body = exchange.open_stream();
    connected(&mut source).await;
    body.cut().await;
    assert!(matches!(interrupted(&mut source).await.0, SourceFailure::Network { .. }));

    let mut body = server.request().await.open_stream();
    connected(&mut source).await;
    body.write("event: put\ndata: {\n\n").await;
    let (failure, _) = interrupted(&mut source).await;
    assert!(matches!(failure, SourceFailure::Data { .. }), "{failure:?}");
    body.closed().await;

    server.request().await.answer(200, &[("content-type", "text/html")], "<html>").await;
    let (failure, _) = interrupted(&mut source).await;
    assert!(message(&failure).contains("text/html"), "{failure:?}");

    server.request().await.answer(503, &[], "").await;
    assert_eq!(interrupted(&mut source).await.0, SourceFailure::Http { status: 503 });
    connected_again(&mut server, &mut source).await;
}

async fn connected_again(server: &mut TestServer, source: &mut TestSource) {
    let mut body = server.request().await.open_stream();
    connected(source).await;
    body.write(PUT).await;
    payload(source).await;
}

#[tokio::test]
async fn a_refused_key_and_an_answer_without_content_are_tried_again_slowly() {
    for (status, expected) in [
        (401, SourceFailure::Auth { status: 401 }),
        (403, SourceFailure::Auth { status: 403 }),
        (404, SourceFailure::Http { status: 404 }),
        (204, SourceFailure::Http { status: 204 }),
    ] {
        let mut server = TestServer::start().await;
        let mut source = start(&server, &patient());
        server.request().await.answer(status, &[], "").await;
        let (failure, retry_in) = interrupted(&mut source).await;
        assert_eq!(failure, expected);
        assert!((150..=300).contains(&retry_in.as_secs()), "{retry_in:?}");
        assert!(server.is_quiet());
    }
}

#[tokio::test]
async fn silence_ends_a_connection() {
    let timeouts = SourceTimeouts { read: Duration::from_secs(1), ..SourceTimeouts::default() };
    let mut server = TestServer::start().await;
    let mut source = start(&server, &shared(1, timeouts));
    let mut body = server.request().await.open_stream();
    connected(&mut source).await;
    body.write(PUT).await;
    payload(&mut source).await;
    let (failure, _) = interrupted(&mut source).await;
    assert_eq!(message(&failure), "no byte arrived for 1s");
    body.closed().await;
}

#[tokio::test]
async fn a_head_or_first_payload_that_does_not_come_ends_an_attempt() {
    let timeouts = SourceTimeouts {
        response: Duration::from_secs(1),
        first_payload: Duration::from_secs(1),
        ..SourceTimeouts::default()
    };
    let mut server = TestServer::start().await;
    let mut source = start(&server, &shared(1, timeouts));
    let unanswered = server.request().await;
    let (failure, _) = interrupted(&mut source).await;
    assert!(message(&failure).ends_with("did not answer within 1s"), "{failure:?}");
    drop(unanswered);
    let mut body = server.request().await.open_stream();
    connected(&mut source).await;
    body.write(":\n").await;
    assert!(matches!(source.event().await, SourceEvent::Heartbeat));
    let (failure, _) = interrupted(&mut source).await;
    assert_eq!(message(&failure), "no full payload arrived within 1s");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_network_failure_that_names_it() {
    let server = TestServer::start().await;
    let mut settings = server.settings(Delivery::Stream);
    // A port that nobody listens on: it was just free, and nobody is told of it.
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = unused.local_addr().expect("bound");
    drop(unused);
    settings.stream_uri = format!("http://{address}").parse().expect("a URL");
    let mut source = TestSource::start(SourceSettings::LaunchDarkly(settings), &patient());
    let (failure, _) = interrupted(&mut source).await;
    assert!(message(&failure).contains(&address.to_string()), "{failure:?}");
    assert!(message(&failure).contains("refused"), "{failure:?}");
}

#[tokio::test]
async fn tls_that_fails_is_a_network_failure() {
    let server = TestServer::start().await;
    let mut settings = server.settings(Delivery::Stream);
    // The server speaks plain HTTP.
    settings.stream_uri = server.url.as_str().replace("http://", "https://").parse().expect("a URL");
    let mut source = TestSource::start(SourceSettings::LaunchDarkly(settings), &patient());
    let (failure, retry_in) = interrupted(&mut source).await;
    assert!(matches!(failure, SourceFailure::Network { .. }), "{failure:?}");
    assert!(retry_in < Duration::from_secs(1), "TLS belongs to the normal regime: {retry_in:?}");
}

#[tokio::test]
async fn the_connect_permit_is_held_until_the_first_payload_is_consumed() {
    let shared = patient();
    let mut first_server = TestServer::start().await;
    let mut second_server = TestServer::start().await;
    let mut first = start(&first_server, &shared);
    let mut body = first_server.request().await.open_stream();
    let mut second = start(&second_server, &shared);
    connected(&mut first).await;
    body.write(PUT).await;
    let held = payload(&mut first).await;
    body.write(PUT).await;
    drop(payload(&mut first).await);
    assert!(second_server.is_quiet());
    assert_eq!(shared.connecting.available_permits(), 0);
    drop(held);
    second_server.request().await.answer(500, &[], "").await;
    interrupted(&mut second).await;
}

#[tokio::test]
async fn redirects_are_followed_on_the_same_server_with_the_key() {
    let mut server = TestServer::start().await;
    for (status, location, arrives) in [
        (301, "/moved?x=1", "/moved?x=1"),
        (302, "elsewhere", "/base/elsewhere"),
        (307, "/temporary", "/temporary"),
        (308, "/permanent#part", "/permanent"),
    ] {
        let mut source = start(&server, &patient());
        server.request().await.answer(status, &[("location", location)], "").await;
        let exchange = server.request().await;
        assert_eq!(exchange.request.uri().to_string(), arrives);
        assert_eq!(exchange.header("authorization"), Some(KEY));
        let _body = exchange.open_stream();
        connected(&mut source).await;
    }
}

#[tokio::test]
async fn a_redirect_never_carries_the_key_elsewhere_and_has_an_end() {
    let mut server = TestServer::start().await;
    let mut other = TestServer::start().await;
    for (location, complaint) in [
        (other.url.as_str(), "because the SDK key would go there"),
        ("http://localhost.invalid/all", "because the SDK key would go there"),
        ("", "without a usable Location"),
        ("http://", "without a usable Location"),
        ("ftp://x/", "without a usable Location"),
    ] {
        let mut source = start(&server, &patient());
        server.request().await.answer(307, &[("location", location)], "").await;
        let (failure, _) = interrupted(&mut source).await;
        assert!(message(&failure).contains(complaint), "{location}: {failure:?}");
    }
    assert!(other.is_quiet());

    let mut source = start(&server, &patient());
    for _ in 0..=5 {
        server.request().await.answer(302, &[("location", "/again")], "").await;
    }
    assert!(message(&interrupted(&mut source).await.0).ends_with("redirected more than 5 times"));
}

#[tokio::test]
async fn a_key_is_proved_by_a_payload_and_by_nothing_less() {
    let mut server = TestServer::start().await;
    let settings = server.settings(Delivery::Stream);
    let shared = patient();
    let serve = async {
        let mut body = server.request().await.open_stream();
        body.write(":\n\nevent: x\ndata: y\n\n").await;
        body.write(PUT).await;
        body.closed().await;
    };
    let (proof, ()) =
        tokio::join!(Arc::clone(&shared).prove_key((*settings).clone(), Duration::from_secs(20)), serve);
    let proof = proof.unwrap();
    assert_eq!((proof.environment_id.as_deref(), proof.payload.items().count()), (Some("env-1"), 1));
    assert_eq!(shared.connecting.available_permits(), 1);

    let (proof, ()) =
        tokio::join!(Arc::clone(&shared).prove_key((*settings).clone(), Duration::from_secs(20)), async {
            server.request().await.answer(401, &[], "").await;
        });
    assert_eq!(proof.unwrap_err(), SourceFailure::Auth { status: 401 });

    let (proof, _body) =
        tokio::join!(Arc::clone(&shared).prove_key((*settings).clone(), Duration::from_millis(200)), async {
            server.request().await.open_stream()
        });
    assert!(proof.unwrap_err().to_string().contains("within 200ms"));
}

#[tokio::test]
async fn an_event_is_as_old_as_its_last_byte_however_late_it_is_taken() {
    let mut server = TestServer::start().await;
    let mut source = start(&server, &patient());
    let mut body = server.request().await.open_stream();
    connected(&mut source).await;
    body.write(PUT).await;
    assert!(matches!(source.event().await, SourceEvent::Payload(_)));
    // More than may wait between source and environment.
    let events = 50;
    body.write("event: delete\ndata: {\"path\":\"/flags/x\",\"version\":1}\n\n".repeat(events)).await;
    let first = source.received().await.at;
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 1..events {
        let waited = source.received().await.at.elapsed();
        assert!(waited >= Duration::from_millis(250), "{waited:?}");
    }
    assert!(first.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn dropping_the_source_closes_its_connection() {
    let mut server = TestServer::start().await;
    let mut source = start(&server, &patient());
    let body = server.request().await.open_stream();
    connected(&mut source).await;
    drop(source);
    body.closed().await;
}

#[tokio::test]
async fn a_large_payload_is_read_and_one_above_the_limit_is_not() {
    let mut server = TestServer::start().await;
    let mut limited = shared(1, SourceTimeouts::default());
    Arc::get_mut(&mut limited).expect("not shared yet").max_payload_bytes = 2 * MAX_PARSED_INLINE_BYTES;
    let mut source = start(&server, &limited);
    for (size, is_taken) in [(MAX_PARSED_INLINE_BYTES, true), (3 * MAX_PARSED_INLINE_BYTES, false)] {
        let filler = "x".repeat(size);
        let mut body = server.request().await.open_stream();
        connected(&mut source).await;
        body.write(PUT.replace("\"version\"", &format!("\"filler\":\"{filler}\",\"version\""))).await;
        if is_taken {
            assert_eq!(payload(&mut source).await.items().count(), 1);
            drop(body);
            interrupted(&mut source).await;
        } else {
            let (failure, _) = interrupted(&mut source).await;
            assert!(message(&failure).contains("larger than the limit"), "{failure:?}");
        }
    }
}

/// As it comes from the network: in pieces that end anywhere, on one line and on many.
#[tokio::test]
async fn a_payload_of_ten_megabytes_arrives_whole() {
    let filler = "x".repeat(1_000);
    let flags: Vec<_> = (0..10_000)
        .map(|n| format!(r#""flag-{n}":{{"key":"flag-{n}","version":{n},"filler":"{filler}"}}"#))
        .collect();
    for between in [",", ",\ndata: "] {
        let data = format!(r#"{{"path":"/","data":{{"flags":{{{}}},"segments":{{}}}}}}"#, flags.join(between));
        let event = Bytes::from(format!("event: put\ndata: {data}\n\n"));
        assert!(event.len() > 10_000_000);
        let mut server = TestServer::start().await;
        let mut source = start(&server, &patient());
        let mut body = server.request().await.open_stream();
        connected(&mut source).await;
        let write = async {
            let mut rest = event;
            for size in [1, 7, 1_021, 65_537, 16_383].into_iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                body.write(rest.split_to(size.min(rest.len()))).await;
            }
        };
        let (payload, ()) = tokio::join!(payload(&mut source), write);
        let mut versions: Vec<_> = payload.items().map(|item| item.version).collect();
        versions.sort_unstable();
        assert!(versions.into_iter().eq(0..10_000));
    }
}
