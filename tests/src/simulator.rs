//! A stand-in for LaunchDarkly's streaming and polling endpoints (FDv1), with many environments told apart by
//! their SDK keys, scripted changes, and faults.
//!
//! [`Simulator`] is a cheap handle: clone it, and call its methods from anywhere; they never wait, except those
//! that start and stop listening. The server ends with the last handle. It lives on the runtime that started
//! it, which should have more than one thread where a test also blocks.

// What is sent.
mod dataset;
/// The text of single events.
pub mod events;
mod generate;
// What goes wrong.
mod fault;
// Who is connected, and the wire.
mod control_api;
mod environment;
mod server;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use dataset::{Dataset, Item, Kind};
pub use environment::Counters;
pub use fault::Fault;
pub use generate::{generated_flag, generated_flags, torture};

use environment::{Ending, Environment};
use fault::PlannedFault;

/// A running simulator.
#[derive(Clone, Debug)]
pub struct Simulator {
    shared: Arc<Shared>,
}

/// What a connection holds, so that connections do not keep the server alive.
#[derive(Clone, Debug)]
struct WeakSimulator(Weak<Shared>);

impl WeakSimulator {
    fn upgrade(&self) -> Option<Simulator> {
        Some(Simulator { shared: self.0.upgrade()? })
    }
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    environments: RwLock<BTreeMap<String, Arc<Environment>>>,
    unknown_keys: AtomicU64,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().expect("no holder of this lock panics").take() {
            task.abort();
        }
    }
}

impl Simulator {
    /// Listens on a free port of the loopback interface.
    pub async fn start() -> io::Result<Self> {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Listens on `address`.
    pub async fn start_on(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let shared = Shared {
            address: listener.local_addr()?,
            environments: RwLock::default(),
            unknown_keys: AtomicU64::new(0),
            accepting: Mutex::default(),
        };
        let simulator = Self { shared: Arc::new(shared) };
        simulator.accept_on(listener);
        Ok(simulator)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// The base URI for streams as well as polls, without a trailing slash.
    pub fn uri(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Stops listening (connects are refused) and cuts every connection; all data stay.
    pub async fn go_away(&self) {
        let task = self.accepting().take();
        if let Some(task) = task {
            task.abort();
            // Cancelled, as it was told: afterwards the listener is closed.
            let _ = task.await;
        }
    }

    /// Listens again, on the same port.
    pub async fn come_back(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.shared.address).await?;
        self.accept_on(listener);
        Ok(())
    }

    #[expect(clippy::disallowed_methods, reason = "the task is held by the handle and ends with it")]
    fn accept_on(&self, listener: TcpListener) {
        let weak = WeakSimulator(Arc::downgrade(&self.shared));
        let previous = self.accepting().replace(tokio::spawn(server::accept(listener, weak)));
        if let Some(previous) = previous {
            previous.abort();
        }
    }

    fn accepting(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.shared.accepting.lock().expect("no holder of this lock panics")
    }

    /// Adds an environment, or replaces the one of this key (its streams end). `environment_id` is what
    /// `X-LD-EnvID` says, if anything. What a payload filter lets through is an environment of its own, with the
    /// key `<SDK key>?filter=<filter>`; an unknown filter is answered as an unknown key: by 401.
    pub fn add_environment(&self, key: &str, environment_id: Option<&str>, data: impl Into<Arc<Dataset>>) {
        let environment = Environment::new(environment_id.map(str::to_owned), data.into());
        let mut environments = self.shared.environments.write().expect("no holder of this lock panics");
        let replaced = environments.insert(key.to_owned(), Arc::new(environment));
        drop(environments);
        if let Some(replaced) = replaced {
            replaced.end_streams(Ending::Clean);
        }
    }

    /// Revokes a key: its streams end and it is answered by 401.
    pub fn remove_environment(&self, key: &str) {
        let removed = self.shared.environments.write().expect("no holder of this lock panics").remove(key);
        if let Some(removed) = removed {
            removed.end_streams(Ending::Clean);
        }
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<String> {
        self.shared.environments.read().expect("no holder of this lock panics").keys().cloned().collect()
    }

    /// Changes what `X-LD-EnvID` says from the next connection on.
    pub fn set_environment_id(&self, key: &str, environment_id: Option<&str>) {
        self.environment(key).set_id(environment_id.map(str::to_owned));
    }

    /// The data as they are now.
    pub fn data(&self, key: &str) -> Arc<Dataset> {
        self.environment(key).data()
    }

    /// Changes the data and tells nobody: the next connection, poll or [`Simulator::put`] shows them.
    pub fn set_data(&self, key: &str, data: impl Into<Arc<Dataset>>) {
        self.environment(key).set_data(data.into());
    }

    /// Adds or replaces an item, whatever its version, and sends the `patch`.
    pub fn patch(&self, key: &str, kind: Kind, item: Item) {
        self.environment(key).patch(kind, item);
    }

    /// Takes an item out and sends the `delete`.
    pub fn delete(&self, key: &str, kind: Kind, item_key: &str, version: u64) {
        self.environment(key).delete(kind, item_key, version);
    }

    /// Sends the whole data again on every open stream.
    pub fn put(&self, key: &str) {
        self.environment(key).put();
    }

    /// Sends this text as it stands on every open stream; the data do not change. [`events`] makes the text of
    /// proper events.
    pub fn send_raw(&self, key: &str, text: impl Into<Bytes>) {
        self.environment(key).send(&text.into());
    }

    /// Ends the open streams of a key as complete answers.
    pub fn close_streams(&self, key: &str) {
        self.environment(key).end_streams(Ending::Clean);
    }

    /// Breaks the open streams of a key off.
    pub fn cut_streams(&self, key: &str) {
        self.environment(key).end_streams(Ending::Cut);
    }

    /// Ends all open streams as complete answers.
    pub fn close_all_streams(&self) {
        for environment in self.all() {
            environment.end_streams(Ending::Clean);
        }
    }

    /// Answers requests for this key by the fault, until it is cleared.
    pub fn set_fault(&self, key: &str, fault: Fault) {
        self.environment(key).set_fault(Some(PlannedFault { fault, remaining: None }));
    }

    /// Answers the next `times` requests for this key by the fault.
    pub fn set_fault_times(&self, key: &str, times: u32, fault: Fault) {
        self.environment(key).set_fault(Some(PlannedFault { fault, remaining: Some(times) }));
    }

    /// Answers requests for this key as usual again.
    pub fn clear_fault(&self, key: &str) {
        self.environment(key).set_fault(None);
    }

    /// Sends a comment on streams that were quiet for this long; at first there are none.
    pub fn set_heartbeat(&self, key: &str, period: Duration) {
        self.environment(key).set_heartbeat(Some(period));
    }

    /// Lets open streams fall silent without closing them: changes are made, and sent to nobody.
    pub fn mute(&self, key: &str) {
        self.environment(key).set_muted(true);
    }

    /// Sends what happens from now on again; what was missed stays missed.
    pub fn unmute(&self, key: &str) {
        self.environment(key).set_muted(false);
    }

    /// What happened to one environment.
    pub fn counters(&self, key: &str) -> Counters {
        self.environment(key).counters()
    }

    /// The sum over all environments; the headers are left out, and the peak is the sum of peaks.
    pub fn total_counters(&self) -> Counters {
        let mut total = Counters::default();
        for one in self.all().iter().map(|environment| environment.counters()) {
            total.stream_connections += one.stream_connections;
            total.streams_open += one.streams_open;
            total.streams_open_peak += one.streams_open_peak;
            total.polls += one.polls;
            total.polls_not_modified += one.polls_not_modified;
            total.faults += one.faults;
            total.overflows += one.overflows;
            total.bytes_sent += one.bytes_sent;
        }
        total
    }

    /// Requests whose key, or filter, belongs to no environment.
    pub fn unknown_keys(&self) -> u64 {
        self.shared.unknown_keys.load(Ordering::Relaxed)
    }

    fn count_unknown_key(&self) {
        self.shared.unknown_keys.fetch_add(1, Ordering::Relaxed);
    }

    fn find(&self, key: &str) -> Option<Arc<Environment>> {
        self.shared.environments.read().expect("no holder of this lock panics").get(key).cloned()
    }

    /// # Panics
    /// When there is no such environment: a mistake in the test.
    fn environment(&self, key: &str) -> Arc<Environment> {
        self.find(key).unwrap_or_else(|| panic!("the simulator has no environment of the key {key}"))
    }

    fn all(&self) -> Vec<Arc<Environment>> {
        self.shared.environments.read().expect("no holder of this lock panics").values().cloned().collect()
    }
}

#[cfg(test)]
mod tests;
