//! The status of every object, in the shape that its kind has in Kubernetes.

mod shape;

use std::collections::{BTreeMap, BTreeSet};

pub use nantian_crd::status::ParentReference;
use serde::{Serialize, Serializer};

pub use self::shape::{
    AncestorStatus, GatewayAddress, GatewayStatus, ListenerSetStatus, ListenerStatus, ObjectStatus,
    ParentStatus, PlainStatus, PolicyStatus, RouteKind, RouteStatus,
};
pub(super) use self::shape::{listeners_accepted, set_accepted};
use super::{
    conditions::{Condition, ConditionType, Conditions, Reason},
    grants::GroupKind,
};
use crate::{ir::ListenerId, source::ObjectRef};

/// The status of every object that this gateway speaks about.
///
/// The translator writes it; later stages correct it when a listener cannot be bound or a module does not
/// compile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statuses {
    objects: BTreeMap<ObjectRef, ObjectStatus>,
}

/// A condition that does not hold, and of what kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Unmet {
    /// The kind.
    pub(crate) kind: &'static str,
    /// What the condition is about.
    pub(crate) condition: ConditionType,
    /// Why it does not hold.
    pub(crate) reason: Reason,
}

// === impl Statuses ===

impl Statuses {
    /// The status of `object`.
    pub fn get(&self, object: &ObjectRef) -> Option<&ObjectStatus> {
        self.objects.get(object)
    }

    /// Every object with its status, by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectRef, &ObjectStatus)> {
        self.objects.iter()
    }

    /// How many objects have each condition that does not hold, of those that should: themselves, under one
    /// of their parents or ancestors, or in one of their listeners.
    pub(crate) fn unmet(&self) -> BTreeMap<Unmet, u64> {
        let mut counts = BTreeMap::new();
        for (object, status) in &self.objects {
            let listeners = status.listeners().iter().map(|listener| &listener.conditions);
            let unmet =
                status.conditions().chain(listeners).flat_map(Conditions::iter).filter(|it| it.is_unmet());
            let unmet: BTreeSet<_> = unmet.map(|it| (it.kind, it.reason)).collect();
            for (condition, reason) in unmet {
                *counts.entry(Unmet { kind: object.kind, condition, reason }).or_default() += 1;
            }
        }
        counts
    }

    /// Sets a condition of an object that has a status; of a route under every parent, of a policy under
    /// every ancestor.
    pub fn set_condition(&mut self, object: &ObjectRef, condition: &Condition) {
        let Some(status) = self.objects.get_mut(object) else { return };
        status.conditions_mut().for_each(|conditions| conditions.set(condition.clone()));
    }

    /// Sets the verdict on a version of an object that is not the one that serves; it is the newest that was
    /// seen.
    pub fn judge(&mut self, object: &ObjectRef, verdict: &Condition) {
        let Some(status) = self.objects.get_mut(object) else { return };
        for conditions in status.conditions_mut() {
            conditions.observe(verdict.observed_generation);
            conditions.set(verdict.clone());
        }
        for listener in status.listeners_mut() {
            listener.conditions.observe(verdict.observed_generation);
        }
    }

    /// Adds a remark to the condition of this type wherever the object has it and it holds.
    pub fn remark(&mut self, object: &ObjectRef, kind: ConditionType, remark: &str) {
        for conditions in self.objects.get_mut(object).into_iter().flat_map(ObjectStatus::conditions_mut) {
            if let Some(known) = conditions.get(kind).filter(|_| conditions.holds(kind)) {
                let message = format!("{}; {remark}", known.message);
                conditions.set(Condition { message, ..known.clone() });
            }
        }
    }

    /// Tells why the port of a listener cannot be bound: it is taken, or this machine has no such address, so
    /// that it may be free elsewhere.
    pub fn set_unbound(&mut self, id: &ListenerId, why: &str, lacks_address: bool) {
        if !lacks_address {
            let taken = Condition::fails(ConditionType::Accepted, Reason::PortUnavailable, why);
            self.set_listener_condition(id, taken);
        }
        let unused = Condition::fails(ConditionType::Programmed, Reason::AddressNotUsable, why);
        self.set_listener_condition(id, unused);
    }

    /// Sets a condition of a listener that has a status. The Gateway, or the ListenerSet, that declares it
    /// stays Programmed as long as one of its listeners is, and counts those that are accepted.
    pub fn set_listener_condition(&mut self, id: &ListenerId, condition: Condition) {
        let of_name = |listener: &&mut ListenerStatus| listener.name == id.name;
        match self.objects.get_mut(&declarer(id)) {
            Some(ObjectStatus::Gateway(gateway)) => {
                let Some(listener) = gateway.listeners.iter_mut().find(of_name) else { return };
                listener.conditions.set(condition);
                gateway.refresh_accepted();
                gateway.refresh_programmed();
            }
            Some(ObjectStatus::ListenerSet(set)) => {
                let Some(listener) = set.listeners.iter_mut().find(of_name) else { return };
                listener.conditions.set(condition);
                let was_accepted = set.conditions.holds(ConditionType::Accepted);
                set.refresh_accepted();
                set.refresh_programmed();
                let is_lost = was_accepted && !set.conditions.holds(ConditionType::Accepted);
                let gateway = ObjectRef { kind: GroupKind::GATEWAY.kind, name: id.gateway.clone() };
                if is_lost && let Some(ObjectStatus::Gateway(gateway)) = self.objects.get_mut(&gateway) {
                    gateway.attached_listener_sets = gateway.attached_listener_sets.saturating_sub(1);
                }
            }
            _ => {}
        }
    }

    /// Sets the status of an object in place of the one that it has; of a policy the conditions alone, under
    /// every ancestor, where no others are named.
    pub fn set(&mut self, object: ObjectRef, status: ObjectStatus) {
        match (self.objects.get_mut(&object), status) {
            (Some(ObjectStatus::Policy(policy)), ObjectStatus::Plain(plain)) => {
                for ancestor in &mut policy.ancestors {
                    ancestor.conditions.clone_from(&plain.conditions);
                }
            }
            (_, status) => drop(self.objects.insert(object, status)),
        }
    }
}

/// The object that declares a listener.
pub(crate) fn declarer(id: &ListenerId) -> ObjectRef {
    match &id.set {
        Some(set) => ObjectRef { kind: GroupKind::LISTENER_SET.kind, name: set.clone() },
        None => ObjectRef { kind: GroupKind::GATEWAY.kind, name: id.gateway.clone() },
    }
}

impl Serialize for Statuses {
    /// A map from `Kind namespace/name` to the status.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.objects.iter().map(|(object, status)| (object.to_string(), status)))
    }
}
