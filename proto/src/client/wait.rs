//! Waiting until SDKs read what LaunchDarkly has.

use std::time::Duration;

use super::watch::EnvironmentWatch;
use super::{Client, ClientError, Event};
use crate::v1::{Environment, EnvironmentFilter, Initialization};

/// Why an environment did not become current.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// There is none of that name, or it was removed meanwhile.
    #[error("there is no environment {0:?}")]
    NotFound(String),
    /// It is paused: it waits to be resumed.
    #[error("environment {0:?} is paused")]
    Paused(String),
    /// It was not current in time. Its conditions say what keeps it.
    #[error("environment {:?} was not current in time", environment.name)]
    TimedOut {
        /// As it stood at the end.
        environment: Box<Environment>,
    },
    /// The watch failed, or did not begin in time.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Client {
    /// Waits until what LaunchDarkly has stands in the store, over a watch; returns the environment as it is then.
    pub async fn wait_until_current(&self, name: &str, timeout: Duration) -> Result<Environment, WaitError> {
        let mut watch = EnvironmentWatch::patient(
            self,
            EnvironmentFilter { names: vec![name.to_owned()], ..Default::default() },
        );
        let mut seen = None;
        let waiting = async {
            loop {
                let environment = match watch.next().await? {
                    Event::Snapshot(environments) => environments.into_iter().next().map(Box::new),
                    Event::Changed(environment) => Some(environment),
                    Event::Removed { .. } => None,
                };
                let environment = environment.ok_or_else(|| WaitError::NotFound(name.to_owned()))?;
                if environment.paused {
                    return Err(WaitError::Paused(name.to_owned()));
                }
                let status = environment.status.as_ref();
                if status.is_some_and(|status| status.initialization() == Initialization::Current) {
                    return Ok(*environment);
                }
                seen = Some(environment);
            }
        };
        match tokio::time::timeout(timeout, waiting).await {
            Ok(result) => result,
            Err(_) => Err(match seen {
                Some(environment) => WaitError::TimedOut { environment },
                None => self.error(tonic::Status::deadline_exceeded("no snapshot came in time")).into(),
            }),
        }
    }
}
