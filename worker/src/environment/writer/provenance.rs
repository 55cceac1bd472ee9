//! Where the items in the store came from, and what of them may be newer than the data set.

use super::guard::Guard;
use super::{Content, Versions, Writer};
use crate::dataset::Evidence;
use crate::fence::{Fence, Lineage};

/// Whether a version in the store says anything about one in the data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoredVersions {
    /// If both are of a lineage.
    Comparable,
    /// The user changed where the data comes from: only if it is proven that another owner has begun that lineage before.
    OfAnotherLineage,
    /// The user said that LaunchDarkly is right.
    Overruled,
}

impl Writer {
    /// More is known of the data set's lineage, which is the same.
    pub(in crate::environment) fn amend_lineage(&mut self, lineage: Lineage) {
        self.me.lineage = lineage;
    }

    /// The data set is of another lineage now: it replaces what is stored, whatever the versions there, unless another
    /// owner has begun that very lineage before.
    pub(in crate::environment) fn begin_lineage(&mut self, lineage: Lineage, versions: Versions) {
        (self.me.lineage, self.me.versions) = (lineage, versions);
        self.stored_versions = StoredVersions::OfAnotherLineage;
        self.lineages += 1;
    }

    /// The user says that the data set is right, whatever is stored.
    pub(in crate::environment) fn overrule(&mut self, lineage: Lineage) {
        self.me.lineage = lineage;
        self.stored_versions = StoredVersions::Overruled;
        self.lineages += 1;
        self.guard = Guard::Open;
        self.content = Content::Unknown;
        self.compared_at = None;
    }

    /// What of the store may be newer than the data set: within a lineage, whatever has a higher version; and items that
    /// the data set lacks, as long as they are another grant's, or another run's.
    pub(super) fn evidence(&self) -> Evidence {
        let is_same = self.stored.as_ref().is_some_and(|stored| stored.is_same(&self.me.lineage));
        if !is_same || !self.has_comparable_versions() {
            Evidence::Nothing
        } else if self.was_in_line {
            Evidence::Newer
        } else {
            Evidence::NewerOrForeign
        }
    }

    /// Whether a version in the store says anything about one in the data set. Once another lineage has begun, only one
    /// that is proven to be of it does. That goes for a comparison too that was asked for before.
    pub(in crate::environment) fn has_comparable_versions(&self) -> bool {
        let is_proven_same = || self.stored.as_ref().is_some_and(|stored| stored.is_proven_same(&self.me.lineage));
        match (self.me.versions, self.stored_versions) {
            (Versions::Meaningless, _) | (Versions::Comparable, StoredVersions::Overruled) => false,
            (Versions::Comparable, StoredVersions::OfAnotherLineage) => is_proven_same(),
            (Versions::Comparable, StoredVersions::Comparable) => true,
        }
    }

    /// Where the items under a fence came from; `None` if it was not this environment's.
    pub(super) fn stored_lineage(&self, value: &str) -> Option<Lineage> {
        let fence = Fence::parse(value)?;
        (fence.fleet == self.me.fleet && fence.uid == self.me.uid).then_some(fence.lineage)
    }
}
