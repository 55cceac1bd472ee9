//! The workers' sessions: what a worker says goes to the driver, what the driver says goes to the worker.

use std::time::Duration;

use flotilla_proto::session::{Hello, WorkerMessage};
use flotilla_proto::{FieldViolation, Reason, Refusal, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::Api;
use super::guard::Caller;
use crate::audit::Kind;
use crate::driver::{DriverHandle, SESSION_QUEUE};
use crate::fleet::SessionId;

/// How long a worker may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// The handler of `WorkerService`.
#[derive(Debug)]
pub(super) struct Handler(pub(super) Api);

#[tonic::async_trait]
impl v1::worker_service_server::WorkerService for Handler {
    type SessionStream = ReceiverStream<Result<v1::SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let caller = Caller::of(&request)?;
        let address = caller.address.map(|address| address.to_string()).unwrap_or_default();
        let mut incoming = request.into_inner();
        let first = tokio::select! {
            first = tokio::time::timeout(HELLO_TIMEOUT, incoming.message()) => first,
            refusal = caller.revoked() => return Err(refusal.into()),
        };
        let first = first.map_err(|_| {
            let message = format!("no hello within {} s", HELLO_TIMEOUT.as_secs());
            Refusal::new(Reason::WorkerTimeout, message)
        })?;
        let hello = read_hello(first?)?;
        let worker = hello.worker.clone();
        let knock = caller.knock(Kind::Worker.named(worker.as_str()));
        if let Err(refusal) = caller.may_be(&worker) {
            knock.refused(&refusal);
            return Err(refusal.into());
        }
        let (sink, outgoing) = mpsc::channel(SESSION_QUEUE);
        let ended = CancellationToken::new();
        let driver = self.0.driver.clone();
        let session = driver.open_session(address.clone(), hello, sink, ended.clone(), knock).await?;
        tracing::info!(worker = worker.as_str(), session = session.0, address, "session opened");
        self.0.tasks.spawn(async move {
            let why = pump(&driver, session, incoming, ended, caller).await;
            // An error means that control is stopping.
            let _ = driver.close_session(session).await;
            tracing::info!(worker = worker.as_str(), session = session.0, why, "session closed");
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

fn read_hello(message: Option<v1::SessionRequest>) -> Result<Hello, Refusal> {
    let wrong = |description: &str| Refusal::from(FieldViolation::new("message", description));
    let message = message.ok_or_else(|| wrong("the session ended before a hello"))?;
    match WorkerMessage::try_from(message) {
        Ok(WorkerMessage::Hello(hello)) => Ok(hello),
        Ok(
            WorkerMessage::Ack { .. }
            | WorkerMessage::Nack { .. }
            | WorkerMessage::Report(_)
            | WorkerMessage::Heartbeat
            | WorkerMessage::Confirm { .. }
            | WorkerMessage::Draining { .. }
            | WorkerMessage::Reply { .. }
            | WorkerMessage::Goodbye,
        ) => Err(wrong("the first message of a session must be a hello")),
        Err(error) => Err(wrong(&error.to_string())),
    }
}

/// Hands over what the worker says, until one side ends the session. Returns why it ended.
async fn pump(
    driver: &DriverHandle,
    session: SessionId,
    mut incoming: Streaming<v1::SessionRequest>,
    ended: CancellationToken,
    caller: Caller,
) -> String {
    let revoked = caller.revoked();
    tokio::pin!(revoked);
    loop {
        let message = tokio::select! {
            biased;
            () = ended.cancelled() => return "control ended it".to_owned(),
            refusal = &mut revoked => return refusal.message,
            message = incoming.message() => message,
        };
        let message = match message {
            Ok(Some(message)) => message,
            Ok(None) => return "the worker ended it".to_owned(),
            Err(status) => return format!("the connection broke: {}", status.message()),
        };
        let handed_over = match WorkerMessage::try_from(message) {
            Ok(message) => driver.session_message(session, message).await,
            Err(error) => driver.break_session(session, error.to_string()).await,
        };
        if handed_over.is_err() {
            return "control is stopping".to_owned();
        }
    }
}
