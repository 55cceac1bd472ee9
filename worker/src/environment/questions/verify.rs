//! LaunchDarkly, memory and store, item by item.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::Answer;
use flotilla_proto::v1::RequestFailure;
use flotilla_proto::{Reason, v1};

use super::{Sent, Subject, kind_to_proto, snapshot, store_failure, versions};
use crate::dataset::{Evidence, ItemId, Snapshot};
use crate::store::{Op, Outcome, StoredItem, Urgency};

/// Differences that are told, at most.
const MOST_TOLD: usize = 1000;
/// What differs is looked at once more after so long: it may have been on its way.
const ONCE_MORE: Duration = Duration::from_secs(1);
/// Pause before a busy store is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// The versions of an item: LaunchDarkly's, the worker's, the store's.
type Versions = [Option<u64>; 3];

/// What one look found.
struct Found {
    differences: BTreeMap<ItemId, Versions>,
    items: usize,
    asked_launchdarkly: bool,
    initialized: bool,
}

pub(super) async fn verify(subject: &Subject, deadline: Duration) -> Result<Answer, RequestFailure> {
    let mut found = look(subject, deadline).await?;
    if !found.differences.is_empty() {
        tokio::time::sleep(ONCE_MORE).await;
        let again = look(subject, deadline).await?;
        // What moves on is on its way.
        let stands = |(id, versions): &(ItemId, Versions)| found.differences.get(id) == Some(versions);
        found = Found { differences: again.differences.into_iter().filter(stands).collect(), ..again };
    }
    let Found { differences, items, asked_launchdarkly, initialized } = found;
    let differing = differences.len() as u64;
    let difference =
        |(id, [launchdarkly_version, worker_version, store_version]): (ItemId, Versions)| v1::ItemDifference {
            kind: kind_to_proto(id.kind).into(),
            key: id.key.to_string(),
            launchdarkly_version,
            worker_version,
            store_version,
        };
    Ok(Answer::VerifyData(v1::VerifyDataResponse {
        differences: differences.into_iter().take(MOST_TOLD).map(difference).collect(),
        differing,
        items: items as u64,
        repaired: 0,
        asked_launchdarkly,
        initialized,
    }))
}

/// LaunchDarkly comes first, for that takes longest.
async fn look(subject: &Subject, deadline: Duration) -> Result<Found, RequestFailure> {
    let launchdarkly = launchdarkly(subject, deadline).await?;
    let memory = snapshot(subject).await?;
    let mut differing = compare(subject, &memory).await?;
    let initialized = match subject.store.execute(&subject.prefix, Op::Look).await {
        Outcome::Looked(look) => look.marker,
        other => return Err(store_failure(other)),
    };
    let held = versions(&memory);
    let asked_launchdarkly = launchdarkly.is_some();
    let Sent { versions: sent, rejected } = launchdarkly.unwrap_or_default();
    if asked_launchdarkly {
        let all = held.keys().chain(sent.keys()).filter(|id| !rejected.contains(*id));
        differing.extend(all.filter(|id| held.get(id) != sent.get(id)).cloned());
    }
    // What only the store has differs.
    let all: BTreeSet<&ItemId> = held.keys().chain(sent.keys()).chain(&differing).collect();
    let items = all.len();
    let mut differences = BTreeMap::new();
    for id in differing {
        // Those that are not told need not be read.
        let stored = if differences.len() < MOST_TOLD { stored_version(subject, &id).await? } else { None };
        differences.insert(id.clone(), [sent.get(&id).copied(), held.get(&id).copied(), stored]);
    }
    Ok(Found { differences, items, asked_launchdarkly, initialized })
}

/// The items of which the store holds something else than memory. Who writes goes first.
async fn compare(subject: &Subject, memory: &Snapshot) -> Result<BTreeSet<ItemId>, RequestFailure> {
    let snapshot = Arc::new(memory.clone());
    loop {
        let snapshot = Arc::clone(&snapshot);
        let compare = Op::Compare { snapshot, urgency: Urgency::WhenIdle, evidence: Evidence::Nothing };
        match subject.store.execute(&subject.prefix, compare).await {
            Outcome::Compared(differences) => return Ok(differences.items.into_iter().collect()),
            Outcome::Busy => tokio::time::sleep(BUSY_PAUSE).await,
            other => return Err(store_failure(other)),
        }
    }
}

async fn stored_version(subject: &Subject, id: &ItemId) -> Result<Option<u64>, RequestFailure> {
    match subject.store.execute(&subject.prefix, Op::Read(id.clone())).await {
        Outcome::Read(body) => Ok(body.map(|body| StoredItem::of(id.clone(), &body).version)),
        other => Err(store_failure(other)),
    }
}

/// Asks LaunchDarkly; `None`: the source is a file.
async fn launchdarkly(subject: &Subject, deadline: Duration) -> Result<Option<Sent>, RequestFailure> {
    let Some(settings) = subject.settings.clone() else { return Ok(None) };
    let payload = Arc::clone(&subject.sources).fetch(settings, deadline).await;
    let payload =
        payload.map_err(|failure| RequestFailure::new(Reason::UpstreamUnavailable, failure.to_string()))?;
    Ok(Some(Sent::of(&payload)))
}
