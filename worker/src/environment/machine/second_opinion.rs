//! Items in doubt are settled, where no event does it, by a full payload over a second connection.

use std::time::Duration;

use flotilla_proto::{SourceState, Timestamp};

use super::{Action, Machine};
use crate::source::SourceEvent;

/// Pause before LaunchDarkly is asked once more, when it could not answer or left something in doubt.
const ASK_ONCE_MORE: Duration = Duration::from_secs(30);

/// Whether LaunchDarkly is being asked about what is in doubt.
#[derive(Debug)]
pub(super) enum SecondOpinion {
    /// It is not, and will not be before then.
    NotAsked { not_before: Timestamp },
    /// It is; the second connection, once it stands, is to this environment.
    Asked { environment_id: Option<Box<str>> },
}

impl Machine {
    /// Asks if it is time; otherwise says when it will be.
    pub(super) fn ask_again(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> Option<Timestamp> {
        let SecondOpinion::NotAsked { not_before } = self.second_opinion else { return None };
        // A source without a connection will bring another payload by itself.
        let due =
            self.dataset.second_opinion_due().filter(|_| self.source_state == Some(SourceState::Connected))?;
        let due = due.max(not_before);
        if now < due {
            return Some(due);
        }
        self.second_opinion = SecondOpinion::Asked { environment_id: None };
        actions.push(Action::AskAgain);
        None
    }

    /// The second connection says something; `None`: it is gone. The first payload or failure is its last word.
    pub(in crate::environment) fn second_opinion(
        &mut self,
        now: Timestamp,
        event: Option<SourceEvent>,
    ) -> Vec<Action> {
        let SecondOpinion::Asked { environment_id } = &mut self.second_opinion else { return Vec::new() };
        match event {
            Some(SourceEvent::Connected { environment_id: id }) => *environment_id = id,
            Some(SourceEvent::Payload(payload)) => {
                let is_another =
                    matches!((&self.environment_id, environment_id), (Some(ours), Some(id)) if ours != id);
                self.second_opinion = SecondOpinion::NotAsked { not_before: now.after(ASK_ONCE_MORE) };
                if !is_another {
                    let changed = self.dataset.decide(&payload, now);
                    self.writer.replaced(changed);
                }
            }
            Some(SourceEvent::Interrupted { .. }) | None => {
                self.second_opinion = SecondOpinion::NotAsked { not_before: now.after(ASK_ONCE_MORE) };
            }
            // Events are taken from the first connection.
            Some(
                SourceEvent::Unchanged
                | SourceEvent::Patch { .. }
                | SourceEvent::Delete { .. }
                | SourceEvent::Rejected(_)
                | SourceEvent::Alive,
            ) => {}
        }
        self.after(now, Vec::new())
    }
}
