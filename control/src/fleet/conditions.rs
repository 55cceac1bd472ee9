//! What an environment's state comes to: its initialization, and its conditions. Pure functions.

use flotilla_proto::status::ErrorKind;
use flotilla_proto::{
    Condition, ConditionStatus, EnvironmentReport, GrantState, Initialization, Intent, Marker, SourceState,
    Timestamp,
};

use super::boundary::RemovalKind;
use super::environment::Environment;
use super::handover::Handover;
use super::rotation::Rotation;

/// What the environment's own state does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// What is known of its holder.
    pub(super) holder: Holder,
    /// Whether the holder has taken over the present grant and generation.
    pub(super) in_force: bool,
    /// Whether any worker is connected.
    pub(super) any_worker: bool,
}

/// What is known of an environment's holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// There is none.
    None,
    /// The records name one, which has not connected since control started.
    Awaited,
    /// Its session is alive, or so lately gone that what it said last stands.
    WithinLease,
}

/// A condition without its history.
struct Finding {
    kind: &'static str,
    status: ConditionStatus,
    reason: &'static str,
    message: String,
}

fn finding(
    kind: &'static str,
    status: ConditionStatus,
    reason: &'static str,
    message: impl Into<String>,
) -> Finding {
    Finding { kind, status, reason, message: message.into() }
}

/// Whether SDKs find data.
pub(super) fn initialization(environment: &Environment, holder: Holder) -> Initialization {
    match environment.last_marker() {
        Marker::Unknown => Initialization::Unknown,
        Marker::Absent => Initialization::Uninitialized,
        Marker::Present if why_not_current(environment, holder).is_none() => Initialization::Current,
        Marker::Present => Initialization::Stale,
    }
}

/// The conditions, ordered by type. Those that say the same as before keep their time.
pub(super) fn conditions(environment: &Environment, around: Surroundings, now: Timestamp) -> Vec<Condition> {
    let observed_generation = match &environment.observed {
        Some(observed) => observed.report.generation.min(environment.record.generation),
        None => environment.record.generation,
    };
    let findings = [
        Some(accepted(environment, around)),
        Some(assigned(environment, around)),
        conflict(environment),
        Some(connected(environment, around.holder)),
        Some(current(environment, around.holder)),
        Some(initialized(environment)),
        items_rejected(environment),
        key_rotation(environment),
        payload_held(environment),
        payload_regressed(environment),
        removing(environment),
        Some(store_available(environment, around.holder)),
    ];
    let with_history = |found: Finding| {
        let before = environment.conditions.iter().find(|before| before.kind == found.kind);
        let same = before.filter(|before| before.status == found.status);
        let controls_own = matches!(found.kind, "Accepted" | "Assigned" | "KeyRotation" | "Removing");
        Condition {
            kind: found.kind,
            status: found.status,
            reason: found.reason,
            message: found.message,
            observed_generation: if controls_own { environment.record.generation } else { observed_generation },
            last_transition_time: same.map_or(now, |before| before.last_transition_time),
        }
    };
    findings.into_iter().flatten().map(with_history).collect()
}

fn accepted(environment: &Environment, around: Surroundings) -> Finding {
    let generation = environment.record.generation;
    let kind = "Accepted";
    let intent = environment.wanted().unwrap_or(Intent::Serve);
    if around.in_force {
        return finding(
            kind,
            ConditionStatus::True,
            "Accepted",
            format!("its worker has taken over generation {generation}"),
        );
    }
    let of_holder = environment.holder.as_ref().and_then(|holder| environment.parked.get_key_value(holder));
    let rejected = of_holder.or_else(|| environment.parked.iter().next());
    if let Some((worker, parked)) = rejected.filter(|(worker, _)| environment.is_parked(worker, intent)) {
        let message = format!("worker {worker} cannot carry out generation {generation}: {}", parked.message);
        return finding(kind, ConditionStatus::False, "Rejected", message);
    }
    if environment.wanted().is_none() {
        return finding(kind, ConditionStatus::Unknown, "Paused", "paused: no worker needs to accept it");
    }
    finding(
        kind,
        ConditionStatus::Unknown,
        "Pending",
        format!("no worker has taken over generation {generation} yet"),
    )
}

fn assigned(environment: &Environment, around: Surroundings) -> Finding {
    let kind = "Assigned";
    let no = |reason, message: &str| finding(kind, ConditionStatus::False, reason, message);
    match (around.holder, &environment.holder) {
        (Holder::Awaited, Some(worker)) => finding(
            kind,
            ConditionStatus::Unknown,
            "AwaitingWorker",
            format!("worker {worker} has not connected since control started"),
        ),
        (Holder::WithinLease, Some(worker)) => {
            let epoch = environment.epoch().unwrap_or_default();
            let next = match &environment.handover {
                Some(Handover::Warming { to, .. }) => format!("; {to} gets ready to take it over"),
                Some(Handover::Promoted { .. }) => " and takes it over".to_owned(),
                None => String::new(),
            };
            finding(
                kind,
                ConditionStatus::True,
                "Assigned",
                format!("worker {worker} holds it under epoch {epoch}{next}"),
            )
        }
        (Holder::None, _) | (Holder::Awaited | Holder::WithinLease, None) => {
            if environment.wanted().is_none() {
                no("Paused", "paused: no worker holds it")
            } else if around.any_worker {
                no(
                    "NoEligibleWorker",
                    "no connected worker carries the labels of its worker selector, has room, and accepts it",
                )
            } else {
                no("NoWorker", "no worker is connected")
            }
        }
    }
}

fn conflict(environment: &Environment) -> Option<Finding> {
    let Some(report) = environment.conflict() else { return contention(environment) };
    let found = match &report.found_fence {
        Some(found) => format!("whose fence is {found:?}"),
        None => "whose fence is empty".to_owned(),
    };
    Some(finding(
        "Conflict",
        ConditionStatus::True,
        "ForeignFence",
        format!(
            "the prefix is owned by somebody else, {found}; if that owner is gone, take over with resync --take-over"
        ),
    ))
}

fn contention(environment: &Environment) -> Option<Finding> {
    environment.report_of_grant().filter(|report| report.contended)?;
    let message = format!(
        "somebody else keeps changing what is stored under {}; find and stop it: until then it is mended less and less often, once a minute at last",
        environment.record.spec.prefix
    );
    Some(finding("Conflict", ConditionStatus::True, "ForeignWrites", message))
}

/// The report of the holder under the present grant, if it stands.
fn standing(environment: &Environment, holder: Holder) -> Option<&EnvironmentReport> {
    match holder {
        Holder::None | Holder::Awaited => None,
        Holder::WithinLease => environment.standing_report(),
    }
}

fn connected(environment: &Environment, holder: Holder) -> Finding {
    let kind = "Connected";
    let no = |reason, message: String| finding(kind, ConditionStatus::False, reason, message);
    let Some(report) = standing(environment, holder) else {
        if environment.record.paused {
            return no("Paused", "paused: nothing is streamed".to_owned());
        }
        return finding(
            kind,
            ConditionStatus::Unknown,
            "NotObserved",
            "no worker has reported under the present grant",
        );
    };
    match report.source_state {
        Some(SourceState::Connected) => {
            finding(kind, ConditionStatus::True, "Connected", "the source is connected")
        }
        Some(SourceState::Interrupted) if environment.is_key_refused() => {
            match report.source_error.as_ref().map(|error| (error.status, &error.message)) {
                Some((None, why)) => no("KeyUnreadable", why.clone()),
                Some((Some(status), _)) => no(
                    "KeyRefused",
                    format!(
                        "LaunchDarkly refuses the SDK key with HTTP status {status}; replace it with rotate-key"
                    ),
                ),
                None => no("KeyRefused", "LaunchDarkly refuses the SDK key; replace it with rotate-key".to_owned()),
            }
        }
        Some(SourceState::Connecting) => no("Connecting", "the first connection is under way".to_owned()),
        Some(SourceState::Interrupted) => {
            let why = report.source_error.as_ref().map(|error| format!(": {}", error.message)).unwrap_or_default();
            no("Interrupted", format!("the connection to the source is gone and is tried again{why}"))
        }
        None if environment.record.paused => no("Paused", "paused: nothing is streamed".to_owned()),
        None => no("NotStarted", "the source is not started yet".to_owned()),
    }
}

/// Why an environment is not current, as a word and a sentence; `None`: it is.
fn why_not_current(environment: &Environment, holder: Holder) -> Option<(&'static str, String)> {
    let because = |reason, message: &str| Some((reason, message.to_owned()));
    if environment.record.removal.is_some() {
        return because("Removing", "it is being removed");
    }
    if environment.record.paused {
        return because("Paused", "it is paused");
    }
    match holder {
        Holder::None => return because("NoWorker", "no worker holds it"),
        Holder::Awaited => return because("AwaitingWorker", "its worker has not connected since control started"),
        Holder::WithinLease => {}
    }
    let Some(report) = environment.standing_report().filter(|report| report.grant.intent == Intent::Serve) else {
        return because("NotObserved", "its worker has not reported under the present grant yet");
    };
    if !report.payload_held.is_empty() {
        return Some(("PayloadHeld", format!("a payload is held back: {}", report.payload_held)));
    }
    match report.grant_state {
        GrantState::Pending => {
            let detail = match report.pending_reason.as_str() {
                "" => String::new(),
                reason => format!(" ({reason})"),
            };
            return Some(("Claiming", format!("its worker has not claimed the prefix in the store yet{detail}")));
        }
        GrantState::Established => return because("Comparing", "the comparison with the store is not complete"),
        GrantState::Fenced => {
            return because("Fenced", "a later owner's fence stands in the store; a new grant follows");
        }
        GrantState::Conflict => return because("Conflict", "the prefix is owned by somebody else"),
        GrantState::Synchronized => {}
    }
    if report.changed_environment_id.is_some() {
        return because("PayloadHeld", "the data of another LaunchDarkly environment arrived and is not applied");
    }
    match report.source_state {
        Some(SourceState::Connected) => {}
        Some(SourceState::Connecting | SourceState::Interrupted) | None => {
            return because("SourceInterrupted", "the source is not connected, so newer data may exist");
        }
    }
    match report.marker {
        Marker::Present => None,
        Marker::Absent => because("MarkerAbsent", "the marker is not in the store"),
        Marker::Unknown => because("NotObserved", "its worker has not looked for the marker yet"),
    }
}

fn current(environment: &Environment, holder: Holder) -> Finding {
    match why_not_current(environment, holder) {
        None => finding("Current", ConditionStatus::True, "Synchronized", "the store holds what the source says"),
        Some((reason, message)) => finding("Current", ConditionStatus::False, reason, message),
    }
}

fn initialized(environment: &Environment) -> Finding {
    let kind = "Initialized";
    match environment.last_marker() {
        Marker::Present => finding(kind, ConditionStatus::True, "MarkerPresent", "SDKs find data in the store"),
        Marker::Absent => finding(
            kind,
            ConditionStatus::False,
            "MarkerAbsent",
            "SDKs find no data in the store and return fallbacks",
        ),
        Marker::Unknown => finding(kind, ConditionStatus::Unknown, "NotObserved", "no worker has looked yet"),
    }
}

fn items_rejected(environment: &Environment) -> Option<Finding> {
    let items = &environment.observed.as_ref()?.report.rejected_items;
    (!items.is_empty()).then(|| {
        let message = format!("items that were not stored: {}", items.join(", "));
        finding("ItemsRejected", ConditionStatus::True, "ItemsRejected", message)
    })
}

fn key_rotation(environment: &Environment) -> Option<Finding> {
    let kind = "KeyRotation";
    if let Some(failed) = &environment.record.failed_rotation {
        return Some(finding(kind, ConditionStatus::False, failed.reason.as_str(), failed.message.clone()));
    }
    match &environment.rotation {
        Rotation::Idle => None,
        Rotation::Waiting { message: Some(message), .. } => Some(finding(
            kind,
            ConditionStatus::Unknown,
            "Retrying",
            format!("the new SDK key could not be tried and will be again: {message}"),
        )),
        Rotation::Waiting { message: None, .. } => Some(finding(
            kind,
            ConditionStatus::Unknown,
            "Waiting",
            "the new SDK key waits for a worker that can try it",
        )),
        Rotation::Asked { .. } => {
            Some(finding(kind, ConditionStatus::Unknown, "Proving", "a worker tries the new SDK key"))
        }
        Rotation::Replaced => Some(finding(kind, ConditionStatus::True, "Replaced", "the new SDK key is in force")),
    }
}

/// What decides about what a payload takes back.
const WHAT_DECIDES: &str =
    "a later event or another payload decides, which is asked for after 30 s, or resync --accept-regression";

fn payload_held(environment: &Environment) -> Option<Finding> {
    let report = &environment.observed.as_ref()?.report;
    let (reason, message) = if let Some(id) = &report.changed_environment_id {
        let message = format!(
            "the source sends data of another LaunchDarkly environment ({id}); the last good data is kept, until resync --accept-regression"
        );
        ("OtherEnvironment", message)
    } else if !report.payload_held.is_empty() {
        ("LargeRemoval", format!("a payload is held back: {}; these stay, and {WHAT_DECIDES}", report.payload_held))
    } else {
        return None;
    };
    Some(finding("PayloadHeld", ConditionStatus::True, reason, message))
}

fn payload_regressed(environment: &Environment) -> Option<Finding> {
    let items = &environment.observed.as_ref()?.report.doubted_items;
    (!items.is_empty()).then(|| {
        let items = items.join(", ");
        let message = format!("a payload is behind what is stored, which stays, and {WHAT_DECIDES}: {items}");
        finding("PayloadRegressed", ConditionStatus::True, "OlderThanStored", message)
    })
}

fn removing(environment: &Environment) -> Option<Finding> {
    let (reason, message) = match environment.record.removal? {
        RemovalKind::Release => ("Releasing", "a worker gives the prefix up; the data stays"),
        RemovalKind::Purge => ("Purging", "a worker deletes the data and gives the prefix up"),
    };
    Some(finding("Removing", ConditionStatus::True, reason, message))
}

fn store_available(environment: &Environment, holder: Holder) -> Finding {
    let kind = "StoreAvailable";
    let report = standing(environment, holder);
    match report.and_then(|report| report.store_available) {
        Some(true) => match report.and_then(|report| report.untracked.as_deref()) {
            None => finding(kind, ConditionStatus::True, "Available", "the store answers"),
            Some(why) => finding(
                kind,
                ConditionStatus::True,
                "Untracked",
                format!(
                    "the store answers, but does not tell who else changes its keys, so that is found later, within minutes: {why}"
                ),
            ),
        },
        Some(false) => {
            let why = report
                .and_then(|report| report.last_error.as_ref())
                .filter(|error| error.kind == ErrorKind::Store)
                .map(|error| format!(": {}", error.message))
                .unwrap_or_default();
            finding(kind, ConditionStatus::False, "Unavailable", format!("the worker cannot use the store{why}"))
        }
        None => finding(
            kind,
            ConditionStatus::Unknown,
            "NotObserved",
            "no worker has tried the store under the present grant",
        ),
    }
}
