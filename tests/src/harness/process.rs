//! One child process, whose output goes to files that outlive it.

use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Addresses that a server said it listens on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// gRPC; only control has it.
    pub grpc: Option<SocketAddr>,
    /// `/livez`, `/readyz`, `/metrics`.
    pub http: SocketAddr,
}

/// A running (or ended) child. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    outputs: [Output; 2],
}

/// A file with what an earlier process of the same name wrote before `start`.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    start: usize,
}

impl Process {
    /// Starts the command. stdout and stderr are appended to `NAME.stdout` and `NAME.stderr` in `directory`.
    pub fn start(name: &str, mut command: Command, directory: &Path) -> anyhow::Result<Self> {
        let (stdout, stdout_file) = Output::open(directory.join(format!("{name}.stdout")))?;
        let (stderr, stderr_file) = Output::open(directory.join(format!("{name}.stderr")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout_file)
            .stderr(stderr_file)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", command.get_program().display()))?;
        Ok(Self { name: name.to_owned(), child, outputs: [stdout, stderr] })
    }

    /// What the process is called in messages and file names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, also after the end.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What this process wrote so far: stdout, then stderr.
    pub fn log(&self) -> String {
        self.outputs.iter().map(Output::read).collect()
    }

    /// Whether it runs (or is stopped by a signal).
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it has logged its addresses, in JSON: message `listening`, fields `http` and maybe `grpc`.
    pub async fn listening(&mut self, bound: Duration) -> anyhow::Result<Listening> {
        let waiting = async {
            loop {
                if let Some(listening) = self.log().lines().find_map(parse_listening) {
                    return Ok(listening);
                }
                if let Some(status) = self.child.try_wait()? {
                    bail!("{} ended with {status} before it listened:\n{}", self.name, self.log());
                }
                tokio::time::sleep(super::LOOK_INTERVAL).await;
            }
        };
        match tokio::time::timeout(bound, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("{} did not say where it listens:\n{}", self.name, self.log()),
        }
    }

    /// SIGTERM: asks it to end.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP: it stands still.
    pub fn stop_sigstop(&mut self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn cont(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Sends a signal; nothing happens where the process has ended.
    pub fn signal(&mut self, signal: Signal) {
        // As long as nobody waited for the child, its id cannot belong to another process.
        if self.is_running() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// Waits for the end.
    pub async fn wait(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let waiting = async {
            loop {
                if let Some(status) = self.child.try_wait()? {
                    return Ok(status);
                }
                tokio::time::sleep(super::LOOK_INTERVAL).await;
            }
        };
        match tokio::time::timeout(bound, waiting).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("{} did not end:\n{}", self.name, self.log()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
    }
}

impl Output {
    fn open(path: PathBuf) -> anyhow::Result<(Self, File)> {
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let start = usize::try_from(file.metadata()?.len()).context("the file is too long")?;
        Ok((Self { path, start }, file))
    }

    fn read(&self) -> String {
        let bytes = std::fs::read(&self.path).unwrap_or_default();
        String::from_utf8_lossy(bytes.get(self.start..).unwrap_or_default()).into_owned()
    }
}

/// Reads one JSON log line, whose fields may stand at the top or in `fields`.
fn parse_listening(line: &str) -> Option<Listening> {
    let event: serde_json::Value = serde_json::from_str(line).ok()?;
    let fields = event.get("fields").unwrap_or(&event);
    if fields.get("message")? != "listening" {
        return None;
    }
    let address = |name: &str| fields.get(name)?.as_str()?.parse().ok();
    Some(Listening { grpc: address("grpc"), http: address("http")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listening_line_is_found_in_both_forms() {
        let grpc = SocketAddr::from(([127, 0, 0, 1], 1));
        let http = SocketAddr::from(([127, 0, 0, 1], 2));
        let nested =
            r#"{"level":"INFO","fields":{"message":"listening","grpc":"127.0.0.1:1","http":"127.0.0.1:2"}}"#;
        assert_eq!(parse_listening(nested), Some(Listening { grpc: Some(grpc), http }));
        let flat = r#"{"level":"INFO","message":"listening","http":"127.0.0.1:2"}"#;
        assert_eq!(parse_listening(flat), Some(Listening { grpc: None, http }));
        assert_eq!(parse_listening(r#"{"message":"ready"}"#), None);
        assert_eq!(parse_listening("listening"), None);
    }
}
