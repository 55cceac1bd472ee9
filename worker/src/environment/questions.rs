//! Answers control's questions about one environment: what the store holds, whether a new key works, and whether
//! everything is the same everywhere.

// Whether a new key is as good as the present one.
mod prove;
// LaunchDarkly, memory and store compared.
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::{Answer, Question};
use flotilla_proto::v1::RequestFailure;
use flotilla_proto::{Prefix, Reason, v1};
use tokio::sync::{mpsc, oneshot};

use crate::dataset::{ItemId, Snapshot, Unpacked};
use crate::launchdarkly::event::live_version;
use crate::launchdarkly::{LaunchDarklySettings, Sources};
use crate::source::{FullPayload, Kind};
use crate::store::{FlagStore, Op, Outcome, StoredItem};

/// Items in a page when the question does not say, and at most.
const PAGE: (u32, u32) = (1000, 10_000);

/// What a question is answered from.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) store: Arc<dyn FlagStore>,
    pub(super) prefix: Prefix,
    pub(super) sources: Arc<dyn Sources>,
    /// How the environment is reached; `None` for a file source.
    pub(super) settings: Option<LaunchDarklySettings>,
    pub(super) environment_id: Option<String>,
    /// Where what is held now can be asked for; nothing comes while nothing is held.
    pub(super) snapshots: SnapshotRequests,
}

/// What LaunchDarkly has.
#[derive(Default)]
struct Sent {
    versions: BTreeMap<ItemId, u64>,
    /// In a form that must not reach the store; the last good one stays.
    rejected: BTreeSet<ItemId>,
}

impl Sent {
    /// Whether it has the item, in whatever form.
    fn has(&self, id: &ItemId) -> bool {
        self.versions.contains_key(id) || self.rejected.contains(id)
    }

    fn of(payload: &FullPayload) -> Self {
        let live = payload.items().filter(|item| !item.deleted);
        let rejected = payload.rejected().iter();
        Self {
            versions: live.map(|item| (ItemId { kind: item.kind, key: item.key.into() }, item.version)).collect(),
            rejected: rejected.map(|item| ItemId { kind: item.kind, key: (&*item.key).into() }).collect(),
        }
    }
}

/// Asks an environment's task for what it holds.
pub(super) type SnapshotRequests = mpsc::Sender<oneshot::Sender<Snapshot>>;

/// Answers a question within its deadline.
pub(super) async fn answer(subject: Subject, question: Question, deadline: Duration) -> Answer {
    let answer = async {
        match question {
            Question::ListItems(request) => list(&subject, &request).await,
            Question::GetItem(request) => get(&subject, &request).await,
            Question::ProveKey(request) => prove::prove(&subject, &request.sdk_key, deadline).await,
            Question::VerifyData(_) => verify::verify(&subject, deadline).await,
            Question::ProbeStore(_) => {
                Err(RequestFailure::new(Reason::InvalidField, "the question is about a store, not an environment"))
            }
        }
    };
    tokio::time::timeout(deadline, answer)
        .await
        .unwrap_or_else(|_| Err(RequestFailure::new(Reason::WorkerTimeout, "the worker could not answer in time")))
        .unwrap_or_else(Answer::Failure)
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
    let (mut all, mut unpacked) = (BTreeMap::new(), Unpacked::default());
    for kind in [Kind::Flag, Kind::Segment] {
        for (key, body) in snapshot.of(kind) {
            if let Some(version) = live_version(key, unpacked.text(body)) {
                all.insert(ItemId { kind, key: Arc::clone(key) }, version);
            }
        }
    }
    all
}

fn store_failure(outcome: Outcome) -> RequestFailure {
    match outcome {
        Outcome::Failed(error) => RequestFailure::new(Reason::StoreUnavailable, error.to_string()),
        Outcome::Looked(_)
        | Outcome::Done { .. }
        | Outcome::Refused(_)
        | Outcome::Compared(_)
        | Outcome::Busy
        | Outcome::Listed(_)
        | Outcome::Read(_) => {
            RequestFailure::new(Reason::StoreUnavailable, "the store gave an answer to another question")
        }
    }
}

async fn list(subject: &Subject, request: &v1::ListItemsRequest) -> Result<Answer, RequestFailure> {
    let items = match subject.store.execute(&subject.prefix, Op::List).await {
        Outcome::Listed(items) => items,
        other => return Err(store_failure(other)),
    };
    let look = match subject.store.execute(&subject.prefix, Op::Look).await {
        Outcome::Looked(look) => look,
        other => return Err(store_failure(other)),
    };
    let size = match request.page_size {
        0 => PAGE.0,
        size => size.min(PAGE.1),
    } as usize;
    let wanted = kind_from_proto(request.kind());
    let mut rest = items
        .iter()
        .filter(|item| wanted.is_none_or(|kind| item.id.kind == kind))
        .skip_while(|item| !request.page_token.is_empty() && token(&item.id) <= request.page_token);
    let page: Vec<_> = rest.by_ref().take(size).collect();
    let next_page_token = rest.next().and(page.last()).map(|last| token(&last.id)).unwrap_or_default();
    let items = page.into_iter().map(summary).collect();
    Ok(Answer::ListItems(v1::ListItemsResponse { items, next_page_token, initialized: look.marker }))
}

async fn get(subject: &Subject, request: &v1::GetItemRequest) -> Result<Answer, RequestFailure> {
    let kind = kind_from_proto(request.kind())
        .ok_or_else(|| RequestFailure::new(Reason::InvalidField, "kind: flag or segment is required"))?;
    let id = ItemId { kind, key: request.key.as_str().into() };
    match subject.store.execute(&subject.prefix, Op::Read(id.clone())).await {
        Outcome::Read(Some(json)) => {
            let item = Some(summary(&StoredItem::of(id, &json)));
            Ok(Answer::GetItem(v1::GetItemResponse { item, json }))
        }
        Outcome::Read(None) => Err(RequestFailure::new(
            Reason::ItemNotFound,
            format!("the store holds no {} {:?} of this environment", word(kind), request.key),
        )),
        other => Err(store_failure(other)),
    }
}

fn summary(item: &StoredItem) -> v1::ItemSummary {
    let kind = kind_to_proto(item.id.kind).into();
    v1::ItemSummary { kind, key: item.id.key.to_string(), version: item.version, bytes: item.bytes }
}

fn kind_to_proto(kind: Kind) -> v1::ItemKind {
    match kind {
        Kind::Flag => v1::ItemKind::Flag,
        Kind::Segment => v1::ItemKind::Segment,
    }
}

fn kind_from_proto(kind: v1::ItemKind) -> Option<Kind> {
    match kind {
        v1::ItemKind::Unspecified => None,
        v1::ItemKind::Flag => Some(Kind::Flag),
        v1::ItemKind::Segment => Some(Kind::Segment),
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Flag => "flag",
        Kind::Segment => "segment",
    }
}

/// Orders as the list does: flags, then segments, each by key.
fn token(id: &ItemId) -> String {
    format!("{}/{}", word(id.kind), id.key)
}

#[cfg(test)]
mod tests;
