//! What the store's answers mean for the writer.

use std::collections::BTreeSet;

use flotilla_proto::{Intent, Marker, Timestamp};

use super::guard::Guard;
use super::repair::Repair;
use super::{
    Attempt, Confirmation, Content, Effect, LOOK_AGAIN, MOST_ATTEMPTS, Standing, StoredVersions, Under, Writer,
};
use crate::dataset::ItemId;
use crate::fence::{Claimant, Fence, FenceKind, Found, Verdict, judge};
use crate::store::{Damage, Look, Outcome, StoreError};

impl Writer {
    /// Takes the outcome of the operation that [`Self::decide`] asked for.
    pub(in crate::environment) fn outcome(&mut self, now: Timestamp, outcome: Outcome) -> Effect {
        let Some(under) = self.under.take().filter(|under| !matches!(under, Under::Outdated)) else {
            return Effect::default();
        };
        match outcome {
            Outcome::Looked(look) => self.looked(now, &look),
            Outcome::Done { flags, segments } => self.done(now, under, [flags, segments]),
            Outcome::Compared(differences) => self.compared(now, differences.items),
            Outcome::Busy => {
                self.verify_at = Some(now.after(LOOK_AGAIN));
                Effect::default()
            }
            Outcome::Refused(_) => self.refused(now, under),
            Outcome::Failed(error) => self.failed(now, under, &error),
            // These answer questions that are not the writer's.
            Outcome::Listed(_) | Outcome::Read(_) => Effect::default(),
        }
    }

    fn looked(&mut self, now: Timestamp, look: &Look) -> Effect {
        self.looked_at = Some(now);
        self.health.looked();
        self.untracked.clone_from(&look.untracked);
        let marker = if look.marker { Marker::Present } else { Marker::Absent };
        let marker = std::mem::replace(&mut self.marker, marker);
        if look.found != Found::Absent {
            self.absent_since = None;
        }
        let counts = [look.flags, look.segments];
        if self.is_ended_by_us(&look.found) {
            self.lose(Standing::Ended, counts);
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
        let lost = self.damage_seen(look, marker);
        let value = match &look.found {
            Found::Value(value) => Some(value.clone()),
            Found::Absent | Found::WrongType => None,
        };
        if verdict != Verdict::Expected {
            self.stored = value.as_deref().and_then(|value| self.stored_lineage(value));
        }
        match (verdict, value) {
            (Verdict::Expected, _) => self.settle_not_done(),
            (Verdict::Ours, Some(value)) => self.settle_ours(value),
            (Verdict::Claimable, Some(value)) => self.lose(Standing::Claimable(value), counts),
            (Verdict::Absent, _) => {
                self.absent_since.get_or_insert(now);
                self.lose(Standing::Absent(Confirmation::Wanted), counts);
            }
            (Verdict::Fenced, value) => self.lose(Standing::Fenced(value.unwrap_or_default()), counts),
            (Verdict::Conflict | Verdict::Claimable | Verdict::Ours, value) => {
                let shown = value.unwrap_or_else(|| "(not a string)".to_owned());
                self.lose(Standing::Conflict(shown), counts);
            }
        }
        if self.standing == Standing::Held {
            self.last_good = Some(now);
            if counts != self.counts {
                self.content = Content::Unknown;
                self.counts = counts;
            }
        }
        let repair = lost.or_else(|| self.damage_seen(look, marker));
        self.damage = look.damage;
        match look.damage.filter(|_| self.standing == Standing::Held) {
            // Nothing is in the hash, and only a load can make it one.
            Some(Damage::Type) => self.content = Content::Unknown,
            // Any write ends it.
            Some(Damage::Expiry) => self.must_advance = true,
            None => {}
        }
        self.mends = self.mends.or(repair);
        self.contention.noted |= repair.is_some();
        Effect { repair, ..Effect::default() }
    }

    /// A released fence under this very grant: whoever put it there, the release or purge is done.
    fn is_ended_by_us(&self, found: &Found) -> bool {
        let Found::Value(value) = found else { return false };
        let is_ours = |fence: &Fence| fence.uid == self.me.uid && fence.grant == self.me.grant.id;
        let released = |fence: &Fence| fence.kind == FenceKind::Released;
        self.is_ending() && Fence::parse(value).is_some_and(|fence| released(&fence) && is_ours(&fence))
    }

    /// The last acknowledged value stands: nothing of the attempts was done. One may still be on its way.
    fn settle_not_done(&mut self) {
        self.standing = Standing::Held;
        self.must_advance |= !self.attempts.is_empty();
        self.give_attempts_back();
    }

    /// One of our own values stands that nobody acknowledged.
    fn settle_ours(&mut self, value: String) {
        self.standing = Standing::Held;
        match self.attempts.iter().position(|attempt| attempt.value == value) {
            Some(at) => {
                let Attempt { counts, lineages, .. } = self.attempts.remove(at);
                if let Some(counts) = counts {
                    self.counts = counts;
                    self.comparison_closed(&value, lineages);
                }
            }
            // An older value of ours, put back by a restored store: the content is as old.
            None => self.content = Content::Unknown,
        }
        // If it was a claim over a foreign value, the leave is spent.
        self.me.take_over = None;
        self.must_advance = true;
        self.expected = Some(value);
        self.give_attempts_back();
    }

    fn give_attempts_back(&mut self) {
        for attempt in self.attempts.drain(..) {
            self.dirty.extend(attempt.carried);
        }
    }

    /// Items were written under this grant, after a comparison, with this fence.
    fn comparison_closed(&mut self, value: &str, lineages: u32) {
        if self.content != Content::Unknown {
            self.stored = self.stored_lineage(value);
            if lineages == self.lineages {
                self.stored_versions = StoredVersions::Comparable;
            }
            self.guard = Guard::Open;
            self.content = Content::InLine;
            self.was_in_line = true;
            self.mends = None;
        }
    }

    /// The fence is not ours (any more).
    fn lose(&mut self, standing: Standing, counts: [u64; 2]) {
        let nothing_to_write = matches!(standing, Standing::Conflict(_) | Standing::Fenced(_) | Standing::Ended);
        if nothing_to_write {
            self.health.recovered();
        }
        self.standing = standing;
        self.expected = None;
        self.attempts.clear();
        self.must_advance = false;
        self.content = Content::Unknown;
        self.guard = Guard::Open;
        if !self.is_contended() {
            self.compared_at = None;
        }
        self.counts = counts;
    }

    fn done(&mut self, now: Timestamp, under: Under, counts: [u64; 2]) -> Effect {
        self.health.worked();
        self.last_good = Some(now);
        self.absent_since = None;
        self.counts = counts;
        match under {
            Under::Claim { value } => {
                self.standing = Standing::Held;
                self.expected = Some(value);
                self.attempts.clear();
                self.content = Content::Unknown;
                // The leave is spent; control hears of it by the report.
                self.me.take_over = None;
            }
            Under::Write { value, counts: intended, carried: _, lineages } => {
                self.must_advance = false;
                // Any write ends an expiry, one of items comes about only where all types are right.
                self.damage = self.damage.filter(|damage| *damage == Damage::Type && intended.is_none());
                self.mends = self.mends.filter(|mended| *mended != Repair::Expiry);
                self.is_behind_payload &= !self.dirty.is_empty();
                if let Some(intended) = intended {
                    self.marker = Marker::Present;
                    self.comparison_closed(&value, lineages);
                    if counts != intended {
                        // Somebody else added or removed fields.
                        self.content = Content::Unknown;
                    }
                }
                self.expected = Some(value);
            }
            Under::End => {
                self.lose(Standing::Ended, counts);
                if self.me.grant.intent == Intent::Purge {
                    self.marker = Marker::Absent;
                }
            }
            Under::Look | Under::Compare | Under::Outdated => {}
        }
        Effect { written: true, ..Effect::default() }
    }

    fn compared(&mut self, now: Timestamp, differing: Vec<ItemId>) -> Effect {
        self.health.worked();
        if self.held_back().is_some() {
            return Effect::default();
        }
        if self.content == Content::Unknown {
            self.content = Content::Compared;
        }
        self.is_behind_payload &= !self.dirty.is_empty();
        self.is_behind_payload |= !differing.is_empty();
        if self.was_in_line {
            self.compared_again(now, !differing.is_empty());
        }
        let is_new = self.was_in_line && self.mends.is_none() && !differing.is_empty();
        let repair = is_new.then_some(Repair::Items);
        self.dirty.extend(differing);
        Effect { repair, ..Effect::default() }
    }

    fn refused(&mut self, now: Timestamp, under: Under) -> Effect {
        if let Under::Write { carried, .. } = under {
            self.dirty.extend(carried);
        }
        self.standing = Standing::Unknown;
        self.health.refused(now);
        Effect { fenced: true, ..Effect::default() }
    }

    fn failed(&mut self, now: Timestamp, under: Under, error: &StoreError) -> Effect {
        match &under {
            Under::Look => self.health.look_failed(now, error),
            Under::Compare | Under::Claim { .. } | Under::Write { .. } | Under::End | Under::Outdated => {
                self.health.work_failed(now, error);
            }
        }
        let is_unknown = matches!(error, StoreError::Unknown(_));
        match under {
            Under::Write { value, carried, counts, lineages } if is_unknown => {
                self.attempts.push(Attempt { value, carried, counts, lineages });
            }
            Under::Write { carried, .. } => self.dirty.extend(carried),
            Under::Claim { value } if is_unknown => {
                self.attempts.push(Attempt {
                    value,
                    carried: BTreeSet::new(),
                    counts: None,
                    lineages: self.lineages,
                });
            }
            Under::Compare => self.verify_at = Some(now),
            // What they would have brought about, the next look tells.
            Under::Claim { .. } | Under::End | Under::Look | Under::Outdated => {}
        }
        if self.attempts.len() > MOST_ATTEMPTS {
            self.content = Content::Unknown;
            self.must_advance = true;
            self.give_attempts_back();
        }
        if !matches!(self.standing, Standing::Absent(_)) {
            self.standing = Standing::Unknown;
        }
        Effect::default()
    }
}
