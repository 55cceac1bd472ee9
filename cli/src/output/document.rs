//! The CLI's own schema of JSON and YAML documents. Programs depend on it: fields may be added, never changed.

use std::collections::BTreeMap;

use flotilla_proto::time::duration_from_proto;
use flotilla_proto::v1;
use serde::Serialize;

use super::text::{duration_text, rfc3339};
use crate::wait::{state_word, truth_word};

/// An environment.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EnvironmentDocument {
    /// Its name.
    pub(crate) name: String,
    display_name: Option<String>,
    uid: String,
    prefix: String,
    store: String,
    /// `stream`, `poll` or `file:PATH`.
    source: String,
    filter: Option<String>,
    labels: BTreeMap<String, String>,
    paused: bool,
    sdk_key_masked: Option<String>,
    initialization: &'static str,
    worker: Option<String>,
    epoch: Option<u64>,
    generation: u64,
    etag: String,
    conditions: Vec<ConditionDocument>,
    /// `None`, as the two below: no worker has reported yet.
    flags: Option<u64>,
    segments: Option<u64>,
    bytes: Option<u64>,
    last_event_time: Option<String>,
    last_byte_time: Option<String>,
    last_heartbeat_time: Option<String>,
    last_write_time: Option<String>,
    last_error: Option<LastErrorDocument>,
    create_time: Option<String>,
    update_time: Option<String>,
    removing: bool,
    stream_uri: Option<String>,
    base_uri: Option<String>,
    initial_retry_delay: Option<String>,
    poll_interval: Option<String>,
    application_id: Option<String>,
    application_version: Option<String>,
    worker_selector: BTreeMap<String, String>,
    guard: &'static str,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct ConditionDocument {
    r#type: String,
    status: &'static str,
    reason: String,
    message: String,
    observed_generation: u64,
    last_transition_time: Option<String>,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct LastErrorDocument {
    kind: Option<&'static str>,
    status: Option<u32>,
    message: String,
    time: Option<String>,
}

/// All environments.
#[derive(Debug, Serialize)]
pub(crate) struct EnvironmentsDocument {
    /// Ordered by name.
    pub(crate) environments: Vec<EnvironmentDocument>,
}

/// An environment that is going, gone, or out of a watch's sight: what `env remove` and a watch tell.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedDocument {
    /// Its name.
    pub(crate) name: String,
    /// Its uid, where it is known.
    pub(crate) uid: Option<String>,
    /// Whether it is gone. Otherwise its removal is under way or, in a watch, it no longer matches.
    pub(crate) removed: bool,
    /// Only in a watch, and false there: it no longer matches what is watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) matches: Option<bool>,
}

/// A worker.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WorkerDocument {
    name: String,
    state: &'static str,
    address: Option<String>,
    version: Option<String>,
    labels: BTreeMap<String, String>,
    /// `None`: unlimited.
    capacity: Option<u32>,
    environments: u32,
    bytes: u64,
    connect_time: Option<String>,
    last_heartbeat_time: Option<String>,
    /// Only of a single worker.
    environment_names: Option<Vec<String>>,
    /// `active`, `cordoned` or `draining`.
    scheduling: &'static str,
    leaving: bool,
    standby: u32,
}

/// A worker that is forgotten.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedWorkerDocument {
    /// Its name.
    pub(crate) name: String,
    /// False after a dry run.
    pub(crate) removed: bool,
}

/// A store.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoreDocument {
    name: String,
    /// Without user and passwords.
    url: String,
    /// `server`, `socket`, `sentinel` or `cluster`.
    topology: &'static str,
    username: Option<String>,
    has_password: bool,
    sentinel_username: Option<String>,
    has_sentinel_password: bool,
    /// `None`: no TLS.
    tls: Option<StoreTlsDocument>,
    environments: u64,
}

/// Files on the workers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreTlsDocument {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
}

/// All stores.
#[derive(Debug, Serialize)]
pub(crate) struct StoresDocument {
    /// Ordered by name.
    pub(crate) stores: Vec<StoreDocument>,
}

/// What a worker found in a store.
#[derive(Debug, Serialize)]
pub(crate) struct StoreCheckDocument {
    store: String,
    /// The worker that looked.
    worker: String,
    /// Whether workers can use it.
    usable: bool,
    checks: Vec<CheckDocument>,
}

/// One check of a store.
#[derive(Debug, Serialize)]
struct CheckDocument {
    name: String,
    /// `ok`, `warning` or `failed`.
    outcome: &'static str,
    message: String,
}

impl StoreCheckDocument {
    /// What was found in the store of that name.
    pub(crate) fn new(store: &str, checked: &v1::CheckStoreResponse) -> Self {
        let failed = |check: &v1::StoreCheck| check.outcome() == v1::CheckOutcome::Failed;
        let document = |check: &v1::StoreCheck| CheckDocument {
            name: check.name.clone(),
            outcome: outcome_text(check.outcome()),
            message: check.message.clone(),
        };
        Self {
            store: store.to_owned(),
            worker: checked.worker.clone(),
            usable: !checked.checks.is_empty() && !checked.checks.iter().any(failed),
            checks: checked.checks.iter().map(document).collect(),
        }
    }

    /// Whether workers can use it.
    pub(crate) fn is_usable(&self) -> bool {
        self.usable
    }
}

/// How a check came out, in a word.
pub(crate) fn outcome_text(outcome: v1::CheckOutcome) -> &'static str {
    match outcome {
        v1::CheckOutcome::Unspecified => "unknown",
        v1::CheckOutcome::Ok => "ok",
        v1::CheckOutcome::Warning => "warning",
        v1::CheckOutcome::Failed => "failed",
    }
}

/// A store that is removed.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedStoreDocument {
    /// Its name.
    pub(crate) name: String,
    /// False after a dry run.
    pub(crate) removed: bool,
}

/// Something that happened.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EventDocument {
    revision: String,
    time: Option<String>,
    r#type: &'static str,
    environment: Option<String>,
    worker: Option<String>,
    from_worker: Option<String>,
    epoch: Option<u64>,
    reason: Option<String>,
    message: String,
}

/// What happened.
#[derive(Debug, Serialize)]
pub(crate) struct EventsDocument {
    /// Oldest first.
    pub(crate) events: Vec<EventDocument>,
}

/// All workers.
#[derive(Debug, Serialize)]
pub(crate) struct WorkersDocument {
    /// Ordered by name.
    pub(crate) workers: Vec<WorkerDocument>,
}

/// The fleet.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FleetDocument {
    fleet_id: String,
    term: u64,
    version: String,
    environments: FleetEnvironments,
    workers: FleetWorkers,
    oldest: Option<OldestDocument>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FleetEnvironments {
    total: u32,
    current: u32,
    stale: u32,
    uninitialized: u32,
    unknown: u32,
    paused: u32,
    not_current: u32,
}

#[derive(Debug, Serialize)]
struct FleetWorkers {
    total: u32,
    connected: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OldestDocument {
    environment: String,
    last_byte_time: Option<String>,
}

/// The items that the store holds of an environment.
#[derive(Debug, Serialize)]
pub(crate) struct ItemsDocument {
    /// Whether the marker that SDKs look for exists.
    pub(crate) initialized: bool,
    /// Flags, then segments, each ordered by key.
    pub(crate) items: Vec<ItemDocument>,
}

/// One item.
#[derive(Debug, Serialize)]
pub(crate) struct ItemDocument {
    kind: &'static str,
    key: String,
    version: Option<u64>,
    bytes: u64,
}

/// What a verification found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerificationDocument {
    items: u64,
    differing: u64,
    repaired: u64,
    asked_launch_darkly: bool,
    initialized: bool,
    /// At most 1000.
    differences: Vec<DifferenceDocument>,
}

/// An item that is not the same everywhere; null: it is not there.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DifferenceDocument {
    kind: &'static str,
    key: String,
    launch_darkly_version: Option<u64>,
    worker_version: Option<u64>,
    store_version: Option<u64>,
}

impl From<&v1::VerifyDataResponse> for VerificationDocument {
    fn from(found: &v1::VerifyDataResponse) -> Self {
        let difference = |item: &v1::ItemDifference| DifferenceDocument {
            kind: kind_text(item.kind()),
            key: item.key.clone(),
            launch_darkly_version: item.launchdarkly_version,
            worker_version: item.worker_version,
            store_version: item.store_version,
        };
        Self {
            items: found.items,
            differing: found.differing,
            repaired: found.repaired,
            asked_launch_darkly: found.asked_launchdarkly,
            initialized: found.initialized,
            differences: found.differences.iter().map(difference).collect(),
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.map(rfc3339)
}

/// A duration as people write it.
pub(crate) fn duration(message: Option<&prost_types::Duration>) -> Option<String> {
    let duration = duration_from_proto(message?)?;
    Some(duration_text(duration))
}

/// The source as `--source` takes it.
pub(crate) fn source_text(source: Option<&v1::Source>) -> String {
    match source.and_then(|source| source.kind.as_ref()) {
        None | Some(v1::source::Kind::Stream(_)) => "stream".to_owned(),
        Some(v1::source::Kind::Poll(_)) => "poll".to_owned(),
        Some(v1::source::Kind::File(file)) => format!("file:{}", file.path),
    }
}

/// The guard as `--guard` takes it.
pub(crate) fn guard_text(guard: v1::GuardPolicy) -> &'static str {
    match guard {
        v1::GuardPolicy::Unspecified | v1::GuardPolicy::Confirm => "confirm",
        v1::GuardPolicy::Off => "off",
    }
}

/// The word for a kind of item, as in `flag/KEY`.
pub(crate) fn kind_text(kind: v1::ItemKind) -> &'static str {
    match kind {
        v1::ItemKind::Unspecified => "item",
        v1::ItemKind::Flag => "flag",
        v1::ItemKind::Segment => "segment",
    }
}

/// The word for a worker's state.
/// What kind of thing happened, as it is asked for by name.
pub(crate) fn event_type_text(kind: v1::EventType) -> &'static str {
    match kind {
        v1::EventType::Unspecified => "unknown",
        v1::EventType::EnvironmentChanged => "environment-changed",
        v1::EventType::EnvironmentEnded => "environment-ended",
        v1::EventType::Assigned => "assigned",
        v1::EventType::HandoverBegun => "handover-begun",
        v1::EventType::HandoverAbandoned => "handover-abandoned",
        v1::EventType::Moved => "moved",
        v1::EventType::InitializationChanged => "initialization-changed",
        v1::EventType::AssignmentRejected => "assignment-rejected",
        v1::EventType::WriteFenced => "write-fenced",
        v1::EventType::StoreRepaired => "store-repaired",
        v1::EventType::WorkerChanged => "worker-changed",
    }
}

pub(crate) fn worker_state_text(state: v1::WorkerState) -> &'static str {
    match state {
        v1::WorkerState::Unspecified => "unknown",
        v1::WorkerState::Connected => "connected",
        v1::WorkerState::Disconnected => "disconnected",
        v1::WorkerState::Gone => "gone",
    }
}

impl From<&v1::Environment> for EnvironmentDocument {
    fn from(environment: &v1::Environment) -> Self {
        let spec = environment.spec.clone().unwrap_or_default();
        let status = environment.status.clone().unwrap_or_default();
        let kind = spec.source.as_ref().and_then(|source| source.kind.as_ref());
        let (initial_retry_delay, poll_interval) = match kind {
            Some(v1::source::Kind::Stream(stream)) => (duration(stream.initial_retry_delay.as_ref()), None),
            Some(v1::source::Kind::Poll(poll)) => (None, duration(poll.interval.as_ref())),
            Some(v1::source::Kind::File(_)) | None => (None, None),
        };
        Self {
            name: environment.name.clone(),
            display_name: some(&spec.display_name),
            uid: environment.uid.clone(),
            prefix: spec.prefix.clone(),
            store: spec.store.clone(),
            source: source_text(spec.source.as_ref()),
            filter: some(&spec.filter),
            guard: guard_text(spec.guard()),
            labels: spec.labels,
            paused: environment.paused,
            sdk_key_masked: some(&environment.sdk_key_masked),
            initialization: state_word(status.initialization()),
            worker: some(&status.worker),
            epoch: (status.epoch != 0).then_some(status.epoch),
            generation: environment.generation,
            etag: environment.etag.clone(),
            conditions: status.conditions.iter().map(Into::into).collect(),
            flags: status.flags,
            segments: status.segments,
            bytes: status.bytes,
            last_event_time: time(status.last_event_time.as_ref()),
            last_byte_time: time(status.last_byte_time.as_ref()),
            last_heartbeat_time: time(status.last_heartbeat_time.as_ref()),
            last_write_time: time(status.last_write_time.as_ref()),
            last_error: status.last_error.as_ref().map(Into::into),
            create_time: time(environment.create_time.as_ref()),
            update_time: time(environment.update_time.as_ref()),
            removing: environment.removing,
            stream_uri: some(&spec.stream_uri),
            base_uri: some(&spec.base_uri),
            initial_retry_delay,
            poll_interval,
            application_id: some(&spec.application_id),
            application_version: some(&spec.application_version),
            worker_selector: spec.worker_selector,
        }
    }
}

impl From<&v1::Condition> for ConditionDocument {
    fn from(condition: &v1::Condition) -> Self {
        Self {
            r#type: condition.r#type.clone(),
            status: truth_word(condition.status()),
            reason: condition.reason.clone(),
            message: condition.message.clone(),
            observed_generation: condition.observed_generation,
            last_transition_time: time(condition.last_transition_time.as_ref()),
        }
    }
}

impl From<&v1::LastError> for LastErrorDocument {
    fn from(error: &v1::LastError) -> Self {
        Self {
            kind: match error.kind() {
                v1::ErrorKind::Unspecified => None,
                v1::ErrorKind::Network => Some("network"),
                v1::ErrorKind::Http => Some("http"),
                v1::ErrorKind::Data => Some("data"),
                v1::ErrorKind::Store => Some("store"),
                v1::ErrorKind::Auth => Some("auth"),
            },
            status: (error.status != 0).then_some(error.status),
            message: error.message.clone(),
            time: time(error.time.as_ref()),
        }
    }
}

impl WorkerDocument {
    /// One worker with the names of its environments.
    pub(crate) fn with_environments(worker: &v1::Worker) -> Self {
        Self { environment_names: Some(worker.environment_names.clone()), ..worker.into() }
    }
}

impl From<&v1::Worker> for WorkerDocument {
    fn from(worker: &v1::Worker) -> Self {
        Self {
            name: worker.name.clone(),
            state: worker_state_text(worker.state()),
            address: some(&worker.address),
            version: some(&worker.version),
            labels: worker.labels.clone(),
            capacity: (worker.capacity != 0).then_some(worker.capacity),
            environments: worker.environments,
            bytes: worker.bytes,
            connect_time: time(worker.connect_time.as_ref()),
            last_heartbeat_time: time(worker.last_heartbeat_time.as_ref()),
            environment_names: None,
            scheduling: match worker.scheduling() {
                v1::WorkerScheduling::Active | v1::WorkerScheduling::Unspecified => "active",
                v1::WorkerScheduling::Cordoned => "cordoned",
                v1::WorkerScheduling::Draining => "draining",
            },
            leaving: worker.leaving,
            standby: worker.standby,
        }
    }
}

impl From<&v1::Event> for EventDocument {
    fn from(event: &v1::Event) -> Self {
        Self {
            revision: event.revision.clone(),
            time: time(event.time.as_ref()),
            r#type: event_type_text(event.r#type()),
            environment: some(&event.environment),
            worker: some(&event.worker),
            from_worker: some(&event.from_worker),
            epoch: (event.epoch != 0).then_some(event.epoch),
            reason: some(&event.reason),
            message: event.message.clone(),
        }
    }
}

impl From<&v1::GetFleetStatusResponse> for FleetDocument {
    fn from(status: &v1::GetFleetStatusResponse) -> Self {
        Self {
            fleet_id: status.fleet_id.clone(),
            term: status.term,
            version: status.version.clone(),
            environments: FleetEnvironments {
                total: status.environments,
                current: status.current,
                stale: status.stale,
                uninitialized: status.uninitialized,
                unknown: status.unknown,
                paused: status.paused,
                not_current: status.not_current,
            },
            workers: FleetWorkers { total: status.workers, connected: status.workers_connected },
            oldest: some(&status.oldest_environment).map(|environment| OldestDocument {
                environment,
                last_byte_time: time(status.oldest_byte_time.as_ref()),
            }),
        }
    }
}

impl From<&v1::ItemSummary> for ItemDocument {
    fn from(item: &v1::ItemSummary) -> Self {
        Self {
            kind: kind_text(item.kind()),
            key: item.key.clone(),
            version: (item.version != 0).then_some(item.version),
            bytes: item.bytes,
        }
    }
}
impl From<&v1::Store> for StoreDocument {
    fn from(store: &v1::Store) -> Self {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Self {
            name: store.name.clone(),
            url: store.url.clone(),
            topology: topology_text(store.topology()),
            username: given(&store.username),
            has_password: store.has_password,
            sentinel_username: given(&store.sentinel_username),
            has_sentinel_password: store.has_sentinel_password,
            tls: store.tls.as_ref().map(|tls| StoreTlsDocument {
                ca: given(&tls.ca_file),
                cert: given(&tls.cert_file),
                key: given(&tls.key_file),
            }),
            environments: store.environments,
        }
    }
}

/// How a store is reached, in a word.
pub(crate) fn topology_text(topology: v1::StoreTopology) -> &'static str {
    match topology {
        v1::StoreTopology::Unspecified => "unknown",
        v1::StoreTopology::Server => "server",
        v1::StoreTopology::Socket => "socket",
        v1::StoreTopology::Sentinel => "sentinel",
        v1::StoreTopology::Cluster => "cluster",
    }
}
