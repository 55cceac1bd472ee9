//! A worker as tests play it.

use super::*;

/// A worker as a test plays it.
#[derive(Debug, Default)]
pub(super) struct Player {
    pub(super) session: Option<SessionId>,
    /// What it holds: the last assignments, less the removals.
    pub(super) held: BTreeMap<(EnvironmentName, Uid), Assignment>,
    /// Whether it answers updates, and sends heartbeats.
    pub(super) silent: bool,
    /// Environments that it rejects.
    pub(super) rejects: BTreeSet<EnvironmentName>,
    pub(super) labels: Labels,
    pub(super) capacity: Option<u32>,
    pub(super) starts: u64,
    pub(super) directory: String,
    pub(super) highest_term: Term,
    /// All removals that it was sent.
    pub(super) removals: Vec<Removal>,
    /// How many times it was told that it knows everything.
    pub(super) initial_complete: usize,
    /// It was told that nobody can take what it has left.
    pub(super) nothing_moves: bool,
    /// The end of its last session, if control ended it.
    pub(super) went_away: Option<GoAway>,
}

impl Player {
    pub(super) fn hear(&mut self, message: &ControlMessage) -> Option<WorkerMessage> {
        match message {
            ControlMessage::Welcome(welcome) => {
                self.highest_term = self.highest_term.max(welcome.term);
                None
            }
            ControlMessage::Update(update) => {
                self.removals.extend(update.removals.iter().cloned());
                for removal in &update.removals {
                    self.held.remove(&(removal.environment.clone(), removal.uid.clone()));
                }
                let mut rejections = Vec::new();
                for assignment in update.assignments.iter().flatten() {
                    if self.rejects.contains(&assignment.environment) {
                        rejections.push(flotilla_proto::session::Rejection {
                            environment: assignment.environment.to_string(),
                            uid: assignment.uid.to_string(),
                            generation: assignment.generation,
                            message: "no such file".to_owned(),
                        });
                    } else {
                        let key = (assignment.environment.clone(), assignment.uid.clone());
                        self.held.insert(key, assignment.clone());
                    }
                }
                (!self.silent).then_some(if rejections.is_empty() {
                    WorkerMessage::Ack { nonce: update.nonce }
                } else {
                    WorkerMessage::Nack { nonce: update.nonce, rejections }
                })
            }
            ControlMessage::InitialStateComplete => {
                self.initial_complete += 1;
                None
            }
            ControlMessage::GoAway { reason, .. } => {
                self.went_away = Some(*reason);
                None
            }
            ControlMessage::NothingMoves => {
                self.nothing_moves = true;
                None
            }
            ControlMessage::Confirmed { .. } | ControlMessage::HeartbeatReply | ControlMessage::Request { .. } => {
                None
            }
        }
    }
}
