//! Records as JSON lines, in a file or on standard output, after they are durable. What could not be written is written
//! when that is possible again; to a file also by a later run, which goes on after its last line.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use flotilla_proto::audit::AuditDocument;
use tokio_util::sync::CancellationToken;

use super::{AuditFilter, LastRecord};
use crate::driver::{DriverHandle, Revision};
use crate::store::{AuditReader, AuditReading, StoreError};

/// Records that are written in one go.
const CHUNK: usize = 512;
/// Longer than any line, in bytes.
const LONGEST_LINE: u64 = 64 << 10;
/// After what failed it is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Where lines of the audit log go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditLog {
    /// To standard output.
    Stdout,
    /// To this file.
    File(PathBuf),
}

/// How often lines could not be written. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogFailures(Arc<AtomicU64>);

impl LogFailures {
    /// Since control's start.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Writes the lines.
#[derive(Debug)]
pub(crate) struct LogWriter {
    target: Target,
    reader: AuditReader,
    /// The number of the last record that was written.
    written: u64,
}

#[derive(Debug)]
enum Target {
    Stdout,
    File { path: PathBuf, open: File },
}

impl LogWriter {
    /// Opens the file. What is written goes on after its last line, or, if it has none, after the last record.
    pub(crate) fn open(log: AuditLog, reader: AuditReader, last: LastRecord) -> io::Result<Self> {
        let (target, written) = match log {
            AuditLog::Stdout => (Target::Stdout, None),
            AuditLog::File(path) => {
                let open = open(&path)?;
                let written = last_number(&path).filter(|number| *number <= last.number);
                (Target::File { open, path }, written)
            }
        };
        Ok(Self { target, reader, written: written.unwrap_or(last.number) })
    }

    /// Writes each record that is made, until control stops.
    pub(crate) async fn keep(
        mut self,
        driver: DriverHandle,
        failures: LogFailures,
        stopping: CancellationToken,
    ) -> anyhow::Result<()> {
        let (mut newest, mut is_failing) = (driver.newest(), false);
        loop {
            let is_last = stopping.is_cancelled();
            newest.borrow_and_update();
            let reading = self.reader.begin().await;
            let (writer, result) = tokio::task::spawn_blocking(move || {
                let result = self.catch_up(&reading);
                (self, result)
            })
            .await?;
            self = writer;
            match &result {
                Ok(()) if is_failing => tracing::info!("the audit log is written again, with what was missing"),
                Ok(()) => {}
                Err(error) => {
                    failures.0.fetch_add(1, Ordering::Relaxed);
                    if !is_failing {
                        let error = error.to_string();
                        tracing::warn!(error, "the audit log cannot be written; the database has the records");
                    }
                }
            }
            is_failing = result.is_err();
            if is_last {
                return Ok(());
            }
            let news = async {
                if is_failing {
                    tokio::time::sleep(RETRY_INTERVAL).await;
                } else if newest.changed().await.is_err() {
                    // The driver has ended; there is nothing more to come.
                    stopping.cancelled().await;
                }
            };
            tokio::select! {
                () = news => {}
                () = stopping.cancelled() => {
                    // The driver has last words too.
                    while newest.changed().await.is_ok() {}
                }
            }
        }
    }

    /// Writes all that was recorded since. What was not written wholly counts as not written.
    fn catch_up(&mut self, reading: &AuditReading) -> Result<(), LogError> {
        loop {
            let records = reading.after(self.written, &AuditFilter::default(), CHUNK)?;
            let Some((last, _)) = records.last() else { return Ok(()) };
            let last = *last;
            let mut lines = Vec::new();
            for (_, record) in &records {
                serde_json::to_writer(&mut lines, &AuditDocument::from(record)).map_err(io::Error::from)?;
                lines.push(b'\n');
            }
            self.target.write(&lines)?;
            self.written = last;
        }
    }
}

/// Why lines were not written.
#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("cannot read the records: {0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Write(#[from] io::Error),
}

impl Target {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { path, open: file } => {
                // Whoever rotates it renames it, and tells nobody.
                if !is_at(file, path) {
                    *file = open(path)?;
                }
                let length = file.metadata()?.len();
                file.write_all(lines).inspect_err(|_| {
                    // Half a line would spoil the next one. Where it cannot be taken back there is no better way.
                    let _ = file.set_len(length);
                })
            }
        }
    }
}

/// For its owner alone, if it is made here; one that is there keeps its mode, so that others can be let read it.
fn open(path: &Path) -> io::Result<File> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(named(io::Error::other("it is not a regular file")));
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(named)
}

/// The number of the record in the last line of a file; `None`: it has none, or another content. Half a line of ours after
/// that, as a power cut leaves it, is taken away.
fn last_number(path: &Path) -> Option<u64> {
    let mut file = OpenOptions::new().read(true).write(true).open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LONGEST_LINE))).ok()?;
    let mut end = Vec::new();
    (&file).take(LONGEST_LINE).read_to_end(&mut end).ok()?;
    let half = end.iter().rev().take_while(|byte| **byte != b'\n').count();
    if half > 0 && end[end.len() - half..].starts_with(b"{\"revision\":") {
        file.set_len(length - half as u64).ok()?;
        end.truncate(end.len() - half);
    }
    let line = end.strip_suffix(b"\n")?.rsplit(|byte| *byte == b'\n').next()?;
    let document: serde_json::Value = serde_json::from_slice(line).ok()?;
    Some(Revision::parse(document.get("revision")?.as_str()?)?.number())
}

fn is_at(file: &File, path: &Path) -> bool {
    let same =
        |open: std::fs::Metadata, there: std::fs::Metadata| (open.dev(), open.ino()) == (there.dev(), there.ino());
    file.metadata().ok().zip(std::fs::metadata(path).ok()).is_some_and(|(open, there)| same(open, there))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_renamed_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let mut target = Target::File { open: open(&path).unwrap(), path: path.clone() };
        target.write(b"one\n").unwrap();
        let rotated = directory.path().join("audit.log.1");
        std::fs::rename(&path, &rotated).unwrap();
        target.write(b"two\n").unwrap();
        target.write(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&rotated).unwrap(), "one\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\nthree\n");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let error = open(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("not a regular file") && error.contains(directory.path().to_str().unwrap()),
            "{error}"
        );
    }

    #[test]
    fn a_file_is_gone_on_with_after_its_last_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let long = format!("{{\"revision\":\"3.16\",\"message\":\"{}\"}}\n", "x".repeat(100_000));
        for (text, number) in [
            (String::new(), None),
            ("{\"revision\":\"3.17\"}\n".to_owned(), Some(17)),
            (format!("{long}{{\"revision\":\"4.18\"}}\n"), Some(18)),
            ("{\"revision\":\"3.17\"}\n{\"revision\":\"3.1".to_owned(), Some(17)),
            ("{\"revision\":\"3.1".to_owned(), None),
            ("anything\nelse".to_owned(), None),
            ("anything\n".to_owned(), None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(last_number(&path), number);
        }
    }
}
