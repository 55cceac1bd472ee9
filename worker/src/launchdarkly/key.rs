//! The SDK key of one source: control has given it, or it is read where the worker runs, anew for every request.

use std::future::pending;
use std::time::Duration;

use flotilla_proto::process::Stamp;
use flotilla_proto::{SdkKey, SdkKeySource, SecretReference};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::secrets::Secrets;
use crate::source::SourceFailure;

/// A file that did not do is looked at again so often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The SDK key of one source.
pub(super) struct SourceKey {
    source: SdkKeySource,
    secrets: Secrets,
    /// What was read last.
    last: Option<SdkKey>,
    /// What the file was when it was read last, or could not be.
    seen: Option<Stamp>,
}

/// A key, and whether the last one of the source was another.
pub(super) struct ReadKey {
    pub(super) key: SdkKey,
    pub(super) is_another: bool,
}

impl SourceKey {
    pub(super) fn new(source: &SdkKeySource, secrets: &Secrets) -> Self {
        Self { source: source.clone(), secrets: secrets.clone(), last: None, seen: None }
    }

    /// The key as it is now.
    pub(super) async fn read(&mut self) -> Result<ReadKey, SourceFailure> {
        let key = match &self.source {
            SdkKeySource::Key(key) => key.clone(),
            SdkKeySource::Reference(reference) => {
                let (seen, key) = read(self.secrets.clone(), reference.clone()).await;
                self.seen = seen;
                key?
            }
        };
        let is_another = self.last.replace(key.clone()).is_some_and(|last| last != key);
        Ok(ReadKey { key, is_another })
    }

    /// Waits until the file is another one than when it was read last; for ever where there is no file.
    pub(super) async fn changed(&self) {
        let SdkKeySource::Reference(reference) = &self.source else { return pending().await };
        loop {
            sleep(LOOK_INTERVAL).await;
            let (secrets, reference) = (self.secrets.clone(), reference.clone());
            // When the runtime ends, so does whoever waits.
            let now = spawn_blocking(move || secrets.stamp(&reference)).await.unwrap_or(self.seen);
            if now != self.seen {
                return;
            }
        }
    }
}

/// Off the runtime's own threads, for the disk may be a network's. The stamp is of no later time than the key.
async fn read(secrets: Secrets, reference: SecretReference) -> (Option<Stamp>, Result<SdkKey, SourceFailure>) {
    let failed = |reference: &SecretReference, why: &dyn std::fmt::Display| SourceFailure::Key {
        message: format!("the SDK key {reference} cannot be read: {why}"),
    };
    let asked = reference.clone();
    let read = spawn_blocking(move || {
        let seen = secrets.stamp(&reference);
        let key = match secrets.read(&reference) {
            Ok(text) => SdkKey::parse("sdk_key", &text).map_err(|violation| SourceFailure::Key {
                message: format!("{reference} holds no SDK key: {}", violation.description),
            }),
            Err(error) => Err(failed(&reference, &error)),
        };
        (seen, key)
    });
    read.await.unwrap_or_else(|error| (None, Err(failed(&asked, &error))))
}

#[cfg(test)]
mod tests;
