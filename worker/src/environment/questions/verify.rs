//! LaunchDarkly, memory and store, item by item.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::Answer;
use flotilla_proto::v1::RequestFailure;
use flotilla_proto::{Reason, v1};
use tokio::sync::oneshot;

use super::{Subject, kind_to_proto, store_failure};
use crate::dataset::{Evidence, ItemId, Snapshot};
use crate::launchdarkly::event::live_version;
use crate::source::Kind;
use crate::store::{Op, Outcome, Urgency};

/// Differences that are told, at most.
const MOST_TOLD: usize = 1000;
/// What differs is looked at once more after so long: it may have been on its way.
const ONCE_MORE: Duration = Duration::from_secs(1);

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
    let compare =
        Op::Compare { snapshot: Arc::new(memory.clone()), urgency: Urgency::Now, evidence: Evidence::Nothing };
    let mut differing: BTreeSet<ItemId> = match subject.store.execute(&subject.prefix, compare).await {
        Outcome::Compared(differences) => differences.items.into_iter().collect(),
        other => return Err(store_failure(other)),
    };
    let stored: BTreeMap<ItemId, u64> = match subject.store.execute(&subject.prefix, Op::List).await {
        Outcome::Listed(items) => items.into_iter().map(|item| (item.id, item.version)).collect(),
        other => return Err(store_failure(other)),
    };
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
    let all: BTreeSet<&ItemId> = held.keys().chain(stored.keys()).chain(sent.keys()).collect();
    let items = all.len();
    let of = |id: &ItemId| [sent.get(id).copied(), held.get(id).copied(), stored.get(id).copied()];
    let differences = differing.into_iter().map(|id| (id.clone(), of(&id))).collect();
    Ok(Found { differences, items, asked_launchdarkly, initialized })
}

/// What LaunchDarkly has.
#[derive(Default)]
struct Sent {
    versions: BTreeMap<ItemId, u64>,
    /// In a form that must not reach the store; the last good one stays.
    rejected: BTreeSet<ItemId>,
}

/// Asks LaunchDarkly; `None`: the source is a file.
async fn launchdarkly(subject: &Subject, deadline: Duration) -> Result<Option<Sent>, RequestFailure> {
    let Some(settings) = subject.settings.clone() else { return Ok(None) };
    let payload = Arc::clone(&subject.sources).fetch(settings, deadline).await;
    let payload =
        payload.map_err(|failure| RequestFailure::new(Reason::UpstreamUnavailable, failure.to_string()))?;
    let live = payload.items().filter(|item| !item.deleted);
    let rejected = payload.rejected().iter();
    Ok(Some(Sent {
        versions: live.map(|item| (ItemId { kind: item.kind, key: item.key.into() }, item.version)).collect(),
        rejected: rejected.map(|item| ItemId { kind: item.kind, key: (&*item.key).into() }).collect(),
    }))
}

async fn snapshot(subject: &Subject) -> Result<Snapshot, RequestFailure> {
    let (sender, receiver) = oneshot::channel();
    // If nobody takes it, nobody answers either.
    let _ = subject.snapshots.send(sender).await;
    let nothing =
        |_| RequestFailure::new(Reason::UpstreamUnavailable, "the worker has no data of the environment yet");
    receiver.await.map_err(nothing)
}

fn versions(snapshot: &Snapshot) -> BTreeMap<ItemId, u64> {
    let of = |kind: Kind| {
        snapshot.of(kind).iter().filter_map(move |(key, body)| {
            let version = live_version(kind, key, body)?;
            Some((ItemId { kind, key: Arc::clone(key) }, version))
        })
    };
    of(Kind::Flag).chain(of(Kind::Segment)).collect()
}
