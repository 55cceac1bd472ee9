//! Turns the messages of a watch into events, and remembers where to resume. No I/O.

use crate::v1::watch_environments_response::Event as Message;
use crate::v1::{Environment, WatchEnvironmentsResponse};

/// Why a watch tells no more of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It no longer exists.
    Gone,
    /// It no longer matches the filter.
    Unmatched,
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// All that exists now; replaces what was told before.
    Snapshot(Vec<Environment>),
    /// It was created or changed.
    Changed(Box<Environment>),
    /// It is gone, or no longer matches.
    Removed {
        /// Its name.
        name: String,
        /// Its uid.
        uid: String,
        /// Which of the two.
        departure: Departure,
    },
}

/// How far a watch is.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    revision: String,
    /// The snapshot so far; `None` when it is complete.
    snapshot: Option<Vec<Environment>>,
}

impl Cursor {
    /// Prepares for a new stream; returns the revision from which to ask. Empty: a snapshot first.
    pub(super) fn connect(&mut self) -> String {
        self.snapshot = self.revision.is_empty().then(Vec::new);
        self.revision.clone()
    }

    /// Forgets the revision: the next stream begins with a snapshot.
    pub(super) fn list_again(&mut self) {
        self.revision.clear();
    }

    /// Takes the next message of the stream.
    pub(super) fn receive(&mut self, message: WatchEnvironmentsResponse) -> Option<Event> {
        let revision = message.revision;
        let event = match (message.event?, &mut self.snapshot) {
            (Message::Changed(environment), Some(snapshot)) => {
                // What changes while it is told comes once more.
                snapshot.retain(|earlier| earlier.name != environment.name);
                snapshot.push(environment);
                return None;
            }
            (Message::Removed(removed), Some(snapshot)) => {
                snapshot.retain(|environment| environment.name != removed.name);
                return None;
            }
            (Message::Synced(_), snapshot) => snapshot.take().map(Event::Snapshot),
            (Message::Changed(environment), None) => Some(Event::Changed(Box::new(environment))),
            (Message::Removed(removed), None) => {
                let departure = if removed.gone { Departure::Gone } else { Departure::Unmatched };
                Some(Event::Removed { name: removed.name, uid: removed.uid, departure })
            }
        };
        if !revision.is_empty() {
            self.revision = revision;
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::{EnvironmentRemoved, WatchSynced};

    fn message(event: Message, revision: &str) -> WatchEnvironmentsResponse {
        WatchEnvironmentsResponse { event: Some(event), revision: revision.to_owned() }
    }

    fn changed(name: &str) -> Message {
        Message::Changed(Environment { name: name.to_owned(), ..Environment::default() })
    }

    #[test]
    fn a_cut_snapshot_is_asked_for_again_and_a_complete_one_is_resumed() {
        let mut cursor = Cursor::default();
        assert_eq!(cursor.connect(), "");
        assert_eq!(cursor.receive(message(changed("a"), "r1")), None);
        assert_eq!(cursor.connect(), "", "the snapshot was not complete");
        for _ in 0..2 {
            assert_eq!(cursor.receive(message(changed("a"), "r1")), None);
        }
        let event = cursor.receive(message(Message::Synced(WatchSynced {}), "r1"));
        assert!(matches!(event, Some(Event::Snapshot(all)) if all.len() == 1));
        assert!(matches!(cursor.receive(message(changed("b"), "r2")), Some(Event::Changed(_))));
        assert_eq!(cursor.connect(), "r2");
        for (gone, expected) in [(true, Departure::Gone), (false, Departure::Unmatched)] {
            let removed = Message::Removed(EnvironmentRemoved { name: "a".to_owned(), uid: String::new(), gone });
            let event = cursor.receive(message(removed, "r3"));
            assert!(matches!(event, Some(Event::Removed { departure, .. }) if departure == expected));
        }
        assert_eq!(cursor.receive(message(Message::Synced(WatchSynced {}), "r3")), None);
        cursor.list_again();
        assert_eq!(cursor.connect(), "");
    }
}
