//! A whole run with all that protects secrets: TLS, tokens, sealing. Whatever it writes or shows holds none of them, at any
//! moment: while it runs, after `kill -9`, and at its end.

use std::path::{Path, PathBuf};

use flotilla_tests::harness::{Fleet, RedisServer, wait_until};
use flotilla_tests::simulator::{Fault, Kind, generated_flag, generated_flags};
use tempfile::TempDir;

use super::search::{SecretList, contents_below};
use super::{SEED, shown_of_process};
use crate::access::{file, get_from};
use crate::stored::{BOUND, condition};

const KEY: &str = "sdk-5ec2e700-0001-4000-8000-000000000001";
const ROTATED_KEY: &str = "sdk-5ec2e700-0002-4000-8000-000000000002";
const PENDING_KEY: &str = "sdk-5ec2e700-0003-4000-8000-000000000003";
const REFUSED_KEY: &str = "sdk-5ec2e700-0004-4000-8000-000000000004";
const MANIFEST_KEY: &str = "sdk-5ec2e700-0005-4000-8000-000000000005";
const REFERRED_KEY: &str = "sdk-5ec2e700-0006-4000-8000-000000000006";
const PLAIN_KEY: &str = "plain-5ec2e7-key";
const SDK_KEYS: [&str; 7] = [KEY, ROTATED_KEY, PENDING_KEY, REFUSED_KEY, MANIFEST_KEY, REFERRED_KEY, PLAIN_KEY];
const DEFAULT_PASSWORD: &str = "default-5ec2e7-password";
const EU_PASSWORD: &str = "eu-5ec2e7-password";
const NEW_EU_PASSWORD: &str = "new-eu-5ec2e7-password";
const SENTINEL_PASSWORD: &str = "sentinel-5ec2e7-password";
const URL_PASSWORD: &str = "url-5ec2e7-password";
const UNKNOWN_TOKEN: &str = "flotilla_unknown-5ec2e7-token";
const CONTROL_SEALING: &str = "0a1b2c3d4e5f60718293a4b5c6d7e8f90123456789abcdeffedcba9876543210";
const WORKER_SEALING: &str = "f0e1d2c3b4a5968778695a4b3c2d1e0f00112233445566778899aabbccddeeff";

struct Run {
    fleet: Fleet,
    /// The store `default`; that of the fleet itself is the store `eu`.
    redis: RedisServer,
    /// What secrets are given in.
    given: TempDir,
    /// The directory of the audit log, which is searched.
    audit: TempDir,
    secrets: SecretList,
}

async fn set_password(redis: &RedisServer, before: Option<&str>, password: &str) {
    let url = redis.url();
    let url = before.map_or(url.clone(), |before| url.replace("redis://", &format!("redis://:{before}@")));
    let mut connection = redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("CONFIG").arg("SET").arg("requirepass").arg(password).exec_async(&mut connection).await.unwrap();
}

impl Run {
    async fn start() -> Self {
        let (given, audit) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let redis = RedisServer::start().await.unwrap();
        set_password(&redis, None, DEFAULT_PASSWORD).await;
        let give = |name: &str, secret: &str| {
            std::fs::write(given.path().join(name), format!("{secret}\n")).unwrap();
            given.path().join(name).to_str().unwrap().to_owned()
        };
        let url = give("url", &redis.url().replace("redis://", &format!("redis://:{DEFAULT_PASSWORD}@")));
        let sealing = [give("control.key", CONTROL_SEALING), give("worker.key", WORKER_SEALING)];
        let log = audit.path().join("audit.jsonl").to_str().unwrap().to_owned();
        let mut fleet = Fleet::builder()
            .workers(0)
            .secured()
            .store_url_file(Path::new(&url))
            .control_arguments(&["--encryption-key-file", &sealing[0], "--audit-log", &log])
            .control_arguments(&["--log-level", "trace"])
            .worker_arguments(&["--encryption-key-file", &sealing[1], "--log-level", "trace"])
            .variable("RUST_BACKTRACE", "1")
            .start()
            .await
            .unwrap();
        let secrets_dir = given.path().join("referred");
        std::fs::create_dir(&secrets_dir).unwrap();
        std::fs::write(secrets_dir.join("spree"), REFERRED_KEY).unwrap();
        let [cert, key, tokens] = ["tls/control.pem", "tls/control.key", "tokens/tokens.toml"];
        let [cert, key, tokens] = [cert, key, tokens].map(|name| file(&fleet, name));
        let http = ["--http-tls-cert", &cert, "--http-tls-key", &key, "--http-token-file", &tokens];
        let more = ["--secrets-dir", secrets_dir.to_str().unwrap()];
        fleet.add_worker_with(&[&http[..], &more].concat()).await.unwrap();
        for key in SDK_KEYS.into_iter().filter(|key| *key != REFUSED_KEY) {
            fleet.simulator.add_environment(key, Some("id"), generated_flags(5, 900, SEED));
        }
        let secrets = all_secrets(fleet.directory());
        Self { fleet, redis, given, audit, secrets }
    }

    fn give(&self, name: &str, secret: &str) -> String {
        let path = self.given.path().join(name);
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// A command with some of the keys in variables.
    async fn cli(&self, line: &str, input: &str) -> i32 {
        let arguments: Vec<_> = line.split(' ').collect();
        let variables = [
            ("KEY", KEY),
            ("MANIFEST_KEY", MANIFEST_KEY),
            ("PASSWORD", SENTINEL_PASSWORD),
            ("PENDING", PENDING_KEY),
        ];
        self.fleet.cli_with(&arguments, &variables, input).await.unwrap().status
    }

    async fn done(&self, line: &str, input: &str) {
        assert_eq!(self.cli(line, input).await, 0, "{line}");
    }

    /// Everything that takes a secret, well and badly.
    async fn use_secrets(&self) {
        set_password(&self.fleet.redis, None, EU_PASSWORD).await;
        let url = self.fleet.redis.url();
        let (key, password) = (self.give("key", KEY), self.give("password", EU_PASSWORD));
        self.done(&format!("store add eu {url} --password-file {password}"), "").await;
        let sentinels = "redis+sentinel://127.0.0.1:1/mymaster --sentinel-password-env PASSWORD --password-stdin";
        self.done(&format!("store add ha {sentinels} -o json"), EU_PASSWORD).await;
        self.done(&format!("store add by-url redis://:{URL_PASSWORD}@127.0.0.1:1 -o yaml"), "").await;
        self.done(&format!("env add by-file --prefix a --sdk-key-file {key} --wait -o json"), "").await;
        self.done("env add by-variable --prefix b --store eu --sdk-key-env KEY --wait", "").await;
        self.done("env add by-stdin --prefix c --sdk-key-stdin --wait -o yaml", PLAIN_KEY).await;
        self.done(&format!("env add by-option --prefix d --sdk-key {KEY} --wait"), "").await;
        self.done("env add referred --prefix e --sdk-key file:spree --wait", "").await;
        self.done(&format!("env add refused --prefix f --sdk-key {REFUSED_KEY}"), "").await;
        let manifest = "environments: [{name: applied, prefix: g, sdkKey: {env: MANIFEST_KEY}}]";
        assert_eq!(self.cli("apply -f -", manifest).await, 0, "{manifest}");

        self.done("env rotate-key by-file --sdk-key-stdin", ROTATED_KEY).await;
        assert_ne!(self.cli("env rotate-key by-stdin --sdk-key-stdin -o json", REFUSED_KEY).await, 0);
        self.fleet.simulator.set_fault(PENDING_KEY, Fault::Status(503));
        self.done("env rotate-key by-option --sdk-key-env PENDING --no-wait", "").await;
        let password = self.give("new-password", NEW_EU_PASSWORD);
        set_password(&self.fleet.redis, Some(EU_PASSWORD), NEW_EU_PASSWORD).await;
        self.done(&format!("store update eu --password-file {password}"), "").await;
        let unknown = self.give("unknown.token", UNKNOWN_TOKEN);
        assert_eq!(self.cli(&format!("env list --token-file {unknown}"), "").await, 6);
        let viewer = file(&self.fleet, "tokens/viewer.token");
        let add = format!("env add no --prefix h --sdk-key {KEY} --token-file {viewer}");
        assert_eq!(self.cli(&add, "").await, 6);
        for bad in ["--sdk-key sdk\u{a0}5ec2e7", "--sdkkey sdk-5ec2e700-0001-4000-8000-000000000001"] {
            assert_eq!(self.cli(&format!("env add bad --prefix h {bad}"), "").await, 2);
        }
        let both = format!("env update by-stdin --stream-uri http://127.0.0.1:1 --sdk-key {KEY}");
        assert_ne!(self.cli(&both, "").await, 2);
    }

    async fn show_everything(&self) {
        for noun in ["env list", "worker list", "store list", "events", "audit list", "data list by-file"] {
            for format in ["table", "wide", "json", "yaml"] {
                self.done(&format!("{noun} -o {format}"), "").await;
            }
        }
        for line in ["export", "version", "env status refused", "store get eu -o json", "worker get w1 -o json"] {
            self.done(line, "").await;
        }
        // They have to tell of what is not well.
        for line in ["status -o json", "store check ha", "store check by-url -o json", "env get by-option -o yaml"]
        {
            self.cli(line, "").await;
        }
    }

    /// The files of control and the worker, and all that was said so far.
    fn assert_nothing_in_files(&self, when: &str) -> Vec<PathBuf> {
        let directory = self.fleet.directory();
        let places = [directory.join("control"), directory.join("w1"), directory.join("logs")];
        let places = places.iter().map(PathBuf::as_path).chain([self.audit.path()]);
        let contents: Vec<_> = places.flat_map(contents_below).collect();
        for (path, content) in &contents {
            self.secrets.assert_none_in(&format!("{when}, {}", path.display()), content);
        }
        contents.into_iter().filter(|(_, content)| !content.is_empty()).map(|(path, _)| path).collect()
    }

    async fn assert_nothing_is_served(&mut self) {
        let addresses = [self.fleet.control_listening().http, self.fleet.worker_listening(0).http];
        for path in ["/status", "/metrics", "/readyz?verbose", "/livez", "/"] {
            for address in addresses {
                let (status, body) = get_from(&self.fleet, address, path, Some("tokens/viewer.token"), &[]).await;
                assert!(matches!(status, 200 | 404), "{path}: {status} {body}");
                self.secrets.assert_none_in(&format!("{address}{path}"), body.as_bytes());
            }
        }
        for pid in [self.fleet.control().pid(), self.fleet.worker(0).pid()] {
            for (path, text) in shown_of_process(pid) {
                self.secrets.assert_none_in(&path, text.as_bytes());
            }
        }
    }
}

fn all_secrets(directory: &Path) -> SecretList {
    let mut secrets = SecretList::default();
    for key in SDK_KEYS {
        secrets.add("an SDK key", key);
    }
    for password in [DEFAULT_PASSWORD, EU_PASSWORD, NEW_EU_PASSWORD, SENTINEL_PASSWORD, URL_PASSWORD] {
        secrets.add("a password of a store", password);
    }
    secrets.add("an unknown token", UNKNOWN_TOKEN);
    secrets.add_sealing_key("control's key", CONTROL_SEALING);
    secrets.add_sealing_key("the worker's key", WORKER_SEALING);
    let made = ["tls", "tokens"].into_iter().flat_map(|name| super::files_below(&directory.join(name)));
    for path in made.filter(|path| path.extension().is_some_and(|end| end == "key" || end == "token")) {
        secrets.add_file(&path);
    }
    secrets.assert_all_can_be_found();
    secrets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_run_leaves_no_secret_and_shows_none() {
    let mut run = Run::start().await;
    // 4 keys of TLS in two lines each, 7 tokens, and those above.
    assert!(run.secrets.len() >= 7 + 5 + 1 + 4 + 8 + 7, "{}", run.secrets.len());
    run.use_secrets().await;
    run.show_everything().await;

    // While it runs: a key is pending, one is refused, and the journal is there.
    let status = run.fleet.environment_status("by-option").await.unwrap();
    assert_eq!(condition(&status, "KeyRotation").unwrap()["status"], "unknown", "{status}");
    run.assert_nothing_is_served().await;
    let files = run.assert_nothing_in_files("while it runs");
    for name in ["control/flotilla.db", "control/flotilla.db-wal", "w1/assignments.pb", "audit.jsonl"] {
        assert!(files.iter().any(|path| path.ends_with(name)), "{name} is searched: {files:?}");
    }

    // Killed, and started again from what that left.
    run.fleet.control().kill9();
    run.fleet.worker(0).kill9();
    let files = run.assert_nothing_in_files("killed");
    assert!(files.iter().any(|path| path.ends_with("flotilla.db-wal")), "{files:?}");
    run.fleet.restart_worker(0).await.unwrap();
    run.fleet.restart_control().await.unwrap();
    run.fleet.wait_for_initialization("by-file", "current", BOUND).await;
    run.fleet.wait_for_initialization("by-variable", "current", BOUND).await;

    // Errors of all kinds, what was pending is proved, and the last words.
    for key in [ROTATED_KEY, KEY] {
        run.fleet.simulator.set_fault_times(key, 1, Fault::Status(503));
    }
    run.fleet.simulator.clear_fault(PENDING_KEY);
    run.fleet.simulator.cut_streams(ROTATED_KEY);
    run.fleet.simulator.patch(KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    set_password(&run.redis, Some(DEFAULT_PASSWORD), NEW_EU_PASSWORD).await;
    let fleet = &run.fleet;
    wait_until("the pending key is proved", BOUND, async || {
        let status = fleet.environment_status("by-option").await.unwrap();
        let is_proved = condition(&status, "KeyRotation").is_some_and(|found| found["reason"] == "Replaced");
        if is_proved { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    run.done("env remove referred --yes --abandon", "").await;
    run.show_everything().await;
    run.assert_nothing_is_served().await;
    run.fleet.worker(0).terminate();
    assert!(run.fleet.worker(0).wait(BOUND).await.unwrap().success());
    run.fleet.control().terminate();
    assert!(run.fleet.control().wait(BOUND).await.unwrap().success());
    run.assert_nothing_in_files("at the end");
}
