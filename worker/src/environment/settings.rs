//! How LaunchDarkly is reached for an assignment.

use flotilla_proto::Source;
use flotilla_proto::session::Assignment;
use uuid::Uuid;

use crate::launchdarkly::{self, Delivery, LaunchDarklySettings};

/// How an assignment's environment is reached; `None` for a file, or when its key or addresses are missing.
pub(super) fn launchdarkly_settings(assignment: &Assignment, instance_id: Uuid) -> Option<LaunchDarklySettings> {
    let spec = &assignment.spec;
    let (delivery, initial_retry_delay, poll_interval) = match spec.source {
        Source::Stream { initial_retry_delay } => {
            (Delivery::Stream, initial_retry_delay, launchdarkly::DEFAULT_POLL_INTERVAL)
        }
        Source::Poll { interval } => (Delivery::Poll, launchdarkly::DEFAULT_INITIAL_RETRY_DELAY, interval),
        Source::File { .. } => return None,
    };
    let text = |text: &Option<String>| text.as_deref().map(Into::into);
    Some(LaunchDarklySettings {
        delivery,
        stream_uri: spec.stream_uri.clone()?,
        base_uri: spec.base_uri.clone()?,
        key: assignment.sdk_key.clone()?,
        filter: text(&spec.filter),
        application_id: text(&spec.application_id),
        application_version: text(&spec.application_version),
        initial_retry_delay,
        poll_interval,
        instance_id,
    })
}
