//! A Redis Cluster of three masters, and of replicas for those that shall have one.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::redis_server::{RedisServer, free_port, redis_info};
use super::tls::TlsFiles;

const START_BOUND: Duration = Duration::from_secs(20);

/// Three masters, each with a third of the slots.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters, and after them the replicas.
    pub nodes: Vec<RedisServer>,
    tls: Option<TlsFiles>,
}

impl RedisCluster {
    /// Starts the nodes and joins them, and waits until all of them say that the cluster is well.
    pub async fn start() -> anyhow::Result<Self> {
        Self::launch(None).await
    }

    /// As [`RedisCluster::start`]; nodes speak TLS with each other, and clients must show a certificate.
    pub async fn start_with_tls(tls: &TlsFiles) -> anyhow::Result<Self> {
        Self::launch(Some(tls)).await
    }

    async fn launch(tls: Option<&TlsFiles>) -> anyhow::Result<Self> {
        let mut nodes = Vec::new();
        for _ in 0..3 {
            nodes.push(start_node(tls).await?);
        }
        let addresses = nodes.iter().map(|node| format!("127.0.0.1:{}", node.announced_port()));
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(addresses).arg("--cluster-yes");
        if let Some(TlsFiles { ca, cert, key }) = tls {
            create.args(["--tls", "--cacert", ca, "--cert", cert, "--key", key]);
        }
        let output = tokio::task::spawn_blocking(move || create.output()).await?.context("redis-cli")?;
        if !output.status.success() {
            bail!("redis-cli --cluster create: {}", String::from_utf8_lossy(&output.stdout));
        }
        let cluster = Self { nodes, tls: tls.cloned() };
        cluster.wait_until_well().await;
        Ok(cluster)
    }

    /// Starts a replica of a master, and waits until it has the master's data and all know it. Returns its index.
    pub async fn add_replica(&mut self, of: usize) -> anyhow::Result<usize> {
        let replica = start_node(self.tls.as_ref()).await?;
        let mut connection = replica.connection().await?;
        let known = &self.nodes[of];
        let mut meet = redis::cmd("CLUSTER");
        meet.arg("MEET").arg("127.0.0.1").arg(known.announced_port()).arg(known.bus_port().await?);
        meet.exec_async(&mut connection).await?;
        let master = self.id(of).await?;
        let index = self.nodes.len();
        self.nodes.push(replica);
        self.wait_until_well().await;
        redis::cmd("CLUSTER").arg("REPLICATE").arg(&master).exec_async(&mut connection).await?;
        super::wait_until("it is a replica, and known as one", START_BOUND, async || {
            let info = redis_info(&mut connection, "replication").await.map_err(|error| error.to_string())?;
            let says = |name: &str, value: &str| info.get(name).is_some_and(|found| found == value);
            if !says("role", "slave") || !says("master_link_status", "up") {
                return Err(format!("{info:?}"));
            }
            for node in &self.nodes {
                let nodes = node.nodes().await.map_err(|error| format!("{error:#}"))?;
                if !nodes.lines().any(|line| line.contains(&format!("slave {master} "))) {
                    return Err(nodes);
                }
            }
            Ok(())
        })
        .await;
        Ok(index)
    }

    /// Waits until all nodes know each other, and say that the cluster is well.
    async fn wait_until_well(&self) {
        let wanted = ("ok".to_owned(), self.nodes.len().to_string());
        super::wait_until("the cluster is well", START_BOUND, async || {
            for node in &self.nodes {
                let state = node.info("state").await.map_err(|error| format!("{error:#}"))?;
                let known = node.info("known_nodes").await.map_err(|error| format!("{error:#}"))?;
                let found = (state, known);
                if found != wanted {
                    return Err(format!("{}: {found:?}", node.port()));
                }
            }
            Ok(())
        })
        .await;
    }

    /// `redis+cluster://…` or `rediss+cluster://…`, with one of the nodes only: the others are found.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}+cluster://127.0.0.1:{}", self.nodes[0].announced_port())
    }

    /// The slot of a key.
    pub async fn slot(&self, key: &str) -> anyhow::Result<u16> {
        let mut connection = self.nodes[0].connection().await?;
        Ok(redis::cmd("CLUSTER").arg("KEYSLOT").arg(key).query_async(&mut connection).await?)
    }

    /// Which master has a slot, as that one says itself.
    pub async fn owner(&self, slot: u16) -> anyhow::Result<usize> {
        for (index, node) in self.nodes.iter().enumerate() {
            // One that is away has none.
            let Ok(nodes) = node.nodes().await else { continue };
            let own = nodes.lines().find(|line| line.contains("myself")).context("no line of its own")?;
            if has_slot(own, slot) {
                return Ok(index);
            }
        }
        bail!("nobody has slot {slot}")
    }

    /// Begins to move a slot: from now on keys that are no longer on the old node are asked for on the new one.
    pub async fn begin_move(&self, slot: u16, from: usize, to: usize) -> anyhow::Result<()> {
        let (from_id, to_id) = (self.id(from).await?, self.id(to).await?);
        self.set_slot(to, slot, &["IMPORTING", &from_id]).await?;
        self.set_slot(from, slot, &["MIGRATING", &to_id]).await
    }

    /// Moves keys of a slot, at most `count`; returns how many.
    pub async fn move_keys(&self, slot: u16, from: usize, to: usize, count: usize) -> anyhow::Result<usize> {
        let mut connection = self.nodes[from].connection().await?;
        let mut list = redis::cmd("CLUSTER");
        list.arg("GETKEYSINSLOT").arg(slot).arg(count);
        let keys: Vec<String> = list.query_async(&mut connection).await?;
        for key in &keys {
            let mut migrate = redis::cmd("MIGRATE");
            migrate.arg("127.0.0.1").arg(self.nodes[to].announced_port()).arg(key).arg(0).arg(5000);
            migrate.exec_async(&mut connection).await?;
        }
        Ok(keys.len())
    }

    /// The slot is the new node's.
    pub async fn finish_move(&self, slot: u16, from: usize, to: usize) -> anyhow::Result<()> {
        let id = self.id(to).await?;
        // In the order that redis-cli has: the new owner first, so that at no moment nobody has it.
        for node in [to, from].into_iter().chain((0..self.nodes.len()).filter(|node| ![from, to].contains(node))) {
            self.set_slot(node, slot, &["NODE", &id]).await?;
        }
        Ok(())
    }

    async fn set_slot(&self, node: usize, slot: u16, words: &[&str]) -> anyhow::Result<()> {
        let mut connection = self.nodes[node].connection().await?;
        redis::cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(words).exec_async(&mut connection).await?;
        Ok(())
    }

    async fn id(&self, node: usize) -> anyhow::Result<String> {
        let mut connection = self.nodes[node].connection().await?;
        Ok(redis::cmd("CLUSTER").arg("MYID").query_async(&mut connection).await?)
    }
}

async fn start_node(tls: Option<&TlsFiles>) -> anyhow::Result<RedisServer> {
    // By default the bus would be 10,000 ports above, where there may be none.
    let bus = free_port()?.to_string();
    let arguments = ["--cluster-enabled", "yes", "--cluster-port", &bus, "--cluster-node-timeout", "2000"];
    RedisServer::launch_with(&arguments, tls).await
}

impl RedisServer {
    /// A value of `CLUSTER INFO`.
    async fn info(&self, name: &str) -> anyhow::Result<String> {
        let mut connection = self.connection().await?;
        let info: String = redis::cmd("CLUSTER").arg("INFO").query_async(&mut connection).await?;
        let prefix = format!("cluster_{name}:");
        let value = info.lines().find_map(|line| line.strip_prefix(&prefix)).context("no such value")?;
        Ok(value.trim().to_owned())
    }

    /// `CLUSTER NODES`.
    async fn nodes(&self) -> anyhow::Result<String> {
        let mut connection = self.connection().await?;
        Ok(redis::cmd("CLUSTER").arg("NODES").query_async(&mut connection).await?)
    }

    /// The port of the cluster's bus, as the node says itself.
    async fn bus_port(&self) -> anyhow::Result<String> {
        let nodes = self.nodes().await?;
        let own = nodes.lines().find(|line| line.contains("myself")).context("no line of its own")?;
        // ID, then HOST:PORT@BUS, and maybe a name behind a comma.
        let address = own.split(' ').nth(1).context("no address")?;
        let (_, bus) = address.split_once('@').context("no bus")?;
        Ok(bus.split(',').next().unwrap_or(bus).to_owned())
    }
}

fn has_slot(line: &str, slot: u16) -> bool {
    line.split(' ').skip(8).any(|part| match part.split_once('-') {
        Some((first, last)) => {
            let number = |text: &str| text.parse::<u16>().ok();
            number(first).zip(number(last)).is_some_and(|(first, last)| (first..=last).contains(&slot))
        }
        None => part.parse() == Ok(slot),
    })
}
