//! Who asked for what, as the shipped programs record it and show it.

use std::path::{Path, PathBuf};

use flotilla_tests::harness::{CliOutput, Fleet, wait_until};
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use serde_json::Value;
use tempfile::TempDir;

use crate::stored::BOUND;

/// In every secret of this test, and not among the characters that a mask shows.
const TRACE: &str = "5ec2e7";
const KEY: &str = "sdk-5ec2e700-0001-4000-8000-000000000001";
const NEW_KEY: &str = "sdk-5ec2e700-0002-4000-8000-000000000002";
const PASSWORD: &str = "password-5ec2e7";

struct Audited {
    fleet: Fleet,
    files: TempDir,
}

impl Audited {
    async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let tokens = files.path().join("tokens");
        let mut init = crate::program::command("flotilla");
        init.args(["init", "tokens", "--worker", "*"]).arg(&tokens);
        let made = crate::program::run(init).await;
        assert_eq!(made.status, Some(0), "{made:?}");
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let [api, workers, worker] =
            ["tokens.toml", "workers.toml", "workers-.token"].map(|name| text(tokens.join(name)));
        let log = text(files.path().join("audit.jsonl"));
        let fleet = Fleet::builder()
            .control_arguments(&["--token-file", &api, "--worker-token-file", &workers, "--audit-log", &log])
            .worker_arguments(&["--token-file", &worker])
            .start()
            .await
            .unwrap();
        for key in [KEY, NEW_KEY] {
            fleet.simulator.add_environment(key, Some("id"), generated_flags(5, 200, 3));
        }
        Self { fleet, files }
    }

    fn token_file(&self, role: &str) -> String {
        self.files.path().join("tokens").join(format!("{role}.token")).to_str().unwrap().to_owned()
    }

    /// `flotilla --token-file ROLE.token WORDS…`
    async fn cli(&self, role: &str, line: &str) -> CliOutput {
        let token = self.token_file(role);
        let mut words = vec!["--token-file", token.as_str()];
        words.extend(line.split(' '));
        let variables = [("KEY", KEY), ("NEW_KEY", NEW_KEY)];
        self.fleet.cli_with(&words, &variables, PASSWORD).await.unwrap()
    }

    async fn done(&self, role: &str, line: &str) -> CliOutput {
        self.cli(role, line).await.expect_success()
    }

    async fn list(&self, more: &str) -> Vec<Value> {
        let output = self.done("admin", &format!("audit list --limit 1000 -o json{more}")).await;
        output.json().unwrap()["records"].as_array().unwrap().clone()
    }

    fn lines(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.files.path().join("audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until so many are recorded.
    async fn until(&self, count: usize) -> Vec<Value> {
        wait_until(&format!("{count} records"), BOUND, async || {
            let records = self.list("").await;
            if records.len() >= count { Ok(records) } else { Err(format!("{records:#?}")) }
        })
        .await
    }

    /// Waits until the lines are the records.
    async fn lines_are(&self, records: &[Value]) {
        wait_until("the lines are the records", BOUND, async || {
            let lines = self.lines();
            if lines == records { Ok(()) } else { Err(format!("{} of {}: {lines:#?}", lines.len(), records.len())) }
        })
        .await;
    }
}

/// Who, what, about what, what else, and what came of it.
fn shown(record: &Value) -> String {
    let text = |name: &str| record[name].as_str().unwrap_or("-").to_owned();
    let result = record["reason"].as_str().or(record["code"].as_str()).unwrap_or_default();
    let call = text("call");
    let method = call.split('/').next_back().unwrap();
    format!("{} {method} {} [{}] {result}", text("actor"), text("subject"), text("details"))
}

fn write_manifest(path: &Path, environments: &str) {
    std::fs::write(path, format!("environments:\n{environments}")).unwrap();
}

/// Does everything that changes something; returns what is to be recorded of it.
async fn change_everything(audited: &Audited) -> Vec<&'static str> {
    let url = audited.fleet.redis.url();
    audited.done("admin", "env add spree --prefix p --sdk-key-env KEY --wait").await;
    for line in ["env pause spree", "env resume spree", "env resync spree"] {
        audited.done("operator", line).await;
    }
    audited.done("admin", "env update spree --display-name Spree").await;
    audited.done("admin", "env rotate-key spree --sdk-key-env NEW_KEY --force --no-wait").await;
    audited.done("admin", "env wait spree --for current").await;
    // A change that no event tells of.
    let mut changed = generated_flags(5, 200, 3);
    changed.insert(Kind::Flag, generated_flag(1, 2, 200, 3));
    audited.fleet.simulator.set_data(NEW_KEY, changed);
    audited.cli("operator", "data verify spree --repair --request-timeout 1m").await;
    for verb in ["cordon", "uncordon", "drain", "uncordon"] {
        audited.done("operator", &format!("worker {verb} w1")).await;
    }
    audited.cli("admin", "worker forget w1 --yes").await;
    audited.done("admin", &format!("store add eu {url}/3 --username u --password-stdin")).await;
    audited.done("admin", "store update eu --password-stdin").await;
    audited.cli("operator", "store check eu").await;
    audited.done("admin", "store remove eu --yes").await;
    let manifest = audited.files.path().join("e.yaml");
    let entry = |name: &str, prefix: &str| {
        format!("- {{name: {name}, prefix: {prefix}, sdkKey: {{env: KEY}}, labels: {{managed-by: git}}}}\n")
    };
    write_manifest(&manifest, &(entry("a", "a") + &entry("taken", "p")));
    audited.cli("admin", &format!("apply -f {}", manifest.display())).await;
    write_manifest(&manifest, &entry("b", "b"));
    audited.done("admin", &format!("apply -f {} --prune --yes", manifest.display())).await;
    audited.done("admin", "env remove spree --purge --yes").await;
    vec![
        "admin CreateEnvironment environment/spree [-] OK",
        "operator PauseEnvironment environment/spree [-] OK",
        "operator ResumeEnvironment environment/spree [-] OK",
        "operator ResyncEnvironment environment/spree [-] OK",
        "admin UpdateEnvironment environment/spree [displayName] OK",
        "admin RotateSdkKey environment/spree [force] OK",
        "operator VerifyData environment/spree [repair] OK",
        "operator CordonWorker worker/w1 [-] OK",
        "operator UncordonWorker worker/w1 [-] OK",
        "operator DrainWorker worker/w1 [-] OK",
        "operator UncordonWorker worker/w1 [-] OK",
        "admin DeleteWorker worker/w1 [-] WORKER_CONNECTED",
        "admin CreateStore store/eu [-] OK",
        "admin UpdateStore store/eu [login.password] OK",
        "operator CheckStore store/eu [-] OK",
        "admin DeleteStore store/eu [-] OK",
        "admin BatchApplyEnvironments environment/a [created] OK",
        "admin BatchApplyEnvironments environment/taken [-] PREFIX_TAKEN",
        "admin BatchApplyEnvironments environment/b [created, prune, acceptBlastRadius] OK",
        "admin BatchApplyEnvironments environment/a [removed, prune, acceptBlastRadius] OK",
        "admin DeleteEnvironment environment/spree [purge] OK",
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_change_and_every_refusal_has_one_record() {
    let mut audited = Audited::start().await;
    let expected = change_everything(&audited).await;
    let records = audited.list("").await;
    assert_eq!(records.iter().map(shown).collect::<Vec<_>>(), expected);
    for record in &records {
        let role = record["role"].as_str().unwrap();
        assert_eq!(record["actor"], role, "init names the tokens after their roles");
        assert!(record["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{record}");
        assert!(record["time"].as_str().unwrap().ends_with('Z'), "{record}");
    }

    // A viewer changes nothing, a dry run either, and a token that is none is nobody's.
    audited.done("admin", "env pause b --dry-run").await;
    assert_eq!(audited.cli("viewer", "env pause b").await.status, 6);
    assert_eq!(audited.cli("viewer", "audit list").await.status, 6);
    std::fs::write(audited.token_file("wrong"), format!("flotilla_{TRACE}")).unwrap();
    assert_eq!(audited.cli("wrong", "env list").await.status, 6);
    let all = audited.until(expected.len() + 3).await;
    assert_eq!(
        all[expected.len()..].iter().map(shown).collect::<Vec<_>>(),
        [
            "viewer PauseEnvironment - [-] ROLE_TOO_SMALL",
            "viewer ListAuditRecords - [-] ROLE_TOO_SMALL",
            "- ListEnvironments - [-] CREDENTIAL_UNKNOWN",
        ]
    );
    audited.lines_are(&all).await;

    // What is asked for is found.
    assert_eq!(audited.list(" --refused").await.len(), 5);
    assert_eq!(audited.list(" --actor viewer --since 1h").await.len(), 2);
    assert_eq!(audited.list(" --subject store/eu").await.len(), 4);
    assert_eq!(audited.list(" --subject environment/* --actor operator").await.len(), 4);
    let table = audited.done("admin", "audit list -n 2").await.stdout;
    assert_eq!(table.lines().count(), 3, "{table}");
    assert!(table.starts_with("TIME") && table.contains("ROLE_TOO_SMALL") && table.contains("CREDENTIAL_UNKNOWN"));
    let names = audited.done("admin", "audit list -n 1 -o name").await.stdout;
    assert!(names.starts_with("audit/"), "{names}");

    // All are there after a crash, and it goes on.
    audited.fleet.control().kill9();
    audited.fleet.restart_control().await.unwrap();
    assert_eq!(audited.list("").await, all);
    audited.done("operator", "env pause b").await;
    let after = audited.until(all.len() + 1).await;
    assert_eq!(after[..all.len()], all[..]);
    audited.lines_are(&after).await;
    nothing_secret(&audited);
}

/// Neither keys nor passwords nor tokens are in what control and the command line have shown and written.
fn nothing_secret(audited: &Audited) {
    let tokens = ["viewer", "operator", "admin", "workers-"].map(|role| {
        let token = std::fs::read_to_string(audited.token_file(role)).unwrap();
        token.trim().to_owned()
    });
    let mut texts = audited.fleet.outputs().unwrap();
    let log = audited.files.path().join("audit.jsonl");
    let text = std::fs::read_to_string(&log).unwrap();
    texts.push((log, text));
    for (path, text) in texts {
        assert!(!text.contains(TRACE), "a secret in {}", path.display());
        assert!(tokens.iter().all(|token| !text.contains(token)), "a token in {}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tail_goes_on_across_a_restart_of_control() {
    let mut audited = Audited::start().await;
    audited.done("admin", "env add spree --prefix p --sdk-key-env KEY --wait").await;
    audited.done("operator", "env pause spree").await;
    let token = audited.token_file("admin");
    let command =
        audited.fleet.cli_command(&["--token-file", &token, "audit", "tail", "-n", "1", "-o", "json"]).unwrap();
    let tail = audited.fleet.start_process("tail", command).unwrap();
    let subjects = |count: usize| {
        let tail = &tail;
        async move {
            wait_until(&format!("the tail shows {count}"), BOUND, async || {
                let log = tail.log();
                let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
                if lines.len() >= count { Ok(lines.iter().map(shown).collect::<Vec<_>>()) } else { Err(log) }
            })
            .await
        }
    };
    assert_eq!(subjects(1).await, ["operator PauseEnvironment environment/spree [-] OK"]);
    audited.done("operator", "env resume spree").await;
    assert_eq!(subjects(2).await[1], "operator ResumeEnvironment environment/spree [-] OK");
    audited.fleet.control().kill9();
    audited.fleet.restart_control().await.unwrap();
    audited.done("admin", "env remove spree --yes").await;
    assert_eq!(subjects(3).await[2], "admin DeleteEnvironment environment/spree [-] OK");
}
