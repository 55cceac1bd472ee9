//! Waiting for environments to reach a state, over a watch, never by polling.

// When a wait is over: pure.
mod progress;
// What keeps an environment from a state, in words: pure.
mod obstacle;

pub(crate) use obstacle::{RotationState, blocking_condition, rotation_state, state_word, truth_word};
pub(crate) use progress::{Goal, Waited};

use std::time::Duration;

use flotilla_proto::client::EnvironmentWatch;
use flotilla_proto::v1::EnvironmentFilter;
use progress::{Outcome, Progress};

use crate::client::Client;
use crate::failure::{ExitStatus, Failure};

/// Waits until the named environments (all, when empty) have reached the goal. Returns what was waited for.
pub(crate) async fn wait(
    client: &Client,
    names: Vec<String>,
    goal: Goal,
    timeout: Duration,
) -> Result<Waited, Failure> {
    let filter = EnvironmentFilter { names: names.clone(), ..EnvironmentFilter::default() };
    let mut watch = EnvironmentWatch::new(client.program(), filter);
    let mut progress = Progress::new(names, goal);
    let follow = async {
        loop {
            match progress.receive(watch.next().await?) {
                Outcome::Pending => {}
                Outcome::Reached => return Ok(()),
                Outcome::Failed(failure) => return Err(failure),
            }
        }
    };
    match tokio::time::timeout(timeout, follow).await {
        Ok(result) => result.map(|()| progress.finish()),
        Err(_) => Err(progress.time_ran_out(client.url(), timeout)),
    }
}

/// Most names that one watch follows.
pub(crate) const MOST_NAMES: usize = 1000;

/// Refuses more names than one watch can follow.
pub(crate) fn check_names(names: &[String]) -> Result<(), Failure> {
    if names.len() > MOST_NAMES {
        return Err(Failure::new(
            ExitStatus::Usage,
            format!("{} names are too many: a watch follows at most {MOST_NAMES}", names.len()),
        )
        .hint("wait for all with --all"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
