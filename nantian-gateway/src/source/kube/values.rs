//! Which Secrets and ConfigMaps have to be read, and which version of each was.

use std::collections::{BTreeMap, BTreeSet};

use super::cache::Seen;
use crate::{
    ir::{ControllerName, ObjectName},
    source::objects::ObjectRef,
};

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
    pub(super) fn answer_for(&mut self, controller: ControllerName, seen: &BTreeMap<ObjectRef, Seen>) {
        self.controller = Some(controller);
        self.look_at_all(seen);
    }

    /// Notes whose a class is, if it is there.
    pub(super) fn classify(
        &mut self,
        class: &ObjectRef,
        controller: Option<&str>,
        seen: &BTreeMap<ObjectRef, Seen>,
    ) {
        let before = match controller {
            Some(controller) => self.controllers.insert(class.clone(), controller.to_owned()),
            None => self.controllers.remove(class),
        };
        if before.as_deref() != controller {
            self.look_at_all(seen);
        }
    }

    /// Looks at all that something refers to, which may have come to count or not to.
    fn look_at_all(&mut self, seen: &BTreeMap<ObjectRef, Seen>) {
        let values: Vec<ObjectRef> = self.referrers.keys().cloned().collect();
        for value in &values {
            self.look_at(value, seen);
        }
    }

    /// The same of what the ListenerSets of a Gateway refer to.
    pub(super) fn look_at_sets_of(&mut self, gateway: &ObjectRef, seen: &BTreeMap<ObjectRef, Seen>) {
        const SETS: &str = "ListenerSet";
        let first = ObjectRef { kind: SETS, name: ObjectName::new("", "") };
        let sets = self.references.range(first..).take_while(|(set, _)| set.kind == SETS);
        let is_of = |set: &ObjectRef| seen.get(set).is_some_and(|set| set.owner.as_ref() == Some(gateway));
        let values = sets.filter(|&(set, _)| is_of(set)).flat_map(|(_, values)| values);
        for value in &values.cloned().collect::<BTreeSet<ObjectRef>>() {
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

    /// Notes whether the version that is `seen` of an object has to be read. Returns whether it has to,
    /// or had to before.
    pub(super) fn look_at(&mut self, value: &ObjectRef, seen: &BTreeMap<ObjectRef, Seen>) -> bool {
        let is_read = |seen: &Seen| self.read.get(value) == Some(&seen.resource_version);
        match seen.get(value) {
            Some(it) if self.is_wanted(value, seen) && !is_read(it) => {
                self.stale.insert(value.clone());
                true
            }
            _ => self.stale.remove(value),
        }
    }

    /// Notes that this version was read. Returns whether it is another one.
    pub(super) fn read(&mut self, value: &ObjectRef, version: &Option<String>) -> bool {
        self.read.insert(value.clone(), version.clone()).as_ref() != Some(version)
    }

    /// Whether some version of an object was read.
    pub(super) fn has_read(&self, value: &ObjectRef) -> bool {
        self.read.contains_key(value)
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

    /// Whether there are some of which no version was read.
    pub(super) fn lacks_some(&self) -> bool {
        self.stale.iter().any(|value| !self.has_read(value))
    }

    /// What waits for something that is there and was never read: what refers to it; and if that is not among
    /// the `changes`, for it did not count when it was taken, what makes it count, too.
    pub(super) fn waiting<T>(
        &self,
        seen: &BTreeMap<ObjectRef, Seen>,
        changes: &BTreeMap<ObjectRef, T>,
    ) -> BTreeSet<ObjectRef> {
        let mut waiting = BTreeSet::new();
        for value in self.stale.iter().filter(|value| !self.has_read(value)) {
            let referrers = self.referrers.get(value).into_iter().flatten();
            for referrer in referrers.filter(|referrer| self.counts(referrer, seen)) {
                waiting.insert(referrer.clone());
                // Whoever makes a Secret anew, or refers to another one, holds up nobody else.
                let counts_anew = !self.served.contains(value) && !changes.contains_key(referrer);
                let mut owner = seen.get(referrer).filter(|_| counts_anew).and_then(|it| it.owner.as_ref());
                while let Some(name) = owner {
                    waiting.insert(name.clone());
                    owner = seen.get(name).and_then(|seen| seen.owner.as_ref());
                }
            }
        }
        waiting
    }
}
