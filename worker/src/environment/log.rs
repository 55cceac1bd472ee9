//! Tells the log what an operator asks about.

use flotilla_proto::{EnvironmentReport, GrantState, Intent};

/// Tells what changed between two reports.
pub(super) fn log_changes(before: Option<&EnvironmentReport>, after: &EnvironmentReport) {
    let environment = &after.environment;
    let epoch = after.grant.epoch;
    let state = |report: &EnvironmentReport| (report.grant.epoch, report.grant_state);
    if before.map(state) != Some(state(after)) {
        match after.grant_state {
            GrantState::Pending => {}
            // Behind for a moment, as when the store was away: that is told below.
            GrantState::Established if before.map(state) == Some((epoch, GrantState::Synchronized)) => {}
            GrantState::Established => match after.grant.intent {
                Intent::Warm | Intent::Serve => tracing::info!(%environment, %epoch, "the prefix is held"),
                Intent::Release | Intent::Purge => tracing::info!(%environment, %epoch, "the prefix is given up"),
            },
            GrantState::Synchronized => tracing::info!(%environment, %epoch, "the store is in line"),
            // As it is meant to be when another worker takes over.
            GrantState::Fenced => tracing::info!(%environment, %epoch, "a later owner's fence stands in the store"),
            GrantState::Conflict => {
                tracing::warn!(%environment, %epoch, "somebody else's fence stands in the store");
            }
        }
    }
    log_doubts(before, after);
    let was_available = before.and_then(|before| before.store_available);
    match (was_available, after.store_available) {
        (Some(true) | None, Some(false)) => {
            let error = after.last_error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
            tracing::warn!(%environment, error, "the store does not do what is asked");
        }
        (Some(false), Some(true)) => tracing::info!(%environment, "the store does what is asked again"),
        (Some(_) | None, Some(_) | None) => {}
    }
}

/// Each doubt is told once, and that all are over.
fn log_doubts(before: Option<&EnvironmentReport>, after: &EnvironmentReport) {
    let environment = &after.environment;
    let known_doubts = before.map_or(&[][..], |before| &before.doubted_items);
    for item in after.doubted_items.iter().filter(|item| !known_doubts.contains(item)) {
        tracing::warn!(%environment, item, "an item is in doubt");
    }
    let held = |report: &EnvironmentReport| report.payload_held.clone();
    match (before.map(held).unwrap_or_default(), held(after)) {
        (before, after) if before == after => {}
        (_, after) if after.is_empty() => tracing::info!(%environment, "no payload is held back any more"),
        (_, why) => tracing::warn!(%environment, why, "a payload is held back"),
    }
    if !known_doubts.is_empty() && after.doubted_items.is_empty() {
        tracing::info!(%environment, "no item is in doubt any more");
    }
}
