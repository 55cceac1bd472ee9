//! The readers themselves, before anything of Flotilla comes between: they agree with each other, and daemon
//! mode with direct mode. Redis is filled by hand here.

use std::time::Duration;

use flotilla_tests::harness::{RedisServer, require_tool};
use flotilla_tests::sdks::{Evaluation, EvaluationFixture, Sdk, SdkReader, Source};
use flotilla_tests::simulator::{Dataset, Item, Kind, Simulator};
use redis::AsyncCommands as _;

const KEY: &str = "sdk-00000000-0000-4000-8000-000000000001";
const PREFIX: &str = "readers";
const BOUND: Duration = Duration::from_secs(30);

async fn fill(redis: &RedisServer, data: &Dataset) {
    let mut connection = redis.connection().await.unwrap();
    let mut pipe = redis::pipe();
    pipe.atomic();
    for (hash, kind) in [("features", Kind::Flag), ("segments", Kind::Segment)] {
        pipe.del(format!("{PREFIX}:{hash}")).ignore();
        for item in data.items(kind) {
            pipe.hset(format!("{PREFIX}:{hash}"), item.key(), item.json())
                .ignore();
        }
    }
    let () = pipe.query_async(&mut connection).await.unwrap();
    let () = connection.set(format!("{PREFIX}:$inited"), "").await.unwrap();
}

/// The flag with another version, turned off.
fn turned_off(data: &Dataset, key: &str) -> Item {
    let json = data.get(Kind::Flag, key).unwrap().json();
    let json = json
        .replace(r#""on": true"#, r#""on": false"#)
        .replace(r#""version": 1"#, r#""version": 2"#);
    let item = Item::parse(&json).unwrap();
    assert_eq!(item.version(), 2);
    item
}

fn value_of(evaluation: &Evaluation, flag: &str) -> serde_json::Value {
    evaluation
        .cases
        .iter()
        .find(|case| case.flag == flag)
        .unwrap()
        .value
        .clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_sdks_agree_in_daemon_and_direct_mode() {
    let sdks = Sdk::required();
    if !require_tool("redis-server") || sdks.is_empty() {
        return;
    }
    let fixture = EvaluationFixture::load().unwrap();
    let redis = RedisServer::start().await.unwrap();
    let simulator = Simulator::start().await.unwrap();
    simulator.add_environment(KEY, Some("readers"), fixture.data.clone());
    fill(&redis, &fixture.data).await;

    let daemon = Source::Daemon {
        redis_url: redis.url(),
        prefix: PREFIX.to_owned(),
    };
    let direct = Source::Direct {
        uri: simulator.uri(),
        sdk_key: KEY.to_owned(),
    };
    let start = |source: &Source| -> Vec<SdkReader> {
        sdks.iter()
            .map(|&sdk| SdkReader::start(sdk, source, &fixture.path).unwrap())
            .collect()
    };
    let (mut daemons, mut directs) = (start(&daemon), start(&direct));

    let wanted = directs[0].evaluate().await.unwrap();
    assert!(wanted.all_flags.valid);
    assert_eq!(wanted.all_flags.values.len(), fixture.data.len(Kind::Flag));
    fixture.assert_expected(&wanted);
    for flag in [
        "rollout",
        "rollout-by-name",
        "rollout-of-organisations",
        "experiment",
        "segment-by-weight",
    ] {
        let mut cases = wanted.cases.iter().filter(|case| case.flag == flag);
        let first = cases.next().unwrap();
        assert!(
            cases.any(|case| case.value != first.value),
            "{flag} puts everybody into one part"
        );
    }
    for reader in directs.iter_mut().chain(&mut daemons) {
        reader.wait_until_equal(&wanted, BOUND).await;
    }

    simulator.patch(KEY, Kind::Flag, turned_off(&fixture.data, "bool-on"));
    simulator.delete(KEY, Kind::Flag, "rollout", 2);
    fill(&redis, &simulator.data(KEY)).await;
    let changed = daemons[0].evaluate().await.unwrap();
    assert_eq!(value_of(&changed, "bool-on"), false);
    assert_eq!(
        value_of(&changed, "rollout"),
        "d",
        "a deleted flag has the default"
    );
    assert_eq!(
        value_of(&changed, "prerequisite-met"),
        "off",
        "its prerequisite is off"
    );
    for reader in directs.iter_mut().chain(&mut daemons) {
        reader.wait_until_equal(&changed, BOUND).await;
    }

    simulator.set_data(KEY, fixture.data.clone());
    simulator.cut_streams(KEY);
    fill(&redis, &fixture.data).await;
    for reader in directs.iter_mut().chain(&mut daemons) {
        reader.wait_until_equal(&wanted, BOUND).await;
    }
}
