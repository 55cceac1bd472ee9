//! One environment at an abstract worker: claim, compare, write, as the real worker's writer does it.

use flotilla_proto::{FleetId, GrantId};
use flotilla_worker::fence::{Claimant, Fence, FenceKind, Found, Lineage, Verdict, judge};

use super::place::{Item, Operation, Outcome, Put};
use super::*;

/// How it stands with the fence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    /// To be looked at.
    Unknown,
    /// Nothing there.
    Absent(Confirmation),
    /// May be claimed over this value.
    Claimable(String),
    /// Ours.
    Held,
    /// Somebody else's.
    Conflict(String),
    /// A newer owner's.
    Fenced(String),
    /// The release or purge is done.
    Ended,
}

/// Whether control has said that the grant is still ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmation {
    /// It is to be asked.
    Wanted,
    /// It was asked under this number.
    Asked(u64),
    /// It said so.
    Given,
    /// It did not say so, and will be asked again later.
    Denied,
}

/// What is known of the item in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Unknown,
    Compared,
    InLine,
}

/// The operation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flight {
    pub(super) operation: Operation,
    /// What the store said while its sender stood still.
    pub(super) answer: Option<Outcome>,
    /// It belongs to an earlier grant.
    pub(super) outdated: bool,
}

/// A write of which nobody knows whether it was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) value: String,
    /// What the store holds if it was; `None`: as before.
    pub(super) wrote: Option<Item>,
}

/// Who writes.
pub(super) struct Me<'a> {
    pub(super) fleet: &'a FleetId,
    pub(super) incarnation: &'a Incarnation,
    /// Whether control has accepted the session.
    pub(super) live: bool,
    /// The source's version.
    pub(super) source: u64,
    /// The number of the next write, and of the next question.
    pub(super) next_number: &'a mut u64,
}

/// One environment at one worker.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    pub(super) assignment: Assignment,
    pub(super) standing: Standing,
    pub(super) expected: Option<String>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) must_advance: bool,
    pub(super) content: Content,
    /// What the store holds, where that is known.
    pub(super) stored: Option<Item>,
    pub(super) marker: Marker,
    /// The last write or look was good less than a lease ago.
    pub(super) good_lately: bool,
    /// Nothing has stood in the fence for a lease.
    pub(super) absent_for_long: bool,
    pub(super) flight: Option<Flight>,
    /// The last report in this session.
    pub(super) told: Option<Box<EnvironmentReport>>,
}

impl Writer {
    pub(super) fn new(assignment: Assignment) -> Self {
        Self {
            assignment,
            standing: Standing::Unknown,
            expected: None,
            attempts: Vec::new(),
            must_advance: false,
            content: Content::Unknown,
            stored: None,
            marker: Marker::Unknown,
            good_lately: false,
            absent_for_long: false,
            flight: None,
            told: None,
        }
    }

    /// A new assignment of the same environment.
    pub(super) fn reassign(&mut self, assignment: Assignment) {
        if assignment.grant == self.assignment.grant {
            if assignment.take_over.is_some() && matches!(self.standing, Standing::Conflict(_)) {
                self.standing = Standing::Unknown;
            }
            self.assignment = assignment;
            return;
        }
        let old = std::mem::replace(self, Self::new(assignment));
        self.flight = old.flight.map(|flight| Flight { outdated: true, ..flight });
        (self.marker, self.good_lately, self.told) = (old.marker, old.good_lately, old.told);
    }

    fn is_ending(&self) -> bool {
        matches!(self.assignment.grant.intent, Intent::Release | Intent::Purge)
    }

    fn item(&self, source: u64) -> Item {
        Item { uid: self.assignment.uid.clone(), version: source }
    }

    /// Sends the next operation, if there is one; or asks control, and returns under which number.
    pub(super) fn advance(&mut self, me: &mut Me<'_>) -> Option<u64> {
        if self.flight.is_some() || self.assignment.grant.intent == Intent::Warm {
            return None;
        }
        let operation = match self.standing.clone() {
            Standing::Unknown => Operation::Look,
            Standing::Absent(Confirmation::Given) => self.claim(me, None),
            Standing::Absent(Confirmation::Wanted) if me.live => {
                *me.next_number += 1;
                self.standing = Standing::Absent(Confirmation::Asked(*me.next_number));
                return Some(*me.next_number);
            }
            Standing::Absent(_) if !me.live && (self.good_lately || self.absent_for_long) => self.claim(me, None),
            Standing::Claimable(found) => self.claim(me, Some(found)),
            Standing::Held => self.hold(me)?,
            Standing::Absent(_) | Standing::Conflict(_) | Standing::Fenced(_) | Standing::Ended => return None,
        };
        self.flight = Some(Flight { operation, answer: None, outdated: false });
        None
    }

    fn claim(&self, me: &mut Me<'_>, found: Option<String>) -> Operation {
        if self.is_ending() {
            return self.end(me, found);
        }
        Operation::Write { expected: found, next: self.value(me, FenceKind::Serving), put: Put::Nothing }
    }

    fn hold(&self, me: &mut Me<'_>) -> Option<Operation> {
        if self.is_ending() {
            return Some(self.end(me, self.expected.clone()));
        }
        let item = self.item(me.source);
        let put = if self.must_advance {
            Put::Nothing
        } else if self.content == Content::Unknown {
            return Some(Operation::Compare);
        } else if self.stored.as_ref() != Some(&item) {
            Put::Item(item)
        } else if self.content == Content::Compared || self.marker == Marker::Absent {
            Put::Marker
        } else {
            return None;
        };
        Some(Operation::Write { expected: self.expected.clone(), next: self.value(me, FenceKind::Serving), put })
    }

    fn end(&self, me: &mut Me<'_>, found: Option<String>) -> Operation {
        let put = if self.assignment.grant.intent == Intent::Purge { Put::Purge } else { Put::Nothing };
        Operation::Write { expected: found, next: self.value(me, FenceKind::Released), put }
    }

    fn value(&self, me: &mut Me<'_>, kind: FenceKind) -> String {
        *me.next_number += 1;
        let Assignment { uid, grant, .. } = &self.assignment;
        let fence = Fence {
            fleet: me.fleet.clone(),
            uid: uid.clone(),
            lineage: Lineage::unknown(),
            epoch: grant.epoch,
            grant: grant.id.clone(),
            incarnation: me.incarnation.clone(),
            write: *me.next_number,
            flags: 1,
            segments: 0,
            kind,
        };
        fence.to_string()
    }

    /// The outcome of the operation under way.
    pub(super) fn outcome(&mut self, me: &Me<'_>, outcome: Outcome) {
        let Some(flight) = self.flight.take().filter(|flight| !flight.outdated) else { return };
        match (outcome, flight.operation) {
            (Outcome::Looked { fence, marker }, _) => self.looked(me, fence, marker),
            (Outcome::Compared(item), _) => {
                self.stored = item;
                self.content = Content::Compared;
            }
            (Outcome::Done, Operation::Write { next, put, .. }) => self.done(next, put),
            (Outcome::Done, Operation::Look | Operation::Compare) => unreachable!("only writes are done"),
            (Outcome::Refused, _) => self.standing = Standing::Unknown,
            (Outcome::Unknown, operation) => {
                if let Operation::Write { next, put, .. } = operation {
                    let wrote = match put {
                        Put::Item(item) => Some(item),
                        Put::Marker => self.stored.clone(),
                        Put::Nothing | Put::Purge => None,
                    };
                    self.attempts.push(Attempt { value: next, wrote });
                }
                if !matches!(self.standing, Standing::Absent(_)) {
                    self.standing = Standing::Unknown;
                }
            }
        }
    }

    fn done(&mut self, value: String, put: Put) {
        self.good_lately = true;
        self.absent_for_long = false;
        if self.is_ending() {
            if put == Put::Purge {
                self.marker = Marker::Absent;
            }
            return self.lose(Standing::Ended);
        }
        if self.standing == Standing::Held {
            self.must_advance = false;
            match put {
                Put::Item(item) => self.in_line(Some(item)),
                Put::Marker => self.in_line(self.stored.clone()),
                Put::Nothing | Put::Purge => {}
            }
        } else {
            self.standing = Standing::Held;
            self.attempts.clear();
            self.content = Content::Unknown;
            self.assignment.take_over = None;
        }
        self.expected = Some(value);
    }

    fn in_line(&mut self, item: Option<Item>) {
        self.marker = Marker::Present;
        self.stored = item;
        self.content = Content::InLine;
    }

    fn looked(&mut self, me: &Me<'_>, fence: Option<String>, marker: bool) {
        self.marker = if marker { Marker::Present } else { Marker::Absent };
        let found = fence.clone().map_or(Found::Absent, Found::Value);
        if self.is_ended_by_us(fence.as_deref()) {
            return self.lose(Standing::Ended);
        }
        let Assignment { uid, grant, take_over, .. } = &self.assignment;
        let claimant = Claimant {
            fleet: me.fleet,
            uid,
            grant,
            incarnation: me.incarnation,
            expected: self.expected.as_deref(),
            take_over: take_over.as_ref(),
        };
        match (judge(&found, &claimant), fence) {
            (Verdict::Expected, _) => {
                self.must_advance |= !self.attempts.is_empty();
                self.attempts.clear();
                self.standing = Standing::Held;
                self.good_lately = true;
            }
            (Verdict::Ours, Some(value)) => self.settle(value),
            (Verdict::Claimable, Some(value)) => self.lose(Standing::Claimable(value)),
            (Verdict::Absent, _) => self.lose(Standing::Absent(Confirmation::Wanted)),
            (Verdict::Fenced, Some(value)) => self.lose(Standing::Fenced(value)),
            (Verdict::Conflict, Some(value)) => self.lose(Standing::Conflict(value)),
            (verdict, None) => unreachable!("{verdict:?} of nothing"),
        }
    }

    /// A value of ours stands that nobody acknowledged.
    fn settle(&mut self, value: String) {
        self.standing = Standing::Held;
        self.good_lately = true;
        match self.attempts.iter().find(|attempt| attempt.value == value).cloned() {
            Some(Attempt { wrote: Some(item), .. }) if self.content != Content::Unknown => {
                self.in_line(Some(item));
            }
            Some(_) => {}
            None => self.content = Content::Unknown,
        }
        self.assignment.take_over = None;
        self.must_advance = true;
        self.expected = Some(value);
        self.attempts.clear();
    }

    fn is_ended_by_us(&self, found: Option<&str>) -> bool {
        let ours: (&_, &GrantId) = (&self.assignment.uid, &self.assignment.grant.id);
        let fence = found.and_then(Fence::parse);
        self.is_ending()
            && fence.is_some_and(|one| one.kind == FenceKind::Released && (&one.uid, &one.grant) == ours)
    }

    fn lose(&mut self, standing: Standing) {
        self.standing = standing;
        self.expected = None;
        self.attempts.clear();
        self.must_advance = false;
        self.content = Content::Unknown;
        self.stored = None;
    }

    /// Control's answer to a question.
    pub(super) fn confirmed(&mut self, id: u64, valid: &[GrantId]) {
        if self.standing == Standing::Absent(Confirmation::Asked(id)) {
            let is_valid = valid.contains(&self.assignment.grant.id);
            let confirmation = if is_valid { Confirmation::Given } else { Confirmation::Denied };
            self.standing = Standing::Absent(confirmation);
        }
    }

    /// The session is over, or a while has passed: what was asked is to be asked again.
    pub(super) fn ask_again(&mut self) {
        if let Standing::Absent(confirmation @ (Confirmation::Asked(_) | Confirmation::Denied)) = &mut self.standing
        {
            *confirmation = Confirmation::Wanted;
        }
    }

    /// Nothing happened for a lease; whoever has nothing else to do looks at the store.
    pub(super) fn lease_passed(&mut self) {
        self.good_lately = false;
        match self.standing {
            Standing::Absent(_) => self.absent_for_long = true,
            Standing::Held => self.standing = Standing::Unknown,
            Standing::Unknown
            | Standing::Claimable(_)
            | Standing::Conflict(_)
            | Standing::Fenced(_)
            | Standing::Ended => {}
        }
    }

    /// The whole status. The flags held are the version in the store: this model's own use of the field.
    pub(super) fn report(&self) -> EnvironmentReport {
        let Assignment { environment, uid, generation, grant, .. } = &self.assignment;
        let warm = grant.intent == Intent::Warm;
        EnvironmentReport {
            grant_state: if warm { GrantState::Synchronized } else { self.grant_state() },
            found_fence: match &self.standing {
                Standing::Fenced(found) | Standing::Conflict(found) => Some(found.clone()),
                Standing::Unknown
                | Standing::Absent(_)
                | Standing::Claimable(_)
                | Standing::Held
                | Standing::Ended => None,
            },
            source_state: (!self.is_ending()).then_some(SourceState::Connected),
            marker: self.marker,
            store_available: Some(true),
            flags: self.stored.as_ref().filter(|_| self.content == Content::InLine).map_or(0, |item| item.version),
            segments: 1,
            bytes: 100,
            ..EnvironmentReport::new(environment.clone(), uid.clone(), *generation, grant.clone())
        }
    }

    fn grant_state(&self) -> GrantState {
        match &self.standing {
            Standing::Conflict(_) => GrantState::Conflict,
            Standing::Fenced(_) => GrantState::Fenced,
            Standing::Ended => GrantState::Established,
            Standing::Unknown | Standing::Absent(_) | Standing::Claimable(_) | Standing::Held => {
                if self.expected.is_none() || self.is_ending() {
                    GrantState::Pending
                } else if self.content == Content::InLine {
                    GrantState::Synchronized
                } else {
                    GrantState::Established
                }
            }
        }
    }
}
