//! The right to write an environment, and who holds it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::names::{EnvironmentName, Generation, Uid, counter};
use crate::v1;

counter!(
    /// Grows with every grant of the same store and prefix, from 1. A write under a lower one is refused by the store.
    Epoch
);

/// Tells grants of equal epoch apart. 1 to 64 characters of `[A-Za-z0-9-]`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GrantId(Box<str>);

impl GrantId {
    /// Takes an id; `None` if its format is wrong.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<Uid>().ok().map(|_| Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an assignment asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// Hold stream and data; write nothing.
    Warm,
    /// Stream and write.
    Serve,
    /// Put the released fence; the data stays.
    Release,
    /// Delete the data by exact key names and put the released fence.
    Purge,
}

/// The right to write an environment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grant {
    /// Higher than that of every earlier grant of the same store and prefix.
    pub epoch: Epoch,
    /// Tells grants of equal epoch apart.
    pub id: GrantId,
    /// What it is for.
    pub intent: Intent,
}

/// One run of a worker. Writes of one incarnation are numbered without repetition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation {
    /// Made once per state directory, kept there.
    pub state_directory: Uid,
    /// Starts of that state directory, from 1.
    pub start_counter: u64,
    /// Random bits of this start.
    pub random: u64,
}

/// A grant that a worker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldGrant {
    /// Name of the environment.
    pub environment: EnvironmentName,
    /// Its uid.
    pub uid: Uid,
    /// The generation of the spec that the worker has.
    pub generation: Generation,
    /// The grant.
    pub grant: Grant,
}

/// A message of the session that does not say what it must: which part is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed message: {0}")]
pub struct Malformed(pub &'static str);

impl From<Intent> for v1::Intent {
    fn from(intent: Intent) -> Self {
        match intent {
            Intent::Warm => Self::Warm,
            Intent::Serve => Self::Serve,
            Intent::Release => Self::Release,
            Intent::Purge => Self::Purge,
        }
    }
}

impl From<&Grant> for v1::Grant {
    fn from(grant: &Grant) -> Self {
        Self {
            epoch: grant.epoch.0,
            id: grant.id.as_str().to_owned(),
            intent: v1::Intent::from(grant.intent).into(),
        }
    }
}

impl TryFrom<&v1::Grant> for Grant {
    type Error = Malformed;

    fn try_from(message: &v1::Grant) -> Result<Self, Malformed> {
        let intent = match message.intent() {
            v1::Intent::Warm => Intent::Warm,
            v1::Intent::Serve => Intent::Serve,
            v1::Intent::Release => Intent::Release,
            v1::Intent::Purge => Intent::Purge,
            v1::Intent::Unspecified => return Err(Malformed("grant.intent")),
        };
        if message.epoch == 0 {
            return Err(Malformed("grant.epoch"));
        }
        let id = GrantId::parse(&message.id).ok_or(Malformed("grant.id"))?;
        Ok(Self { epoch: Epoch(message.epoch), id, intent })
    }
}

impl From<&HeldGrant> for v1::HeldGrant {
    fn from(held: &HeldGrant) -> Self {
        Self {
            environment: held.environment.to_string(),
            uid: held.uid.to_string(),
            generation: held.generation.0,
            grant: Some((&held.grant).into()),
        }
    }
}

impl TryFrom<&v1::HeldGrant> for HeldGrant {
    type Error = Malformed;

    fn try_from(message: &v1::HeldGrant) -> Result<Self, Malformed> {
        Ok(Self {
            environment: message.environment.parse().map_err(|_| Malformed("held.environment"))?,
            uid: message.uid.parse().map_err(|_| Malformed("held.uid"))?,
            generation: Generation(message.generation),
            grant: message.grant.as_ref().ok_or(Malformed("held.grant"))?.try_into()?,
        })
    }
}

impl From<&Incarnation> for v1::Incarnation {
    fn from(incarnation: &Incarnation) -> Self {
        Self {
            state_directory_id: incarnation.state_directory.to_string(),
            start_counter: incarnation.start_counter,
            random: incarnation.random,
        }
    }
}

impl TryFrom<&v1::Incarnation> for Incarnation {
    type Error = Malformed;

    fn try_from(message: &v1::Incarnation) -> Result<Self, Malformed> {
        Ok(Self {
            state_directory: message
                .state_directory_id
                .parse()
                .map_err(|_| Malformed("incarnation.state_directory_id"))?,
            start_counter: message.start_counter,
            random: message.random,
        })
    }
}
