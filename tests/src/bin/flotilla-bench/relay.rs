//! A relay, started with a file of environments.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use flotilla_tests::harness::{Process, RedisServer, free_port};
use flotilla_tests::simulator::{Dataset, Simulator};
use tempfile::TempDir;

use crate::Options;
use crate::contender::{add_to_simulator, key, name};

/// LaunchDarkly's relay, with a Redis and a LaunchDarkly of its own.
pub(crate) struct Relay {
    pub(crate) redis: RedisServer,
    pub(crate) simulator: Simulator,
    binary: PathBuf,
    directory: TempDir,
    environments: usize,
    process: Option<Process>,
}

impl Relay {
    pub(crate) async fn prepare(
        environments: usize,
        data: &Arc<Dataset>,
        options: &Options,
    ) -> anyhow::Result<Self> {
        let (redis, simulator) = (RedisServer::start().await?, Simulator::start().await?);
        add_to_simulator(&simulator, 0..environments, data);
        let binary = options.relay.clone().context("there is no relay")?;
        Ok(Self { redis, simulator, binary, directory: tempfile::tempdir()?, environments, process: None })
    }

    /// What a user's file would say who wants nothing but a filled Redis.
    fn configuration(&self) -> anyhow::Result<String> {
        let (upstream, redis, port) = (self.simulator.uri(), self.redis.url(), free_port()?);
        let mut text = format!(
            "[Main]\nport = {port}\nstreamUri = {upstream}\nbaseUri = {upstream}\nlogLevel = warn\n\
             [Events]\neventsUri = {upstream}\n[Redis]\nurl = {redis}\n"
        );
        for number in 0..self.environments {
            write!(text, "[Environment \"{0}\"]\nsdkKey = {1}\nprefix = {0}\n", name(number), key(number))?;
        }
        Ok(text)
    }

    pub(crate) fn begin(&mut self) -> anyhow::Result<()> {
        let file = self.directory.path().join("ld-relay.conf");
        fs::write(&file, self.configuration()?)?;
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(file);
        self.process = Some(Process::start("ld-relay", command, self.directory.path())?);
        Ok(())
    }

    /// It takes a restart to learn of another environment.
    pub(crate) fn add(&mut self, number: usize) -> anyhow::Result<()> {
        self.environments = number + 1;
        self.restart()
    }

    /// It ends, and whoever watches over it starts it again at once.
    pub(crate) fn restart(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill9();
        }
        self.begin()
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        self.process.iter().map(Process::pid).collect()
    }
}
