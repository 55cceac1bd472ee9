//! The stream of a watch, connected again when it breaks.

use std::error::Error as _;
use std::time::Duration;

use flotilla_proto::v1::{EnvironmentFilter, WatchEnvironmentsRequest, WatchEnvironmentsResponse};
use tonic::{Code, Status, Streaming};

use super::cursor::{Cursor, Event};
use crate::client::Client;
use crate::failure::Failure;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// A watch of environments. The first connection must succeed; later ones are tried for as long as somebody listens.
#[derive(Debug)]
pub(crate) struct EnvironmentWatch {
    client: Client,
    filter: EnvironmentFilter,
    cursor: Cursor,
    stream: Option<Streaming<WatchEnvironmentsResponse>>,
    was_connected: bool,
    delay: Duration,
}

impl EnvironmentWatch {
    /// Prepares a watch of what matches `filter`.
    pub(crate) fn new(client: &Client, filter: EnvironmentFilter) -> Self {
        Self {
            client: client.clone(),
            filter,
            cursor: Cursor::default(),
            stream: None,
            was_connected: false,
            delay: FIRST_DELAY,
        }
    }

    /// The next event. The first is a snapshot.
    pub(crate) async fn next(&mut self) -> Result<Event, Failure> {
        loop {
            let received = match self.stream.as_mut() {
                Some(stream) => stream.message().await,
                None => match self.connect().await {
                    Ok(()) => continue,
                    Err(status) => Err(status),
                },
            };
            match received {
                Ok(Some(message)) => {
                    self.was_connected = true;
                    self.delay = FIRST_DELAY;
                    if let Some(event) = self.cursor.receive(message) {
                        return Ok(event);
                    }
                }
                // Control ended the stream, as it does when it stops.
                Ok(None) => self.pause().await,
                Err(status) => {
                    if status.code() == Code::OutOfRange {
                        self.cursor.list_again();
                    } else if !self.was_connected || !is_transient(&status) {
                        return Err(self.client.failure(&status));
                    }
                    self.pause().await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Status> {
        let request = WatchEnvironmentsRequest {
            filter: Some(self.filter.clone()),
            resume_from_revision: self.cursor.connect(),
        };
        let mut client = self.client.environments();
        // The stream itself has no deadline, but its beginning has.
        let answer = tokio::time::timeout(self.client.request_timeout(), client.watch_environments(request));
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

/// Whether the same watch may succeed later: the connection broke, or control is not there or too slow.
pub(crate) fn is_transient(status: &Status) -> bool {
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
