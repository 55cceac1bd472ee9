//! `flotilla worker …` and `flotilla events`.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use flotilla_proto::process::parse_duration;
use flotilla_proto::{EnvironmentName, WorkerName, v1};

/// `flotilla worker …`.
#[derive(Debug, Subcommand)]
pub enum WorkerCommand {
    /// List the workers
    #[command(
        visible_alias = "ls",
        after_help = "Examples:
  flotilla worker list
  flotilla worker list -o wide"
    )]
    List,
    /// Show one worker and the environments granted to it
    #[command(after_help = "Examples:
  flotilla worker get w1")]
    Get {
        /// Name of the worker
        #[arg(value_name = "WORKER")]
        name: WorkerName,
    },
    /// Give a worker no more environments; those that it has stay
    ///
    /// Holds until `flotilla worker uncordon`, whatever restarts meanwhile. A drain ends, with what it has begun.
    #[command(after_help = "Examples:
  flotilla worker cordon w1")]
    Cordon(Member),
    /// Let a worker take part again, after cordon or drain
    #[command(after_help = "Examples:
  flotilla worker uncordon w1")]
    Uncordon(Member),
    /// Cordon a worker and move its environments to others, each without a gap
    ///
    /// Returns at once; the moves go on until nothing is left, or nobody can take the rest. `flotilla worker cordon` and
    /// `uncordon` end it.
    #[command(
        after_help = "Exit status with --wait: 0 it has nothing left, 1 the drain was ended, 124 time ran out.

Examples:
  flotilla worker drain w1
  flotilla worker drain w1 --wait --timeout 10m"
    )]
    Drain(Drain),
    /// Forget a worker that will not come back; what it has moves at once
    ///
    /// Its cordon is forgotten too. Should it come back all the same, it is a new worker, and the store refuses its writes.
    #[command(after_help = "Examples:
  flotilla worker forget w1 --yes")]
    Forget(Forget),
}

/// `flotilla worker cordon` and `uncordon`.
#[derive(Debug, Args)]
pub struct Member {
    /// Name of the worker
    #[arg(value_name = "WORKER")]
    pub name: WorkerName,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `flotilla worker drain`.
#[derive(Debug, Args)]
pub struct Drain {
    /// Name of the worker
    #[arg(value_name = "WORKER")]
    pub name: WorkerName,
    /// Wait until it has nothing left, and show how far it is
    #[arg(long, conflicts_with = "dry_run")]
    pub wait: bool,
    /// How long to wait; the drain goes on after that
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = parse_duration, requires = "wait")]
    pub timeout: Duration,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `flotilla worker forget`.
#[derive(Debug, Args)]
pub struct Forget {
    /// Name of the worker
    #[arg(value_name = "WORKER")]
    pub name: WorkerName,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Check everything, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// `flotilla events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub follow: bool,
    /// How many of the last events to show first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    pub last: u32,
    /// Only those about this environment
    #[arg(long, value_name = "NAME")]
    pub environment: Option<EnvironmentName>,
    /// Only those about this worker
    #[arg(long, value_name = "WORKER")]
    pub worker: Option<WorkerName>,
    /// Only those of this type; may be repeated
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<EventKind>,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EventKind {
    /// A request changed an environment
    EnvironmentChanged,
    /// An environment is no more
    EnvironmentEnded,
    /// A worker got an environment that nobody had, or a new grant of its own
    Assigned,
    /// Another worker gets an environment ready to take it over
    HandoverBegun,
    /// It does not take it over
    HandoverAbandoned,
    /// An environment went from one worker to another
    Moved,
    /// What SDKs find, or whether it is up to date, changed
    InitializationChanged,
    /// A worker cannot carry an environment out
    AssignmentRejected,
    /// The store refused a write for its fence
    WriteFenced,
    /// A worker mended the store
    StoreRepaired,
    /// A worker came, went, or was told whether to take part
    WorkerChanged,
}

impl From<EventKind> for v1::EventType {
    fn from(kind: EventKind) -> Self {
        match kind {
            EventKind::EnvironmentChanged => Self::EnvironmentChanged,
            EventKind::EnvironmentEnded => Self::EnvironmentEnded,
            EventKind::Assigned => Self::Assigned,
            EventKind::HandoverBegun => Self::HandoverBegun,
            EventKind::HandoverAbandoned => Self::HandoverAbandoned,
            EventKind::Moved => Self::Moved,
            EventKind::InitializationChanged => Self::InitializationChanged,
            EventKind::AssignmentRejected => Self::AssignmentRejected,
            EventKind::WriteFenced => Self::WriteFenced,
            EventKind::StoreRepaired => Self::StoreRepaired,
            EventKind::WorkerChanged => Self::WorkerChanged,
        }
    }
}
