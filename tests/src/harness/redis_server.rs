//! A Redis of the test's own.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tempfile::TempDir;

use super::process::Process;
use super::tls::{TlsArguments, TlsFiles};

/// Until a server answers. A loaded machine needs more than the usual 20 ms.
const START_BOUND: Duration = Duration::from_secs(15);
/// Of one call over a test's own connection.
const CALL_BOUND: Duration = Duration::from_secs(15);
/// A port that was free may be taken a moment later.
const START_ATTEMPTS: usize = 5;

/// `redis-server` from `PATH`, without persistence, on a free port. It is killed when this is dropped.
#[derive(Debug)]
pub struct RedisServer {
    directory: TempDir,
    port: u16,
    tls_port: Option<u16>,
    arguments: Vec<String>,
    process: Process,
}

impl RedisServer {
    /// Starts an empty server and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// As [`RedisServer::start`], with more arguments for `redis-server`. It must answer without a password; one
    /// can be set by `CONFIG SET` afterwards.
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        Self::launch_with(arguments, None).await
    }

    /// As [`RedisServer::start_with`], and it also listens with TLS; clients must show a certificate there.
    pub async fn start_with_tls(arguments: &[&str], tls: &TlsFiles) -> anyhow::Result<Self> {
        Self::launch_with(arguments, Some(tls)).await
    }

    pub(super) async fn launch_with(arguments: &[&str], tls: Option<&TlsFiles>) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            let directory = tempfile::tempdir().context("cannot make a directory for Redis")?;
            let port = free_port()?;
            let TlsArguments { port: tls_port, words } = TlsArguments::new(tls)?;
            let arguments: Vec<String> =
                arguments.iter().map(|&argument| argument.to_owned()).chain(words).collect();
            let process = launch(directory.path(), port, &arguments)?;
            let mut server = Self { directory, port, tls_port, arguments, process };
            match server.wait_until_ready().await {
                Ok(()) => return Ok(server),
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// The port, the same after every start.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What others are told: the port with TLS, where there is one.
    pub fn announced_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// `redis://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A new connection.
    pub async fn connection(&self) -> anyhow::Result<MultiplexedConnection> {
        let client = redis::Client::open(self.url())?;
        // The client's own limit is half a second, which a loaded machine may need.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CALL_BOUND))
            .set_response_timeout(Some(CALL_BOUND));
        client
            .get_multiplexed_async_connection_with_config(&config)
            .await
            .with_context(|| format!("cannot connect to {}", self.url()))
    }

    /// `master` or `slave`, as it says itself.
    pub async fn role(&self) -> anyhow::Result<String> {
        redis_info(&mut self.connection().await?, "replication").await?.remove("role").context("no role")
    }

    /// How often it has carried this command out since it started; refusals do not count.
    pub async fn calls(&self, command: &str) -> anyhow::Result<u64> {
        let stats = redis_info(&mut self.connection().await?, "commandstats").await?;
        let Some(stat) = stats.get(&format!("cmdstat_{command}")) else { return Ok(0) };
        let calls = stat.strip_prefix("calls=").and_then(|rest| rest.split(',').next()).context("no calls")?;
        Ok(calls.parse()?)
    }

    /// The server's process, for signals.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Kills the server; its data are gone.
    pub fn stop(&mut self) {
        self.process.kill9();
    }

    /// Starts an empty server on the same port, after [`RedisServer::stop`].
    pub async fn start_again(&mut self) -> anyhow::Result<()> {
        let mut attempt = 1;
        loop {
            self.stop();
            self.process = launch(self.directory.path(), self.port, &self.arguments)?;
            match self.wait_until_ready().await {
                Ok(()) => return Ok(()),
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                // A client's own port may sit on ours for a moment.
                Err(_) => attempt += 1,
            }
        }
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let url = self.url();
        let process = &mut self.process;
        let waiting = async {
            loop {
                if !process.is_running() {
                    bail!("redis-server ended:\n{}", process.log());
                }
                // Another server may have the port: it has another process id.
                if ask_process_id(&url).await == Some(process.pid()) {
                    return Ok(());
                }
                tokio::time::sleep(super::LOOK_INTERVAL).await;
            }
        };
        tokio::time::timeout(START_BOUND, waiting).await.context("redis-server did not answer in time")?
    }
}

/// The process id of the server that answers at `url`, if one does.
async fn ask_process_id(url: &str) -> Option<u32> {
    let client = redis::Client::open(url).ok()?;
    let mut connection = client.get_multiplexed_async_connection().await.ok()?;
    redis_info(&mut connection, "server").await.ok()?.get("process_id")?.parse().ok()
}

/// What a server tells of itself in a section of `INFO`, by name.
pub async fn redis_info(
    connection: &mut MultiplexedConnection,
    section: &str,
) -> RedisResult<HashMap<String, String>> {
    let text: String = redis::cmd("INFO").arg(section).query_async(connection).await?;
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
}

fn launch(directory: &Path, port: u16, arguments: &[String]) -> anyhow::Result<Process> {
    let mut command = Command::new("redis-server");
    command
        .current_dir(directory)
        .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
        // Else a replica waits five seconds for others that might come.
        .args(["--repl-diskless-sync-delay", "0"])
        .args(["--port", &port.to_string()])
        .args(arguments);
    Process::start("redis-server", command, directory)
}

/// A port that nobody had a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("there is no free port")?;
    Ok(listener.local_addr()?.port())
}
