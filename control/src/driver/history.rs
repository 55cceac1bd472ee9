//! What changed lately, for those who watch: names and removals, in order, within a bound.
//!
//! A watcher holds a revision and asks for what came after it. Several changes of one environment are told as one, so
//! one that reads slowly reads less, and one that lags beyond the bound has to list again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use flotilla_proto::{EnvironmentName, Term, Uid};

/// How many changes are remembered.
const CAPACITY: usize = 65_536;

/// A place in the history: `<term>.<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    term: Term,
    number: u64,
}

impl Revision {
    /// Reads what `Display` wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (term, number) = text.split_once('.')?;
        Some(Self { term: Term(term.parse().ok()?), number: number.parse().ok()? })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.term, self.number)
    }
}

/// What happened to an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was created or changed.
    Changed,
    /// It is gone.
    Removed(Uid),
}

/// The revision is from another term, or older than what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// All that happened to one environment since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Its name.
    pub(crate) environment: EnvironmentName,
    /// The last one that was removed under this name meanwhile.
    pub(crate) removed: Option<Uid>,
    /// Where the last of it stands.
    pub(crate) revision: Revision,
}

/// The last changes, oldest first.
#[derive(Debug)]
pub(crate) struct History {
    term: Term,
    last: u64,
    capacity: usize,
    entries: VecDeque<(EnvironmentName, Event)>,
}

impl History {
    pub(crate) fn new(term: Term) -> Self {
        Self::with_capacity(term, CAPACITY)
    }

    fn with_capacity(term: Term, capacity: usize) -> Self {
        Self { term, last: 0, capacity, entries: VecDeque::new() }
    }

    /// The term grew: numbers of the old one may have been given out by another control, so they are all forgotten.
    pub(super) fn keep_to(&mut self, term: Term) {
        if term != self.term {
            *self = Self::with_capacity(term, self.capacity);
        }
    }

    pub(super) fn record(&mut self, environment: EnvironmentName, event: Event) {
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back((environment, event));
        self.last += 1;
    }

    /// Where the last change stands.
    pub(crate) fn newest(&self) -> Revision {
        Revision { term: self.term, number: self.last }
    }

    /// What was touched after a revision, in the order of each environment's last change, at most `limit` of them.
    pub(crate) fn since(&self, revision: Revision, limit: usize) -> Result<Vec<Touched>, Lost> {
        let forgotten = self.last - u64::try_from(self.entries.len()).expect("fewer than 2^64 entries");
        if revision.term != self.term || revision.number < forgotten || revision.number > self.last {
            return Err(Lost);
        }
        let known = usize::try_from(revision.number - forgotten).expect("within the entries");
        let mut touched: BTreeMap<&EnvironmentName, (u64, Option<Uid>)> = BTreeMap::new();
        for (number, (environment, event)) in (revision.number + 1..).zip(self.entries.iter().skip(known)) {
            let (last, removed) = touched.entry(environment).or_default();
            *last = number;
            match event {
                Event::Changed => {}
                Event::Removed(uid) => *removed = Some(uid.clone()),
            }
        }
        let mut touched: Vec<_> = touched
            .into_iter()
            .map(|(environment, (number, removed))| Touched {
                environment: environment.clone(),
                removed,
                revision: Revision { term: self.term, number },
            })
            .collect();
        touched.sort_by_key(|one| one.revision);
        touched.truncate(limit);
        Ok(touched)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> EnvironmentName {
        text.parse().unwrap()
    }

    fn at(number: u64) -> Revision {
        Revision { term: Term(3), number }
    }

    fn names(history: &History, number: u64) -> Vec<String> {
        let touched = history.since(at(number), 100).unwrap();
        touched.iter().map(|one| one.environment.to_string()).collect()
    }

    #[test]
    fn several_changes_of_one_are_told_as_one_in_the_order_of_the_last() {
        let mut history = History::new(Term(3));
        for environment in ["a", "b", "a", "c"] {
            history.record(name(environment), Event::Changed);
        }
        assert_eq!(names(&history, 0), ["b", "a", "c"]);
        assert_eq!(names(&history, 3), ["c"]);
        assert!(names(&history, 4).is_empty());
        let first = history.since(at(0), 1).unwrap().pop().unwrap();
        assert_eq!(names(&history, first.revision.number), ["a", "c"]);
    }

    #[test]
    fn a_removal_is_remembered_though_the_name_came_back() {
        let mut history = History::new(Term(3));
        history.record(name("a"), Event::Removed("u1".parse().unwrap()));
        history.record(name("a"), Event::Changed);
        let touched = history.since(at(0), 100).unwrap();
        assert_eq!(touched.len(), 1);
        assert_eq!(touched[0].removed, Some("u1".parse().unwrap()));
    }

    #[test]
    fn what_is_not_remembered_is_lost() {
        let mut history = History::with_capacity(Term(3), 2);
        for environment in ["a", "b", "c"] {
            history.record(name(environment), Event::Changed);
        }
        assert_eq!(history.since(at(0), 100), Err(Lost));
        assert_eq!(names(&history, 1), ["b", "c"]);
        assert_eq!(history.since(at(4), 100), Err(Lost), "a number that was not given yet");
        let other = Revision { term: Term(2), number: 2 };
        assert_eq!(history.since(other, 100), Err(Lost));
        history.keep_to(Term(9));
        assert_eq!(history.since(at(3), 100), Err(Lost));
    }

    #[test]
    fn a_revision_survives_as_text() {
        assert_eq!(Revision::parse(&at(7).to_string()), Some(at(7)));
        for wrong in ["", "3", "3.", ".7", "a.b", "3.7.1", "-3.7"] {
            assert_eq!(Revision::parse(wrong), None, "{wrong}");
        }
    }
}
