//! The status of a Gateway, its ListenerSets, and their listeners.

use super::{GatewayState, Gateways, ListenerState, clash, set::SetState};
use crate::{
    source::ObjectRef,
    translate::{
        cluster_state::Report,
        conditions::{Condition, ConditionType, Conditions, Reason},
        grants::GroupKind,
        status::{
            GatewayAddress, GatewayStatus, ListenerSetStatus, ListenerStatus, ObjectStatus, RouteKind,
            listeners_accepted, set_accepted,
        },
    },
};

/// Writes the status of every Gateway of ours, once its routes are attached.
pub(in crate::translate) fn report(gateways: &Gateways<'_>, report: &mut Report) {
    for gateway in gateways.iter() {
        let sets: Vec<_> = gateway.sets.iter().map(|set| (set.name, set_status(gateway, set))).collect();
        let attached = sets.iter().filter(|(_, set)| set.conditions.holds(ConditionType::Accepted)).count();
        let object = ObjectRef { kind: "Gateway", name: gateway.name.clone() };
        report.status(object, ObjectStatus::Gateway(gateway_status(gateway, attached)));
        for (name, set) in sets {
            let object = ObjectRef { kind: GroupKind::LISTENER_SET.kind, name: name.clone() };
            report.status(object, ObjectStatus::ListenerSet(set));
        }
    }
}

fn set_status(gateway: &GatewayState<'_>, set: &SetState<'_>) -> ListenerSetStatus {
    let mut conditions = Conditions::new(set.generation);
    let declared = gateway.declared_by(Some(set.name));
    let listeners = declared.map(|(_, listener)| listener_status(gateway, set.generation, listener));
    let listeners: Vec<_> = listeners.collect();
    conditions.set(match &set.verdict {
        Ok(()) => set_accepted(&listeners),
        Err(fault) => fault.condition(ConditionType::Accepted),
    });
    let mut status = ListenerSetStatus { conditions, listeners };
    status.refresh_programmed();
    status
}

fn gateway_status(gateway: &GatewayState<'_>, attached_listener_sets: usize) -> GatewayStatus {
    let listeners = gateway.declared_by(None);
    let listeners = listeners.map(|(_, listener)| listener_status(gateway, gateway.generation, listener));
    let listeners: Vec<_> = listeners.collect();
    let mut conditions = Conditions::new(gateway.generation);
    conditions.set(match &gateway.verdict {
        Ok(()) => listeners_accepted(&listeners),
        Err(fault) => fault.condition(ConditionType::Accepted),
    });
    if gateway.may_fall_back {
        let message = "spec.tls.frontend: clients without a valid certificate are served, too";
        let (kind, reason) = (ConditionType::InsecureFrontendValidationMode, Reason::ConfigurationChanged);
        conditions.set(Condition::holds(kind, reason, message));
    }
    if let Some(references) = &gateway.references {
        let message = "all references of the Gateway itself resolve";
        conditions.set(references.condition(ConditionType::ResolvedRefs, Reason::ResolvedRefs, message));
    }
    let asked = gateway.addresses.iter().flatten().filter(|_| !gateway.placed.is_nowhere());
    let asked = asked.copied().map(GatewayAddress::from);
    let addresses = asked.chain(gateway.placed.addresses()).collect();
    let unreached = gateway.placed.unreached();
    let mut status = GatewayStatus { addresses, unreached, conditions, listeners, attached_listener_sets };
    status.refresh_programmed();
    status
}

fn listener_status(
    gateway: &GatewayState<'_>,
    generation: Option<i64>,
    listener: &ListenerState<'_>,
) -> ListenerStatus {
    let mut conditions = Conditions::new(generation);
    conditions.set(match &listener.conflict {
        Some(fault) => fault.condition(ConditionType::Accepted),
        None => listener.refused.condition(ConditionType::Accepted, Reason::Accepted, "listener is valid"),
    });
    conditions.set(match &listener.conflict {
        Some(fault) => Condition::holds(ConditionType::Conflicted, fault.reason, fault.message()),
        None => Condition::fails(
            ConditionType::Conflicted,
            Reason::NoConflicts,
            "no other listener is in the way",
        ),
    });
    conditions.set(listener.unresolved.condition(
        ConditionType::ResolvedRefs,
        Reason::ResolvedRefs,
        "all references resolve",
    ));
    conditions.set(programmed(gateway, listener));
    if clash::overlaps(&gateway.listeners, listener) {
        conditions.set(Condition::holds(
            ConditionType::OverlappingTLSConfig,
            Reason::OverlappingHostnames,
            "another listener on the port has some of the hosts; a request for a host of one of them over a connection \
             of the other is answered with 421",
        ));
    }
    let kinds = listener.kinds.iter().map(|kind| {
        let GroupKind { group, kind } = GroupKind::of_route(*kind);
        RouteKind { group, kind }
    });
    ListenerStatus {
        name: listener.id.name.clone(),
        supported_kinds: kinds.collect(),
        attached_routes: listener.attachments.len(),
        conditions,
    }
}

fn programmed(gateway: &GatewayState<'_>, listener: &ListenerState<'_>) -> Condition {
    if gateway.serves(listener) {
        return Condition::holds(ConditionType::Programmed, Reason::Programmed, "listener is served");
    }
    if let Some(fault) = &listener.conflict {
        return fault.condition(ConditionType::Programmed);
    }
    let message = if gateway.verdict.is_err() {
        "its Gateway is not accepted"
    } else if !listener.is_accepted() {
        "the listener is not accepted"
    } else if listener.is_servable() {
        let message = "no port of this process leads to it yet";
        return Condition::fails(ConditionType::Programmed, Reason::Pending, message);
    } else {
        "its references do not resolve"
    };
    Condition::fails(ConditionType::Programmed, Reason::Invalid, message)
}
