//! Status that control has not been told: the latest of each environment, a bounded number of messages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flotilla_proto::session::WorkerMessage;
use flotilla_proto::status::ErrorKind;
use flotilla_proto::{EnvironmentName, EnvironmentReport, LastError, SourceState, Timestamp};

/// The shortest time between two messages.
const MESSAGE_INTERVAL: Duration = Duration::from_millis(50);
/// The most environments of one message.
const ENVIRONMENTS_PER_MESSAGE: usize = 200;
/// The shortest time between two reports of an environment that differ in counters and times only.
const COUNTERS_INTERVAL: Duration = Duration::from_secs(10);

/// The latest status of each environment, and which are due when.
#[derive(Debug, Default)]
pub(super) struct Reports {
    latest: BTreeMap<EnvironmentName, Entry>,
    /// When each environment that has news is due. Empty without a session.
    due: BTreeSet<(Timestamp, EnvironmentName)>,
    next_message: Timestamp,
    session: Listening,
}

#[derive(Debug, Default, PartialEq)]
enum Listening {
    Yes,
    #[default]
    No,
}

#[derive(Debug)]
struct Entry {
    report: EnvironmentReport,
    last_sent: Timestamp,
    due: Option<Timestamp>,
}

impl Reports {
    /// A new status of an environment that runs here.
    pub(super) fn take(&mut self, now: Timestamp, report: EnvironmentReport) {
        let name = report.environment.clone();
        let due = if let Some(entry) = self.latest.get_mut(&name) {
            let before = std::mem::replace(&mut entry.report, report);
            if before.differs_beyond_counters(&entry.report) {
                now
            } else {
                entry.last_sent.after(COUNTERS_INTERVAL)
            }
        } else {
            let entry = Entry { report, last_sent: now, due: None };
            self.latest.insert(name.clone(), entry);
            now
        };
        if self.session == Listening::Yes {
            self.schedule(name, due);
        }
    }

    /// An environment's task has ended by itself: until the next one reports, nothing of it is alive.
    pub(super) fn failed(&mut self, now: Timestamp, environment: &EnvironmentName, pause: Duration) {
        let Some(mut report) = self.latest.get(environment).map(|entry| entry.report.clone()) else { return };
        let message =
            format!("the environment's task ended unexpectedly; next attempt in {:.0} s", pause.as_secs_f64());
        let error = LastError { kind: ErrorKind::Network, status: None, message, time: now };
        // What takes no data has no source that could be interrupted.
        report.source_state = report.source_state.map(|_| SourceState::Interrupted);
        report.source_error = report.source_state.map(|_| error.clone());
        report.last_error = Some(error);
        self.take(now, report);
    }

    /// The next message, if it is time for one.
    pub(super) fn next(&mut self, now: Timestamp) -> Option<WorkerMessage> {
        if self.next_due()? > now {
            return None;
        }
        let mut reports = Vec::new();
        while reports.len() < ENVIRONMENTS_PER_MESSAGE {
            let Some((_, name)) = self.due.first().filter(|(due, _)| *due <= now).cloned() else {
                break;
            };
            self.due.pop_first();
            if let Some(entry) = self.latest.get_mut(&name) {
                entry.due = None;
                entry.last_sent = now;
                reports.push(entry.report.clone());
            }
        }
        self.next_message = now.after(MESSAGE_INTERVAL);
        Some(WorkerMessage::Report(reports))
    }

    /// When [`Self::next`] has something; `None`: there is no news.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| (*due).max(self.next_message))
    }

    /// Control listens, and knows nothing.
    pub(super) fn session_begun(&mut self, now: Timestamp) {
        self.session = Listening::Yes;
        let names: Vec<_> = self.latest.keys().cloned().collect();
        for name in names {
            self.schedule(name, now);
        }
    }

    /// Nobody listens.
    pub(super) fn session_lost(&mut self) {
        self.session = Listening::No;
        self.due.clear();
        for entry in self.latest.values_mut() {
            entry.due = None;
        }
    }

    /// The environment is gone.
    pub(super) fn forget(&mut self, environment: &EnvironmentName) {
        if let Some(Entry { due: Some(due), .. }) = self.latest.remove(environment) {
            self.due.remove(&(due, environment.clone()));
        }
    }

    /// Due at `due`, or before if it was due before.
    fn schedule(&mut self, name: EnvironmentName, due: Timestamp) {
        let Some(entry) = self.latest.get_mut(&name) else { return };
        match entry.due {
            Some(before) if before <= due => return,
            Some(before) => {
                self.due.remove(&(before, name.clone()));
            }
            None => {}
        }
        entry.due = Some(due);
        self.due.insert((due, name));
    }
}
