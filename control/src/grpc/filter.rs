//! Which environments are meant.

use std::collections::BTreeSet;

use flotilla_proto::{EnvironmentName, FieldViolation, Initialization, Labels, Refusal, v1};

use crate::fleet::Glance;

/// Names that a filter may hold.
const MOST_NAMES: usize = 1000;
/// As many as there are.
const MOST_INITIALIZATIONS: usize = 4;

/// All parts must match; an empty part matches any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    labels: Labels,
    initializations: BTreeSet<Initialization>,
    names: BTreeSet<EnvironmentName>,
}

impl Filter {
    /// Checks a message.
    pub(super) fn parse(message: Option<v1::EnvironmentFilter>) -> Result<Self, Refusal> {
        let Some(message) = message else {
            return Ok(Self::default());
        };
        let mut violations = Vec::new();
        let mut initializations = BTreeSet::new();
        if message.initializations.len() > MOST_INITIALIZATIONS {
            let description =
                format!("{} of them; there are {MOST_INITIALIZATIONS}", message.initializations.len());
            violations.push(FieldViolation::new("filter.initializations", &description));
        }
        for number in message.initializations.iter().take(MOST_INITIALIZATIONS) {
            let known = v1::Initialization::try_from(*number).ok().and_then(Initialization::from_proto);
            match known {
                Some(initialization) => {
                    initializations.insert(initialization);
                }
                None => violations.push(FieldViolation::new(
                    "filter.initializations",
                    &format!("{number} is not an initialization"),
                )),
            }
        }
        if message.names.len() > MOST_NAMES {
            let description = format!("{} names; at most {MOST_NAMES}", message.names.len());
            violations.push(FieldViolation::new("filter.names", &description));
        }
        let mut names = BTreeSet::new();
        for name in message.names.iter().take(MOST_NAMES) {
            match name.parse() {
                Ok(name) => {
                    names.insert(name);
                }
                Err(error) => violations
                    .push(FieldViolation::new("filter.names", &flotilla_proto::InvalidName::to_string(&error))),
            }
        }
        if !violations.is_empty() {
            return Err(Refusal::fields(violations));
        }
        Ok(Self { labels: message.labels, initializations, names })
    }

    /// Whether every environment matches.
    pub(super) fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether an environment of this name can match.
    pub(super) fn may_match(&self, name: &EnvironmentName) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }

    /// Whether the environment matches.
    pub(super) fn matches(&self, environment: Glance<'_>) -> bool {
        self.may_match(environment.name()) && self.agrees(environment.labels(), || environment.initialization())
    }

    fn agrees(&self, labels: &Labels, initialization: impl FnOnce() -> Initialization) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && (self.initializations.is_empty() || self.initializations.contains(&initialization()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(labels: &[(&str, &str)], states: &[v1::Initialization], names: &[&str]) -> Filter {
        Filter::parse(Some(v1::EnvironmentFilter {
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            initializations: states.iter().map(|state| i32::from(*state)).collect(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        }))
        .unwrap()
    }

    #[test]
    fn all_parts_must_match() {
        use v1::Initialization::{Current, Stale};
        for (filter, expected) in [
            (Filter::default(), true),
            (parse(&[("team", "x")], &[Stale, Current], &["a", "b"]), true),
            (parse(&[("team", "y")], &[], &[]), false),
            (parse(&[], &[Current], &[]), false),
            (parse(&[], &[], &["b"]), false),
        ] {
            let labels = [("team".to_owned(), "x".to_owned())].into();
            let matches =
                filter.may_match(&"a".parse().unwrap()) && filter.agrees(&labels, || Initialization::Stale);
            assert_eq!(matches, expected, "{filter:?}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let message = v1::EnvironmentFilter {
            initializations: vec![0, 99],
            names: vec!["NO".to_owned()],
            ..Default::default()
        };
        assert_eq!(Filter::parse(Some(message)).unwrap_err().violations.len(), 3);
    }
}
