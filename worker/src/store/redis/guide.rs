//! Asks Sentinels, or nodes of a cluster, which servers a store has now.

use std::collections::HashMap;
use std::time::Duration;

use flotilla_proto::store_url::{Address, StorePlace};
use futures_util::future::join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, FromRedisValue as _, Value, cmd};

use super::layout::{Layout, SLOTS};
use super::target::{Server, Target, only_server};

/// How long one of them may take to connect, and to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Knows whom to ask.
#[derive(Debug)]
pub(super) struct Guide {
    target: Target,
    /// To those that answered last time.
    connections: HashMap<Address, MultiplexedConnection>,
    /// Nodes of a cluster that were heard of.
    heard_of: Vec<Address>,
    /// How many slots of the cluster nobody had when it was best known.
    missing: u32,
}

impl Guide {
    pub(super) fn new(target: Target) -> Self {
        Self { target, connections: HashMap::new(), heard_of: Vec::new(), missing: SLOTS.into() }
    }

    /// The present layout, or why nobody tells it.
    pub(super) async fn layout(&mut self) -> Result<Layout, String> {
        if let Some(server) = only_server(&self.target.url.place) {
            return Ok(Layout::single(server));
        }
        match self.target.url.place.clone() {
            StorePlace::Sentinel { sentinels, master } => self.master(&sentinels, &master).await,
            StorePlace::Cluster(nodes) => self.slots(&nodes).await,
            StorePlace::Server(_) | StorePlace::Socket(_) => Err("the store has no server".to_owned()),
        }
    }

    /// The master that the Sentinel with the newest configuration names: others may not have heard of a failover yet.
    async fn master(&mut self, sentinels: &[Address], master: &str) -> Result<Layout, String> {
        let mut question = cmd("SENTINEL");
        question.arg("MASTER").arg(master);
        let mut newest: Option<(u64, Address)> = None;
        let mut failures = Vec::new();
        for (sentinel, answer) in self.ask_all(sentinels, &question).await {
            let read = answer.and_then(|answer| {
                let about = HashMap::<String, String>::from_redis_value(answer)
                    .map_err(|_| "no list of names".to_owned())?;
                master_in(&about).ok_or_else(|| "an answer without an address".to_owned())
            });
            match read {
                Ok(found) if newest.as_ref().is_none_or(|(epoch, _)| found.0 > *epoch) => newest = Some(found),
                Ok(_) => {}
                Err(why) => failures.push(format!("{sentinel}: {why}")),
            }
        }
        match newest {
            Some((_, address)) => Ok(Layout::single(Server::Tcp(address))),
            None => Err(format!("no Sentinel names the master {master:?} ({})", failures.join("; "))),
        }
    }

    /// What the first node says that answers.
    async fn slots(&mut self, nodes: &[Address]) -> Result<Layout, String> {
        let mut question = cmd("CLUSTER");
        question.arg("SLOTS");
        let mut failures = Vec::new();
        // Those of the URL may all have left the cluster since.
        let known: Vec<_> = self.connections.keys().chain(nodes).chain(&self.heard_of).cloned().collect();
        for node in known {
            for (node, answer) in self.ask_all(std::slice::from_ref(&node), &question).await {
                match answer.and_then(|answer| ranges_in(&answer, &node)) {
                    Ok(ranges) => {
                        let layout = Layout::of_ranges(ranges);
                        let missing = layout.missing();
                        if missing > self.missing {
                            // It has left the cluster, or has forgotten it.
                            failures.push(format!("{node}: it knows of no server for {missing} slots"));
                            continue;
                        }
                        self.missing = missing;
                        self.heard_of = layout.servers().into_iter().filter_map(Server::address).cloned().collect();
                        return Ok(layout);
                    }
                    Err(why) => failures.push(format!("{node}: {why}")),
                }
            }
        }
        Err(format!("no node of the cluster says who has which slots ({})", failures.join("; ")))
    }

    /// Asks all of them at once. Connections that answer are kept.
    async fn ask_all(
        &mut self,
        addresses: &[Address],
        question: &redis::Cmd,
    ) -> Vec<(Address, Result<Value, String>)> {
        let asked = addresses.iter().map(|address| {
            let connection = self.connections.remove(address);
            let target = &self.target;
            async move {
                let mut connection = match connection {
                    Some(connection) => connection,
                    None => connect(target, address).await?,
                };
                let answer =
                    question.query_async::<Value>(&mut connection).await.map_err(|error| error.to_string())?;
                Ok((connection, answer))
            }
        });
        let answers = join_all(asked).await;
        let mut heard = Vec::new();
        for (address, answer) in addresses.iter().zip(answers) {
            let answer = answer.map(|(connection, answer)| {
                self.connections.insert(address.clone(), connection);
                answer
            });
            heard.push((address.clone(), answer));
        }
        heard
    }
}

async fn connect(target: &Target, address: &Address) -> Result<MultiplexedConnection, String> {
    let client = match &target.url.place {
        StorePlace::Sentinel { .. } => target.sentinel_client(address).await,
        StorePlace::Cluster(_) | StorePlace::Server(_) | StorePlace::Socket(_) => {
            target.data_client(&Server::Tcp(address.clone())).await
        }
    };
    let client = client.map_err(|error| error.to_string())?;
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE)).set_response_timeout(Some(PATIENCE));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| error.to_string())
}

/// The address in `SENTINEL MASTER`'s answer, and how new it is.
fn master_in(about: &HashMap<String, String>) -> Option<(u64, Address)> {
    let epoch = about.get("config-epoch")?.parse().ok()?;
    Some((epoch, Address { host: about.get("ip")?.clone(), port: about.get("port")?.parse().ok()? }))
}

/// The slots in `CLUSTER SLOTS`' answer, with their masters. A node that does not know its own address leaves it out.
fn ranges_in(answer: &Value, asked: &Address) -> Result<Vec<(u16, u16, Server)>, String> {
    let unclear = || "an answer that is not understood".to_owned();
    let Value::Array(ranges) = answer else { return Err(unclear()) };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let [first, last, Value::Array(master), ..] = parts.as_slice() else { return None };
        let [host, port, ..] = master.as_slice() else { return None };
        let number = |value: &Value| u16::from_redis_value_ref(value).ok();
        let host = Option::<String>::from_redis_value_ref(host).ok()?;
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| asked.host.clone());
        Some((number(first)?, number(last)?, Server::Tcp(Address { host, port: number(port)? })))
    };
    ranges.iter().map(|one| range(one).ok_or_else(unclear)).collect()
}
