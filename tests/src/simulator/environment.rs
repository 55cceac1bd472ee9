//! One environment behind one SDK key: its data, its open streams, its fault and its counters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;

use super::dataset::{Dataset, Item, Kind};
use super::events;
use super::fault::{Fault, PlannedFault};
use super::stream::Piece;

/// Events that may wait for one slow connection before it is cut, as LaunchDarkly would.
const STREAM_BACKLOG: usize = 16_384;

/// What happened to one environment since it was added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Streams that were accepted and got, or began to get, a payload.
    pub stream_connections: u64,
    /// Those of them that are open now.
    pub streams_open: u64,
    /// The most that were ever open at once.
    pub streams_open_peak: u64,
    /// Polling requests that were answered, 304 included.
    pub polls: u64,
    /// Polling requests answered by 304.
    pub polls_not_modified: u64,
    /// Requests of either kind that met a fault.
    pub faults: u64,
    /// Streams cut because their reader was too slow.
    pub overflows: u64,
    /// Body bytes handed to connections, of streams and polls.
    pub bytes_sent: u64,
    /// Headers of the last request, names in lower case.
    pub last_request: BTreeMap<String, String>,
}

/// How an open stream ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// As a complete HTTP answer.
    Clean,
    /// In the middle of one.
    Cut,
}

#[derive(Debug)]
pub(super) struct Environment {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    id: Option<String>,
    data: Arc<Dataset>,
    streams: Vec<mpsc::Sender<Piece>>,
    fault: Option<PlannedFault>,
    heartbeat: Option<Duration>,
    muted: bool,
    counters: Counters,
}

impl Environment {
    pub(super) fn new(id: Option<String>, data: Arc<Dataset>) -> Self {
        let state = State {
            id,
            data,
            streams: Vec::new(),
            fault: None,
            heartbeat: None,
            muted: false,
            counters: Counters::default(),
        };
        Self { state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(super) fn id(&self) -> Option<String> {
        self.state().id.clone()
    }

    pub(super) fn set_id(&self, id: Option<String>) {
        self.state().id = id;
    }

    pub(super) fn data(&self) -> Arc<Dataset> {
        Arc::clone(&self.state().data)
    }

    pub(super) fn set_data(&self, data: Arc<Dataset>) {
        self.state().data = data;
    }

    pub(super) fn patch(&self, kind: Kind, item: Item) {
        let event = events::patch(kind, &item);
        let mut state = self.state();
        state.change(|data| data.insert(kind, item));
        state.send(&event);
    }

    pub(super) fn delete(&self, kind: Kind, key: &str, version: u64) {
        let mut state = self.state();
        state.change(|data| data.remove(kind, key));
        state.send(&events::delete(kind, key, version));
    }

    pub(super) fn put(&self) {
        let mut state = self.state();
        let event = state.data.put_event();
        state.send(&event);
    }

    pub(super) fn send(&self, text: &Bytes) {
        self.state().send(text);
    }

    pub(super) fn end_streams(&self, ending: Ending) {
        for stream in self.state().streams.drain(..) {
            match ending {
                // The sender is dropped: what was sent before still arrives, then the body ends.
                Ending::Clean => drop(stream),
                // A full queue ends the stream by the drop that follows.
                Ending::Cut => drop(stream.try_send(Piece::Cut)),
            }
        }
    }

    pub(super) fn set_fault(&self, fault: Option<PlannedFault>) {
        self.state().fault = fault;
    }

    pub(super) fn set_heartbeat(&self, period: Option<Duration>) {
        let mut state = self.state();
        state.heartbeat = period;
        // One at once: it also wakes the streams, which then wait by the new period.
        state.send(&events::HEARTBEAT);
    }

    pub(super) fn heartbeat(&self) -> Option<Duration> {
        let state = self.state();
        if state.muted { None } else { state.heartbeat }
    }

    pub(super) fn set_muted(&self, muted: bool) {
        self.state().muted = muted;
    }

    pub(super) fn counters(&self) -> Counters {
        self.state().counters.clone()
    }

    /// Notes a request and says which fault it meets.
    pub(super) fn request(&self, headers: BTreeMap<String, String>) -> Option<Fault> {
        let mut state = self.state();
        state.counters.last_request = headers;
        let planned = state.fault.as_mut()?;
        match &mut planned.remaining {
            None => {}
            Some(0) => return None,
            Some(remaining) => *remaining -= 1,
        }
        let fault = planned.fault.clone();
        state.counters.faults += 1;
        Some(fault)
    }

    /// Opens a stream: the payload that it starts with, and the queue of what follows. Both are taken under
    /// one lock, so that no event is missed or sent twice.
    pub(super) fn open_stream(&self) -> (Bytes, mpsc::Receiver<Piece>) {
        let (sender, receiver) = mpsc::channel(STREAM_BACKLOG);
        let mut state = self.state();
        state.streams.retain(|stream| !stream.is_closed());
        state.streams.push(sender);
        state.counters.stream_connections += 1;
        state.counters.streams_open += 1;
        state.counters.streams_open_peak = state.counters.streams_open_peak.max(state.counters.streams_open);
        (state.data.put_event(), receiver)
    }

    pub(super) fn stream_ended(&self) {
        self.state().counters.streams_open -= 1;
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.state().counters.bytes_sent += u64::try_from(bytes).expect("a length fits 64 bits");
    }

    /// Answers a poll: the data and their ETag, or `None` where `known` is that ETag.
    pub(super) fn poll(&self, known: Option<&str>) -> (Option<Arc<Dataset>>, String) {
        let mut state = self.state();
        let etag = state.data.etag();
        state.counters.polls += 1;
        let unchanged =
            known.is_some_and(|list| list.split(',').any(|one| one.trim().trim_start_matches("W/") == etag));
        if unchanged {
            state.counters.polls_not_modified += 1;
            return (None, etag);
        }
        (Some(Arc::clone(&state.data)), etag)
    }
}

impl State {
    fn change(&mut self, change: impl FnOnce(&mut Dataset)) {
        change(Arc::make_mut(&mut self.data));
    }

    fn send(&mut self, text: &Bytes) {
        if self.muted {
            return;
        }
        let overflows = &mut self.counters.overflows;
        self.streams.retain(|stream| match stream.try_send(Piece::Text(text.clone())) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                *overflows += 1;
                false
            }
        });
    }
}
