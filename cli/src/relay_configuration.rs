//! What LaunchDarkly's relay is configured with, as far as it concerns daemon mode: its file and its variables, both to one
//! model. No I/O: text and variables are handed over.
//!
//! Start reading at [`RelayConfiguration`]; [`options`] is the table of all that the relay knows.

// The dialect of the file.
mod gcfg;
// All that the relay knows, and what it means here.
mod options;
// What is said, wherever it is said.
mod settings;
// From the file to settings.
mod file;
// From variables to settings.
mod variables;
// From settings to what they come to.
mod resolve;
// The Redis of it.
mod redis;
// Names that are valid here.
mod names;
// As a manifest.
mod declared;
#[cfg(test)]
mod tests;

use std::fmt;

use flotilla_proto::{EnvironmentName, Prefix, StoreUrl};
use zeroize::Zeroizing;

pub(crate) use declared::{Declared, SecretPlace, StoreChoice};

/// What a relay keeps in Redis.
#[derive(Debug)]
pub(crate) struct RelayConfiguration {
    /// What it was read from, in words.
    pub(crate) source: String,
    /// Where it is kept, the login included.
    pub(crate) redis: StoreUrl,
    /// The password of that Redis.
    password: Option<Secret>,
    /// Base of LaunchDarkly's streaming service; `None`: LaunchDarkly's own.
    stream_uri: Option<String>,
    /// Base of LaunchDarkly's polling service; `None`: LaunchDarkly's own.
    base_uri: Option<String>,
    /// In the order in which they are said; the filtered ones of an environment follow it.
    pub(crate) environments: Vec<RelayEnvironment>,
    /// What has no meaning here: what it is and why.
    pub(crate) not_needed: Vec<String>,
    /// What the relay warns of, too.
    pub(crate) warnings: Vec<String>,
}

/// One environment that a relay keeps.
#[derive(Debug)]
pub(crate) struct RelayEnvironment {
    /// Its name here.
    pub(crate) name: EnvironmentName,
    /// Its name there.
    original: String,
    /// What its keys in Redis begin with.
    pub(crate) prefix: Prefix,
    /// The payload filter.
    filter: Option<String>,
    /// Its key.
    sdk_key: Secret,
}

impl RelayConfiguration {
    /// Reads the file; `name` is what it is called in errors. All errors are returned, not the first only.
    pub(crate) fn of_file(name: &str, text: &str) -> Result<Self, Vec<RelayError>> {
        resolve::resolve(file::read(name, text))
    }

    /// Reads variables, among which may be others. All errors are returned, not the first only.
    pub(crate) fn of_variables(
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Vec<RelayError>> {
        resolve::resolve(variables::read(variables))
    }
}

/// A text that is never shown, and wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
struct Hidden(Zeroizing<String>);

impl Hidden {
    fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// A secret of the relay's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Secret {
    text: Hidden,
    /// The variable that holds it and nothing else, if it was said in one.
    variable: Option<String>,
    /// What a file for it can be called.
    name: String,
    /// What a variable for it can be called, in letters of any case.
    made_up: String,
}

/// Where something is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the file, in this line.
    Line(String, usize),
    /// In a variable.
    Variable(String),
    /// Nowhere in particular of this source.
    Source(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(file, line) => write!(f, "{file}:{line}"),
            Self::Variable(text) | Self::Source(text) => f.write_str(text),
        }
    }
}

/// What is wrong with a relay's configuration, or cannot be honoured: where, and the way out. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub(crate) struct RelayError {
    place: Place,
    problem: String,
}
