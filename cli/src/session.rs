//! One run of the command line: the way to control, the format of results, and where they go.

use std::io::{self, IsTerminal as _, Write};

use flotilla_proto::Timestamp;
use flotilla_proto::process::Clock;
use serde::Serialize;

use crate::arguments::{Global, OutputFormat};
use crate::client::Client;
use crate::failure::{ExitStatus, Failure};
use crate::output::{Shown, show};

/// One run of the command line.
pub struct Session {
    /// The way to control.
    pub(crate) client: Client,
    /// How results look.
    pub(crate) format: OutputFormat,
    /// Where results go.
    pub(crate) out: Box<dyn Write>,
    /// Where the rest goes.
    pub(crate) err: Box<dyn Write>,
    clock: Clock,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Session {
    /// A run on the process's own standard output and error.
    pub(crate) fn new(global: &Global) -> Result<Self, Failure> {
        let options = global.connection.options().map_err(Failure::usage)?;
        Ok(Self {
            client: Client::new(&global.control, options, global.request_timeout)?,
            format: global.output,
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            clock: Clock::start(),
        })
    }

    /// A run whose results go elsewhere.
    pub fn with_output(global: &Global, out: Box<dyn Write>, err: Box<dyn Write>) -> Result<Self, Failure> {
        Ok(Self { out, err, ..Self::new(global)? })
    }

    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Whether results are documents for programs.
    pub(crate) fn wants_document(&self) -> bool {
        match self.format {
            OutputFormat::Json | OutputFormat::Yaml => true,
            OutputFormat::Table | OutputFormat::Wide | OutputFormat::Name => false,
        }
    }

    /// Writes a result in the format asked for.
    pub(crate) fn show<D: Serialize>(&mut self, shown: &Shown<'_, D>) -> Result<(), Failure> {
        show(&mut self.out, self.format, shown)
    }

    /// Says something to the user that is no result. Best effort: a closed standard error stops nothing.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// Whether somebody is there to be asked.
    pub(crate) fn can_ask() -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks before something is lost. Only on a terminal; elsewhere it must have been answered by `--yes`.
    pub(crate) fn confirm(&mut self, question: &str) -> Result<bool, Failure> {
        if !Self::can_ask() {
            return Err(Failure::usage(format!(
                "this needs a yes ({question}), and there is no terminal to ask on"
            ))
            .hint("say --yes"));
        }
        let mut answer = String::new();
        let asked = write!(self.err, "{question} [y/N] ").and_then(|()| self.err.flush());
        asked
            .and_then(|()| io::stdin().read_line(&mut answer))
            .map_err(|error| Failure::new(ExitStatus::Failed, format!("cannot ask: {error}")))?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
