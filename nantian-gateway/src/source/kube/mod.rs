//! The objects of a cluster, kept up to date by watches.
//!
//! [`follow`] keeps a [`Mirror`] of every kind that the API server serves, and [`Cluster`] hands out what is in it, after
//! the same checks that manifests in files go through. An object that breaks keeps its last good version.

mod discovery;
mod follow;
mod mirror;

use std::{collections::BTreeMap, sync::Arc};

use self::mirror::Change;
pub use self::{
    follow::follow,
    mirror::{Mirror, Seen},
};
use super::{
    check::Checker,
    objects::{ObjectRef, Objects},
    reading::{Reading, Source},
    versions::Versions,
};

/// A cluster as a source of objects.
#[derive(Debug)]
pub struct Cluster {
    mirror: Arc<Mirror>,
    checker: Checker,
    versions: Versions<()>,
    faults: BTreeMap<ObjectRef, Vec<String>>,
}

impl Cluster {
    /// Hands out what is in `mirror`.
    pub fn new(mirror: Arc<Mirror>) -> Self {
        let (checker, versions) = (Checker::lenient(), Versions::default());
        Self { mirror, checker, versions, faults: BTreeMap::new() }
    }
}

impl Source for Cluster {
    fn read(&mut self) -> Reading {
        self.versions.settle();
        let mut changed = Vec::new();
        for (name, change) in self.mirror.take() {
            self.faults.remove(&name);
            let has_changed = match change {
                Change::Gone => self.versions.remove(&name),
                Change::Seen(kind, object) => match self.checker.read(kind, &name.name, object) {
                    Ok(object) => self.versions.put(&name, (), &object),
                    Err(complaints) => {
                        let line = |complaint: super::check::Complaint| match complaint.path.as_str() {
                            "" => format!("{name}: {}", complaint.reason),
                            path => format!("{name}: {path}: {}", complaint.reason),
                        };
                        let lines = complaints.into_iter().map(line).collect();
                        self.faults.insert(name.clone(), lines);
                        false
                    }
                },
            };
            if has_changed {
                changed.push(name);
            }
        }
        // What changes in a status changes nothing that is served.
        let is_idle = changed.is_empty();
        let faults = self.faults.values().flatten().cloned().collect();
        Reading { changed, faults, unserved: Vec::new(), is_idle }
    }

    fn objects(&self) -> &Objects {
        self.versions.objects()
    }

    fn reject(&mut self, refused: &ObjectRef) -> bool {
        self.versions.reject([refused])
    }
}

#[cfg(test)]
mod tests;
