//! The objects in manifest files, the last good version of each.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    hash::{DefaultHasher, Hasher},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use super::{
    check::Checker,
    decode::{Content, Item, decode},
    fault::{Fault, SourceLocation, Subject},
    objects::{ObjectRef, Objects},
    reading::{Reading, Source, Unserved},
    scan::{FileStamp, Scan},
    versions::Versions,
};
use crate::{ir::ControllerName, tenancy::Tenancy};

/// Manifests on disk: every `*.yaml` and `*.yml` file below the given paths.
///
/// Hidden files and directories are left alone, which is also how the files of a mounted ConfigMap are seen
/// once and not twice. A path that is a file is read whatever its name is.
///
/// An object that breaks keeps its last good version until it is repaired or taken out. Where a document
/// cannot be told (bad syntax, no kind, no name), every object that its file held before stays, for it may be
/// the one. So do all objects below a given path that is not there, and those behind a link that leads
/// nowhere: a volume or a link may be on its way.
///
/// What only the translator can tell is told by it: [`Files::reject`] takes an edit back that it refuses.
///
/// ```
/// use nantian_gateway::source::Files;
///
/// let directory = tempfile::tempdir()?;
/// let file = directory.path().join("namespace.yaml");
/// let mut files = Files::new([directory.path().to_owned()]);
///
/// std::fs::write(&file, "{apiVersion: v1, kind: Namespace, metadata: {name: demo}}")?;
/// let load = files.load();
/// assert_eq!(load.changed[0].to_string(), "Namespace demo");
///
/// std::fs::write(&file, "{apiVersion: v1, kind: Namespace, metadata: {name: demo, lables: {}}}")?;
/// let load = files.load();
/// assert_eq!(load.faults[0].path, "metadata.lables");
/// assert_eq!(load.objects.namespaces.len(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Files {
    paths: Vec<PathBuf>,
    checker: Checker,
    known: BTreeMap<Arc<Path>, KnownFile>,
    versions: Versions<SourceLocation>,
}

/// What [`Files::load`] found.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Load {
    /// The last good version of every object.
    pub objects: Objects,
    /// All that is wrong now, sorted by file and document, whether it was reported before or not.
    pub faults: Vec<Fault>,
    /// The objects that were added, replaced or removed since the last load, sorted.
    pub changed: Vec<ObjectRef>,
    /// How many files there are.
    pub files: usize,
    /// How many of them were read this time, because they may have changed.
    pub reread: usize,
    /// How many objects are of kinds of someone else.
    pub skipped: usize,
    /// Objects of kinds of the Gateway API that the gateway does not serve, in the order of their files.
    pub unserved: Vec<Subject>,
}

/// A file as it was when it was last read.
#[derive(Debug)]
struct KnownFile {
    /// `None` if the file may have changed since without it being visible.
    stamp: Option<FileStamp>,
    digest: u64,
    content: Content,
}

// === impl Files ===

impl Files {
    /// The manifests at `paths`, files or directories. Nothing is read yet.
    pub fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self {
            paths: paths.into_iter().collect(),
            checker: Checker::default(),
            known: BTreeMap::new(),
            versions: Versions::default(),
        }
    }

    /// Serves the classes of `controller` in place of those of the default one.
    #[must_use]
    pub fn answering_for(mut self, controller: ControllerName) -> Self {
        self.versions.answer_for(controller);
        self
    }

    /// Reads what has changed since the last load; everything on the first one.
    ///
    /// Blocks on the file system. It never fails as a whole: whatever is wrong is one of [`Load::faults`].
    pub fn load(&mut self) -> Load {
        let Scan { files, mut faults, mut unreadable, dangling, .. } = Scan::new(&self.paths);
        for fault in dangling {
            let link = &fault.place.file;
            // One through which nothing was read is no manifest's business.
            if self.known.keys().any(|file| file.starts_with(link)) {
                unreadable.push(link.to_path_buf());
                faults.push(fault);
            }
        }
        let is_gone = |file: &Arc<Path>| {
            !files.contains_key(file) && !unreadable.iter().any(|directory| file.starts_with(directory))
        };
        self.known.retain(|file, _| !is_gone(file));
        let reread = files.into_iter().filter(|(file, stamp)| self.refresh(file, *stamp)).count();
        faults.extend(self.known.values().flat_map(|known| known.content.faults.iter().cloned()));
        let changed = self.settle(&mut faults);
        faults.sort_by(|this, that| this.place.cmp(&that.place));
        Load {
            objects: self.versions.objects().clone(),
            faults,
            changed,
            files: self.known.len(),
            reread,
            skipped: self.known.values().map(|known| known.content.skipped).sum(),
            unserved: self.known.values().flat_map(|known| known.content.unserved.iter().cloned()).collect(),
        }
    }

    /// The last good version of every object, as of the last load or rejection.
    pub fn objects(&self) -> &Objects {
        self.versions.objects()
    }

    /// Brings back the versions that the last load replaced by `refused` ones. Returns whether there were
    /// any.
    ///
    /// A version stays rejected until it is edited again. An object that had no version before stays as it
    /// is, so that its status can tell what is wrong with it.
    pub fn reject<'a>(&mut self, refused: impl IntoIterator<Item = &'a ObjectRef>) -> bool {
        self.versions.reject(refused)
    }

    /// Where the version of `object` that was last handed out stands.
    pub fn place(&self, object: &ObjectRef) -> Option<&SourceLocation> {
        self.versions.origin(object)
    }

    /// Reads `file` again unless nothing has happened to it. Returns whether it was read.
    fn refresh(&mut self, file: &Arc<Path>, stamp: FileStamp) -> bool {
        let digest_before = match self.known.get(file) {
            Some(known) if known.stamp == Some(stamp) => return false,
            known => known.map(|known| known.digest),
        };
        let now = SystemTime::now();
        let known = match fs::read(file) {
            Ok(bytes) => {
                let stamp = Some(stamp).filter(|stamp| stamp.is_settled_at(now));
                let digest = digest(&bytes);
                if let Some(known) = self.known.get_mut(file).filter(|_| digest_before == Some(digest)) {
                    known.stamp = stamp;
                    return true;
                }
                KnownFile { stamp, digest, content: decode(file, &bytes, &self.checker) }
            }
            Err(_)
                if fs::symlink_metadata(file).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) =>
            {
                self.known.remove(file);
                return false;
            }
            Err(error) => {
                let content = Content::of_unreadable(SourceLocation::whole(file).fault(error));
                KnownFile { stamp: None, digest: 0, content }
            }
        };
        self.known.insert(Arc::clone(file), known);
        true
    }

    /// Brings the objects in line with the files. Returns what that changed.
    fn settle(&mut self, faults: &mut Vec<Fault>) -> Vec<ObjectRef> {
        let Self { known, versions, .. } = self;
        let named = named(known);
        versions.settle();
        let mut changed = versions.retain(|name, place| {
            named.contains_key(name) || known.get(&place.file).is_some_and(|known| known.content.is_opaque)
        });
        for (name, items) in named {
            let Some(item) = elect(&items, versions.origin(name), faults) else { continue };
            let place = item.place.clone();
            let has_changed = match (&item.object, &item.placeholder) {
                (Some(object), _) => versions.put(name, place, object),
                (None, Some((placeholder, reason))) => versions.placeholder(name, place, placeholder, reason),
                (None, None) => false,
            };
            if has_changed {
                changed.push(name.clone());
            }
        }
        changed.sort_unstable();
        changed
    }
}

impl Source for Files {
    fn read(&mut self) -> Reading {
        let Load { changed, faults, unserved, reread, .. } = self.load();
        let faults = faults.iter().map(ToString::to_string).collect();
        let kinds = unserved.iter().map(ToString::to_string).collect();
        let unserved = Unserved { kinds, ..Unserved::default() };
        Reading { is_idle: reread == 0 && changed.is_empty(), changed, faults, unserved }
    }

    /// Whoever gives the gateway its files is its operator.
    fn tenancy(&self) -> Tenancy {
        Tenancy::Single
    }

    /// Nobody knows of others with the same files.
    fn is_replicated(&self) -> bool {
        false
    }

    fn objects(&self) -> &Objects {
        self.objects()
    }

    fn reject(&mut self, refused: &ObjectRef) -> bool {
        self.reject([refused])
    }
}

/// Every definition of every object, in the order of files and documents.
fn named(known: &BTreeMap<Arc<Path>, KnownFile>) -> HashMap<&ObjectRef, Vec<&Item>> {
    let mut named: HashMap<_, Vec<_>> = HashMap::new();
    for item in known.values().flat_map(|known| &known.content.items) {
        named.entry(&item.name).or_default().push(item);
    }
    named
}

/// Which of several definitions counts: the one in the file that held the object so far, else the first.
fn elect<'a>(
    items: &[&'a Item],
    served: Option<&SourceLocation>,
    faults: &mut Vec<Fault>,
) -> Option<&'a Item> {
    let holds = |item: &&&Item| served.is_some_and(|place| place.file == item.place.file);
    let elected = *items.iter().find(holds).or(items.first())?;
    for item in items.iter().filter(|item| !std::ptr::eq(**item, elected)) {
        let object = Subject { kind: item.name.kind.to_owned(), name: Some(item.name.name.clone()) };
        let reason = format!("is already defined at {}, which counts", elected.place);
        let path = "metadata.name".to_owned();
        faults.push(Fault { place: item.place.clone(), object: Some(object), path, reason });
    }
    Some(elected)
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}
