//! `flotilla store …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use flotilla_proto::{Prefix, SecretReference, StoreName, WorkerName};

/// `flotilla store …`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Add a store; environments use it with `flotilla env add --store NAME`
    ///
    /// The URL is resolved on the workers. It may name a Redis server, a Unix socket of the workers' machine, Sentinels and
    /// the name of their master, or nodes of a cluster; an \"s\" after \"redis\" means TLS.
    ///
    /// A password in the URL shows in process lists: rather give it with one of the options below, or say where workers
    /// find it. TLS files are paths on the workers, which read them whenever they connect, so that they can be renewed in
    /// place.
    #[command(
        after_help = "In a cluster the prefix of each environment needs a hash tag, as in {ld:spree}, to keep its keys together.

Examples:
  flotilla store add eu redis://redis.eu.example:6379/2
  flotilla store add acl redis://redis.example --username flotilla --password-file password.txt
  flotilla store add mounted redis://redis.example --password-from file:redis/password
  flotilla store add tls rediss://redis.example --tls-ca /etc/flotilla/ca.pem
  flotilla store add local redis+unix:///run/redis.sock?db=1
  flotilla store add ha redis+sentinel://s1.example,s2.example/mymaster --sentinel-password-env SENTINEL_PASSWORD
  flotilla store add cluster redis+cluster://n1.example,n2.example"
    )]
    Add(Box<AddStore>),
    /// Change how a store is reached, also while environments use it
    ///
    /// Changes how the store is reached, not where it is: another password or user, a Sentinel or a node more, other TLS
    /// files. A new URL shares an address with the present one, and has the same database and name of a master. What is not
    /// given stays as it is, passwords included; '' unsets a user or a path.
    ///
    /// The workers go over to new connections at once. The store "default" is that of control's --redis-url, and is changed
    /// there.
    #[command(
        after_help = "Where the place itself changes, add another store, remove the environments and add them there.

Examples:
  flotilla store update eu --password-file password.txt
  flotilla store update eu --username flotilla --password-env REDIS_PASSWORD --dry-run
  flotilla store update ha --url redis+sentinel://s1.example,s2.example,s3.example/mymaster --sentinel-password-env PASSWORD
  flotilla store update tls --tls-ca /etc/flotilla/ca-2.pem"
    )]
    Update(Box<UpdateStore>),
    /// List the stores
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  flotilla store list
  flotilla store list -o wide"
    )]
    List,
    /// Show one store
    #[command(after_help = "Examples:
  flotilla store get eu")]
    Get {
        /// Name of the store
        name: StoreName,
    },
    /// Have a worker look a store over: connection, version, role, persistence, eviction, latency, permissions, tracking
    ///
    /// For a moment it writes keys of its own, under a prefix, to see what the user may do.
    #[command(
        after_help = "Exit status: 0 workers can use it, perhaps with warnings, 1 they cannot, 2 could not tell, 3 unknown store.

Examples:
  flotilla store check eu
  flotilla store check eu --worker w2
  flotilla store check acl --prefix ld:spree:production"
    )]
    Check(CheckStore),
    /// Remove a store that no environment uses; what is in it stays
    #[command(
        visible_alias = "rm",
        after_help = "Examples:
  flotilla store remove eu"
    )]
    Remove(RemoveStore),
}

/// Where passwords are read from.
#[derive(Clone, Default, Args)]
#[command(next_help_heading = "Passwords")]
pub struct SecretOptions {
    /// Read the password from this file
    #[arg(long, value_name = "FILE", group = "password")]
    pub password_file: Option<PathBuf>,
    /// Read the password from this environment variable
    #[arg(long, value_name = "VARIABLE", group = "password")]
    pub password_env: Option<String>,
    /// Read the password from standard input
    #[arg(long, group = "password")]
    pub password_stdin: bool,
    /// Where workers find the password, so that control never has it: file:NAME, below their --secrets-dir, or env:NAME, their
    /// variable FLOTILLA_SECRET_NAME; read whenever they connect
    #[arg(long, value_name = "REFERENCE", group = "password")]
    pub password_from: Option<SecretReference>,
    /// Read the password of the Sentinels from this file
    #[arg(long, value_name = "FILE", group = "sentinel_password")]
    pub sentinel_password_file: Option<PathBuf>,
    /// Read the password of the Sentinels from this environment variable
    #[arg(long, value_name = "VARIABLE", group = "sentinel_password")]
    pub sentinel_password_env: Option<String>,
    /// Where workers find the password of the Sentinels: file:NAME or env:NAME, as above
    #[arg(long, value_name = "REFERENCE", group = "sentinel_password")]
    pub sentinel_password_from: Option<SecretReference>,
}

impl std::fmt::Debug for SecretOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretOptions").finish_non_exhaustive()
    }
}

/// Who the workers are, and the files that they encrypt with.
#[derive(Debug, Clone, Default, Args)]
pub struct AccessOptions {
    /// ACL user of the workers
    #[arg(long, value_name = "USER")]
    pub username: Option<String>,
    /// User of the workers towards the Sentinels
    #[arg(long, value_name = "USER")]
    pub sentinel_username: Option<String>,
    /// File on the workers with the certificates to trust, instead of those of the system; an absolute path
    #[arg(long, value_name = "PATH")]
    pub tls_ca: Option<String>,
    /// File on the workers with the certificate that they show; an absolute path. It comes with its key
    #[arg(long, value_name = "PATH")]
    pub tls_cert: Option<String>,
    /// File on the workers with its key; an absolute path
    #[arg(long, value_name = "PATH")]
    pub tls_key: Option<String>,
}

/// `flotilla store add`.
#[derive(Args)]
pub struct AddStore {
    /// Name of the store: a-z, 0-9, '.', '_', '-', up to 63 characters
    pub name: StoreName,
    /// redis://HOST[:PORT][/DB], redis+unix:///PATH[?db=DB], redis+sentinel://HOST[:PORT],…/MASTER[/DB] or
    /// redis+cluster://HOST[:PORT],…; with TLS rediss://, rediss+sentinel:// or rediss+cluster://
    pub url: String,
    /// Who the workers are, and their TLS files.
    #[command(flatten)]
    pub access: AccessOptions,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Its passwords.
    #[command(flatten)]
    pub secrets: SecretOptions,
}

impl std::fmt::Debug for AddStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("AddStore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `flotilla store update`.
#[derive(Args)]
pub struct UpdateStore {
    /// Name of the store
    pub name: StoreName,
    /// The addresses that lead there, as in `store add`
    #[arg(long)]
    pub url: Option<String>,
    /// Who the workers are, and their TLS files.
    #[command(flatten)]
    pub access: AccessOptions,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Its passwords.
    #[command(flatten)]
    pub secrets: SecretOptions,
}

impl std::fmt::Debug for UpdateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may hold a password.
        f.debug_struct("UpdateStore").field("name", &self.name).finish_non_exhaustive()
    }
}

/// `flotilla store check`.
#[derive(Debug, Args)]
pub struct CheckStore {
    /// Name of the store
    pub name: StoreName,
    /// The worker that looks; unset: any that is connected
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<WorkerName>,
    /// The prefix to write under, for a user whose keys are restricted; unset: that of an environment of the store
    #[arg(long)]
    pub prefix: Option<Prefix>,
}

/// `flotilla store remove`.
#[derive(Debug, Args)]
pub struct RemoveStore {
    /// Name of the store
    pub name: StoreName,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// An unknown name is no error
    #[arg(long)]
    pub ignore_not_found: bool,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}
