//! What `--insecure` says, once, and what is not done without it.
//!
//! The servers listen on `::ffff:127.0.0.1`: by its address that is not loopback, and nobody else reaches it.

use flotilla_tests::harness::Process;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{command, run};
use crate::stored::BOUND;

const ANYWHERE: &str = "[::ffff:127.0.0.1]:0";

async fn start(program: &str, directory: &TempDir, arguments: &[&str]) -> Process {
    let mut command = command(program);
    command.args(["--log-format", "json"]).args(arguments).current_dir(directory.path());
    let mut process = Process::start(program, command.into_std(), directory.path()).unwrap();
    process.listening(BOUND).await.unwrap();
    process
}

/// All that was logged at WARN: message, and the fields that say what is given up.
fn warnings(process: &Process) -> Vec<[String; 3]> {
    let log = process.log();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let warnings = lines.filter(|line| line["level"] == "WARN");
    warnings
        .map(|line| {
            let fields = line.get("fields").unwrap_or(&line);
            ["message", "without", "consequence"].map(|name| fields[name].as_str().unwrap_or_default().to_owned())
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_says_once_what_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let mut init = command("flotilla");
    init.args(["init", "tls", "tls"]).current_dir(directory.path());
    assert_eq!(run(init).await.status, Some(0));
    let mut init = command("flotilla");
    init.args(["init", "tokens", "tokens", "--worker", "w1"]).current_dir(directory.path());
    assert_eq!(run(init).await.status, Some(0));
    let tls = ["--tls-cert", "tls/control.pem", "--tls-key", "tls/control.key"];
    let tokens = ["--token-file", "tokens/tokens.toml", "--worker-token-file", "tokens/workers.toml"];
    for (more, without, consequence) in [
        (&[][..], "TLS and tokens", "whoever reaches the ports can do everything, and all data travels readably"),
        (&tls, "tokens or client certificates", "whoever reaches the ports can do everything"),
        (&tokens, "TLS", "tokens and all data travel readably, and nobody can tell this server from another"),
    ] {
        let listen = ["--listen", ANYWHERE, "--http-listen", ANYWHERE, "--insecure"];
        let mut control = start("flotilla-control", &directory, &[&listen[..], more].concat()).await;
        let message = "listening beyond loopback with --insecure";
        assert_eq!(warnings(&control), [[message, without, consequence]], "{}", control.log());
        control.terminate();
        assert!(control.wait(BOUND).await.unwrap().success());
    }
    // With both there is nothing to give up, whatever the option says.
    let listen = ["--listen", ANYWHERE, "--http-listen", ANYWHERE];
    for more in [&[][..], &["--insecure"]] {
        let control = start("flotilla-control", &directory, &[&listen, &tls[..], &tokens, more].concat()).await;
        assert_eq!(warnings(&control), [[""; 3]; 0]);
    }
    let on_loopback = ["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--insecure"];
    let control = start("flotilla-control", &directory, &on_loopback).await;
    assert_eq!(warnings(&control), [[""; 3]; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_says_once_what_is_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let readable = "whoever is on the way can read SDK keys and passwords, and be control or this worker";
    let far = ["control is reached without TLS, with --insecure", "", readable];
    let http = [
        "serving HTTP beyond loopback with --insecure",
        "TLS and tokens",
        "whoever reaches the port can read the metrics, names of environments included",
    ];
    // Port 1 of the same machine: nobody listens there, and no name is asked for.
    let (away, near) = ("http://[::ffff:127.0.0.1]:1", "http://127.0.0.1:1");
    for (control, listen, expected) in [
        (near, ANYWHERE, &[http][..]),
        (away, "127.0.0.1:0", &[far]),
        (away, ANYWHERE, &[http, far]),
        (near, "127.0.0.1:0", &[]),
    ] {
        let arguments = ["--name", "w1", "--control", control, "--http-listen", listen, "--insecure"];
        let worker = start("flotilla-worker", &directory, &arguments).await;
        let given_up: Vec<_> =
            warnings(&worker).into_iter().filter(|[message, ..]| message.contains("--insecure")).collect();
        assert_eq!(given_up, expected, "{}", worker.log());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_does_not_go_to_another_machine_without_tls() {
    let directory = tempfile::tempdir().unwrap();
    // The second of several is looked at too.
    let several = "http://127.0.0.1:7400,http://control.invalid:7400";
    for (control, shown) in [
        ("http://control.invalid:7400", "http://control.invalid:7400"),
        ("http://192.0.2.1:7400", "http://192.0.2.1:7400"),
        (several, "http://control.invalid:7400"),
    ] {
        let mut worker = command("flotilla-worker");
        worker.args(["--name", "w1", "--control", control]).current_dir(directory.path());
        let ended = run(worker).await;
        assert_eq!(ended.status, Some(2), "{ended:?}");
        for words in [shown, "without TLS keys and tokens would travel readably", "https://", "--insecure"] {
            assert!(ended.stderr.contains(words), "{words:?} in {}", ended.stderr);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "it has not even begun");
    }
}
