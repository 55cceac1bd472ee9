//! Questions, answered from a store that a model stands in for, and from a LaunchDarkly that says what a test says.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use flotilla_proto::SdkKeySource;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::launchdarkly::event::parse_poll;
use crate::launchdarkly::{Delivery, Proof, SourceSettings};
use crate::source::{SourceEvents, SourceFailure, SourceHandle};
use crate::store::StoreNews;
use crate::store::model::Model;

const DEADLINE: Duration = Duration::from_secs(5);

/// A store that is busy for a while.
#[derive(Debug, Default)]
struct TestStore {
    model: Mutex<Model>,
    busy: AtomicU32,
}

impl FlagStore for TestStore {
    fn execute(&self, _prefix: &Prefix, op: Op) -> BoxFuture<'static, Outcome> {
        let is_busy = matches!(op, Op::Compare { .. })
            && self.busy.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let outcome = if is_busy { Outcome::Busy } else { self.model.lock().unwrap().execute(op) };
        async { outcome }.boxed()
    }

    fn news(&self, _prefix: &Prefix) -> watch::Receiver<StoreNews> {
        watch::channel(StoreNews::default()).1
    }
}

/// What a key brings when it is asked: flags, or a status of refusal.
type Brings = Result<&'static [&'static str], u16>;

/// By key, one answer after the other; the last one for ever.
#[derive(Debug, Default)]
struct TestSources(Mutex<HashMap<String, VecDeque<Brings>>>);

impl TestSources {
    fn bring(&self, key: &str) -> Result<FullPayload, SourceFailure> {
        let mut all = self.0.lock().unwrap();
        let answers = all.get_mut(key).expect("a key of the test");
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().copied() };
        let flags = answer.expect("an answer").map_err(|status| SourceFailure::Auth { status })?;
        Ok(payload(flags))
    }
}

impl Sources for TestSources {
    fn start(self: Arc<Self>, _settings: SourceSettings, _events: SourceEvents) -> SourceHandle {
        unreachable!("questions start no source")
    }

    fn prove_key(
        self: Arc<Self>,
        settings: LaunchDarklySettings,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Proof, SourceFailure>> {
        let brought = self.bring(settings.key.expose());
        async { brought.map(|payload| Proof { environment_id: None, payload }) }.boxed()
    }

    fn fetch(
        self: Arc<Self>,
        settings: LaunchDarklySettings,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<FullPayload, SourceFailure>> {
        let brought = self.bring(settings.key.expose());
        async { brought }.boxed()
    }
}

fn text(flag: &str) -> String {
    // One is sent in a form that must not reach the store.
    if flag == "bad" { "7".to_owned() } else { format!(r#"{{"key":"{flag}","version":1}}"#) }
}

fn payload(flags: &[&str]) -> FullPayload {
    let items: Vec<_> = flags.iter().map(|flag| format!(r#""{flag}":{}"#, text(flag))).collect();
    let body = Bytes::from(format!(r#"{{"flags":{{{}}},"segments":{{}}}}"#, items.join(",")));
    parse_poll(&body).unwrap()
}

fn snapshot_of(flags: &[&str]) -> Snapshot {
    let item = |flag: &&str| (Arc::from(*flag), text(flag).as_bytes().into());
    Snapshot { flags: flags.iter().map(item).collect(), segments: Vec::new() }
}

/// An environment that holds these flags, or nothing yet, in a worker with such sources and such a store.
fn subject(held: Option<&[&str]>, sources: TestSources, store: TestStore) -> Subject {
    let (snapshots, mut asked) = mpsc::channel::<oneshot::Sender<Snapshot>>(1);
    let held = held.map(snapshot_of);
    #[expect(clippy::disallowed_methods, reason = "ends with the subject")]
    tokio::spawn(async move {
        while let Some(receiver) = asked.recv().await {
            let _ = held.clone().map(|held| receiver.send(held));
        }
    });
    let url: url::Url = "http://127.0.0.1:1".parse().unwrap();
    let settings = LaunchDarklySettings {
        delivery: Delivery::Stream,
        stream_uri: url.clone(),
        base_uri: url,
        key: SdkKeySource::parse("sdk_key", "old").unwrap(),
        filter: None,
        application_id: None,
        application_version: None,
        initial_retry_delay: Duration::from_secs(1),
        poll_interval: Duration::from_secs(30),
        instance_id: Uuid::nil(),
    };
    Subject {
        store: Arc::new(store),
        prefix: "ld".parse().unwrap(),
        sources: Arc::new(sources),
        settings: Some(settings),
        environment_id: None,
        snapshots,
    }
}

async fn proved(held: Option<&[&str]>, old: &[Brings], new: &[Brings]) -> Result<Vec<String>, Reason> {
    let answers =
        [("old", old), ("new", new)].map(|(key, answers)| (key.to_owned(), answers.iter().copied().collect()));
    let subject = subject(held, TestSources(Mutex::new(answers.into())), TestStore::default());
    match prove::prove(&subject, "new", DEADLINE).await {
        Ok(Answer::KeyProved(proved)) => Ok(proved.missing_items),
        Ok(other) => panic!("{other:?}"),
        Err(failure) => Err(Reason::parse(&failure.reason).unwrap()),
    }
}

#[tokio::test]
async fn a_new_key_brings_what_the_present_one_brings() {
    const ALL: Brings = Ok(&["a", "b"]);
    const ONE: Brings = Ok(&["a"]);
    const NEVER: &[Brings] = &[];
    let held: Option<&[&str]> = Some(&["a", "b"]);
    for (what, held, old, new, expected) in [
        ("all that is held", held, NEVER, &[ALL][..], Ok(&[][..])),
        ("a view of it", held, &[ALL], &[ONE], Ok(&["flag/b"])),
        ("all but what was deleted since", held, &[ONE], &[ONE], Ok(&[])),
        ("what came since, from a node that was behind", held, &[ALL], &[ONE, ALL], Ok(&[])),
        ("an item in a form that is not stored", Some(&["a", "bad"]), NEVER, &[Ok(&["a", "bad"])], Ok(&[])),
        ("a view, while nothing is held", None, &[ALL], &[ONE], Ok(&["flag/b"])),
        ("something at last, where the present key never worked", None, &[Err(401)], &[ONE], Ok(&[])),
        ("less, and the present key cannot be asked", held, &[Err(401)], &[ONE], Err(Reason::UpstreamUnavailable)),
        ("nothing", held, NEVER, &[Err(401)], Err(Reason::KeyRejected)),
    ] {
        let expected = expected.map(|items: &[&str]| items.iter().map(|&item| item.to_owned()).collect::<Vec<_>>());
        assert_eq!(proved(held, old, new).await, expected, "{what}");
    }
}

#[tokio::test]
async fn a_verification_gives_way_to_environments_that_are_compared() {
    let store = TestStore { busy: AtomicU32::new(3), ..TestStore::default() };
    let item = |flag: &str| (ItemId { kind: Kind::Flag, key: flag.into() }, text(flag).into_bytes().into());
    store.model.lock().unwrap().items = [item("a"), item("c")].into();
    let sources = TestSources(Mutex::new([("old".to_owned(), [Ok(&["a", "b"][..])].into())].into()));
    let subject = subject(Some(&["a", "b"]), sources, store);
    let Ok(Answer::VerifyData(found)) = verify::verify(&subject, DEADLINE).await else { panic!("no answer") };
    let told: Vec<_> =
        found.differences.iter().map(|one| (one.key.as_str(), one.worker_version, one.store_version)).collect();
    assert_eq!(told, [("b", Some(1), None), ("c", None, Some(1))]);
    assert_eq!((found.items, found.initialized), (3, false));
}
