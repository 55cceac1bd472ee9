//! What is said, wherever it is said.

use super::options::{Honoured, Meaning, RelayOption};
use super::{Hidden, Place, RelayError};

/// All that a file, or variables, say.
#[derive(Debug)]
pub(super) struct Settings {
    /// What it was read from, in words.
    pub(super) source: String,
    pub(super) kind: SourceKind,
    /// In their order.
    pub(super) all: Vec<Setting>,
    /// Names of environments, in the order in which they are first said.
    pub(super) environments: Vec<Named>,
    /// Keys of projects with filters.
    pub(super) projects: Vec<Named>,
    pub(super) errors: Vec<RelayError>,
    /// What is left out, though it may be meant.
    pub(super) warnings: Vec<RelayError>,
}

/// What was read: some rules are of one only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SourceKind {
    File,
    Variables,
}

/// A name, and where it is first said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) place: Place,
}

/// One option and its value.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) place: Place,
    pub(super) option: &'static RelayOption,
    /// The environment or project that it is said of; empty: none.
    pub(super) of: String,
    /// `None`: it is switched on.
    pub(super) value: Option<Hidden>,
}

impl Settings {
    pub(super) fn new(kind: SourceKind, source: String) -> Self {
        Self {
            source,
            kind,
            all: Vec::new(),
            environments: Vec::new(),
            projects: Vec::new(),
            errors: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(super) fn wrong(&mut self, place: &Place, problem: impl Into<String>) {
        self.errors.push(RelayError { place: place.clone(), problem: problem.into() });
    }

    /// The source as a whole.
    pub(super) fn place(&self) -> Place {
        Place::Source(self.source.clone())
    }

    /// Notes that there is such an environment, or project.
    pub(super) fn name(all: &mut Vec<Named>, name: &str, place: &Place) {
        if all.iter().all(|one| one.name != name) {
            all.push(Named { name: name.to_owned(), place: place.clone() });
        }
    }

    /// All that is said of it, in order.
    pub(super) fn every<'a>(&'a self, what: Honoured, of: &'a str) -> impl DoubleEndedIterator<Item = &'a Setting> {
        let is_it = move |one: &&Setting| one.option.meaning == Meaning::Honoured(what) && one.of == of;
        self.all.iter().filter(is_it)
    }

    /// What counts of that: the last. What is empty is not said.
    pub(super) fn last<'a>(&'a self, what: Honoured, of: &'a str) -> Option<&'a Setting> {
        self.every(what, of).next_back().filter(|setting| !setting.text().is_empty() || setting.value.is_none())
    }
}

impl Setting {
    /// The value; empty where there is none.
    pub(super) fn text(&self) -> &str {
        self.value.as_ref().map_or("", Hidden::text)
    }

    /// Whether it switches something on.
    pub(super) fn is_on(&self, kind: SourceKind) -> Result<bool, RelayError> {
        let Some(value) = &self.value else { return Ok(true) };
        match (value.text().to_ascii_lowercase().as_str(), kind) {
            ("true" | "yes" | "1", _) | ("on", SourceKind::File) => Ok(true),
            ("false" | "no" | "0", _) | ("off", SourceKind::File) => Ok(false),
            _ => Err(self.error("not a valid boolean value (must be true/false, yes/no, or 0/1)")),
        }
    }

    /// Something is wrong with it.
    pub(super) fn error(&self, problem: &str) -> RelayError {
        let (section, key) = (self.option.section, self.option.key);
        let problem = match (&self.place, self.of.as_str()) {
            (Place::Variable(_), _) => problem.to_owned(),
            (Place::Line(..) | Place::Source(_), "") => format!("[{section}] {key}: {problem}"),
            (Place::Line(..) | Place::Source(_), of) => format!("[{section} {of:?}] {key}: {problem}"),
        };
        RelayError { place: self.place.clone(), problem }
    }
}
