//! The state directory: one process's at a time, and the identity of its every start.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use flotilla_proto::{Incarnation, Uid};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::state_file;

const LOCK_FILE: &str = "lock";
const IDENTITY_FILE: &str = "identity.json";

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirectoryError {
    /// Another process has it.
    #[error(
        "the state directory {} is in use by another worker{holder}; give each worker its own --state-dir",
        directory.display()
    )]
    InUse {
        /// The directory.
        directory: PathBuf,
        /// " (process N)", if it is known.
        holder: String,
    },
    /// The system refuses.
    #[error("cannot {action} {} (see --state-dir)", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file in it is not ours, or damaged.
    #[error(
        "{} is damaged ({reason}); remove it to give this worker a new identity, or name another --state-dir",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A state directory that belongs to this process until it is dropped.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    /// The lock is on the open file.
    _lock: File,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Identity {
    state_directory_id: Uid,
    start_counter: u64,
}

impl StateDirectory {
    /// Takes the directory, which is made (mode 0700) if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, StateDirectoryError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("make the state directory", path))?;
        let lock_path = path.join(LOCK_FILE);
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open", &lock_path))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // It is only for the message.
                let _ = Read::take(&mut lock, 20).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => String::new(),
                    process => format!(" (process {process})"),
                };
                return Err(StateDirectoryError::InUse { directory: path.to_owned(), holder });
            }
            Err(error) => return Err(failed("lock", &lock_path)(error.into())),
        }
        // The next process that is refused names this one; without it the message only says less.
        let _ = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| write!(lock, "{}", std::process::id()));
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Counts this start, durably, and tells it from all others.
    pub(crate) fn begin_incarnation(&self) -> Result<Incarnation, StateDirectoryError> {
        let path = self.file(IDENTITY_FILE);
        let damaged = |reason: String| StateDirectoryError::Damaged { path: path.clone(), reason };
        let identity = match fs::read(&path) {
            Ok(text) => {
                let before: Identity = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
                Identity { start_counter: before.start_counter.saturating_add(1), ..before }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Identity {
                state_directory_id: uuid::Uuid::new_v4()
                    .to_string()
                    .parse()
                    .expect("a uuid is made of hexadecimal digits and '-'"),
                start_counter: 1,
            },
            Err(error) => return Err(failed("read", &path)(error)),
        };
        let text = serde_json::to_vec(&identity).map_err(|error| damaged(error.to_string()))?;
        state_file::replace(&path, &text).map_err(failed("write", &path))?;
        Ok(Incarnation {
            state_directory: identity.state_directory_id,
            start_counter: identity.start_counter,
            random: getrandom::u64()
                .map_err(|error| failed("draw random bits for", &path)(io::Error::other(error.to_string())))?,
        })
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateDirectoryError {
    let path = path.to_owned();
    move |source| StateDirectoryError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn every_start_is_told_from_the_others() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let first = StateDirectory::open(&path).unwrap().begin_incarnation().unwrap();
        let second = StateDirectory::open(&path).unwrap().begin_incarnation().unwrap();
        assert_eq!((first.start_counter, second.start_counter), (1, 2));
        assert_eq!(first.state_directory, second.state_directory);
        assert_ne!(first.random, second.random);
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(IDENTITY_FILE)), 0o600);
    }

    #[test]
    fn a_second_process_is_refused_and_told_where() {
        let parent = tempfile::tempdir().unwrap();
        let held = StateDirectory::open(parent.path()).unwrap();
        let error = StateDirectory::open(parent.path()).unwrap_err().to_string();
        assert!(error.contains(&parent.path().display().to_string()), "{error}");
        assert!(error.contains(&format!("process {}", std::process::id())) && error.contains("--state-dir"));
        drop(held);
        StateDirectory::open(parent.path()).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_named_and_kept() {
        let parent = tempfile::tempdir().unwrap();
        let directory = StateDirectory::open(parent.path()).unwrap();
        fs::write(directory.file(IDENTITY_FILE), "{}").unwrap();
        let error = directory.begin_incarnation().unwrap_err().to_string();
        assert!(error.contains(IDENTITY_FILE), "{error}");
        assert_eq!(fs::read(directory.file(IDENTITY_FILE)).unwrap(), b"{}");
    }
}
