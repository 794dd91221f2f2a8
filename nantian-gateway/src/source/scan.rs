//! Which files there are below the given paths, and whether they may have changed.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::fault::{Fault, SourceLocation};

/// What tells one state of a file from the next without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// One walk over the given paths.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// Every manifest file, in the order of their paths.
    pub(super) files: BTreeMap<Arc<Path>, FileStamp>,
    /// Paths that could not be read.
    pub(super) faults: Vec<Fault>,
    /// Files, and directories whose files are unknown for now; what was read from them before still holds.
    pub(super) unreadable: Vec<PathBuf>,
    /// Links that lead nowhere, and may have led to a directory.
    pub(super) dangling: Vec<Fault>,
    seen: HashSet<(u64, u64)>,
}

// === impl FileStamp ===

impl FileStamp {
    fn new(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether a file that is read at `now` and written again right after would get another stamp.
    ///
    /// File systems stamp in ticks: two writes of one length within a tick look the same.
    pub(super) fn is_settled_at(&self, now: SystemTime) -> bool {
        let tick = if self.changed.1 == 0 { COARSE_TICK } else { FINE_TICK };
        let (Ok(seconds), Ok(nanos)) = (u64::try_from(self.changed.0), u64::try_from(self.changed.1)) else {
            return false;
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_nanos(nanos);
        now.duration_since(changed).is_ok_and(|age| age > tick)
    }
}

/// Longer than a scheduler tick of any usual kernel.
const FINE_TICK: Duration = Duration::from_millis(50);
/// For file systems that count whole seconds, or two.
const COARSE_TICK: Duration = Duration::from_secs(2);

// === impl Scan ===

impl Scan {
    /// Walks every path: a file as it is, a directory with all that is below it.
    pub(super) fn new(paths: &[PathBuf]) -> Self {
        let mut scan = Self::default();
        for path in paths {
            match fs::metadata(path) {
                Ok(metadata) if metadata.is_dir() => scan.directory(path, &metadata),
                Ok(metadata) if metadata.is_file() => scan.file(path, &metadata),
                Ok(_) => scan.fault(path, &io::Error::other("is neither a file nor a directory")),
                // It was given, so that it is not there says nothing about its objects: a volume may not be
                // mounted.
                Err(error) => scan.fault(path, &error),
            }
        }
        scan
    }

    fn directory(&mut self, path: &Path, metadata: &fs::Metadata) {
        if !self.seen.insert((metadata.dev(), metadata.ino())) {
            return;
        }
        match entries(path) {
            Ok(entries) => entries.iter().for_each(|entry| self.entry(entry)),
            Err(error) => self.fault(path, &error),
        }
    }

    fn entry(&mut self, path: &Path) {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => self.directory(path, &metadata),
            // Reading a pipe or a socket would wait for whoever writes to it.
            Ok(metadata) if metadata.is_file() && is_manifest(path) => self.file(path, &metadata),
            // Removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(path).is_err() => {}
            // A link that leads nowhere, as for a moment where links are changed in two steps.
            Err(error) if is_manifest(path) => self.fault(path, &error),
            Err(error) => self.dangling.push(SourceLocation::whole(path).fault(error)),
            Ok(_) => {}
        }
    }

    fn file(&mut self, path: &Path, metadata: &fs::Metadata) {
        if self.seen.insert((metadata.dev(), metadata.ino())) {
            self.files.insert(path.into(), FileStamp::new(metadata));
        }
    }

    fn fault(&mut self, path: &Path, error: &io::Error) {
        self.faults.push(SourceLocation::whole(path).fault(error));
        self.unreadable.push(path.to_owned());
    }
}

/// The visible entries of a directory, sorted.
///
/// A mounted ConfigMap holds its files twice: behind links of their names, and in the hidden directories that
/// the links lead through.
fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            entries.push(entry.path());
        }
    }
    entries.sort_unstable();
    Ok(entries)
}

fn is_manifest(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}
