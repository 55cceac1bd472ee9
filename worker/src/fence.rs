//! The fence: the value of `<prefix>:$flotilla`, and what may be done over the one that is found.
//!
//! Pure. To the store the value is opaque: every write compares the whole of it with what the writer expects and sets
//! the next one in the same atomic step. What a writer may expect is decided here, by [`judge`].

use std::fmt;

use flotilla_proto::session::TakeOver;
use flotilla_proto::{Epoch, FleetId, Grant, GrantId, Incarnation, Uid};
use sha2::{Digest as _, Sha256};

/// First word of every fence of this format.
const FORMAT: &str = "flotilla1";

/// Where data came from. Versions are comparable only within a lineage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// LaunchDarkly's environment id; `None` matches any.
    pub environment_id: Option<Box<str>>,
    /// Digest of base URI, filter and source kind: 16 hex digits.
    pub origin: Box<str>,
}

/// What the fence says of the last write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The fleet that wrote.
    pub fleet: FleetId,
    /// The environment for which it wrote.
    pub uid: Uid,
    /// Where the items in the store came from. Until a claim's comparison is closed, that is what its predecessor wrote.
    pub lineage: Lineage,
    /// The epoch under which it wrote.
    pub epoch: Epoch,
    /// The grant under which it wrote.
    pub grant: GrantId,
    /// The run of the worker that wrote.
    pub incarnation: Incarnation,
    /// Number of the write, never repeated within an incarnation.
    pub write: u64,
    /// Flags in the store after the write.
    pub flags: u64,
    /// Segments in the store after the write.
    pub segments: u64,
    /// Whether it still serves.
    pub kind: FenceKind,
}

/// What a fence is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceKind {
    /// It keeps everybody else out.
    Serving,
    /// The environment was paused or removed: a grant of a higher epoch may claim, whatever its uid.
    Released,
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.environment_id.as_deref().unwrap_or("-"), self.origin)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incarnation { state_directory, start_counter, random } = &self.incarnation;
        write!(
            f,
            "{FORMAT} {} {} {} {} {} {state_directory}.{start_counter}.{random:016x} {} {}.{} {}",
            self.fleet,
            self.uid,
            self.lineage,
            self.epoch,
            self.grant,
            self.write,
            self.flags,
            self.segments,
            match self.kind {
                FenceKind::Serving => "serving",
                FenceKind::Released => "released",
            },
        )
    }
}

impl Fence {
    /// Reads a value; `None` if it is not a fence of this format.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut word = || words.next();
        if word()? != FORMAT {
            return None;
        }
        let fence = Self {
            fleet: word()?.parse().ok()?,
            uid: word()?.parse().ok()?,
            lineage: Lineage::parse(word()?)?,
            epoch: Epoch(word()?.parse().ok()?),
            grant: GrantId::parse(word()?)?,
            incarnation: parse_incarnation(word()?)?,
            write: word()?.parse().ok()?,
            flags: 0,
            segments: 0,
            kind: FenceKind::Serving,
        };
        let (flags, segments) = word()?.split_once('.')?;
        let kind = match word()? {
            "released" => FenceKind::Released,
            "serving" => FenceKind::Serving,
            _ => return None,
        };
        let fence = Self { flags: flags.parse().ok()?, segments: segments.parse().ok()?, kind, ..fence };
        // Exactly what would be written, so that equal meaning is equal text.
        (words.next().is_none() && fence.to_string() == text).then_some(fence)
    }
}

/// Stands for an origin that nobody knows; no digest is written so.
const UNKNOWN_ORIGIN: &str = "unknown";

impl Lineage {
    /// That of data of which nobody knows where it came from. It is the same as no other.
    pub fn unknown() -> Self {
        Self { environment_id: None, origin: UNKNOWN_ORIGIN.into() }
    }

    /// Whether nobody knows.
    pub fn is_unknown(&self) -> bool {
        *self.origin == *UNKNOWN_ORIGIN
    }

    /// Whether versions of the two are comparable. An environment id that is absent matches any: it was not sent, or not
    /// yet.
    pub fn is_same(&self, other: &Self) -> bool {
        let ids_match = match (&self.environment_id, &other.environment_id) {
            (Some(one), Some(another)) => one == another,
            (Some(_) | None, None) | (None, Some(_)) => true,
        };
        self.origin == other.origin && !self.is_unknown() && ids_match
    }

    /// Whether LaunchDarkly's environment id says that versions of the two are comparable.
    pub fn is_proven_same(&self, other: &Self) -> bool {
        self.environment_id.is_some() && other.environment_id.is_some() && self.is_same(other)
    }

    /// A lineage; an environment id that could not stand in a fence counts as absent.
    pub fn new(environment_id: Option<&str>, origin: &str) -> Self {
        let plain = |id: &&str| (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Self { environment_id: environment_id.filter(plain).map(Into::into), origin: origin.into() }
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, origin) = text.split_once('.')?;
        let environment_id = (id != "-").then_some(id);
        Some(Self { environment_id: environment_id.map(Into::into), origin: origin.into() })
    }
}

fn parse_incarnation(text: &str) -> Option<Incarnation> {
    let mut parts = text.split('.');
    let incarnation = Incarnation {
        state_directory: parts.next()?.parse().ok()?,
        start_counter: parts.next()?.parse().ok()?,
        random: u64::from_str_radix(parts.next()?, 16).ok()?,
    };
    parts.next().is_none().then_some(incarnation)
}

/// 16 hex digits that name a text.
pub(crate) fn digest(text: &[u8]) -> String {
    let digest = Sha256::digest(text);
    let first = digest.first_chunk::<8>().expect("a SHA-256 digest has 32 bytes");
    format!("{:016x}", u64::from_be_bytes(*first))
}

/// What stands under the fence's key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Absent,
    /// A string.
    Value(String),
    /// Something that is not a string.
    WrongType,
}

/// Who wants to write.
#[derive(Debug, Clone, Copy)]
pub struct Claimant<'a> {
    /// The worker's fleet.
    pub fleet: &'a FleetId,
    /// The environment.
    pub uid: &'a Uid,
    /// The grant that it holds.
    pub grant: &'a Grant,
    /// This run of the worker.
    pub incarnation: &'a Incarnation,
    /// The value of the last write that the store acknowledged, if there was one under this grant.
    pub expected: Option<&'a str>,
    /// Leave to overwrite a foreign fence.
    pub take_over: Option<&'a TakeOver>,
}

/// What follows from the fence that is found. A patch is admitted by [`Verdict::Expected`] alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Exactly our last acknowledged write: go on.
    Expected,
    /// Our grant and incarnation, another number: an unknown outcome to be settled.
    Ours,
    /// May be claimed; what is stored must be compared in full.
    Claimable,
    /// Nothing there: may be claimed once control has confirmed the grant.
    Absent,
    /// Somebody else's: parked until a user takes over.
    Conflict,
    /// A newer owner's: this grant is over.
    Fenced,
}

/// Judges the fence that is found. The rows are those of the design's table, the first that fits.
pub fn judge(found: &Found, me: &Claimant<'_>) -> Verdict {
    let text = match found {
        Found::Absent => return Verdict::Absent,
        Found::Value(text) if me.expected == Some(text) => return Verdict::Expected,
        Found::WrongType => return Verdict::Conflict,
        Found::Value(text) => text,
    };
    let foreign = || match me.take_over {
        Some(TakeOver::Any) => Verdict::Claimable,
        Some(TakeOver::Value(shown)) if shown == text => Verdict::Claimable,
        Some(TakeOver::Value(_)) | None => Verdict::Conflict,
    };
    let Some(fence) = Fence::parse(text) else {
        return foreign();
    };
    if fence.fleet != *me.fleet || (fence.uid != *me.uid && fence.kind != FenceKind::Released) {
        return match foreign() {
            // Also with leave to overwrite it no epoch falls within a fleet: control gives a higher one.
            Verdict::Claimable if fence.fleet == *me.fleet && fence.epoch > me.grant.epoch => Verdict::Fenced,
            verdict => verdict,
        };
    }
    if fence.epoch > me.grant.epoch {
        return Verdict::Fenced;
    }
    if fence.epoch < me.grant.epoch {
        return Verdict::Claimable;
    }
    if fence.grant != me.grant.id {
        return Verdict::Fenced;
    }
    if fence.incarnation == *me.incarnation {
        return Verdict::Ours;
    }
    let same_directory = fence.incarnation.state_directory == me.incarnation.state_directory;
    if same_directory && fence.incarnation.start_counter < me.incarnation.start_counter {
        Verdict::Claimable
    } else {
        Verdict::Fenced
    }
}

#[cfg(test)]
mod tests;
