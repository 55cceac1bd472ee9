//! How many calls each client has open, watches included, over however many connections.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use flotilla_proto::{Reason, Refusal};

/// Whose calls are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Client {
    /// The token or certificate of that name.
    Named(String),
    /// The token or certificate of that name, as a worker's. A fleet may share it, or have no other.
    Workers(String),
    /// Whoever is at that address, for nobody is told apart.
    At(IpAddr),
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) | Self::Workers(name) => write!(f, "{name:?}"),
            Self::At(address) => write!(f, "the client at {address}"),
        }
    }
}

impl Client {
    /// How many calls it may have open.
    fn most(&self) -> u32 {
        match self {
            Self::Named(_) | Self::At(_) => 1000,
            Self::Workers(_) => 20_000,
        }
    }
}

/// The calls that are open. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct OpenCalls(Arc<Mutex<HashMap<Client, u32>>>);

/// A call that is open until this is dropped.
#[derive(Debug)]
pub(super) struct OpenCall {
    all: OpenCalls,
    client: Client,
}

impl OpenCalls {
    /// Opens one, or says that the client has too many.
    pub(super) fn open(&self, client: Client) -> Result<OpenCall, Refusal> {
        let most = client.most();
        let mut counts = self.counts();
        let count = counts.entry(client.clone()).or_default();
        if *count >= most {
            let message =
                format!("{client} has {most} calls open, and may not have more; end some, watches included");
            return Err(Refusal::new(Reason::TooManyCalls, message));
        }
        *count += 1;
        drop(counts);
        Ok(OpenCall { all: self.clone(), client })
    }

    /// Numbers are right even where a holder panicked.
    fn counts(&self) -> std::sync::MutexGuard<'_, HashMap<Client, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_may_have_so_many_and_others_as_many() {
        let calls = OpenCalls::default();
        let ci = || Client::Named("ci".to_owned());
        let mut open: Vec<_> = (0..1000).map(|_| calls.open(ci()).unwrap()).collect();
        let refusal = calls.open(ci()).unwrap_err();
        assert_eq!(
            refusal.message,
            "\"ci\" has 1000 calls open, and may not have more; end some, watches included"
        );
        let other = calls.open(Client::At([127, 0, 0, 1].into())).unwrap();
        open.pop();
        open.push(calls.open(ci()).unwrap());
        drop((open, other));
        assert!(calls.counts().is_empty(), "nothing is kept of those who left");
    }
}
