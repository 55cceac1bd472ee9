//! `--environments`: control keeps itself in line with a manifest, as if somebody applied it at start and whenever it
//! changes. What the file refers to counts as part of it.
//!
//! A file that is wrong changes nothing. What could not be carried out is tried again, for it may wait for something, as a
//! name for the end of a removal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use flotilla_proto::manifest::{Manager, Manifest, Text};
use flotilla_proto::process::{
    Stamp, open_regular, read_manifest_file, resolve_secret, secret_path, watch_directory,
};
use flotilla_proto::{Reason, Refusal, v1};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use v1::ApplyOutcome as Outcome;

use crate::audit::{Attempt, AuditEntry};
use crate::grpc::{Api, apply};

/// The files are looked at this often, whatever the watch says.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A change seldom comes alone: what was read counts if it is still there after so long.
const SETTLE: Duration = Duration::from_millis(250);
/// What could not be carried out is tried again after so many looks, and then after twice as many each time,
const FIRST_RETRY: u32 = 10;
/// up to so many.
const LONGEST_RETRY: u32 = 160;

/// Whether all is as the file says. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileHealth(Arc<AtomicBool>);

impl FileHealth {
    /// Whether the file was readable, and all of it carried out.
    pub(crate) fn is_ok(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps control in line with the file until it stops.
pub(crate) async fn keep(
    path: PathBuf,
    api: Api,
    health: FileHealth,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let changed = Arc::new(Notify::new());
    let mut watch = None;
    let mut keeper = Keeper::new(path, api, health);
    loop {
        // The directory may not be there yet: try until it is watched.
        if watch.is_none() {
            watch = watch_directory(&keeper.path, &changed);
        }
        keeper.look().await;
        tokio::select! {
            () = stopping.cancelled() => return Ok(()),
            // Whether it was woken or the time is over, it looks.
            _ = timeout(LOOK_INTERVAL, changed.notified()) => {}
        }
    }
}

/// The file and what it refers to, as they were when they were read; `None` where one was not there.
type Stamps = Vec<(PathBuf, Option<Stamp>)>;

/// What the file asks for, or what is wrong with it.
type Asked = Result<v1::BatchApplyEnvironmentsRequest, String>;

struct Keeper {
    path: PathBuf,
    api: Api,
    health: FileHealth,
    /// What was last read.
    seen: Option<Stamps>,
    /// After how many looks to apply it again, because not all of it was carried out.
    looks_until_retry: Option<u32>,
    /// How many looks the next retry waits for.
    retry_after: u32,
    /// Environments that are as the file says, as far as was told. Their keys are not given again with a retry: one that
    /// LaunchDarkly has refused would be tried every time.
    done: BTreeSet<String>,
    /// What was said of it: nothing is said twice of one content.
    told: BTreeSet<String>,
}

impl Keeper {
    fn new(path: PathBuf, api: Api, health: FileHealth) -> Self {
        Self {
            path,
            api,
            health,
            seen: None,
            looks_until_retry: None,
            retry_after: FIRST_RETRY,
            done: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    async fn look(&mut self) {
        self.looks_until_retry = self.looks_until_retry.map(|looks| looks.saturating_sub(1));
        let is_due = self.looks_until_retry == Some(0);
        let (path, seen) = (self.path.clone(), self.seen.clone());
        let looked = tokio::task::spawn_blocking(move || {
            let is_seen = seen.is_some_and(|seen| seen.iter().all(|(path, stamp)| stamp_of(path) == *stamp));
            if !is_due && is_seen {
                return None;
            }
            let (stamps, asked) = read(&path);
            std::thread::sleep(SETTLE);
            let is_whole = stamps.iter().all(|(path, stamp)| stamp_of(path) == *stamp);
            is_whole.then_some((is_seen, stamps, asked))
        });
        let Ok(Some((is_seen, stamps, asked))) = looked.await else { return };
        self.seen = Some(stamps);
        if is_seen {
            self.retry_after = (self.retry_after * 2).min(LONGEST_RETRY);
        } else {
            self.retry_after = FIRST_RETRY;
            self.done.clear();
            self.told.clear();
        }
        self.looks_until_retry = Some(self.retry_after);
        let is_done = match asked {
            Ok(mut request) => {
                for entry in request.entries.iter_mut().filter(|entry| self.done.contains(&entry.name)) {
                    entry.sdk_key.clear();
                }
                let attempt = if is_seen { Attempt::Again } else { Attempt::First };
                self.apply(request, attempt).await
            }
            Err(error) => {
                if self.is_news(&error) {
                    let file = self.file();
                    tracing::error!(file, error, "the environments file is wrong; nothing is changed by it");
                }
                self.health.0.store(false, Ordering::Relaxed);
                return;
            }
        };
        self.health.0.store(is_done, Ordering::Relaxed);
        if is_done {
            self.looks_until_retry = None;
        }
    }

    /// Whether all of it was carried out.
    async fn apply(&mut self, request: v1::BatchApplyEnvironmentsRequest, attempt: Attempt) -> bool {
        let entry = AuditEntry::of_file(&self.path, attempt);
        match apply(&self.api, request.clone(), Some(entry.clone())).await {
            Ok(applied) => self.tell(&applied),
            Err(refusal) if refusal.reason == Reason::BlastRadius => {
                self.tell_refused(&refusal);
                let without = v1::BatchApplyEnvironmentsRequest { prune: None, ..request };
                if let Ok(applied) = apply(&self.api, without, Some(entry)).await {
                    self.tell(&applied);
                }
                false
            }
            Err(refusal) => {
                if self.is_news(&refusal.message) {
                    let file = self.file();
                    tracing::error!(file, error = refusal.message, "the environments file was not applied");
                }
                false
            }
        }
    }

    fn tell_refused(&mut self, refusal: &Refusal) {
        let error = refusal.message.trim_end_matches("; nothing was applied").to_owned();
        if self.is_news(&error) {
            let file = self.file();
            let way_out = format!("flotilla apply -f {file} --prune --yes");
            tracing::error!(
                file,
                error,
                way_out,
                "the environments file would remove too many environments; none is removed"
            );
        }
    }

    /// Logs what was done and what was not; whether all was.
    fn tell(&mut self, applied: &v1::BatchApplyEnvironmentsResponse) -> bool {
        let of_stores = applied.stores.iter().map(|one| ("store", &one.name, &one.error));
        let of_environments = applied.results.iter().map(|one| ("environment", &one.name, &one.error));
        let mut failed = 0;
        for (kind, name, error) in of_stores.chain(of_environments) {
            let Some(error) = error else { continue };
            failed += 1;
            if self.is_news(&format!("{kind}/{name}: {}", error.message)) {
                let (file, reason, error) = (self.file(), error.reason.as_str(), error.message.as_str());
                tracing::warn!(file, kind, name, reason, error, "the environments file was not applied here");
            }
        }
        let carried_out = applied.results.iter().filter(|result| result.error.is_none());
        self.done = carried_out.map(|result| result.name.clone()).collect();
        let count = |outcome| applied.results.iter().filter(|result| result.outcome() == outcome).count();
        let (created, updated, removed) =
            (count(Outcome::Created), count(Outcome::Updated), count(Outcome::Removed));
        let unchanged = count(Outcome::Unchanged);
        if created + updated + removed > 0 || self.is_news("applied") {
            let file = self.file();
            tracing::info!(file, created, updated, removed, unchanged, failed, "environments file applied");
        }
        failed == 0
    }

    fn is_news(&mut self, text: &str) -> bool {
        self.told.insert(text.to_owned())
    }

    fn file(&self) -> String {
        self.path.display().to_string()
    }
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().map(|metadata| Stamp::of(&metadata))
}

/// Reads the file and what it refers to. The stamps are taken first: what changes meanwhile is read again.
fn read(path: &Path) -> (Stamps, Asked) {
    let mut stamps = vec![(path.to_owned(), stamp_of(path))];
    let asked = read_text(path).and_then(|text| request_of(&text, &mut stamps));
    (stamps, asked)
}

fn read_text(path: &Path) -> Result<Text, String> {
    let text = open_regular(path).and_then(|file| read_manifest_file(path, file));
    text.map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn request_of(text: &Text, stamps: &mut Stamps) -> Asked {
    let joined = |errors: Vec<flotilla_proto::manifest::ManifestError>| {
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    let manifest = Manifest::parse(std::slice::from_ref(text)).map_err(joined)?;
    let manager = manifest.manager().map_err(|error| error.to_string())?;
    let mut request = manifest
        .request(|place, source| {
            stamps.extend(secret_path(place, source).map(|path| {
                let stamp = stamp_of(&path);
                (path, stamp)
            }));
            resolve_secret(place, source)
        })
        .map_err(joined)?;
    request.prune = match manager {
        Manager::One(managed_by) => Some(v1::Prune { managed_by, accept_blast_radius: false }),
        Manager::Nobody => None,
    };
    Ok(request)
}
