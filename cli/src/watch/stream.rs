//! The streams of watches, opened again when they break.

use std::error::Error as _;
use std::time::Duration;

use flotilla_proto::v1::{EnvironmentFilter, WatchEnvironmentsRequest, WatchEnvironmentsResponse};
use tonic::{Code, Response, Status, Streaming};

use super::cursor::{Cursor, Event};
use crate::client::Client;
use crate::failure::Failure;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Messages of one watch after another: each is opened when the one before broke, for as long as somebody listens.
#[derive(Debug)]
pub(crate) struct Messages<M> {
    client: Client,
    stream: Option<Streaming<M>>,
    was_answered: bool,
    delay: Duration,
}

/// Why there is no next message.
#[derive(Debug)]
pub(crate) enum Broken {
    /// Control does not know the revision to go on from any more.
    Compacted,
    /// It cannot be had.
    Failed(Failure),
}

impl<M> Messages<M> {
    /// The first watch must succeed.
    pub(crate) fn new(client: &Client) -> Self {
        Self { client: client.clone(), stream: None, was_answered: false, delay: FIRST_DELAY }
    }

    /// Control has just answered something else: what keeps it from answering now passes.
    pub(crate) fn after_an_answer(client: &Client) -> Self {
        Self { was_answered: true, ..Self::new(client) }
    }

    /// The next message; `open` begins a watch.
    pub(crate) async fn next<F>(&mut self, mut open: impl FnMut(&Client) -> F) -> Result<M, Broken>
    where
        F: Future<Output = Result<Response<Streaming<M>>, Status>>,
    {
        loop {
            let received = match self.stream.as_mut() {
                Some(stream) => stream.message().await,
                None => match self.begin(open(&self.client)).await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            match received {
                Ok(Some(message)) => {
                    self.was_answered = true;
                    self.delay = FIRST_DELAY;
                    return Ok(message);
                }
                // Control ended the stream, as it does when it stops.
                Ok(None) => self.pause().await,
                Err(status) if status.code() == Code::OutOfRange => {
                    self.pause().await;
                    return Err(Broken::Compacted);
                }
                Err(status) if self.was_answered && is_transient(&status) => self.pause().await,
                Err(status) => return Err(Broken::Failed(self.client.failure(&status))),
            }
        }
    }

    /// The stream itself has no deadline, but its beginning has.
    async fn begin(
        &mut self,
        answer: impl Future<Output = Result<Response<Streaming<M>>, Status>>,
    ) -> Result<(), Status> {
        let answer = tokio::time::timeout(self.client.request_timeout(), answer);
        let stream = answer.await.map_err(|_| Status::deadline_exceeded("the watch did not begin in time"))??;
        self.stream = Some(stream.into_inner());
        Ok(())
    }

    async fn pause(&mut self) {
        self.stream = None;
        tokio::time::sleep(self.delay).await;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }
}

/// A watch of environments.
#[derive(Debug)]
pub(crate) struct EnvironmentWatch {
    filter: EnvironmentFilter,
    cursor: Cursor,
    messages: Messages<WatchEnvironmentsResponse>,
}

impl EnvironmentWatch {
    /// Prepares a watch of what matches `filter`.
    pub(crate) fn new(client: &Client, filter: EnvironmentFilter) -> Self {
        Self { filter, cursor: Cursor::default(), messages: Messages::new(client) }
    }

    /// The next event. The first is a snapshot.
    pub(crate) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let Self { filter, cursor, messages } = self;
            let open = |client: &Client| {
                let (filter, resume_from_revision) = (Some(filter.clone()), cursor.connect());
                let mut client = client.environments();
                async move { client.watch_environments(WatchEnvironmentsRequest { filter, resume_from_revision }).await }
            };
            match messages.next(open).await {
                Ok(message) => {
                    if let Some(event) = cursor.receive(message) {
                        return Ok(event);
                    }
                }
                Err(Broken::Compacted) => cursor.list_again(),
                Err(Broken::Failed(failure)) => return Err(failure),
            }
        }
    }
}

/// Whether the same watch may succeed later: the connection broke, or control is not there or too slow.
fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => true,
        Code::Unknown | Code::Internal => status.source().is_some(),
        Code::Ok
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}
