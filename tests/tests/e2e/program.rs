//! Single runs of the shipped programs, without a fleet around them.

use std::process::Stdio;
use std::time::Duration;

use flotilla_tests::harness::{binary_directory, binary_in};
use tokio::process::Command;

/// None of these runs has anything to wait for.
const BOUND: Duration = Duration::from_secs(20);

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A shipped program, with none of the tester's own variables.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(binary_in(&binary_directory().unwrap(), program).unwrap());
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("FLOTILLA_") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs it to its end.
pub(crate) async fn run(mut command: Command) -> Ended {
    let output = tokio::time::timeout(BOUND, command.output()).await;
    let output = output.unwrap_or_else(|_| panic!("it did not end: {command:?}")).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}
