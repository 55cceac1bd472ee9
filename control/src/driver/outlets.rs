//! Who waits for an answer, and which workers are connected.

use std::collections::BTreeMap;

use flotilla_proto::session::{ControlMessage, GoAway};
use flotilla_proto::{Reason, Refusal, v1};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use super::Answer;
use crate::fleet::{CommandId, Reply, SessionId};

/// Messages that may wait for a worker. One that lets more pile up is disconnected, and connects anew.
pub(crate) const SESSION_QUEUE: usize = 256;

/// Where messages for a worker go.
pub(crate) type SessionSink = mpsc::Sender<Result<v1::SessionResponse, Status>>;

#[derive(Debug)]
struct Session {
    sink: SessionSink,
    // Dropped with the session, however that happens, it tells the session's reader.
    _ended: DropGuard,
}

/// Everybody whom effects may reach.
#[derive(Debug, Default)]
pub(super) struct Outlets {
    last_command: u64,
    waiting: BTreeMap<CommandId, Answer>,
    sessions: BTreeMap<SessionId, Session>,
}

impl Outlets {
    /// Notes who waits, and names the command.
    pub(super) fn expect_answer(&mut self, answer: Answer) -> CommandId {
        self.last_command += 1;
        let id = CommandId(self.last_command);
        self.waiting.insert(id, answer);
        id
    }

    pub(super) fn answer(&mut self, id: CommandId, result: Result<Reply, Refusal>) {
        if let Some(answer) = self.waiting.remove(&id) {
            // An error means that the caller has left.
            let _ = answer.send(result);
        }
    }

    /// Takes out the commands whose callers have left.
    pub(super) fn abandoned(&mut self) -> Vec<CommandId> {
        let left: Vec<_> =
            self.waiting.iter().filter(|(_, answer)| answer.is_closed()).map(|(id, _)| *id).collect();
        for id in &left {
            self.waiting.remove(id);
        }
        left
    }

    pub(super) fn refuse_all(&mut self, refusal: &Refusal) {
        for answer in std::mem::take(&mut self.waiting).into_values() {
            let _ = answer.send(Err(refusal.clone()));
        }
    }

    pub(super) fn open(&mut self, session: SessionId, sink: SessionSink, ended: CancellationToken) {
        let session_ended = ended.drop_guard();
        self.sessions.insert(session, Session { sink, _ended: session_ended });
    }

    pub(super) fn is_open(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Queues a message. False: the worker does not read, or is gone, and the session has been ended for it.
    pub(super) fn send(&mut self, session: SessionId, message: &ControlMessage) -> bool {
        let Some(open) = self.sessions.get(&session) else {
            // The fleet was told already.
            return true;
        };
        match open.sink.try_send(Ok(message.into())) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!(session = session.0, "a worker does not read what it is sent; its session ends");
                self.close(session);
                false
            }
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.close(session);
                false
            }
        }
    }

    /// Ends a session with a status.
    pub(super) fn refuse(&mut self, session: SessionId, refusal: Refusal) {
        tracing::warn!(session = session.0, error = refusal.message, "a worker was refused");
        if let Some(open) = self.sessions.get(&session) {
            // With a full queue the status is lost, but not the end.
            let _ = open.sink.try_send(Err(refusal.into()));
        }
        self.close(session);
    }

    /// Ends a session with a last message.
    pub(super) fn send_away(&mut self, session: SessionId, reason: GoAway, message: &str) {
        let message = message.to_owned();
        if self.send(session, &ControlMessage::GoAway { reason, message }) {
            self.close(session);
        }
    }

    /// Ends a session after what was queued.
    pub(super) fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
    }

    /// Sends all workers away and refuses all who wait.
    pub(super) fn shut_down(&mut self) {
        let sessions: Vec<_> = self.sessions.keys().copied().collect();
        for session in sessions {
            self.send_away(session, GoAway::ShuttingDown, "control is stopping");
        }
        self.refuse_all(&Refusal::new(Reason::ShuttingDown, "control is stopping"));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn callers_that_left_are_named_once() {
        let mut outlets = Outlets::default();
        let (stays, mut waiting) = oneshot::channel();
        let (leaves, left) = oneshot::channel();
        let stays = outlets.expect_answer(stays);
        let leaves = outlets.expect_answer(leaves);
        assert_eq!(outlets.abandoned(), []);
        drop(left);
        assert_eq!(outlets.abandoned(), [leaves]);
        assert_eq!(outlets.abandoned(), []);
        outlets.answer(leaves, Ok(Reply::Environment(None)));
        outlets.answer(stays, Ok(Reply::Environment(None)));
        assert!(waiting.try_recv().is_ok());
    }

    #[test]
    fn a_session_that_is_dropped_tells_its_reader() {
        let mut outlets = Outlets::default();
        let (sink, _outgoing) = mpsc::channel(1);
        let ended = CancellationToken::new();
        outlets.open(SessionId(1), sink, ended.clone());
        assert!(outlets.is_open(SessionId(1)) && !ended.is_cancelled());
        drop(outlets);
        assert!(ended.is_cancelled());
    }
}
