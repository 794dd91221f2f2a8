//! The shape that the status of each kind has in Kubernetes.

use std::net::IpAddr;

use nantian_crd::status::ParentReference;
use serde::Serialize;

use crate::{
    ir::ControllerName,
    translate::conditions::{Condition, ConditionType, Conditions, Reason},
};

/// The status of one object.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum ObjectStatus {
    /// A GatewayClass or an AIService.
    Plain(PlainStatus),
    /// A Gateway.
    Gateway(GatewayStatus),
    /// A ListenerSet.
    ListenerSet(ListenerSetStatus),
    /// A route.
    Route(RouteStatus),
    /// A TokenPolicy, WasmPlugin, BackendLBPolicy or BackendTLSPolicy.
    Policy(PolicyStatus),
}

/// A status of conditions alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PlainStatus {
    /// The conditions.
    pub conditions: Conditions,
}

/// The status of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// The addresses it is reached at; empty where it is bound to all interfaces and nobody has to know them.
    /// What is written names the first 16.
    pub addresses: Vec<GatewayAddress>,
    /// Why it is not reached at an address that it should have; `None` if it is.
    #[serde(skip)]
    pub unreached: Option<(Reason, &'static str)>,
    /// The conditions of the Gateway itself.
    pub conditions: Conditions,
    /// Its listeners, in the order of the spec.
    pub listeners: Vec<ListenerStatus>,
    /// How many ListenerSets add listeners to it.
    #[serde(skip_serializing_if = "is_zero")]
    pub attached_listener_sets: usize,
}

/// The status of a ListenerSet.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ListenerSetStatus {
    /// The conditions of the set itself.
    pub conditions: Conditions,
    /// Its listeners, in the order of the spec; none if its Gateway does not take it.
    pub listeners: Vec<ListenerStatus>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// An address of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GatewayAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The address.
    pub value: String,
}

/// The status of a listener.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// `spec.listeners[].name`.
    pub name: String,
    /// The route kinds that it serves of those that were asked for.
    pub supported_kinds: Vec<RouteKind>,
    /// How many routes it accepts, whether or not their references resolve.
    pub attached_routes: usize,
    /// The conditions.
    pub conditions: Conditions,
}

/// A kind of route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RouteKind {
    /// The API group.
    pub group: &'static str,
    /// The kind.
    pub kind: &'static str,
}

/// The status of a route.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct RouteStatus {
    /// One entry for each parentRef that names a Gateway of ours.
    pub parents: Vec<ParentStatus>,
}

/// What one parent makes of a route.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parentRef as the route spells it.
    pub parent_ref: ParentReference,
    /// Who says so: this gateway.
    pub controller_name: ControllerName,
    /// The conditions.
    pub conditions: Conditions,
}

/// The status of a policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PolicyStatus {
    /// What the policy does under each Gateway that reaches one of its targets; under the target itself where
    /// none does.
    pub ancestors: Vec<AncestorStatus>,
}

/// What a policy does under one ancestor.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The ancestor.
    pub ancestor_ref: ParentReference,
    /// Who says so: this gateway.
    pub controller_name: ControllerName,
    /// The conditions.
    pub conditions: Conditions,
}

// === impl ObjectStatus ===

impl ObjectStatus {
    /// The conditions of the object itself; those of a route under each parent, those of a policy under each
    /// ancestor.
    pub fn conditions(&self) -> impl Iterator<Item = &Conditions> {
        let (own, parents, ancestors): (_, &[ParentStatus], &[AncestorStatus]) = match self {
            Self::Plain(plain) => (Some(&plain.conditions), &[], &[]),
            Self::Gateway(gateway) => (Some(&gateway.conditions), &[], &[]),
            Self::ListenerSet(set) => (Some(&set.conditions), &[], &[]),
            Self::Route(route) => (None, &route.parents, &[]),
            Self::Policy(policy) => (None, &[], &policy.ancestors),
        };
        let parents = parents.iter().map(|parent| &parent.conditions);
        own.into_iter().chain(parents).chain(ancestors.iter().map(|ancestor| &ancestor.conditions))
    }

    pub(super) fn conditions_mut(&mut self) -> impl Iterator<Item = &mut Conditions> {
        let (own, parents, ancestors): (_, &mut [ParentStatus], &mut [AncestorStatus]) = match self {
            Self::Plain(plain) => (Some(&mut plain.conditions), &mut [], &mut []),
            Self::Gateway(gateway) => (Some(&mut gateway.conditions), &mut [], &mut []),
            Self::ListenerSet(set) => (Some(&mut set.conditions), &mut [], &mut []),
            Self::Route(route) => (None, &mut route.parents, &mut []),
            Self::Policy(policy) => (None, &mut [], &mut policy.ancestors),
        };
        let parents = parents.iter_mut().map(|parent| &mut parent.conditions);
        own.into_iter().chain(parents).chain(ancestors.iter_mut().map(|ancestor| &mut ancestor.conditions))
    }

    /// The listeners that it declares.
    pub fn listeners(&self) -> &[ListenerStatus] {
        match self {
            Self::Gateway(gateway) => &gateway.listeners,
            Self::ListenerSet(set) => &set.listeners,
            Self::Plain(_) | Self::Route(_) | Self::Policy(_) => &[],
        }
    }

    pub(super) fn listeners_mut(&mut self) -> &mut [ListenerStatus] {
        match self {
            Self::Gateway(gateway) => &mut gateway.listeners,
            Self::ListenerSet(set) => &mut set.listeners,
            Self::Plain(_) | Self::Route(_) | Self::Policy(_) => &mut [],
        }
    }
}

// === impl GatewayStatus ===

impl GatewayStatus {
    /// As many addresses as the CRD takes; it refuses the whole status for one more.
    pub(crate) const MAX_ADDRESSES: usize = 16;

    /// Derives the Gateway's Accepted condition from those of its listeners, where it has no other reason.
    pub(super) fn refresh_accepted(&mut self) {
        let reason = self.conditions.get(ConditionType::Accepted).map(|accepted| accepted.reason);
        if let Some(Reason::Accepted | Reason::ListenersNotValid) = reason {
            self.conditions.set(listeners_accepted(&self.listeners));
        }
    }

    /// Derives the Gateway's Programmed condition from those of its listeners.
    pub(in crate::translate) fn refresh_programmed(&mut self) {
        let total = self.listeners.len();
        let served = self.listeners.iter().filter(|listener| listener.is_programmed()).count();
        let waits = || served > 0 || self.listeners.iter().any(ListenerStatus::is_pending);
        let unreached = self.unreached.filter(|_| waits());
        let condition = if let Some((reason, message)) = unreached {
            Condition::fails(ConditionType::Programmed, reason, message)
        } else if served > 0 {
            let mut message = format!("{served} of {total} listeners served");
            let addresses = self.addresses.len();
            let most = Self::MAX_ADDRESSES;
            if addresses > most {
                message.push_str(&format!("; the status names {most} of {addresses} addresses"));
            }
            Condition::holds(ConditionType::Programmed, Reason::Programmed, message)
        } else {
            let unusable = self.listeners.iter().find_map(ListenerStatus::unusable_address);
            let (reason, message) = unusable.unwrap_or((Reason::Invalid, "no listener is served"));
            Condition::fails(ConditionType::Programmed, reason, message)
        };
        self.conditions.set(condition);
    }
}

// === impl ListenerSetStatus ===

impl ListenerSetStatus {
    /// Derives the Accepted condition of the set from those of its listeners, where it has no other reason.
    pub(super) fn refresh_accepted(&mut self) {
        let reason = self.conditions.get(ConditionType::Accepted).map(|accepted| accepted.reason);
        if let Some(Reason::Accepted | Reason::ListenersNotValid) = reason {
            self.conditions.set(set_accepted(&self.listeners));
        }
    }

    /// Derives the Programmed condition of the set from those of its listeners.
    pub(in crate::translate) fn refresh_programmed(&mut self) {
        let total = self.listeners.len();
        let served = self.listeners.iter().filter(|listener| listener.is_programmed()).count();
        let condition = if served > 0 {
            let message = format!("{served} of {total} listeners served");
            Condition::holds(ConditionType::Programmed, Reason::Programmed, message)
        } else {
            let accepted = self.conditions.get(ConditionType::Accepted).map(|accepted| accepted.reason);
            let reason = match accepted {
                Some(reason @ (Reason::NotAllowed | Reason::ParentNotAccepted)) => reason,
                _ => Reason::ListenersNotValid,
            };
            Condition::fails(ConditionType::Programmed, reason, "no listener is served")
        };
        self.conditions.set(condition);
    }
}

// === impl ListenerStatus ===

impl ListenerStatus {
    fn is_programmed(&self) -> bool {
        self.conditions.holds(ConditionType::Programmed)
    }

    /// Whether it is accepted, and not kept from being served by a reference that nobody permits.
    ///
    /// One to something that is not there is no fault of the listener: who issues certificates may wait for
    /// the ListenerSet to be accepted.
    fn is_valid(&self) -> bool {
        let is = |kind, reason| self.conditions.get(kind).is_some_and(|condition| condition.reason == reason);
        self.conditions.holds(ConditionType::Accepted)
            && !(is(ConditionType::ResolvedRefs, Reason::RefNotPermitted)
                && is(ConditionType::Programmed, Reason::Invalid))
    }

    /// Whether it would be served if a port led to it.
    fn is_pending(&self) -> bool {
        let programmed = self.conditions.get(ConditionType::Programmed);
        programmed.is_some_and(|programmed| programmed.reason == Reason::Pending)
    }

    /// Why its address, or one of them, cannot be used.
    fn unusable_address(&self) -> Option<(Reason, &str)> {
        let programmed = self.conditions.get(ConditionType::Programmed)?;
        let is_address = programmed.reason == Reason::AddressNotUsable;
        is_address.then_some((programmed.reason, programmed.message.as_str()))
    }
}

// === impl GatewayAddress ===

impl From<IpAddr> for GatewayAddress {
    fn from(value: IpAddr) -> Self {
        Self { kind: "IPAddress", value: value.to_string() }
    }
}

impl GatewayAddress {
    /// An address that is a name.
    pub fn host(name: String) -> Self {
        Self { kind: "Hostname", value: name }
    }
}

/// Whether a Gateway is accepted whose listeners have these statuses.
pub(in crate::translate) fn listeners_accepted(listeners: &[ListenerStatus]) -> Condition {
    let accepted = listeners.iter().filter(|listener| listener.conditions.holds(ConditionType::Accepted));
    let accepted: Vec<_> = accepted.map(|listener| listener.name.as_str()).collect();
    listeners_valid(&accepted, listeners)
}

/// Whether a ListenerSet is accepted whose listeners have these statuses.
pub(in crate::translate) fn set_accepted(listeners: &[ListenerStatus]) -> Condition {
    let valid = listeners.iter().filter(|listener| listener.is_valid());
    let valid: Vec<_> = valid.map(|listener| listener.name.as_str()).collect();
    listeners_valid(&valid, listeners)
}

/// Whether what declares these listeners is accepted, of which those called so are `valid`.
fn listeners_valid(valid: &[&str], listeners: &[ListenerStatus]) -> Condition {
    let mut message = format!("{} of {} listeners valid", valid.len(), listeners.len());
    let conflicts = listeners.iter().filter(|listener| listener.conditions.holds(ConditionType::Conflicted));
    let conflicts: Vec<_> = conflicts.map(|listener| listener.name.as_str()).collect();
    if !conflicts.is_empty() {
        let valid = if valid.is_empty() { String::new() } else { format!(": {}", valid.join(", ")) };
        message = format!("{message}{valid}; in conflict: {}", conflicts.join(", "));
    }
    match valid.len() {
        0 => Condition::fails(ConditionType::Accepted, Reason::ListenersNotValid, message),
        valid if valid < listeners.len() => {
            Condition::holds(ConditionType::Accepted, Reason::ListenersNotValid, message)
        }
        _ => Condition::holds(ConditionType::Accepted, Reason::Accepted, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_names_as_many_addresses_as_the_api_server_takes() {
        let mut conditions = Conditions::new(None);
        conditions.set(Condition::holds(ConditionType::Programmed, Reason::Programmed, "listener is served"));
        let (name, supported_kinds) = ("http".to_owned(), Vec::new());
        let listeners = vec![ListenerStatus { name, supported_kinds, attached_routes: 0, conditions }];
        let addresses = (1..=17).map(|last| GatewayAddress::from(IpAddr::from([192, 0, 2, last]))).collect();
        let mut status = GatewayStatus { addresses, listeners, ..GatewayStatus::default() };
        status.refresh_programmed();
        let programmed = status.conditions.get(ConditionType::Programmed).unwrap();
        assert!(
            programmed.message.ends_with("the status names 16 of 17 addresses"),
            "{}",
            programmed.message
        );
    }
}
