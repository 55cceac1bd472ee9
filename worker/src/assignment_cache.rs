//! The last assignments on disk, so that a worker that is started while control is away can go on.
//!
//! The file holds SDK keys and store passwords: mode 0600, in a directory of mode 0700, and with a key it is sealed.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::process::{Opened, SealCondition, Sealing, SealingError};
use flotilla_proto::session::Assignment;
use flotilla_proto::time::{duration_from_proto, duration_to_proto};
use flotilla_proto::{Term, Timestamp, v1};
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::sleep;
use zeroize::Zeroizing;

use crate::session::{FileSources, Memory, check};
use crate::state_file;

/// Name of the file in the state directory.
pub(crate) const FILE: &str = "assignments.pb";
/// The shortest time between two writes of the file.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);
/// What the file is bound to where it is sealed.
const PLACE: &str = "the last assignments";
/// What this version writes and reads.
const FORMAT: u32 = 1;

/// The file is there, and cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    /// The system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// It is not what this version writes.
    #[error("{} is damaged or of another version: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    /// The key that it was sealed with is not there.
    #[error(transparent)]
    Sealed(#[from] SealingError),
}

/// The file, and how it is sealed.
#[derive(Debug, Clone)]
pub(crate) struct AssignmentCache {
    pub(crate) path: PathBuf,
    pub(crate) sealing: Sealing,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CacheFile {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(string, tag = "2")]
    fleet_id: String,
    #[prost(uint64, tag = "3")]
    highest_term: u64,
    #[prost(message, optional, tag = "4")]
    lease: Option<prost_types::Duration>,
    /// Milliseconds since the Unix epoch.
    #[prost(uint64, tag = "5")]
    last_confirmed: u64,
    #[prost(message, repeated, tag = "6")]
    assignments: Vec<v1::Assignment>,
}

impl AssignmentCache {
    /// Reads what an earlier process left; `None`: nothing. An assignment that cannot be carried out here is set aside,
    /// and stays in the file until control has spoken: an older or otherwise started process may know what to do with it.
    pub(crate) fn read(&self, files: FileSources) -> Result<Option<Memory>, CacheError> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Unreadable { path: self.path.clone(), source }),
        };
        let Opened { content, condition } = self.sealing.open(PLACE, &bytes)?;
        if condition == SealCondition::Outdated {
            let sealed = self.sealing.seal(PLACE, &content.0);
            if let Err(error) = state_file::replace(&self.path, &sealed) {
                tracing::warn!(
                    path = %self.path.display(),
                    %error,
                    "the last assignments cannot be sealed anew yet: they stay as they were"
                );
            }
        }
        let damaged = |reason| CacheError::Damaged { path: self.path.clone(), reason };
        memory_of(&content.0, files).map(Some).map_err(damaged)
    }

    /// Replaces what is there.
    pub(crate) fn write(&self, memory: &Memory) -> io::Result<()> {
        state_file::replace(&self.path, &self.sealing.seal(PLACE, &bytes_of(memory)))
    }

    /// Writes the newest memory to the file until the sender is gone; the last one is always written, for a receiver is
    /// told of a value that it has not seen before it is told of the end.
    pub(crate) async fn keep(self, mut memories: watch::Receiver<Option<Memory>>) {
        while memories.changed().await.is_ok() {
            self.save(&mut memories).await;
            tokio::select! {
                () = sleep(WRITE_INTERVAL) => {}
                // Nobody changes it any more: what is unwritten is written without the wait.
                () = gone(memories.clone()) => {}
            }
        }
    }

    async fn save(&self, memories: &mut watch::Receiver<Option<Memory>>) {
        let Some(memory) = memories.borrow_and_update().clone() else { return };
        let cache = self.clone();
        let written = tokio::task::spawn_blocking(move || cache.write(&memory)).await;
        if let Err(error) = written.unwrap_or_else(|failure| Err(io::Error::other(failure))) {
            tracing::warn!(
                path = %self.path.display(),
                %error,
                "assignments cannot be written: a restart without control would not find them"
            );
        }
    }
}

fn memory_of(bytes: &[u8], files: FileSources) -> Result<Memory, String> {
    let file = CacheFile::decode(bytes).map_err(|error| error.to_string())?;
    if file.format != FORMAT {
        return Err(format!("its format is {}, expected {FORMAT}", file.format));
    }
    let (mut assignments, mut unusable) = (Vec::new(), Vec::new());
    for message in file.assignments {
        let checked = Assignment::try_from(&message).and_then(|assignment| {
            check(&assignment, files)?;
            Ok(assignment)
        });
        match checked {
            Ok(assignment) => assignments.push(Arc::new(assignment)),
            Err(rejection) => {
                tracing::warn!(
                    environment = rejection.environment,
                    reason = rejection.message,
                    "an assignment of the last run cannot be carried out, and waits for control"
                );
                unusable.push(message);
            }
        }
    }
    Ok(Memory {
        fleet: file.fleet_id.parse().map_err(|_| "it names no fleet")?,
        highest_term: Term(file.highest_term),
        lease: file.lease.as_ref().and_then(duration_from_proto).ok_or("it names no lease")?,
        last_confirmed: Timestamp(file.last_confirmed),
        assignments,
        unusable,
    })
}

fn bytes_of(memory: &Memory) -> Zeroizing<Vec<u8>> {
    let file = CacheFile {
        format: FORMAT,
        fleet_id: memory.fleet.to_string(),
        highest_term: memory.highest_term.0,
        lease: Some(duration_to_proto(memory.lease)),
        last_confirmed: memory.last_confirmed.0,
        assignments: memory
            .assignments
            .iter()
            .map(|assignment| v1::Assignment {
                // Whether that has been done, only control knows for sure.
                accept_regression: false,
                ..assignment.as_ref().into()
            })
            .chain(memory.unusable.iter().cloned())
            .collect(),
    };
    Zeroizing::new(file.encode_to_vec())
}

async fn gone(mut memories: watch::Receiver<Option<Memory>>) {
    while memories.changed().await.is_ok() {}
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::session::testing::{assignment, memory};

    fn cache(directory: &tempfile::TempDir) -> AssignmentCache {
        AssignmentCache { path: directory.path().join(FILE), sealing: Sealing::default() }
    }

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(&directory);
        assert!(cache.read(FileSources::Unavailable).unwrap().is_none());
        let memory = memory(vec![assignment("a", "u1", 3), assignment("b", "u2", 9)]);
        cache.write(&memory).unwrap();
        assert_eq!(cache.read(FileSources::Unavailable).unwrap(), Some(memory));
        assert_eq!(fs::metadata(&cache.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn with_a_key_it_is_sealed_and_lost_without_it() {
        let directory = tempfile::tempdir().unwrap();
        let (plain, keys) = (cache(&directory), directory.path().join("keys"));
        fs::write(&keys, "5".repeat(64)).unwrap();
        let sealed = AssignmentCache { sealing: Sealing::from_file(&keys).unwrap(), ..plain.clone() };
        let memory = memory(vec![assignment("a", "u1", 3)]);
        plain.write(&memory).unwrap();
        let key = memory.assignments[0].sdk_key.as_ref().unwrap().expose().as_bytes();
        let holds_key = || fs::read(&sealed.path).unwrap().windows(key.len()).any(|part| part == key);
        assert!(holds_key());
        assert_eq!(sealed.read(FileSources::Unavailable).unwrap(), Some(memory.clone()), "sealing is begun");
        assert!(!holds_key());
        sealed.write(&memory).unwrap();
        assert!(!holds_key());
        assert_eq!(sealed.read(FileSources::Unavailable).unwrap(), Some(memory));
        let error = plain.read(FileSources::Unavailable).unwrap_err().to_string();
        assert!(error.contains("--encryption-key-file"), "{error}");
    }

    #[test]
    fn what_cannot_be_carried_out_is_set_aside_and_written_back() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(&directory);
        let mut file = assignment("f", "u2", 1);
        file.spec.source = flotilla_proto::Source::File { path: "flags.json".to_owned() };
        let unreadable = v1::Assignment { environment: "x".to_owned(), ..v1::Assignment::default() };
        let usable = assignment("a", "u1", 3);
        let left = Memory { unusable: vec![(&file).into(), unreadable.clone()], ..memory(vec![usable.clone()]) };
        cache.write(&left).unwrap();
        let found = cache.read(FileSources::Unavailable).unwrap().unwrap();
        assert_eq!(found, left);
        cache.write(&found).unwrap();
        let found = cache.read(FileSources::Available).unwrap().unwrap();
        assert_eq!(found.assignments, [Arc::new(usable), Arc::new(file)], "now it can be");
        assert_eq!(found.unusable, [unreadable]);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_shows_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(&directory);
        for content in [b"sdk-secret".as_slice(), b"", b"\x08\x02"] {
            fs::write(&cache.path, content).unwrap();
            let error = cache.read(FileSources::Unavailable).unwrap_err().to_string();
            assert!(error.contains(FILE) && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_last_memory_is_written_when_the_sender_goes() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(&directory);
        let (sender, receiver) = watch::channel(None);
        let last = memory(vec![assignment("a", "u1", 7)]);
        let writer = cache.clone().keep(receiver);
        let changes = async {
            sender.send_replace(Some(memory(vec![assignment("a", "u1", 6)])));
            tokio::task::yield_now().await;
            sender.send_replace(Some(last.clone()));
            drop(sender);
        };
        tokio::join!(writer, changes);
        assert_eq!(cache.read(FileSources::Unavailable).unwrap(), Some(last));
    }
}
