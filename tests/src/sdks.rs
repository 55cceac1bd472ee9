//! Readers made of the real LaunchDarkly SDKs (`tests/sdks/`): what they evaluate is what counts, whether they
//! are connected to LaunchDarkly or read what was written to Redis.

// Answers, compared.
mod evaluation;
// What PHP's SDK demands of items.
mod php;
// Ways to a Redis, and which SDK goes them.
mod topology;

use std::path::Path;
use std::process::{Command as BlockingCommand, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::harness::{require_tool, wait_until, workspace_directory};

pub use evaluation::{AllFlags, CaseResult, Evaluation, EvaluationFixture};
pub use php::{demands_on_flag, demands_on_segment};
pub use topology::{Reach, Topology};

/// One evaluation of all cases, the SDK's initialisation included.
const ANSWER_BOUND: Duration = Duration::from_mins(1);

/// An SDK that is pinned and installed by `tests/sdks/setup.sh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// `launchdarkly-server-sdk` from PyPI, with redis-py.
    Python,
    /// `@launchdarkly/node-server-sdk` from npm, with ioredis.
    Node,
    /// `go-server-sdk` v7, with redigo.
    Go,
    /// `launchdarkly-java-server-sdk`, with Jedis below a store of our own.
    Java,
}

/// Where a reader has its flags from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Daemon mode: from Redis alone, without a cache.
    Daemon {
        /// As Flotilla's own URLs of stores, but for `USER:PASSWORD@` before the host.
        redis_url: String,
        /// The environment's prefix.
        prefix: String,
        /// More options, as `--tls-ca FILE`; see `tests/sdks/README.md`.
        more: Vec<String>,
    },
    /// From a LaunchDarkly, as an SDK usually does.
    Direct {
        /// Base URI of streams and polls.
        uri: String,
        /// The environment's SDK key.
        sdk_key: String,
    },
    /// From a LaunchDarkly, and into Redis, as LaunchDarkly's relay does; [`Sdk::Go`] alone, of which that is made.
    Writer {
        /// Base URI of streams and polls.
        uri: String,
        /// The environment's SDK key.
        sdk_key: String,
        /// `redis://HOST:PORT`.
        redis_url: String,
        /// The environment's prefix.
        prefix: String,
    },
}

impl Sdk {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Python, Self::Node, Self::Go, Self::Java];

    /// The name in `tests/sdks/`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Node => "node",
            Self::Go => "go",
            Self::Java => "java",
        }
    }

    /// The packages that matter, the SDK first, each with the version that `setup.sh` installs.
    pub fn packages(self) -> anyhow::Result<Vec<(&'static str, String)>> {
        let (file, names): (_, &[&str]) = match self {
            Self::Python => ("python/requirements.txt", &["launchdarkly-server-sdk", "redis"]),
            Self::Node => (
                "node/package.json",
                &["@launchdarkly/node-server-sdk", "@launchdarkly/node-server-sdk-redis", "ioredis"],
            ),
            Self::Go => (
                "go/go.mod",
                &[
                    "github.com/launchdarkly/go-server-sdk/v7",
                    "github.com/launchdarkly/go-server-sdk-redis-redigo/v3",
                    "github.com/gomodule/redigo",
                ],
            ),
            Self::Java => ("java/pom.xml", &["launchdarkly-java-server-sdk", "jedis"]),
        };
        let path = workspace_directory().join("tests/sdks").join(file);
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let version = |name: &&'static str| {
            let version = pinned_version(&text, name).with_context(|| format!("{file} does not pin {name}"))?;
            Ok((*name, version))
        };
        names.iter().map(version).collect()
    }

    /// Whether tests can read with this SDK: its toolchain is here, and the reader is installed (which happens
    /// here, the first time). Where it cannot be, the test says so and goes without.
    ///
    /// # Panics
    /// When it cannot be and `CI=true`.
    pub fn require(self) -> bool {
        static INSTALLED: [OnceLock<bool>; 4] = [const { OnceLock::new() }; 4];
        let (place, tools): (usize, &[&str]) = match self {
            Self::Python => (0, &["python3"]),
            Self::Node => (1, &["node", "npm"]),
            Self::Go => (2, &["go"]),
            Self::Java => (3, &["java", "javac", "mvn"]),
        };
        tools.iter().all(|tool| require_tool(tool)) && *INSTALLED[place].get_or_init(|| self.install())
    }

    /// Those of them that can be read with; see [`Sdk::require`].
    pub fn required() -> Vec<Self> {
        Self::ALL.into_iter().filter(|sdk| sdk.require()).collect()
    }

    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn install(self) -> bool {
        let script = workspace_directory().join("tests/sdks/setup.sh");
        let output = BlockingCommand::new(&script).arg(self.name()).stdin(Stdio::null()).output();
        let failure = match output {
            Ok(output) if output.status.success() => return true,
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => format!("cannot run {}: {error}", script.display()),
        };
        let in_ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
        assert!(!in_ci, "the {} SDK cannot be installed, and CI=true demands it: {failure}", self.name());
        eprintln!("SKIPPED: the {} SDK cannot be installed: {failure}", self.name());
        false
    }

    fn command(self) -> Command {
        let installed = workspace_directory().join(".tools/sdks").join(self.name());
        match self {
            Self::Python => {
                let mut command = Command::new(installed.join("bin/python"));
                command.arg(installed.join("reader.py"));
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(installed.join("reader.mjs"));
                command
            }
            Self::Go => Command::new(installed.join("reader")),
            Self::Java => {
                let mut command = Command::new("java");
                let path = format!("{0}/classes:{0}/jars/*", installed.display());
                // It lives for seconds: what takes long to start is left out.
                command.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", &path, "Reader"]);
                command
            }
        }
    }
}

/// The version that stands first behind a package's whole name, in any of the formats that are used here.
fn pinned_version(text: &str, name: &str) -> Option<String> {
    let is_of_name = |found: char| found.is_ascii_alphanumeric() || "-_/@".contains(found);
    text.match_indices(name).find_map(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + name.len()..]);
        if before.ends_with(is_of_name) || after.starts_with(is_of_name) {
            return None;
        }
        let version = &after[after.find(|found: char| found.is_ascii_digit())?..];
        let end = version.find(|found: char| !found.is_ascii_alphanumeric() && found != '.');
        Some(version[..end.unwrap_or(version.len())].to_owned())
    })
}

/// A running reader. It ends when this is dropped.
#[derive(Debug)]
pub struct SdkReader {
    sdk: Sdk,
    // Held so that it is killed with the reader.
    _child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    log: tempfile::NamedTempFile,
}

impl SdkReader {
    /// Starts a reader that evaluates the cases of this file; see [`Sdk::require`] first.
    pub fn start(sdk: Sdk, source: &Source, cases: &Path) -> anyhow::Result<Self> {
        let log = tempfile::NamedTempFile::new().context("cannot make a file for the reader's log")?;
        let mut command = sdk.command();
        match source {
            Source::Daemon { redis_url, prefix, more } => {
                command.args(["--mode", "daemon", "--redis-url", redis_url, "--prefix", prefix]).args(more);
            }
            Source::Direct { uri, sdk_key } => {
                command.args(["--mode", "direct", "--base", uri, "--stream", uri, "--sdk-key", sdk_key]);
            }
            Source::Writer { uri, sdk_key, redis_url, prefix } => {
                command.args(["--mode", "writer", "--base", uri, "--stream", uri, "--sdk-key", sdk_key]);
                command.args(["--redis-url", redis_url, "--prefix", prefix]);
            }
        }
        let mut child = command
            .arg("--interactive")
            .arg("--cases")
            .arg(cases)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.reopen().context("cannot open the reader's log")?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start the {} reader", sdk.name()))?;
        let stdin = child.stdin.take().context("the reader has no stdin")?;
        let stdout = child.stdout.take().context("the reader has no stdout")?;
        Ok(Self { sdk, _child: child, stdin, answers: BufReader::new(stdout).lines(), log })
    }

    /// Which SDK it is.
    pub fn sdk(&self) -> Sdk {
        self.sdk
    }

    /// Evaluates all cases now.
    pub async fn evaluate(&mut self) -> anyhow::Result<Evaluation> {
        let asking = async {
            self.stdin.write_all(b"eval\n").await?;
            self.answers.next_line().await
        };
        let answer = tokio::time::timeout(ANSWER_BOUND, asking).await;
        let name = self.sdk.name();
        match answer {
            Ok(Ok(Some(line))) => {
                Evaluation::parse(&line).with_context(|| format!("the {name} reader said {line}"))
            }
            Ok(Ok(None)) => bail!("the {name} reader ended:\n{}", self.log()),
            Ok(Err(error)) => bail!("cannot ask the {name} reader: {error}\n{}", self.log()),
            Err(_) => bail!("the {name} reader did not answer:\n{}", self.log()),
        }
    }

    /// Evaluates until the answer is the wanted one: a reader that is connected to LaunchDarkly learns of a
    /// change a little later.
    ///
    /// # Panics
    /// After `bound`, with the cases that differ.
    pub async fn wait_until_equal(&mut self, wanted: &Evaluation, bound: Duration) {
        let what = format!("the {} reader evaluates as wanted", self.sdk.name());
        wait_until(&what, bound, async || {
            let found = self.evaluate().await.map_err(|error| format!("{error:#}"))?;
            wanted.compare(&found)
        })
        .await;
    }

    /// What the SDK logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}
