//! `flotilla env …`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use flotilla_proto::process::parse_duration;
use flotilla_proto::v1::{GuardPolicy, Initialization};
use flotilla_proto::{EnvironmentName, Prefix, StoreName};

use super::value::{LabelChange, SourceOption, parse_label, parse_label_change, parse_source};

/// `flotilla env …`.
#[derive(Debug, Subcommand)]
pub enum EnvCommand {
    /// Add an environment
    #[command(
        after_help = "Defaults: --source stream, --initial-retry-delay 1s, --poll-interval 30s, --guard confirm.

Examples:
  flotilla env add spree-production --prefix ld:spree:production --sdk-key-file key.txt --wait
  flotilla env add spree-test --prefix ld:spree:test --sdk-key-env SPREE_TEST_SDK_KEY
  flotilla env add local --prefix local --source file:flags.json"
    )]
    Add(Box<Add>),
    /// Remove an environment; its data stays in the store unless --purge
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  flotilla env remove spree-test
  flotilla env remove spree-test --purge --yes"
    )]
    Remove(Remove),
    /// Change an environment; what is not named stays as it is
    #[command(
        after_help = "An empty value unsets: --display-name, --filter, --stream-uri, --base-uri, --application-id, --application-version.
Prefix and store cannot be changed: remove the environment and add it again.

Examples:
  flotilla env update spree-production --display-name 'Spree' --label team=spree
  flotilla env update spree-production --filter '' --label team-"
    )]
    Update(Box<Update>),
    /// List environments
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  flotilla env list
  flotilla env list -l team=spree --state stale -o wide
  flotilla env list --watch -o json"
    )]
    List(List),
    /// Show what an environment shall be
    #[command(after_help = "Examples:
  flotilla env get spree-production
  flotilla env get spree-production -o yaml")]
    Get {
        /// Name of the environment
        name: EnvironmentName,
    },
    /// Show how an environment is doing; without a name, list all
    #[command(after_help = "Examples:
  flotilla env status
  flotilla env status spree-production
  flotilla env status spree-production -o json | jq -r .initialization")]
    Status {
        /// Name of the environment
        name: Option<EnvironmentName>,
    },
    /// Wait until environments have reached a state
    #[command(
        after_help = "Exit status: 0 reached, 1 cannot be reached (paused or being removed), 3 unknown name, 5 control unreachable,
124 time ran out.

Examples:
  flotilla env wait spree-production --for current
  flotilla env wait --all --for initialized --timeout 5m"
    )]
    Wait(Wait),
    /// Stop streaming and writing; the data stays in the store
    #[command(after_help = "Examples:
  flotilla env pause spree-production")]
    Pause(Pause),
    /// Take streaming and writing up again
    #[command(after_help = "Examples:
  flotilla env resume spree-production")]
    Resume(Pause),
    /// Connect to LaunchDarkly anew and compare everything with the store
    #[command(after_help = "Examples:
  flotilla env resync spree-production
  flotilla env resync spree-production --take-over
  flotilla env resync spree-production --accept-regression")]
    Resync(Resync),
    /// Replace the SDK key; the old one is used until the new one is proved
    #[command(after_help = "Examples:
  flotilla env rotate-key spree-production --sdk-key-file new-key.txt
  read -rs KEY && printf %s \"$KEY\" | flotilla env rotate-key spree-production --sdk-key-stdin")]
    RotateKey(RotateKey),
}

/// Where an SDK key is read from. At most one may be given.
#[derive(Clone, Default, Args)]
#[group(multiple = false)]
#[command(next_help_heading = "SDK key")]
pub struct KeyOptions {
    /// The SDK key itself, which shows in process lists, so better use one of the others; or where workers find it, so that
    /// control never has it: file:NAME, below their --secrets-dir, or env:NAME, their variable FLOTILLA_SECRET_NAME
    #[arg(long, value_name = "KEY")]
    pub sdk_key: Option<String>,
    /// Read the SDK key from this file
    #[arg(long, value_name = "FILE")]
    pub sdk_key_file: Option<PathBuf>,
    /// Read the SDK key from this environment variable
    #[arg(long, value_name = "VARIABLE")]
    pub sdk_key_env: Option<String>,
    /// Read the SDK key from standard input
    #[arg(long)]
    pub sdk_key_stdin: bool,
}

impl std::fmt::Debug for KeyOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyOptions").finish_non_exhaustive()
    }
}

/// What `add` and `update` can both set.
#[derive(Debug, Clone, Default, Args)]
pub struct Changes {
    /// Free text for people, up to 256 characters
    #[arg(long, value_name = "TEXT")]
    pub display_name: Option<String>,
    /// Key of a LaunchDarkly payload filter
    #[arg(long, value_name = "KEY")]
    pub filter: Option<String>,
    /// Where the data comes from: stream, poll or file:PATH (below the workers' --file-source-dir)
    #[arg(long, value_name = "SOURCE", value_parser = parse_source)]
    pub source: Option<SourceOption>,
    /// Base of LaunchDarkly's streaming service; unset: the fleet's
    #[arg(long, value_name = "URL")]
    pub stream_uri: Option<String>,
    /// Base of LaunchDarkly's polling service; unset: the fleet's
    #[arg(long, value_name = "URL")]
    pub base_uri: Option<String>,
    /// Delay before the first reconnect of a stream, 100ms to 30s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub initial_retry_delay: Option<Duration>,
    /// Time between polls, at least 30s unless the base URI is on loopback
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub poll_interval: Option<Duration>,
    /// Sent to LaunchDarkly as application-id
    #[arg(long, value_name = "ID")]
    pub application_id: Option<String>,
    /// Sent to LaunchDarkly as application-version
    #[arg(long, value_name = "VERSION")]
    pub application_version: Option<String>,
    /// What happens to a payload that would remove all items, or more than half of 20 and more
    #[arg(long, value_name = "POLICY")]
    pub guard: Option<GuardOption>,
}

/// `flotilla env add`.
#[derive(Debug, Args)]
pub struct Add {
    /// Name of the environment: a-z, 0-9, '.', '_', '-', up to 63 characters
    pub name: EnvironmentName,
    /// Redis key prefix that SDKs are configured with; unique on its store
    #[arg(long)]
    pub prefix: Prefix,
    /// Name of the store
    #[arg(long, default_value = "default")]
    pub store: StoreName,
    /// What else it shall be.
    #[command(flatten)]
    pub changes: Changes,
    /// A label for selection; may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Only workers that carry this label may own it; may be repeated
    #[arg(long = "worker-selector", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub worker_selector: Vec<(String, String)>,
    /// Overwrite, once, what another fleet or environment has written under the prefix
    #[arg(long)]
    pub take_over: bool,
    /// Wait until SDKs find data (initialized), or until it is that of LaunchDarkly now (current)
    #[arg(
        long,
        value_name = "STATE",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "current"
    )]
    pub wait: Option<AddGoal>,
    /// How long --wait waits
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Its SDK key.
    #[command(flatten)]
    pub key: KeyOptions,
}

/// `flotilla env update`.
#[derive(Debug, Args)]
pub struct Update {
    /// Name of the environment
    pub name: EnvironmentName,
    /// What it shall be. An empty value unsets.
    #[command(flatten)]
    pub changes: Changes,
    /// Set a label (KEY=VALUE) or remove it (KEY-); may be repeated
    #[arg(long = "label", value_name = "KEY=VALUE|KEY-", value_parser = parse_label_change)]
    pub labels: Vec<LabelChange>,
    /// Set (KEY=VALUE) or remove (KEY-) a label that workers must carry; may be repeated
    #[arg(long = "worker-selector", value_name = "KEY=VALUE|KEY-", value_parser = parse_label_change)]
    pub worker_selector: Vec<LabelChange>,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Its SDK key, again: needed when --stream-uri or --base-uri changes.
    #[command(flatten)]
    pub key: KeyOptions,
}

/// `flotilla env remove`.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Args)]
pub struct Remove {
    /// Name of the environment
    pub name: EnvironmentName,
    /// Delete the data from the store too: SDKs return fallbacks
    #[arg(long)]
    pub purge: bool,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// An unknown name is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Forget it now, without touching the store
    #[arg(long, conflicts_with = "purge")]
    pub abandon: bool,
    /// Do not wait until the removal stands in the store
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `flotilla env list`.
#[derive(Debug, Default, Args)]
pub struct List {
    /// Only those with this label; may be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
    /// Only those in this state; may be repeated
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<StateOption>,
    /// Go on with changes as they happen
    #[arg(short, long)]
    pub watch: bool,
}

/// Which environments `wait` is about.
#[derive(Debug, Args)]
pub struct Selected {
    /// Names of environments
    #[arg(value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    pub names: Vec<EnvironmentName>,
    /// All environments that are not paused
    #[arg(long)]
    pub all: bool,
}

/// `flotilla env wait`.
#[derive(Debug, Args)]
pub struct Wait {
    /// Which environments.
    #[command(flatten)]
    pub selected: Selected,
    /// The state to wait for
    #[arg(long = "for", value_name = "STATE")]
    pub goal: WaitGoal,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
}

/// `flotilla env pause` and `resume`.
#[derive(Debug, Args)]
pub struct Pause {
    /// Name of the environment
    pub name: EnvironmentName,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `flotilla env resync`.
#[derive(Debug, Args)]
pub struct Resync {
    /// Name of the environment
    pub name: EnvironmentName,
    /// Overwrite, once, what condition Conflict shows
    #[arg(long)]
    pub take_over: bool,
    /// LaunchDarkly is right: its next payload replaces everything, whatever it takes back
    #[arg(long)]
    pub accept_regression: bool,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `flotilla env rotate-key`.
#[derive(Debug, Args)]
pub struct RotateKey {
    /// Name of the environment
    pub name: EnvironmentName,
    /// Replace the key at once, unproved
    #[arg(long)]
    pub force: bool,
    /// Do not wait until the new key is proved or rejected
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The new key.
    #[command(flatten)]
    pub key: KeyOptions,
}

/// What happens to a payload that would remove much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GuardOption {
    /// It is held back until a second one says the same
    Confirm,
    /// It is applied at once
    Off,
}

/// A state to filter by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateOption {
    /// Written, acknowledged, and LaunchDarkly is connected
    Current,
    /// SDKs use earlier data
    Stale,
    /// SDKs return fallbacks
    Uninitialized,
    /// No worker has looked yet
    Unknown,
}

/// A state that `env wait` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WaitGoal {
    /// SDKs find data, be it stale or current
    Initialized,
    /// The data is that of LaunchDarkly now
    Current,
    /// The environment is gone
    Removed,
}

/// A state that `env add` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AddGoal {
    /// The data is that of LaunchDarkly now
    Current,
    /// SDKs find data, be it stale or current
    Initialized,
}

impl From<AddGoal> for WaitGoal {
    fn from(goal: AddGoal) -> Self {
        match goal {
            AddGoal::Current => Self::Current,
            AddGoal::Initialized => Self::Initialized,
        }
    }
}

impl From<GuardOption> for GuardPolicy {
    fn from(option: GuardOption) -> Self {
        match option {
            GuardOption::Confirm => Self::Confirm,
            GuardOption::Off => Self::Off,
        }
    }
}

impl From<StateOption> for Initialization {
    fn from(option: StateOption) -> Self {
        match option {
            StateOption::Current => Self::Current,
            StateOption::Stale => Self::Stale,
            StateOption::Uninitialized => Self::Uninitialized,
            StateOption::Unknown => Self::Unknown,
        }
    }
}
