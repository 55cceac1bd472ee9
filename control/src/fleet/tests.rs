//! Tests of the rules, through `step` only. [`World`] plays the driver, its store, and the workers.

// The driver and its store, as tests play them.
mod world;
// A worker, as tests play it.
mod player;
// Create, update, delete and the like.
mod mutations;
// Many environments at once.
mod apply;
// Hello, updates, acknowledgements.
mod sessions;
// Silence, closures, goodbyes, restarts.
mod leases;
// Moves without a gap.
mod handovers;
// Who has too much gives some away.
mod rebalancing;
// Cordon, drain, forget.
mod membership;
// Status, conditions, conflicts, fencing.
mod reports;
// Stores.
mod stores;
// New SDK keys, and questions.
mod rotations;
// Random histories.
mod properties;
// Every state near some that matter, and long histories.
mod model;
// Ten thousand environments.
mod scale;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::session::{Assignment, ControlMessage, GoAway, Hello, Removal, WorkerMessage};
use flotilla_proto::spec::{DEFAULT_INITIAL_RETRY_DELAY, Guard};
use flotilla_proto::{
    EnvironmentReport, GrantState, HeldGrant, Incarnation, Intent, Labels, Marker, SdkKeySource, Source,
    SourceState, v1,
};

use super::*;
use player::*;
use world::*;
