//! Watching environments: a snapshot, a marker, then changes; or, from a revision, only what came after it.
//!
//! A watch pulls: whenever there is something new it asks the driver what was touched since its revision and how that
//! looks now. One that is slow asks less often and is told several changes as one, so nothing piles up for it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use flotilla_proto::{EnvironmentName, FieldViolation, Reason, Refusal, Uid, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Api;
use super::filter::Filter;
use crate::driver::{DriverHandle, Lost, Revision, View};

/// Events that may wait for a slow connection, and environments that are looked at in one go.
const QUEUE: usize = 64;
const LOOK: usize = 512;

/// Where the messages of a watch go.
pub(super) type Sink<T> = mpsc::Sender<Result<T, Status>>;
type Event = v1::watch_environments_response::Event;

/// Starts a watch. It ends when the caller leaves, its revision is lost, or control stops.
pub(super) fn start(
    api: &Api,
    request: v1::WatchEnvironmentsRequest,
) -> Result<ReceiverStream<Result<v1::WatchEnvironmentsResponse, Status>>, Refusal> {
    let filter = Filter::parse(request.filter)?;
    let from = resume_from(&request.resume_from_revision)?;
    let driver = api.driver.clone();
    Ok(spawn(api, async move |sink| {
        let filter = Arc::new(filter);
        let resumed = from.is_some();
        let watcher = Watcher { driver: driver.clone(), filter, sink, resumed, shown: BTreeMap::new() };
        follow(&driver, from, watcher).await
    }))
}

/// Runs a watch until it ends, its caller leaves, or control stops.
pub(super) fn spawn<T: Send + 'static, F: Future<Output = End> + Send + 'static>(
    api: &Api,
    watch: impl FnOnce(Sink<T>) -> F + Send + 'static,
) -> ReceiverStream<Result<T, Status>> {
    let (sink, stream) = mpsc::channel(QUEUE);
    let stopping = api.stopping.clone();
    api.tasks.spawn(async move {
        let end = tokio::select! {
            biased;
            () = stopping.cancelled() => End::Refused(Refusal::new(Reason::ShuttingDown, "control is stopping")),
            () = sink.closed() => End::Left,
            end = watch(sink.clone()) => end,
        };
        match end {
            End::Left => {}
            End::Refused(refusal) => {
                // An error means that the caller has left.
                let _ = sink.send(Err(refusal.into())).await;
            }
        }
    });
    ReceiverStream::new(stream)
}

/// One watch: how it begins, and goes on.
pub(super) trait Watch: Send {
    /// Where it is.
    type Place: Copy + Send;

    /// Tells what there is. Returns the place that this is of.
    fn begin(&mut self) -> impl Future<Output = Result<Self::Place, End>> + Send;
    /// Tells everything that came after a place. Returns where that leads.
    fn catch_up(&mut self, at: Self::Place) -> impl Future<Output = Result<Self::Place, End>> + Send;
    /// Tells, once, that everything up to a place was told.
    fn synced(&mut self, at: Self::Place) -> impl Future<Output = Result<(), End>> + Send;
}

/// Follows a watch from a place, or from its beginning, until it ends.
pub(super) async fn follow<W: Watch>(driver: &DriverHandle, from: Option<W::Place>, mut watch: W) -> End {
    let mut newest = driver.newest();
    let told = async {
        let mut at = match from {
            Some(place) => place,
            None => watch.begin().await?,
        };
        let mut synced = false;
        loop {
            newest.borrow_and_update();
            at = watch.catch_up(at).await?;
            if !std::mem::replace(&mut synced, true) {
                watch.synced(at).await?;
            }
            if newest.changed().await.is_err() {
                return Err::<Infallible, End>(Refusal::new(Reason::ShuttingDown, "control is stopping").into());
            }
        }
    };
    match told.await {
        Ok(never) => match never {},
        Err(end) => end,
    }
}

/// Reads the revision that a caller wants to resume from; empty: none.
pub(super) fn resume_from(text: &str) -> Result<Option<Revision>, Refusal> {
    match text {
        "" => Ok(None),
        text => Revision::parse(text).map(Some).ok_or_else(|| {
            let description = "not a revision; take it from a list or an earlier watch";
            FieldViolation::new("resume_from_revision", description).into()
        }),
    }
}

/// Why a watch ends.
pub(super) enum End {
    /// The caller is no longer there.
    Left,
    /// It is told why.
    Refused(Refusal),
}

impl From<Refusal> for End {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

struct Watcher {
    driver: DriverHandle,
    filter: Arc<Filter>,
    sink: Sink<v1::WatchEnvironmentsResponse>,
    /// It began from a revision, so what the caller has seen before is not known here.
    resumed: bool,
    /// Whether the caller has the environment, as far as this watch told.
    shown: BTreeMap<EnvironmentName, bool>,
}

/// An environment that was touched: what became of it.
struct Look {
    name: EnvironmentName,
    /// Of the last one that was removed, else of the present one, whether it matches or not.
    uid: Option<Uid>,
    /// Whether one of the name was removed, be there another one now or not.
    gone: bool,
    /// Whether there is one now.
    exists: bool,
    /// The present one, if it matches.
    matching: Option<v1::Environment>,
    revision: Revision,
}

impl Watch for Watcher {
    type Place = Revision;

    /// Tells what there is, some at a time, so that a large fleet does not hold the driver up. What changes meanwhile
    /// comes after the revision of the first look, so it is told again.
    async fn begin(&mut self) -> Result<Revision, End> {
        let (mut begun, mut after) = (None, None);
        loop {
            let (from, filter) = (after.take(), Arc::clone(&self.filter));
            let look = move |view: &View<'_>| {
                let matching = view.fleet.glances_after(from.as_ref()).filter(|one| filter.matches(*one));
                let some: Vec<_> = matching.take(LOOK).map(|one| (one.name().clone(), one.show())).collect();
                (some, view.history.newest())
            };
            let (environments, newest) = self.driver.read(look).await?;
            let revision = *begun.get_or_insert(newest);
            if environments.is_empty() {
                return Ok(revision);
            }
            for (name, environment) in environments {
                self.shown.insert(name.clone(), true);
                after = Some(name);
                self.send(Event::Changed(environment), revision).await?;
            }
        }
    }

    /// Tells everything that was touched since `at`. Returns where that leads.
    async fn catch_up(&mut self, mut at: Revision) -> Result<Revision, End> {
        loop {
            let filter = Arc::clone(&self.filter);
            let looks = self.driver.read(move |view| look(view, &filter, at)).await?.map_err(|Lost| lost())?;
            if looks.is_empty() {
                return Ok(at);
            }
            for look in looks {
                let before = std::mem::replace(&mut at, look.revision);
                self.tell(look, before).await?;
            }
        }
    }

    async fn synced(&mut self, at: Revision) -> Result<(), End> {
        self.send(Event::Synced(v1::WatchSynced {}), at).await
    }
}

impl Watcher {
    /// Tells what became of an environment since `before`.
    async fn tell(&mut self, look: Look, before: Revision) -> Result<(), End> {
        if !self.filter.may_match(&look.name) {
            return Ok(());
        }
        let had = self.shown.get(&look.name).copied().unwrap_or(self.resumed);
        if had && (look.gone || look.matching.is_none()) {
            let removed = v1::EnvironmentRemoved {
                name: look.name.to_string(),
                uid: look.uid.map(|uid| uid.to_string()).unwrap_or_default(),
                gone: look.gone,
            };
            // Where another one follows, a caller that resumes from here is told of both again.
            let revision = if look.matching.is_some() { before } else { look.revision };
            self.send(Event::Removed(removed), revision).await?;
        }
        // Only of those that exist something is kept: a caller that is told twice that one is no more is not misled.
        if look.matching.is_some() || (self.resumed && look.exists) {
            self.shown.insert(look.name, look.matching.is_some());
        } else {
            self.shown.remove(&look.name);
        }
        match look.matching {
            Some(environment) => self.send(Event::Changed(environment), look.revision).await,
            None => Ok(()),
        }
    }

    async fn send(&self, event: Event, revision: Revision) -> Result<(), End> {
        let message = v1::WatchEnvironmentsResponse { event: Some(event), revision: revision.to_string() };
        self.sink.send(Ok(message)).await.map_err(|_| End::Left)
    }
}

fn look(view: &View<'_>, filter: &Filter, at: Revision) -> Result<Vec<Look>, Lost> {
    let touched = view.history.since(at, LOOK)?;
    let looks = touched.into_iter().map(|one| {
        let present = view.fleet.glance(&one.name);
        Look {
            gone: one.removed.is_some(),
            uid: one.removed.or_else(|| present.map(|present| present.uid().clone())),
            exists: present.is_some(),
            matching: present.filter(|present| filter.matches(*present)).map(|present| present.show()),
            name: one.name,
            revision: one.revision,
        }
    });
    Ok(looks.collect())
}

/// The revision is not known here any more.
pub(super) fn lost() -> Refusal {
    let message =
        "the revision is from before control's start, or too old; list again and watch from that revision";
    Refusal::new(Reason::RevisionCompacted, message)
}
