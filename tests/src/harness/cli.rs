//! One run of `flotilla`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Commands that wait have bounds of their own; this one is against a test that hangs.
const BOUND: Duration = Duration::from_mins(3);

/// What a command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliOutput {
    /// Exit status; -1 when a signal ended it.
    pub status: i32,
    /// Data.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

impl CliOutput {
    /// The only document on stdout.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.stdout).with_context(|| format!("not one JSON document: {self:?}"))
    }

    /// This output, of a command that must have succeeded.
    ///
    /// # Panics
    /// When it did not.
    #[expect(clippy::return_self_not_must_use, reason = "most callers only want to know that it succeeded")]
    pub fn expect_success(self) -> Self {
        assert_eq!(self.status, 0, "{self:?}");
        self
    }
}

/// Runs the command to its end, with `stdin` as its input.
pub(super) async fn run(mut command: Command, stdin: &str) -> anyhow::Result<CliOutput> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start flotilla")?;
    let mut input = child.stdin.take().context("the child has no stdin")?;
    // A command that does not read its input may close it first.
    let _ = input.write_all(stdin.as_bytes()).await;
    drop(input);
    let output = tokio::time::timeout(BOUND, child.wait_with_output())
        .await
        .context("the command did not end in time")?
        .context("cannot wait for the command")?;
    Ok(CliOutput {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).context("stdout is not UTF-8")?,
        stderr: String::from_utf8(output.stderr).context("stderr is not UTF-8")?,
    })
}
