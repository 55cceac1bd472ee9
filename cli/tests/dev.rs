//! `flotilla dev` as a user sees it, with a Redis of its own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// More than it ever takes; reached only when something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

struct Dev {
    child: Child,
    lines: BufReader<ChildStdout>,
    seen: Vec<String>,
}

impl Dev {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_flotilla"))
            .args(["dev", "--workers", "2"])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines, seen: Vec::new() }
    }

    /// Reads on until a line holds the words; returns it.
    fn line_with(&mut self, words: &str) -> String {
        loop {
            let mut line = String::new();
            let length = self.lines.read_line(&mut line).unwrap();
            assert!(length > 0, "it ended before it said {words:?}: {:#?}", self.seen);
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn word_after<'a>(line: &'a str, label: &str) -> &'a str {
    line.trim().strip_prefix(label).unwrap().split_whitespace().next().unwrap()
}

fn redis(address: &str, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(command.as_bytes()).unwrap();
    let mut answer = vec![0; 65536];
    let length = stream.read(&mut answer).unwrap();
    answer.truncate(length);
    Some(String::from_utf8(answer).unwrap())
}

/// Waits until the answer holds the words.
fn await_answer(address: &str, command: &str, words: &str) {
    let mut last = None;
    for _ in 0..PATIENCE.as_millis() / 20 {
        last = redis(address, command);
        if last.as_ref().is_some_and(|answer| answer.contains(words)) {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{words:?} did not appear: {last:?}");
}

/// Waits until nobody listens any more.
fn await_silence(address: &str) {
    for _ in 0..PATIENCE.as_millis() / 20 {
        if TcpStream::connect(address).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("somebody still listens on {address}");
}

fn is_missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_err();
    assert!(!(missing && std::env::var_os("CI").is_some()), "{program} is needed");
    missing
}

#[test]
fn it_serves_the_sample_follows_edits_and_ends_cleanly_also_a_second_time() {
    if is_missing("redis-server") {
        println!("skipped: there is no redis-server");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for signal in [Signal::INT, Signal::TERM] {
        let mut dev = Dev::start(directory.path());
        let line = dev.line_with("Redis:");
        let address = word_after(&line, "Redis:").strip_prefix("redis://").unwrap().to_owned();
        dev.line_with("environment/dev  current");
        let get = "HGET flotilla-dev:features new-checkout\r\n";
        await_answer(&address, get, "\"new-checkout\"");
        await_answer(&address, "EXISTS flotilla-dev:$inited\r\n", ":1");

        let file = directory.path().join("flotilla-flags.json");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen("\"on\": true", "\"on\": false", 1)).unwrap();
        await_answer(&address, get, "\"on\": false");
        std::fs::write(&file, text).unwrap();
        await_answer(&address, get, "\"on\": true");

        dev.signal(signal);
        assert_eq!(dev.child.wait().unwrap().code(), Some(0));
        await_silence(&address);
    }
    assert!(directory.path().join(".flotilla-dev").is_dir());
}

#[test]
fn its_redis_ends_with_it_however_it_ends() {
    if is_missing("redis-server") {
        println!("skipped: there is no redis-server");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(directory.path());
    let line = dev.line_with("Redis:");
    let address = word_after(&line, "Redis:").strip_prefix("redis://").unwrap().to_owned();
    dev.signal(Signal::KILL);
    await_silence(&address);
}

#[test]
fn without_a_redis_it_says_how_to_get_one() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_flotilla"))
        .arg("dev")
        .env("PATH", directory.path())
        .current_dir(directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("redis-server") && text.contains("apt-get install") && text.contains("--redis-url"),
        "{text}"
    );
}
