//! What happened, as far as it is kept: a copy in memory of the last events on disk.

use std::collections::VecDeque;

use super::history::{Lost, Revision};
use crate::fleet::EventRecord;

/// How many events are kept, on disk too.
pub(crate) const KEPT: usize = 10_000;

/// The last events, oldest first. Their numbers follow each other without a gap.
#[derive(Debug)]
pub(crate) struct Events {
    records: VecDeque<EventRecord>,
}

impl Events {
    /// Those that were kept on disk, oldest first.
    pub(super) fn new(kept: Vec<EventRecord>) -> Self {
        Self { records: kept.into() }
    }

    pub(super) fn push(&mut self, record: EventRecord) {
        if self.records.len() == KEPT {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// Where an event stands.
    pub(crate) fn revision_of(record: &EventRecord) -> Revision {
        Revision::at(record.term, record.number)
    }

    /// Where the last event stands; before the first one there is none.
    pub(crate) fn newest(&self) -> Option<Revision> {
        self.records.back().map(Self::revision_of)
    }

    /// All, newest first; those before a number, if one is given.
    pub(crate) fn before(&self, number: Option<u64>) -> impl Iterator<Item = &EventRecord> {
        let wanted = move |record: &&EventRecord| number.is_none_or(|number| record.number < number);
        self.records.iter().rev().filter(wanted)
    }

    /// At most `limit` of all, oldest first.
    pub(crate) fn oldest_first(&self, limit: usize) -> Vec<EventRecord> {
        self.records.iter().take(limit).cloned().collect()
    }

    /// At most `limit` of those that came after a revision, oldest first. A number that a restored database has given
    /// anew is of another term, and lost.
    pub(crate) fn since(&self, revision: Revision, limit: usize) -> Result<Vec<EventRecord>, Lost> {
        let first = self.records.front().map_or(0, |record| record.number);
        let after = match revision.number().checked_sub(first) {
            Some(at) => {
                let at = usize::try_from(at).map_err(|_| Lost)?;
                let known = self.records.get(at).ok_or(Lost)?;
                if Self::revision_of(known) != revision {
                    return Err(Lost);
                }
                at + 1
            }
            None => return Err(Lost),
        };
        Ok(self.records.iter().skip(after).take(limit).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use flotilla_proto::{Term, Timestamp, v1};

    use super::*;
    use crate::fleet::Event;

    fn record(term: u64, number: u64) -> EventRecord {
        let event = Event {
            kind: v1::EventType::WorkerChanged,
            environment: None,
            worker: None,
            from: None,
            epoch: None,
            reason: String::new(),
            message: String::new(),
        };
        EventRecord { number, term: Term(term), at: Timestamp(number), event }
    }

    fn numbers(events: &Events, term: u64, number: u64) -> Option<Vec<u64>> {
        let found = events.since(Revision::at(Term(term), number), 2).ok()?;
        Some(found.iter().map(|record| record.number).collect())
    }

    #[test]
    fn what_is_not_kept_or_was_never_told_is_lost() {
        let mut events = Events::new(vec![record(1, 7), record(1, 8)]);
        events.push(record(2, 9));
        events.push(record(2, 10));
        assert_eq!(numbers(&events, 1, 7), Some(vec![8, 9]), "at most two");
        assert_eq!(numbers(&events, 2, 10), Some(vec![]));
        for (term, number) in [(1, 6), (2, 7), (1, 9), (2, 11)] {
            assert_eq!(numbers(&events, term, number), None, "{term}.{number}");
        }
        assert_eq!(events.before(Some(9)).map(|record| record.number).collect::<Vec<_>>(), [8, 7]);
        assert_eq!(events.newest(), Some(Revision::at(Term(2), 10)));
    }

    #[test]
    fn the_last_ones_are_kept() {
        let mut events = Events::new(Vec::new());
        for number in 1..=KEPT as u64 + 5 {
            events.push(record(1, number));
        }
        assert_eq!(events.before(None).count(), KEPT);
        assert_eq!(numbers(&events, 1, 5), None);
        assert_eq!(numbers(&events, 1, 6), Some(vec![7, 8]));
    }
}
