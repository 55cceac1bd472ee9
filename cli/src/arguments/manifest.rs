//! `flotilla plan`, `apply` and `export`.

use std::path::PathBuf;

use clap::Args;

use super::value::parse_label;

/// What environments shall be.
#[derive(Debug, Args)]
pub struct Files {
    /// What environments shall be: a file, a directory (its *.yaml, *.yml and *.json by name), or - for standard input
    #[arg(short, long = "file", value_name = "FILE|DIR|-")]
    pub file: PathBuf,
    /// Also remove what carries the same label managed-by as all that the files say, and is not in them
    ///
    /// The data stays in the store. It is refused without --yes where it would remove all that carry the label, or more
    /// than 5 and more than 20 % of them.
    #[arg(long)]
    pub prune: bool,
}

/// `flotilla plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// What environments shall be.
    #[command(flatten)]
    pub files: Files,
}

/// `flotilla apply`.
#[derive(Debug, Args)]
pub struct Apply {
    /// What environments shall be.
    #[command(flatten)]
    pub files: Files,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Remove however many --prune finds, without asking
    #[arg(long)]
    pub yes: bool,
}

/// `flotilla export`.
#[derive(Debug, Args)]
pub struct Export {
    /// Only those with this label; may be repeated
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", value_parser = parse_label)]
    pub labels: Vec<(String, String)>,
}
