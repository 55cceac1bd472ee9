//! What changed lately, for those who watch: names and removals, in order, within a bound.
//!
//! A watcher holds a revision and asks for what came after it. Several changes of one thing are told as one, so one that
//! reads slowly reads less, and one that lags beyond the bound has to list again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use flotilla_proto::{EnvironmentName, Term, Uid, WorkerName};

/// How many changes are remembered: few enough in tests that one can be slower than that.
const CAPACITY: usize = if cfg!(test) { 1024 } else { 65_536 };

/// A place in the history: `<term>.<number>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Revision {
    term: Term,
    number: u64,
}

impl Revision {
    pub(crate) fn at(term: Term, number: u64) -> Self {
        Self { term, number }
    }

    /// The term.
    pub(crate) fn term(self) -> Term {
        self.term
    }

    /// The number within its term, or, of events and audit records, among all.
    pub(crate) fn number(self) -> u64 {
        self.number
    }

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

/// What is watched.
pub(crate) trait Watched: fmt::Debug {
    /// What it is called.
    type Name: fmt::Debug + Clone + Ord;
    /// What tells one that is gone from another of its name.
    type Gone: fmt::Debug + Clone + PartialEq;
}

/// Environments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environments;

/// Workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workers;

impl Watched for Environments {
    type Name = EnvironmentName;
    type Gone = Uid;
}

impl Watched for Workers {
    type Name = WorkerName;
    type Gone = ();
}

/// What happened to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate<Gone> {
    /// It was created or changed.
    Changed,
    /// It is gone.
    Removed(Gone),
}

/// The revision is from another term, or older than what is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lost;

/// All that happened to one since a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Touched<W: Watched> {
    /// Its name.
    pub(crate) name: W::Name,
    /// The last one that was removed under this name meanwhile.
    pub(crate) removed: Option<W::Gone>,
    /// Where the last of it stands.
    pub(crate) revision: Revision,
}

/// The last changes, oldest first.
#[derive(Debug)]
pub(crate) struct History<W: Watched> {
    term: Term,
    last: u64,
    capacity: usize,
    entries: VecDeque<(W::Name, Fate<W::Gone>)>,
}

impl<W: Watched> History<W> {
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

    pub(super) fn record(&mut self, name: W::Name, fate: Fate<W::Gone>) {
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back((name, fate));
        self.last += 1;
    }

    /// Where the last change stands.
    pub(crate) fn newest(&self) -> Revision {
        Revision { term: self.term, number: self.last }
    }

    /// What was touched after a revision, in the order of each one's last change, at most `limit` of them.
    pub(crate) fn since(&self, revision: Revision, limit: usize) -> Result<Vec<Touched<W>>, Lost> {
        let forgotten = self.last - u64::try_from(self.entries.len()).expect("fewer than 2^64 entries");
        if revision.term != self.term || revision.number < forgotten || revision.number > self.last {
            return Err(Lost);
        }
        let known = usize::try_from(revision.number - forgotten).expect("within the entries");
        let mut touched: BTreeMap<&W::Name, (u64, Option<W::Gone>)> = BTreeMap::new();
        for (number, (name, fate)) in (revision.number + 1..).zip(self.entries.iter().skip(known)) {
            let (last, removed) = touched.entry(name).or_insert((0, None));
            *last = number;
            match fate {
                Fate::Changed => {}
                Fate::Removed(gone) => *removed = Some(gone.clone()),
            }
        }
        let mut touched: Vec<_> = touched
            .into_iter()
            .map(|(name, (number, removed))| Touched {
                name: name.clone(),
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

    fn names(history: &History<Environments>, number: u64) -> Vec<String> {
        let touched = history.since(at(number), 100).unwrap();
        touched.iter().map(|one| one.name.to_string()).collect()
    }

    #[test]
    fn several_changes_of_one_are_told_as_one_in_the_order_of_the_last() {
        let mut history = History::<Environments>::new(Term(3));
        for environment in ["a", "b", "a", "c"] {
            history.record(name(environment), Fate::Changed);
        }
        assert_eq!(names(&history, 0), ["b", "a", "c"]);
        assert_eq!(names(&history, 3), ["c"]);
        assert!(names(&history, 4).is_empty());
        let first = history.since(at(0), 1).unwrap().pop().unwrap();
        assert_eq!(names(&history, first.revision.number), ["a", "c"]);
    }

    #[test]
    fn a_removal_is_remembered_though_the_name_came_back() {
        let mut history = History::<Environments>::new(Term(3));
        history.record(name("a"), Fate::Removed("u1".parse().unwrap()));
        history.record(name("a"), Fate::Changed);
        let touched = history.since(at(0), 100).unwrap();
        assert_eq!(touched.len(), 1);
        assert_eq!(touched[0].removed, Some("u1".parse().unwrap()));
    }

    #[test]
    fn what_is_not_remembered_is_lost() {
        let mut history = History::<Environments>::with_capacity(Term(3), 2);
        for environment in ["a", "b", "c"] {
            history.record(name(environment), Fate::Changed);
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
