//! Waiting until a worker has nothing left, over a watch, never by polling.

use std::time::Duration;

use flotilla_proto::client::{self as control, Broken, Messages};
use flotilla_proto::v1::watch_workers_response::Event;
use flotilla_proto::v1::{WatchWorkersRequest, WatchWorkersResponse, Worker, WorkerScheduling};
use tokio::time::Instant;

use crate::failure::{ExitStatus, Failure};
use crate::output::text::count;
use crate::session::Session;

/// The shortest time between two lines of progress.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// What a drain has come to.
#[derive(Debug, Clone, PartialEq)]
enum Outcome {
    /// So many environments are left.
    Left(u32),
    /// Nothing is left.
    Drained,
    /// It was ended.
    Ended(String),
}

/// Follows a drain, says how far it is, and returns the worker once it has nothing left.
pub(super) async fn until_drained(
    session: &mut Session,
    worker: Worker,
    timeout: Duration,
) -> Result<Worker, Failure> {
    let name = worker.name.clone();
    let mut left = None;
    let follow = async {
        let mut messages = Messages::after_an_answer(session.client.program());
        let (mut seen, mut told_at) = (worker, None::<Instant>);
        loop {
            match outcome(&seen) {
                Outcome::Drained => return Ok(seen),
                Outcome::Ended(message) => return Err(Failure::new(ExitStatus::Failed, message)),
                Outcome::Left(count) if left == Some(count) => {}
                Outcome::Left(number) => {
                    left = Some(number);
                    if told_at.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
                        #[expect(clippy::disallowed_methods, reason = "limits the lines that a person reads")]
                        let now = Instant::now();
                        told_at = Some(now);
                        session.note(&format!("worker/{name} {} left", count(number.into(), "environment")));
                    }
                }
            }
            seen = next(&mut messages, &name).await?;
        }
    };
    match tokio::time::timeout(timeout, follow).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(ExitStatus::TimedOut, time_ran_out(&name, left, timeout))
            .hint(format!("the drain goes on; see what is in its way with `flotilla events --worker {name}`"))),
    }
}

fn time_ran_out(name: &str, left: Option<u32>, timeout: Duration) -> String {
    let left = left.map_or_else(String::new, |left| format!(" with {} left", count(left.into(), "environment")));
    format!("worker/{name} is not drained after {}{left}", humantime::format_duration(timeout))
}

fn outcome(worker: &Worker) -> Outcome {
    let Worker { name, environments, standby, .. } = worker;
    match (worker.scheduling(), environments + standby) {
        (WorkerScheduling::Draining, 0) => Outcome::Drained,
        (WorkerScheduling::Draining, left) => Outcome::Left(left),
        (WorkerScheduling::Active | WorkerScheduling::Unspecified, _) => {
            Outcome::Ended(format!("worker/{name} was uncordoned meanwhile, which ended the drain"))
        }
        (WorkerScheduling::Cordoned, _) => {
            Outcome::Ended(format!("worker/{name} was cordoned meanwhile, which ended the drain"))
        }
    }
}

/// The worker as it is now, whenever it may have changed.
async fn next(messages: &mut Messages<WatchWorkersResponse>, name: &str) -> Result<Worker, Failure> {
    // Each watch begins with what there is: nothing is missed by not resuming.
    let open = |client: &control::Client| {
        let mut client = client.fleet();
        async move { client.watch_workers(WatchWorkersRequest::default()).await }
    };
    loop {
        match messages.next(open).await {
            Ok(WatchWorkersResponse { event: Some(Event::Changed(worker)), .. }) if worker.name == name => {
                return Ok(worker);
            }
            Ok(WatchWorkersResponse { event: Some(Event::Removed(removed)), .. }) if removed.name == name => {
                let message = format!("worker/{name} was forgotten meanwhile");
                return Err(Failure::new(ExitStatus::NotFound, message));
            }
            // Of another worker, or of none.
            Ok(WatchWorkersResponse { .. }) | Err(Broken::Compacted) => {}
            Err(Broken::Failed(error)) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drain_is_over_when_nothing_is_left_or_somebody_ended_it() {
        let worker = |scheduling: WorkerScheduling, environments, standby| Worker {
            name: "w1".to_owned(),
            scheduling: scheduling.into(),
            environments,
            standby,
            ..Worker::default()
        };
        assert_eq!(outcome(&worker(WorkerScheduling::Draining, 3, 1)), Outcome::Left(4));
        assert_eq!(outcome(&worker(WorkerScheduling::Draining, 0, 1)), Outcome::Left(1));
        assert_eq!(outcome(&worker(WorkerScheduling::Draining, 0, 0)), Outcome::Drained);
        for scheduling in [WorkerScheduling::Active, WorkerScheduling::Cordoned] {
            assert!(matches!(outcome(&worker(scheduling, 3, 0)), Outcome::Ended(_)));
        }
    }
}
