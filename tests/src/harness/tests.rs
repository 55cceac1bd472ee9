//! The harness on programs that every machine has.

use std::process::Command;

use redis::AsyncCommands as _;

use super::*;

const BOUND: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

#[tokio::test]
async fn redis_starts_empty_every_time_on_the_same_port() {
    if !require_tool("redis-server") {
        return;
    }
    let mut server = RedisServer::start().await.unwrap();
    let (url, mut connection) = (server.url(), server.connection().await.unwrap());
    let () = connection.set("a", 1).await.unwrap();
    server.stop();
    assert!(server.connection().await.is_err());
    server.start_again().await.unwrap();
    assert_eq!(server.url(), url);
    let mut connection = server.connection().await.unwrap();
    assert_eq!(connection.get::<_, Option<i64>>("a").await.unwrap(), None);
}

#[tokio::test]
async fn a_process_says_where_it_listens_and_obeys_signals() {
    let directory = tempfile::tempdir().unwrap();
    let script = r#"echo '{"message":"listening","http":"127.0.0.1:7"}' >&2; exec sleep 60"#;
    let mut process = Process::start("sleeper", shell(script), directory.path()).unwrap();
    let listening = process.listening(BOUND).await.unwrap();
    assert_eq!(listening.http.port(), 7);
    process.stop_sigstop();
    let stat = format!("/proc/{}/stat", process.pid());
    let is = async |state: &str| {
        wait_until("the state", BOUND, async || {
            let text = std::fs::read_to_string(&stat).map_err(|error| error.to_string())?;
            if text.contains(state) { Ok(()) } else { Err(text) }
        })
        .await;
    };
    is(") T ").await;
    process.cont();
    is(") S ").await;
    process.terminate();
    assert_eq!(process.wait(BOUND).await.unwrap().code(), None);
    assert!(!process.is_running());
}

#[tokio::test]
async fn a_process_that_ends_too_early_is_reported_with_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start("early", shell("echo the reason; exit 3"), directory.path()).unwrap();
    let error = process.listening(BOUND).await.unwrap_err().to_string();
    assert!(error.contains("exit status: 3") && error.contains("the reason"), "{error}");
    let again = Process::start("early", shell("true"), directory.path()).unwrap();
    assert_eq!(again.log(), "", "an earlier process of the name does not count");
}

#[tokio::test]
#[should_panic(expected = "not within 30ms: it happens; last state: not yet")]
async fn waiting_has_an_end() {
    wait_until("it happens", Duration::from_millis(30), async || Err::<(), _>("not yet".to_owned())).await;
}

/// Puts a script in a binary's place. Another process writes it: were it this one, a child that another test
/// forks at that moment would inherit the open file, and the kernel would refuse to run it.
fn stand_in(directory: &std::path::Path, name: &str, script: &str) {
    let mut command = shell(r#"printf '#!/bin/sh\n%s\n' "$1" >"$0" && chmod 755 "$0""#);
    assert!(command.arg(directory.join(name)).arg(script).status().unwrap().success());
}

#[tokio::test]
async fn a_fleet_is_wired_together_and_restarts_on_its_addresses() {
    if !require_tool("redis-server") {
        return;
    }
    let binaries = tempfile::tempdir().unwrap();
    let listening = r#"{"fields":{"message":"listening","grpc":"127.0.0.1:7","http":"127.0.0.1:8"}}"#;
    let server = format!("echo \"$0 $VARIABLE $*\"; echo '{listening}'; exec sleep 60");
    stand_in(binaries.path(), "flotilla-control", &server);
    stand_in(binaries.path(), "flotilla-worker", &server);
    stand_in(binaries.path(), "flotilla", "cat; echo \"$TEST_SDK_KEY $*\" >&2; exit 3");
    let builder = Fleet::builder().workers(2).binaries(binaries.path()).variable("VARIABLE", "value");
    let mut fleet = builder.worker_arguments(&["--capacity", "5"]).start().await.unwrap();

    let log = fleet.control().log();
    let (redis, uri) = (fleet.redis.url(), fleet.simulator.uri());
    assert!(log.contains("flotilla-control value --listen 127.0.0.1:0 --http-listen 127.0.0.1:0 "), "{log}");
    assert!(log.contains(&format!("--stream-uri {uri} --base-uri {uri} ")), "{log}");
    assert!(log.contains(&format!("--redis-url {redis}")), "{log}");
    let log = fleet.worker(1).log();
    assert!(log.contains("--control http://127.0.0.1:7 --name w2 ") && log.contains("--capacity 5"), "{log}");

    let output = fleet.add_environment("a", "p", "the-key", &["--wait"]).await.unwrap();
    let told = "the-key --control http://127.0.0.1:7 env add a --prefix p --sdk-key-env TEST_SDK_KEY --wait\n";
    assert_eq!((output.status, output.stderr.as_str()), (3, told));
    assert_eq!(fleet.cli_with(&[], &[], "input").await.unwrap().stdout, "input");
    let outputs = fleet.outputs().unwrap();
    assert!(outputs.iter().any(|(_, text)| text == told), "{outputs:?}");

    fleet.restart_control().await.unwrap();
    let log = fleet.control().log();
    assert!(log.contains("--listen 127.0.0.1:7 --http-listen 127.0.0.1:8 "), "{log}");
    let pid = fleet.worker(0).pid();
    fleet.restart_worker(0).await.unwrap();
    assert_ne!(fleet.worker(0).pid(), pid);
    let directory = fleet.directory().to_owned();
    drop(fleet);
    assert!(!directory.exists());
}
