//! A scripted LaunchDarkly: what is true, the edges that serve it, some of them behind, and the streams of the workers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_worker::dataset::ItemId;
use flotilla_worker::launchdarkly::{LaunchDarklySettings, Proof, SourceSettings, Sources};
use flotilla_worker::source::{
    FullPayload, ItemSpan, Kind, NobodyListens, SourceEvent, SourceEvents, SourceFailure, SourceHandle,
};
use futures_util::future::BoxFuture;

use crate::dice::Dice;
use crate::store::Link;
use crate::world::{Shared, World};

/// Edges of LaunchDarkly.
pub(crate) const EDGES: usize = 3;
/// How often a stream looks for news, and a worker whose connect hangs gives up.
const LOOK: Duration = Duration::from_millis(10);
const CONNECT: Duration = Duration::from_secs(5);

/// The items of an environment: version and text.
pub(crate) type Items = BTreeMap<ItemId, (u64, Arc<[u8]>)>;

/// One LaunchDarkly environment.
#[derive(Debug, Clone)]
pub(crate) struct Environment {
    id: String,
    log: Vec<Change>,
    versions: BTreeMap<ItemId, u64>,
    /// How much of the log each edge has.
    edges: [usize; EDGES],
    /// Its key is refused.
    pub(crate) is_refused: bool,
    /// How often it was put again to those who are connected.
    pub(crate) puts: u64,
    /// What makes its bodies as large as they are.
    padding: String,
}

#[derive(Debug, Clone)]
struct Change {
    item: ItemId,
    version: u64,
    /// `None`: it was deleted.
    body: Option<Arc<[u8]>>,
}

/// What was handed to a worker.
#[derive(Debug, Clone, Hash)]
pub(crate) struct Delivered {
    pub(crate) at: u64,
    pub(crate) worker: usize,
    /// Which run of the worker.
    pub(crate) run: u64,
    /// The SDK key.
    pub(crate) key: String,
    pub(crate) said: Said,
}

/// What LaunchDarkly said.
#[derive(Debug, Clone, Hash)]
pub(crate) enum Said {
    /// Everything there is on an edge that has so much of the log, to begin with.
    Payload { position: usize },
    /// The same, to one who is connected.
    PutAgain { position: usize },
    /// One item.
    Item { item: ItemId, version: u64, deleted: bool },
}

impl Environment {
    pub(crate) fn new(number: usize, dice: &mut Dice) -> Self {
        // Together those of a large one are too much for one script.
        let padding = if dice.one_in(4) { "x".repeat(90_000) } else { String::new() };
        let mut environment = Self {
            id: format!("{number:024x}"),
            log: Vec::new(),
            versions: BTreeMap::new(),
            edges: [0; EDGES],
            is_refused: false,
            puts: 0,
            padding,
        };
        for flag in 0..dice.of(2..6) {
            environment.put(Kind::Flag, &format!("flag-{flag}"));
        }
        environment.put(Kind::Segment, "segment-0");
        environment.edges = [environment.log.len(); EDGES];
        environment
    }

    pub(crate) fn put(&mut self, kind: Kind, key: &str) {
        let item = ItemId { kind, key: key.into() };
        let version = self.versions.entry(item.clone()).or_default();
        *version += 1;
        let Self { id, padding, .. } = self;
        let body = format!(r#"{{"key":"{key}","version":{version},"of":"{id}","padding":"{padding}"}}"#);
        self.log.push(Change { item, version: *version, body: Some(body.into_bytes().into()) });
    }

    fn delete(&mut self, item: ItemId) {
        let version = self.versions.entry(item.clone()).or_default();
        *version += 1;
        self.log.push(Change { item, version: *version, body: None });
    }

    /// Something changes: an item is patched, added or deleted. The first flag is never deleted.
    pub(crate) fn change(&mut self, dice: &mut Dice) {
        let items = self.state(self.log.len());
        let kind = if dice.one_in(4) { Kind::Segment } else { Kind::Flag };
        match dice.of(0..6) {
            0 => self.put(kind, &format!("new-{}", dice.of(0..6))),
            1 => {
                let gone = items.keys().filter(|item| &*item.key != "flag-0").nth(1).cloned();
                if let Some(item) = gone {
                    self.delete(item);
                }
            }
            _ => {
                let items: Vec<_> = items.into_keys().collect();
                let item = dice.pick(&items).clone();
                self.put(item.kind, &item.key);
            }
        }
    }

    /// What an edge that has so much of the log serves.
    pub(crate) fn state(&self, position: usize) -> Items {
        let mut items = Items::new();
        for change in &self.log[..position] {
            match &change.body {
                Some(body) => {
                    items.insert(change.item.clone(), (change.version, Arc::clone(body)));
                }
                None => {
                    items.remove(&change.item);
                }
            }
        }
        items
    }

    /// LaunchDarkly's id of it.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Whether an item has ever had this text.
    pub(crate) fn had(&self, item: &ItemId, body: &[u8]) -> bool {
        self.log.iter().any(|change| change.item == *item && change.body.as_deref() == Some(body))
    }

    /// What is true.
    pub(crate) fn truth(&self) -> Items {
        self.state(self.log.len())
    }

    /// The version of an item, if it is there, on an edge that has so much of the log.
    pub(crate) fn version(&self, position: usize, item: &ItemId) -> Option<u64> {
        let last = self.log[..position].iter().rev().find(|change| change.item == *item)?;
        last.body.as_ref().map(|_| last.version)
    }

    /// Whether the log, up to there, has a deletion of the item after this version of it.
    pub(crate) fn deleted_after(&self, position: usize, item: &ItemId, version: u64) -> bool {
        let of_item = |change: &&Change| change.item == *item && change.version > version;
        self.log[..position].iter().filter(of_item).any(|change| change.body.is_none())
    }

    /// Edges that are not behind by the script have everything.
    pub(crate) fn catch_up(&mut self, behind: [bool; EDGES]) {
        for (edge, behind) in self.edges.iter_mut().zip(behind) {
            if !behind {
                *edge = self.log.len();
            }
        }
    }
}

fn payload(items: &Items) -> FullPayload {
    let mut text = Vec::new();
    let mut spans = Vec::new();
    for (item, (version, body)) in items {
        let start = text.len();
        text.extend_from_slice(body);
        spans.push(ItemSpan {
            kind: item.kind,
            key: (&*item.key).into(),
            body: start..text.len(),
            version: *version,
            deleted: false,
        });
    }
    FullPayload::new(text.into(), spans, Vec::new())
}

/// LaunchDarkly, as one worker reaches it.
pub(crate) struct WorkerSources {
    pub(crate) world: Shared,
    pub(crate) worker: usize,
    /// Which run of the worker.
    pub(crate) run: u64,
}

impl fmt::Debug for WorkerSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerSources").field("worker", &self.worker).finish_non_exhaustive()
    }
}

impl Sources for WorkerSources {
    #[expect(clippy::disallowed_methods, reason = "the handle owns the task and ends it")]
    fn start(self: Arc<Self>, settings: SourceSettings, events: SourceEvents) -> SourceHandle {
        let key = match settings {
            SourceSettings::LaunchDarkly(settings) => settings.key.expose().to_owned(),
            SourceSettings::File { .. } => unreachable!("simulated workers have no files"),
        };
        SourceHandle::new(tokio::spawn(async move {
            // An error means that nobody listens.
            let _ = run(&self, &key, &events).await;
        }))
    }

    fn prove_key(
        self: Arc<Self>,
        _settings: LaunchDarklySettings,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<Proof, SourceFailure>> {
        Box::pin(async { Err(SourceFailure::Network { message: "not simulated".to_owned() }) })
    }

    fn fetch(
        self: Arc<Self>,
        _settings: LaunchDarklySettings,
        _deadline: Duration,
    ) -> BoxFuture<'static, Result<FullPayload, SourceFailure>> {
        Box::pin(async { Err(SourceFailure::Network { message: "not simulated".to_owned() }) })
    }
}

async fn run(here: &WorkerSources, key: &str, events: &SourceEvents) -> Result<(), NobodyListens> {
    let mut delay = 200;
    loop {
        if let Some(followed) = connect(here, key, events, &mut delay).await? {
            follow(here, key, events, followed).await?;
        }
        let retry_in = Duration::from_millis(delay);
        let failure = SourceFailure::Network { message: "the stream is gone".to_owned() };
        events.send(SourceEvent::Interrupted { failure, retry_in }).await?;
        tokio::time::sleep(retry_in).await;
        delay = (delay * 2).min(2000);
    }
}

/// A stream that is being followed.
struct Followed {
    edge: usize,
    /// How much of the log the worker was told.
    position: usize,
    /// How often streams had been cut when it began.
    cuts: u64,
    /// How often everything had been put again.
    puts: u64,
}

/// Connects to an edge, and hands its payload over.
async fn connect(
    here: &WorkerSources,
    key: &str,
    events: &SourceEvents,
    delay: &mut u64,
) -> Result<Option<Followed>, NobodyListens> {
    let latency = here.world.lock().unwrap().dice.of(2..40);
    tokio::time::sleep(Duration::from_millis(latency)).await;
    let link = here.world.lock().unwrap().links[here.worker].source;
    match link {
        Link::Up => {}
        Link::Refused => return Ok(None),
        Link::Mute | Link::Deaf | Link::Held => {
            tokio::time::sleep(CONNECT).await;
            return Ok(None);
        }
    }
    let found = here.world.lock().unwrap().open_stream(here, key);
    let Some((followed, id, items)) = found else {
        let failure = SourceFailure::Auth { status: 401 };
        events.send(SourceEvent::Interrupted { failure, retry_in: CONNECT }).await?;
        tokio::time::sleep(CONNECT).await;
        return Ok(None);
    };
    *delay = 200;
    events.send(SourceEvent::Connected { environment_id: Some(id.into()) }).await?;
    events.send(SourceEvent::Payload(payload(&items))).await?;
    Ok(Some(followed))
}

/// Tells of everything that the edge learns, until the stream is cut.
async fn follow(
    here: &WorkerSources,
    key: &str,
    events: &SourceEvents,
    mut followed: Followed,
) -> Result<(), NobodyListens> {
    loop {
        tokio::time::sleep(LOOK).await;
        let news = {
            let mut world = here.world.lock().unwrap();
            let links = &world.links[here.worker];
            if links.cuts != followed.cuts || links.source == Link::Refused {
                return Ok(());
            }
            if links.source != Link::Up {
                continue;
            }
            let Some(environment) = world.environments.get(key) else { return Ok(()) };
            let Followed { edge, position, puts, .. } = followed;
            let end = environment.edges[edge].max(position);
            if environment.puts == puts {
                let news = environment.log[position..end].to_vec();
                world.tell(here, key, &news);
                followed.position = end;
                Ok(news)
            } else {
                let (puts, items) = (environment.puts, environment.state(end));
                world.tell_all(here, key, Said::PutAgain { position: end });
                followed = Followed { position: end, puts, ..followed };
                Err(items)
            }
        };
        let news = match news {
            Ok(news) => news,
            Err(items) => {
                events.send(SourceEvent::Payload(payload(&items))).await?;
                continue;
            }
        };
        for Change { item: ItemId { kind, key }, version, body } in news {
            let key = (&*key).into();
            events
                .send(match body {
                    Some(body) => SourceEvent::Patch {
                        kind,
                        key,
                        body: Bytes::copy_from_slice(&body),
                        version,
                        deleted: false,
                    },
                    None => SourceEvent::Delete { kind, key, version },
                })
                .await?;
        }
    }
}

impl World {
    fn tell(&mut self, here: &WorkerSources, key: &str, news: &[Change]) {
        let WorkerSources { worker, run, .. } = *here;
        for Change { item, version, body } in news {
            let said = Said::Item { item: item.clone(), version: *version, deleted: body.is_none() };
            self.delivered.push(Delivered { at: self.now, worker, run, key: key.to_owned(), said });
        }
    }

    fn tell_all(&mut self, here: &WorkerSources, key: &str, said: Said) {
        let WorkerSources { worker, run, .. } = *here;
        self.delivered.push(Delivered { at: self.now, worker, run, key: key.to_owned(), said });
    }

    fn open_stream(&mut self, here: &WorkerSources, key: &str) -> Option<(Followed, String, Items)> {
        let edge = usize::try_from(self.dice.of(0..EDGES as u64)).unwrap();
        let environment = self.environments.get(key).filter(|environment| !environment.is_refused)?;
        let (position, puts) = (environment.edges[edge], environment.puts);
        let (id, items) = (environment.id.clone(), environment.state(position));
        self.tell_all(here, key, Said::Payload { position });
        let cuts = self.links[here.worker].cuts;
        Some((Followed { edge, position, cuts, puts }, id, items))
    }
}
