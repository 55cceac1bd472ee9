//! Request ids that were answered: a retry within the hour is answered, not carried out again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::{EnvironmentName, Timestamp};

use super::boundary::RequestId;

/// How long a request id is remembered.
const REMEMBERED: Duration = Duration::from_hours(1);

/// Request ids of the last hour.
#[derive(Debug, Default)]
pub(super) struct Requests {
    answered: BTreeMap<String, Answered>,
    by_time: BTreeSet<(Timestamp, String)>,
}

#[derive(Debug)]
struct Answered {
    digest: String,
    environment: EnvironmentName,
    at: Timestamp,
}

impl Requests {
    /// Notes that a request was answered.
    pub(super) fn answered(&mut self, at: Timestamp, request: RequestId, environment: EnvironmentName) {
        self.by_time.insert((at, request.id.clone()));
        let answered = Answered { digest: request.digest, environment, at };
        if let Some(earlier) = self.answered.insert(request.id.clone(), answered)
            && earlier.at != at
        {
            self.by_time.remove(&(earlier.at, request.id));
        }
    }

    /// The digest and environment of a request that was answered within the hour.
    pub(super) fn find(&self, now: Timestamp, id: &str) -> Option<(&str, &EnvironmentName)> {
        let answered = self.answered.get(id)?;
        (now.since(answered.at) < REMEMBERED).then_some((&answered.digest, &answered.environment))
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
