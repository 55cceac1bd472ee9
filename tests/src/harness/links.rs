//! What lies between the processes of a fleet, where a test is to cut it.

use std::net::SocketAddr;

use anyhow::Context as _;

use super::redis_server::RedisServer;
use crate::proxy::Proxy;
use crate::simulator::Simulator;

/// One of the connections that workers have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// To control.
    Control,
    /// To Redis.
    Redis,
    /// To LaunchDarkly.
    LaunchDarkly,
}

/// A proxy on each.
#[derive(Clone, Debug)]
pub struct Links {
    control: Proxy,
    redis: Proxy,
    launchdarkly: Proxy,
}

impl Links {
    pub(super) async fn start(redis: &RedisServer, simulator: &Simulator) -> anyhow::Result<Self> {
        let start = async |server| Proxy::start(server).await.context("cannot start a proxy");
        // Where control listens is known when it does.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            control: start(nowhere).await?,
            redis: start(redis.address()).await?,
            launchdarkly: start(simulator.address()).await?,
        })
    }

    /// The proxy on a link.
    pub fn proxy(&self, link: Link) -> &Proxy {
        match link {
            Link::Control => &self.control,
            Link::Redis => &self.redis,
            Link::LaunchDarkly => &self.launchdarkly,
        }
    }

    /// Lifts the rules of all.
    pub fn heal(&self) {
        for proxy in [&self.control, &self.redis, &self.launchdarkly] {
            proxy.heal();
        }
    }

    pub(super) fn store_url(&self) -> String {
        format!("redis://{}", self.redis.address())
    }

    pub(super) fn launchdarkly_uri(&self) -> String {
        format!("http://{}", self.launchdarkly.address())
    }

    pub(super) fn control_url(&self) -> String {
        format!("http://{}", self.control.address())
    }
}
