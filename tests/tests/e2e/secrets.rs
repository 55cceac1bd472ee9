//! No SDK key and no password in anything that a run leaves behind or shows, with everything logged.

// What is searched for, and how.
#[path = "secrets/search.rs"]
mod search;
// Every secret there is, with all that protects them.
#[path = "secrets/whole_run.rs"]
mod whole_run;
// What is gone once it was released.
#[path = "secrets/released.rs"]
mod released;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use flotilla_tests::harness::{Fleet, FleetBuilder, wait_until};
use flotilla_tests::simulator::{Fault, Kind, generated_flag, generated_flags};

use crate::stored::{BOUND, SOON};

/// In every key of this test, and not among the characters that a mask shows.
const TRACE: &str = "5ec2e7";
const KEY: &str = "sdk-5ec2e700-0001-4000-8000-000000000001";
const NEW_KEY: &str = "sdk-5ec2e700-0002-4000-8000-000000000002";
const UNKNOWN_KEY: &str = "sdk-5ec2e700-0003-4000-8000-000000000003";
const PLAIN_KEY: &str = "plain-5ec2e7-key";
const SEED: u64 = 17;

/// Everything that has to do with keys is done, well and badly.
async fn use_keys(fleet: &Fleet) {
    let file = fleet.directory().join("key-file");
    std::fs::write(&file, KEY).unwrap();
    let (file, keys) = (file.to_str().unwrap(), [("TEST_SDK_KEY", KEY)]);
    let commands: [(&[&str], &str); 17] = [
        (&["env", "add", "by-file", "--prefix", "a", "--sdk-key-file", file, "--wait"], ""),
        (
            &[
                "env",
                "add",
                "by-variable",
                "--prefix",
                "b",
                "--sdk-key-env",
                "TEST_SDK_KEY",
                "--wait",
                "-o",
                "yaml",
            ],
            "",
        ),
        (&["env", "add", "by-stdin", "--prefix", "c", "--sdk-key-stdin", "--wait", "-o", "json"], PLAIN_KEY),
        (&["env", "add", "by-option", "--prefix", "d", "--sdk-key", KEY, "--wait"], ""),
        (&["env", "add", "refused", "--prefix", "e", "--sdk-key", UNKNOWN_KEY], ""),
        (&["env", "add", "by-file", "--prefix", "f", "--sdk-key", KEY], ""),
        (&["env", "add", "bad", "--prefix", "f", "--sdk-key", "sdk 5ec2e7 key"], ""),
        (&["env", "add", "bad", "--prefix", "f", "--sdkkey", KEY], ""),
        (&["env", "add", "bad", "--prefix", "f", "--sdk-key", KEY, "--source", "nonsense"], ""),
        (&["env", "add", KEY, "--prefix", "f", "--sdk-key", KEY, "--timeout", KEY], ""),
        (&["env", "rotate-key", "by-file", "--sdk-key-stdin"], UNKNOWN_KEY),
        (&["env", "rotate-key", "by-file", "--sdk-key-stdin"], NEW_KEY),
        (&["env", "rotate-key", "by-variable", "--sdk-key-stdin", "--force", "-o", "json"], NEW_KEY),
        (&["env", "update", "by-option", "--display-name", "x", "--sdk-key", KEY], ""),
        (&["env", "update", "by-option", "--stream-uri", "http://127.0.0.1:1", "--sdk-key", KEY], ""),
        (&["env", "remove", "by-stdin", "--yes"], ""),
        (&["env", "get", "by-file", "-o", "yaml"], ""),
    ];
    for (arguments, input) in commands {
        let output = fleet.cli_with(arguments, &keys, input).await.unwrap();
        assert!(matches!(output.status, 0..=2 | 4), "{arguments:?}: {output:?}");
    }
    for arguments in [
        ["env", "list", "-o", "wide"].as_slice(),
        &["env", "list", "-o", "json"],
        &["env", "status", "refused"],
        &["env", "status", "refused", "-o", "json"],
        &["worker", "get", "w1", "-o", "json"],
        &["status", "-o", "json"],
        &["data", "list", "by-file"],
        &["version"],
    ] {
        fleet.cli(arguments).await.unwrap();
    }
}

fn assert_no_key(place: &str, text: &str) {
    if let Some(at) = text.find(TRACE) {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let end = text[at..].find('\n').map_or(text.len(), |length| at + length);
        panic!("a key in {place}: {}", &text[line..end]);
    }
}

/// Command line, title and environment variables of a process.
fn shown_of_process(pid: u32) -> Vec<(String, String)> {
    let read = |file: &str| {
        let path = format!("/proc/{pid}/{file}");
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        (path, text)
    };
    ["cmdline", "comm", "environ", "status"].map(read).to_vec()
}

/// All files below a directory.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.is_file() {
            files.push(path);
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_key_is_left_anywhere() {
    let holders = files_with_a_key_after(Fleet::builder()).await;
    assert!(holders.len() >= 2, "control and the worker have to keep keys, so the search finds what there is");
    for (path, mode) in holders {
        assert_eq!(mode, 0o600, "{} holds a key and has mode {mode:o}", path.display());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sealed_is_not_even_in_the_files_that_keep_it() {
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "0123456789abcdef".repeat(4)).unwrap();
    let path = keys.path().to_str().unwrap();
    let holders = files_with_a_key_after(Fleet::builder().variable("FLOTILLA_ENCRYPTION_KEY_FILE", path)).await;
    assert!(holders.is_empty(), "{holders:?}");
}

/// Does everything with keys, sees that nothing shows one, and returns the files of control and the worker that hold one,
/// with their modes.
async fn files_with_a_key_after(builder: FleetBuilder) -> Vec<(PathBuf, u32)> {
    let mut fleet = builder
        .control_arguments(&["--log-level", "trace"])
        .worker_arguments(&["--log-level", "trace"])
        .variable("RUST_BACKTRACE", "1")
        .start()
        .await
        .unwrap();
    for key in [KEY, NEW_KEY, PLAIN_KEY] {
        fleet.simulator.add_environment(key, Some("id"), generated_flags(5, 900, SEED));
    }
    use_keys(&fleet).await;
    fleet.wait_for_initialization("by-file", "current", BOUND).await;
    fleet.wait_for_initialization("by-variable", "current", BOUND).await;

    // Errors of all sorts, and both servers started anew.
    fleet.simulator.set_fault(NEW_KEY, Fault::Status(403));
    fleet.simulator.cut_streams(NEW_KEY);
    fleet.wait_for_initialization("by-file", "stale", SOON).await;
    fleet.simulator.clear_fault(NEW_KEY);
    fleet.cli(&["env", "resync", "by-file"]).await.unwrap().expect_success();
    fleet.restart_control().await.unwrap();
    fleet.restart_worker(0).await.unwrap();
    fleet.wait_for_initialization("by-file", "current", BOUND).await;
    fleet.simulator.patch(NEW_KEY, Kind::Flag, generated_flag(1, 2, 900, SEED));
    let mut shown = Vec::new();
    for path in ["/status", "/metrics", "/readyz?verbose", "/livez", "/"] {
        shown.push((format!("control {path}"), fleet.control_get(path).await.unwrap().body));
        shown.push((format!("worker {path}"), fleet.worker_get(0, path).await.unwrap().body));
    }
    for pid in [fleet.control().pid(), fleet.worker(0).pid()] {
        shown.extend(shown_of_process(pid));
    }
    // The last words too.
    for process in [0, 1] {
        let server = if process == 0 { fleet.worker(0) } else { fleet.control() };
        server.terminate();
        let ended = server.wait(BOUND).await.unwrap();
        assert!(ended.success(), "{ended}");
    }
    let outputs = fleet.outputs().unwrap();
    let size: usize = outputs.iter().map(|(_, text)| text.len()).sum();
    assert!(outputs.len() > 50 && size > 10_000, "{} outputs of {size} bytes", outputs.len());
    for (path, text) in outputs {
        assert_no_key(&path.display().to_string(), &text);
    }
    for (place, text) in shown {
        assert_no_key(&place, &text);
    }
    let directory = fleet.directory();
    let mut files: Vec<_> = ["control", "w1"].iter().flat_map(|name| files_below(&directory.join(name))).collect();
    files.retain(|path| String::from_utf8_lossy(&std::fs::read(path).unwrap()).contains(TRACE));
    let mode = |path: &PathBuf| path.metadata().unwrap().permissions().mode() & 0o777;
    files.into_iter().map(|path| (path.clone(), mode(&path))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_of_redis_is_not_shown() {
    let mut fleet = Fleet::builder().workers(0).start().await.unwrap();
    let mut connection = fleet.redis.connection().await.unwrap();
    let set =
        redis::cmd("CONFIG").arg("SET").arg("requirepass").arg("hunter2").query_async::<()>(&mut connection).await;
    set.unwrap();
    fleet.control().kill9();
    let url = fleet.redis.url().replace("redis://", "redis://:hunter2@");
    let file = fleet.directory().join("redis-url");
    std::fs::write(&file, url).unwrap();
    let mut command = crate::program::command("flotilla-control");
    command
        .args(["--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--log-format", "json"])
        .args(["--log-level", "debug"])
        .arg("--data-dir")
        .arg(fleet.directory().join("fresh"))
        .env("FLOTILLA_REDIS_URL_FILE", file);
    let logs = fleet.directory().join("logs");
    let mut control = flotilla_tests::harness::Process::start("with-password", command.into_std(), &logs).unwrap();
    let listening = control.listening(BOUND).await.unwrap();
    let status = flotilla_tests::harness::http_get(listening.http, "/status").await.unwrap();
    let texts = wait_until("it has logged", SOON, async || {
        let log = control.log();
        if log.contains("listening") { Ok([log, status.body.clone()]) } else { Err(log) }
    })
    .await;
    let process = shown_of_process(control.pid()).into_iter().map(|(_, text)| text);
    for text in texts.into_iter().chain(process) {
        assert!(!text.contains("hunter2"), "{text}");
    }
}
