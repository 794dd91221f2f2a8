//! Which Secrets and ConfigMaps have to be read, and which version of each was.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::Seen;
use crate::{ir::ControllerName, source::objects::ObjectRef};

/// The Secrets and ConfigMaps that something refers to.
#[derive(Debug, Default)]
pub(super) struct Values {
    /// What each object refers to, as it was last seen.
    references: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    /// The same from the other end.
    referrers: BTreeMap<ObjectRef, BTreeSet<ObjectRef>>,
    /// What the versions refer to that serve, which need not be those that were last seen.
    served: BTreeSet<ObjectRef>,
    /// The version of each that was read.
    read: BTreeMap<ObjectRef, Option<String>>,
    /// Those that are there in another version than was read.
    stale: BTreeSet<ObjectRef>,
    /// The controller of each GatewayClass,
    controllers: BTreeMap<ObjectRef, String>,
    /// and the one whose Gateways count; all do where it is not said.
    controller: Option<ControllerName>,
}

impl Values {
    /// Whether something of what is `seen` refers to an object.
    pub(super) fn is_wanted(&self, value: &ObjectRef, seen: &BTreeMap<ObjectRef, Seen>) -> bool {
        let mut referrers = self.referrers.get(value).into_iter().flatten();
        self.served.contains(value) || referrers.any(|referrer| self.counts(referrer, seen))
    }

    /// Whether an object is no Gateway of another controller, nor a ListenerSet of such a one.
    fn counts(&self, referrer: &ObjectRef, seen: &BTreeMap<ObjectRef, Seen>) -> bool {
        let owner = |object: &ObjectRef| seen.get(object).and_then(|seen| seen.owner.as_ref());
        let class = match referrer.kind {
            "Gateway" => owner(referrer),
            "ListenerSet" => owner(referrer).and_then(owner),
            _ => return true,
        };
        let is_ours = |known: &ControllerName| {
            class.and_then(|class| self.controllers.get(class)).is_some_and(|it| it == known.as_str())
        };
        self.controller.as_ref().is_none_or(is_ours)
    }

    /// Counts Gateways of this controller alone.
    pub(super) fn answer_for(&mut self, controller: ControllerName) {
        self.controller = Some(controller);
    }

    /// Notes whose a class is, if it is there.
    pub(super) fn classify(&mut self, class: &ObjectRef, controller: Option<&str>) {
        match controller {
            Some(controller) => self.controllers.insert(class.clone(), controller.to_owned()),
            None => self.controllers.remove(class),
        };
    }

    /// Looks at all that something refers to, or a ListenerSet of this Gateway, as these may have come to
    /// count or not to.
    pub(super) fn look_at_all(&mut self, seen: &BTreeMap<ObjectRef, Seen>, gateway: Option<&ObjectRef>) {
        let is_meant = |referrer: &ObjectRef| {
            gateway.is_none_or(|gateway| {
                let owner = || seen.get(referrer).and_then(|seen| seen.owner.as_ref());
                referrer.kind == "ListenerSet" && owner() == Some(gateway)
            })
        };
        let meant = self.references.iter().filter(|&(referrer, _)| is_meant(referrer));
        let values: BTreeSet<ObjectRef> = meant.flat_map(|(_, values)| values).cloned().collect();
        for value in &values {
            self.look_at(value, seen);
        }
    }

    /// Notes what an object refers to now, of what is `seen`.
    pub(super) fn refer(
        &mut self,
        referrer: &ObjectRef,
        references: BTreeSet<ObjectRef>,
        seen: &BTreeMap<ObjectRef, Seen>,
    ) {
        let before = self.references.remove(referrer).unwrap_or_default();
        for value in &before {
            if let Some(referrers) = self.referrers.get_mut(value) {
                referrers.remove(referrer);
                if referrers.is_empty() {
                    self.referrers.remove(value);
                }
            }
        }
        for value in &references {
            self.referrers.entry(value.clone()).or_default().insert(referrer.clone());
        }
        for value in before.union(&references) {
            self.look_at(value, seen);
        }
        if !references.is_empty() {
            self.references.insert(referrer.clone(), references);
        }
    }

    /// Notes whether the version that is `seen` of an object has to be read.
    pub(super) fn look_at(&mut self, value: &ObjectRef, seen: &BTreeMap<ObjectRef, Seen>) {
        let is_read = |seen: &Seen| self.read.get(value) == Some(&seen.resource_version);
        match seen.get(value) {
            Some(it) if self.is_wanted(value, seen) && !is_read(it) => drop(self.stale.insert(value.clone())),
            _ => drop(self.stale.remove(value)),
        }
    }

    /// Notes that this version was read. Returns whether it is another one.
    pub(super) fn read(&mut self, value: &ObjectRef, version: &Option<String>) -> bool {
        self.read.insert(value.clone(), version.clone()).as_ref() != Some(version)
    }

    /// Notes that an object is gone. Returns whether it was read.
    pub(super) fn forget(&mut self, value: &ObjectRef) -> bool {
        self.stale.remove(value);
        self.read.remove(value).is_some()
    }

    /// Notes what the versions refer to that serve. Returns what was read and nothing refers to any more.
    pub(super) fn serve(
        &mut self,
        served: BTreeSet<ObjectRef>,
        seen: &BTreeMap<ObjectRef, Seen>,
    ) -> Vec<ObjectRef> {
        self.served.clone_from(&served);
        for value in &served {
            self.look_at(value, seen);
        }
        let unwanted =
            self.read.keys().chain(&self.stale).filter(|value| !self.is_wanted(value, seen)).cloned();
        let unwanted: BTreeSet<ObjectRef> = unwanted.collect();
        unwanted.into_iter().filter(|value| self.forget(value)).collect()
    }

    /// Those that have to be read.
    pub(super) fn stale(&self) -> &BTreeSet<ObjectRef> {
        &self.stale
    }

    /// Whether something that an object refers to is there and was never read.
    pub(super) fn awaits(&self, referrer: &ObjectRef, seen: &BTreeMap<ObjectRef, Seen>) -> bool {
        let mut references = self.references.get(referrer).into_iter().flatten();
        self.counts(referrer, seen)
            && references.any(|value| self.stale.contains(value) && !self.read.contains_key(value))
    }

    /// What refers to an object.
    pub(super) fn referrers(&self, value: &ObjectRef) -> Vec<ObjectRef> {
        self.referrers.get(value).into_iter().flatten().cloned().collect()
    }
}
