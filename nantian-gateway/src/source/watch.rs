//! Notices that something below the given paths has changed.

use std::{
    fs, io,
    path::{self, Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

/// Tells when to call [`Files::load`](super::Files::load) again.
///
/// It covers what editors and mounts do: writing in place, renaming over, the link swap of a mounted
/// ConfigMap, directories that are created later, and a given path that disappears and comes back. A file
/// that is linked to from a directory but lies outside of every given path is read, but not watched.
pub struct Watcher {
    changes: mpsc::Receiver<()>,
    burst: Option<Debounce>,
    roots: Arc<[Root]>,
    replaced: Arc<AtomicBool>,
    backend: RecommendedWatcher,
}

/// A path that cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch {path:?}")]
#[non_exhaustive]
pub struct WatchError {
    /// The path.
    pub path: PathBuf,
    /// What the operating system says.
    #[source]
    pub source: notify::Error,
}

/// One given path.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    /// Where the path leads, if it is a link.
    target: PathBuf,
    is_directory: bool,
}

/// A row of events that are reported as one change.
#[derive(Debug, Clone, Copy)]
struct Debounce {
    first: Instant,
    last: Instant,
}

/// A change is reported when nothing more has happened for this long,
const QUIET: Duration = Duration::from_millis(100);
/// or when the first event of the row is this old.
const AT_MOST: Duration = Duration::from_secs(1);

// === impl Watcher ===

impl Watcher {
    /// Starts to watch `paths`, files or directories. No event is missed from here on.
    ///
    /// # Errors
    ///
    /// [`WatchError`] when the directory of a path does not exist or the system has no watches left.
    pub fn new(paths: &[PathBuf]) -> Result<Self, WatchError> {
        let roots: Arc<[Root]> =
            paths.iter().map(|path| Root::new(path)).collect::<Result<Vec<_>, _>>()?.into();
        let (sender, changes) = mpsc::channel(1);
        let replaced = Arc::new(AtomicBool::new(false));
        let handler = {
            let (roots, replaced) = (Arc::clone(&roots), Arc::clone(&replaced));
            move |event: notify::Result<Event>| {
                if !roots.iter().any(|root| root.is_touched_by(&event)) {
                    return;
                }
                if roots.iter().any(|root| root.is_replaced_by(&event)) {
                    replaced.store(true, Ordering::Release);
                }
                // A full channel already promises a report that is still to come.
                let _ = sender.try_send(());
            }
        };
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| WatchError { path, source }
        };
        let first = paths.first().map_or(Path::new(""), |path| path);
        let mut backend = notify::recommended_watcher(handler).map_err(at(first))?;
        for root in roots.iter() {
            for directory in root.parents() {
                backend.watch(directory, RecursiveMode::NonRecursive).map_err(at(directory))?;
            }
        }
        for root in roots.iter().filter(|root| root.is_directory) {
            backend.watch(&root.path, RecursiveMode::Recursive).map_err(at(&root.path))?;
        }
        Ok(Self { changes, burst: None, roots, replaced, backend })
    }

    /// Waits for the next change: until 100 ms of quiet have followed it, and at most 1 s.
    ///
    /// # Cancellation
    ///
    /// Dropping the future loses nothing: a row of events that has begun is continued by the next call.
    pub async fn changed(&mut self) {
        let mut burst = match self.burst {
            Some(burst) => burst,
            None => {
                if self.changes.recv().await.is_none() {
                    std::future::pending::<()>().await;
                }
                Debounce::start_at(Instant::now())
            }
        };
        loop {
            self.burst = Some(burst);
            let end = burst.end();
            if Instant::now() >= end || timeout_at(end, self.changes.recv()).await.is_err() {
                break;
            }
            burst.last = Instant::now();
        }
        self.burst = None;
        if self.replaced.swap(false, Ordering::AcqRel) {
            self.watch_again();
        }
    }

    /// A directory that was replaced has taken its watch along.
    fn watch_again(&mut self) {
        for root in self.roots.iter().filter(|root| root.path.is_dir()) {
            if let Err(error) = self.backend.watch(&root.path, RecursiveMode::Recursive) {
                tracing::warn!(path = %root.path.display(), %error, "changes below this path are not noticed");
            }
        }
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher")
            .field("roots", &self.roots)
            .field("burst", &self.burst)
            .finish_non_exhaustive()
    }
}

// === impl Debounce ===

impl Debounce {
    fn start_at(now: Instant) -> Self {
        Self { first: now, last: now }
    }

    fn end(&self) -> Instant {
        (self.last + QUIET).min(self.first + AT_MOST)
    }
}

// === impl Root ===

impl Root {
    fn new(given: &Path) -> Result<Self, WatchError> {
        let absolute = path::absolute(given).map_err(|error| unusable(given, error))?;
        let target = fs::canonicalize(&absolute).unwrap_or_else(|_| absolute.clone());
        Ok(Self { is_directory: absolute.is_dir(), path: absolute, target })
    }

    /// The directories in which the path, and what it leads to, have their names.
    fn parents(&self) -> impl Iterator<Item = &Path> {
        let target = (self.target != self.path).then_some(&self.target);
        [Some(&self.path), target].into_iter().flatten().filter_map(|path| path.parent())
    }

    fn is_touched_by(&self, event: &notify::Result<Event>) -> bool {
        match event {
            Ok(event) if is_reading(event.kind) => false,
            Ok(event) => event.need_rescan() || event.paths.iter().any(|path| self.covers(path)),
            Err(_) => true,
        }
    }

    fn is_replaced_by(&self, event: &notify::Result<Event>) -> bool {
        event
            .as_ref()
            .is_ok_and(|event| event.paths.iter().any(|path| *path == self.path || *path == self.target))
    }

    fn covers(&self, path: &Path) -> bool {
        if self.is_directory {
            path.starts_with(&self.path) || path == self.target
        } else {
            path == self.path || path == self.target || is_mount_link(path)
        }
    }
}

fn unusable(path: &Path, error: io::Error) -> WatchError {
    WatchError { path: path.to_owned(), source: notify::Error::io(error) }
}

/// Opening and closing a file for reading, which [`Files::load`](super::Files::load) does itself.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// The `..data` link that a mounted ConfigMap swaps.
fn is_mount_link(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}
