//! What the store's answers mean for the writer.

use std::collections::BTreeSet;

use flotilla_proto::{Intent, Marker, Timestamp};

use super::{Attempt, Effect, MOST_ATTEMPTS, RETRY, Standing, Under, Writer};
use crate::dataset::ItemId;
use crate::fence::{Claimant, Fence, Found, Verdict, judge};
use crate::store::{Look, Outcome, StoreError};

impl Writer {
    /// Takes the outcome of the operation that [`Self::decide`] asked for.
    pub(in crate::environment) fn outcome(&mut self, now: Timestamp, outcome: Outcome) -> Effect {
        let Some(under) = self.under.take() else {
            return Effect::default();
        };
        if std::mem::take(&mut self.outdated) {
            // What an operation of the last grant did, the coming look tells.
            return Effect::default();
        }
        let is_write = !matches!(under, Under::Look | Under::Compare);
        if !matches!(outcome, Outcome::Failed(_)) && (is_write || !self.writes_fail) {
            (self.available, self.error, self.failures, self.retry_at) = (Some(true), None, 0, None);
            self.writes_fail = false;
        }
        match outcome {
            Outcome::Looked(look) => self.looked(now, &look),
            Outcome::Done { flags, segments } => self.done(now, under, [flags, segments]),
            Outcome::Compared(differing) => self.compared(differing),
            Outcome::Refused(_) => self.refused(now, under),
            Outcome::Failed(error) => self.failed(now, under, &error),
            // These answer questions that are not the writer's.
            Outcome::Listed(_) | Outcome::Read(_) => Effect::default(),
        }
    }

    fn looked(&mut self, now: Timestamp, look: &Look) -> Effect {
        self.marker = if look.marker { Marker::Present } else { Marker::Absent };
        let found_counts = [look.flags, look.segments];
        if self.is_ended_by_us(&look.found) {
            self.standing = Standing::Ended;
            return Effect::default();
        }
        let claimant = Claimant {
            fleet: &self.me.fleet,
            uid: &self.me.uid,
            grant: &self.me.grant,
            incarnation: &self.me.incarnation,
            expected: self.expected.as_deref(),
            take_over: self.me.take_over.as_ref(),
        };
        let verdict = judge(&look.found, &claimant);
        let value = match &look.found {
            Found::Value(value) => Some(value.clone()),
            Found::Absent | Found::WrongType => None,
        };
        match (verdict, value) {
            (Verdict::Expected, _) => self.settle_not_done(),
            (Verdict::Ours, Some(value)) => self.settle_ours(value),
            (Verdict::Claimable, Some(value)) => self.lose(Standing::Claimable(Some(value)), found_counts),
            (Verdict::Absent, _) => {
                if !matches!(self.standing, Standing::Absent { .. }) {
                    self.lose(Standing::Absent { since: now, asked: false, confirmed: false }, found_counts);
                }
            }
            (Verdict::Fenced, value) => self.lose(Standing::Fenced(value.unwrap_or_default()), found_counts),
            (Verdict::Conflict | Verdict::Claimable | Verdict::Ours, value) => {
                let shown = value.unwrap_or_else(|| "(not a string)".to_owned());
                self.lose(Standing::Conflict(shown), found_counts);
            }
        }
        if self.standing == Standing::Held {
            self.last_good = Some(now);
            if found_counts != self.counts {
                self.content_known = false;
                self.counts = found_counts;
            } else if !look.marker && self.synchronized && self.content_known {
                self.closing_due = true;
            }
        }
        Effect::default()
    }

    /// A released fence under this very grant: whoever put it there, the release or purge is done.
    fn is_ended_by_us(&self, found: &Found) -> bool {
        let ending = matches!(self.me.grant.intent, Intent::Release | Intent::Purge);
        let Found::Value(value) = found else { return false };
        ending
            && Fence::parse(value)
                .is_some_and(|fence| fence.released && fence.uid == self.me.uid && fence.grant == self.me.grant.id)
    }

    /// The last acknowledged value stands: nothing of the attempts was done. One may still be on its way.
    fn settle_not_done(&mut self) {
        self.standing = Standing::Held;
        self.must_advance |= !self.attempts.is_empty();
        for attempt in self.attempts.drain(..) {
            self.dirty.extend(attempt.carried);
        }
    }

    /// One of our own values stands that nobody acknowledged.
    fn settle_ours(&mut self, value: String) {
        self.standing = Standing::Held;
        self.established = true;
        match self.attempts.iter().position(|attempt| attempt.value == value) {
            Some(at) => {
                let done = self.attempts.remove(at);
                self.counts = done.counts.unwrap_or(self.counts);
                if done.closes_comparison {
                    self.comparison_closed();
                }
            }
            // An older value of ours, put back by a restored store: the content is as old.
            None => self.content_known = false,
        }
        // If it was a claim over a foreign value, the leave is spent.
        self.me.take_over = None;
        self.must_advance = true;
        self.expected = Some(value);
        for attempt in self.attempts.drain(..) {
            self.dirty.extend(attempt.carried);
        }
    }

    fn comparison_closed(&mut self) {
        (self.closing_due, self.synchronized, self.is_refilling) = (false, true, false);
    }

    /// The fence is not ours (any more).
    fn lose(&mut self, standing: Standing, counts: [u64; 2]) {
        self.is_refilling |= self.synchronized && matches!(standing, Standing::Absent { .. });
        self.standing = standing;
        self.expected = None;
        self.attempts.clear();
        self.must_advance = false;
        self.content_known = false;
        self.closing_due = false;
        self.synchronized = false;
        self.established = false;
        self.counts = counts;
    }

    fn done(&mut self, now: Timestamp, under: Under, counts: [u64; 2]) -> Effect {
        self.last_good = Some(now);
        self.refused_before = false;
        match under {
            Under::Claim { value } => {
                self.expected = Some(value);
                self.standing = Standing::Held;
                self.established = true;
                self.attempts.clear();
                self.content_known = false;
                self.counts = counts;
                // The leave is spent; control hears of it by the report.
                self.me.take_over = None;
            }
            Under::Write { value, closes_comparison, counts: intended, carried: _ } => {
                self.expected = Some(value);
                self.must_advance = false;
                if closes_comparison {
                    self.comparison_closed();
                }
                self.is_behind_payload &= !self.dirty.is_empty();
                if let Some(intended) = intended {
                    self.marker = Marker::Present;
                    // Another count means that somebody else added or removed fields. A comparison that was asked for
                    // while this was under way is still owed.
                    self.content_known &= counts == intended;
                }
                self.counts = counts;
            }
            Under::End { value: _ } => {
                self.standing = Standing::Ended;
                self.counts = counts;
                if self.me.grant.intent == Intent::Purge {
                    self.marker = Marker::Absent;
                }
            }
            Under::Look | Under::Compare => {}
        }
        Effect { written: true, ..Effect::default() }
    }

    fn compared(&mut self, differing: Vec<ItemId>) -> Effect {
        let repair = (self.synchronized || self.is_refilling) && !differing.is_empty();
        self.closing_due |= !self.synchronized || repair || self.marker != Marker::Present;
        self.is_behind_payload &= !self.dirty.is_empty();
        self.is_behind_payload |= !differing.is_empty();
        self.content_known = true;
        self.dirty.extend(differing);
        Effect { repair, ..Effect::default() }
    }

    fn refused(&mut self, now: Timestamp, under: Under) -> Effect {
        if let Under::Write { carried, .. } = under {
            self.dirty.extend(carried);
        }
        self.standing = Standing::Unknown;
        // Should looks see nothing wrong, this keeps them and the refusals from chasing each other.
        self.retry_at = self.refused_before.then(|| now.after(RETRY.1));
        self.refused_before = true;
        Effect { fenced: true, ..Effect::default() }
    }

    fn failed(&mut self, now: Timestamp, under: Under, error: &StoreError) -> Effect {
        self.available = Some(false);
        self.error = Some(error.to_string());
        self.writes_fail |= !matches!(under, Under::Look | Under::Compare);
        if let Under::Compare = under {
            self.verify_at = Some(now);
        }
        match (under, error) {
            (Under::Write { value, carried, closes_comparison, counts }, StoreError::Unknown(_)) => {
                self.attempts.push(Attempt { value, carried, closes_comparison, counts });
            }
            (Under::Write { carried, .. }, StoreError::NotDone(_)) => self.dirty.extend(carried),
            (Under::Claim { value } | Under::End { value }, StoreError::Unknown(_)) => {
                let carried = BTreeSet::new();
                self.attempts.push(Attempt { value, carried, closes_comparison: false, counts: None });
            }
            (Under::Claim { .. } | Under::End { .. }, StoreError::NotDone(_))
            | (Under::Look | Under::Compare, _) => {}
        }
        if self.attempts.len() > MOST_ATTEMPTS {
            self.content_known = false;
            for attempt in self.attempts.drain(..) {
                self.dirty.extend(attempt.carried);
            }
            self.must_advance = true;
        }
        if !matches!(self.standing, Standing::Absent { .. }) {
            self.standing = Standing::Unknown;
        }
        let pause = RETRY.0.saturating_mul(1 << self.failures.min(5)).min(RETRY.1);
        self.failures += 1;
        self.retry_at = Some(now.after(pause));
        Effect::default()
    }
}
