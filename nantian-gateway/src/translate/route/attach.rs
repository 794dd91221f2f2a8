//! Which listeners of which Gateways take a route.

use gateway_api::experimental::httproutes::HttpRouteParentRefs;

use crate::{
    ir::{HostPattern, ObjectName, RouteHost, RouteId},
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        fault::{Fault, Faults, Path},
        gateway::{GatewayState, Gateways, ListenerState},
        grants::GroupKind,
        status::ParentReference,
    },
};

/// What a parentRef means to this gateway.
pub(super) enum Parent {
    /// A Gateway of ours, or a ListenerSet of one, and the listeners that take the route or why none does.
    Ours { gateway: ObjectName, listeners: Result<Accepted, Fault> },
    /// A Gateway of another controller.
    Foreign,
    /// No Gateway, with the reason.
    Nothing(String),
}

/// The listeners that take the route.
pub(super) struct Accepted {
    pub(super) listeners: Vec<AcceptingListener>,
    /// Names of others, which an older route of the other kind keeps from it.
    pub(super) clashing: Vec<String>,
}

/// A listener that takes the route.
pub(super) struct AcceptingListener {
    /// The position of the listener in its Gateway.
    pub(super) listener: usize,
    /// The hosts that both name.
    pub(super) hostnames: Vec<RouteHost>,
}

/// Resolves a parentRef of the route `id`, which serves `hostnames` (all if there are none).
pub(super) fn resolve(
    cluster: &ClusterState<'_>,
    gateways: &Gateways<'_>,
    id: &RouteId,
    hostnames: &[HostPattern],
    parent: &HttpRouteParentRefs,
) -> Parent {
    let kind = kind_of(parent);
    let namespace = parent.namespace.as_deref().unwrap_or(&id.name.namespace);
    let name = ObjectName::new(namespace, parent.name.as_str());
    if kind == GroupKind::LISTENER_SET {
        return match gateways.of_set(&name) {
            Some((gateway, set)) => {
                let listeners = match &set.verdict {
                    Ok(()) => matching(cluster, (gateway, Some(&name)), id, hostnames, parent),
                    Err(fault) => {
                        let message = format!("ListenerSet {name} is not accepted: {}", fault.message());
                        Err(Fault::new(Reason::NoMatchingParent, message))
                    }
                };
                Parent::Ours { gateway: gateway.name.clone(), listeners }
            }
            None if cluster.objects.listener_sets.contains_key(&name) => Parent::Foreign,
            None => Parent::Nothing(format!("ListenerSet {name} does not exist, or is not valid")),
        };
    }
    if kind != GroupKind::GATEWAY {
        let message = format!("{kind} is not served as a parent, only Gateway and ListenerSet are");
        return Parent::Nothing(message);
    }
    match gateways.get(&name) {
        Some(gateway) => {
            let listeners = matching(cluster, (gateway, None), id, hostnames, parent);
            Parent::Ours { gateway: name, listeners }
        }
        None if cluster.objects.gateways.contains_key(&name) => Parent::Foreign,
        None => Parent::Nothing(format!("Gateway {name} does not exist, or is not valid")),
    }
}

/// The listeners that take the route, narrowed down step by step so that the reason is that of the last step.
fn matching(
    cluster: &ClusterState<'_>,
    (gateway, set): (&GatewayState<'_>, Option<&ObjectName>),
    id: &RouteId,
    hostnames: &[HostPattern],
    parent: &HttpRouteParentRefs,
) -> Result<Accepted, Fault> {
    let asked = |listener: &ListenerState<'_>| {
        parent.section_name.as_ref().is_none_or(|section| *section == listener.id.name)
            && parent.port.is_none_or(|port| port == i32::from(listener.port))
    };
    let candidates: Vec<_> = gateway.declared_by(set).filter(|(_, listener)| asked(listener)).collect();
    if candidates.is_empty() {
        let declarer = if set.is_some() { "ListenerSet" } else { "Gateway" };
        let message = format!("the {declarer} has no listener{}", wanted(parent));
        return Err(Fault::new(Reason::NoMatchingParent, message));
    }
    let (kind, namespace) = (id.kind.as_str(), &id.name.namespace);
    let of_kind = candidates.into_iter().filter(|(_, listener)| listener.kinds.contains(&id.kind));
    let of_kind: Vec<_> = of_kind.collect();
    if of_kind.is_empty() {
        let message = format!("no listener takes {kind}s");
        return Err(Fault::new(Reason::NotAllowedByListeners, message));
    }
    let open = |listener: &ListenerState<'_>| listener.namespaces.admits(cluster.objects, namespace);
    let allowed: Vec<_> = of_kind.into_iter().filter(|(_, listener)| open(listener)).collect();
    if allowed.is_empty() {
        let message = format!("no listener allows {kind}s of namespace {namespace}");
        return Err(Fault::new(Reason::NotAllowedByListeners, message));
    }
    let taken: Vec<_> = allowed
        .into_iter()
        .map(|(index, listener)| AcceptingListener {
            listener: index,
            hostnames: intersect(listener, hostnames),
        })
        .filter(|taken| !taken.hostnames.is_empty())
        .collect();
    if taken.is_empty() {
        let message = "no listener serves any of spec.hostnames";
        return Err(Fault::new(Reason::NoMatchingListenerHostname, message));
    }
    let (mut clashing, mut first) = (Vec::new(), None);
    let mut listeners = taken;
    listeners.retain(|taken| {
        let listener = gateway.listeners.get(taken.listener);
        let clash = listener.and_then(|listener| Some((listener, clash(listener, id, taken)?)));
        let Some((listener, clash)) = clash else { return true };
        clashing.push(listener.id.name.clone());
        first.get_or_insert(clash);
        false
    });
    if listeners.is_empty() {
        let which = first.map(|(kind, name, host)| format!(": {kind} {name} has {host}"));
        return Err(Fault::new(Reason::Conflicted, format!("{}{}", super::CLASH, which.unwrap_or_default())));
    }
    Ok(Accepted { listeners, clashing })
}

/// An older route of another kind that has some of the hosts, and one of them: an HTTPRoute and a GRPCRoute
/// may not share one.
fn clash<'l>(
    listener: &'l ListenerState<'_>,
    id: &RouteId,
    taken: &AcceptingListener,
) -> Option<(&'static str, &'l ObjectName, HostPattern)> {
    let others = listener.attachments.iter().filter(|attached| attached.route.kind != id.kind);
    let mut hosts =
        others.flat_map(|attached| attached.hostnames.iter().map(move |host| (&attached.route, host)));
    hosts.find_map(|(route, other)| {
        let host = taken.hostnames.iter().find_map(|own| own.host.intersection(&other.host))?;
        Some((route.kind.as_str(), &route.name, host))
    })
}

/// Refuses parentRefs of which two name one parent, unless a listener or a port tells them apart.
pub(super) fn distinct(parents: &[HttpRouteParentRefs], refused: &mut Faults) {
    let path = Path::SPEC.field("parentRefs");
    for (index, parent) in parents.iter().enumerate() {
        if parents.iter().take(index).any(|earlier| are_alike(earlier, parent)) {
            let message =
                "an earlier entry names the same parent: each needs a sectionName or port of its own";
            refused.push(Fault::unsupported(&path.index(index), message));
        }
    }
}

/// As the API server sees it: a field that one entry has the other one needs, too, and one of them differs.
fn are_alike(left: &HttpRouteParentRefs, right: &HttpRouteParentRefs) -> bool {
    let is_same_parent =
        left.name == right.name && left.namespace == right.namespace && kind_of(left) == kind_of(right);
    let are_told_apart = left.section_name.is_some() == right.section_name.is_some()
        && left.port.is_some() == right.port.is_some()
        && (&left.section_name, left.port) != (&right.section_name, right.port);
    is_same_parent && !are_told_apart
}

fn kind_of(parent: &HttpRouteParentRefs) -> GroupKind<'_> {
    let group = parent.group.as_deref().unwrap_or(GroupKind::GATEWAY.group);
    GroupKind::new(group, parent.kind.as_deref().unwrap_or(GroupKind::GATEWAY.kind))
}

fn wanted(parent: &HttpRouteParentRefs) -> String {
    match (&parent.section_name, parent.port) {
        (Some(section), Some(port)) => format!(" {section} on port {port}"),
        (Some(section), None) => format!(" {section}"),
        (None, Some(port)) => format!(" on port {port}"),
        (None, None) => String::new(),
    }
}

fn intersect(listener: &ListenerState<'_>, hostnames: &[HostPattern]) -> Vec<RouteHost> {
    if hostnames.is_empty() {
        return vec![RouteHost { host: listener.hostname.clone(), own: HostPattern::Any }];
    }
    let of_both = |own: &HostPattern| {
        listener.hostname.intersection(own).map(|host| RouteHost { host, own: own.clone() })
    };
    let mut hosts: Vec<_> = hostnames.iter().filter_map(of_both).collect();
    // Of several own hosts that give the same one the most specific comes first, and stays.
    hosts.sort_by(|left, right| {
        let by_own = || right.own.specificity().cmp(&left.own.specificity());
        left.host.cmp(&right.host).then_with(by_own)
    });
    hosts.dedup_by(|later, kept| later.host == kept.host);
    hosts
}

/// The parentRef as it is written.
pub(super) fn verbatim(parent: &HttpRouteParentRefs) -> ParentReference {
    ParentReference {
        group: parent.group.clone(),
        kind: parent.kind.clone(),
        namespace: parent.namespace.clone(),
        name: parent.name.clone(),
        section_name: parent.section_name.clone(),
        port: parent.port,
    }
}
