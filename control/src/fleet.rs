//! The pure heart of control: what should be, decided without clock, network or disk.
//!
//! [`Fleet::step`] takes an [`Input`] and returns [`Effect`]s; the driver makes the step's changes durable before it
//! carries out anything else.

// What goes in and what comes out.
mod boundary;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::{EnvironmentName, FleetId, StoreName, Term, Timestamp, WorkerName, v1};
use url::Url;

pub use boundary::{
    Action, Change, Command, CommandId, Effect, EnvironmentRecord, GrantIds, GrantRecord, Input, Mutation,
    Remembered, RemovalKind, Reply, RequestId, SessionId, SpecChange,
};

/// What the fleet is told once, at start.
#[derive(Debug, Clone)]
pub struct FleetSettings {
    /// The fleet's id.
    pub fleet: FleetId,
    /// The term of this start, already durable: one more than the stored one.
    pub term: Term,
    /// Version of control, as `status` shows it.
    pub version: String,
    /// How often workers send a heartbeat.
    pub heartbeat_interval: Duration,
    /// After how long without one a worker's environments move.
    pub lease_duration: Duration,
    /// After how long its environments move when a session closes without a goodbye.
    pub reassign_grace: Duration,
    /// Streaming service of environments that name none.
    pub stream_uri: Url,
    /// Polling service of environments that name none.
    pub base_uri: Url,
    /// `application-id` of environments that name none.
    pub application_id: Option<String>,
    /// `application-version` of environments that name none.
    pub application_version: Option<String>,
    /// Makes the ids of grants.
    pub grant_ids: GrantIds,
}

/// Numbers for the metrics. Every word that can occur is a key from the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Environments by initialization: `current`, `stale`, `uninitialized`, `unknown`.
    pub environments: BTreeMap<&'static str, u64>,
    /// Workers by state: `connected`, `disconnected`, `gone`.
    pub workers: BTreeMap<&'static str, u64>,
    /// Environments moved from one worker to another since start, by reason.
    pub moves: BTreeMap<&'static str, u64>,
    /// Sessions of workers that had one before, since start.
    pub session_reconnects: u64,
}

/// The whole state of control. Owned by one task.
#[derive(Debug)]
pub struct Fleet {
    settings: FleetSettings,
    remembered: Remembered,
}

impl Fleet {
    /// Takes up what was remembered. `remembered.stores` holds `default` with the URL that is in force.
    pub fn new(settings: FleetSettings, remembered: Remembered, now: Timestamp) -> Self {
        let _ = now;
        Self { settings, remembered }
    }

    /// Takes one input in and returns what must happen. Time never goes back from step to step.
    pub fn step(&mut self, now: Timestamp, input: Input) -> Vec<Effect> {
        let _ = (now, input, &self.remembered);
        Vec::new()
    }

    /// One environment as users see it.
    pub fn environment(&self, name: &EnvironmentName) -> Option<v1::Environment> {
        let _ = name;
        None
    }

    /// All environments as users see them, ordered by name.
    pub fn environments(&self) -> impl Iterator<Item = v1::Environment> + '_ {
        std::iter::empty()
    }

    /// All workers, ordered by name, without the names of their environments.
    pub fn workers(&self) -> impl Iterator<Item = v1::Worker> + '_ {
        std::iter::empty()
    }

    /// One worker, with the names of its environments.
    pub fn worker(&self, name: &WorkerName) -> Option<v1::Worker> {
        let _ = name;
        None
    }

    /// The fleet summed up.
    pub fn status(&self) -> v1::GetFleetStatusResponse {
        v1::GetFleetStatusResponse::default()
    }

    /// The numbers for the metrics.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// The stores that environments use, those under removal included.
    pub fn stores_in_use(&self) -> BTreeSet<StoreName> {
        BTreeSet::new()
    }

    /// The fleet's id.
    pub fn fleet_id(&self) -> &FleetId {
        &self.settings.fleet
    }

    /// The present term; it grows when a worker has seen a higher one.
    pub fn term(&self) -> Term {
        self.settings.term
    }
}
