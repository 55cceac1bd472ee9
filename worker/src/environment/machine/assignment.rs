//! What an assignment says of where the data comes from, and of who writes it.

use flotilla_proto::session::Assignment;
use flotilla_proto::{EnvironmentSpec, FleetId, Guard, Incarnation, Source};

use crate::environment::writer::{Identity, Versions};
use crate::fence::Lineage;

/// Whether the source goes on as it is.
pub(super) fn is_same_source(new: &Assignment, old: &Assignment) -> bool {
    let tags = |spec: &EnvironmentSpec| (spec.application_id.clone(), spec.application_version.clone());
    new.sdk_key == old.sdk_key
        && new.spec.source == old.spec.source
        && origin(&new.spec) == origin(&old.spec)
        && tags(&new.spec) == tags(&old.spec)
}

pub(super) fn versions(spec: &EnvironmentSpec) -> Versions {
    if spec.is_file() { Versions::Meaningless } else { Versions::Comparable }
}

/// Whether a payload that would remove too much is doubted. A file is the user's own word.
pub(super) fn is_guarded(spec: &EnvironmentSpec) -> bool {
    spec.guard == Guard::Confirm && !spec.is_file()
}

/// What makes versions comparable, but for the environment's id.
pub(super) fn origin(spec: &EnvironmentSpec) -> String {
    let (kind, base) = match &spec.source {
        Source::Stream { .. } => ("launchdarkly", spec.stream_uri.as_ref().map(ToString::to_string)),
        Source::Poll { .. } => ("launchdarkly", spec.base_uri.as_ref().map(ToString::to_string)),
        Source::File { path } => ("file", Some(path.clone())),
    };
    let text = format!("{kind}\n{}\n{}", base.unwrap_or_default(), spec.filter.as_deref().unwrap_or_default());
    crate::fence::digest(text.as_bytes())
}

pub(super) fn identity(
    fleet: &FleetId,
    incarnation: &Incarnation,
    assignment: &Assignment,
    lineage: Lineage,
) -> Identity {
    Identity {
        fleet: fleet.clone(),
        uid: assignment.uid.clone(),
        incarnation: incarnation.clone(),
        grant: assignment.grant.clone(),
        lineage,
        versions: versions(&assignment.spec),
        take_over: assignment.take_over.clone(),
    }
}
