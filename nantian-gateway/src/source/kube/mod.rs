//! The objects of a cluster, kept up to date by watches.
//!
//! [`follow`] keeps a [`Mirror`] of every kind that the API server serves, and [`Cluster`] hands out what is in it, after
//! the same checks that manifests in files go through. An object that breaks keeps its last good version.

mod discovery;
mod follow;
mod mirror;
mod pool;
mod said;
mod service;
mod unaddressed;
mod unreadable;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use serde_json::{Map, Value};
use tokio::sync::watch;

pub(crate) use self::said::said;
pub(crate) use self::service::{PORTS, belongs_to, claims, digest, fronted, service_name, transport};
pub use self::{
    follow::follow,
    mirror::{Mirror, Seen},
    pool::{AddressPool, InvalidPool},
};
use self::{
    mirror::Change,
    unreadable::{Outline, Unreadable},
};
use super::{
    check::Checker,
    kind::Kind,
    objects::{ObjectRef, Objects},
    placement::{Placement, Placements},
    reading::{Reading, Source},
    stand_in::stand_in,
    versions::Versions,
};
use crate::{ir::ObjectName, translate::status::ObjectStatus};

/// A cluster as a source of objects.
#[derive(Debug)]
pub struct Cluster {
    mirror: Arc<Mirror>,
    checker: Checker,
    versions: Versions<()>,
    unreadable: BTreeMap<ObjectRef, Unreadable>,
    addressing: Addressing,
    /// The addresses of the pool that are taken.
    assigned: BTreeMap<ObjectName, IpAddr>,
    /// The objects with the addresses of the pool, where there is one.
    addressed: Option<Objects>,
    /// Where the Gateways with a Service are reached.
    placed: BTreeMap<ObjectName, Placement>,
}

/// Who gives addresses to Gateways that ask for none.
#[derive(Debug)]
#[non_exhaustive]
pub enum Addressing {
    /// Nobody.
    Nobody,
    /// The gateway itself.
    Pool(AddressPool),
    /// The Services of the Gateways, which whoever follows these objects takes care of.
    Services(watch::Sender<Arc<Objects>>),
}

impl Cluster {
    /// Hands out what is in `mirror`.
    pub fn new(mirror: Arc<Mirror>, addressing: Addressing) -> Self {
        let mut versions = Versions::default();
        versions.place(Placements::Nowhere);
        Self {
            mirror,
            checker: Checker::lenient(),
            versions,
            unreadable: BTreeMap::new(),
            addressing,
            assigned: BTreeMap::new(),
            addressed: None,
            placed: BTreeMap::new(),
        }
    }

    /// Checks an object that was seen. Returns whether it changes what is handed out.
    fn take_in(&mut self, kind: Kind, name: &ObjectRef, object: Map<String, Value>) -> bool {
        let (outline, stand_in) = (Outline::of(&object), stand_in(kind, &name.name, &object));
        match self.checker.read(kind, &name.name, object) {
            Ok(object) => self.versions.put(name, (), &object),
            Err(complaints) => {
                let lines: Vec<_> = complaints.into_iter().map(|complaint| complaint.to_string()).collect();
                let reason = lines.join("; ");
                self.unreadable.insert(name.clone(), Unreadable { outline, lines });
                stand_in.is_some_and(|object| self.versions.stand_in(name, (), &object, &reason))
            }
        }
    }

    fn assign_addresses(&mut self) {
        let Addressing::Pool(pool) = &self.addressing else { return };
        let known = |gateway: &ObjectName| {
            let seen = self.mirror.get(&ObjectRef { kind: "Gateway", name: gateway.clone() })?;
            seen.status.pointer("/addresses/0/value")?.as_str()?.parse().ok()
        };
        self.addressed = Some(pool.assign(self.versions.objects(), known, &mut self.assigned));
    }

    /// Looks where the Gateways with a Service are reached, and shows the objects to whoever makes the Services if one of
    /// them has changed. Returns the Gateways that are reached in another way than before.
    fn place(&mut self, has_changed: bool) -> Vec<ObjectRef> {
        let Addressing::Services(show) = &self.addressing else { return Vec::new() };
        let status = |service: &ObjectName| {
            let seen = self.mirror.get(&ObjectRef { kind: "Service", name: service.clone() });
            seen.map(|seen| seen.status).unwrap_or_default()
        };
        let placed = service::placements(self.versions.objects(), status);
        let has_moved = |name: &&ObjectName| placed.get(*name) != self.placed.get(*name);
        let names = placed.keys().chain(self.placed.keys().filter(|name| !placed.contains_key(*name)));
        let moved = names.filter(has_moved).map(|name| ObjectRef { kind: "Gateway", name: name.clone() });
        let moved: Vec<ObjectRef> = moved.collect();
        self.placed = placed;
        self.versions.place(Placements::InFront(self.placed.clone()));
        if has_changed || !moved.is_empty() {
            show.send_replace(Arc::new(self.versions.objects().fronts()));
        }
        moved
    }
}

impl Source for Cluster {
    fn read(&mut self) -> Reading {
        self.versions.settle();
        let (mut changed, mut is_idle) = (Vec::new(), true);
        for (name, change) in self.mirror.take() {
            let before = self.unreadable.remove(&name);
            let has_changed = match change {
                Change::Gone => self.versions.remove(&name),
                Change::Seen(kind, object) => self.take_in(kind, &name, object),
            };
            is_idle &= self.unreadable.get(&name) == before.as_ref();
            if has_changed {
                changed.push(name);
            }
        }
        if !changed.is_empty() {
            self.assign_addresses();
        }
        let moved = self.place(!changed.is_empty());
        changed.extend(moved);
        // What else changes in a status changes nothing that is served.
        is_idle &= changed.is_empty();
        let lines = self.unreadable.iter().flat_map(|(name, unreadable)| {
            unreadable.lines.iter().map(move |line| format!("{name}: {line}"))
        });
        let faults = lines.collect();
        let absent = self.mirror.absent().into_iter().map(Kind::info);
        let unserved = absent.map(|kind| format!("{} {}", kind.api_version(), kind.name)).collect();
        Reading { changed, faults, unserved, is_idle }
    }

    fn objects(&self) -> &Objects {
        self.addressed.as_ref().unwrap_or_else(|| self.versions.objects())
    }

    fn unreadable(&self) -> Vec<(ObjectRef, ObjectStatus)> {
        let status = |(name, unreadable): (&ObjectRef, &Unreadable)| {
            Some((name.clone(), unreadable.status(name, self.versions.objects())?))
        };
        self.unreadable.iter().filter_map(status).collect()
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
