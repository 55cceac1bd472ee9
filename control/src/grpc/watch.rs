//! Watching environments: a snapshot, a marker, then changes; or, from a revision, only what came after it.
//!
//! A watch pulls: whenever there is something new it asks the driver what was touched since its revision and how that
//! looks now. One that is slow asks less often and is told several changes as one, so nothing piles up for it.

use std::collections::BTreeMap;

use flotilla_proto::{EnvironmentName, FieldViolation, Reason, Refusal, Uid, v1};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Api;
use super::environments::environments_after;
use super::filter::Filter;
use crate::driver::{DriverHandle, Lost, Revision, View};

/// Events that may wait for a slow connection, and environments that are looked at in one go.
const QUEUE: usize = 64;
const LOOK: usize = 512;

type Sink = mpsc::Sender<Result<v1::WatchEnvironmentsResponse, Status>>;
type Event = v1::watch_environments_response::Event;

/// Starts a watch. It ends when the caller leaves, its revision is lost, or control stops.
pub(super) fn start(
    api: &Api,
    request: v1::WatchEnvironmentsRequest,
) -> Result<ReceiverStream<Result<v1::WatchEnvironmentsResponse, Status>>, Refusal> {
    let filter = Filter::parse(request.filter)?;
    let from = match request.resume_from_revision.as_str() {
        "" => None,
        text => Some(Revision::parse(text).ok_or_else(|| {
            let description = "not a revision; take it from a list or an earlier watch";
            FieldViolation::new("resume_from_revision", description)
        })?),
    };
    let (sink, stream) = mpsc::channel(QUEUE);
    let watcher = Watcher {
        driver: api.driver.clone(),
        filter,
        sink: sink.clone(),
        resumed: from.is_some(),
        shown: BTreeMap::new(),
    };
    let stopping = api.stopping.clone();
    api.tasks.spawn(async move {
        let closed = sink.clone();
        let end = tokio::select! {
            () = stopping.cancelled() => End::Refused(Refusal::new(Reason::ShuttingDown, "control is stopping")),
            () = closed.closed() => End::Left,
            end = watcher.run(from) => end,
        };
        match end {
            End::Left => {}
            End::Refused(refusal) => {
                // An error means that the caller has left.
                let _ = sink.send(Err(refusal.into())).await;
            }
        }
    });
    Ok(ReceiverStream::new(stream))
}

/// Why a watch ends.
enum End {
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
    filter: Filter,
    sink: Sink,
    /// It began from a revision, so what the caller has seen before is not known here.
    resumed: bool,
    /// Whether the caller has the environment, as far as this watch told.
    shown: BTreeMap<EnvironmentName, bool>,
}

/// An environment that was touched: what became of it.
struct Look {
    name: EnvironmentName,
    removed: Option<Uid>,
    present: Option<v1::Environment>,
    revision: Revision,
}

impl Watcher {
    async fn run(mut self, from: Option<Revision>) -> End {
        match self.follow(from).await {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn follow(&mut self, from: Option<Revision>) -> Result<std::convert::Infallible, End> {
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
                self.send(Event::Synced(v1::WatchSynced {}), at).await?;
            }
            if newest.changed().await.is_err() {
                return Err(Refusal::new(Reason::ShuttingDown, "control is stopping").into());
            }
        }
    }

    /// Tells what there is, some at a time, so that a large fleet does not hold the driver up. What changes meanwhile
    /// comes after the revision of the first look, so it is told again.
    async fn snapshot(&mut self) -> Result<Revision, End> {
        let (mut begun, mut after) = (None, String::new());
        loop {
            let from = after.clone();
            let look = move |view: &View<'_>| {
                let some: Vec<_> = environments_after(view, &from).take(LOOK).collect();
                (some, view.history.newest())
            };
            let (environments, newest) = self.driver.read(look).await?;
            let revision = *begun.get_or_insert(newest);
            let Some(last) = environments.last().map(|last| last.name.clone()) else {
                return Ok(revision);
            };
            after = last;
            for environment in environments {
                if !self.filter.matches(&environment) {
                    continue;
                }
                if let Ok(name) = environment.name.parse() {
                    self.shown.insert(name, true);
                }
                self.send(Event::Changed(environment), revision).await?;
            }
        }
    }

    /// Tells everything that was touched since `at`. Returns where that leads.
    async fn catch_up(&mut self, mut at: Revision) -> Result<Revision, End> {
        loop {
            let looks = self.driver.read(move |view| look(view, at)).await?.map_err(|Lost| lost())?;
            let Some(last) = looks.last().map(|look| look.revision) else {
                return Ok(at);
            };
            for look in looks {
                self.tell(look).await?;
            }
            at = last;
        }
    }

    async fn tell(&mut self, look: Look) -> Result<(), End> {
        if !self.filter.may_match(&look.name) {
            return Ok(());
        }
        let uid = look.removed.as_ref().map(ToString::to_string);
        let uid = uid.or_else(|| look.present.as_ref().map(|one| one.uid.clone()));
        let present = look.present.filter(|one| self.filter.matches(one));
        let had = self.shown.get(&look.name).copied().unwrap_or(self.resumed);
        if had && (look.removed.is_some() || present.is_none()) {
            let removed = v1::EnvironmentRemoved {
                name: look.name.to_string(),
                uid: uid.unwrap_or_default(),
                gone: look.removed.is_some(),
            };
            self.send(Event::Removed(removed), look.revision).await?;
        }
        if present.is_some() || self.resumed {
            self.shown.insert(look.name, present.is_some());
        } else {
            self.shown.remove(&look.name);
        }
        match present {
            Some(environment) => self.send(Event::Changed(environment), look.revision).await,
            None => Ok(()),
        }
    }

    async fn send(&self, event: Event, revision: Revision) -> Result<(), End> {
        let message = v1::WatchEnvironmentsResponse { event: Some(event), revision: revision.to_string() };
        self.sink.send(Ok(message)).await.map_err(|_| End::Left)
    }
}

fn look(view: &View<'_>, at: Revision) -> Result<Vec<Look>, Lost> {
    let touched = view.history.since(at, LOOK)?;
    let looks = touched.into_iter().map(|one| Look {
        present: view.fleet.environment(&one.environment),
        name: one.environment,
        removed: one.removed,
        revision: one.revision,
    });
    Ok(looks.collect())
}

fn lost() -> Refusal {
    let message =
        "the revision is from before control's start, or too old; list again and watch from that revision";
    Refusal::new(Reason::RevisionCompacted, message)
}
