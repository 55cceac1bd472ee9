use std::time::Instant;

use tokio::sync::mpsc;

use super::*;
use crate::source::{Received, source_events};

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    directory: tempfile::TempDir,
    events: mpsc::Receiver<Received>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[expect(clippy::disallowed_methods, reason = "a source for the length of a test")]
fn start(first: Option<&str>) -> Running {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("flags.json");
    if let Some(text) = first {
        std::fs::write(&path, text).expect("written");
    }
    let (sender, events) = source_events();
    let file = FlagFile { directory: directory.path().to_owned(), name: "flags.json".into() };
    Running { directory, events, task: tokio::spawn(run(file, 1000, sender)) }
}

impl Running {
    fn path(&self) -> PathBuf {
        self.directory.path().join("flags.json")
    }

    async fn event(&mut self) -> SourceEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("a source").event
    }

    /// Waits until the source shows these keys; a file read while it is written may show something else first.
    async fn keys(&mut self, expected: &[&str]) {
        let mut last = None;
        let shown = timeout(PATIENCE, async {
            loop {
                let event = self.events.recv().await.expect("a source").event;
                if let SourceEvent::Payload(payload) = &event
                    && payload.items().map(|item| item.key).eq(expected.iter().copied())
                {
                    return;
                }
                last = Some(event);
            }
        });
        let is_shown = shown.await.is_ok();
        assert!(is_shown, "{expected:?} is not shown, the last event was {last:?}");
    }

    async fn failure(&mut self) -> String {
        match self.event().await {
            SourceEvent::Interrupted { failure: SourceFailure::Data { message }, .. } => message,
            other => panic!("not interrupted: {other:?}"),
        }
    }
}

fn flags(key: &str) -> String {
    format!("{{\"flags\":{{\"{key}\":{{}}}}}}")
}

#[tokio::test]
async fn a_file_is_read_and_read_again_when_it_is_written_or_replaced() {
    let mut source = start(Some(&flags("a")));
    assert!(matches!(source.event().await, SourceEvent::Connected { environment_id: None }));
    source.keys(&["a"]).await;
    for round in 0..3 {
        let key = format!("written-{round}");
        std::fs::write(source.path(), flags(&key)).expect("written");
        source.keys(&[&key]).await;
        let key = format!("renamed-{round}");
        let aside = source.directory.path().join("flags.json.new");
        std::fs::write(&aside, flags(&key)).expect("written");
        std::fs::rename(&aside, source.path()).expect("renamed");
        source.keys(&[&key]).await;
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "the time to a reload is measured")]
async fn a_change_shows_within_a_second() {
    let mut source = start(Some(&flags("a")));
    source.keys(&["a"]).await;
    let begin = Instant::now();
    std::fs::write(source.path(), flags("b")).expect("written");
    source.keys(&["b"]).await;
    // The promise is one second; a loaded machine gets four times that.
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_symbolic_link_that_is_moved_is_noticed() {
    let mut source = start(None);
    source.failure().await;
    for key in ["a", "b"] {
        let target = source.directory.path().join(format!("{key}.json"));
        std::fs::write(&target, flags(key)).expect("written");
        let link = source.directory.path().join("link");
        std::os::unix::fs::symlink(&target, &link).expect("linked");
        std::fs::rename(&link, source.path()).expect("renamed");
        source.keys(&[key]).await;
    }
}

#[tokio::test]
async fn a_bad_file_is_reported_once_by_name_and_place_and_a_good_one_recovers() {
    let mut source = start(Some("{\n \"flags\": }"));
    let message = source.failure().await;
    assert!(message.contains("flags.json") && message.contains("line 2 column 11"), "{message}");
    std::fs::write(source.path(), flags("a")).expect("written");
    source.keys(&["a"]).await;
    std::fs::remove_file(source.path()).expect("removed");
    let message = source.failure().await;
    assert!(message.contains("flags.json cannot be read"), "{message}");
    std::fs::write(source.path(), flags("b")).expect("written");
    source.keys(&["b"]).await;
}

#[tokio::test]
async fn a_directory_that_comes_later_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = FlagFile { directory: directory.path().to_owned(), name: "later/flags.yaml".into() };
    let path = file.path();
    let (sender, events) = source_events();
    #[expect(clippy::disallowed_methods, reason = "a source for the length of a test")]
    let task = tokio::spawn(run(file, 1000, sender));
    let mut source = Running { directory, events, task };
    source.failure().await;
    std::fs::create_dir(path.parent().expect("a parent")).expect("made");
    std::fs::write(&path, "flags: {a: {on: true}}").expect("written");
    source.keys(&["a"]).await;
}

#[test]
fn what_is_no_file_or_too_large_is_unreadable() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = |name: &str| FlagFile { directory: directory.path().to_owned(), name: name.into() };
    let complaint = |name: &str| match look_now(&file(name), None, 10) {
        Look::Unreadable(failure) => failure.to_string(),
        Look::Same | Look::Read(..) => panic!("it was read"),
    };
    assert!(complaint(".").contains("not a regular file"));
    let path = directory.path().join("flags");
    std::fs::write(&path, "12345678901").expect("written");
    assert!(complaint("flags").contains("limit of 10 bytes"));
    std::fs::write(&path, b"\xff").expect("written");
    assert!(matches!(look_now(&file("flags"), None, 10), Look::Read(_, result) if result.is_err()));
}

#[test]
fn a_complaint_does_not_quote_a_file_at_length() {
    let text = format!("flags:\n  ? [{}]\n  : {{}}\n  {}: &x\n", "1,".repeat(10), "k".repeat(9000));
    let failure = parse(Path::new("flags.yaml"), text.as_bytes()).expect_err("no flags").to_string();
    assert!(failure.len() < 500, "{failure}");
    let text = format!(r#"{{"flags":{{"a":{{"version":1}}}},"segments":"{}"}}"#, "x".repeat(9000));
    let failure = parse(Path::new("flags.json"), text.as_bytes()).expect_err("no segments").to_string();
    assert!(failure.len() < 500, "{failure}");
}

/// What lies elsewhere may be a secret, and what is wrong with a file is told with words from it.
#[tokio::test]
async fn a_link_is_followed_below_the_directory_only() {
    let elsewhere = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(elsewhere.path(), "flotilla_hunter2").unwrap();
    let mut running = start(None);
    running.failure().await;
    std::os::unix::fs::symlink(elsewhere.path(), running.path()).unwrap();
    let failure = running.failure().await;
    assert!(failure.contains("leads out of --file-source-dir") && !failure.contains("hunter2"), "{failure}");
    // As Kubernetes mounts a ConfigMap.
    let mounted = running.directory.path().join("..data");
    std::fs::create_dir(&mounted).unwrap();
    std::fs::write(mounted.join("flags.json"), r#"{"flags":{"a":{"version":1}}}"#).unwrap();
    std::fs::remove_file(running.path()).unwrap();
    std::os::unix::fs::symlink("..data/flags.json", running.path()).unwrap();
    running.keys(&["a"]).await;
}
