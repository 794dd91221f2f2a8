//! The objects of a cluster, kept up to date by watches.
//!
//! [`follow`] keeps a [`Mirror`] of every kind that the API server serves, and [`Cluster`] hands out what is in it, after
//! the same checks that manifests in files go through. An object that breaks keeps its last good version.

mod discovery;
mod follow;
mod mirror;
mod pool;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use self::mirror::Change;
pub use self::{
    follow::follow,
    mirror::{Mirror, Seen},
    pool::{AddressPool, InvalidPool},
};
use super::{
    check::Checker,
    objects::{ObjectRef, Objects},
    reading::{Reading, Source},
    versions::Versions,
};
use crate::ir::ObjectName;

/// A cluster as a source of objects.
#[derive(Debug)]
pub struct Cluster {
    mirror: Arc<Mirror>,
    checker: Checker,
    versions: Versions<()>,
    faults: BTreeMap<ObjectRef, Vec<String>>,
    pool: Option<AddressPool>,
    assigned: BTreeMap<ObjectName, IpAddr>,
    /// The objects with the addresses of the pool, where there is one.
    addressed: Option<Objects>,
}

impl Cluster {
    /// Hands out what is in `mirror`; Gateways that ask for no address get one of `pool`, if there is one.
    pub fn new(mirror: Arc<Mirror>, pool: Option<AddressPool>) -> Self {
        let (checker, versions, faults) = (Checker::lenient(), Versions::default(), BTreeMap::new());
        Self { mirror, checker, versions, faults, pool, assigned: BTreeMap::new(), addressed: None }
    }

    fn assign_addresses(&mut self) {
        let Some(pool) = &self.pool else { return };
        let known = |gateway: &ObjectName| {
            let seen = self.mirror.get(&ObjectRef { kind: "Gateway", name: gateway.clone() })?;
            seen.status.pointer("/addresses/0/value")?.as_str()?.parse().ok()
        };
        self.addressed = Some(pool.assign(self.versions.objects(), known, &mut self.assigned));
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
        if !changed.is_empty() {
            self.assign_addresses();
        }
        // What changes in a status changes nothing that is served.
        let is_idle = changed.is_empty();
        let faults = self.faults.values().flatten().cloned().collect();
        Reading { changed, faults, unserved: Vec::new(), is_idle }
    }

    fn objects(&self) -> &Objects {
        self.addressed.as_ref().unwrap_or_else(|| self.versions.objects())
    }

    fn reject(&mut self, refused: &ObjectRef) -> bool {
        let is_rejected = self.versions.reject([refused]);
        if is_rejected {
            self.assign_addresses();
        }
        is_rejected
    }
}

#[cfg(test)]
mod tests;
