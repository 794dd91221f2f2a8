//! What a policy attaches to.

use nantian_crd::{ServiceRef, TargetKind, TargetRef};

use crate::{
    gates::Feature,
    ir::{BackendId, ObjectName, RouteId, RouteKind},
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        fault::Fault,
        gateway::{Gateways, parent},
        grants::GroupKind,
        service::transport_of,
        status::ParentReference,
    },
};

/// A place in the intermediate representation that policies attach to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::translate) enum TargetKey {
    /// A Gateway, or one of its listeners.
    Gateway(ObjectName, Option<String>),
    /// A ListenerSet, or one of its listeners.
    ListenerSet(ObjectName, Option<String>),
    /// A route, or one of its named rules.
    Route(RouteId, Option<String>),
    /// A Service.
    Service(ObjectName),
    /// One port of a Service.
    Port(BackendId),
    /// An AIService.
    AiService(ObjectName),
}

/// A targetRef, resolved.
pub(super) struct Target {
    /// How the status refers to it.
    pub(super) reference: ParentReference,
    /// The place, or why there is none.
    pub(super) place: Result<TargetKey, Fault>,
    /// The Service, where there is one and its port may be missing.
    pub(super) service: Option<TargetKey>,
    /// Whether it is another controller's, which answers for it.
    pub(super) is_foreign: bool,
}

// === impl Target ===

impl Target {
    /// Resolves a targetRef of a policy in `namespace`.
    pub(super) fn resolve(
        cluster: &ClusterState<'_>,
        gateways: &Gateways<'_>,
        namespace: &str,
        target: &TargetRef,
    ) -> Self {
        let name = ObjectName::new(namespace, target.name.as_str());
        let section = target.section_name.clone();
        let is_foreign = match target.kind {
            TargetKind::Gateway => is_foreign(cluster, &name),
            TargetKind::ListenerSet => {
                let set = cluster.objects.listener_sets.get(&name);
                set.and_then(|set| parent(&name, set)).is_some_and(|gateway| is_foreign(cluster, &gateway))
            }
            TargetKind::HttpRoute | TargetKind::GrpcRoute | TargetKind::Service | TargetKind::AiService => {
                false
            }
        };
        let (kind, place) = match target.kind {
            TargetKind::Gateway => (GroupKind::GATEWAY, gateway(cluster, gateways, name, section)),
            TargetKind::ListenerSet => {
                (GroupKind::LISTENER_SET, listener_set(cluster, gateways, name, section))
            }
            TargetKind::HttpRoute => (GroupKind::HTTP_ROUTE, http_route(cluster, name, section)),
            TargetKind::GrpcRoute => (GroupKind::GRPC_ROUTE, grpc_route(cluster, name, section)),
            TargetKind::Service => (GroupKind::SERVICE, service(cluster, name)),
            TargetKind::AiService => (GroupKind::AI_SERVICE, ai_service(cluster, name)),
        };
        let reference = ParentReference {
            section_name: target.section_name.clone(),
            ..kind.refer(namespace, &target.name)
        };
        Self { reference, place, service: None, is_foreign }
    }

    /// Resolves a reference to a Service of a policy in `namespace`.
    pub(super) fn resolve_service(cluster: &ClusterState<'_>, namespace: &str, target: &ServiceRef) -> Self {
        let place = service(cluster, ObjectName::new(namespace, target.name.as_str()));
        let reference = GroupKind::SERVICE.refer(namespace, &target.name);
        Self { reference, place, service: None, is_foreign: false }
    }

    /// Resolves a reference to an AIService, to a Service, or to the port of one that `section` names.
    pub(super) fn resolve_connected(
        cluster: &ClusterState<'_>,
        kind: GroupKind<'_>,
        name: ObjectName,
        section: Option<String>,
    ) -> Self {
        let reference =
            ParentReference { section_name: section.clone(), ..kind.refer(&name.namespace, &name.name) };
        let service_of_port = service(cluster, name.clone()).ok().filter(|_| kind == GroupKind::SERVICE);
        let place = match section {
            Some(section) if kind == GroupKind::SERVICE => port(cluster, name, &section),
            Some(section) if kind == GroupKind::AI_SERVICE => {
                Err(not_found(format!("an AIService has no section {section}")))
            }
            None if kind == GroupKind::SERVICE => service(cluster, name),
            None if kind == GroupKind::AI_SERVICE => ai_service(cluster, name),
            _ => Err(not_found(format!("{kind} is not supported, only Service and AIService are"))),
        };
        Self { reference, place, service: service_of_port, is_foreign: false }
    }
}

/// Whether a Gateway is of a class of another controller.
fn is_foreign(cluster: &ClusterState<'_>, name: &ObjectName) -> bool {
    let gateway = cluster.objects.gateways.get(name);
    let class = gateway.map(|gateway| ObjectName::new("", gateway.spec.gateway_class_name.as_str()));
    let class = class.and_then(|class| cluster.objects.gateway_classes.get(&class));
    class.is_some_and(|class| !cluster.objects.is_ours(class))
}

fn gateway(
    cluster: &ClusterState<'_>,
    gateways: &Gateways<'_>,
    name: ObjectName,
    section: Option<String>,
) -> Result<TargetKey, Fault> {
    let gateway = gateways.get(&name).ok_or_else(|| {
        let fault = not_found(format!("this gateway serves no Gateway {name}"));
        if cluster.objects.gateways.contains_key(&name) { fault } else { fault.absent() }
    })?;
    match section {
        Some(section) if !gateway.declared_by(None).any(|(_, listener)| listener.id.name == section) => {
            Err(not_found(format!("Gateway {name} has no listener {section}")))
        }
        section => Ok(TargetKey::Gateway(name, section)),
    }
}

fn listener_set(
    cluster: &ClusterState<'_>,
    gateways: &Gateways<'_>,
    name: ObjectName,
    section: Option<String>,
) -> Result<TargetKey, Fault> {
    let Some((gateway, _)) = gateways.of_set(&name) else {
        let fault = not_found(format!("this gateway serves no ListenerSet {name}"));
        return Err(if cluster.objects.listener_sets.contains_key(&name) { fault } else { fault.absent() });
    };
    match section {
        Some(section)
            if !gateway.declared_by(Some(&name)).any(|(_, listener)| listener.id.name == section) =>
        {
            Err(not_found(format!("ListenerSet {name} has no listener {section}")))
        }
        section => Ok(TargetKey::ListenerSet(name, section)),
    }
}

fn http_route(
    cluster: &ClusterState<'_>,
    name: ObjectName,
    section: Option<String>,
) -> Result<TargetKey, Fault> {
    let rules = cluster.objects.http_routes.get(&name).map(|route| {
        let rules = route.spec.rules.iter().flatten();
        rules.filter_map(|rule| rule.name.as_deref()).collect()
    });
    route(RouteId { kind: RouteKind::Http, name }, rules, section)
}

fn grpc_route(
    cluster: &ClusterState<'_>,
    name: ObjectName,
    section: Option<String>,
) -> Result<TargetKey, Fault> {
    let rules = cluster.objects.grpc_routes.get(&name).map(|route| {
        let rules = route.spec.rules.iter().flatten();
        rules.filter_map(|rule| rule.name.as_deref()).collect()
    });
    route(RouteId { kind: RouteKind::Grpc, name }, rules, section)
}

/// A route with `rules`, if it exists.
fn route(id: RouteId, rules: Option<Vec<&str>>, section: Option<String>) -> Result<TargetKey, Fault> {
    let (kind, name) = (id.kind.as_str(), &id.name);
    let rules = rules.ok_or_else(|| not_found(format!("{kind} {name} does not exist")).absent())?;
    match section {
        Some(section) if !rules.contains(&section.as_str()) => {
            Err(not_found(format!("{kind} {name} has no rule {section}")))
        }
        section => Ok(TargetKey::Route(id, section)),
    }
}

fn service(cluster: &ClusterState<'_>, name: ObjectName) -> Result<TargetKey, Fault> {
    if cluster.objects.services.contains_key(&name) {
        return Ok(TargetKey::Service(name));
    }
    Err(not_found(format!("Service {name} does not exist")).absent())
}

fn port(cluster: &ClusterState<'_>, name: ObjectName, section: &str) -> Result<TargetKey, Fault> {
    let missing = || not_found(format!("Service {name} has no port {section}"));
    let service = cluster.objects.services.get(&name);
    let service = service.ok_or_else(|| not_found(format!("Service {name} does not exist")).absent())?;
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    let found = ports.into_iter().flatten().find(|port| port.name.as_deref() == Some(section));
    let found = found.ok_or_else(missing)?;
    let port = u16::try_from(found.port).map_err(|_| missing())?;
    let transport = transport_of(found.protocol.as_deref()).ok_or_else(missing)?;
    Ok(TargetKey::Port(BackendId { service: name, port, transport }))
}

fn ai_service(cluster: &ClusterState<'_>, name: ObjectName) -> Result<TargetKey, Fault> {
    if !cluster.gates.is_open(Feature::AIService) {
        let message = "AIService is not served, --feature-gates AIService=true would";
        return Err(not_found(message.to_owned()));
    }
    if cluster.objects.ai_services.contains_key(&name) {
        return Ok(TargetKey::AiService(name));
    }
    Err(not_found(format!("AIService {name} does not exist, or is not valid")).absent())
}

fn not_found(message: String) -> Fault {
    Fault::new(Reason::TargetNotFound, message)
}
