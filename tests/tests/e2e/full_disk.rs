//! Disks that take no more: it is told, and nothing that was answered is lost.
//!
//! A process may write files up to a size only, and is told so (`EFBIG`): for SQLite and for a worker that is a full disk. What
//! it logs goes through a pipe, to a process without that limit.

use std::process::Command;

use flotilla_tests::harness::{Fleet, Process, wait_until};
use flotilla_tests::simulator::{Kind, generated_flag, generated_flags};
use serde_json::Value;

use crate::program;
use crate::stored::{BOUND, SOON, wait_for_stored};

const KEY: &str = "sdk-00000000-0000-4000-8000-000000000001";
/// More than control and its database need to start, and no more than some environments.
const CONTROL_KIB: u32 = 200;
/// Environments that certainly do not fit into it.
const TOO_MANY: usize = 200;

/// The same command, whose files may not be larger than this.
fn with_limit(command: &Command, kib: u32) -> Command {
    let script = format!("exec > >(cat) 2> >(cat >&2); trap '' XFSZ; ulimit -f {kib}; exec \"$0\" \"$@\"");
    let mut limited = Command::new("bash");
    limited.args(["-c", &script]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited
}

fn assert_says_once(text: &str, words: &str) {
    assert_eq!(text.matches(words).count(), 1, "{words:?} in {text}");
}

async fn list(fleet: &Fleet, noun: &str, field: &str) -> Vec<Value> {
    let document = fleet.cli(&[noun, "list", "-o", "json"]).await.unwrap().expect_success().json().unwrap();
    document[field].as_array().unwrap().clone()
}

/// What of an environment must be the same for ever.
fn identity(environment: &Value) -> [&Value; 5] {
    ["name", "uid", "prefix", "paused", "labels"].map(|field| &environment[field])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_ends_with_the_way_out_and_has_all_that_it_answered() {
    let mut fleet = Fleet::builder().workers(0).start().await.unwrap();
    let data = fleet.directory().join("control");
    // Something of every kind, from before.
    fleet.cli(&["store", "add", "eu", "redis://127.0.0.1:1"]).await.unwrap().expect_success();
    fleet.add_environment("before", "ld:before", KEY, &["--label", "team=a"]).await.unwrap().expect_success();
    fleet.cli(&["env", "pause", "before"]).await.unwrap().expect_success();
    fleet.control().terminate();
    assert!(fleet.control().wait(BOUND).await.unwrap().success());

    // On the addresses that it had, so that the command line finds it.
    let command = fleet.control_command(&data, fleet.control_listening()).unwrap();
    let mut full = fleet.start_process("full", with_limit(&command, CONTROL_KIB)).unwrap();
    full.listening(BOUND).await.unwrap();
    let mut created = vec!["before".to_owned()];
    let refused = loop {
        let name = format!("env-{:03}", created.len());
        let output = fleet.add_environment(&name, &format!("ld:{name}"), KEY, &[]).await.unwrap();
        if output.status != 0 {
            break (name, output);
        }
        assert_eq!(output.stdout, format!("environment/{name} created\n"));
        created.push(name);
        assert!(created.len() < TOO_MANY, "the disk is never full");
    };
    assert!(created.len() > 3, "the disk was full at once: {refused:?}");
    let (name, output) = refused;
    assert_eq!((output.status, output.stdout.as_str()), (1, ""), "{output:?}");
    assert!(output.stderr.contains("the change could not be made durable"), "{output:?}");
    let ended = full.wait(BOUND).await.unwrap();
    let log = full.log();
    assert_eq!(ended.code(), Some(1), "{log}");
    let error = log.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{log}"));
    assert_says_once(error, data.to_str().unwrap());
    for words in ["--data-dir", "make room", "start flotilla-control again", "nothing that was answered is lost"] {
        assert_says_once(error, words);
    }

    // With room again.
    fleet.restart_control().await.unwrap();
    let environments = list(&fleet, "env", "environments").await;
    let mut names: Vec<_> = environments.iter().map(|one| one["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    created.sort_unstable();
    assert_eq!(names, created, "what was answered, and {name} not");
    let before = environments.iter().find(|one| one["name"] == "before").unwrap();
    assert_eq!((&before["paused"], &before["labels"]["team"]), (&true.into(), &"a".into()));
    let stores = list(&fleet, "store", "stores").await;
    let stores: Vec<_> = stores.iter().map(|store| (&store["name"], &store["url"])).collect();
    assert!(stores.contains(&(&"eu".into(), &"redis://127.0.0.1:1".into())), "{stores:?}");
    fleet.add_environment(&name, &format!("ld:{name}"), KEY, &[]).await.unwrap().expect_success();
    fleet.restart_control().await.unwrap();
    let again = list(&fleet, "env", "environments").await;
    for one in &environments {
        assert!(again.iter().any(|other| identity(other) == identity(one)), "{one}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_does_not_start_where_it_cannot_write_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    for kib in [0, 8] {
        let data = directory.path().join(format!("data-{kib}"));
        let mut command = program::command("flotilla-control").into_std();
        command.args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--data-dir"]).arg(&data);
        let ended = program::run(with_limit(&command, kib).into()).await;
        assert_eq!(ended.status, Some(1), "{ended:?}");
        let error = ended.stderr.lines().last().unwrap();
        assert!(error.starts_with("error: "), "{ended:?}");
        assert_says_once(error, data.to_str().unwrap());
        assert_says_once(error, "--data-dir");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_not_start_where_it_cannot_write_and_says_where() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut command = program::command("flotilla-worker").into_std();
    command.args(["--name", "w1", "--http-listen", "127.0.0.1:0", "--state-dir"]).arg(&state);
    let ended = program::run(with_limit(&command, 0).into()).await;
    assert_eq!(ended.status, Some(1), "{ended:?}");
    let error = ended.stderr.lines().last().unwrap();
    let path = state.join("identity.json");
    let expected =
        format!("error: cannot write {} (see --state-dir): File too large (os error 27)", path.display());
    assert_eq!(error, expected);
    let files: Vec<_> = std::fs::read_dir(&state).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(files, ["lock"], "nothing half is left");
}

async fn wait_for_log(process: &Process, words: &str) {
    wait_until(&format!("it logs {words:?}"), SOON, async || {
        let log = process.log();
        if log.contains(words) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_disk_is_full_goes_on_writing_flags_and_warns() {
    let fleet = Fleet::builder().workers(0).start().await.unwrap();
    fleet.simulator.add_environment(KEY, Some("id"), generated_flags(5, 500, 1));
    let state = fleet.directory().join("w1");
    let command = fleet.worker_command("w1", &state).unwrap();
    let mut worker = fleet.start_process("full", with_limit(&command, 1)).unwrap();
    worker.listening(BOUND).await.unwrap();
    let names: Vec<_> = (0..8).map(|at| format!("env-{at}")).collect();
    for name in &names {
        let prefix = format!("ld:{name}");
        fleet.add_environment(name, &prefix, KEY, &["--wait"]).await.unwrap().expect_success();
    }
    wait_for_log(&worker, "assignments cannot be written: a restart without control would not find them").await;
    let log = worker.log();
    let warning = log.lines().find(|line| line.contains("assignments cannot be written")).unwrap();
    assert!(warning.contains("\"level\":\"WARN\""), "{warning}");
    assert_says_once(warning, state.join("assignments.pb").to_str().unwrap());

    fleet.simulator.patch(KEY, Kind::Flag, generated_flag(1, 2, 500, 1));
    for name in &names {
        wait_for_stored(&fleet.redis, &format!("ld:{name}"), &fleet.simulator.data(KEY), SOON).await;
        fleet.wait_for_initialization(name, "current", SOON).await;
    }
    assert!(worker.is_running());
    // What was written before is whole: a worker that has room again goes on with it.
    assert!(std::fs::metadata(state.join("assignments.pb")).unwrap().len() <= 1024);
    worker.kill9();
    let command = fleet.worker_command("w1", &state).unwrap();
    let worker = fleet.start_process("w1", command).unwrap();
    for name in &names {
        fleet.wait_for_initialization(name, "current", BOUND).await;
    }
    assert!(!worker.log().contains("cannot be written"), "{}", worker.log());
}
