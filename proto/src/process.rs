//! What the programs share of the world around them: layered configuration, logging, TLS and file limits, the end, and
//! the files of manifests.

// Flag, then variable, then file.
mod layered;
// What Prometheus wants to know of every process.
mod metrics;
// Random numbers.
mod chance;
// Secrets on disk.
mod sealing;
// Noticing that a file has changed.
mod file_watch;
// Manifests, and what they refer to.
#[cfg(feature = "manifest")]
mod manifest_files;

pub use chance::Chance;
pub use file_watch::{DirectoryWatch, watch_directory};
pub use layered::{parse_arguments, parse_duration};
#[cfg(feature = "manifest")]
pub use manifest_files::{read_manifest_file, resolve_secret, secret_path};
pub use metrics::register_process_metrics;
pub use sealing::{Opened, SealCondition, Sealing, SealingError, Secret};

use std::io;
use std::time::SystemTime;

use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tracing_subscriber::EnvFilter;

pub use crate::files::{Stamp, below, open_regular};
use crate::time::Timestamp;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON document a line.
    Json,
}

/// The options that every binary has for its log, which goes to standard error.
#[derive(Debug, Clone, Args)]
pub struct LogOptions {
    /// How log lines look
    #[arg(long, env = "FLOTILLA_LOG_FORMAT", value_name = "FORMAT", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// Least severe level that is logged: error, warn, info, debug, trace
    #[arg(long, env = "FLOTILLA_LOG_LEVEL", value_name = "LEVEL", default_value = "info", global = true)]
    pub log_level: LogLevel,
}

/// Severity of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// A person must look.
    Error,
    /// Unexpected, handled.
    Warn,
    /// State changes that an operator asks about.
    Info,
    /// For finding faults.
    Debug,
    /// Everything.
    Trace,
}

impl LogOptions {
    /// Sends the process's log to standard error. Only the first call has an effect.
    pub fn start(&self) {
        let level = match self.log_level {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        };
        // Libraries below us speak at debug of bytes on the wire, keys included: they stay at warn.
        let filter = EnvFilter::new(format!(
            "warn,flotilla_control={level},flotilla_worker={level},flotilla_proto={level},flotilla={level}"
        ));
        let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
        // An error means that a log was started before, as in tests: then that one stays.
        let _ = match self.log_format {
            LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
            LogFormat::Json => builder.json().flatten_event(true).try_init(),
        };
    }
}

/// Installs the one TLS provider of the process. Later calls have no effect.
pub fn install_tls_provider() {
    // An error means that it is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Raises the limit of open files to the hard limit. Returns the limit that is in force, if there is one.
pub fn raise_file_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // A refusal leaves the limit as it was, which the result tells.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current
}

/// Keeps the memory of this process, which holds secrets, out of core dumps: of files by their size, of what is piped to
/// another program by leaving all memory out.
pub fn forbid_core_dumps() {
    // A refusal leaves it as it was, which is no reason not to start.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Resolves when the process is asked to end (SIGTERM or SIGINT).
pub async fn shutdown_requested() -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// The clock of a process: the wall clock at its start, and from then on the monotonic one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    wall: Timestamp,
    started: Instant,
}

impl Clock {
    /// Starts the clock.
    #[expect(clippy::disallowed_methods, reason = "the one place where a process reads its clocks")]
    pub fn start() -> Self {
        Self::at(SystemTime::now().into())
    }

    /// A clock that shows `wall` now: for a simulation, whose time is not the system's.
    #[expect(clippy::disallowed_methods, reason = "the one place where a process reads its clocks")]
    pub fn at(wall: Timestamp) -> Self {
        Self { wall, started: Instant::now() }
    }

    /// Now. Never goes back.
    pub fn now(&self) -> Timestamp {
        self.wall.after(self.started.elapsed())
    }
}
