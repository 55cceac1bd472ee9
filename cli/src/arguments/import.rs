//! `flotilla import`, and the relay's configuration for `flotilla dev`.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use flotilla_proto::StoreName;

/// Where a relay's configuration is.
#[derive(Debug, Clone, Default, Args)]
#[group(id = "relay", multiple = false)]
pub struct RelaySource {
    /// Configuration file of LaunchDarkly's relay
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
    /// The relay's variables, as they are set for this program: USE_REDIS, REDIS_HOST, LD_ENV_name, LD_PREFIX_name…
    #[arg(long)]
    pub from_env: bool,
}

impl RelaySource {
    /// Whether one is named.
    pub(crate) fn is_given(&self) -> bool {
        self.from.is_some() || self.from_env
    }
}

/// `flotilla import`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").args(["from", "from_env"]).required(true))]
pub struct Import {
    /// Where the configuration is.
    #[command(flatten)]
    pub source: RelaySource,
    /// Apply it at once, with the keys that it holds
    #[arg(long)]
    pub apply: bool,
    /// Show what --apply would change, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// What the relay's Redis is called as a store. Default: the store of control that leads there, else relay
    #[arg(long, value_name = "NAME")]
    pub store: Option<StoreName>,
    /// Write keys and passwords to files of this directory, for their owner only, and name these in the manifest
    #[arg(long, value_name = "DIR", conflicts_with_all = ["apply", "dry_run"])]
    pub write_keys: Option<PathBuf>,
}
