//! How the rest of control speaks to the driver.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::process::Clock;
use flotilla_proto::session::{Hello, WorkerMessage};
use flotilla_proto::{Reason, Refusal, Timestamp};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{Message, Newest, Read, SessionSink, View};
use crate::audit::{AuditEntry, Knock, Outcome, Place};
use crate::fleet::{Command, Reply, SessionId};

/// Speaks to the driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct DriverHandle {
    pub(super) messages: mpsc::Sender<Message>,
    pub(super) newest: watch::Receiver<Newest>,
    pub(super) sessions: Arc<AtomicU64>,
    pub(super) committing_since: Arc<AtomicU64>,
    pub(super) clock: Clock,
}

impl fmt::Debug for DriverHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverHandle").finish_non_exhaustive()
    }
}

impl DriverHandle {
    /// Carries a command out that changes nothing. When the future is dropped, the command is abandoned.
    pub(crate) async fn command(&self, command: Command) -> Result<Reply, Refusal> {
        self.recorded_command(command, None).await
    }

    /// As [`command`](Self::command), with a record of what came of it, made in the transaction of what it changes.
    pub(crate) async fn recorded_command(
        &self,
        command: Command,
        entry: Option<AuditEntry>,
    ) -> Result<Reply, Refusal> {
        let (answer, answered) = oneshot::channel();
        let (command, entry) = (Box::new(command), entry.map(Box::new));
        self.send(Message::Command { command, entry, answer }).await?;
        answered.await.map_err(|_| gone())?
    }

    /// Makes a record of a call that came to no command. A read after this sees it.
    pub(crate) async fn record(&self, entry: AuditEntry, outcome: Outcome, place: Place) {
        // An error means that control is stopping.
        let _ = self.send(Message::Audit { entry: Box::new(entry), outcome, place }).await;
    }

    /// Looks at the fleet.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&View<'_>) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, answered) = oneshot::channel();
        let read: Read = Box::new(move |view| {
            // An error means that the reader has left.
            let _ = answer.send(read(view));
        });
        self.send(Message::Read(read)).await?;
        answered.await.map_err(|_| gone())
    }

    /// Opens a session. `ended` is cancelled when control ends it; `knock` is told if it refuses it at once.
    pub(crate) async fn open_session(
        &self,
        address: String,
        hello: Hello,
        sink: SessionSink,
        ended: CancellationToken,
        knock: Knock,
    ) -> Result<SessionId, Refusal> {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (hello, knock) = (Box::new(hello), Box::new(knock));
        let opened = Message::Opened { session, address, hello, sink, ended, knock };
        self.send(opened).await?;
        Ok(session)
    }

    /// Hands over what a worker said.
    pub(crate) async fn session_message(&self, session: SessionId, message: WorkerMessage) -> Result<(), Refusal> {
        let message = Box::new(message);
        self.send(Message::Said { session, message }).await
    }

    /// Ends a session whose worker makes no sense.
    pub(crate) async fn break_session(&self, session: SessionId, why: String) -> Result<(), Refusal> {
        self.send(Message::Broken { session, why }).await
    }

    /// Tells that a session's connection is gone.
    pub(crate) async fn close_session(&self, session: SessionId) -> Result<(), Refusal> {
        self.send(Message::Closed { session }).await
    }

    /// Sends every worker away, refuses what waits, and ends the driver.
    pub(crate) async fn stop(&self) {
        // An error means that it has ended.
        let _ = self.send(Message::Stop).await;
    }

    /// Tells of every new revision.
    pub(crate) fn newest(&self) -> watch::Receiver<Newest> {
        self.newest.clone()
    }

    /// For how long the commit under way has been so, if there is one.
    pub(crate) fn committing_for(&self) -> Option<Duration> {
        match self.committing_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(self.clock.now().since(Timestamp(since))),
        }
    }

    async fn send(&self, message: Message) -> Result<(), Refusal> {
        self.messages.send(message).await.map_err(|_| gone())
    }
}

fn gone() -> Refusal {
    Refusal::new(Reason::ShuttingDown, "control is stopping; try again in a moment")
}
