//! What a policy attaches to.

use nantian_crd::{ServiceRef, TargetKind, TargetRef};

use super::outcome::TargetOutcome;
use crate::{
    gates::Feature,
    ir::{BackendId, ObjectName, RouteId, RouteKind},
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        fault::Fault,
        gateway::{Gateways, ListenerState, parent},
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
            TargetKind::HttpRoute => {
                let rules = cluster.objects.http_routes.get(&name);
                let rules = rules.map(|it| it.spec.rules.iter().flatten().map(|rule| &rule.name));
                (GroupKind::HTTP_ROUTE, route(RouteKind::Http, name, rules, section))
            }
            TargetKind::GrpcRoute => {
                let rules = cluster.objects.grpc_routes.get(&name);
                let rules = rules.map(|it| it.spec.rules.iter().flatten().map(|rule| &rule.name));
                (GroupKind::GRPC_ROUTE, route(RouteKind::Grpc, name, rules, section))
            }
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

    /// What became of a policy here, which is not in force if there is a `fault` or no place.
    pub(super) fn outcome(self, fault: Option<Fault>) -> TargetOutcome {
        let (place, missing) = match self.place {
            Ok(place) => (Some(place), None),
            Err(fault) => (self.service, Some(fault)),
        };
        let Self { reference, is_foreign, .. } = self;
        TargetOutcome { reference, place, fault: fault.or(missing), is_foreign }
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
    let exists = cluster.objects.gateways.contains_key(&name);
    let declared = gateways.get(&name).map(|gateway| gateway.declared_by(None));
    let section = listener(GroupKind::GATEWAY, &name, exists, declared, section)?;
    Ok(TargetKey::Gateway(name, section))
}

fn listener_set(
    cluster: &ClusterState<'_>,
    gateways: &Gateways<'_>,
    name: ObjectName,
    section: Option<String>,
) -> Result<TargetKey, Fault> {
    let exists = cluster.objects.listener_sets.contains_key(&name);
    let declared = gateways.of_set(&name).map(|(gateway, _)| gateway.declared_by(Some(&name)));
    let section = listener(GroupKind::LISTENER_SET, &name, exists, declared, section)?;
    Ok(TargetKey::ListenerSet(name, section))
}

/// A listener among those that an object has `declared`, if one is meant; `None` if it is not served.
fn listener<'l, 'a: 'l>(
    kind: GroupKind<'_>,
    name: &ObjectName,
    exists: bool,
    declared: Option<impl Iterator<Item = (usize, &'l ListenerState<'a>)>>,
    section: Option<String>,
) -> Result<Option<String>, Fault> {
    let kind = kind.kind;
    let mut declared = declared.ok_or_else(|| {
        let fault = not_found(format!("this gateway serves no {kind} {name}"));
        if exists { fault } else { fault.absent() }
    })?;
    match section {
        Some(section) if !declared.any(|(_, listener)| listener.id.name == section) => {
            Err(not_found(format!("{kind} {name} has no listener {section}")))
        }
        section => Ok(section),
    }
}

/// A route whose rules have these names, if it exists.
fn route<'r>(
    kind: RouteKind,
    name: ObjectName,
    rules: Option<impl Iterator<Item = &'r Option<String>>>,
    section: Option<String>,
) -> Result<TargetKey, Fault> {
    let shown = kind.as_str();
    let mut rules = rules.ok_or_else(|| not_found(format!("{shown} {name} does not exist")).absent())?;
    match section {
        Some(section) if !rules.any(|rule| rule.as_ref() == Some(&section)) => {
            Err(not_found(format!("{shown} {name} has no rule {section}")))
        }
        section => Ok(TargetKey::Route(RouteId { kind, name }, section)),
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
