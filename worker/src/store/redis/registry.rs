//! Who wants news of which prefix, and what the servers tell.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use flotilla_proto::Prefix;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::watch;

use super::super::StoreNews;
use super::layout::Layout;
use super::target::Server;

/// Who wants news of which prefix.
#[derive(Debug, Default)]
pub(super) struct Registry {
    senders: Mutex<HashMap<String, watch::Sender<StoreNews>>>,
}

impl Registry {
    /// News of a prefix.
    pub(super) fn subscribe(&self, prefix: &Prefix) -> watch::Receiver<StoreNews> {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|_, sender| sender.receiver_count() > 0);
        senders.entry(prefix.as_str().to_owned()).or_default().subscribe()
    }

    /// The connection of these prefixes is a new one, or gone.
    pub(super) fn reconnected(&self, concerns: impl Fn(&str) -> bool) {
        self.tell(concerns, |news| news.connection += 1);
    }

    /// The server of these prefixes has thrown keys away, theirs or others.
    pub(super) fn evicted(&self, concerns: impl Fn(&str) -> bool) {
        self.tell(concerns, |news| news.evictions += 1);
    }

    /// A push message of a server: somebody touched keys, or flushed the database.
    pub(super) fn pushed(&self, push: &PushInfo, server: &Server, layout: &Layout) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        let touched = |news: &mut StoreNews| news.touched += 1;
        match push.data.first() {
            Some(Value::Array(keys)) => {
                for key in keys {
                    let Value::BulkString(key) = key else { continue };
                    let prefix = std::str::from_utf8(key).ok().and_then(|key| key.rsplit_once(':'));
                    if let Some((prefix, _)) = prefix {
                        self.tell_one(prefix, touched);
                    }
                }
            }
            Some(_) | None => self.tell(|prefix| layout.server(prefix) == Some(server), touched),
        }
    }

    /// As [`Self::pushed`], of a server that has no room to remember everything. What one of us reads makes it forget what
    /// another has read, and it says that the key was touched: nobody would come to rest. What counts is a flush.
    pub(super) fn pushed_by_forgetful(&self, push: &PushInfo, server: &Server, layout: &Layout) {
        if !matches!(push.data.first(), Some(Value::Array(_))) {
            self.pushed(push, server, layout);
        }
    }

    fn tell_one(&self, prefix: &str, change: impl Fn(&mut StoreNews)) {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = senders.get(prefix) {
            sender.send_modify(change);
        }
    }

    fn tell(&self, concerns: impl Fn(&str) -> bool, change: impl Fn(&mut StoreNews)) {
        let senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.iter().filter(|(prefix, _)| concerns(prefix)).for_each(|(_, sender)| sender.send_modify(&change));
    }
}
