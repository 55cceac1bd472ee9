//! Records of who asked for what, numbered, in the transactions of what was done.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::{Reason, Refusal, Term, Timestamp};

use super::history::Revision;
use crate::audit::{AuditEntry, AuditRecord, LastRecord, Outcome, Place, of_answer};
use crate::fleet::{Change, CommandId, Reply};

/// Commands that may wait for a worker's answer with an entry. Of more, only that they began is recorded.
const MOST_WAITING: usize = 4096;
/// How often old records are deleted.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// What is known of calls that are under way, and where the records stand.
#[derive(Debug)]
pub(super) struct Ledger {
    last: u64,
    newest: Option<Revision>,
    retention: Duration,
    pruned: Timestamp,
    waiting: BTreeMap<CommandId, AuditEntry>,
    most_waiting: usize,
}

impl Ledger {
    /// Goes on after the last record. Records older than `retention` go.
    pub(super) fn new(last: LastRecord, retention: Duration) -> Self {
        Self {
            last: last.number,
            newest: last.term.map(|term| Revision::at(term, last.number)),
            retention,
            pruned: Timestamp(0),
            waiting: BTreeMap::new(),
            most_waiting: MOST_WAITING,
        }
    }

    /// Where the last record stands.
    pub(super) fn newest(&self) -> Option<Revision> {
        self.newest
    }

    /// A command begins.
    pub(super) fn begin(&mut self, id: CommandId, entry: AuditEntry) {
        self.waiting.insert(id, entry);
    }

    /// A command's step is over. If it waits with an entry, and too many do, it is recorded now.
    pub(super) fn hold(&mut self, id: CommandId, (term, at): (Term, Timestamp)) -> Option<Change> {
        if self.waiting.len() <= self.most_waiting {
            return None;
        }
        let entry = self.waiting.remove(&id)?;
        let message = "it began; what came of it was not noted, for too many calls waited".to_owned();
        let outcome = Outcome { code: tonic::Code::Unknown, reason: String::new(), message };
        Some(self.record((term, at), entry, outcome, Place::Inside))
    }

    /// A command is answered.
    pub(super) fn answered(
        &mut self,
        id: CommandId,
        now: (Term, Timestamp),
        answer: &Result<Reply, Refusal>,
    ) -> Vec<Change> {
        let Some(entry) = self.waiting.remove(&id) else { return Vec::new() };
        let records = of_answer(entry, answer).into_iter();
        records.map(|(entry, outcome)| self.record(now, entry, outcome, Place::Inside)).collect()
    }

    /// Nobody waits for the answer any more.
    pub(super) fn abandoned(&mut self, id: CommandId, now: (Term, Timestamp)) -> Option<Change> {
        let entry = self.waiting.remove(&id)?;
        Some(self.record(now, entry, Outcome::cancelled(), Place::Inside))
    }

    /// Control stops: those that wait are refused.
    pub(super) fn close(&mut self, now: (Term, Timestamp)) -> Vec<Change> {
        let refusal = Refusal::new(Reason::ShuttingDown, "control stopped before the answer");
        let waiting = std::mem::take(&mut self.waiting).into_values();
        waiting.map(|entry| self.record(now, entry, Outcome::refused(&refusal), Place::Inside)).collect()
    }

    /// Makes a record.
    pub(super) fn record(
        &mut self,
        (term, at): (Term, Timestamp),
        entry: AuditEntry,
        outcome: Outcome,
        place: Place,
    ) -> Change {
        self.last += 1;
        self.newest = Some(Revision::at(term, self.last));
        Change::PutAudit(Box::new(AuditRecord { number: self.last, term, at, entry, outcome, place }))
    }

    /// Time passed: what is too old goes, now and then.
    pub(super) fn tick(&mut self, now: Timestamp) -> Option<Change> {
        if now.since(self.pruned) < PRUNE_INTERVAL {
            return None;
        }
        self.pruned = now;
        let before = now.0.saturating_sub(u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX));
        Some(Change::PruneAudit { before: Timestamp(before) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Attempt;

    const NOW: (Term, Timestamp) = (Term(3), Timestamp(1_000_000));

    fn entry() -> AuditEntry {
        AuditEntry::of_file(std::path::Path::new("f"), Attempt::First)
    }

    #[test]
    fn of_too_many_that_wait_it_is_recorded_that_they_began() {
        let mut ledger = Ledger::new(LastRecord { number: 7, term: Some(Term(2)) }, Duration::from_hours(1));
        assert_eq!(ledger.newest(), Some(Revision::at(Term(2), 7)));
        ledger.most_waiting = 1;
        ledger.begin(CommandId(1), entry());
        assert!(ledger.hold(CommandId(1), NOW).is_none());
        ledger.begin(CommandId(2), entry());
        let Some(Change::PutAudit(record)) = ledger.hold(CommandId(2), NOW) else { panic!("no record") };
        assert_eq!((record.number, record.outcome.code), (8, tonic::Code::Unknown));
        assert!(ledger.answered(CommandId(2), NOW, &Ok(Reply::Worker(None))).is_empty(), "one record each");
        assert_eq!(ledger.answered(CommandId(1), NOW, &Ok(Reply::Worker(None))).len(), 1);
        assert_eq!(ledger.newest(), Some(Revision::at(Term(3), 9)));
    }

    #[test]
    fn what_is_too_old_goes_once_a_minute() {
        let mut ledger = Ledger::new(LastRecord::default(), Duration::from_hours(1));
        let hours = |count: u64| Timestamp(count * 3_600_000);
        assert!(matches!(ledger.tick(hours(5)), Some(Change::PruneAudit { before }) if before == hours(4)));
        assert!(ledger.tick(hours(5).after(Duration::from_secs(59))).is_none());
        assert!(ledger.tick(hours(5).after(PRUNE_INTERVAL)).is_some());
    }
}
