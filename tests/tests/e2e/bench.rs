//! The store's operations on every kind of Redis: where they are run, and how they are said in few words.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::{Prefix, StoreUrl};
use flotilla_tests::harness::{RedisCluster, RedisServer, Sentinels, wait_until};
use flotilla_worker::dataset::{Differences, Evidence, ItemId, Snapshot};
use flotilla_worker::fence::FenceKind;
use flotilla_worker::secrets::Secrets;
use flotilla_worker::source::Kind;
use flotilla_worker::store::redis::RedisStore;
use flotilla_worker::store::{FenceStep, FlagStore as _, Look, Op, Outcome, Urgency, Write};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands as _, cmd};

use crate::certificates::Certificates;

pub(crate) const BOUND: Duration = Duration::from_secs(10);
/// The prefix, on all but a cluster.
pub(crate) const PREFIX: &str = "ld:test";

/// A store on one of them, and an environment's prefix there.
pub(crate) struct Bench {
    /// Where the store is one server and nothing else.
    pub(crate) server: Option<RedisServer>,
    pub(crate) store: RedisStore,
    /// The same, of another worker.
    pub(crate) rival: RedisStore,
    pub(crate) prefix: Prefix,
    /// Somebody else's connection to the server that has the prefix.
    pub(crate) other: MultiplexedConnection,
    /// What must not end before the test.
    _around: Box<dyn Any>,
}

impl Bench {
    pub(crate) async fn start() -> Self {
        let server = RedisServer::start().await.unwrap();
        let (url, other) = (server.url(), server.connection().await.unwrap());
        let bench = Self::on(&url, PREFIX, other, Box::new(())).await;
        Self { server: Some(server), ..bench }
    }

    pub(crate) async fn behind_sentinels() -> Self {
        let sentinels = Sentinels::start().await.unwrap();
        let other = sentinels.servers[0].connection().await.unwrap();
        let url = format!("{}?sentinel-password={}", sentinels.url(), Sentinels::PASSWORD);
        Self::on(&url, PREFIX, other, Box::new(sentinels)).await
    }

    pub(crate) async fn on_a_cluster() -> Self {
        let cluster = RedisCluster::start().await.unwrap();
        let slot = cluster.slot("{ld:test}").await.unwrap();
        let other = cluster.nodes[cluster.owner(slot).await.unwrap()].connection().await.unwrap();
        Self::on(&cluster.url(), "{ld:test}", other, Box::new(cluster)).await
    }

    /// With TLS both ways, as a user who may touch these keys only.
    pub(crate) async fn restricted() -> Self {
        flotilla_proto::process::install_tls_provider();
        let certificates = Certificates::make();
        let server = RedisServer::start_with_tls(&[], &certificates.server()).await.unwrap();
        let mut other = server.connection().await.unwrap();
        let mut user = cmd("ACL");
        user.arg("SETUSER")
            .arg("flotilla")
            .arg("on")
            .arg(">hunter2")
            .arg(format!("~{PREFIX}:*"))
            .arg("+@read")
            .arg("+@write");
        user.arg("+@scripting").arg("+@connection").exec_async(&mut other).await.unwrap();
        let port = server.announced_port();
        let [ca, cert, key] = ["ca.pem", "client.pem", "client.key"].map(|name| certificates.text(name));
        let url = format!("rediss://flotilla:hunter2@127.0.0.1:{port}?tls-ca={ca}&tls-cert={cert}&tls-key={key}");
        Self::on(&url, PREFIX, other, Box::new((server, certificates))).await
    }

    async fn on(url: &str, prefix: &str, other: MultiplexedConnection, around: Box<dyn Any>) -> Self {
        let open = || RedisStore::connect(&StoreUrl::parse("url", url).unwrap(), &Secrets::default()).unwrap();
        let (store, rival) = (open(), open());
        let bench = Self { server: None, store, rival, prefix: prefix.parse().unwrap(), other, _around: around };
        wait_until("the store connects", BOUND, async || match bench.run(Op::Look).await {
            Outcome::Looked(_) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
        bench
    }

    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    pub(crate) async fn run(&self, op: Op) -> Outcome {
        self.store.execute(&self.prefix, op).await
    }

    pub(crate) async fn look(&self) -> Look {
        match self.run(Op::Look).await {
            Outcome::Looked(look) => look,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn compare(&self, flags: &[(String, String)], evidence: Evidence) -> Differences {
        let compare = Op::Compare { snapshot: snapshot(flags), urgency: Urgency::Now, evidence };
        match self.run(compare).await {
            Outcome::Compared(differences) => differences,
            other => panic!("{other:?}"),
        }
    }

    /// All but the other's, and waits for new ones.
    pub(crate) async fn lose_connections(&mut self) {
        let mut kill = cmd("CLIENT");
        kill.arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
        kill.exec_async(&mut self.other).await.unwrap();
        wait_until("the store connects anew", BOUND, async || match self.run(Op::Look).await {
            Outcome::Looked(_) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    pub(crate) async fn put_fence(&mut self, value: Option<&str>) {
        let fence = self.key("$flotilla");
        let _: () = self.other.del(&fence).await.unwrap();
        if let Some(value) = value {
            let _: () = self.other.set(&fence, value).await.unwrap();
        }
    }

    pub(crate) async fn keys(&mut self) -> Vec<String> {
        let mut keys: Vec<String> = self.other.keys("*").await.unwrap();
        keys.sort();
        keys
    }

    pub(crate) async fn flag(&mut self, key: &str) -> Option<String> {
        let features = self.key("features");
        self.other.hget(features, key).await.unwrap()
    }
}

pub(crate) fn flag(key: &str) -> ItemId {
    ItemId { kind: Kind::Flag, key: key.into() }
}

pub(crate) fn step(expected: Option<&str>, next: &str) -> FenceStep {
    FenceStep { expected: expected.map(Into::into), next: next.into(), kind: FenceKind::Serving }
}

pub(crate) fn write(expected: Option<&str>, next: &str, set: &[(&str, &str)], remove: &[&str]) -> Op {
    let set = set.iter().map(|(key, body)| (flag(key), body.as_bytes().into())).collect();
    Op::Write(Write {
        step: step(expected, next),
        set,
        remove: remove.iter().map(|key| flag(key)).collect(),
        marker: true,
    })
}

pub(crate) fn snapshot(flags: &[(String, String)]) -> Arc<Snapshot> {
    let flags = flags.iter().map(|(key, body)| (Arc::from(key.as_str()), body.as_bytes().into())).collect();
    Arc::new(Snapshot { flags, segments: Vec::new() })
}

pub(crate) fn many(count: usize, bytes: usize) -> Vec<(String, String)> {
    (0..count).map(|number| (format!("flag-{number:05}"), format!("{{\"x\":\"{}\"}}", "y".repeat(bytes)))).collect()
}
