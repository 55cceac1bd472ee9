//! The SDK for PHP is not run; what it demands of the bytes in Redis is what is tested.

use std::collections::BTreeMap;

use flotilla_tests::harness::{Fleet, require_tool};
use flotilla_tests::sdks::{EvaluationFixture, demands_on_flag, demands_on_segment};
use flotilla_tests::simulator::Kind;
use serde_json::Value;

use crate::stored::Stored;

const KEY: &str = "sdk-00000000-0000-4000-8000-000000000001";
const PREFIX: &str = "readers";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_has_all_that_php_demands() {
    if !require_tool("redis-server") {
        return;
    }
    let fixture = EvaluationFixture::load().unwrap();
    let fleet = Fleet::builder().start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("readers-id"), fixture.data.clone());
    fleet.add_environment("readers", PREFIX, KEY, &["--wait"]).await.unwrap().expect_success();
    let stored = Stored::read(&mut fleet.redis.connection().await.unwrap(), PREFIX).await;
    assert_eq!(stored.flags.len(), fixture.data.len(Kind::Flag));
    assert_eq!(stored.segments.len(), fixture.data.len(Kind::Segment));
    let of = |hash: &BTreeMap<String, Vec<u8>>, demands: fn(&Value) -> Vec<String>| {
        for (key, bytes) in hash {
            let item = serde_json::from_slice(bytes).unwrap();
            assert_eq!(demands(&item), Vec::<String>::new(), "{key}");
            assert_eq!(item["key"], *key);
            assert_eq!(item["deleted"], false, "a deleted item is no field at all: {key}");
        }
    };
    of(&stored.flags, demands_on_flag);
    of(&stored.segments, demands_on_segment);
}
