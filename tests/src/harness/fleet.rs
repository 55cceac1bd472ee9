//! A whole fleet: Redis, the simulator, control and workers, and the command line towards them.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use super::cli::{self, CliOutput};
use super::http::{HttpAnswer, http_get};
use super::links::{Link, Links};
use super::process::{Listening, Process};
use super::redis_server::RedisServer;
use super::secured::{Caller, Secured};
use super::tools::{binary_directory, binary_in};
use crate::simulator::Simulator;

const START_BOUND: Duration = Duration::from_secs(30);

/// What a fleet is started with.
#[derive(Debug, Default)]
pub struct FleetBuilder {
    workers: usize,
    control_arguments: Vec<String>,
    worker_arguments: Vec<String>,
    variables: Vec<(String, String)>,
    binaries: Option<PathBuf>,
    store_url: Option<String>,
    store_url_file: Option<PathBuf>,
    redis_arguments: Vec<String>,
    has_links: bool,
    security: Security,
    secured: Option<Secured>,
}

/// How callers of control are told apart.
#[derive(Debug, Default, Clone, Copy)]
enum Security {
    #[default]
    None,
    Tokens,
    Certificates,
}

/// A running fleet. Dropping it kills its processes; the directory stays when the test failed.
#[derive(Debug)]
pub struct Fleet {
    /// The store named `default`.
    pub redis: RedisServer,
    /// LaunchDarkly, for streams as well as polls.
    pub simulator: Simulator,
    control: Server,
    workers: Vec<Server>,
    links: Option<Links>,
    builder: FleetBuilder,
    commands: AtomicUsize,
    directory: Option<TempDir>,
}

/// Where control sends workers.
#[derive(Debug)]
struct Upstreams {
    store: String,
    launchdarkly: String,
}

#[derive(Debug)]
struct Server {
    process: Process,
    listening: Listening,
    /// Given to this one alone.
    arguments: Vec<String>,
}

impl FleetBuilder {
    /// How many workers there are: `w1`, `w2`…
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// More arguments for control; repeated flags are the caller's care.
    #[must_use]
    pub fn control_arguments(mut self, arguments: &[&str]) -> Self {
        self.control_arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// More arguments for every worker.
    #[must_use]
    pub fn worker_arguments(mut self, arguments: &[&str]) -> Self {
        self.worker_arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// An environment variable for all binaries.
    #[must_use]
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes the binaries from here instead; see [`binary_directory`].
    #[must_use]
    pub fn binaries(mut self, directory: &Path) -> Self {
        self.binaries = Some(directory.to_owned());
        self
    }

    /// Makes another Redis than the fleet's own its store: for two fleets that meet in one.
    #[must_use]
    pub fn store_url(mut self, url: &str) -> Self {
        self.store_url = Some(url.to_owned());
        self
    }

    /// As [`FleetBuilder::store_url`], with the URL in a file that control is named.
    #[must_use]
    pub fn store_url_file(mut self, path: &Path) -> Self {
        self.store_url_file = Some(path.to_owned());
        self
    }

    /// More arguments for the fleet's own Redis.
    #[must_use]
    pub fn redis_arguments(mut self, arguments: &[&str]) -> Self {
        self.redis_arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Puts a proxy on each link of the workers; see [`Fleet::links`].
    #[must_use]
    pub fn through_proxies(mut self) -> Self {
        self.has_links = true;
        self
    }

    /// Has control listen with TLS and tokens that `flotilla init` makes: in `tls/` and `tokens/` of the fleet's directory.
    /// Each of the workers up to `w4` has its own token, and the command line that of an admin; another one can be given as
    /// an argument.
    #[must_use]
    pub fn secured(mut self) -> Self {
        self.security = Security::Tokens;
        self
    }

    /// As [`FleetBuilder::secured`], without tokens: whoever has a certificate of the authority may do everything.
    #[must_use]
    pub fn secured_by_certificates(mut self) -> Self {
        self.security = Security::Certificates;
        self
    }

    /// Starts everything and waits until control and the workers listen.
    pub async fn start(mut self) -> anyhow::Result<Fleet> {
        let directory = tempfile::tempdir().context("cannot make a directory for the fleet")?;
        fs::create_dir(directory.path().join("logs"))?;
        let flotilla = || self.command("flotilla");
        self.secured = match self.security {
            Security::None => None,
            Security::Tokens => Some(Secured::make_with_tokens(directory.path(), flotilla).await?),
            Security::Certificates => Some(Secured::make(directory.path(), flotilla).await?),
        };
        let redis_arguments: Vec<_> = self.redis_arguments.iter().map(String::as_str).collect();
        let redis = RedisServer::start_with(&redis_arguments).await?;
        let simulator = Simulator::start().await.context("cannot start the simulator")?;
        let links = if self.has_links { Some(Links::start(&redis, &simulator).await?) } else { None };
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let anywhere = Listening { grpc: Some(anywhere), http: anywhere };
        let upstreams = self.upstreams(links.as_ref(), &redis, &simulator);
        let command = self.control_command(&directory.path().join("control"), &upstreams, anywhere)?;
        let control = Server::start("control", command, directory.path(), Vec::new()).await?;
        if let (Some(links), Some(address)) = (&links, control.listening.grpc) {
            links.proxy(Link::Control).lead_to(address);
        }
        let workers = self.workers;
        let mut fleet = Fleet {
            redis,
            simulator,
            control,
            workers: Vec::new(),
            links,
            builder: self,
            commands: AtomicUsize::new(0),
            directory: Some(directory),
        };
        for _ in 0..workers {
            fleet.add_worker().await?;
        }
        Ok(fleet)
    }

    fn upstreams(&self, links: Option<&Links>, redis: &RedisServer, simulator: &Simulator) -> Upstreams {
        let (store, launchdarkly) = match links {
            Some(links) => (links.store_url(), links.launchdarkly_uri()),
            None => (redis.url(), simulator.uri()),
        };
        Upstreams { store: self.store_url.clone().unwrap_or(store), launchdarkly }
    }

    fn control_command(
        &self,
        data: &Path,
        upstreams: &Upstreams,
        Listening { grpc, http }: Listening,
    ) -> anyhow::Result<Command> {
        let grpc = grpc.context("control has a gRPC address")?;
        let mut command = self.command("flotilla-control")?;
        command
            .arg("--listen")
            .arg(grpc.to_string())
            .arg("--http-listen")
            .arg(http.to_string())
            .arg("--data-dir")
            .arg(data)
            .args(["--stream-uri", &upstreams.launchdarkly, "--base-uri", &upstreams.launchdarkly])
            .args(["--log-format", "json"])
            .args(self.secured.iter().flat_map(Secured::control_arguments))
            .args(&self.control_arguments);
        match &self.store_url_file {
            Some(path) => command.env("FLOTILLA_REDIS_URL_FILE", path),
            None => command.args(["--redis-url", &upstreams.store]),
        };
        Ok(command)
    }

    /// A binary with the wanted variables, and none of the tester's own that begin with `FLOTILLA_`.
    fn command(&self, name: &str) -> anyhow::Result<Command> {
        let path = match &self.binaries {
            Some(directory) => binary_in(directory, name)?,
            None => binary_in(&binary_directory()?, name)?,
        };
        let mut command = Command::new(path);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("FLOTILLA_") {
                command.env_remove(variable);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        Ok(command)
    }
}

impl Fleet {
    /// One worker, no further arguments.
    pub fn builder() -> FleetBuilder {
        FleetBuilder { workers: 1, ..FleetBuilder::default() }
    }

    /// Where everything is kept: `logs/`, `control/` (data), `w1/`… (state).
    pub fn directory(&self) -> &Path {
        self.directory.as_ref().expect("it is taken only by the drop").path()
    }

    /// Outputs of all processes and commands so far: for a test that looks for secrets in them.
    pub fn outputs(&self) -> anyhow::Result<Vec<(PathBuf, String)>> {
        let mut outputs = Vec::new();
        for entry in fs::read_dir(self.directory().join("logs"))? {
            let path = entry?.path();
            let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
            outputs.push((path, text));
        }
        Ok(outputs)
    }

    /// Control's process.
    pub fn control(&mut self) -> &mut Process {
        &mut self.control.process
    }

    /// Control's addresses.
    pub fn control_listening(&self) -> Listening {
        self.control.listening
    }

    /// The URL that the command line is given, and workers where no proxy is before it.
    pub fn control_url(&self) -> String {
        let address = self.control.listening.grpc.expect("control was started with a gRPC address");
        let scheme = if self.builder.secured.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }

    /// Starts control again, on the addresses and data that it had, after it ended.
    pub async fn restart_control(&mut self) -> anyhow::Result<()> {
        self.control.process.kill9();
        let command = self.control_command(&self.directory().join("control"), self.control.listening)?;
        self.control = Server::start("control", command, self.directory(), Vec::new()).await?;
        Ok(())
    }

    /// How a control of this fleet is started, on these data and addresses: for one that is not its own.
    pub fn control_command(&self, data: &Path, listening: Listening) -> anyhow::Result<Command> {
        let upstreams = self.builder.upstreams(self.links.as_ref(), &self.redis, &self.simulator);
        self.builder.control_command(data, &upstreams, listening)
    }

    /// What lies between the workers and everything else. The command line and tests have ways of their own.
    ///
    /// # Panics
    /// Without [`FleetBuilder::through_proxies`].
    pub fn links(&self) -> &Links {
        self.links.as_ref().expect("the fleet was started through proxies")
    }

    /// How many workers were started.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// A worker's name; they are numbered from 0.
    pub fn worker_name(index: usize) -> String {
        format!("w{}", index + 1)
    }

    /// A worker's process.
    pub fn worker(&mut self, index: usize) -> &mut Process {
        &mut self.workers[index].process
    }

    /// A worker's addresses.
    pub fn worker_listening(&self, index: usize) -> Listening {
        self.workers[index].listening
    }

    /// Starts one more worker.
    pub async fn add_worker(&mut self) -> anyhow::Result<()> {
        self.add_worker_with(&[]).await
    }

    /// As [`Fleet::add_worker`], with arguments for this one alone.
    pub async fn add_worker_with(&mut self, arguments: &[&str]) -> anyhow::Result<()> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let server = self.start_worker(self.workers.len(), arguments).await?;
        self.workers.push(server);
        Ok(())
    }

    /// Starts a worker again, in the state directory and with the arguments that it had, after it ended.
    pub async fn restart_worker(&mut self, index: usize) -> anyhow::Result<()> {
        self.workers[index].process.kill9();
        let arguments = self.workers[index].arguments.clone();
        self.workers[index] = self.start_worker(index, arguments).await?;
        Ok(())
    }

    async fn start_worker(&self, index: usize, arguments: Vec<String>) -> anyhow::Result<Server> {
        let name = Self::worker_name(index);
        let mut command = self.worker_command(&name, &self.directory().join(&name))?;
        command.args(&arguments);
        Server::start(&name, command, self.directory(), arguments).await
    }

    /// How a worker of this fleet is started: for one that is not to become a member.
    pub fn worker_command(&self, name: &str, state_directory: &Path) -> anyhow::Result<Command> {
        let control = self.links.as_ref().map_or_else(|| self.control_url(), Links::control_url);
        self.worker_command_towards(&control, name, state_directory)
    }

    /// As [`Fleet::worker_command`], for a worker of another control.
    pub fn worker_command_towards(
        &self,
        control: &str,
        name: &str,
        state_directory: &Path,
    ) -> anyhow::Result<Command> {
        let mut command = self.builder.command("flotilla-worker")?;
        command
            .args(["--control", control, "--name", name])
            .args(["--http-listen", "127.0.0.1:0", "--log-format", "json"])
            .arg("--state-dir")
            .arg(state_directory)
            .args(&self.builder.worker_arguments);
        if let Some(secured) = &self.builder.secured {
            command.envs(secured.variables(Caller::Worker(name)));
        }
        Ok(command)
    }

    /// How `flotilla --control URL ARGUMENTS…` is started: for a command that goes on until it is stopped.
    pub fn cli_command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.builder.command("flotilla")?;
        command
            .current_dir(self.directory())
            .env("HOME", self.directory())
            .args(["--control", &self.control_url()])
            .args(arguments);
        if let Some(secured) = &self.builder.secured {
            command.envs(secured.variables(Caller::CommandLine));
        }
        Ok(command)
    }

    /// Starts a command whose outputs are kept with those of the fleet, as `NAME.stdout` and `NAME.stderr`.
    pub fn start_process(&self, name: &str, command: Command) -> anyhow::Result<Process> {
        Process::start(name, command, &self.directory().join("logs"))
    }

    /// Runs `flotilla --control URL ARGUMENTS…` to its end.
    pub async fn cli(&self, arguments: &[&str]) -> anyhow::Result<CliOutput> {
        self.cli_with(arguments, &[], "").await
    }

    /// As [`Fleet::cli`], with environment variables and an input.
    pub async fn cli_with(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        stdin: &str,
    ) -> anyhow::Result<CliOutput> {
        let mut command = self.cli_command(arguments)?;
        command.envs(variables.iter().copied());
        let output = cli::run(command.into(), stdin).await?;
        let number = self.commands.fetch_add(1, Ordering::Relaxed);
        let logs = self.directory().join("logs");
        fs::write(logs.join(format!("flotilla-{number:03}.stdout")), &output.stdout)?;
        fs::write(logs.join(format!("flotilla-{number:03}.stderr")), &output.stderr)?;
        Ok(output)
    }

    /// `env add NAME --prefix P`, with the key handed over in a variable, and more arguments.
    pub async fn add_environment(
        &self,
        name: &str,
        prefix: &str,
        sdk_key: &str,
        more: &[&str],
    ) -> anyhow::Result<CliOutput> {
        let mut arguments = vec!["env", "add", name, "--prefix", prefix, "--sdk-key-env", "TEST_SDK_KEY"];
        arguments.extend(more);
        self.cli_with(&arguments, &[("TEST_SDK_KEY", sdk_key)], "").await
    }

    /// `env status NAME -o json`.
    pub async fn environment_status(&self, name: &str) -> anyhow::Result<Value> {
        self.cli(&["env", "status", name, "-o", "json"]).await?.json()
    }

    /// Waits until `env status` shows this `initialization`.
    ///
    /// # Panics
    /// After `bound`.
    pub async fn wait_for_initialization(&self, name: &str, wanted: &str, bound: Duration) {
        super::wait_until(&format!("{name} is {wanted}"), bound, async || {
            let status = self.environment_status(name).await.map_err(|error| format!("{error:#}"))?;
            if status["initialization"] == wanted { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
    }

    /// `GET` from control's HTTP address.
    pub async fn control_get(&self, path: &str) -> anyhow::Result<HttpAnswer> {
        http_get(self.control.listening.http, path).await
    }

    /// `GET` from a worker's HTTP address.
    pub async fn worker_get(&self, index: usize, path: &str) -> anyhow::Result<HttpAnswer> {
        http_get(self.workers[index].listening.http, path).await
    }
}

impl Drop for Fleet {
    #[expect(clippy::print_stderr, reason = "whoever reads of the failure needs the place of the logs")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("logs and data of the fleet are kept in {}", directory.keep().display());
        }
    }
}

impl Server {
    async fn start(name: &str, command: Command, directory: &Path, arguments: Vec<String>) -> anyhow::Result<Self> {
        let mut process = Process::start(name, command, &directory.join("logs"))?;
        let listening = process.listening(START_BOUND).await?;
        Ok(Self { process, listening, arguments })
    }
}
