//! Files that are read again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::files::Stamp;

/// How often the files are looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A change seldom comes alone: what was read counts if it is still there after so long.
const SETTLE: Duration = Duration::from_millis(250);

type Load<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;
type Stamps = Vec<Option<Stamp>>;

/// What files mean, and its readers.
pub(super) struct Reloaded<T> {
    what: &'static str,
    files: Arc<[PathBuf]>,
    load: Load<T>,
    seen: Stamps,
    current: watch::Sender<Arc<T>>,
}

impl<T: Send + Sync + 'static> Reloaded<T> {
    /// Reads the files for the first time.
    pub(super) fn open(
        what: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is read again.
        let seen = stamps(&files);
        let current = watch::Sender::new(Arc::new(load()?));
        Ok(Self { what, files: files.into(), load: Arc::new(load), seen, current })
    }

    /// The present content, and every later one.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<T>> {
        self.current.subscribe()
    }

    /// Reads the files whenever they have changed, for as long as it runs.
    pub(super) async fn keep(mut self) {
        let mut told = String::new();
        loop {
            sleep(LOOK_INTERVAL).await;
            let (files, load, seen) = (Arc::clone(&self.files), Arc::clone(&self.load), self.seen.clone());
            let looked = spawn_blocking(move || {
                let now = stamps(&files);
                if now == seen {
                    return None;
                }
                let loaded = load();
                std::thread::sleep(SETTLE);
                (stamps(&files) == now).then_some((now, loaded))
            });
            let Ok(Some((now, loaded))) = looked.await else { continue };
            match loaded {
                Ok(content) => {
                    (self.seen, told) = (now, String::new());
                    self.current.send_replace(Arc::new(content));
                    tracing::info!(what = self.what, files = self.names(), "reloaded");
                }
                // It is tried again: what stood in the way may pass, as a want of file handles does.
                Err(error) if error == told => {}
                Err(error) => {
                    tracing::warn!(
                        what = self.what,
                        error = &error,
                        "a changed file cannot be used; what was there before stays in force"
                    );
                    told = error;
                }
            }
        }
    }

    fn names(&self) -> String {
        self.files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(", ")
    }
}

fn stamps(files: &[PathBuf]) -> Stamps {
    files.iter().map(|path| Stamp::of_file(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_change_is_taken_and_a_wrong_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        std::fs::write(&path, "1").unwrap();
        let read = path.clone();
        let load = move || {
            let text = std::fs::read_to_string(&read).map_err(|error| error.to_string())?;
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        let reloaded = Reloaded::open("number", vec![path.clone()], load).unwrap();
        let mut current = reloaded.subscribe();
        let mut keeping = tokio::task::JoinSet::new();
        keeping.spawn(reloaded.keep());
        assert_eq!(**current.borrow_and_update(), 1);
        for (text, then) in [("two", "3"), ("", "4")] {
            std::fs::write(&path, text).unwrap();
            sleep(LOOK_INTERVAL + SETTLE * 2).await;
            assert!(!current.has_changed().unwrap());
            std::fs::write(&path, then).unwrap();
            current.changed().await.unwrap();
            assert_eq!(current.borrow_and_update().to_string(), then);
        }
    }
}
