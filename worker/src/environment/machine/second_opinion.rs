//! Items in doubt are settled, where no event does it, by a full payload over a second connection.

use std::time::Duration;

use flotilla_proto::{Source, SourceState, Timestamp};

use super::{Action, Machine};
use crate::dataset::{Authority, SECOND_OPINION_AFTER};
use crate::source::{FullPayload, SourceEvent};

/// Pause before LaunchDarkly is asked once more, when it could not answer or left something in doubt.
const ASK_ONCE_MORE: Duration = Duration::from_secs(30);

/// Whether LaunchDarkly is being asked about what is in doubt.
#[derive(Debug)]
pub(super) enum SecondOpinion {
    /// It is not, and will not be before then.
    NotAsked { not_before: Timestamp },
    /// It is about to be: a poll said that nothing changed, which decides, but not what there is.
    Due,
    /// It is; the second connection, once it stands, is to this environment.
    Asked { environment_id: Option<Box<str>> },
}

impl Machine {
    /// Asks if it is time; otherwise says when it will be.
    pub(super) fn ask_again(&mut self, now: Timestamp, actions: &mut Vec<Action>) -> Option<Timestamp> {
        let Some(ripe_at) = self.ripe_at() else {
            if let SecondOpinion::Due = self.second_opinion {
                self.second_opinion = SecondOpinion::NotAsked { not_before: now };
            }
            return None;
        };
        // A source without a connection will bring another payload by itself.
        if self.source_state != Some(SourceState::Connected) {
            return None;
        }
        let due = match self.second_opinion {
            SecondOpinion::NotAsked { not_before } => ripe_at.max(not_before),
            SecondOpinion::Due => now,
            SecondOpinion::Asked { .. } => return None,
        };
        if now < due {
            return Some(due);
        }
        self.second_opinion = SecondOpinion::Asked { environment_id: None };
        actions.push(Action::AskAgain);
        None
    }

    /// When what is in doubt or held back is old enough to be decided about.
    pub(super) fn ripe_at(&self) -> Option<Timestamp> {
        let held_back = self.writer.held_back().map(|(_, since)| since.after(SECOND_OPINION_AFTER));
        self.dataset.second_opinion_due().into_iter().chain(held_back).min()
    }

    /// A poll said that nothing changed since the one that left something in doubt.
    pub(super) fn said_again(&mut self, now: Timestamp) {
        let is_in_doubt = self.ripe_at().is_some();
        match self.second_opinion {
            SecondOpinion::NotAsked { not_before } if is_in_doubt && not_before <= now => {
                self.second_opinion = SecondOpinion::Due;
            }
            SecondOpinion::NotAsked { .. } | SecondOpinion::Due | SecondOpinion::Asked { .. } => {}
        }
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
                    self.decide(now, &payload);
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
                | SourceEvent::Heartbeat
                | SourceEvent::Alive,
            ) => {}
        }
        self.after(now, Vec::new())
    }

    fn decide(&mut self, now: Timestamp, payload: &FullPayload) {
        let changed = match self.assignment.spec.source {
            // One more poll is as good as the next.
            Source::Poll { .. } => self.dataset.replace(payload, Authority::OfPoll, now),
            // While nothing is written, what only the second one has is as good as what the first one had.
            Source::Stream { .. } | Source::File { .. } if self.writer.held_back().is_some() => {
                self.dataset.replace(payload, Authority::OfSecondConnection, now)
            }
            Source::Stream { .. } | Source::File { .. } => self.dataset.decide(payload, now),
        };
        self.writer.confirm();
        self.writer.replaced(changed);
    }
}
