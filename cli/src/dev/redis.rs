//! A Redis of our own: `redis-server` from PATH on a free port, in a temporary directory, gone when we are.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use flotilla_proto::StoreUrl;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use crate::failure::{ExitStatus, Failure};

/// Programs that speak Redis' protocol and take its options, in order of preference.
const SERVERS: [&str; 2] = ["redis-server", "valkey-server"];
/// The server ends when our end of standard input closes, which happens however we end, be it by SIGKILL.
const SUPERVISE: &str = r#"
exec 3<&0
"$@" </dev/null 3<&- & server=$!
( cat <&3 >/dev/null; kill "$server" ) & watcher=$!
exec 3<&- </dev/null
wait "$server"
kill "$watcher" 2>/dev/null
"#;
const START_TIMEOUT: Duration = Duration::from_secs(10);
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
const CALL_TIMEOUT: Duration = Duration::from_millis(500);

/// A Redis that ends with this value.
#[derive(Debug)]
pub(super) struct OwnRedis {
    supervisor: Child,
    /// Its end ends the server. Not left in the child: waiting for that would close it.
    lifeline: Option<ChildStdin>,
    port: u16,
    version: String,
    /// Deleted when the value is dropped.
    directory: tempfile::TempDir,
}

impl OwnRedis {
    /// Starts one and waits until it answers.
    pub(super) async fn start() -> Result<Self, Failure> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let Some(program) = find(std::env::split_paths(&path)) else {
            return Err(not_installed().await);
        };
        let failed = |what: String| Failure::new(ExitStatus::Failed, what);
        let directory = tempfile::Builder::new()
            .prefix("flotilla-dev-redis-")
            .tempdir()
            .map_err(|error| failed(format!("cannot make a temporary directory for Redis: {error}")))?;
        let port = free_port().map_err(|error| failed(format!("there is no free port for Redis: {error}")))?;
        let mut supervisor = spawn(&program, port, directory.path())
            .map_err(|error| failed(format!("cannot start {}: {error}", program.display())))?;
        let lifeline = supervisor.stdin.take();
        let mut redis = Self { supervisor, lifeline, port, version: String::new(), directory };
        if let Ok(true) = timeout(START_TIMEOUT, redis.answers()).await {
            return Ok(redis);
        }
        let log = redis.last_log_line();
        Err(failed(format!("{} did not start: {log}", program.display()))
            .hint("name another Redis with --redis-url"))
    }

    /// Where it is.
    pub(super) fn url(&self) -> StoreUrl {
        StoreUrl::parse("--redis-url", &format!("redis://127.0.0.1:{}", self.port))
            .expect("a host and a port make a valid URL")
    }

    /// Its version.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Resolves when it has ended unasked.
    pub(super) async fn ended(&mut self) -> Failure {
        // The status is the shell's and says nothing.
        let _ = self.supervisor.wait().await;
        Failure::new(ExitStatus::Failed, format!("Redis has ended: {}", self.last_log_line()))
    }

    /// Ends it.
    pub(super) async fn stop(mut self) {
        drop(self.lifeline.take());
        if timeout(STOP_TIMEOUT, self.supervisor.wait()).await.is_err() {
            // Dropping the child kills the shell; Redis has had its signal.
            tracing::warn!("redis did not end in time");
        }
    }

    /// Waits until it answers; `false` if it has ended instead.
    async fn answers(&mut self) -> bool {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        loop {
            if let Some(version) = version(address).await {
                self.version = version;
                return true;
            }
            if !matches!(self.supervisor.try_wait(), Ok(None)) {
                return false;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn last_log_line(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("redis.log")).unwrap_or_default();
        log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it left no log").to_owned()
    }
}

fn spawn(program: &Path, port: u16, directory: &Path) -> io::Result<Child> {
    Command::new("sh")
        .args(["-c", SUPERVISE, "sh"])
        .arg(program)
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        .args(["--daemonize", "no", "--logfile", "redis.log", "--dir"])
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C on the terminal is for us; Redis ends after the workers.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn find(mut directories: impl Iterator<Item = PathBuf>) -> Option<PathBuf> {
    directories.find_map(|directory| SERVERS.iter().map(|name| directory.join(name)).find(|path| path.is_file()))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

async fn not_installed() -> Failure {
    let failure = Failure::new(ExitStatus::Failed, "there is no redis-server in PATH to start")
        .hint("install it: `sudo apt-get install redis-server` (Debian, Ubuntu), `brew install redis` (macOS)")
        .hint("or name a Redis with --redis-url");
    // Nobody's data is touched unasked.
    if ask(SocketAddr::from((Ipv4Addr::LOCALHOST, 6379)), b"PING\r\n").await.is_some() {
        return failure.hint(
            "a Redis answers on this machine: `flotilla dev --redis-url redis://127.0.0.1:6379` would use it",
        );
    }
    failure
}

async fn version(address: SocketAddr) -> Option<String> {
    let answer = ask(address, b"INFO server\r\n").await?;
    let line = answer.lines().find_map(|line| line.strip_prefix("redis_version:"))?;
    Some(line.trim().to_owned())
}

/// The beginning of what a Redis answers; `None` if nobody answers like one.
async fn ask(address: SocketAddr, command: &[u8]) -> Option<String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(command).await?;
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await?;
        answer.truncate(length);
        io::Result::Ok(answer)
    };
    let answer = timeout(CALL_TIMEOUT, exchange).await.ok()?.ok()?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    // A simple string, an error (it may want a password) or a bulk string.
    text.starts_with(['+', '-', '$']).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_starts_answers_and_ends() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if find(std::env::split_paths(&path)).is_none() {
            assert!(std::env::var_os("CI").is_none(), "redis-server is needed");
            return;
        }
        let redis = OwnRedis::start().await.unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port));
        assert!(!redis.version().is_empty());
        assert!(ask(address, b"PING\r\n").await.unwrap().starts_with("+PONG"));
        redis.stop().await;
        assert!(ask(address, b"PING\r\n").await.is_none());
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(find([directory.path().to_owned()].into_iter()), None);
    }
}
