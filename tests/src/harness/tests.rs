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
    assert!(
        error.contains("exit status: 3") && error.contains("the reason"),
        "{error}"
    );
    let again = Process::start("early", shell("true"), directory.path()).unwrap();
    assert_eq!(again.log(), "", "an earlier process of the name does not count");
}

#[tokio::test]
#[should_panic(expected = "not within 30ms: it happens; last state: not yet")]
async fn waiting_has_an_end() {
    wait_until("it happens", Duration::from_millis(30), async || {
        Err::<(), _>("not yet".to_owned())
    })
    .await;
}
