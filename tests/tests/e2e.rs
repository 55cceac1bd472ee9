//! End to end: the shipped binaries, real Redis, real SDKs, and the simulator in LaunchDarkly's place.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

// Where the store's operations are tried: on every kind of Redis.
#[path = "e2e/bench.rs"]
mod bench;
// The operations of the Redis store on a real server: the fence table, staged loads, foreign writes.
#[path = "e2e/redis_store.rs"]
mod redis_store;
// What stands in for it in other tests.
#[path = "e2e/conformance.rs"]
mod conformance;
// What comes between the steps of a load.
#[path = "e2e/staged_loads.rs"]
mod staged_loads;
// What a store holds, for the tests that follow.
#[path = "e2e/stored.rs"]
mod stored;
// What Redis is told, command by command.
#[path = "e2e/monitor.rs"]
mod monitor;
// Single runs of the programs.
#[path = "e2e/program.rs"]
mod program;
// Add, show, pause, update, remove.
#[path = "e2e/main_job.rs"]
mod main_job;
// LaunchDarkly away, and keys that are refused.
#[path = "e2e/error_section.rs"]
mod error_section;
// Bytes, and how few of them are written.
#[path = "e2e/fidelity.rs"]
mod fidelity;
// What LaunchDarkly takes back.
#[path = "e2e/regression.rs"]
mod regression;
// Polls and files.
#[path = "e2e/sources.rs"]
mod sources;
// No mixtures, no gaps.
#[path = "e2e/readers.rs"]
mod readers;
// The real SDKs on what was written.
#[path = "e2e/sdks.rs"]
mod sdks;
// The SDK for PHP, which is not run.
#[path = "e2e/php.rs"]
mod php;
// Programs that use the API, in Rust, Python and Go.
#[path = "e2e/programs.rs"]
mod programs;
// The first steps of a reader.
#[path = "e2e/tutorial.rs"]
mod tutorial;
// Pages that are made of the programs.
#[path = "e2e/reference.rs"]
mod reference;
// Units, containers and the example for Compose.
#[path = "e2e/deploy.rs"]
mod deploy;
// What is said to bad input.
#[path = "e2e/bad_input.rs"]
mod bad_input;
// Who asked for what.
#[path = "e2e/audit.rs"]
mod audit;
// What must never be shown.
#[path = "e2e/secrets.rs"]
mod secrets;
// Secrets that only workers read.
#[path = "e2e/secret_references.rs"]
mod secret_references;
// Many environments at once, and what Redis should hold of them.
#[path = "e2e/population.rs"]
mod population;
// A reader of Redis that never looks away.
#[path = "e2e/reader.rs"]
mod reader;
// What control tells meanwhile.
#[path = "e2e/chronicle.rs"]
mod chronicle;
// Changes that never cease.
#[path = "e2e/patcher.rs"]
mod patcher;
// Workers join, are emptied, and are restarted one after another, without a gap.
#[path = "e2e/handover.rs"]
mod handover;
// Who takes part, as users say it.
#[path = "e2e/membership.rs"]
mod membership;
// A worker dies, stands still, or leaves.
#[path = "e2e/failover.rs"]
mod failover;
// The network is cut between a worker and everything else.
#[path = "e2e/cuts.rs"]
mod cuts;
// Every process fails at every stage of a handover.
#[path = "e2e/stages.rs"]
mod stages;
// What is asked for, or written, while its worker is out of reach.
#[path = "e2e/out_of_reach.rs"]
mod out_of_reach;
// Control's database is an old one, or there are two of it.
#[path = "e2e/databases.rs"]
mod databases;
// Control and workers end and start again.
#[path = "e2e/restarts.rs"]
mod restarts;
// Redis loses data, is changed by somebody else, or is away.
#[path = "e2e/store_loss.rs"]
mod store_loss;
// Redis answers, and does not do what it is asked.
#[path = "e2e/redis_faults.rs"]
mod redis_faults;
// Stores that do not tell who else changes their keys.
#[path = "e2e/untracked.rs"]
mod untracked;
// Disks that take no more.
#[path = "e2e/full_disk.rs"]
mod full_disk;
// When something was last heard, and how long changes are on their way.
#[path = "e2e/freshness.rs"]
mod freshness;
// Who may connect, and as whom.
#[path = "e2e/access.rs"]
mod access;
// A certificate authority.
#[path = "e2e/certificates.rs"]
mod certificates;
// Named stores, passwords, certificates.
#[path = "e2e/stores.rs"]
mod stores;
// Real SDKs, on every way to a store.
#[path = "e2e/sdk_matrix.rs"]
mod sdk_matrix;
// Sentinels: the master is another one.
#[path = "e2e/sentinels.rs"]
mod sentinels;
// A cluster: slots are moved.
#[path = "e2e/cluster.rs"]
mod cluster;
// Workers among each other, and two fleets in one Redis.
#[path = "e2e/workers.rs"]
mod workers;
// What files say that environments shall be.
#[path = "e2e/manifests.rs"]
mod manifests;
// The configuration of LaunchDarkly's relay.
#[path = "e2e/relay.rs"]
mod relay;
// From a relay to Flotilla, and back.
#[path = "e2e/takeover.rs"]
mod takeover;
// Waiting and watching.
#[path = "e2e/watch.rs"]
mod watch;
