//! Watching workers: a snapshot, a marker, then changes; or, from a revision, only what came after it.

use std::convert::Infallible;

use flotilla_proto::{Refusal, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Api;
use super::watch::{End, Sink, lost, resume_from, spawn, stopping};
use crate::driver::{DriverHandle, Lost, Revision, View};

/// Workers that are looked at in one go.
const LOOK: usize = 256;

type Event = v1::watch_workers_response::Event;

/// Starts a watch. It ends when the caller leaves, its revision is lost, or control stops.
pub(super) fn start(
    api: &Api,
    request: &v1::WatchWorkersRequest,
) -> Result<ReceiverStream<Result<v1::WatchWorkersResponse, Status>>, Refusal> {
    let from = resume_from(&request.resume_from_revision)?;
    let driver = api.driver.clone();
    Ok(spawn(api, async move |sink| match (Watcher { driver, sink }).follow(from).await {
        Ok(never) => match never {},
        Err(end) => end,
    }))
}

struct Watcher {
    driver: DriverHandle,
    sink: Sink<v1::WatchWorkersResponse>,
}

impl Watcher {
    async fn follow(&self, from: Option<Revision>) -> Result<Infallible, End> {
        let mut newest = self.driver.newest();
        let mut at = match from {
            Some(revision) => revision,
            None => self.snapshot().await?,
        };
        let mut synced = false;
        loop {
            newest.borrow_and_update();
            at = self.catch_up(at).await?;
            if !synced {
                synced = true;
                self.send(Event::Synced(v1::WatchWorkersSynced {}), at).await?;
            }
            if newest.changed().await.is_err() {
                return Err(stopping());
            }
        }
    }

    async fn snapshot(&self) -> Result<Revision, End> {
        let look = |view: &View<'_>| (view.fleet.workers().collect::<Vec<_>>(), view.workers.newest());
        let (workers, revision) = self.driver.read(look).await?;
        for worker in workers {
            self.send(Event::Changed(worker), revision).await?;
        }
        Ok(revision)
    }

    /// Tells everything that was touched since `at`. Returns where that leads.
    async fn catch_up(&self, mut at: Revision) -> Result<Revision, End> {
        loop {
            let look = move |view: &View<'_>| {
                let touched = view.workers.since(at, LOOK)?;
                Ok(touched
                    .into_iter()
                    .map(|one| (view.fleet.worker_summary(&one.name), one.name, one.revision))
                    .collect::<Vec<_>>())
            };
            let looks = self.driver.read(look).await?.map_err(|Lost| lost())?;
            let Some((_, _, last)) = looks.last() else { return Ok(at) };
            at = *last;
            for (worker, name, revision) in looks {
                let event = match worker {
                    Some(worker) => Event::Changed(worker),
                    None => Event::Removed(v1::WorkerRemoved { name: name.to_string() }),
                };
                self.send(event, revision).await?;
            }
        }
    }

    async fn send(&self, event: Event, revision: Revision) -> Result<(), End> {
        let message = v1::WatchWorkersResponse { event: Some(event), revision: revision.to_string() };
        self.sink.send(Ok(message)).await.map_err(|_| End::Left)
    }
}
