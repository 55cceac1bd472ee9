//! `flotilla init …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use flotilla_proto::access::WorkerPattern;

/// `flotilla init …`.
#[derive(Debug, Subcommand)]
pub enum InitCommand {
    /// Make a private authority, and certificates for control and for clients
    ///
    /// Writes ca.pem, which clients trust; control.pem and control.key, which control serves with; a pair for every
    /// --client; and ca.key, which signs more of them: keep it where control does not run. Nothing that is there is
    /// overwritten, but for --renew.
    #[command(after_help = "Examples:
  flotilla init tls /etc/flotilla/tls --host control.example --host 10.0.0.5
  flotilla init tls /etc/flotilla/tls --host control.example --renew
  flotilla init tls /etc/flotilla/tls --renew --host control.example --client w1 --client w2")]
    Tls(InitTls),
    /// Make tokens of a viewer, an operator, an admin and of workers, and control's files of their hashes
    ///
    /// Writes tokens.toml and workers.toml, which control reads and which hold no token, and one file for each token.
    /// Nothing that is there is overwritten. For more of them, make them in another directory, and append its tokens.toml
    /// and workers.toml to those that control reads.
    #[command(after_help = "Examples:
  flotilla init tokens /etc/flotilla/tokens --worker w1 --worker w2
  flotilla init tokens more --worker 'edge-*'")]
    Tokens(InitTokens),
}

/// `flotilla init tls`.
#[derive(Debug, Args)]
pub struct InitTls {
    /// Where the files go; it is made, for its owner alone, if it is not there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// A name or an address that control is reached by, besides localhost, 127.0.0.1 and ::1; may be repeated
    #[arg(long, value_name = "NAME_OR_IP")]
    pub host: Vec<String>,
    /// A name for which to make a client certificate: a worker's, or one in control's --token-file; may be repeated
    #[arg(long, value_name = "NAME")]
    pub client: Vec<String>,
    /// How long the certificates are valid; the authority is for ten years
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u16).range(1..=3650))]
    pub days: u16,
    /// Sign anew with the authority that is in DIR: replaces control's certificate and those of --client
    #[arg(long)]
    pub renew: bool,
}

/// `flotilla init tokens`.
#[derive(Debug, Args)]
pub struct InitTokens {
    /// Where the files go; it is made, for its owner alone, if it is not there
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// A worker to make a token for; may be repeated. One that ends in * is for all whose names begin so: whoever has its token
    /// may be any of them, and is given what that one serves
    #[arg(long, value_name = "NAME", required = true, value_parser = WorkerPattern::parse)]
    pub worker: Vec<WorkerPattern>,
}
