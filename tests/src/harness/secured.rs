//! The files of a fleet whose control wants to know who calls.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cli;

/// The token that the command line shows.
pub(super) const CLI_TOKEN: &str = "admin.token";
/// Workers that have a token.
const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];
/// Names that have a client certificate, which control's files do not know.
const CLIENTS: [&str; 2] = ["ops.example", "w4"];

/// Made by `flotilla init`.
#[derive(Debug, Default)]
pub(super) struct Secured {
    tls: PathBuf,
    tokens: PathBuf,
}

/// The token of a worker; those of other names show another one's.
pub(super) fn worker_token(name: &str) -> String {
    format!("worker-{}.token", WORKERS.into_iter().find(|known| *known == name).unwrap_or(WORKERS[0]))
}

impl Secured {
    /// Has the files made.
    pub(super) async fn make(
        directory: &Path,
        flotilla: impl Fn() -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let made = Self { tls: directory.join("tls"), tokens: directory.join("tokens") };
        let mut tls = flotilla()?;
        tls.args(["init", "tls"]).arg(&made.tls);
        for client in CLIENTS {
            tls.args(["--client", client]);
        }
        cli::run(tls.into(), "").await?.expect_success();
        let mut tokens = flotilla()?;
        tokens.args(["init", "tokens"]).arg(&made.tokens);
        for worker in WORKERS {
            tokens.args(["--worker", worker]);
        }
        cli::run(tokens.into(), "").await?.expect_success();
        Ok(made)
    }

    /// What control is told.
    pub(super) fn control_arguments(&self) -> Vec<PathBuf> {
        let words = [
            ("--tls-cert", self.tls.join("control.pem")),
            ("--tls-key", self.tls.join("control.key")),
            ("--client-ca", self.tls.join("ca.pem")),
            ("--token-file", self.tokens.join("tokens.toml")),
            ("--worker-token-file", self.tokens.join("workers.toml")),
        ];
        words.into_iter().flat_map(|(option, path)| [PathBuf::from(option), path]).collect()
    }

    /// What its callers are told; options win over them.
    pub(super) fn variables(&self, token: &str) -> [(&'static str, PathBuf); 2] {
        [("FLOTILLA_CA", self.tls.join("ca.pem")), ("FLOTILLA_TOKEN_FILE", self.tokens.join(token))]
    }
}
