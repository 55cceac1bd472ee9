//! Decides what to ask of the store, and what its answers mean. Pure.
//!
//! Claim, then read, then write the difference; from then on write what changes. At most one operation is under way.
//! `dirty` names the items of which the store may hold something else than the data set, as long as `content` is known;
//! when it is not, a comparison finds them. A write whose outcome is unknown becomes an *attempt*: the next look tells
//! whether it was done, and an empty write then kills whatever of it is still on its way.

// What the store's answers mean.
mod outcomes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::TakeOver;
use flotilla_proto::{FleetId, Grant, GrantState, Incarnation, Intent, Marker, Timestamp, Uid};

use super::ControlState;
use crate::dataset::{Dataset, ItemId};
use crate::fence::{Fence, Lineage};
use crate::source::Kind;
use crate::store::{FenceStep, Op, SCRIPT_BYTES, SCRIPT_FIELDS, Write};

/// Pause after a failure: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// Pause before asking control once more about a grant that it did not confirm.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Shortest time between two comparisons that foreign writes cause.
const COMPARE_AGAIN: Duration = Duration::from_secs(1);
/// A grant that control has not confirmed for so long is not claimed where nothing stands.
const UNCONFIRMED_LIMIT: Duration = Duration::from_hours(6 * 24);
/// Unknown outcomes that are remembered; beyond them the content counts as unknown.
const MOST_ATTEMPTS: usize = 16;

/// Who writes, and under which grant.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) fleet: FleetId,
    pub(super) uid: Uid,
    pub(super) incarnation: Incarnation,
    pub(super) grant: Grant,
    pub(super) lineage: Lineage,
    pub(super) take_over: Option<TakeOver>,
}

/// How we stand with the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// To be looked at.
    Unknown,
    /// Nothing there. Control is to confirm the grant first.
    Absent { since: Timestamp, asked: bool, confirmed: bool },
    /// May be claimed over this value; `None`: over nothing.
    Claimable(Option<String>),
    /// Ours: `expected` stands there.
    Held,
    /// Somebody else's.
    Conflict(String),
    /// A newer owner's.
    Fenced(String),
    /// The release or purge is done.
    Ended,
}

/// A write that was sent and whose outcome nobody knows.
#[derive(Debug)]
struct Attempt {
    value: String,
    carried: BTreeSet<ItemId>,
    closes_comparison: bool,
    /// What the store holds if it was done; `None`: what it held before.
    counts: Option<[u64; 2]>,
}

/// The operation under way.
#[derive(Debug)]
enum Under {
    Look,
    Claim {
        value: String,
    },
    Compare,
    Write {
        value: String,
        carried: BTreeSet<ItemId>,
        closes_comparison: bool,
        /// What the store holds afterwards; `None`: only the fence was advanced.
        counts: Option<[u64; 2]>,
    },
    End {
        value: String,
    },
}

/// What to do next.
#[derive(Debug)]
pub(super) enum Decision {
    /// Nothing now; at the time given, if there is one, ask again.
    Wait(Option<Timestamp>),
    /// Carry this out and tell the outcome.
    Run(Op),
    /// Ask control whether the grant is still ours.
    Confirm,
}

/// What an outcome brought about, for counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Effect {
    /// A write was acknowledged.
    pub(super) written: bool,
    /// A write was refused by the fence.
    pub(super) fenced: bool,
    /// A comparison of a store that had been in line found differences.
    pub(super) repair: bool,
}

/// The writer of one environment.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own, and all combinations occur")]
pub(super) struct Writer {
    me: Identity,
    standing: Standing,
    expected: Option<String>,
    attempts: Vec<Attempt>,
    must_advance: bool,
    next_number: u64,
    content_known: bool,
    dirty: BTreeSet<ItemId>,
    /// A comparison is done and its closing write is due.
    closing_due: bool,
    synchronized: bool,
    /// A full payload, or a comparison, brought changes that are not written yet.
    is_behind_payload: bool,
    /// The store lost what had been synchronized: the next comparison's differences are repairs.
    is_refilling: bool,
    /// When to compare although the content should be known.
    verify_at: Option<Timestamp>,
    established: bool,
    under: Option<Under>,
    /// The operation under way belongs to an earlier grant: its outcome tells nothing.
    outdated: bool,
    counts: [u64; 2],
    marker: Marker,
    available: Option<bool>,
    error: Option<String>,
    failures: u32,
    /// Writes fail although looks may succeed: an answered look does not count as recovery.
    writes_fail: bool,
    /// The last write was refused by the fence.
    refused_before: bool,
    retry_at: Option<Timestamp>,
    compared_at: Option<Timestamp>,
    last_good: Option<Timestamp>,
}

impl Writer {
    pub(super) fn new(me: Identity, first_number: u64) -> Self {
        Self {
            me,
            standing: Standing::Unknown,
            expected: None,
            attempts: Vec::new(),
            must_advance: false,
            next_number: first_number,
            content_known: false,
            dirty: BTreeSet::new(),
            closing_due: false,
            synchronized: false,
            is_behind_payload: false,
            is_refilling: false,
            verify_at: None,
            established: false,
            under: None,
            outdated: false,
            counts: [0, 0],
            marker: Marker::Unknown,
            available: None,
            error: None,
            failures: 0,
            writes_fail: false,
            refused_before: false,
            retry_at: None,
            compared_at: None,
            last_good: None,
        }
    }

    /// A new grant: everything that was known of the store is to be found out anew.
    pub(super) fn regrant(&mut self, me: Identity) {
        let outdated = self.under.is_some();
        let (marker, available, dirty) = (self.marker, self.available, std::mem::take(&mut self.dirty));
        let under = self.under.take();
        *self = Self {
            marker,
            available,
            dirty,
            under,
            outdated,
            last_good: self.last_good,
            ..Self::new(me, self.next_number)
        };
    }

    /// The lineage changed, under the same grant.
    pub(super) fn amend_lineage(&mut self, lineage: Lineage) {
        self.me.lineage = lineage;
    }

    /// The user's leave to take over changed, under the same grant.
    pub(super) fn amend_take_over(&mut self, take_over: Option<TakeOver>) {
        if take_over.is_some() && matches!(self.standing, Standing::Conflict(_)) {
            self.standing = Standing::Unknown;
        }
        self.me.take_over = take_over;
    }

    /// These items changed in the data set, one by one.
    pub(super) fn changed(&mut self, items: impl IntoIterator<Item = ItemId>) {
        self.dirty.extend(items);
    }

    /// These items changed with a full payload: until they are written, the store is behind.
    pub(super) fn replaced(&mut self, items: Vec<ItemId>) {
        self.is_behind_payload |= !items.is_empty();
        self.dirty.extend(items);
    }

    /// Look at the fence, the marker and the counts, now.
    pub(super) fn check(&mut self) {
        if matches!(self.standing, Standing::Held | Standing::Absent { .. }) {
            self.standing = Standing::Unknown;
        }
        self.retry_at = None;
    }

    /// Somebody else may have touched our keys: look, and compare soon. Writing goes on meanwhile, the fence is ours.
    pub(super) fn distrust(&mut self, now: Timestamp) {
        let earliest = self.compared_at.map_or(now, |at| at.after(COMPARE_AGAIN));
        self.verify_at = Some(self.verify_at.unwrap_or(earliest).min(earliest));
        self.check();
    }

    /// Compare everything, as the user asked.
    pub(super) fn resync(&mut self) {
        self.synchronized = false;
        self.content_known = false;
        if matches!(self.standing, Standing::Conflict(_)) {
            self.standing = Standing::Unknown;
        }
        self.check();
    }

    /// Control's answer about the grant.
    pub(super) fn confirmed(&mut self, now: Timestamp, valid: bool) {
        if let Standing::Absent { asked, confirmed, .. } = &mut self.standing {
            (*asked, *confirmed) = (valid, valid);
            self.retry_at = (!valid).then(|| now.after(ASK_AGAIN));
        }
    }

    /// What to do next. `data` is the data set once a full payload is in it.
    pub(super) fn decide(&mut self, now: Timestamp, data: Option<&Dataset>, control: ControlState) -> Decision {
        if self.under.is_some() || self.me.grant.intent == Intent::Warm {
            return Decision::Wait(None);
        }
        if let Some(at) = self.retry_at.filter(|at| now < *at) {
            return Decision::Wait(Some(at));
        }
        match &mut self.standing {
            Standing::Unknown => self.run(Under::Look, Op::Look),
            Standing::Absent { confirmed: true, .. } => self.claim(None),
            Standing::Absent { since, asked, .. } => {
                let since = *since;
                if control.connected {
                    return if std::mem::replace(asked, true) { Decision::Wait(None) } else { Decision::Confirm };
                }
                *asked = false;
                self.claim_without_control(now, since, control)
            }
            Standing::Claimable(found) => {
                let found = found.clone();
                self.claim(found)
            }
            Standing::Held => self.hold(now, data),
            Standing::Conflict(_) | Standing::Fenced(_) | Standing::Ended => Decision::Wait(None),
        }
    }

    /// Nothing stands there and control cannot be asked: only who wrote lately may be sure that nobody else has.
    fn claim_without_control(&mut self, now: Timestamp, since: Timestamp, control: ControlState) -> Decision {
        if now.since(control.confirmed_at) > UNCONFIRMED_LIMIT {
            return Decision::Wait(None);
        }
        let wrote_lately = self.last_good.is_some_and(|at| now.since(at) < control.lease);
        if wrote_lately || now.since(since) >= control.lease {
            self.claim(None)
        } else {
            Decision::Wait(Some(since.after(control.lease)))
        }
    }

    fn claim(&mut self, found: Option<String>) -> Decision {
        if matches!(self.me.grant.intent, Intent::Release | Intent::Purge) {
            return self.end(found);
        }
        let value = self.next_value(self.counts, false);
        let step = FenceStep { expected: found, next: value.clone(), released: false };
        self.run(
            Under::Claim { value },
            Op::Write(Write { step, set: Vec::new(), remove: Vec::new(), marker: false }),
        )
    }

    fn hold(&mut self, now: Timestamp, data: Option<&Dataset>) -> Decision {
        if matches!(self.me.grant.intent, Intent::Release | Intent::Purge) {
            return self.end(self.expected.clone());
        }
        if self.must_advance {
            return self.write(BTreeSet::new(), None);
        }
        let Some(data) = data else {
            return Decision::Wait(None);
        };
        if !self.content_known {
            // Whatever differs now, the comparison finds; what changes from here on becomes dirty by itself.
            self.dirty.clear();
            return self.compare(now, data);
        }
        if self.closing_due || !self.dirty.is_empty() {
            let carried = std::mem::take(&mut self.dirty);
            return self.write(carried, Some(data));
        }
        match self.verify_at {
            Some(at) if at <= now => self.compare(now, data),
            at => Decision::Wait(at),
        }
    }

    fn compare(&mut self, now: Timestamp, data: &Dataset) -> Decision {
        self.compared_at = Some(now);
        self.verify_at = None;
        self.run(Under::Compare, Op::Compare(Arc::new(data.snapshot())))
    }

    /// Writes the items carried; without data, only the fence.
    fn write(&mut self, carried: BTreeSet<ItemId>, data: Option<&Dataset>) -> Decision {
        let counts = data.map(|data| [data.count(Kind::Flag), data.count(Kind::Segment)]);
        let value = self.next_value(counts.unwrap_or(self.counts), false);
        let step = FenceStep { expected: self.expected.clone(), next: value.clone(), released: false };
        let (mut set, mut remove, mut bytes) = (Vec::new(), Vec::new(), 0);
        for id in &carried {
            bytes += id.key.len();
            match data.and_then(|data| data.body(id)) {
                Some(body) => {
                    bytes += body.len();
                    set.push((id.clone(), Arc::clone(body)));
                }
                None => remove.push(id.clone()),
            }
        }
        let op = match data {
            Some(data) if carried.len() > 1 && (bytes > SCRIPT_BYTES || carried.len() > SCRIPT_FIELDS) => {
                Op::Load { step, snapshot: Arc::new(data.snapshot()) }
            }
            Some(_) | None => Op::Write(Write { step, set, remove, marker: data.is_some() }),
        };
        let closes_comparison = data.is_some() && self.closing_due;
        self.run(Under::Write { value, carried, closes_comparison, counts }, op)
    }

    /// Releases or purges, over the value found.
    fn end(&mut self, found: Option<String>) -> Decision {
        let purge = self.me.grant.intent == Intent::Purge;
        let value = self.next_value(if purge { [0, 0] } else { self.counts }, true);
        let step = FenceStep { expected: found, next: value.clone(), released: true };
        let op = if purge {
            Op::Purge(step)
        } else {
            Op::Write(Write { step, set: Vec::new(), remove: Vec::new(), marker: false })
        };
        self.run(Under::End { value }, op)
    }

    fn run(&mut self, under: Under, op: Op) -> Decision {
        self.under = Some(under);
        Decision::Run(op)
    }

    fn next_value(&mut self, counts: [u64; 2], released: bool) -> String {
        let write = self.next_number;
        self.next_number += 1;
        let Identity { fleet, uid, incarnation, grant, lineage, .. } = self.me.clone();
        let [flags, segments] = counts;
        let (epoch, grant) = (grant.epoch, grant.id);
        Fence { fleet, uid, lineage, epoch, grant, incarnation, write, flags, segments, released }.to_string()
    }

    /// How far the grant is.
    pub(super) fn grant_state(&self) -> GrantState {
        match &self.standing {
            Standing::Conflict(_) => GrantState::Conflict,
            Standing::Fenced(_) => GrantState::Fenced,
            Standing::Ended => GrantState::Established,
            Standing::Unknown | Standing::Absent { .. } | Standing::Claimable(_) | Standing::Held => {
                let ending = matches!(self.me.grant.intent, Intent::Release | Intent::Purge);
                match (self.established && !ending, self.is_in_line()) {
                    (true, true) => GrantState::Synchronized,
                    (true, false) => GrantState::Established,
                    (false, _) => GrantState::Pending,
                }
            }
        }
    }

    /// Whether the store holds what the last full payload, and the last comparison, said.
    fn is_in_line(&self) -> bool {
        let whole = self.content_known && !self.is_behind_payload;
        self.synchronized && whole && self.available != Some(false)
    }

    /// Why the grant is pending, one word; empty: nothing special.
    pub(super) fn pending_reason(&self) -> &'static str {
        match (&self.standing, self.available) {
            (_, Some(false)) => "StoreUnavailable",
            (Standing::Absent { .. }, _) => "AwaitingConfirmation",
            (_, _) => "",
        }
    }

    /// The fence that is in the way.
    pub(super) fn found_fence(&self) -> Option<&str> {
        match &self.standing {
            Standing::Conflict(found) | Standing::Fenced(found) => Some(found),
            Standing::Unknown
            | Standing::Absent { .. }
            | Standing::Claimable(_)
            | Standing::Held
            | Standing::Ended => None,
        }
    }

    /// The marker at the last look.
    pub(super) fn marker(&self) -> Marker {
        self.marker
    }

    /// Whether the store answered last time.
    pub(super) fn available(&self) -> Option<bool> {
        self.available
    }

    /// What was wrong with the store last time.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// A write number that was never used.
    pub(super) fn next_number(&self) -> u64 {
        self.next_number
    }

    /// Whether changes wait to be written.
    pub(super) fn is_behind(&self) -> bool {
        !self.dirty.is_empty() || matches!(self.under, Some(Under::Write { .. }))
    }
}

#[cfg(test)]
mod tests;
