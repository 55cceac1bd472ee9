//! Stores, and what is found in them.

use flotilla_proto::v1;
use serde::Serialize;

use super::some;

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
    /// Where workers find it; `None`: control has it, or there is none.
    password_from: Option<String>,
    sentinel_username: Option<String>,
    has_sentinel_password: bool,
    sentinel_password_from: Option<String>,
    /// `None`: no TLS.
    tls: Option<StoreTlsDocument>,
    environments: u64,
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

/// A store that is removed.
#[derive(Debug, Serialize)]
pub(crate) struct RemovedStoreDocument {
    /// Its name.
    pub(crate) name: String,
    /// False after a dry run.
    pub(crate) removed: bool,
}

/// Files on the workers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreTlsDocument {
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
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

impl From<&v1::Store> for StoreDocument {
    fn from(store: &v1::Store) -> Self {
        Self {
            name: store.name.clone(),
            url: store.url.clone(),
            topology: topology_text(store.topology()),
            username: some(&store.username),
            has_password: store.has_password,
            password_from: some(&store.password_from),
            sentinel_username: some(&store.sentinel_username),
            has_sentinel_password: store.has_sentinel_password,
            sentinel_password_from: some(&store.sentinel_password_from),
            tls: store.tls.as_ref().map(|tls| StoreTlsDocument {
                ca: some(&tls.ca_file),
                cert: some(&tls.cert_file),
                key: some(&tls.key_file),
            }),
            environments: store.environments,
        }
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
