//! Decides what to ask of the store, and what its answers mean. Pure.
//!
//! Claim, then read, then write the difference; from then on write what changes. At most one operation is under way.
//! `dirty` names the items of which the store may hold something else than the data set, as long as [`Content`] is
//! known; when it is not, a comparison finds them. A write whose outcome is unknown becomes an *attempt*: the next look
//! tells whether it was done, and an empty write then kills whatever of it is still on its way.

// Data of unknown origin, most of which would go.
mod guard;
// How well the store does what it is asked.
mod health;
// What the store's answers mean.
mod outcomes;
// Where the items in the store came from.
mod provenance;
// What is mended, and how often.
mod repair;
// What is told of it all.
mod status;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::TakeOver;
use flotilla_proto::{FleetId, Grant, Incarnation, Intent, Marker, Timestamp, Uid};

use self::guard::Guard;
use self::health::Health;
use self::provenance::StoredVersions;
use self::repair::Contention;
pub(super) use self::repair::Repair;
use super::ControlState;
use crate::dataset::{Dataset, ItemId};
use crate::fence::{Fence, FenceKind, Lineage};
use crate::source::Kind;
use crate::store::{Damage, FenceStep, Op, SCRIPT_BYTES, SCRIPT_FIELDS, Urgency, Write};

/// Pause before asking control once more about a grant that it did not confirm.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// Shortest time between two looks, and two comparisons, that foreign writes cause.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
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
    /// Of the data set.
    pub(super) lineage: Lineage,
    pub(super) versions: Versions,
    pub(super) take_over: Option<TakeOver>,
}

/// Whether a higher version is a newer one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// Within a lineage: LaunchDarkly's.
    Comparable,
    /// Never: a file's.
    Meaningless,
}

/// How we stand with the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// To be looked at.
    Unknown,
    /// Nothing there. Control is to confirm the grant first.
    Absent(Confirmation),
    /// May be claimed over this value.
    Claimable(String),
    /// Ours: `expected` stands there.
    Held,
    /// Somebody else's.
    Conflict(String),
    /// A newer owner's.
    Fenced(String),
    /// The release or purge is done.
    Ended,
}

/// Whether control has said that a grant is still ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Confirmation {
    /// It has not been asked.
    Wanted,
    /// It has been asked.
    Asked,
    /// It has said so.
    Given,
}

/// What is known of the store's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing: compare everything before anything is written.
    Unknown,
    /// Compared under this grant; the write that closes the comparison is due.
    Compared,
    /// The comparison's last write is acknowledged: the data set, but for what is dirty.
    InLine,
}

/// A write that was sent and whose outcome nobody knows.
#[derive(Debug)]
struct Attempt {
    value: String,
    carried: BTreeSet<ItemId>,
    /// What the store holds if it was done; `None`: what it held before.
    counts: Option<[u64; 2]>,
    lineages: u32,
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
        /// What the store holds afterwards; `None`: only the fence was advanced.
        counts: Option<[u64; 2]>,
        lineages: u32,
    },
    End,
    /// It belongs to an earlier grant: what it did, the coming look tells.
    Outdated,
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
    /// What is mended of a store that had been in line.
    pub(super) repair: Option<Repair>,
}

/// The writer of one environment.
#[derive(Debug)]
pub(super) struct Writer {
    me: Identity,
    standing: Standing,
    /// The last value of ours that stood in the fence, while nothing else was seen there.
    expected: Option<String>,
    attempts: Vec<Attempt>,
    /// A write of ours may still be on its way: advance the fence first.
    must_advance: bool,
    next_number: u64,
    content: Content,
    /// Where the items in the store came from; `None`: nobody knows.
    stored: Option<Lineage>,
    stored_versions: StoredVersions,
    /// How many lineages the data set has begun: a write that was sent in an earlier one says nothing of this one.
    lineages: u32,
    guard: Guard,
    dirty: BTreeSet<ItemId>,
    /// A full payload, or a comparison, brought changes that are not written yet.
    is_behind_payload: bool,
    /// The store was in line under this grant: differences found from then on are repairs.
    was_in_line: bool,
    /// What is being mended, until all is in line again.
    mends: Option<Repair>,
    /// What a look found to be wrong with the keys as a whole.
    damage: Option<Damage>,
    contention: Contention,
    /// When to compare although the content should be known.
    verify_at: Option<Timestamp>,
    /// When to look although the fence should be known.
    look_at: Option<Timestamp>,
    under: Option<Under>,
    counts: [u64; 2],
    marker: Marker,
    /// Why the store does not tell of foreign writes, if it does not.
    untracked: Option<Arc<str>>,
    health: Health,
    looked_at: Option<Timestamp>,
    compared_at: Option<Timestamp>,
    /// Since when nothing has stood in the fence, look after look.
    absent_since: Option<Timestamp>,
    /// When the store last acknowledged a write, or a look found it as it should be.
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
            content: Content::Unknown,
            stored: None,
            stored_versions: StoredVersions::Comparable,
            lineages: 0,
            guard: Guard::Open,
            dirty: BTreeSet::new(),
            is_behind_payload: false,
            was_in_line: false,
            mends: None,
            damage: None,
            contention: Contention::default(),
            verify_at: None,
            look_at: None,
            under: None,
            counts: [0, 0],
            marker: Marker::Unknown,
            untracked: None,
            health: Health::default(),
            looked_at: None,
            compared_at: None,
            absent_since: None,
            last_good: None,
        }
    }

    /// A new grant: everything that was known of the store is to be found out anew.
    pub(super) fn regrant(&mut self, me: Identity) {
        let old = std::mem::replace(self, Self::new(me, self.next_number));
        self.under = old.under.map(|_| Under::Outdated);
        (self.stored_versions, self.lineages) = (old.stored_versions, old.lineages);
        (self.marker, self.health, self.last_good) = (old.marker, old.health, old.last_good);
        self.untracked = old.untracked;
    }

    /// Another store: nothing that was known holds there.
    pub(super) fn move_to_other_store(&mut self, me: Identity) {
        self.regrant(me);
        (self.marker, self.health, self.last_good) = (Marker::Unknown, Health::default(), None);
        self.untracked = None;
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

    /// Look at the fence, the marker and the counts.
    pub(super) fn check(&mut self) {
        if matches!(self.standing, Standing::Held | Standing::Absent(_)) {
            self.standing = Standing::Unknown;
        }
    }

    /// Somebody else may have touched our keys: look, and compare soon. Writing goes on, the fence is ours. However
    /// often somebody touches them, looks and comparisons keep their distance.
    pub(super) fn distrust(&mut self, now: Timestamp) {
        let later = |last: Option<Timestamp>, pause| last.map_or(now, |at: Timestamp| at.after(pause)).max(now);
        let look_pause = if self.is_contended() { self.compare_pause() } else { LOOK_AGAIN };
        self.look_at.get_or_insert(later(self.looked_at, look_pause));
        let verify_at = later(self.compared_at, self.compare_pause());
        self.verify_at = Some(self.verify_at.map_or(verify_at, |at| at.min(verify_at)));
        if matches!(self.standing, Standing::Absent(_)) {
            self.check();
        }
    }

    /// The connection was lost, or is a new one: nobody told of foreign writes meanwhile.
    pub(super) fn reconnected(&mut self, now: Timestamp) {
        self.health.retry_now();
        self.distrust(now);
    }

    /// Compare everything, as the user asked.
    pub(super) fn resync(&mut self) {
        self.content = Content::Unknown;
        self.compared_at = None;
        if matches!(self.standing, Standing::Conflict(_)) {
            self.standing = Standing::Unknown;
        }
        self.check();
    }

    /// Control's answer about the grant.
    pub(super) fn confirmed(&mut self, now: Timestamp, valid: bool) {
        if let Standing::Absent(confirmation) = &mut self.standing {
            if valid {
                *confirmation = Confirmation::Given;
            } else {
                *confirmation = Confirmation::Wanted;
                self.health.wait_until(now.after(ASK_AGAIN));
            }
        }
    }

    /// What to do next. `data` is the data set once a full payload is in it.
    pub(super) fn decide(&mut self, now: Timestamp, data: Option<&Dataset>, control: ControlState) -> Decision {
        if self.under.is_some() || self.me.grant.intent == Intent::Warm {
            return Decision::Wait(None);
        }
        if let Some(at) = self.health.pause(now) {
            return Decision::Wait(Some(at));
        }
        match &mut self.standing {
            Standing::Unknown => self.look(),
            Standing::Absent(Confirmation::Given) => self.claim(None),
            Standing::Absent(confirmation) if control.connected => match confirmation {
                Confirmation::Wanted => {
                    *confirmation = Confirmation::Asked;
                    Decision::Confirm
                }
                Confirmation::Asked | Confirmation::Given => Decision::Wait(None),
            },
            Standing::Absent(confirmation) => {
                *confirmation = Confirmation::Wanted;
                self.claim_without_control(now, control)
            }
            Standing::Claimable(found) => {
                let found = found.clone();
                self.claim(Some(found))
            }
            Standing::Held => self.hold(now, data),
            Standing::Conflict(_) | Standing::Fenced(_) | Standing::Ended => Decision::Wait(None),
        }
    }

    fn look(&mut self) -> Decision {
        self.look_at = None;
        self.run(Under::Look, Op::Look)
    }

    /// Nothing stands there and control cannot be asked: only who wrote lately may be sure that nobody else has.
    fn claim_without_control(&mut self, now: Timestamp, control: ControlState) -> Decision {
        let confirmed_in_time = control.confirmed_at <= now && now.since(control.confirmed_at) <= UNCONFIRMED_LIMIT;
        if !confirmed_in_time {
            return Decision::Wait(None);
        }
        let since = *self.absent_since.get_or_insert(now);
        let wrote_lately = self.last_good.is_some_and(|at| now.since(at) < control.lease);
        if wrote_lately || now.since(since) >= control.lease {
            self.claim(None)
        } else {
            Decision::Wait(Some(since.after(control.lease)))
        }
    }

    fn claim(&mut self, found: Option<String>) -> Decision {
        if self.is_ending() {
            return self.end(found);
        }
        let value = self.next_value(self.stored.clone(), self.counts, FenceKind::Serving);
        let step = FenceStep { expected: found, next: value.clone(), kind: FenceKind::Serving };
        let claim = Write { step, set: Vec::new(), remove: Vec::new(), marker: false };
        self.run(Under::Claim { value }, Op::Write(claim))
    }

    fn hold(&mut self, now: Timestamp, data: Option<&Dataset>) -> Decision {
        if self.is_ending() {
            return self.end(self.expected.clone());
        }
        if self.must_advance {
            return self.write(BTreeSet::new(), None);
        }
        if self.look_at.is_some_and(|at| at <= now) {
            return self.look();
        }
        let Some(data) = data.filter(|_| self.held_back().is_none()) else { return Decision::Wait(self.look_at) };
        if self.content == Content::Unknown {
            // Under one claim foreign fields may come again and again: the comparisons keep their distance then.
            // What somebody else did can wait, what LaunchDarkly says cannot.
            let pause = if self.dirty.is_empty() { self.compare_pause() } else { COMPARE_AGAIN };
            let earliest = self.compared_at.filter(|_| self.was_in_line).map(|at| at.after(pause));
            if let Some(at) = earliest.filter(|at| now < *at) {
                return Decision::Wait(self.look_at.into_iter().chain([at]).min());
            }
            // Whatever differs now, the comparison finds; what changes from here on becomes dirty by itself.
            self.dirty.clear();
            return self.compare(now, data, Urgency::Now);
        }
        if self.content == Content::Compared || !self.dirty.is_empty() || self.marker == Marker::Absent {
            let carried = std::mem::take(&mut self.dirty);
            return self.write(carried, Some(data));
        }
        match self.verify_at {
            Some(at) if at <= now => self.compare(now, data, Urgency::WhenIdle),
            at => Decision::Wait(at.into_iter().chain(self.look_at).min()),
        }
    }

    fn compare(&mut self, now: Timestamp, data: &Dataset, urgency: Urgency) -> Decision {
        self.compared_at = Some(now);
        self.verify_at = None;
        let evidence = self.evidence();
        self.run(Under::Compare, Op::Compare { snapshot: Arc::new(data.snapshot()), urgency, evidence })
    }

    /// Whether a comparison under the present grant is under way.
    pub(super) fn is_comparing(&self) -> bool {
        matches!(self.under, Some(Under::Compare))
    }

    /// Writes the items carried; without data, only the fence.
    fn write(&mut self, carried: BTreeSet<ItemId>, data: Option<&Dataset>) -> Decision {
        let counts = data.map(|data| [data.count(Kind::Flag), data.count(Kind::Segment)]);
        let lineage = data.map_or_else(|| self.stored.clone(), |_| Some(self.me.lineage.clone()));
        let value = self.next_value(lineage, counts.unwrap_or(self.counts), FenceKind::Serving);
        let step = FenceStep { expected: self.expected.clone(), next: value.clone(), kind: FenceKind::Serving };
        let (mut set, mut remove, mut bytes) = (Vec::new(), Vec::new(), 0);
        for id in &carried {
            bytes += id.key.len();
            match data.and_then(|data| data.body(id)) {
                Some(body) => {
                    bytes += body.len();
                    set.push((id.clone(), body.clone()));
                }
                None => remove.push(id.clone()),
            }
        }
        let op = match data {
            Some(data)
                if self.damage == Some(Damage::Type)
                    || (carried.len() > 1 && (bytes > SCRIPT_BYTES || carried.len() > SCRIPT_FIELDS)) =>
            {
                Op::Load { step, snapshot: Arc::new(data.snapshot()) }
            }
            Some(_) | None => Op::Write(Write { step, set, remove, marker: data.is_some() }),
        };
        self.run(Under::Write { value, carried, counts, lineages: self.lineages }, op)
    }

    /// Releases or purges, over the value found.
    fn end(&mut self, found: Option<String>) -> Decision {
        let purge = self.me.grant.intent == Intent::Purge;
        let counts = if purge { [0, 0] } else { self.counts };
        let next = self.next_value(self.stored.clone(), counts, FenceKind::Released);
        let step = FenceStep { expected: found, next, kind: FenceKind::Released };
        let op = if purge {
            Op::Purge(step)
        } else {
            Op::Write(Write { step, set: Vec::new(), remove: Vec::new(), marker: false })
        };
        self.run(Under::End, op)
    }

    fn run(&mut self, under: Under, op: Op) -> Decision {
        self.under = Some(under);
        Decision::Run(op)
    }

    fn is_ending(&self) -> bool {
        matches!(self.me.grant.intent, Intent::Release | Intent::Purge)
    }

    /// The next fence. Its lineage is that of the items that stand in the store then.
    fn next_value(&mut self, lineage: Option<Lineage>, counts: [u64; 2], kind: FenceKind) -> String {
        let write = self.next_number;
        self.next_number += 1;
        let Identity { fleet, uid, incarnation, grant, .. } = self.me.clone();
        let lineage = lineage.unwrap_or_else(Lineage::unknown);
        let [flags, segments] = counts;
        let (epoch, grant) = (grant.epoch, grant.id);
        Fence { fleet, uid, lineage, epoch, grant, incarnation, write, flags, segments, kind }.to_string()
    }
}

#[cfg(test)]
mod tests;
