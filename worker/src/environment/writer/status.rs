//! What the writer tells of itself.

use flotilla_proto::{GrantState, Marker};

use super::{Content, Standing, Under, Writer};

impl Writer {
    /// How far the grant is.
    pub(in crate::environment) fn grant_state(&self) -> GrantState {
        match &self.standing {
            Standing::Conflict(_) => GrantState::Conflict,
            Standing::Fenced(_) => GrantState::Fenced,
            Standing::Ended => GrantState::Established,
            Standing::Unknown | Standing::Absent(_) | Standing::Claimable(_) | Standing::Held => {
                if self.expected.is_none() || self.is_ending() {
                    GrantState::Pending
                } else if self.is_in_line() {
                    GrantState::Synchronized
                } else {
                    GrantState::Established
                }
            }
        }
    }

    /// Whether the store holds what the last full payload, and the last comparison, said.
    fn is_in_line(&self) -> bool {
        self.content == Content::InLine && !self.is_behind_payload && self.health.available() != Some(false)
    }

    /// Why the grant is pending, one word; empty: nothing special.
    pub(in crate::environment) fn pending_reason(&self) -> &'static str {
        if self.health.available() == Some(false) {
            "StoreUnavailable"
        } else if matches!(self.standing, Standing::Absent(_)) {
            "AwaitingConfirmation"
        } else {
            ""
        }
    }

    /// The fence that is in the way.
    pub(in crate::environment) fn found_fence(&self) -> Option<&str> {
        match &self.standing {
            Standing::Conflict(found) | Standing::Fenced(found) => Some(found),
            Standing::Unknown | Standing::Absent(_) | Standing::Claimable(_) | Standing::Held | Standing::Ended => {
                None
            }
        }
    }

    /// The marker at the last look.
    pub(in crate::environment) fn marker(&self) -> Marker {
        self.marker
    }

    /// Whether the store did what was asked last; `None`: nothing was asked.
    pub(in crate::environment) fn available(&self) -> Option<bool> {
        self.health.available()
    }

    /// Why the store does not tell of foreign writes, if it does not.
    pub(in crate::environment) fn untracked(&self) -> Option<&str> {
        self.untracked.as_deref()
    }

    /// What is wrong with the store, if something is.
    pub(in crate::environment) fn error(&self) -> Option<&str> {
        self.health.error()
    }

    /// A write number that was never used.
    pub(in crate::environment) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether the store holds all that was received.
    pub(in crate::environment) fn is_all_written(&self) -> bool {
        self.content == Content::InLine && !self.is_behind()
    }

    /// Whether changes wait to be written to a store that is otherwise in line.
    pub(in crate::environment) fn is_behind(&self) -> bool {
        let waits = !self.dirty.is_empty() || matches!(self.under, Some(Under::Write { .. }));
        waits && self.content != Content::Unknown
    }
}
