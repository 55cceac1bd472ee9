//! A network between two programs that does what networks do at their worst: it delays, cuts, swallows, and says nothing.
//!
//! [`Proxy`] is a cheap handle: clone it, and set rules from anywhere; they hold at once, for open connections too. A
//! rule is for all clients, or for those of one process, which is found by the port that it connects from. The proxy
//! ends with the last handle, and all connections with it.

// One connection, byte for byte.
mod connection;
// Whose connection it is.
mod peer;
// What happens to bytes.
mod rule;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

pub use rule::{Client, Flow, Rule};

use connection::{Broken, Connection};
use rule::Rules;

/// A running proxy.
#[derive(Clone, Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    state: watch::Sender<State>,
    tally: Arc<Tally>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// What connections look at.
#[derive(Clone, Debug)]
struct State {
    /// Where new connections lead.
    server: SocketAddr,
    rules: Rules,
}

/// Counts connections.
#[derive(Debug, Default)]
struct Tally {
    open: AtomicUsize,
    broken: AtomicUsize,
}

/// One open connection in the tally.
#[derive(Debug)]
struct Counted(Arc<Tally>);

impl Counted {
    fn new(tally: Arc<Tally>) -> Self {
        tally.open.fetch_add(1, Ordering::Relaxed);
        Self(tally)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.accepting.lock().expect("no holder of this lock panics").take() {
            task.abort();
        }
    }
}

impl Proxy {
    /// Listens on a free port of the loopback interface, and leads to `server`.
    #[expect(clippy::disallowed_methods, reason = "the task is held by the handle and ends with it")]
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(State { server, rules: Rules::default() });
        let tally = Arc::<Tally>::default();
        let task = tokio::spawn(accept(listener, seen, Arc::clone(&tally)));
        Ok(Self { shared: Arc::new(Shared { address, state, tally, accepting: Mutex::new(Some(task)) }) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, server: SocketAddr) {
        self.shared.state.send_modify(|state| state.server = server);
    }

    /// Sets the rule for a client's connections, open ones and new ones. That of a process comes before that of all.
    pub fn set(&self, client: Client, rule: Rule) {
        self.shared.state.send_modify(|state| state.rules.set(client, rule));
    }

    /// Sets the rule for a client's open connections only: the next ones are treated as usual.
    pub fn set_for_open(&self, client: Client, rule: Rule) {
        self.shared.state.send_modify(|state| state.rules.set_for_open(client, rule));
    }

    /// Resets a client's open connections, at both ends.
    pub fn reset(&self, client: Client) {
        self.set_for_open(client, Rule::RESET);
    }

    /// How many connections are open now, also those whose end is held.
    pub fn open(&self) -> usize {
        self.shared.tally.open.load(Ordering::Relaxed)
    }

    /// How many were refused, cut or reset so far.
    pub fn broken(&self) -> usize {
        self.shared.tally.broken.load(Ordering::Relaxed)
    }

    /// Lifts all rules. Connections from which something was taken break; what was held is delivered.
    pub fn heal(&self) {
        self.shared.state.send_modify(|state| state.rules.clear());
    }

    /// Stops listening, so that connects are refused, and cuts every connection.
    pub async fn go_away(&self) {
        let task = self.accepting().take();
        if let Some(task) = task {
            task.abort();
            // Cancelled, as it was told: afterwards the listener is closed.
            let _ = task.await;
        }
    }

    /// Listens again, on the same port.
    #[expect(clippy::disallowed_methods, reason = "the task is held by the handle and ends with it")]
    pub async fn come_back(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.shared.address).await?;
        let tally = Arc::clone(&self.shared.tally);
        let task = tokio::spawn(accept(listener, self.shared.state.subscribe(), tally));
        if let Some(previous) = self.accepting().replace(task) {
            previous.abort();
        }
        Ok(())
    }

    fn accepting(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.shared.accepting.lock().expect("no holder of this lock panics")
    }
}

/// Accepts until it is aborted; all connections end with it.
async fn accept(listener: TcpListener, state: watch::Receiver<State>, tally: Arc<Tally>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, from)) => {
                    let (own, state, tally) = (listener.local_addr().ok(), state.clone(), Arc::clone(&tally));
                    connections.spawn(async move {
                        let counted = Counted::new(tally);
                        if serve(client, from, own, state).await.is_err() {
                            counted.0.broken.fetch_add(1, Ordering::Relaxed);
                        }
                    });
                }
                // Out of file descriptors, or the peer went away: the next one may do better.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(
    client: TcpStream,
    from: SocketAddr,
    own: Option<SocketAddr>,
    state: watch::Receiver<State>,
) -> Result<(), Broken> {
    let process = own.and_then(|own| peer::process_of(from, own));
    let (server, opened) = {
        let state = state.borrow();
        (state.server, state.rules.opened(process))
    };
    let mut connection = Connection { state, opened };
    let server = if connection.is_refused() { None } else { TcpStream::connect(server).await.ok() };
    let Some(server) = server else {
        // The nearest to a refusal that is left after the client's connect.
        let _ = client.set_zero_linger();
        return Err(Broken);
    };
    connection.carry(client, server).await
}

#[cfg(test)]
mod tests;
