//! Control: what should be. It holds the environments, grants the right to write them, assigns them to workers, and
//! serves the API.
//!
//! **Owns:** environments and their SDK keys, epochs and grants, placement, the workers' sessions, the API, and the one
//! SQLite file where all that must survive is kept.
//!
//! **Never:** touches the data in Redis, or talks to LaunchDarkly; that is the workers' part.
//!
//! **Start reading** at `fleet`, the pure heart that decides everything, then at `driver`, the one task that owns it:
//! inputs go in, their changes are made durable, and only then does anybody hear of them. `grpc` and `http` are
//! thin: they check what arrives, hand it to the driver, and put its answers into words. `app` ties all together.

// What should be, decided without clock, network or disk.
mod fleet;
// What must survive.
mod store;
// The one task that owns the fleet.
mod driver;
// Who asked for what.
mod audit;
// The API, and the workers' sessions.
mod grpc;
// Which call is for whom.
pub mod access;
// What operators and probes ask.
mod http;
// Keeping in line with a file.
mod environments_file;
// The command line, checked.
mod config;
// All of it together, as a program or inside another one.
mod app;
// All of it together, in a simulated world.
#[cfg(feature = "simulation")]
pub mod simulation;

pub use app::{App, Running, run};
pub use audit::AuditLog;
pub use config::{AccessOptions, AuditOptions, ClientCerts, Options, Settings};
