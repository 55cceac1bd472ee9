//! What the driver promises: nobody hears of what is not durable.

// Records of who asked for what.
mod audit;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use flotilla_proto::process::Clock;
use flotilla_proto::session::Hello;
use flotilla_proto::{
    EnvironmentSpec, Incarnation, Labels, Reason, Refusal, SdkKeySource, StoreName, StoreUrl, Term, v1,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::audit::{Attempt, Door};
use crate::fleet::{Action, Claim, FleetSettings, GrantIds, Mutation, Remembered};
use crate::store::Loaded;

/// A store that only keeps what was committed, and fails when told to.
#[derive(Debug, Default, Clone)]
struct Fickle {
    fails: Arc<AtomicBool>,
    committed: Arc<Mutex<Vec<Vec<Change>>>>,
}

impl Fickle {
    fn commits(&self) -> Vec<Vec<Change>> {
        self.committed.lock().unwrap().clone()
    }
}

impl Store for Fickle {
    fn load(&mut self) -> Result<Loaded, StoreError> {
        unreachable!("the fleet is made here")
    }

    fn commit(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(StoreError::Corrupt { what: "the disk is full".to_owned() });
        }
        self.committed.lock().unwrap().push(changes.to_vec());
        Ok(())
    }
}

fn make() -> (Driver, DriverHandle, Fickle) {
    let clock = Clock::start();
    let settings = FleetSettings {
        fleet: "f".parse().unwrap(),
        term: Term(1),
        version: "0".to_owned(),
        heartbeat_interval: Duration::from_secs(3),
        lease_duration: Duration::from_secs(15),
        reassign_grace: Duration::from_secs(1),
        max_handovers: 4,
        stream_uri: "http://127.0.0.1:1".parse().unwrap(),
        base_uri: "http://127.0.0.1:1".parse().unwrap(),
        application_id: None,
        application_version: None,
        grant_ids: GrantIds { start: "x".to_owned(), last: 0 },
    };
    let url = StoreUrl::parse("url", "redis://127.0.0.1").unwrap();
    let remembered = Remembered { stores: vec![(StoreName::default_store(), url)], ..Default::default() };
    let store = Fickle::default();
    let audit = AuditTerms { last: LastRecord::default(), retention: Duration::from_hours(1) };
    let (driver, handle) = driver(
        Fleet::new(settings, remembered, clock.now()),
        Vec::new(),
        audit,
        (Box::new(store.clone()), Commits::OnThread),
        clock,
    );
    (driver, handle, store)
}

fn create(name: &str) -> Command {
    let message = v1::EnvironmentSpec { prefix: name.to_owned(), ..Default::default() };
    Command::Mutate(Mutation {
        environment: name.parse().unwrap(),
        action: Action::Create {
            uid: "u".parse().unwrap(),
            spec: EnvironmentSpec::parse(&message, "spec").unwrap(),
            sdk_key: Some(SdkKeySource::parse("sdk_key", "sdk-x").unwrap()),
            claim: Claim::Respect,
        },
        etag: None,
        request: None,
        validate_only: false,
    })
}

fn hello(name: &str) -> Hello {
    Hello {
        worker: name.parse().unwrap(),
        incarnation: Incarnation { state_directory: "d".parse().unwrap(), start_counter: 1, random: 1 },
        version: String::new(),
        capacity: None,
        labels: Labels::default(),
        held: Vec::new(),
        highest_term: Term(0),
        fleet: None,
    }
}

#[tokio::test]
async fn what_could_not_be_made_durable_is_refused_and_ends_the_driver() {
    let (driver, handle, store) = make();
    let asking = async {
        handle.command(create("a")).await.unwrap();
        store.fails.store(true, Ordering::Relaxed);
        let newest = *handle.newest().borrow();
        let refusal = handle.command(create("b")).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::Internal);
        assert!(refusal.message.contains("the disk is full"));
        assert_eq!(*handle.newest().borrow(), newest, "no watcher heard of it");
        let refusal: Refusal = handle.read(|_| ()).await.unwrap_err();
        assert_eq!(refusal.reason, Reason::ShuttingDown);
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    assert!(matches!(ended, Err(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn a_read_after_an_answer_sees_what_was_answered() {
    let (driver, handle, _) = make();
    let asking = async {
        for name in ["a", "b"] {
            handle.command(create(name)).await.unwrap();
        }
        let names = handle
            .read(|view| view.fleet.glances_after(None).map(|one| one.name().to_string()).collect::<Vec<_>>())
            .await;
        assert_eq!(names.unwrap(), ["a", "b"]);
        handle.stop().await;
        assert_eq!(handle.command(create("c")).await.unwrap_err().reason, Reason::ShuttingDown);
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    ended.unwrap();
}

#[tokio::test]
async fn a_worker_that_does_not_read_is_disconnected() {
    let (driver, handle, _) = make();
    let asking = async {
        let (sink, mut outgoing) = mpsc::channel(2);
        let ended = CancellationToken::new();
        let knock = Knock { door: Door::new().0, entry: AuditEntry::of_file(Path::new("f"), Attempt::First) };
        let session = handle.open_session(String::new(), hello("w1"), sink, ended.clone(), knock).await.unwrap();
        while !ended.is_cancelled() {
            // Each is answered, and nobody reads the answers.
            handle.session_message(session, WorkerMessage::Heartbeat).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut heard = 0;
        while outgoing.recv().await.is_some() {
            heard += 1;
        }
        assert_eq!(heard, 2, "what was queued arrives, then the session ends");
        let connected = loop {
            let connected = handle.read(|view| view.fleet.status().workers_connected).await.unwrap();
            if connected == 0 {
                break connected;
            }
        };
        assert_eq!(connected, 0);
        handle.stop().await;
    };
    let (ended, ()) = tokio::join!(driver.run(), asking);
    ended.unwrap();
}
