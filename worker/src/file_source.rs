//! A file of flag data as a source: `{"flags":{…},"segments":{…}}`, in JSON or YAML, read again when it changes.
//!
//! A file that cannot be read, now or after a change, is reported, and what was read before stays.

// From what people write to what LaunchDarkly would send.
mod completion;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flotilla_proto::process::{Stamp, below, open_regular, watch_directory};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use self::completion::{Format, complete};
use crate::launchdarkly::event::parse_poll;
use crate::source::{FullPayload, NobodyListens, SourceEvent, SourceEvents, SourceFailure, shortened};

/// The file's metadata is looked at this often, whatever the watch says.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A change seldom comes alone: an editor truncates, writes, sets times. The file is read once they have passed.
const SETTLE: Duration = Duration::from_millis(50);

/// An unchanged file is reported as such this often; listeners doubt a source that is silent for minutes.
const LOOKS_PER_UNCHANGED: u32 = 60;

/// Where a file lies.
#[derive(Debug, Clone)]
pub struct FlagFile {
    /// All files are below this directory.
    pub directory: PathBuf,
    /// The path from there.
    pub name: PathBuf,
}

impl FlagFile {
    /// The whole path.
    fn path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

/// What a look at the file found.
enum Look {
    Same,
    Read(Stamp, Box<Result<FullPayload, SourceFailure>>),
    Unreadable(SourceFailure),
}

/// Reads the file and its later versions until nobody listens. `limit` bounds its size in bytes. A link is followed as long
/// as it stays below `directory`: what lies elsewhere may be a secret, and errors quote what a file holds.
pub(crate) async fn run(file: FlagFile, limit: usize, events: SourceEvents) {
    let path = file.path();
    let changed = Arc::new(Notify::new());
    let mut watch = None;
    let mut source = FileSource { events, stamp: None, told: Told::Nothing };
    loop {
        // The directory may not be there yet, or may have been replaced: try until it is watched.
        if watch.is_none() {
            watch = watch_directory(&path, &changed);
        }
        let look = look(file.clone(), source.stamp, limit).await;
        if matches!(look, Look::Unreadable(_)) {
            watch = None;
        }
        if source.tell(look).await.is_err() || source.events.is_closed() {
            return;
        }
        if timeout(LOOK_INTERVAL, changed.notified()).await.is_ok() {
            sleep(SETTLE).await;
        }
    }
}

/// What the environment was last told.
enum Told {
    Nothing,
    Good { unchanged_looks: u32 },
    Failed(SourceFailure),
}

struct FileSource {
    events: SourceEvents,
    /// Of the content that was last read, good or bad.
    stamp: Option<Stamp>,
    told: Told,
}

impl FileSource {
    async fn tell(&mut self, look: Look) -> Result<(), NobodyListens> {
        match look {
            Look::Same => self.unchanged().await,
            Look::Read(stamp, result) => {
                self.stamp = Some(stamp);
                match *result {
                    Ok(payload) => self.good(payload).await,
                    Err(failure) => self.failed(failure).await,
                }
            }
            Look::Unreadable(failure) => {
                self.stamp = None;
                self.failed(failure).await
            }
        }
    }

    async fn unchanged(&mut self) -> Result<(), NobodyListens> {
        match &mut self.told {
            Told::Good { unchanged_looks } => {
                *unchanged_looks += 1;
                if *unchanged_looks < LOOKS_PER_UNCHANGED {
                    return Ok(());
                }
                *unchanged_looks = 0;
                self.events.send(SourceEvent::Unchanged).await
            }
            Told::Nothing | Told::Failed(_) => Ok(()),
        }
    }

    async fn good(&mut self, payload: FullPayload) -> Result<(), NobodyListens> {
        let before = std::mem::replace(&mut self.told, Told::Good { unchanged_looks: 0 });
        match before {
            Told::Good { .. } => {}
            Told::Nothing | Told::Failed(_) => {
                self.events.send(SourceEvent::Connected { environment_id: None }).await?;
            }
        }
        self.events.send(SourceEvent::Payload(payload)).await
    }

    /// The same failure is told once, however often it is met.
    async fn failed(&mut self, failure: SourceFailure) -> Result<(), NobodyListens> {
        if matches!(&self.told, Told::Failed(told) if *told == failure) {
            return Ok(());
        }
        self.told = Told::Failed(failure.clone());
        self.events.send(SourceEvent::Interrupted { failure, retry_in: LOOK_INTERVAL }).await
    }
}

async fn look(file: FlagFile, known: Option<Stamp>, limit: usize) -> Look {
    let shown = file.path();
    let looked = tokio::task::spawn_blocking(move || look_now(&file, known, limit)).await;
    looked.unwrap_or_else(|error| Look::Unreadable(unreadable(&shown, error)))
}

fn look_now(file: &FlagFile, known: Option<Stamp>, limit: usize) -> Look {
    let path = &file.path();
    let opened = std::fs::metadata(path).and_then(|metadata| {
        if known == Some(Stamp::of(&metadata)) {
            return Ok(None);
        }
        let below = below(&file.directory.canonicalize()?, &file.name)?;
        let below = below.ok_or_else(|| io::Error::other("it is a link that leads out of --file-source-dir"))?;
        let file = open_regular(&below)?;
        let stamp = Stamp::of(&file.metadata()?);
        Ok(Some((file, stamp)))
    });
    match opened {
        Ok(None) => Look::Same,
        Ok(Some((file, stamp))) => match read_bounded(&file, limit) {
            Ok(text) => Look::Read(stamp, Box::new(parse(path, &text))),
            Err(error) => Look::Unreadable(unreadable(path, error)),
        },
        Err(error) => Look::Unreadable(unreadable(path, error)),
    }
}

fn read_bounded(file: &File, limit: usize) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let one_too_many = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    file.take(one_too_many).read_to_end(&mut text)?;
    if text.len() > limit {
        return Err(io::Error::other(format!("it is larger than the limit of {limit} bytes")));
    }
    Ok(text)
}

pub(crate) fn parse(path: &Path, text: &[u8]) -> Result<FullPayload, SourceFailure> {
    let completed = std::str::from_utf8(text)
        .map_err(|error| error.to_string())
        .and_then(|text| complete(text, Format::of(path, text)))
        // It may quote what it stumbled over.
        .map_err(|error| shortened(&error).into_owned());
    let message = match completed {
        Ok(json) => match parse_poll(&Bytes::from(json)) {
            Ok(payload) => return Ok(payload),
            Err(error) => error.to_string(),
        },
        Err(message) => message,
    };
    Err(SourceFailure::Data { message: format!("the file {} is not usable: {message}", path.display()) })
}

fn unreadable(path: &Path, error: impl std::fmt::Display) -> SourceFailure {
    SourceFailure::Data { message: format!("the file {} cannot be read: {error}", path.display()) }
}

#[cfg(test)]
mod tests;
