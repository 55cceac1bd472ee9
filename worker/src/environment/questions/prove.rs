//! Whether a new SDK key works, and brings all that the present one brings. LaunchDarkly can limit a key to views of the
//! flags: such a one would take the others away from the SDKs.

use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::Answer;
use flotilla_proto::v1::RequestFailure;
use flotilla_proto::{Reason, SdkKeySource, v1};

use super::{Sent, Subject, snapshot, versions, word};
use crate::dataset::ItemId;
use crate::launchdarkly::{LaunchDarklySettings, Proof};
use crate::source::{SourceFailure, shortened};

/// Missing items that are named.
const MOST_NAMED: usize = 20;

pub(super) async fn prove(subject: &Subject, key: &str, deadline: Duration) -> Result<Answer, RequestFailure> {
    let Some(present) = subject.settings.clone() else {
        return Err(RequestFailure::new(Reason::NoSdkKey, "the environment reads a file and takes no SDK key"));
    };
    let key = SdkKeySource::parse("sdk_key", key)
        .map_err(|violation| RequestFailure::new(Reason::InvalidField, violation.description))?;
    let new = LaunchDarklySettings { key, ..present.clone() };
    let first = fetch(subject, new.clone(), deadline).await.map_err(|failure| refused(&failure))?;
    let is_another = matches!(
        (&subject.environment_id, &first.environment_id),
        (Some(present), Some(new)) if **present != **new
    );
    let missing = if is_another {
        Vec::new()
    } else {
        missing(subject, [present, new], &Sent::of(&first.payload), deadline).await?
    };
    let named = |id: &ItemId| format!("{}/{}", word(id.kind), shortened(&id.key));
    Ok(Answer::KeyProved(v1::KeyProved {
        environment_id: first.environment_id.map(String::from).unwrap_or_default(),
        present_environment_id: subject.environment_id.clone().unwrap_or_default(),
        missing: missing.len() as u64,
        missing_items: missing.iter().take(MOST_NAMED).map(named).collect(),
    }))
}

/// What the present key brings and the new one does not, neither at first nor once more: what is held may be older, or not
/// be there yet, and an item may come or go meanwhile.
async fn missing(
    subject: &Subject,
    [present, new]: [LaunchDarklySettings; 2],
    first: &Sent,
    deadline: Duration,
) -> Result<Vec<ItemId>, RequestFailure> {
    let held = snapshot(subject).await.ok().map(|held| versions(&held));
    if held.as_ref().is_some_and(|held| held.keys().all(|id| first.has(id))) {
        return Ok(Vec::new());
    }
    let before = match fetch(subject, present, deadline).await {
        Ok(before) => Sent::of(&before.payload),
        // It never worked here: there is nothing that it brings.
        Err(SourceFailure::Auth { .. } | SourceFailure::Key { .. } | SourceFailure::Http { .. })
            if held.is_none() =>
        {
            return Ok(Vec::new());
        }
        Err(failure) => {
            let message = format!("the present SDK key could not be asked what it brings: {failure}");
            return Err(RequestFailure::new(Reason::UpstreamUnavailable, message));
        }
    };
    let missing: Vec<_> = before.versions.into_keys().filter(|id| !first.has(id)).collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    let second = fetch(subject, new, deadline).await.map_err(|failure| refused(&failure))?;
    let second = Sent::of(&second.payload);
    Ok(missing.into_iter().filter(|id| !second.has(id)).collect())
}

async fn fetch(
    subject: &Subject,
    settings: LaunchDarklySettings,
    deadline: Duration,
) -> Result<Proof, SourceFailure> {
    Arc::clone(&subject.sources).prove_key(settings, deadline).await
}

fn refused(failure: &SourceFailure) -> RequestFailure {
    let reason = match failure {
        SourceFailure::Auth { .. } => Reason::KeyRejected,
        // One that cannot be read now may be there a moment later.
        SourceFailure::Key { .. }
        | SourceFailure::Http { .. }
        | SourceFailure::Network { .. }
        | SourceFailure::Data { .. } => Reason::UpstreamUnavailable,
    };
    let status = failure.status().map(u32::from).unwrap_or_default();
    RequestFailure { status, ..RequestFailure::new(reason, failure.to_string()) }
}
