//! The files of a fleet whose control wants to know who calls.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::cli;

/// Workers that have a token.
const WORKERS: [&str; 4] = ["w1", "w2", "w3", "w4"];
/// Names that have a client certificate, which control's files do not know.
const CLIENTS: [&str; 3] = ["ops.example", "w1", "w4"];

/// Made by `flotilla init`.
#[derive(Debug, Default)]
pub(super) struct Secured {
    tls: PathBuf,
    /// `None`: callers are told apart by their certificates alone, which all may do everything.
    tokens: Option<PathBuf>,
}

/// Who is told how to come to control.
#[derive(Debug, Clone, Copy)]
pub(super) enum Caller<'a> {
    /// An admin, or `ops.example`.
    CommandLine,
    /// A worker of this name; those that have none of their own show what is `w1`'s.
    Worker(&'a str),
}

impl Secured {
    /// Has the files made: with tokens, beside which client certificates are optional.
    pub(super) async fn make_with_tokens(
        directory: &Path,
        flotilla: impl Fn() -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let made = Self::make(directory, &flotilla).await?;
        let tokens = directory.join("tokens");
        let mut command = flotilla()?;
        command.args(["init", "tokens"]).arg(&tokens);
        for worker in WORKERS {
            command.args(["--worker", worker]);
        }
        cli::run(command.into(), "").await?.expect_success();
        Ok(Self { tokens: Some(tokens), ..made })
    }

    /// The same without tokens.
    pub(super) async fn make(
        directory: &Path,
        flotilla: impl Fn() -> anyhow::Result<Command>,
    ) -> anyhow::Result<Self> {
        let tls = directory.join("tls");
        let mut command = flotilla()?;
        command.args(["init", "tls"]).arg(&tls);
        for client in CLIENTS {
            command.args(["--client", client]);
        }
        cli::run(command.into(), "").await?.expect_success();
        Ok(Self { tls, tokens: None })
    }

    /// What control is told.
    pub(super) fn control_arguments(&self) -> Vec<PathBuf> {
        let mut words = vec![
            ("--tls-cert", self.tls.join("control.pem")),
            ("--tls-key", self.tls.join("control.key")),
            ("--client-ca", self.tls.join("ca.pem")),
        ];
        if let Some(tokens) = &self.tokens {
            words.push(("--token-file", tokens.join("tokens.toml")));
            words.push(("--worker-token-file", tokens.join("workers.toml")));
        }
        words.into_iter().flat_map(|(option, path)| [PathBuf::from(option), path]).collect()
    }

    /// What its callers are told; options win over them.
    pub(super) fn variables(&self, caller: Caller<'_>) -> Vec<(&'static str, PathBuf)> {
        let mut variables = vec![("FLOTILLA_CA", self.tls.join("ca.pem"))];
        let mut tell = |variable, path| variables.push((variable, path));
        match (&self.tokens, caller) {
            (Some(tokens), Caller::CommandLine) => tell("FLOTILLA_TOKEN_FILE", tokens.join("admin.token")),
            (Some(tokens), Caller::Worker(name)) => {
                let known = WORKERS.into_iter().find(|known| *known == name).unwrap_or(WORKERS[0]);
                tell("FLOTILLA_TOKEN_FILE", tokens.join(format!("worker-{known}.token")));
            }
            (None, Caller::CommandLine | Caller::Worker(_)) => {
                let [operator, worker, ..] = CLIENTS;
                let name = if matches!(caller, Caller::Worker(_)) { worker } else { operator };
                tell("FLOTILLA_CLIENT_CERT", self.tls.join(format!("{name}.pem")));
                tell("FLOTILLA_CLIENT_KEY", self.tls.join(format!("{name}.key")));
            }
        }
        variables
    }
}
