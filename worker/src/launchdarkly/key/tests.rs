//! Sources whose key is in a file, towards a LaunchDarkly that says what a test says.

use std::sync::Arc;

use tempfile::TempDir;

use super::super::test_server::{TestServer, TestSource, shared_with};
use super::super::{Delivery, LaunchDarklySettings, SharedSources, SourceSettings, SourceTimeouts, Sources as _};
use super::*;
use crate::source::SourceEvent;

const PUT: &str = "id: 7\nevent: put\ndata: {\"path\":\"/\",\"data\":{\"flags\":{},\"segments\":{}}}\n\n";
const BODY: &str = r#"{"flags":{},"segments":{}}"#;
const DEADLINE: Duration = Duration::from_secs(10);

/// A LaunchDarkly, and a directory of secrets.
struct World {
    server: TestServer,
    directory: TempDir,
    shared: Arc<SharedSources>,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let secrets = Secrets::new(Some(directory.path().to_owned()));
        let shared = shared_with(1, SourceTimeouts::default(), secrets);
        Self { server: TestServer::start().await, directory, shared }
    }

    /// As what mounts secrets does it: a whole file in the place of the last one.
    fn put_key(&self, key: &str) {
        let new = self.directory.path().join("..new");
        std::fs::write(&new, format!("{key}\n")).unwrap();
        std::fs::rename(new, self.directory.path().join("payments")).unwrap();
    }

    fn settings(&self, delivery: Delivery) -> Box<LaunchDarklySettings> {
        let key = SdkKeySource::parse("sdk_key", "file:payments").unwrap();
        Box::new(LaunchDarklySettings { key, ..*self.server.settings(delivery) })
    }

    fn start(&self, delivery: Delivery) -> TestSource {
        TestSource::start(SourceSettings::LaunchDarkly(self.settings(delivery)), &self.shared)
    }
}

async fn interrupted(source: &mut TestSource) -> (SourceFailure, Duration) {
    match source.event().await {
        SourceEvent::Interrupted { failure, retry_in } => (failure, retry_in),
        other => panic!("not interrupted: {other:?}"),
    }
}

#[tokio::test]
async fn each_connection_shows_the_key_that_the_file_holds_then() {
    let mut world = World::new().await;
    world.put_key("sdk-one");
    let mut source = world.start(Delivery::Stream);
    for (key, last_event_id) in [("sdk-one", None), ("sdk-one", Some("7")), ("sdk-two", None)] {
        let exchange = world.server.request().await;
        assert_eq!(exchange.header("authorization"), Some(key));
        assert_eq!(exchange.header("last-event-id"), last_event_id, "what another key brought is not gone on from");
        let mut body = exchange.open_stream();
        body.write(PUT).await;
        assert!(matches!(source.event().await, SourceEvent::Connected { .. }));
        assert!(matches!(source.event().await, SourceEvent::Payload(_)));
        if last_event_id.is_some() {
            world.put_key("sdk-two");
        }
        body.cut().await;
        assert!(matches!(interrupted(&mut source).await.0, SourceFailure::Network { .. }));
    }
}

#[tokio::test]
async fn a_refused_key_is_tried_again_as_soon_as_its_file_is_replaced() {
    let mut world = World::new().await;
    for delivery in [Delivery::Stream, Delivery::Poll] {
        world.put_key("sdk-old");
        let mut source = world.start(delivery);
        world.server.request().await.answer(401, &[], "").await;
        let (failure, retry_in) = interrupted(&mut source).await;
        assert_eq!(failure, SourceFailure::Auth { status: 401 });
        assert!(retry_in > Duration::from_mins(1), "at the pace of refused keys: {retry_in:?}");
        world.put_key("sdk-new");
        let exchange = world.server.request().await;
        assert_eq!(exchange.header("authorization"), Some("sdk-new"));
        exchange.answer(503, &[], "").await;
        let (_, retry_in) = interrupted(&mut source).await;
        assert!(retry_in < Duration::from_secs(1), "the other key's failures do not count: {retry_in:?}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_says_so_asks_nobody_and_comes_with_its_file() {
    let mut world = World::new().await;
    let path = world.directory.path().display().to_string();
    for delivery in [Delivery::Stream, Delivery::Poll] {
        let _ = std::fs::remove_file(world.directory.path().join("payments"));
        let mut source = world.start(delivery);
        let (failure, retry_in) = interrupted(&mut source).await;
        assert_eq!(
            failure.to_string(),
            format!("the SDK key file:payments cannot be read: no such file below --secrets-dir ({path})")
        );
        assert_eq!((failure.kind().as_str(), failure.status()), ("auth", None));
        assert!(retry_in > Duration::from_mins(1), "{retry_in:?}");
        world.put_key("not a key: hunter2");
        let (failure, _) = interrupted(&mut source).await;
        let message = failure.to_string();
        assert!(
            message.starts_with("file:payments holds no SDK key: ") && !message.contains("hunter2"),
            "{message}"
        );
        assert!(world.server.is_quiet());
        world.put_key("sdk-good");
        let exchange = world.server.request().await;
        assert_eq!(exchange.header("authorization"), Some("sdk-good"));
        match delivery {
            Delivery::Stream => drop(exchange.open_stream()),
            Delivery::Poll => exchange.answer(200, &[], BODY).await,
        }
        assert!(matches!(source.event().await, SourceEvent::Connected { .. }));
    }
}

#[tokio::test]
async fn what_another_key_was_told_is_not_asked_to_be_compared() {
    let mut world = World::new().await;
    world.put_key("sdk-one");
    let mut source = world.start(Delivery::Poll);
    for (key, etag) in [("sdk-one", None), ("sdk-one", Some("\"1\"")), ("sdk-two", None)] {
        let exchange = world.server.request().await;
        assert_eq!((exchange.header("authorization"), exchange.header("if-none-match")), (Some(key), etag));
        if etag.is_some() {
            world.put_key("sdk-two");
        }
        exchange.answer(200, &[("etag", "\"1\"")], BODY).await;
        // The next poll waits until the payload is taken.
        while !matches!(source.event().await, SourceEvent::Payload(_)) {}
    }
}

#[tokio::test]
async fn a_proof_reads_the_key_too() {
    let mut world = World::new().await;
    let settings = || *world.settings(Delivery::Stream);
    let prove = |settings| Arc::clone(&world.shared).prove_key(settings, DEADLINE);
    let unreadable = prove(settings()).await.unwrap_err();
    assert!(matches!(unreadable, SourceFailure::Key { .. }), "{unreadable:?}");
    world.put_key("sdk-one");
    let proof = prove(settings());
    let asked = async {
        let exchange = world.server.request().await;
        assert_eq!(exchange.header("authorization"), Some("sdk-one"));
        let mut body = exchange.open_stream();
        body.write(PUT).await;
        body
    };
    let (proof, _body) = tokio::join!(proof, asked);
    assert!(proof.is_ok(), "{proof:?}");
}
