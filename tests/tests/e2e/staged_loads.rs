//! Whatever comes between two steps of a staged load, readers find the whole of what was or the whole of what is.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_tests::harness::{require_tool, wait_until};
use flotilla_worker::store::{FlagStore as _, Op, Outcome};
use futures_util::StreamExt as _;
use redis::AsyncCommands as _;
use redis::aio::PubSubStream;

use crate::bench::{BOUND, Bench, PREFIX, snapshot, step, write};

/// A hundred items are one step.
const STEPS: usize = 6;

type Flags = BTreeMap<String, String>;

/// What comes between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Flush,
    Claim,
    Patch,
    Kill,
    ScriptFlush,
}

/// A store whose steps are told.
struct Watched {
    bench: Bench,
    steps: PubSubStream,
}

fn flags(count: usize, text: &str) -> Flags {
    (0..count).map(|number| (format!("flag-{number:04}"), text.to_owned())).collect()
}

fn load(expected: Option<&str>, next: &str, flags: &Flags) -> Op {
    let flags: Vec<_> = flags.iter().map(|(key, text)| (key.clone(), text.clone())).collect();
    Op::Load { step: step(expected, next), snapshot: snapshot(&flags) }
}

fn overwrite(expected: &str, next: &str, text: &str) -> Op {
    write(Some(expected), next, &[("flag-0000", text)], &[])
}

impl Watched {
    async fn start() -> Self {
        let mut bench = Bench::start().await;
        let mut config = redis::cmd("CONFIG");
        config.arg("SET").arg("notify-keyspace-events").arg("Eh").exec_async(&mut bench.other).await.unwrap();
        let client = redis::Client::open(bench.server.as_ref().unwrap().url()).unwrap();
        let (mut sink, steps) = client.get_async_pubsub().await.unwrap().split();
        sink.subscribe("__keyevent@0__:hset").await.unwrap();
        // It ends with its sink.
        std::mem::forget(sink);
        Self { bench, steps }
    }

    /// A load of the first flags under fence "1".
    async fn begin(&mut self, first: &Flags) {
        redis::cmd("FLUSHALL").exec_async(&mut self.bench.other).await.unwrap();
        let bench = &self.bench;
        wait_until("the first load is done", BOUND, async || match bench.run(load(None, "1", first)).await {
            Outcome::Done { .. } => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        while tokio::time::timeout(Duration::from_millis(20), self.steps.next()).await.is_ok() {}
    }

    /// Waits until so many steps were made; then something comes between.
    async fn come_between(&mut self, after: usize, between: Between) {
        for _ in 0..after {
            self.steps.next().await.unwrap();
        }
        let Bench { rival, prefix, other: redis, .. } = &mut self.bench;
        match between {
            Between::Flush => redis::cmd("FLUSHALL").exec_async(redis).await.unwrap(),
            Between::ScriptFlush => redis::cmd("SCRIPT").arg("FLUSH").exec_async(redis).await.unwrap(),
            Between::Kill => {
                let mut kill = redis::cmd("CLIENT");
                kill.arg("KILL")
                    .arg("TYPE")
                    .arg("normal")
                    .arg("SKIPME")
                    .arg("yes")
                    .exec_async(redis)
                    .await
                    .unwrap();
            }
            Between::Claim => drop(rival.execute(prefix, overwrite("1", "another", "another")).await),
            // A late one of our own: it expects what stood there before.
            Between::Patch => drop(rival.execute(prefix, overwrite("0", "late", "late")).await),
        }
    }

    async fn stored(&mut self) -> (Option<String>, Flags) {
        let mut pipe = redis::pipe();
        pipe.atomic().get(format!("{PREFIX}:$flotilla")).hgetall(format!("{PREFIX}:features"));
        pipe.query_async(&mut self.bench.other).await.unwrap()
    }
}

#[tokio::test]
async fn whatever_comes_between_two_steps_of_a_load_leaves_no_half_of_it() {
    if !require_tool("redis-server") {
        return;
    }
    let mut watched = Watched::start().await;
    let (first, second) = (flags(50, "first"), flags(STEPS * 100, "second"));
    let mut claimed = first.clone();
    claimed.insert("flag-0000".to_owned(), "another".to_owned());
    let kinds = [Between::Flush, Between::Claim, Between::Patch, Between::Kill, Between::ScriptFlush];
    let mut whole = [0; 2];
    for (between, after) in kinds.into_iter().flat_map(|between| (0..=STEPS).map(move |after| (between, after))) {
        watched.begin(&first).await;
        let next = format!("2-{between:?}-{after}");
        let loading = watched.bench.store.execute(&watched.bench.prefix, load(Some("1"), &next, &second));
        let (outcome, ()) = tokio::join!(loading, watched.come_between(after, between));
        let (fence, found) = watched.stored().await;
        let told = format!("{between:?} after {after} steps: {outcome:?}, fence {fence:?}, {} flags", found.len());
        let is_done = fence.as_deref() == Some(next.as_str());
        whole[usize::from(is_done)] += 1;
        match (between, is_done) {
            (Between::Flush, false) => assert!(found.is_empty() && fence.is_none(), "{told}"),
            (Between::Claim, false) => {
                assert_eq!((fence.as_deref(), &found), (Some("another"), &claimed), "{told}");
            }
            (Between::Patch | Between::Kill | Between::ScriptFlush, false) => {
                assert_eq!((fence.as_deref(), &found), (Some("1"), &first), "{told}");
            }
            (_, true) => assert_eq!(found, second, "{told}"),
        }
        let claims_to_be_done = matches!(outcome, Outcome::Done { .. });
        assert!(!claims_to_be_done || is_done || between == Between::Flush, "{told}");
        // What a load leaves behind expires by itself, if it is there at all.
        let staged: Vec<String> = watched.bench.other.keys(format!("{PREFIX}:$flotilla:stage:*")).await.unwrap();
        for key in staged {
            let ttl: i64 = watched.bench.other.ttl(&key).await.unwrap();
            assert_ne!(ttl, -1, "{told}: {key} stays for ever");
        }
    }
    assert!(whole[0] > 5 && whole[1] > 5, "{whole:?}: nothing came between, or everything did");
}
