//! The command line: what may be said. What is said is checked here as far as no control is needed for it.

// `flotilla env …`.
mod env;
// `flotilla worker …` and `flotilla events`.
mod fleet;
// `flotilla audit …`.
mod audit;
// `flotilla store …`.
mod store;
// `flotilla plan`, `apply` and `export`.
mod manifest;
// `flotilla import`.
mod import;
// `flotilla init`.
mod init;
// How control is reached, and who asks.
mod connection;
// Labels and sources.
mod value;

pub use audit::{AuditCommand, AuditSelection, ListAudit, TailAudit};
pub use connection::Connection;
pub use env::{
    Add, Changes, EnvCommand, KeyOptions, List, Pause, Remove, Resync, RotateKey, Selected, Update, Wait, WaitGoal,
};
pub use fleet::{Drain, EventKind, Events, Forget, Member, WorkerCommand};
pub use import::{Import, RelaySource};
pub use init::{InitCommand, InitTls, InitTokens};
pub use manifest::{Apply, Export, Files, Plan};
pub use store::{AccessOptions, AddStore, CheckStore, RemoveStore, SecretOptions, StoreCommand, UpdateStore};
pub use value::{LabelChange, SourceOption, parse_label, parse_label_change, parse_source};

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use flotilla_proto::EnvironmentName;
use flotilla_proto::process::{LogLevel, parse_duration};

/// Keeps LaunchDarkly flag data in Redis for SDKs in daemon mode
#[derive(Debug, Parser)]
#[command(
    name = "flotilla",
    version,
    arg_required_else_help = true,
    subcommand_required = true,
    max_term_width = 100,
    after_help = "Examples:
  flotilla dev
  flotilla env add spree-production --prefix ld:spree:production --sdk-key-file key.txt --wait
  flotilla env status spree-production"
)]
pub struct Cli {
    /// Options that every command has.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command has.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Where control listens
    #[arg(
        long,
        env = "FLOTILLA_CONTROL",
        hide_env_values = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:7400",
        global = true
    )]
    pub control: String,
    /// How long control may take to answer
    #[arg(long, env = "FLOTILLA_REQUEST_TIMEOUT", hide_env_values = true, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, global = true)]
    pub request_timeout: Duration,
    /// How results look
    #[arg(
        short,
        long,
        env = "FLOTILLA_OUTPUT",
        hide_env_values = true,
        value_name = "FORMAT",
        default_value = "table",
        global = true
    )]
    pub output: OutputFormat,
    /// How control is reached, and who asks.
    #[command(flatten)]
    pub connection: Connection,
}

/// How results look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// Columns for people
    Table,
    /// More columns
    Wide,
    /// One JSON document; changes: one a line
    Json,
    /// The same document as YAML
    Yaml,
    /// Names only, as KIND/NAME
    Name,
}

/// The nouns.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Environments: LaunchDarkly environments that the fleet keeps in Redis
    #[command(
        subcommand,
        visible_alias = "environment",
        after_help = "Examples:
  flotilla env list
  flotilla env add --help"
    )]
    Env(EnvCommand),
    /// Workers
    #[command(
        subcommand,
        after_help = "Examples:
  flotilla worker list"
    )]
    Worker(WorkerCommand),
    /// Stores: Redis databases that environments are kept in
    #[command(
        subcommand,
        after_help = "Examples:
  flotilla store list
  flotilla store add eu redis://redis.eu.example:6379/2"
    )]
    Store(StoreCommand),
    /// Show what an apply would change; exit status 1 if something differs
    ///
    /// Compares what files say that environments and stores shall be with what control has, field by field. Nothing is
    /// changed. SDK keys are read where this program runs, and never shown.
    #[command(
        after_help = "Exit status: 0 nothing differs, 1 something does, 2 could not tell or cannot be applied,
5 control unreachable, 124 control did not answer in time.

Examples:
  flotilla plan -f environments.yaml
  flotilla plan -f environments/ --prune
  flotilla plan -f environments.yaml -o json"
    )]
    Plan(Plan),
    /// Make environments and stores what files say
    ///
    /// An environment that is not there is created, one that differs is changed, and what a file does not say of it goes
    /// back to its default; an entry without sdkKey keeps the key that is there, one with another key rotates to it. Each
    /// is done wholly or not at all; those that cannot be done are listed, with exit status 1, and hold none of the others
    /// up. All goes in one request, of at most 10,000 environments.
    ///
    /// Files are YAML or JSON, with one document or several: see docs/manifests.md and docs/environments.schema.json.
    /// Secrets are never written into them: sdkKey: {file: PATH} or {env: VARIABLE} says where one is. They are read where
    /// this program runs; a relative path begins at the directory of the file that names it. {worker: REFERENCE} says where
    /// workers find one, and is passed on.
    #[command(after_help = "Examples:
  flotilla apply -f environments.yaml
  flotilla apply -f environments/ --prune
  flotilla export -l team=spree | sed s/spree/sprout/ | flotilla apply -f - --dry-run")]
    Apply(Apply),
    /// Print environments as a file that `plan` finds the same
    ///
    /// SDK keys do not come out of control, but for references to them: an entry without sdkKey keeps the key that is there.
    #[command(after_help = "Examples:
  flotilla export > environments.yaml
  flotilla export -l team=spree -o json")]
    Export(Export),
    /// Take the configuration of LaunchDarkly's relay over: print it as a manifest, or apply it
    ///
    /// Reads the relay's configuration file or its variables. The environments that it keeps in Redis become environments
    /// of the same prefixes, so that SDKs in daemon mode go on reading where they read. What has no meaning here is listed
    /// with the reason; what cannot be honoured is an error. Keys and passwords are never printed.
    #[command(after_help = "To take over from a relay that runs, see docs/takeover.md.

Examples:
  flotilla import --from ld-relay.conf
  flotilla import --from ld-relay.conf --write-keys keys > environments.yaml
  flotilla import --from ld-relay.conf --dry-run
  flotilla import --from-env --apply")]
    Import(Import),
    /// Sum the fleet up; exit status 1 if an environment that is not paused is not current
    #[command(
        after_help = "Exit status: 0 all current, 1 not all current, 2 could not tell, 5 control unreachable, 124 control did not
answer in time.

Examples:
  flotilla status
  flotilla status -o json"
    )]
    Status,
    /// What happened: assignments, moves, repairs, fenced writes, changes of state
    #[command(after_help = "Of everything that happened, the last 10,000 events are kept.

Examples:
  flotilla events
  flotilla events -f
  flotilla events --environment spree-production --type moved --type write-fenced")]
    Events(Events),
    /// Who asked for what: changes, and calls that were refused
    #[command(
        subcommand,
        after_help = "Control keeps a record of each change that was carried out or refused, and of each call that was refused for
want of a token or of rights, for its --audit-retention. Reading them needs role admin. See docs/audit.md.

Examples:
  flotilla audit list --subject environment/spree-production
  flotilla audit tail"
    )]
    Audit(AuditCommand),
    /// What the store holds of an environment
    #[command(
        subcommand,
        after_help = "Examples:
  flotilla data list spree-production"
    )]
    Data(DataCommand),
    /// Make certificates and tokens, for a control that listens on a network
    #[command(
        subcommand,
        after_help = "See docs/access.md.

Examples:
  flotilla init tls /etc/flotilla/tls --host control.example
  flotilla init tokens /etc/flotilla/tokens --worker w1 --worker w2"
    )]
    Init(InitCommand),
    /// Run the whole product in this process, on this machine
    ///
    /// Control and workers in one process, for trying and for development. Data is kept in ./.flotilla-dev. Without an
    /// SDK key, a sample flag file is served: edit it and see the change in Redis within a second. With the configuration
    /// of LaunchDarkly's relay, its environments are kept in the Redis that it names.
    Dev(Dev),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:
  flotilla completions bash > ~/.local/share/bash-completion/completions/flotilla
  flotilla completions zsh > ~/.zfunc/_flotilla")]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version of this program and of control
    #[command(after_help = "Examples:
  flotilla version
  flotilla version -o json")]
    Version,
}

/// `flotilla data …`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// List keys, versions and sizes of the stored flags and segments
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  flotilla data list spree-production
  flotilla data list spree-production -o name"
    )]
    List {
        /// Name of the environment
        name: EnvironmentName,
    },
    /// Print one stored flag or segment, byte for byte
    #[command(after_help = "Examples:
  flotilla data get spree-production flag/new-checkout
  flotilla data get spree-production segment/beta-testers | jq .included")]
    Get {
        /// Name of the environment
        name: EnvironmentName,
        /// flag/KEY or segment/KEY
        item: String,
    },
    /// Compare LaunchDarkly, the worker and the store, item by item; exit status 1 if something differs
    #[command(
        after_help = "LaunchDarkly is polled for it, at the environment's base URI. Between LaunchDarkly and the worker
versions are compared, between the worker and the store every byte.

Examples:
  flotilla data verify spree-production
  flotilla data verify spree-production --repair --request-timeout 1m"
    )]
    Verify {
        /// Name of the environment
        name: EnvironmentName,
        /// If something differs, have the worker connect anew and write what is missing, and look again
        #[arg(long)]
        repair: bool,
    },
}

/// `flotilla dev`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "It is its own control: of the global options it takes --help only.

Examples:
  flotilla dev
  flotilla dev --flags my-flags.json --workers 3
  flotilla dev --sdk-key-file key.txt --redis-url redis://127.0.0.1:6379
  flotilla dev --from ld-relay.conf")]
pub struct Dev {
    /// Flag-data file to serve when no SDK key is given; a sample is written if it is absent
    #[arg(long, value_name = "FILE", default_value = "flotilla-flags.json", conflicts_with_all = ["from", "from_env"])]
    pub flags: PathBuf,
    /// How many workers
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub workers: u8,
    /// Redis to write to; without it, a redis-server from PATH is started and stopped again
    #[arg(long, value_name = "URL", conflicts_with_all = ["from", "from_env"])]
    pub redis_url: Option<String>,
    /// Base of LaunchDarkly's streaming service
    #[arg(long, value_name = "URL")]
    pub stream_uri: Option<String>,
    /// Base of LaunchDarkly's polling service
    #[arg(long, value_name = "URL")]
    pub base_uri: Option<String>,
    /// Least severe level that is logged
    #[arg(long, value_name = "LEVEL", default_value = "warn")]
    pub log_level: LogLevel,
    /// SDK key of the LaunchDarkly environment to stream; without one, the flag file is served.
    #[command(flatten)]
    pub key: KeyOptions,
    /// A relay's configuration, whose environments are kept instead.
    #[command(flatten)]
    pub relay: RelaySource,
}

#[cfg(test)]
mod tests;
