//! Records of who asked for what, numbered, in the transactions of what was done.

use std::collections::BTreeMap;
use std::time::Duration;

use flotilla_proto::{Reason, Refusal, Term, Timestamp};

use super::Message;
use super::history::Revision;
use crate::audit::{AuditEntry, AuditRecord, LastRecord, Outcome, Place, of_answer};
use crate::fleet::{Change, CommandId, Reply};

/// Commands that may wait for a worker's answer with an entry. Of more, only that they began is recorded.
const MOST_WAITING: usize = 4096;
/// How often old records are deleted, and after how many new ones at the latest: fewer than go at once.
const PRUNE_INTERVAL: Duration = Duration::from_mins(1);
const PRUNE_AFTER: u64 = 1000;
/// Records that wait for a database that can be written again.
const MOST_KEPT_BACK: usize = 1000;

/// What is known of calls that are under way, and where the records stand.
#[derive(Debug)]
pub(super) struct Ledger {
    last: u64,
    newest: Option<Revision>,
    retention: Duration,
    pruned: Timestamp,
    /// Records since then.
    unpruned: u64,
    waiting: BTreeMap<CommandId, AuditEntry>,
    most_waiting: usize,
    /// Records that could not be written.
    kept_back: Vec<Change>,
    is_failing: bool,
    /// Records that had no room to wait since.
    lost: usize,
}

impl Ledger {
    /// Goes on after the last record. Records older than `retention` go.
    pub(super) fn new(last: LastRecord, retention: Duration) -> Self {
        Self {
            last: last.number,
            newest: last.term.map(|term| Revision::at(term, last.number)),
            retention,
            pruned: Timestamp(0),
            unpruned: 0,
            waiting: BTreeMap::new(),
            most_waiting: MOST_WAITING,
            kept_back: Vec::new(),
            is_failing: false,
            lost: 0,
        }
    }

    /// Where the last record stands that is durable.
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

    /// Control stops: those that wait are refused, and what was kept back is tried once more.
    pub(super) fn close(&mut self, now: (Term, Timestamp)) -> Vec<Change> {
        let kept_back = std::mem::take(&mut self.kept_back);
        let waiting = std::mem::take(&mut self.waiting).into_values();
        kept_back.into_iter().chain(waiting.map(|entry| self.refused_at_stop(now, entry))).collect()
    }

    /// Control has stopped: what could not be written until now is lost.
    pub(super) fn tell_of_lost(&self) {
        if !self.kept_back.is_empty() {
            tracing::error!(lost = self.kept_back.len(), "audit records are lost, for they could not be written");
        }
    }

    /// It came too late, or waited too long.
    fn refused_at_stop(&mut self, now: (Term, Timestamp), entry: AuditEntry) -> Change {
        let refusal = Refusal::new(Reason::ShuttingDown, "control stopped before the answer");
        self.record(now, entry, Outcome::refused(&refusal), Place::Inside)
    }

    /// Records could not be kept. They go with the next ones.
    pub(super) fn keep_back(&mut self, changes: Vec<Change>, error: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::error!(
                error,
                "audit records cannot be written; they are kept back, and changes that are asked for will fail"
            );
        }
        let records = changes.into_iter().filter(|change| matches!(change, Change::PutAudit(_)));
        self.kept_back = records.collect();
        let too_many = self.kept_back.len().saturating_sub(MOST_KEPT_BACK);
        self.kept_back.drain(..too_many);
        self.lost += too_many;
    }

    /// Changes were made durable; the last record among them stands there.
    pub(super) fn committed(&mut self, last: Option<Revision>) {
        self.newest = last.or(self.newest);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(lost = std::mem::take(&mut self.lost), "audit records are written again");
        }
    }

    /// What is recorded of a message that came after the word to stop.
    pub(super) fn too_late(&mut self, now: (Term, Timestamp), message: Message) -> Option<Change> {
        match message {
            Message::Command { entry: Some(entry), .. } => Some(self.refused_at_stop(now, *entry)),
            Message::Audit { entry, outcome, place } => Some(self.record(now, *entry, outcome, place)),
            Message::Command { entry: None, .. }
            | Message::Read(_)
            | Message::Opened { .. }
            | Message::Said { .. }
            | Message::Broken { .. }
            | Message::Closed { .. }
            | Message::Stop => None,
        }
    }

    /// The changes of a commit, and before them what was kept back: with the next change, or now and then.
    pub(super) fn with_kept_back(&mut self, changes: Vec<Change>) -> Vec<Change> {
        if changes.is_empty() || self.kept_back.is_empty() {
            return changes;
        }
        std::mem::take(&mut self.kept_back).into_iter().chain(changes).collect()
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
        self.unpruned += 1;
        Change::PutAudit(Box::new(AuditRecord { number: self.last, term, at, entry, outcome, place }))
    }

    /// Time passed: what is too old goes, now and then.
    pub(super) fn tick(&mut self, now: Timestamp) -> Option<Change> {
        if now.since(self.pruned) < PRUNE_INTERVAL && self.unpruned < PRUNE_AFTER {
            return None;
        }
        (self.pruned, self.unpruned) = (now, 0);
        let before = now.0.saturating_sub(u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX));
        Some(Change::PruneAudit { before: Timestamp(before) })
    }
}

/// Where the last record among changes stands.
pub(super) fn last_record(changes: &[Change]) -> Option<Revision> {
    let place = |change: &Change| {
        if let Change::PutAudit(record) = change { Some(Revision::at(record.term, record.number)) } else { None }
    };
    changes.iter().filter_map(place).next_back()
}

/// Whether nothing was changed but records.
pub(super) fn are_records(changes: &[Change]) -> bool {
    changes.iter().all(|change| matches!(change, Change::PutAudit(_) | Change::PruneAudit { .. }))
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
        assert_eq!(ledger.newest(), Some(Revision::at(Term(2), 7)), "nothing is durable yet");
        ledger.committed(Some(Revision::at(Term(3), 9)));
        assert_eq!(ledger.newest(), Some(Revision::at(Term(3), 9)));
    }

    #[test]
    fn what_is_too_old_goes_once_a_minute_or_sooner_where_there_is_much() {
        let mut ledger = Ledger::new(LastRecord::default(), Duration::from_hours(1));
        let hours = |count: u64| Timestamp(count * 3_600_000);
        assert!(matches!(ledger.tick(hours(5)), Some(Change::PruneAudit { before }) if before == hours(4)));
        assert!(ledger.tick(hours(5).after(Duration::from_secs(59))).is_none());
        assert!(ledger.tick(hours(5).after(PRUNE_INTERVAL)).is_some());
        for _ in 0..PRUNE_AFTER {
            assert!(ledger.tick(hours(5).after(PRUNE_INTERVAL)).is_none());
            ledger.record(NOW, entry(), Outcome::done(), Place::Inside);
        }
        assert!(ledger.tick(hours(5).after(PRUNE_INTERVAL)).is_some());
    }
}
