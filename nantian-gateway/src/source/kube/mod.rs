//! The objects of a cluster, kept up to date by watches.
//!
//! [`follow`] keeps an [`ObjectCache`] of every kind that the API server serves, and [`Cluster`] hands out
//! what is in it, after the same checks that manifests in files go through. An object that breaks keeps its
//! last good version.

mod api_error;
mod cache;
mod client;
mod discovery;
mod follow;
mod object;
mod ours;
mod pool;
mod references;
mod scope;
mod service;
mod state;
mod unreadable;
mod values;

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    net::IpAddr,
    sync::Arc,
};

use serde_json::{Map, Value};
use tokio::sync::watch;

pub(crate) use self::api_error::said;
pub(crate) use self::ours::ours;
pub(crate) use self::service::{
    FRONT_PORTS, belongs_to, digest, front_ports, listener_ports, placements, service_name,
};
use self::{
    cache::Change,
    references::{references_of_all, refers_by_name},
    unreadable::{PartialObject, Unreadable},
};
pub use self::{
    cache::{ObjectCache, Seen},
    client::connect,
    follow::follow,
    pool::{AddressPool, InvalidPool},
    scope::Scope,
};
use super::{
    check::Checker,
    kind::Kind,
    objects::{ObjectRef, Objects},
    placeholder::placeholder,
    placement::{Placement, Placements, PublicAddress},
    reading::{Reading, Source, Unserved},
    versions::Versions,
};
use crate::{
    ir::{ControllerName, ObjectName},
    translate::status::ObjectStatus,
};

/// A cluster as a source of objects.
#[derive(Debug)]
pub struct Cluster {
    cache: Arc<ObjectCache>,
    checker: Checker,
    /// By the UID of each object.
    versions: Versions<Option<String>>,
    unreadable: BTreeMap<ObjectRef, Unreadable>,
    addressing: Addressing,
    /// The addresses of the pool that are taken,
    assigned: BTreeMap<ObjectName, IpAddr>,
    /// and those that were when what was handed out stood last.
    held: BTreeMap<ObjectName, IpAddr>,
    /// The objects with the addresses of the pool, where there is one.
    addressed: Option<Objects>,
    /// Where the Gateways with a Service were reached when what was handed out stood last.
    placed: BTreeMap<ObjectName, Placement>,
    /// Whether what serves may refer to other Secrets and ConfigMaps than the cache was told.
    refers_anew: bool,
    /// Whether something has changed that who makes the Services was not shown.
    is_unshown: bool,
    /// The namespaces of which nothing is handed out.
    withheld: BTreeSet<String>,
}

/// Who gives addresses to Gateways that ask for none.
#[derive(Debug)]
#[non_exhaustive]
pub enum Addressing {
    /// Nobody.
    Nobody,
    /// Nobody: all of them are reached under these.
    Known(Vec<PublicAddress>),
    /// The gateway itself.
    Pool(AddressPool),
    /// The Services of the Gateways, which whoever follows these objects takes care of.
    Services(watch::Sender<Arc<Objects>>),
}

impl Cluster {
    /// Hands out what is in `cache`.
    pub fn new(cache: Arc<ObjectCache>, addressing: Addressing) -> Self {
        let mut versions = Versions::default();
        cache.answer_for(ControllerName::default());
        versions.place(match &addressing {
            Addressing::Known(addresses) => Placements::Known(addresses.clone()),
            _ => Placements::Nowhere,
        });
        Self {
            cache,
            checker: Checker::lenient(),
            versions,
            unreadable: BTreeMap::new(),
            addressing,
            assigned: BTreeMap::new(),
            held: BTreeMap::new(),
            addressed: None,
            placed: BTreeMap::new(),
            refers_anew: false,
            is_unshown: false,
            withheld: BTreeSet::new(),
        }
    }

    /// Serves the classes of `controller` in place of those of the default one.
    #[must_use]
    pub fn answering_for(mut self, controller: ControllerName) -> Self {
        self.cache.answer_for(controller.clone());
        self.versions.answer_for(controller);
        self
    }

    /// Checks an object that was seen. Returns whether it changes what is handed out.
    fn take_in(&mut self, kind: Kind, name: &ObjectRef, object: Map<String, Value>) -> bool {
        let (outline, placeholder) = (PartialObject::of(&object), placeholder(kind, &name.name, &object));
        let uid = object.get("metadata").and_then(|metadata| metadata.get("uid"));
        let uid = uid.and_then(Value::as_str).map(str::to_owned);
        // One that was deleted and made anew takes over nothing.
        let is_another = self.versions.origin(name).is_some_and(|known| *known != uid);
        let is_removed = is_another && self.versions.remove(name);
        let is_put = match self.checker.read(kind, &name.name, object) {
            Ok(object) => self.versions.put(name, uid, &object),
            Err(complaints) => {
                let lines: Vec<_> = complaints.into_iter().map(|complaint| complaint.to_string()).collect();
                let reason = lines.join("; ");
                self.unreadable.insert(name.clone(), Unreadable { outline, lines });
                placeholder.is_some_and(|object| self.versions.placeholder(name, uid, &object, &reason))
            }
        };
        is_removed || is_put
    }

    /// Finds out where the Gateways are reached that do not say it themselves. Returns those that have moved.
    fn locate(&mut self) -> Vec<ObjectRef> {
        let status = |kind, name: &ObjectName| {
            let seen = self.cache.get(&ObjectRef { kind, name: name.clone() });
            seen.map(|seen| seen.status).unwrap_or_default()
        };
        match &self.addressing {
            Addressing::Nobody | Addressing::Known(_) => Vec::new(),
            Addressing::Pool(pool) => {
                let known = |gateway: &ObjectName| {
                    status("Gateway", gateway).pointer("/addresses/0/value")?.as_str()?.parse().ok()
                };
                // An edit that may be taken back gives nothing away.
                let mut assigned = self.held.clone();
                self.addressed = Some(pool.assign(self.versions.objects(), known, &mut assigned));
                let moved = moved(&self.assigned, &assigned);
                self.assigned = assigned;
                moved
            }
            Addressing::Services(_) => {
                let status = |service: &ObjectName| status("Service", service);
                let placed = placements(self.versions.objects(), &self.placed, status);
                let moved = moved(&self.placed, &placed);
                self.versions.place(Placements::InFront(placed));
                moved
            }
        }
    }
}

/// The Gateways that are somewhere else than before.
fn moved<T: PartialEq>(before: &BTreeMap<ObjectName, T>, now: &BTreeMap<ObjectName, T>) -> Vec<ObjectRef> {
    let names: BTreeSet<&ObjectName> = before.keys().chain(now.keys()).collect();
    let moved = names.into_iter().filter(|name| before.get(*name) != now.get(*name));
    moved.map(|name| ObjectRef { kind: "Gateway", name: name.clone() }).collect()
}

impl Source for Cluster {
    fn read(&mut self) -> Reading {
        self.versions.settle();
        let (mut changed, mut is_idle) = (BTreeSet::new(), true);
        // One that is let go between the two is called left out, until it is read again.
        let namespaces = self.cache.withheld();
        self.is_unshown |= self.withheld != namespaces;
        self.withheld.clone_from(&namespaces);
        for (name, change) in self.cache.take() {
            let before = self.unreadable.remove(&name);
            self.refers_anew |= refers_by_name(name.kind) || name.kind == Kind::GatewayClass.info().name;
            let has_changed = match change {
                Change::Gone => self.versions.remove(&name),
                Change::Unwanted => {
                    self.versions.remove(&name);
                    false
                }
                Change::Seen(kind, object) | Change::New(kind, object) => self.take_in(kind, &name, object),
            };
            is_idle &= self.unreadable.get(&name) == before.as_ref();
            if has_changed {
                changed.insert(name);
            }
        }
        // Also without a change of an object: addresses are in statuses.
        changed.extend(self.locate());
        self.is_unshown |= !changed.is_empty();
        // What else changes in a status changes nothing that is served.
        is_idle &= changed.is_empty();
        let lines = self.unreadable.iter().flat_map(|(name, unreadable)| {
            unreadable.lines.iter().map(move |line| format!("{name}: {line}"))
        });
        let faults = lines.collect();
        let absent = self.cache.absent().into_iter().map(Kind::info);
        let kinds = absent.map(|kind| format!("{} {}", kind.api_version(), kind.name)).collect();
        let unserved = Unserved { kinds, namespaces };
        Reading { changed: changed.into_iter().collect(), faults, unserved, is_idle }
    }

    fn objects(&self) -> &Objects {
        self.addressed.as_ref().unwrap_or_else(|| self.versions.objects())
    }

    fn unreadable(&self) -> Vec<(ObjectRef, ObjectStatus)> {
        let status = |(name, unreadable): (&ObjectRef, &Unreadable)| {
            let objects = self.versions.objects();
            let is_served = self.versions.origin(name).is_some() && !objects.unreadable.contains_key(name);
            Some((name.clone(), unreadable.status(name, objects, is_served)?))
        };
        self.unreadable.iter().filter_map(status).collect()
    }

    fn reject(&mut self, refused: &ObjectRef) -> bool {
        let is_rejected = self.versions.reject([refused]);
        if is_rejected {
            self.refers_anew = true;
            self.locate();
        }
        is_rejected
    }

    fn stands(&mut self) {
        self.held.clone_from(&self.assigned);
        if mem::take(&mut self.refers_anew) {
            self.cache.serve(references_of_all(self.versions.objects()));
        }
        let Addressing::Services(show) = &self.addressing else { return };
        let objects = self.versions.objects();
        if let Placements::InFront(placed) = &objects.placements {
            self.placed.clone_from(placed);
        }
        if mem::take(&mut self.is_unshown) {
            let shown = Objects { withheld: self.withheld.clone(), ..objects.for_gateway_services() };
            show.send_replace(Arc::new(shown));
        }
    }
}

#[cfg(test)]
mod tests;
