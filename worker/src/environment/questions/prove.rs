//! Whether a new SDK key works, and brings all that the present one brings. LaunchDarkly can limit a key to views of the
//! flags: such a one would take the others away from the SDKs.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::Answer;
use flotilla_proto::v1::RequestFailure;
use flotilla_proto::{Reason, SdkKey, v1};

use super::{Sent, Subject, snapshot, token, versions};
use crate::dataset::ItemId;
use crate::launchdarkly::{LaunchDarklySettings, Proof};
use crate::source::SourceFailure;

/// Missing items that are named.
const MOST_NAMED: usize = 20;

pub(super) async fn prove(subject: &Subject, key: &str, deadline: Duration) -> Result<Answer, RequestFailure> {
    let Some(present) = subject.settings.clone() else {
        return Err(RequestFailure::new(Reason::NoSdkKey, "the environment reads a file and takes no SDK key"));
    };
    let key = SdkKey::parse("sdk_key", key)
        .map_err(|violation| RequestFailure::new(Reason::InvalidField, violation.description))?;
    let new = LaunchDarklySettings { key, ..present.clone() };
    let mut proof = fetch(subject, new.clone(), deadline).await.map_err(|failure| refused(&failure))?;
    // Nothing may be held yet.
    let held = snapshot(subject).await.map(|held| versions(&held)).unwrap_or_default();
    let mut missing = missing(held.keys(), &proof);
    let is_same = match (&subject.environment_id, &proof.environment_id) {
        (Some(present), Some(new)) => **present == **new,
        (Some(_) | None, None) | (None, Some(_)) => true,
    };
    if is_same && !missing.is_empty() {
        // What is held may be older. What the present key brings counts, and then once more what the new one brings.
        let before = fetch(subject, present, deadline).await.map_err(|failure| unavailable(&failure))?;
        proof = fetch(subject, new, deadline).await.map_err(|failure| refused(&failure))?;
        missing = self::missing(Sent::of(&before.payload).versions.keys(), &proof);
    }
    Ok(Answer::KeyProved(v1::KeyProved {
        environment_id: proof.environment_id.map(String::from).unwrap_or_default(),
        present_environment_id: subject.environment_id.clone().unwrap_or_default(),
        missing: missing.len() as u64,
        missing_items: missing.iter().take(MOST_NAMED).map(token).collect(),
    }))
}

async fn fetch(
    subject: &Subject,
    settings: LaunchDarklySettings,
    deadline: Duration,
) -> Result<Proof, SourceFailure> {
    Arc::clone(&subject.sources).prove_key(settings, deadline).await
}

/// Those of the items that the key does not bring, in whatever form.
fn missing<'a>(items: impl Iterator<Item = &'a ItemId>, proof: &Proof) -> Vec<ItemId> {
    let brought = Sent::of(&proof.payload);
    items.filter(|id| !brought.versions.contains_key(*id) && !brought.rejected.contains(*id)).cloned().collect()
}

fn refused(failure: &SourceFailure) -> RequestFailure {
    match failure {
        SourceFailure::Auth { status } => RequestFailure {
            status: u32::from(*status),
            ..RequestFailure::new(Reason::KeyRejected, failure.to_string())
        },
        SourceFailure::Http { .. } | SourceFailure::Network { .. } | SourceFailure::Data { .. } => {
            unavailable(failure)
        }
    }
}

fn unavailable(failure: &SourceFailure) -> RequestFailure {
    let status = match failure {
        SourceFailure::Auth { status } | SourceFailure::Http { status } => u32::from(*status),
        SourceFailure::Network { .. } | SourceFailure::Data { .. } => 0,
    };
    RequestFailure { status, ..RequestFailure::new(Reason::UpstreamUnavailable, failure.to_string()) }
}
