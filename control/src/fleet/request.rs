//! Request ids that were answered: a retry within the hour is answered, not carried out again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::Timestamp;

use super::apply::Batch;
use super::boundary::{Command, Mutation, RequestId, StoreCommand, Subject};

/// How long a request id is remembered.
const REMEMBERED: Duration = Duration::from_hours(1);

/// How many request ids are remembered at most. To forget one early would carry its retry out anew.
pub(super) const MOST_REMEMBERED: usize = 100_000;
/// What is said beyond that.
pub(super) const FULL: &str = "100000 request ids were used within the last hour and no more are remembered; send the request without a request_id, or later";

impl Command {
    /// What makes a retry safe, if it can be told from another command.
    pub(super) fn request(&self) -> Option<&RequestId> {
        match self {
            Self::Mutate(Mutation { request, .. })
            | Self::Apply(Batch { request, .. })
            | Self::Store(StoreCommand { request, .. }) => request.as_ref(),
            Self::Worker(_) | Self::CheckStore(_) | Self::Ask { .. } => None,
        }
    }
}

/// Request ids of the last hour.
#[derive(Debug, Clone, Default)]
pub(super) struct Requests {
    answered: BTreeMap<String, Answered>,
    by_time: BTreeSet<(Timestamp, String)>,
}

#[derive(Debug, Clone)]
struct Answered {
    digest: String,
    subject: Subject,
    at: Timestamp,
}

impl Requests {
    /// Notes that a request was answered.
    pub(super) fn answered(&mut self, at: Timestamp, request: RequestId, subject: Subject) {
        self.by_time.insert((at, request.id.clone()));
        let answered = Answered { digest: request.digest, subject, at };
        if let Some(earlier) = self.answered.insert(request.id.clone(), answered)
            && earlier.at != at
        {
            self.by_time.remove(&(earlier.at, request.id));
        }
    }

    /// The digest and subject of a request that was answered within the hour.
    pub(super) fn find(&self, now: Timestamp, id: &str) -> Option<(&str, &Subject)> {
        let answered = self.answered.get(id)?;
        (now.since(answered.at) < REMEMBERED).then_some((&answered.digest, &answered.subject))
    }

    /// Whether no more can be remembered now.
    pub(super) fn is_full(&self) -> bool {
        self.answered.len() >= MOST_REMEMBERED
    }

    /// Forgets what is too old. The instant before which everything is forgotten, if something was.
    pub(super) fn forget(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut forgotten = None;
        while let Some((at, _)) = self.by_time.first()
            && now.since(*at) >= REMEMBERED
            && let Some((at, id)) = self.by_time.pop_first()
        {
            self.answered.remove(&id);
            forgotten = Some(at.after(Duration::from_millis(1)));
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_are_remembered_than_fit_and_none_is_forgotten_early() {
        let mut requests = Requests::default();
        for number in 0..MOST_REMEMBERED {
            assert!(!requests.is_full());
            let request = RequestId { id: number.to_string(), digest: String::new() };
            requests.answered(Timestamp(1), request, Subject::Environment("a".parse().unwrap()));
        }
        assert!(requests.is_full() && requests.find(Timestamp(1), "0").is_some());
        requests.forget(Timestamp(1).after(REMEMBERED));
        assert!(!requests.is_full());
    }
}
