//! The items of an environment, and how they compare.

use flotilla_proto::v1;
use serde::Serialize;

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

/// The word for a kind of item, as in `flag/KEY`.
pub(crate) fn kind_text(kind: v1::ItemKind) -> &'static str {
    match kind {
        v1::ItemKind::Unspecified => "item",
        v1::ItemKind::Flag => "flag",
        v1::ItemKind::Segment => "segment",
    }
}
