//! A worker: streams environments from LaunchDarkly and writes them, fenced, to their stores.
//!
//! This crate owns what is: connections to LaunchDarkly, the data they bring, the stores it is written to, and the
//! status of all that. It never decides which worker owns an environment, and never writes without a grant.
//!
//! Start reading at [`app`] (the parts of a worker), then `session` (what control wants of it) and [`environment`]
//! (how one environment is served). `session` and the machine in `environment` are pure: no I/O, no clock.

// Options, checked.
pub mod config;
// A whole worker in a simulated world.
#[cfg(feature = "simulation")]
pub mod simulation;
// Doors for a fuzzer.
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
// A whole worker.
pub mod app;
// The state directory, and the identity of every start.
mod identity;
// The last assignments, on disk.
mod assignment_cache;
// Files that are whole at any moment.
mod state_file;
// The worker's end of the control session, pure.
mod session;
// The stream to control.
mod link;
// Starts, tells and stops environments.
mod supervisor;
// /livez, /readyz, /metrics.
mod http;
// Errors with their causes.
mod causes;
// Secrets that only workers read.
pub mod secrets;

// What every source of flag data tells its environment.
pub mod source;
// LaunchDarkly as a source: its stream and its polls.
pub mod launchdarkly;
// A file of flag data as a source.
pub mod file_source;
// What an environment holds.
pub mod dataset;
// Who may write, judged by what stands in the store.
pub mod fence;
// What is asked of a store, and Redis.
pub mod store;
// One environment: its state machine and its task.
pub mod environment;
// Counters and histograms.
pub mod metrics;
