//! The Redis store's operations on a real server.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::{Epoch, GrantId, Incarnation, Timestamp};
use flotilla_tests::harness::{require_tool, wait_until};
use flotilla_worker::dataset::{Authority, Dataset, Differences, Evidence, Packing};
use flotilla_worker::fence::{Fence, FenceKind, Found, Lineage};
use flotilla_worker::source::{FullPayload, ItemSpan, Kind};
use flotilla_worker::store::{Damage, FenceStep, FlagStore as _, Look, Op, Outcome, Urgency, Write};
use redis::{AsyncCommands as _, cmd};

use crate::bench::{BOUND, Bench, flag, many, snapshot, step, write};

/// A fence as another owner would have left it.
fn fence(change: impl FnOnce(&mut Fence)) -> String {
    let mut fence = Fence {
        fleet: "fleet".parse().unwrap(),
        uid: "uid".parse().unwrap(),
        lineage: Lineage::new(None, "0"),
        epoch: Epoch(5),
        grant: GrantId::parse("grant").unwrap(),
        incarnation: Incarnation { state_directory: "dir".parse().unwrap(), start_counter: 1, random: 1 },
        write: 1,
        flags: 0,
        segments: 0,
        kind: FenceKind::Serving,
    };
    change(&mut fence);
    fence.to_string()
}

/// Whatever stands in the fence, a patch, a claim, a final swap and a purge that expect something else change nothing; those
/// that expect it are done, and only once.
async fn fence_table(bench: &mut Bench) {
    let features = bench.key("features");
    let ours = fence(|_| {});
    let rows = [
        None,
        Some(ours.clone()),
        Some(fence(|f| f.fleet = "other".parse().unwrap())),
        Some("not a fence".to_owned()),
        Some(String::new()),
        Some(fence(|f| f.uid = "old".parse().unwrap())),
        Some(fence(|f| f.epoch = Epoch(6))),
        Some(fence(|f| f.write = 2)),
        Some(fence(|f| f.incarnation.start_counter = 9)),
        Some(fence(|f| f.grant = GrantId::parse("twin").unwrap())),
        Some(fence(|f| f.epoch = Epoch(4))),
        Some(fence(|f| f.kind = FenceKind::Released)),
    ];
    let everything = snapshot(&many(3, 10));
    let ops = |expected: Option<&str>| {
        [
            write(expected, "next", &[("a", "patched")], &[]),
            Op::Write(Write { step: step(expected, "next"), set: Vec::new(), remove: Vec::new(), marker: false }),
            Op::Load { step: step(expected, "next"), snapshot: Arc::clone(&everything) },
            Op::Purge(step(expected, "next")),
        ]
    };
    for row in &rows {
        for expected in &rows {
            for op in ops(expected.as_deref()) {
                cmd("FLUSHALL").exec_async(&mut bench.other).await.unwrap();
                let _: () = bench.other.hset(&features, "a", "before").await.unwrap();
                bench.put_fence(row.as_deref()).await;
                let outcome = bench.run(op.clone()).await;
                if row == expected {
                    assert!(matches!(outcome, Outcome::Done { .. }), "{row:?}: {op:?}: {outcome:?}");
                    assert_eq!(bench.look().await.found, Found::Value("next".to_owned()));
                    let again = bench.run(op.clone()).await;
                    assert!(
                        matches!(again, Outcome::Refused(Found::Value(ref value)) if value == "next"),
                        "{again:?}"
                    );
                } else {
                    let found = row.clone().map_or(Found::Absent, Found::Value);
                    assert!(
                        matches!(outcome, Outcome::Refused(ref refused) if *refused == found),
                        "{row:?}: {op:?}: {outcome:?}"
                    );
                    assert_eq!(bench.look().await.found, found);
                    assert_eq!(bench.flag("a").await.as_deref(), Some("before"));
                    assert!(!bench.look().await.marker);
                }
            }
        }
    }
}

#[tokio::test]
async fn every_row_of_the_fence_table_times_every_write() {
    let mut bench = Bench::start().await;
    fence_table(&mut bench).await;
    two_writers(&mut bench).await;
}

#[tokio::test]
async fn every_row_of_the_fence_table_times_every_write_behind_sentinels() {
    let mut bench = Bench::behind_sentinels().await;
    fence_table(&mut bench).await;
    two_writers(&mut bench).await;
}

#[tokio::test]
async fn every_row_of_the_fence_table_times_every_write_on_a_cluster() {
    let mut bench = Bench::on_a_cluster().await;
    fence_table(&mut bench).await;
    two_writers(&mut bench).await;
}

#[tokio::test]
async fn every_row_of_the_fence_table_times_every_write_with_tls_as_a_restricted_user() {
    if !require_tool("openssl") {
        return;
    }
    let mut bench = Bench::restricted().await;
    fence_table(&mut bench).await;
    two_writers(&mut bench).await;
}

/// Of two who expect the same fence one writes, and the other changes nothing, whichever way they write.
async fn two_writers(bench: &mut Bench) {
    cmd("FLUSHALL").exec_async(&mut bench.other).await.unwrap();
    let mut fence: Option<String> = None;
    for round in 0..100 {
        let next = [format!("ours-{round}"), format!("theirs-{round}")];
        let op = |writer: usize| match round % 3 {
            0 => Op::Load {
                step: step(fence.as_deref(), &next[writer]),
                snapshot: snapshot(&[("a".to_owned(), next[writer].clone())]),
            },
            _ => write(fence.as_deref(), &next[writer], &[("a", &next[writer])], &[]),
        };
        let outcomes = tokio::join!(bench.run(op(0)), bench.rival.execute(&bench.prefix, op(1)));
        let won = match &outcomes {
            (Outcome::Done { .. }, Outcome::Refused(Found::Value(found))) if *found == next[0] => 0,
            (Outcome::Refused(Found::Value(found)), Outcome::Done { .. }) if *found == next[1] => 1,
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(bench.flag("a").await.as_ref(), Some(&next[won]));
        fence = Some(next[won].clone());
    }
}

#[tokio::test]
async fn a_write_sets_removes_and_marks_in_one_step() {
    let mut bench = Bench::start().await;
    assert!(matches!(
        bench.run(write(None, "1", &[("a", "A"), ("b", "B")], &[])).await,
        Outcome::Done { flags: 2, segments: 0 }
    ));
    assert!(matches!(
        bench.run(write(Some("1"), "2", &[("a", "AA")], &["b"])).await,
        Outcome::Done { flags: 1, segments: 0 }
    ));
    assert_eq!(bench.flag("a").await.as_deref(), Some("AA"));
    assert_eq!(bench.keys().await, ["ld:test:$flotilla", "ld:test:$inited", "ld:test:features"]);
    // Without items left the hash is gone, and the marker stays.
    assert!(matches!(bench.run(write(Some("2"), "3", &[], &["a"])).await, Outcome::Done { flags: 0, segments: 0 }));
    assert_eq!(bench.keys().await, ["ld:test:$flotilla", "ld:test:$inited"]);
}

#[tokio::test]
async fn what_is_held_packed_is_loaded_written_and_compared_as_it_was_sent() {
    let mut bench = Bench::start().await;
    let items = many(300, 1_000);
    let (mut text, mut spans) = (String::new(), Vec::new());
    for (key, body) in &items {
        let start = text.len();
        text.push_str(body);
        let body = start..text.len();
        spans.push(ItemSpan { kind: Kind::Flag, key: key.as_str().into(), body, version: 1, deleted: false });
    }
    let mut dataset = Dataset::default();
    dataset.replace(&FullPayload::new(text.into(), spans, Vec::new()), Authority::Binding, Timestamp(1));
    while dataset.pack_some(Timestamp(1), Duration::ZERO) == Packing::GoesOn {}
    let snapshot = Arc::new(dataset.snapshot());
    assert!(format!("{snapshot:?}").contains("packed") && !format!("{snapshot:?}").contains("plain"));

    let load = Op::Load { step: step(None, "1"), snapshot: Arc::clone(&snapshot) };
    assert!(matches!(bench.run(load).await, Outcome::Done { flags: 300, .. }));
    for (key, body) in &items {
        assert_eq!(bench.flag(key).await.as_ref(), Some(body));
    }
    assert_eq!(bench.compare(&items, Evidence::Nothing).await.items, []);
    let _: () = bench.other.del("ld:test:features").await.unwrap();
    let compare =
        Op::Compare { snapshot: Arc::clone(&snapshot), urgency: Urgency::Now, evidence: Evidence::Nothing };
    let Outcome::Compared(found) = bench.run(compare).await else { panic!("it was not compared") };
    assert_eq!(found.items.len(), 300);
    let set = snapshot.flags.iter().map(|(key, body)| (flag(key), body.clone())).collect();
    let write = Write { step: step(Some("1"), "2"), set, remove: Vec::new(), marker: true };
    assert!(matches!(bench.run(Op::Write(write)).await, Outcome::Done { flags: 300, .. }));
    assert_eq!(bench.compare(&items, Evidence::Nothing).await.items, []);
}

#[tokio::test]
async fn a_marker_that_exists_is_left_as_it_is() {
    let mut bench = Bench::start().await;
    let _: () = bench.other.set("ld:test:$inited", "ld:test:$inited").await.unwrap();
    bench.run(write(None, "1", &[("a", "A")], &[])).await;
    let marker: String = bench.other.get("ld:test:$inited").await.unwrap();
    assert_eq!(marker, "ld:test:$inited");
}

#[tokio::test]
async fn a_staged_load_replaces_everything_and_leaves_nothing_behind() {
    let mut bench = Bench::start().await;
    bench.run(write(None, "1", &[("old", "{}")], &[])).await;
    let flags = many(5_000, 400);
    let load = Op::Load { step: step(Some("1"), "2"), snapshot: snapshot(&flags) };
    assert!(matches!(bench.run(load).await, Outcome::Done { flags: 5_000, segments: 0 }));
    assert_eq!(bench.keys().await, ["ld:test:$flotilla", "ld:test:$inited", "ld:test:features"]);
    assert_eq!(bench.flag("old").await, None);
    assert_eq!(bench.flag("flag-04999").await, Some(flags[4_999].1.clone()));
    let ttl: i64 = bench.other.ttl("ld:test:features").await.unwrap();
    assert_eq!(ttl, -1, "the staging key's time limit does not travel along");
    // An empty half is no hash at all.
    let empty = Op::Load { step: step(Some("2"), "3"), snapshot: Arc::default() };
    assert!(matches!(bench.run(empty).await, Outcome::Done { flags: 0, segments: 0 }));
    assert_eq!(bench.keys().await, ["ld:test:$flotilla", "ld:test:$inited"]);
}

/// The environment is purged and another one is made on its prefix between two steps of a staged load.
#[tokio::test]
async fn a_load_that_was_overtaken_changes_nothing_and_leaves_nothing_behind() {
    let mut bench = Bench::start().await;
    bench.run(write(None, "1", &[("old", "{}")], &[])).await;
    bench.run(Op::Purge(FenceStep { kind: FenceKind::Released, ..step(Some("1"), "2") })).await;
    bench.run(write(Some("2"), "3", &[("new", "{}")], &[])).await;
    let load = Op::Load { step: step(Some("1"), "4"), snapshot: snapshot(&many(1_000, 50)) };
    let outcome = bench.run(load).await;
    assert!(matches!(outcome, Outcome::Refused(Found::Value(ref value)) if value == "3"), "{outcome:?}");
    assert_eq!((bench.look().await.flags, bench.flag("new").await.as_deref()), (1, Some("{}")));
    wait_until("the staged keys are gone", BOUND, async || match bench.keys().await {
        keys if keys == ["ld:test:$flotilla", "ld:test:$inited", "ld:test:features"] => Ok(()),
        keys => Err(format!("{keys:?}")),
    })
    .await;
}

#[tokio::test]
async fn a_comparison_names_what_differs() {
    let mut bench = Bench::start().await;
    let flags = many(1_000, 50);
    bench.run(Op::Load { step: step(None, "1"), snapshot: snapshot(&flags) }).await;
    assert!(bench.compare(&flags, Evidence::NewerOrForeign).await.items.is_empty());
    let _: () = bench.other.hset("ld:test:features", "flag-00003", "other").await.unwrap();
    let _: () = bench.other.hdel("ld:test:features", "flag-00004").await.unwrap();
    let _: () = bench.other.hset("ld:test:features", "foreign", "{}").await.unwrap();
    let item = r#"{"key":"item","version":1}"#;
    let _: () = bench.other.hset("ld:test:features", "item", item).await.unwrap();
    let Differences { items: mut differing, foreign, stored } =
        bench.compare(&flags, Evidence::NewerOrForeign).await;
    let stored: Vec<_> = stored.into_iter().map(|stored| stored.id).collect();
    assert_eq!((stored, foreign), (vec![flag("item")], 1), "the rest is no item of LaunchDarkly's");
    differing.sort();
    assert_eq!(differing, [flag("flag-00003"), flag("flag-00004"), flag("foreign"), flag("item")]);
}

/// Over many pages, and with bodies that are no text of ours.
#[tokio::test]
async fn a_comparison_brings_back_what_the_store_holds_in_a_higher_version() {
    let mut bench = Bench::start().await;
    let item = |key: &str, version: u64| format!(r#"{{"key":"{key}","version":{version},"more":"é\u00e9"}}"#);
    let flags: Vec<_> =
        (0..1_000).map(|number| format!("flag-{number:05}")).map(|key| (key.clone(), item(&key, 5))).collect();
    bench.run(Op::Load { step: step(None, "1"), snapshot: snapshot(&flags) }).await;
    for (key, body) in [
        ("flag-00003", item("flag-00003", 6)),
        ("flag-00500", item("flag-00500", 4)),
        ("flag-00999", item("flag-00999", 7)),
        ("created", item("created", 1)),
        ("deleted", r#"{"key":"deleted","version":9,"deleted":true}"#.to_owned()),
    ] {
        let _: () = bench.other.hset("ld:test:features", key, body).await.unwrap();
    }
    for (evidence, expected) in [
        (Evidence::Nothing, vec![]),
        (Evidence::Newer, vec![("flag-00003", 6), ("flag-00999", 7)]),
        (Evidence::NewerOrForeign, vec![("created", 1), ("flag-00003", 6), ("flag-00999", 7)]),
    ] {
        let Differences { items, foreign: _, mut stored } = bench.compare(&flags, evidence).await;
        assert_eq!(items.len(), 5, "{items:?}");
        stored.sort_by(|a, b| a.id.cmp(&b.id));
        stored.dedup();
        assert_eq!(stored.iter().map(|text| (&*text.id.key, text.version)).collect::<Vec<_>>(), expected);
        for text in &stored {
            assert_eq!(*text.body, *item(&text.id.key, text.version).as_bytes(), "byte for byte");
        }
    }
}

#[tokio::test]
async fn a_wrong_type_is_named_and_nothing_is_written() {
    let mut bench = Bench::start().await;
    let _: () = bench.other.set("ld:test:segments", "text").await.unwrap();
    for op in
        [write(None, "1", &[("a", "A")], &[]), Op::Load { step: step(None, "1"), snapshot: snapshot(&many(2, 2)) }]
    {
        let Outcome::Failed(error) = bench.run(op).await else { panic!() };
        assert!(error.to_string().contains("ld:test:segments"), "{error}");
    }
    assert_eq!(bench.look().await.damage, Some(Damage::Type));
    assert!(!bench.keys().await.contains(&"ld:test:$flotilla".to_owned()));
    // A fence of a wrong type is somebody else's.
    let _: () = bench.other.del("ld:test:segments").await.unwrap();
    let _: () = bench.other.hset("ld:test:$flotilla", "a", "b").await.unwrap();
    assert_eq!(bench.look().await.found, Found::WrongType);
    assert!(matches!(bench.run(write(None, "1", &[], &[])).await, Outcome::Refused(Found::WrongType)));
}

/// Who owns the keys mends them.
#[tokio::test]
async fn under_a_fence_a_wrong_type_is_replaced_and_nothing_expires() {
    let mut bench = Bench::start().await;
    bench.run(write(None, "1", &[("a", "A")], &[])).await;
    let _: () = bench.other.set("ld:test:features", "text").await.unwrap();
    let Outcome::Failed(error) = bench.run(write(Some("1"), "2", &[("b", "B")], &[])).await else { panic!() };
    assert!(error.to_string().contains("ld:test:features"), "{error}");
    let Look { damage, flags, .. } = bench.look().await;
    assert_eq!((damage, flags), (Some(Damage::Type), 0));
    let flags = many(3, 2);
    assert_eq!(bench.compare(&flags, Evidence::Nothing).await.items.len(), 3);
    let load = Op::Load { step: step(Some("1"), "2"), snapshot: snapshot(&flags) };
    assert!(matches!(bench.run(load).await, Outcome::Done { flags: 3, segments: 0 }));
    assert_eq!(bench.look().await.damage, None);
    for key in ["features", "$inited", "$flotilla"] {
        let _: () = bench.other.expire(format!("ld:test:{key}"), 100).await.unwrap();
        assert_eq!(bench.look().await.damage, Some(Damage::Expiry), "{key}");
        bench.run(write(Some("2"), "2", &[], &[])).await;
        assert_eq!(bench.look().await.damage, None, "{key}");
    }
}

#[tokio::test]
async fn a_released_fence_expires_and_a_claim_makes_it_stay() {
    let mut bench = Bench::start().await;
    bench.run(write(None, "1", &[("a", "A")], &[])).await;
    bench.run(Op::Purge(FenceStep { kind: FenceKind::Released, ..step(Some("1"), "2") })).await;
    assert_eq!(bench.keys().await, ["ld:test:$flotilla"]);
    let ttl: i64 = bench.other.ttl("ld:test:$flotilla").await.unwrap();
    assert!((604_700..=604_800).contains(&ttl), "{ttl}");
    bench.run(write(Some("2"), "3", &[], &[])).await;
    let ttl: i64 = bench.other.ttl("ld:test:$flotilla").await.unwrap();
    assert_eq!(ttl, -1);
}

/// A foreign write to each of the four keys is told, after each kind of own write, also by scripts that had been forgotten
/// and over a new connection; own writes are not.
#[tokio::test]
async fn foreign_writes_are_told_and_own_ones_are_not() {
    let mut bench = Bench::start().await;
    let mut news = bench.store.news(&bench.prefix);
    let everything = snapshot(&many(3, 10));
    let mut fence = 0;
    bench.run(write(None, "0", &[("a", "A")], &[])).await;
    for foreign in ["features", "segments", "$inited", "$flotilla", "flush"] {
        for own in ["look", "patch", "advance", "load", "forgotten", "killed"] {
            match own {
                "forgotten" => cmd("SCRIPT").arg("FLUSH").exec_async(&mut bench.other).await.unwrap(),
                "killed" => bench.lose_connections().await,
                _ => {}
            }
            let (expected, next) = (fence.to_string(), (fence + 1).to_string());
            let expected = Some(expected.as_str());
            let op = match own {
                "patch" | "forgotten" | "killed" => write(expected, &next, &[("a", &next)], &[]),
                "advance" => Op::Write(Write {
                    step: step(expected, &next),
                    set: Vec::new(),
                    remove: Vec::new(),
                    marker: false,
                }),
                "load" => Op::Load { step: step(expected, &next), snapshot: Arc::clone(&everything) },
                _ => Op::Look,
            };
            let before = news.borrow_and_update().touched;
            let outcome = bench.run(op).await;
            if own != "look" {
                assert!(matches!(outcome, Outcome::Done { .. }), "{foreign} after {own}: {outcome:?}");
                fence += 1;
            }
            assert_eq!(news.borrow().touched, before, "our own {own} is not told");
            let other = &mut bench.other;
            match foreign {
                "flush" => cmd("FLUSHALL").exec_async(other).await.unwrap(),
                "features" | "segments" => other.hset(format!("ld:test:{foreign}"), "x", "y").await.unwrap(),
                "$inited" => other.set("ld:test:$inited", "x").await.unwrap(),
                _ => other.set("ld:test:$flotilla", fence.to_string()).await.unwrap(),
            }
            wait_until(&format!("a foreign write to {foreign} after {own} is told"), BOUND, async || {
                let touched = news.borrow().touched;
                if touched > before { Ok(()) } else { Err(format!("{touched} news")) }
            })
            .await;
            if foreign == "flush" {
                bench.run(write(None, &fence.to_string(), &[("a", "A")], &[])).await;
            }
        }
    }
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let bench = Bench::start().await;
    let mut other = bench.other.clone();
    cmd("SCRIPT").arg("FLUSH").exec_async(&mut other).await.unwrap();
    assert!(matches!(bench.run(write(None, "1", &[("a", "A")], &[])).await, Outcome::Done { .. }));
    cmd("SCRIPT").arg("FLUSH").exec_async(&mut other).await.unwrap();
    let load = Op::Load { step: step(Some("1"), "2"), snapshot: snapshot(&many(3, 3)) };
    assert!(matches!(bench.run(load).await, Outcome::Done { .. }));
}

#[tokio::test]
async fn a_lost_connection_is_made_anew_and_told() {
    let mut bench = Bench::start().await;
    let mut news = bench.store.news(&bench.prefix);
    let before = news.borrow_and_update().connection;
    cmd("CLIENT")
        .arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes")
        .exec_async(&mut bench.other)
        .await
        .unwrap();
    wait_until("a new connection is told", BOUND, async || {
        let now = news.borrow().connection;
        // Once for the loss, once for the new one.
        if now >= before + 2 { Ok(()) } else { Err(format!("connection {now}")) }
    })
    .await;
    assert_eq!(bench.look().await.found, Found::Absent);
    bench.server.as_mut().unwrap().stop();
    assert!(matches!(bench.run(Op::Look).await, Outcome::Failed(_)));
    bench.server.as_mut().unwrap().start_again().await.unwrap();
    wait_until("the restarted server answers", BOUND, async || match bench.run(Op::Look).await {
        Outcome::Looked(_) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}
