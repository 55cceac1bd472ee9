//! Secrets that control never has: it is told where workers find them.

use std::path::{Path, PathBuf};

use flotilla_tests::harness::{Fleet, RedisServer, require_tool, wait_until};
use flotilla_tests::simulator::{Dataset, Kind, generated_flag, generated_flags};
use serde_json::Value;
use tempfile::TempDir;

use crate::stored::{BOUND, SOON, Stored, assert_stored, condition, wait_for_stored};

/// In every secret of these tests.
const TRACE: &str = "5ec2e7";
const KEY: &str = "sdk-5ec2e700-0001-4000-8000-000000000001";
const NEW_KEY: &str = "sdk-5ec2e700-0002-4000-8000-000000000002";
const PASSWORD: &str = "hunter2-5ec2e7";
const NEW_PASSWORD: &str = "hunter3-5ec2e7";
const SEED: u64 = 23;

fn data() -> Dataset {
    generated_flags(10, 900, SEED)
}

/// What is mounted on the workers' machine.
struct Mounted(TempDir);

impl Mounted {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    /// As what mounts secrets does it: a whole file in the place of the last one.
    fn put(&self, name: &str, secret: &str) {
        let new = self.0.path().join("..new");
        std::fs::write(&new, format!("{secret}\n")).unwrap();
        std::fs::rename(new, self.0.path().join(name)).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.path().join(name)).unwrap();
    }

    async fn fleet(&self) -> Fleet {
        let builder = Fleet::builder().worker_arguments(&["--secrets-dir", self.path(), "--log-level", "debug"]);
        let builder = builder.control_arguments(&["--log-level", "debug"]);
        let fleet = builder.variable("FLOTILLA_SECRET_SPREE", KEY).start().await.unwrap();
        for key in [KEY, NEW_KEY] {
            fleet.simulator.add_environment(key, Some("spree-id"), data());
        }
        fleet
    }
}

async fn told(fleet: &Fleet, arguments: &str) -> String {
    let arguments: Vec<&str> = arguments.split(' ').collect();
    let output = fleet.cli(&arguments).await.unwrap().expect_success();
    assert_eq!(output.stderr, "", "{arguments:?}");
    output.stdout
}

async fn document(fleet: &Fleet, arguments: &str) -> Value {
    serde_json::from_str(&told(fleet, arguments).await).unwrap()
}

/// Waits until the environment's condition says this, and returns its message.
async fn wait_for_reason(fleet: &Fleet, name: &str, kind: &str, reason: &str) -> String {
    wait_until(&format!("{kind} of {name} is {reason}"), BOUND, async || {
        let status = fleet.environment_status(name).await.map_err(|error| format!("{error:#}"))?;
        match condition(&status, kind).filter(|found| found["reason"] == reason) {
            Some(found) => Ok(found["message"].as_str().unwrap_or_default().to_owned()),
            None => Err(status.to_string()),
        }
    })
    .await
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// No secret is in the database or its journal, in the worker's state, or in what any program has said.
fn assert_no_secret(fleet: &Fleet) {
    let mut texts = fleet.outputs().unwrap();
    for directory in ["control", "w1"] {
        for path in files_below(&fleet.directory().join(directory)) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
            texts.push((path, text));
        }
    }
    assert!(texts.iter().any(|(path, _)| path.ends_with("control/flotilla.db")), "the database was searched");
    for (path, text) in texts {
        assert!(!text.contains(TRACE), "a secret in {}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_read_where_the_worker_runs_and_control_never_has_it() {
    let mounted = Mounted::new();
    mounted.put("spree", KEY);
    let mut fleet = mounted.fleet().await;
    for (name, reference) in [("a", "file:spree"), ("b", "env:SPREE")] {
        let added = told(&fleet, &format!("env add {name} --prefix ld:{name} --sdk-key {reference} --wait")).await;
        assert_eq!(added, format!("environment/{name} created\nenvironment/{name} current\n"));
        assert_stored(&fleet.redis, &format!("ld:{name}"), &data()).await;
        assert_eq!(fleet.environment_status(name).await.unwrap()["sdkKeyMasked"], reference);
    }
    assert_eq!(fleet.simulator.unknown_keys(), 0, "no reference was sent in the place of a key");

    // What is exported says where keys are, and is what is there.
    let exported = fleet.cli(&["export"]).await.unwrap().expect_success().stdout;
    assert!(exported.contains("worker: file:spree") && exported.contains("worker: env:SPREE"), "{exported}");
    let planned = fleet.cli_with(&["plan", "-f", "-"], &[], &exported).await.unwrap();
    assert_eq!(planned.status, 0, "{planned:?}");
    let changed = exported.replace("file:spree", "file:other");
    let planned = fleet.cli_with(&["plan", "-f", "-"], &[], &changed).await.unwrap();
    assert_eq!(planned.status, 1, "{planned:?}");
    assert!(planned.stdout.contains("sdkKey: \"file:spree\" → \"file:other\""), "{planned:?}");

    // A rotated file is used by the next connection, also of a worker that begins without control.
    mounted.put("spree", NEW_KEY);
    fleet.simulator.remove_environment(KEY);
    wait_until("the new key is used", BOUND, async || match fleet.simulator.counters(NEW_KEY).stream_connections {
        0 => Err("no stream".to_owned()),
        _ => Ok(()),
    })
    .await;
    fleet.wait_for_initialization("a", "current", BOUND).await;
    let refused = wait_for_reason(&fleet, "b", "Connected", "KeyRefused").await;
    assert!(refused.contains("401"), "a variable stays as it is: {refused}");
    fleet.control().kill9();
    fleet.restart_worker(0).await.unwrap();
    fleet.simulator.patch(NEW_KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    wait_for_stored(&fleet.redis, "ld:a", &fleet.simulator.data(NEW_KEY), BOUND).await;
    fleet.restart_control().await.unwrap();
    fleet.wait_for_initialization("a", "current", BOUND).await;
    assert_no_secret(&fleet);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_file_is_named_and_touches_nothing_and_its_coming_mends_all() {
    let mounted = Mounted::new();
    let fleet = mounted.fleet().await;
    told(&fleet, "env add late --prefix ld:late --sdk-key file:team.late").await;
    let message = wait_for_reason(&fleet, "late", "Connected", "KeyUnreadable").await;
    let expected =
        format!("the SDK key file:team.late cannot be read: no such file below --secrets-dir ({})", mounted.path());
    assert!(message.starts_with(&expected) && message.contains("or as soon as its file changes"), "{message}");
    assert!(told(&fleet, "env status late").await.contains(&expected));
    assert_eq!(fleet.simulator.total_counters().stream_connections, 0, "LaunchDarkly was not asked");
    mounted.put("team.late", KEY);
    fleet.wait_for_initialization("late", "current", SOON).await;

    // Gone again, it is missed with the next connection; what is stored stays.
    mounted.remove("team.late");
    fleet.simulator.cut_streams(KEY);
    wait_for_reason(&fleet, "late", "Connected", "KeyUnreadable").await;
    assert_eq!(fleet.environment_status("late").await.unwrap()["initialization"], "stale");
    assert_stored(&fleet.redis, "ld:late", &data()).await;
    mounted.put("team.late", KEY);
    fleet.wait_for_initialization("late", "current", SOON).await;

    for (wrong, words) in
        [("file:../late", "--secrets-dir"), ("env:path", "FLOTILLA_SECRET_NAME"), ("vault:late", "file:NAME")]
    {
        let refused = fleet.cli(&["env", "add", "wrong", "--prefix", "ld:w", "--sdk-key", wrong]).await.unwrap();
        assert_eq!(refused.status, 2, "{refused:?}");
        assert!(refused.stderr.contains(words), "{refused:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_rotated_to_a_reference_and_proved_before() {
    let mounted = Mounted::new();
    let fleet = mounted.fleet().await;
    fleet.add_environment("spree", "ld:spree", KEY, &["--wait"]).await.unwrap().expect_success();
    told(&fleet, "env rotate-key spree --sdk-key file:new --no-wait").await;
    let message = wait_for_reason(&fleet, "spree", "KeyRotation", "Retrying").await;
    assert!(message.contains("the SDK key file:new cannot be read: no such file"), "{message}");
    mounted.put("new", NEW_KEY);
    wait_for_reason(&fleet, "spree", "KeyRotation", "Replaced").await;
    assert_eq!(fleet.environment_status("spree").await.unwrap()["sdkKeyMasked"], "file:new");
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    assert!(fleet.simulator.counters(NEW_KEY).stream_connections > 0);
    fleet.simulator.patch(NEW_KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    wait_for_stored(&fleet.redis, "ld:spree", &fleet.simulator.data(NEW_KEY), BOUND).await;
}

async fn set_password(redis: &RedisServer, before: Option<&str>, password: &str) {
    let url =
        redis.url().replace("redis://", &before.map_or("redis://".to_owned(), |it| format!("redis://:{it}@")));
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(password).exec_async(&mut connection).await.unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("SKIPME").arg("yes").exec_async(&mut connection).await.unwrap();
}

async fn stored_with(redis: &RedisServer, password: &str, prefix: &str) -> Stored {
    let url = redis.url().replace("redis://", &format!("redis://:{password}@"));
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    Stored::read(&mut connection, prefix).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stores_password_is_read_with_every_connection() {
    if !require_tool("redis-server") {
        return;
    }
    let mounted = Mounted::new();
    mounted.put("spree", KEY);
    let fleet = mounted.fleet().await;
    let redis = RedisServer::start().await.unwrap();
    set_password(&redis, None, PASSWORD).await;
    let url = redis.url();
    told(&fleet, &format!("store add eu {url} --password-from file:redis")).await;
    let shown = document(&fleet, "store get eu -o json").await;
    assert_eq!((&shown["hasPassword"], &shown["passwordFrom"]), (&true.into(), &"file:redis".into()));
    assert!(told(&fleet, "store get eu").await.contains("default, with the password in file:redis"));
    let missing = fleet.cli(&["store", "check", "eu"]).await.unwrap();
    assert_eq!(missing.status, 1, "{missing:?}");
    assert!(missing.stdout.contains("the password file:redis cannot be read: no such file below"), "{missing:?}");

    told(&fleet, "env add spree --prefix ld:spree --store eu --sdk-key file:spree").await;
    let message = wait_for_reason(&fleet, "spree", "StoreAvailable", "Unavailable").await;
    assert!(message.contains("the password file:redis cannot be read"), "{message}");
    mounted.put("redis", PASSWORD);
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    told(&fleet, "store check eu").await;
    assert_eq!(stored_with(&redis, PASSWORD, "ld:spree").await.compare(&Stored::of(&data())), Ok(()));

    // A rotated password, and then its place.
    mounted.put("redis", NEW_PASSWORD);
    set_password(&redis, Some(PASSWORD), NEW_PASSWORD).await;
    fleet.simulator.patch(KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    let wanted = Stored::of(&fleet.simulator.data(KEY));
    wait_until("the patch is stored", BOUND, async || {
        stored_with(&redis, NEW_PASSWORD, "ld:spree").await.compare(&wanted)
    })
    .await;
    mounted.put("elsewhere", NEW_PASSWORD);
    mounted.remove("redis");
    told(&fleet, "store update eu --password-from file:elsewhere").await;
    fleet.wait_for_initialization("spree", "current", BOUND).await;
    told(&fleet, "store check eu").await;
    let in_url = format!("store add same {url}?password-from=file:elsewhere --dry-run");
    assert_eq!(told(&fleet, &in_url).await, "store/same created (dry run)\n");
    assert_no_secret(&fleet);
}
