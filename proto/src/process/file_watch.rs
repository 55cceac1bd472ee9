//! Noticing that a file has changed.
//!
//! The directory is watched, not the file, so that editors that write a new file and rename it are seen too, and mounted
//! volumes where a symbolic link is replaced. A [`Stamp`](super::Stamp) tells whether there is anything to read; looking at it now and
//! then covers file systems that announce nothing.

use std::path::Path;
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

/// A watch on a directory. It ends when it is dropped.
#[derive(Debug)]
pub struct DirectoryWatch {
    _watcher: RecommendedWatcher,
}

/// A watch on the file's directory that wakes `changed`; `None` where the operating system's limits refuse it, or the
/// directory is not there.
pub fn watch_directory(path: &Path, changed: &Arc<Notify>) -> Option<DirectoryWatch> {
    let changed = Arc::clone(changed);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let concerns_content = match event {
            Ok(event) => match event.kind {
                // Our own reading is an access too.
                EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
                EventKind::Access(_) => false,
                _ => true,
            },
            Err(_) => true,
        };
        if concerns_content {
            changed.notify_one();
        }
    });
    let mut watcher = watcher.ok()?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    watcher.watch(directory, RecursiveMode::NonRecursive).ok()?;
    Some(DirectoryWatch { _watcher: watcher })
}
