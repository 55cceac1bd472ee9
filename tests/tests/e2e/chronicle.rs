//! What control tells while something goes on: every state of every environment, and every event.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::v1::fleet_service_client::FleetServiceClient;
use flotilla_proto::v1::watch_environments_response::Event as Change;
use flotilla_proto::v1::{
    Event, EventType, Initialization, ListEventsRequest, WatchEnvironmentsRequest, WatchEnvironmentsResponse,
};
use flotilla_tests::harness::{Fleet, wait_until};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::population::{describe, environments_api, find_workers, fleet_api, status};

/// The largest page of events.
const PAGE_SIZE: u32 = 1000;

/// The events after one place in the order of all.
#[derive(Clone, Debug)]
pub(crate) struct Events {
    api: FleetServiceClient<Channel>,
    after: String,
}

impl Events {
    /// What happens from now on.
    pub(crate) async fn from_now(fleet: &Fleet) -> Self {
        let mut api = fleet_api(fleet);
        let request = ListEventsRequest { page_size: 1, ..ListEventsRequest::default() };
        let after = api.list_events(request).await.unwrap().into_inner().revision;
        Self { api, after }
    }

    /// What happened so far, oldest first.
    pub(crate) async fn told(&self) -> Result<Vec<Event>, String> {
        let (mut api, mut events, mut page_token) = (self.api.clone(), Vec::new(), String::new());
        loop {
            let request = ListEventsRequest { page_size: PAGE_SIZE, page_token, filter: None };
            let page = api.list_events(request).await.map_err(|status| status.to_string())?.into_inner();
            for event in page.events {
                if event.revision == self.after {
                    events.reverse();
                    return Ok(events);
                }
                events.push(event);
            }
            page_token = page.next_page_token;
            assert!(!page_token.is_empty(), "{} is no longer among the events", self.after);
        }
    }

    /// Those of a type.
    pub(crate) async fn of(&self, kind: EventType) -> Vec<Event> {
        self.told().await.unwrap().into_iter().filter(|event| event.r#type() == kind).collect()
    }

    /// Waits until `count` events of a type were told that are as wanted, and returns the first of them.
    pub(crate) async fn wait_for(
        &self,
        kind: EventType,
        count: usize,
        bound: Duration,
        is_wanted: impl Fn(&Event) -> bool,
    ) -> Event {
        wait_until(&format!("{count} events are {kind:?}"), bound, async || {
            let told = self.told().await?;
            let wanted = || told.iter().filter(|event| event.r#type() == kind && is_wanted(event));
            if wanted().count() >= count { Ok(wanted().next().unwrap().clone()) } else { Err(sentences(&told)) }
        })
        .await
    }
}

/// Events for the message of a failure.
pub(crate) fn sentences(events: &[Event]) -> String {
    let sentence = |event: &Event| format!("\n{} {}: {}", event.environment, event.worker, event.message);
    events.iter().map(sentence).collect()
}

/// A watch of all environments, from when all were current.
#[derive(Debug)]
pub(crate) struct Chronicle {
    events: Events,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Vec<String>>,
}

impl Chronicle {
    #[expect(clippy::disallowed_methods, reason = "the chronicle owns the task and waits for its end")]
    pub(crate) async fn start(fleet: &Fleet) -> Self {
        let events = Events::from_now(fleet).await;
        let watch = environments_api(fleet).watch_environments(WatchEnvironmentsRequest::default()).await;
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(not_current(watch.unwrap().into_inner(), stopped));
        Self { events, stop, task }
    }

    /// The events since the start.
    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    /// Ends the watch, and asserts that no environment was ever told to be anything but current.
    pub(crate) async fn assert_always_current(self) {
        self.stop.send(()).expect("the watch went on");
        let seen = self.task.await.unwrap();
        assert!(seen.is_empty(), "{} times something was not current, at first {}", seen.len(), seen[0]);
        let changed = self.events.of(EventType::InitializationChanged).await;
        assert!(changed.is_empty(), "{}", sentences(&changed));
    }
}

/// Everything that was told and is not current.
async fn not_current(
    mut stream: Streaming<WatchEnvironmentsResponse>,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let message = tokio::select! {
            message = stream.message() => message.unwrap().expect("the watch goes on"),
            _ = &mut stopped => return seen,
        };
        match message.event.unwrap() {
            Change::Changed(one) if status(&one).initialization() == Initialization::Current => {}
            Change::Changed(one) => seen.push(describe(&one)),
            Change::Removed(one) => seen.push(format!("{} was removed", one.name)),
            Change::Synced(_) => {}
        }
    }
}

/// Waits until each worker has so many environments, and none is on its way.
pub(crate) async fn wait_until_shared(fleet: &Fleet, wanted: &[(&str, u32)], bound: Duration) {
    let wanted: BTreeMap<String, (u32, u32)> =
        wanted.iter().map(|&(name, count)| (name.to_owned(), (count, 0))).collect();
    wait_until(&format!("the environments are shared as {wanted:?}"), bound, async || {
        let workers = find_workers(fleet).await?;
        let found: BTreeMap<String, (u32, u32)> =
            workers.into_iter().map(|one| (one.name, (one.environments, one.standby))).collect();
        if found == wanted { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}
