//! The SDK key of one source: control has given it, or it is read where the worker runs, anew for every request.

use std::future::pending;
use std::time::Duration;

use flotilla_proto::process::Stamp;
use flotilla_proto::{SdkKey, SdkKeySource, SecretReference};
use sha2::{Digest as _, Sha256};
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
    /// The last key that there was.
    last: Option<KeyDigest>,
    /// What was read last; `None`: it could not be read.
    read: Option<KeyDigest>,
    /// What the file was then.
    seen: Option<Stamp>,
}

/// Of a key, which itself is not kept.
type KeyDigest = [u8; 32];

/// A key, and whether the last one of the source was another.
pub(super) struct ReadKey {
    pub(super) key: SdkKey,
    pub(super) is_another: bool,
}

impl SourceKey {
    pub(super) fn new(source: &SdkKeySource, secrets: &Secrets) -> Self {
        Self { source: source.clone(), secrets: secrets.clone(), last: None, read: None, seen: None }
    }

    /// The key as it is now.
    pub(super) async fn read(&mut self) -> Result<ReadKey, SourceFailure> {
        let key = match &self.source {
            SdkKeySource::Key(key) => key.clone(),
            SdkKeySource::Reference(reference) => {
                let (seen, key) = read(self.secrets.clone(), reference.clone()).await;
                (self.seen, self.read) = (seen, key.as_ref().ok().map(digest));
                key?
            }
        };
        let digest = digest(&key);
        let is_another = self.last.replace(digest).is_some_and(|last| last != digest);
        Ok(ReadKey { key, is_another })
    }

    /// Where the key was what failed, waits until the file holds another one than when it was read last; for ever where
    /// there is no file, or the key has nothing to do with it. A file that is written again with the same key is no news.
    pub(super) async fn changed_after(&mut self, failure: &SourceFailure) {
        let is_key = matches!(failure, SourceFailure::Auth { .. } | SourceFailure::Key { .. });
        let SdkKeySource::Reference(reference) = self.source.clone() else { return pending().await };
        if !is_key {
            return pending().await;
        }
        loop {
            sleep(LOOK_INTERVAL).await;
            let (secrets, looked_at) = (self.secrets.clone(), reference.clone());
            // When the runtime ends, so does whoever waits.
            let now = spawn_blocking(move || secrets.stamp(&looked_at)).await.unwrap_or(self.seen);
            if now == self.seen {
                continue;
            }
            let (seen, key) = read(self.secrets.clone(), reference.clone()).await;
            self.seen = seen;
            if self.read.is_none() || key.as_ref().ok().map(digest) != self.read {
                return;
            }
        }
    }
}

fn digest(key: &SdkKey) -> KeyDigest {
    Sha256::digest(key.expose()).into()
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
