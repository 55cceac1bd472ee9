//! `flotilla audit …`.

use std::time::Duration;

use clap::{Args, Subcommand};
use flotilla_proto::process::parse_duration;

/// `flotilla audit …`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// List the last records, oldest first
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  flotilla audit list
  flotilla audit list --subject environment/spree-production
  flotilla audit list --subject 'environment/spree-*' --actor ci --since 7d
  flotilla audit list --refused --since 1h -o wide
  flotilla audit list --limit 10000 -o json | jq '.records[] | select(.address == null)'"
    )]
    List(ListAudit),
    /// Show the last records, and go on with those that are made
    #[command(after_help = "Examples:
  flotilla audit tail
  flotilla audit tail --refused
  flotilla audit tail --last 0 -o json")]
    Tail(TailAudit),
}

/// Which records.
#[derive(Debug, Args)]
pub struct AuditSelection {
    /// Only those of this token or certificate
    #[arg(long, value_name = "NAME")]
    pub actor: Option<String>,
    /// Only those about this: environment/NAME, store/NAME or worker/NAME; with * at its end, all that begin so
    #[arg(long, value_name = "SUBJECT")]
    pub subject: Option<String>,
    /// Only what was not carried out
    #[arg(long)]
    pub refused: bool,
}

/// `flotilla audit list`.
#[derive(Debug, Args)]
pub struct ListAudit {
    /// Which records.
    #[command(flatten)]
    pub selection: AuditSelection,
    /// Only those that are not older
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub since: Option<Duration>,
    /// How many of the last ones
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub limit: u32,
}

/// `flotilla audit tail`.
#[derive(Debug, Args)]
pub struct TailAudit {
    /// Which records.
    #[command(flatten)]
    pub selection: AuditSelection,
    /// How many of the last ones to show first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub last: u32,
}
