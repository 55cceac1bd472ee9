//! What happened in a simulated world, in order.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use flotilla_worker::fence::FenceKind;
use flotilla_worker::store::Op;
use flotilla_worker::store::model::Model;

use crate::world::World;

/// One operation that reached the store and may have changed it, or that compared everything.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) at: u64,
    pub(crate) worker: usize,
    pub(crate) prefix: String,
    pub(crate) what: What,
    /// The fence that it would set; of a comparison, which sets none, nothing.
    pub(crate) next: Option<String>,
    pub(crate) accepted: bool,
    pub(crate) before: Model,
    pub(crate) after: Model,
}

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum What {
    Claim,
    Write,
    Load,
    Release,
    Purge,
    /// It changes nothing and is always accepted.
    Compare,
}

impl What {
    pub(crate) fn of(op: &Op) -> Option<Self> {
        match op {
            Op::Write(write) if write.step.kind == FenceKind::Released => Some(Self::Release),
            Op::Write(write) if write.set.is_empty() && write.remove.is_empty() && !write.marker => {
                Some(Self::Claim)
            }
            Op::Write(_) => Some(Self::Write),
            Op::Load { .. } => Some(Self::Load),
            Op::Purge(_) => Some(Self::Purge),
            Op::Compare { .. } => Some(Self::Compare),
            Op::Look | Op::List | Op::Read(_) => None,
        }
    }

    /// Whether it brings data: what is written under a claim.
    pub(crate) fn brings_data(self) -> bool {
        match self {
            Self::Write | Self::Load => true,
            Self::Claim | Self::Release | Self::Purge | Self::Compare => false,
        }
    }
}

/// The fence that an operation would set.
pub(crate) fn next_fence(op: &Op) -> Option<String> {
    match op {
        Op::Write(write) => Some(write.step.next.clone()),
        Op::Load { step, .. } | Op::Purge(step) => Some(step.next.clone()),
        Op::Look | Op::Compare { .. } | Op::List | Op::Read(_) => None,
    }
}

impl World {
    /// The same for two runs in which the same happened at the same time.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for record in &self.records {
            (record.at, record.worker, &record.prefix, record.what, record.accepted).hash(&mut hasher);
            record.after.fence.hash(&mut hasher);
        }
        self.delivered.hash(&mut hasher);
        self.faults.hash(&mut hasher);
        hasher.finish()
    }

    /// The last of what happened to a prefix, for people.
    pub(crate) fn story(&self, prefix: &str, until: u64) -> String {
        let of_prefix = |record: &&Record| record.prefix == prefix && record.at <= until;
        let lines: Vec<String> = self
            .records
            .iter()
            .filter(of_prefix)
            .map(|record| {
                let outcome = if record.accepted { "accepted" } else { "refused" };
                let items: Vec<_> =
                    record.after.items.iter().map(|(id, body)| format!("{}={}", id.key, version(body))).collect();
                format!(
                    "{:>7} w{} {:?} {outcome} {} [{}]",
                    record.at,
                    record.worker + 1,
                    record.what,
                    record.after.fence.as_deref().map(short).unwrap_or_default(),
                    items.join(" ")
                )
            })
            .collect();
        let last = lines.len().saturating_sub(25);
        format!("{}\nwhat was done to the world:\n{}", lines[last..].join("\n"), self.done_to_it(until))
    }
}

/// A fence without what is the same in all of them.
fn short(fence: &str) -> String {
    let words: Vec<_> = fence.split(' ').collect();
    let short = |at: usize| words.get(at).map(|word| &word[..word.len().min(8)]).unwrap_or_default();
    let last = words.get(5..).unwrap_or_default().join(" ");
    format!("{} {} {} {last}", short(2), short(3).trim_start_matches('0'), words.get(4).unwrap_or(&""))
}

/// The version in an item's text.
pub(crate) fn version(body: &[u8]) -> u64 {
    word(body, r#""version":"#).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Which LaunchDarkly environment an item is of.
pub(crate) fn origin(body: &[u8]) -> Option<&str> {
    word(body, r#""of":""#)
}

/// What stands behind a name in a text of the simulated LaunchDarkly. Its texts are long; to parse them takes too long.
fn word<'a>(body: &'a [u8], name: &str) -> Option<&'a str> {
    let beginning = &body[..body.len().min(200)];
    let text = std::str::from_utf8(beginning).ok()?;
    let (_, rest) = text.split_once(name)?;
    rest.split(['"', ',', '}']).next()
}
