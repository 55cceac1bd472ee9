//! The real LaunchDarkly SDKs in daemon mode, reading what Flotilla wrote, evaluate as the same SDKs do when they
//! are connected to LaunchDarkly themselves.

use flotilla_tests::harness::{Fleet, require_tool, wait_until};
use flotilla_tests::sdks::{Evaluation, EvaluationFixture, Sdk, SdkReader, Source};
use flotilla_tests::simulator::{Dataset, Item, Kind};

use crate::stored::{BOUND, SOON, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000000001";
const PREFIX: &str = "readers";

/// The flag with the next version, turned off.
fn turned_off(data: &Dataset, key: &str) -> Item {
    let json = data.get(Kind::Flag, key).unwrap().json();
    let json = json.replace(r#""on": true"#, r#""on": false"#).replace(r#""version": 1"#, r#""version": 2"#);
    let item = Item::parse(&json).unwrap();
    assert_eq!(item.version(), 2);
    item
}

fn value_of(evaluation: &Evaluation, flag: &str) -> serde_json::Value {
    evaluation.cases.iter().find(|case| case.flag == flag).unwrap().value.clone()
}

/// One reader of each SDK on the fleet's Redis, and one of each on the simulator.
struct Readers {
    daemons: Vec<SdkReader>,
    directs: Vec<SdkReader>,
}

impl Readers {
    fn start(fleet: &Fleet, sdks: &[Sdk], fixture: &EvaluationFixture) -> Self {
        let daemon = Source::Daemon { redis_url: fleet.redis.url(), prefix: PREFIX.to_owned(), more: Vec::new() };
        let direct = Source::Direct { uri: fleet.simulator.uri(), sdk_key: KEY.to_owned() };
        let start = |source: &Source| -> Vec<SdkReader> {
            sdks.iter().map(|&sdk| SdkReader::start(sdk, source, &fixture.path).unwrap()).collect()
        };
        Self { daemons: start(&daemon), directs: start(&direct) }
    }

    /// Waits until all of them, connected or not, evaluate alike, and returns how.
    async fn agree(&mut self, changed: impl Fn(&Evaluation) -> bool) -> Evaluation {
        let first = &mut self.directs[0];
        wait_until("the first connected reader has heard of the change", BOUND, async || {
            let evaluation = first.evaluate().await.map_err(|error| format!("{error:#}"))?;
            if changed(&evaluation) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        // Once more: an answer is not of one moment, and the change may have come in the middle of that one.
        let wanted = first.evaluate().await.unwrap();
        // What is stored is there already: daemon mode has no second try.
        for daemon in &mut self.daemons {
            let found = daemon.evaluate().await.unwrap();
            wanted.compare(&found).unwrap_or_else(|differences| panic!("{}: {differences}", daemon.sdk().name()));
        }
        for direct in &mut self.directs {
            direct.wait_until_equal(&wanted, BOUND).await;
        }
        wanted
    }
}

/// Hashes decide these, so that all of their variations should occur.
fn assert_spread(evaluation: &Evaluation) {
    for flag in ["rollout", "rollout-by-name", "rollout-of-organisations", "experiment", "segment-by-weight"] {
        let mut cases = evaluation.cases.iter().filter(|case| case.flag == flag);
        let first = cases.next().unwrap();
        assert!(cases.any(|case| case.value != first.value), "{flag} puts everybody into one part");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_mode_evaluates_as_a_connected_sdk_does() {
    let sdks = Sdk::required();
    if !require_tool("redis-server") || sdks.is_empty() {
        return;
    }
    let fixture = EvaluationFixture::load().unwrap();
    let fleet = Fleet::builder().start().await.unwrap();
    let simulator = &fleet.simulator;
    simulator.add_environment(KEY, Some("readers-id"), fixture.data.clone());
    let more = ["--wait", "--initial-retry-delay", "100ms"];
    fleet.add_environment("readers", PREFIX, KEY, &more).await.unwrap().expect_success();
    let mut readers = Readers::start(&fleet, &sdks, &fixture);
    let first = readers.agree(|evaluation| evaluation.all_flags.valid).await;
    assert_eq!(first.all_flags.values.len(), fixture.data.len(Kind::Flag));
    fixture.assert_expected(&first);
    assert_spread(&first);

    simulator.patch(KEY, Kind::Flag, turned_off(&fixture.data, "bool-on"));
    wait_for_stored(&fleet.redis, PREFIX, &simulator.data(KEY), SOON).await;
    let patched = readers.agree(|evaluation| value_of(evaluation, "bool-on") == false).await;
    assert_eq!(value_of(&patched, "prerequisite-met"), "off", "its prerequisite is off");

    simulator.delete(KEY, Kind::Flag, "rollout", 2);
    wait_for_stored(&fleet.redis, PREFIX, &simulator.data(KEY), SOON).await;
    let deleted = readers.agree(|evaluation| value_of(evaluation, "rollout") == "d").await;
    assert!(!deleted.all_flags.values.contains_key("rollout"), "a deleted flag is none");

    let connections = simulator.counters(KEY).stream_connections;
    simulator.cut_streams(KEY);
    wait_until("everybody is connected again", BOUND, async || {
        let now = simulator.counters(KEY).stream_connections;
        let all = connections + 1 + u64::try_from(sdks.len()).unwrap();
        if now >= all { Ok(()) } else { Err(format!("{now} of {all}")) }
    })
    .await;
    readers.agree(|evaluation| *evaluation == deleted).await;

    simulator.set_data(KEY, fixture.data.clone());
    simulator.put(KEY);
    wait_for_stored(&fleet.redis, PREFIX, &fixture.data, SOON).await;
    readers.agree(|evaluation| *evaluation == first).await;
}
