//! What keeps an environment from a state, in words. No I/O.

use flotilla_proto::v1::{Condition, ConditionStatus, Environment, Initialization};

use super::progress::Goal;

/// The word for an initialization.
pub(crate) fn state_word(initialization: Initialization) -> &'static str {
    match initialization {
        // Unspecified is never sent; an older or newer control may still do so, and then nobody knows.
        Initialization::Unspecified | Initialization::Unknown => "unknown",
        Initialization::Uninitialized => "uninitialized",
        Initialization::Stale => "stale",
        Initialization::Current => "current",
    }
}

/// Conditions that should hold, in the order in which an environment comes up, and then those that should not.
const EXPECTED: [(&str, ConditionStatus); 11] = [
    ("Accepted", ConditionStatus::True),
    ("Removing", ConditionStatus::False),
    ("Conflict", ConditionStatus::False),
    ("Assigned", ConditionStatus::True),
    ("StoreAvailable", ConditionStatus::True),
    ("Connected", ConditionStatus::True),
    ("PayloadHeld", ConditionStatus::False),
    ("Initialized", ConditionStatus::True),
    ("Current", ConditionStatus::True),
    ("PayloadRegressed", ConditionStatus::False),
    ("ItemsRejected", ConditionStatus::False),
];

/// What an environment is still waiting for: its state, and the first condition that keeps it from the goal.
pub(crate) fn obstacle(environment: &Environment, goal: &Goal) -> String {
    let status = environment.status.clone().unwrap_or_default();
    let word = state_word(status.initialization());
    let condition = match goal {
        Goal::Removed { .. } => find(&status.conditions, "Removing"),
        Goal::KeyRotated { .. } => find(&status.conditions, "KeyRotation"),
        Goal::Initialized | Goal::Current => blocking_condition(&status.conditions),
    };
    let state = match goal {
        Goal::Removed { .. } if environment.removing => "being removed",
        Goal::Removed { .. } => "not being removed",
        Goal::KeyRotated { .. } => "key not yet proved",
        Goal::Initialized | Goal::Current => word,
    };
    match (condition, status.last_error) {
        (Some(condition), _) => format!(
            "{state}: {} is {} ({}): {}",
            condition.r#type,
            truth_word(condition.status()),
            condition.reason,
            condition.message
        ),
        (None, Some(error)) if !matches!(goal, Goal::Removed { .. }) => format!("{state}: {}", error.message),
        (None, Some(_) | None) => state.to_owned(),
    }
}

/// The first condition, in the order in which an environment comes up, that keeps it from being current. What is known
/// to be wrong says more than what nobody knows yet.
pub(crate) fn blocking_condition(conditions: &[Condition]) -> Option<&Condition> {
    let contrary = || {
        EXPECTED.iter().filter_map(|(kind, expected)| {
            find(conditions, kind).filter(|condition| condition.status() != *expected)
        })
    };
    let known = |condition: &&Condition| match condition.status() {
        ConditionStatus::True | ConditionStatus::False => true,
        ConditionStatus::Unknown | ConditionStatus::Unspecified => false,
    };
    contrary().find(known).or_else(|| contrary().next())
}

/// The word for a condition's status.
pub(crate) fn truth_word(status: ConditionStatus) -> &'static str {
    match status {
        ConditionStatus::True => "true",
        ConditionStatus::False => "false",
        ConditionStatus::Unspecified | ConditionStatus::Unknown => "unknown",
    }
}

/// How a rotation of the SDK key stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RotationState {
    /// The new key is not proved yet.
    Pending,
    /// The old key stays.
    Rejected {
        /// Why, one word.
        reason: String,
        /// Why, a sentence.
        message: String,
    },
    /// The new key is in force.
    Replaced,
    /// Nothing is said of one.
    Absent,
}

/// How a rotation of the environment's SDK key stands.
pub(crate) fn rotation_state(environment: &Environment) -> RotationState {
    let status = environment.status.as_ref();
    let Some(condition) = status.and_then(|status| find(&status.conditions, "KeyRotation")) else {
        return RotationState::Absent;
    };
    match condition.status() {
        ConditionStatus::False => {
            RotationState::Rejected { reason: condition.reason.clone(), message: condition.message.clone() }
        }
        ConditionStatus::Unknown | ConditionStatus::Unspecified => RotationState::Pending,
        ConditionStatus::True => RotationState::Replaced,
    }
}

fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.r#type == kind)
}
