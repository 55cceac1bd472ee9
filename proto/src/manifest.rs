//! Manifests: files that say what environments and stores shall be. No I/O: what they refer to is read by the caller.
//!
//! [`Manifest::parse`] reads the text of files, [`Manifest::request`] makes of it what control is asked for, and
//! [`export`] writes down what is there. The format is that of [`Document`], and `docs/environments.schema.json`.

// The format, as it is written.
mod document;
// A secret that is somewhere else.
mod secret;
// From text to declarations.
mod read;
// What is there, written down.
mod export;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::names::{EnvironmentName, StoreName};
use crate::secret::SdkKey;
use crate::secret_reference::SecretReference;
use crate::spec::EnvironmentSpec;
use crate::v1;

pub use document::{Document, EnvironmentDocument, GuardWord, StoreDocument};
pub use export::{Exported, export};
pub use read::Text;
pub use secret::SecretSource;

/// The label that tells who looks after an environment.
pub const MANAGED_BY: &str = "managed-by";

/// What some files say that environments and stores shall be. Every name stands for one thing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    /// Stores that shall be there, in the order of the files.
    pub stores: Vec<StoreDeclaration>,
    /// What environments shall be, in the order of the files.
    pub environments: Vec<EnvironmentDeclaration>,
}

/// A store that shall be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreDeclaration {
    /// Where that is said.
    pub place: Place,
    /// Its name.
    pub name: StoreName,
    /// How it is reached.
    pub document: StoreDocument,
}

/// What one environment shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvironmentDeclaration {
    /// Where that is said.
    pub place: Place,
    /// Its name.
    pub name: EnvironmentName,
    /// All that it shall be.
    pub spec: EnvironmentSpec,
    /// Where its key is; `None`: the one that control has stays.
    pub sdk_key: Option<SecretSource>,
}

/// Where something is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as its reader calls it.
    pub file: String,
    /// Which of the file's documents, from 1.
    pub document: usize,
    /// What it is about, as `environment "spree"`; empty: the document as a whole.
    pub subject: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, document {}", self.file, self.document)?;
        if self.subject.is_empty() { Ok(()) } else { write!(f, ", {}", self.subject) }
    }
}

/// What is wrong with a manifest: where, and what is allowed. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}{}{key}: {problem}", if .key.is_empty() { "" } else { ", " })]
pub struct ManifestError {
    /// Where.
    pub place: Place,
    /// The key, as `labels.team`; empty: none in particular.
    pub key: String,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl ManifestError {
    fn new(place: &Place, key: &str, problem: impl Into<String>) -> Self {
        Self { place: place.clone(), key: key.to_owned(), problem: problem.into() }
    }
}

/// What environments are said to be managed by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manager {
    /// None carries the label `managed-by`.
    Nobody,
    /// All carry this value of it.
    One(String),
}

impl Manifest {
    /// Reads files, in their order. All errors are returned, not the first only.
    pub fn parse(texts: &[Text]) -> Result<Self, Vec<ManifestError>> {
        read::read(texts)
    }

    /// What control is asked for. `resolve` gives the text of a secret that is somewhere else, or what is wrong with it; the
    /// end of a line after it is left out. It is not asked about those that workers read.
    pub fn request(
        &self,
        mut resolve: impl FnMut(&Place, &SecretSource) -> Result<String, String>,
    ) -> Result<v1::BatchApplyEnvironmentsRequest, Vec<ManifestError>> {
        let mut errors = Vec::new();
        let mut secret = |place: &Place, key: &str, source: Option<&SecretSource>| {
            let text = match source {
                None => return Ok(Asked::Nothing),
                Some(SecretSource::Worker(reference)) => return Ok(Asked::Reference(reference.clone())),
                Some(source) => resolve(place, source),
            };
            let text = text.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
            match text {
                Ok(text) if text.is_empty() => Err("it is empty".to_owned()),
                other => other.map(Asked::Secret),
            }
            .map_err(|problem| ManifestError::new(place, key, problem))
        };
        let mut entries = Vec::new();
        for EnvironmentDeclaration { place, name, spec, sdk_key } in &self.environments {
            let key = secret(place, "sdkKey", sdk_key.as_ref()).and_then(|asked| match asked {
                Asked::Secret(text) => SdkKey::parse("sdk_key", &text)
                    .map(|key| key.expose().to_owned())
                    .map_err(|violation| ManifestError::new(place, "sdkKey", violation.description)),
                Asked::Reference(reference) => Ok(reference.to_string()),
                Asked::Nothing => Ok(String::new()),
            });
            match key {
                Ok(sdk_key) => entries.push(v1::EnvironmentEntry {
                    name: name.to_string(),
                    spec: Some(spec.into()),
                    sdk_key,
                    take_over: false,
                }),
                Err(error) => errors.push(error),
            }
        }
        let mut stores = Vec::new();
        for StoreDeclaration { place, name, document } in &self.stores {
            let password = secret(place, "password", document.password.as_ref());
            let sentinels = secret(place, "sentinelPassword", document.sentinel_password.as_ref());
            match (password, sentinels) {
                (Ok(password), Ok(sentinels)) => {
                    let login = password.login(document.username.as_ref());
                    stores.push(document.entry(name, login, sentinels.login(document.sentinel_username.as_ref())));
                }
                (password, sentinels) => errors.extend(password.err().into_iter().chain(sentinels.err())),
            }
        }
        if errors.is_empty() {
            Ok(v1::BatchApplyEnvironmentsRequest { entries, stores, ..Default::default() })
        } else {
            Err(errors)
        }
    }

    /// Who looks after the environments, by their label `managed-by`. It is an error if that is not the same for all.
    pub fn manager(&self) -> Result<Manager, ManifestError> {
        let label = |environment: &EnvironmentDeclaration| environment.spec.labels.get(MANAGED_BY).cloned();
        let Some(first) = self.environments.first() else { return Ok(Manager::Nobody) };
        let shown = |label: Option<String>| label.map_or("none".to_owned(), |label| format!("{label:?}"));
        match self.environments.iter().find(|other| label(other) != label(first)) {
            None => Ok(label(first).map_or(Manager::Nobody, Manager::One)),
            Some(other) => {
                let problem = format!(
                    "it is {} here and {} at environment \"{}\"; what is not in the files is removed by this label, so all \
                     environments of the files must carry the same",
                    shown(label(other)),
                    shown(label(first)),
                    first.name
                );
                Err(ManifestError::new(&other.place, &format!("labels.{MANAGED_BY}"), problem))
            }
        }
    }
}

/// What control is told of a secret.
enum Asked {
    Nothing,
    Secret(String),
    Reference(SecretReference),
}

impl Asked {
    /// The part of a request that is about a login.
    fn login(self, username: Option<&String>) -> v1::StoreLogin {
        let (password, password_from) = match self {
            Self::Nothing => (String::new(), String::new()),
            Self::Secret(password) => (password, String::new()),
            Self::Reference(reference) => (String::new(), reference.to_string()),
        };
        v1::StoreLogin { username: username.cloned().unwrap_or_default(), password, password_from }
    }
}

/// What a manifest calls a field of a request: `spec.display_name` is `displayName`.
pub fn key_of(field: &str) -> String {
    let field = field.strip_prefix("spec.").unwrap_or(field);
    match field {
        "source.stream.initial_retry_delay" => "initialRetryDelay".to_owned(),
        "source.poll.interval" => "pollInterval".to_owned(),
        "source.file.path" => "source".to_owned(),
        other => other
            .split('_')
            .enumerate()
            .map(|(index, word)| match word.split_at_checked(1) {
                Some((first, rest)) if index > 0 => first.to_ascii_uppercase() + rest,
                Some(_) | None => word.to_owned(),
            })
            .collect(),
    }
}
