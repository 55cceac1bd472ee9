//! What the tests and benchmarks of Flotilla stand on. It owns the LaunchDarkly simulator and the harness that
//! runs the shipped binaries and Redis; it never is a dependency of a shipped crate. Start reading at
//! [`simulator::Simulator`].

/// Clocks, memory and CPU of processes, for what is measured.
pub mod figures;
/// Processes: Redis, the shipped binaries, and waiting for what they do.
pub mod harness;
/// The network between them, and what can be wrong with it.
pub mod proxy;
/// The real LaunchDarkly SDKs, as readers.
pub mod sdks;
/// LaunchDarkly, as far as a worker can see it.
pub mod simulator;
