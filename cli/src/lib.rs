//! The `flotilla` command line: the user's view of the fleet, and `flotilla dev`, the whole product in one process.
//!
//! It owns what users type and read: options, output formats, exit statuses, hints. It holds no logic that the API
//! lacks, and but for [`dev`] it knows the rest of the product through gRPC only.
//!
//! Start reading at [`arguments`] (what may be said) and [`run`]; then [`failure`] (exit statuses), [`output`] (what
//! is shown), [`watch`] and [`wait`] (how changes are followed).

// What may be said.
pub mod arguments;
// Why a command failed, and the exit status that goes with it.
pub mod failure;
// SDK keys, never shown.
mod sdk_key;
// The way to control.
mod client;
// Waiting for a state.
mod wait;
// Documents and tables.
mod output;
// One run.
pub mod session;
// `flotilla env …`
pub mod environment;
// `flotilla worker …`
mod worker;
// `flotilla store …`
pub mod store;
// `flotilla plan`, `apply`, `export`
pub mod manifest;
// What LaunchDarkly's relay is configured with.
mod relay_configuration;
// `flotilla import`
pub mod import;
// The end of a listing.
mod newest;
// `flotilla events`
mod events;
// `flotilla audit …`
mod audit;
// `status`, `version`
mod fleet;
// `flotilla data …`
mod data;
// `flotilla init …`
mod init;
// `flotilla dev`
mod dev;
// Doors for a fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;

use std::ffi::OsString;
use std::io::{self, Write};

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _};

use arguments::{Cli, Command};
use failure::{ExitStatus, Failure};
use session::Session;

/// Runs the command line to its end; returns how the process shall end. Everything is said already.
pub async fn run(arguments: Vec<OsString>) -> ExitStatus {
    let parsed = Cli::command().try_get_matches_from(&arguments).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => return usage(&error, &arguments),
    };
    if let Err(failure) = check_dev(&cli, &matches) {
        return report(&failure);
    }
    match execute(cli).await {
        Ok(status) => status,
        Err(failure) => report(&failure),
    }
}

/// `flotilla dev` is its own control: options that say where another is, or how results look, would do nothing.
fn check_dev(cli: &Cli, matches: &ArgMatches) -> Result<(), Failure> {
    let (Command::Dev(_), Some((_, dev))) = (&cli.command, matches.subcommand()) else {
        return Ok(());
    };
    let is_given = |id: &&str| dev.value_source(id) == Some(ValueSource::CommandLine);
    let options =
        ["control", "request_timeout", "output", "ca", "client_cert", "client_key", "token_file", "insecure"];
    match options.into_iter().find(is_given) {
        None => Ok(()),
        Some(id) => Err(Failure::usage(format!(
            "--{} does nothing with `flotilla dev`, which is its own control",
            id.replace('_', "-")
        ))),
    }
}

async fn execute(cli: Cli) -> Result<ExitStatus, Failure> {
    match cli.command {
        Command::Completions { shell } => completions(shell),
        Command::Dev(options) => Box::pin(dev::run(options)).await,
        Command::Env(command) => Box::pin(environment::run(&mut Session::new(&cli.global)?, command)).await,
        Command::Worker(command) => Box::pin(worker::run(&mut Session::new(&cli.global)?, command)).await,
        Command::Store(command) => Box::pin(store::run(&mut Session::new(&cli.global)?, command)).await,
        Command::Plan(options) => {
            Box::pin(async { manifest::plan(&mut Session::new(&cli.global)?, &options).await })
                .await
                .map_err(Failure::where_failed_means_no)
        }
        Command::Apply(options) => Box::pin(manifest::apply(&mut Session::new(&cli.global)?, &options)).await,
        Command::Export(options) => Box::pin(manifest::export(&mut Session::new(&cli.global)?, &options)).await,
        Command::Import(options) => Box::pin(import::run(&mut Session::new(&cli.global)?, &options)).await,
        Command::Events(options) => {
            Box::pin(events::run(&mut Session::new(&cli.global)?, &options)).await?;
            Ok(ExitStatus::Done)
        }
        Command::Audit(command) => {
            Box::pin(async { audit::run(&mut Session::new(&cli.global)?, command).await }).await?;
            Ok(ExitStatus::Done)
        }
        Command::Data(command) => data::run(&mut Session::new(&cli.global)?, command).await,
        Command::Init(command) => init::run(&command),
        Command::Version => fleet::version(&mut Session::new(&cli.global)?).await,
        Command::Status => {
            let status = async { fleet::status(&mut Session::new(&cli.global)?).await };
            status.await.map_err(Failure::where_failed_means_no)
        }
    }
}

fn completions(shell: clap_complete::Shell) -> Result<ExitStatus, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "flotilla", &mut script);
    io::stdout().write_all(&script)?;
    io::stdout().flush()?;
    Ok(ExitStatus::Done)
}

/// Help, the version, or an error of the command line, which may hold an SDK key in the wrong place.
fn usage(error: &clap::Error, arguments: &[OsString]) -> ExitStatus {
    if !error.use_stderr() {
        // A reader that has gone has seen enough.
        let _ = error.print();
        return ExitStatus::Done;
    }
    let words: Vec<String> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let text = sdk_key::redact(&error.render().to_string(), &words);
    // There is nowhere to say that standard error is closed.
    let _ = io::stderr().write_all(text.as_bytes());
    ExitStatus::Usage
}

fn report(failure: &Failure) -> ExitStatus {
    match failure {
        Failure::OutputClosed => {}
        Failure::Reported { message, hints, .. } => {
            let mut text = format!("error: {}\n", output::text::printable_lines(message));
            for hint in hints {
                text.push_str("hint: ");
                text.push_str(hint);
                text.push('\n');
            }
            // There is nowhere to say that standard error is closed.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
    failure.status()
}
