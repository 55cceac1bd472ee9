//! The streams of watches, opened again when they break.

use std::time::Duration;

use futures_util::Stream;
use futures_util::stream::try_unfold;
use tonic::{Code, Response, Status, Streaming};

use super::cursor::{Cursor, Event};
use super::retry::{jittered, passes};
use super::{Client, ClientError};
use crate::v1::{EnvironmentFilter, WatchEnvironmentsRequest, WatchEnvironmentsResponse};

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

/// Messages of one watch after another: each is opened when the one before broke, for as long as somebody listens.
#[derive(Debug)]
pub struct Messages<M> {
    client: Client,
    stream: Option<Streaming<M>>,
    was_answered: bool,
    delay: Duration,
}

/// Why there is no next message.
#[derive(Debug)]
pub enum Broken {
    /// Control does not know the revision to go on from any more.
    Compacted,
    /// It cannot be had.
    Failed(ClientError),
}

impl<M> Messages<M> {
    /// The first watch must succeed.
    pub fn new(client: &Client) -> Self {
        Self { client: client.clone(), stream: None, was_answered: false, delay: FIRST_DELAY }
    }

    /// Control has just answered something else: what keeps it from answering now passes.
    pub fn after_an_answer(client: &Client) -> Self {
        Self { was_answered: true, ..Self::new(client) }
    }

    /// The next message; `open` begins a watch.
    pub async fn next<F>(&mut self, mut open: impl FnMut(&Client) -> F) -> Result<M, Broken>
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
                Err(status) if self.was_answered && passes(&status) => self.pause().await,
                Err(status) => return Err(Broken::Failed(self.client.error(status))),
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
        tokio::time::sleep(jittered(self.delay)).await;
        self.delay = (self.delay * 2).min(LONGEST_DELAY);
    }
}

/// A watch of environments: first all that match, then every change. Broken streams are opened again where they broke;
/// where control cannot tell what happened meanwhile, there is another snapshot.
///
/// ```no_run
/// use flotilla_proto::client::{Client, EnvironmentWatch, Event};
/// use flotilla_proto::v1::EnvironmentFilter;
/// use futures_util::TryStreamExt as _;
///
/// # async fn follow(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut events = Box::pin(EnvironmentWatch::new(client, EnvironmentFilter::default()).into_stream());
/// while let Some(event) = events.try_next().await? {
///     match event {
///         Event::Snapshot(environments) => println!("{} environments", environments.len()),
///         Event::Changed(environment) => println!("{} changed", environment.name),
///         Event::Removed { name, .. } => println!("{name} is gone"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EnvironmentWatch {
    filter: EnvironmentFilter,
    cursor: Cursor,
    messages: Messages<WatchEnvironmentsResponse>,
}

impl EnvironmentWatch {
    /// Prepares a watch of what matches `filter`; its beginning, too, is waited for until control is there.
    pub(super) fn patient(client: &Client, filter: EnvironmentFilter) -> Self {
        Self { messages: Messages::after_an_answer(client), ..Self::new(client, filter) }
    }

    /// Prepares a watch of what matches `filter`.
    pub fn new(client: &Client, filter: EnvironmentFilter) -> Self {
        Self { filter, cursor: Cursor::default(), messages: Messages::new(client) }
    }

    /// The next event. The first is a snapshot.
    pub async fn next(&mut self) -> Result<Event, ClientError> {
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
                Err(Broken::Failed(error)) => return Err(error),
            }
        }
    }

    /// The events as a stream, which ends after an error.
    pub fn into_stream(self) -> impl Stream<Item = Result<Event, ClientError>> + Send {
        try_unfold(self, async |mut watch| Ok(Some((watch.next().await?, watch))))
    }
}
