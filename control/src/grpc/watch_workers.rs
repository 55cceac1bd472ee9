//! Watching workers: a snapshot, a marker, then changes; or, from a revision, only what came after it.

use flotilla_proto::{Refusal, v1};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Api;
use super::watch::{End, Sink, Watch, follow, lost, resume_from, spawn};
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
    Ok(spawn(api, async move |sink| follow(&driver, from, Watcher { driver: driver.clone(), sink }).await))
}

struct Watcher {
    driver: DriverHandle,
    sink: Sink<v1::WatchWorkersResponse>,
}

impl Watch for Watcher {
    type Place = Revision;

    async fn begin(&mut self) -> Result<Revision, End> {
        let look = |view: &View<'_>| (view.fleet.workers().collect::<Vec<_>>(), view.workers.newest());
        let (workers, revision) = self.driver.read(look).await?;
        for worker in workers {
            self.send(Event::Changed(worker), revision).await?;
        }
        Ok(revision)
    }

    async fn catch_up(&mut self, mut at: Revision) -> Result<Revision, End> {
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

    async fn synced(&mut self, at: Revision) -> Result<(), End> {
        self.send(Event::Synced(v1::WatchWorkersSynced {}), at).await
    }
}

impl Watcher {
    async fn send(&self, event: Event, revision: Revision) -> Result<(), End> {
        let message = v1::WatchWorkersResponse { event: Some(event), revision: revision.to_string() };
        self.sink.send(Ok(message)).await.map_err(|_| End::Left)
    }
}
