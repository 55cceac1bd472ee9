//! The last assignments on disk, so that a worker that is started while control is away can go on.
//!
//! The file holds SDK keys and store passwords: mode 0600, in a directory of mode 0700.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use flotilla_proto::session::Assignment;
use flotilla_proto::time::{duration_from_proto, duration_to_proto};
use flotilla_proto::{Term, Timestamp, v1};
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::session::{FileSources, Memory, check};
use crate::state_file;

/// Name of the file in the state directory.
pub(crate) const FILE: &str = "assignments.pb";
/// The shortest time between two writes of the file.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);
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

/// Reads what an earlier process left; `None`: nothing. An assignment that cannot be carried out here is set aside, and
/// stays in the file until control has spoken: an older or otherwise started process may know what to do with it.
pub(crate) fn read(path: &Path, files: FileSources) -> Result<Option<Memory>, CacheError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(CacheError::Unreadable { path: path.to_owned(), source }),
    };
    let damaged = |reason: String| CacheError::Damaged { path: path.to_owned(), reason };
    let file = CacheFile::decode(bytes.as_slice()).map_err(|error| damaged(error.to_string()))?;
    if file.format != FORMAT {
        return Err(damaged(format!("its format is {}, expected {FORMAT}", file.format)));
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
    Ok(Some(Memory {
        fleet: file.fleet_id.parse().map_err(|_| damaged("it names no fleet".to_owned()))?,
        highest_term: Term(file.highest_term),
        lease: file
            .lease
            .as_ref()
            .and_then(duration_from_proto)
            .ok_or_else(|| damaged("it names no lease".to_owned()))?,
        last_confirmed: Timestamp(file.last_confirmed),
        assignments,
        unusable,
    }))
}

pub(crate) fn write(path: &Path, memory: &Memory) -> io::Result<()> {
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
    state_file::replace(path, &file.encode_to_vec())
}

/// Writes the newest memory to the file until the sender is gone; the last one is always written, for a receiver is
/// told of a value that it has not seen before it is told of the end.
pub(crate) async fn keep(path: PathBuf, mut memories: watch::Receiver<Option<Memory>>) {
    while memories.changed().await.is_ok() {
        save(&path, &mut memories).await;
        tokio::select! {
            () = sleep(WRITE_INTERVAL) => {}
            // Nobody changes it any more: what is unwritten is written without the wait.
            () = gone(memories.clone()) => {}
        }
    }
}

async fn gone(mut memories: watch::Receiver<Option<Memory>>) {
    while memories.changed().await.is_ok() {}
}

async fn save(path: &Path, memories: &mut watch::Receiver<Option<Memory>>) {
    let Some(memory) = memories.borrow_and_update().clone() else { return };
    let target = path.to_owned();
    let written = tokio::task::spawn_blocking(move || write(&target, &memory)).await;
    if let Err(error) = written.unwrap_or_else(|failure| Err(io::Error::other(failure))) {
        tracing::warn!(
            path = %path.display(),
            %error,
            "assignments cannot be written: a restart without control would not find them"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::session::testing::{assignment, memory};

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        assert!(read(&path, FileSources::Unavailable).unwrap().is_none());
        let memory = memory(vec![assignment("a", "u1", 3), assignment("b", "u2", 9)]);
        write(&path, &memory).unwrap();
        assert_eq!(read(&path, FileSources::Unavailable).unwrap(), Some(memory));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_carried_out_is_set_aside_and_written_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let mut file = assignment("f", "u2", 1);
        file.spec.source = flotilla_proto::Source::File { path: "flags.json".to_owned() };
        let unreadable = v1::Assignment { environment: "x".to_owned(), ..v1::Assignment::default() };
        let usable = assignment("a", "u1", 3);
        let left = Memory { unusable: vec![(&file).into(), unreadable.clone()], ..memory(vec![usable.clone()]) };
        write(&path, &left).unwrap();
        let found = read(&path, FileSources::Unavailable).unwrap().unwrap();
        assert_eq!(found, left);
        write(&path, &found).unwrap();
        let found = read(&path, FileSources::Available).unwrap().unwrap();
        assert_eq!(found.assignments, [Arc::new(usable), Arc::new(file)], "now it can be");
        assert_eq!(found.unusable, [unreadable]);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_names_it_and_shows_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for content in [b"sdk-secret".as_slice(), b"", b"\x08\x02"] {
            fs::write(&path, content).unwrap();
            let error = read(&path, FileSources::Unavailable).unwrap_err().to_string();
            assert!(error.contains(FILE) && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_last_memory_is_written_when_the_sender_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        let (sender, receiver) = watch::channel(None);
        let last = memory(vec![assignment("a", "u1", 7)]);
        let writer = keep(path.clone(), receiver);
        let changes = async {
            sender.send_replace(Some(memory(vec![assignment("a", "u1", 6)])));
            tokio::task::yield_now().await;
            sender.send_replace(Some(last.clone()));
            drop(sender);
        };
        tokio::join!(writer, changes);
        assert_eq!(read(&path, FileSources::Unavailable).unwrap(), Some(last));
    }
}
