//! A master, its replica, and three Sentinels that watch over them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo};
use tempfile::TempDir;

use super::process::Process;
use super::redis_server::{RedisServer, free_port};
use super::tls::{TlsArguments, TlsFiles};

const START_BOUND: Duration = Duration::from_secs(20);
/// Sentinels that must agree that a master is down.
const QUORUM: usize = 2;
/// After how long without an answer a master is taken for down.
const DOWN_AFTER_MILLIS: u64 = 500;

/// See the module. The master is named [`Sentinels::MASTER`]. The servers have no password, the Sentinels have one.
#[derive(Debug)]
pub struct Sentinels {
    /// The two servers; the first one begins as the master.
    pub servers: [RedisServer; 2],
    ports: Vec<u16>,
    /// Of the Sentinels; empty without TLS.
    tls_ports: Vec<u16>,
    processes: Vec<Process>,
    _directory: TempDir,
}

impl Sentinels {
    /// What the Sentinels call the master.
    pub const MASTER: &str = "mymaster";
    /// Their password.
    pub const PASSWORD: &str = "sentinels-only";

    /// Starts everything, and waits until all Sentinels know each other and the replica.
    pub async fn start() -> anyhow::Result<Self> {
        Self::launch(None).await
    }

    /// As [`Sentinels::start`]; everybody speaks TLS with everybody, and clients must show a certificate.
    pub async fn start_with_tls(tls: &TlsFiles) -> anyhow::Result<Self> {
        Self::launch(Some(tls)).await
    }

    async fn launch(tls: Option<&TlsFiles>) -> anyhow::Result<Self> {
        let master = RedisServer::launch_with(&[], tls).await?;
        let master_port = master.announced_port().to_string();
        let replica = RedisServer::launch_with(&["--replicaof", "127.0.0.1", &master_port], tls).await?;
        let directory = tempfile::tempdir()?;
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect::<Result<_, _>>()?;
        let (mut processes, mut tls_ports) = (Vec::new(), Vec::new());
        for port in &ports {
            let name = format!("sentinel-{port}");
            let file = directory.path().join(format!("{name}.conf"));
            fs::write(&file, configuration(*port, master.announced_port()))?;
            let TlsArguments { port: tls_port, words } = TlsArguments::new(tls)?;
            tls_ports.extend(tls_port);
            let mut command = Command::new("redis-server");
            command.current_dir(directory.path()).arg(&file).arg("--sentinel").args(words);
            processes.push(Process::start(&name, command, directory.path())?);
        }
        let sentinels = Self { servers: [master, replica], ports, tls_ports, processes, _directory: directory };
        super::wait_until("the Sentinels know each other", START_BOUND, async || {
            for port in &sentinels.ports {
                hurry(*port).await.map_err(|error| format!("{error:#}"))?;
                let about = about_master(*port).await.map_err(|error| format!("{error:#}"))?;
                let known = (number(&about, "num-slaves"), number(&about, "num-other-sentinels"));
                if known != (1, 2) {
                    return Err(format!("{port}: {known:?}"));
                }
            }
            Ok(())
        })
        .await;
        Ok(sentinels)
    }

    /// `redis+sentinel://…/mymaster`, or `rediss+sentinel://…`.
    pub fn url(&self) -> String {
        let (scheme, ports) =
            if self.tls_ports.is_empty() { ("redis", &self.ports) } else { ("rediss", &self.tls_ports) };
        let addresses: Vec<_> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        format!("{scheme}+sentinel://{}/{}", addresses.join(","), Self::MASTER)
    }

    /// Has the first Sentinel begin a failover of a master that is well.
    pub async fn fail_over(&self) -> anyhow::Result<()> {
        let mut connection = connect(self.ports[0]).await?;
        redis::cmd("SENTINEL").arg("FAILOVER").arg(Self::MASTER).exec_async(&mut connection).await?;
        Ok(())
    }

    /// Kills one of the Sentinels.
    pub fn kill(&mut self, index: usize) {
        self.processes[index].kill9();
    }

    /// Waits until the majority names this server as the master, and it is one.
    ///
    /// # Panics
    /// After `bound`.
    pub async fn wait_for_master(&self, index: usize, bound: Duration) {
        let port = self.servers[index].announced_port();
        super::wait_until(&format!("the master is at {port}"), bound, async || {
            let mut named = Vec::new();
            for port in &self.ports {
                named.push(about_master(*port).await.ok().and_then(|about| about.get("port").cloned()));
            }
            let agree = named.iter().flatten().filter(|named| **named == port.to_string()).count();
            if agree < QUORUM {
                return Err(format!("{named:?}"));
            }
            let role = self.servers[index].role().await.map_err(|error| format!("{error:#}"))?;
            if role == "master" { Ok(()) } else { Err(role) }
        })
        .await;
    }
}

fn configuration(port: u16, master: u16) -> String {
    let (name, password) = (Sentinels::MASTER, Sentinels::PASSWORD);
    format!(
        "port {port}\nbind 127.0.0.1\nprotected-mode no\n\
         requirepass {password}\nsentinel sentinel-pass {password}\n\
         sentinel monitor {name} 127.0.0.1 {master} {QUORUM}\n\
         sentinel down-after-milliseconds {name} {DOWN_AFTER_MILLIS}\n\
         sentinel failover-timeout {name} 4000\n"
    )
}

type About = std::collections::HashMap<String, String>;

fn number(about: &About, name: &str) -> u64 {
    about.get(name).and_then(|value| value.parse().ok()).unwrap_or_default()
}

async fn about_master(port: u16) -> anyhow::Result<About> {
    let mut connection = connect(port).await?;
    Ok(redis::cmd("SENTINEL").arg("MASTER").arg(Sentinels::MASTER).query_async(&mut connection).await?)
}

/// What Sentinels do from time to time, and after how many milliseconds here. Else they look at servers every 10 s, and tell
/// each other what they know every 2 s. Whoever has not been told of a failover for four of those periods undoes it, and
/// who makes one looks every second whether it is done: the period must be well above a quarter of that.
const PERIODS: [(&str, u64); 3] = [("INFO-PERIOD", 200), ("PUBLISH-PERIOD", 500), ("ASK-PERIOD", 200)];

/// Versions that cannot be hurried only take longer.
async fn hurry(port: u16) -> anyhow::Result<()> {
    let mut connection = connect(port).await?;
    for (period, millis) in PERIODS {
        let mut debug = redis::cmd("SENTINEL");
        debug.arg("DEBUG").arg(period).arg(millis);
        let _ = debug.exec_async(&mut connection).await;
    }
    Ok(())
}

async fn connect(port: u16) -> anyhow::Result<redis::aio::MultiplexedConnection> {
    let settings = RedisConnectionInfo::default().set_password(Sentinels::PASSWORD);
    let info =
        ConnectionAddr::Tcp("127.0.0.1".to_owned(), port).into_connection_info()?.set_redis_settings(settings);
    Ok(redis::Client::open(info)?.get_multiplexed_async_connection().await?)
}
