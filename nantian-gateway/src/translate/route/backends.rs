//! Backend references: where a rule sends requests.

use super::filter_spec::RefSpec;
use crate::{
    gates::Feature,
    ir::{BackendId, ObjectName, RouteId, Target},
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        fault::{Fault, Path},
        grants::GroupKind,
        policy::{AiServices, PolicySet},
        service,
    },
};

/// Largest weight that the API allows.
const MAX_WEIGHT: u32 = 1_000_000;

/// The share of a reference, 1 if it names none.
pub(super) fn weight(weight: Option<i32>, path: &Path<'_>) -> Result<u32, Fault> {
    let weight = weight.unwrap_or(1);
    match u32::try_from(weight) {
        Ok(weight) if weight <= MAX_WEIGHT => Ok(weight),
        _ => Err(Fault::unsupported(
            &path.field("weight"),
            format_args!("{weight} is not in 0..={MAX_WEIGHT}"),
        )),
    }
}

/// What a reference is that does not resolve.
pub(super) fn invalid(spec: &RefSpec<'_>) -> Target {
    if kind_of(spec) == GroupKind::AI_SERVICE { Target::InvalidAiService } else { Target::Invalid }
}

fn kind_of<'s>(spec: &RefSpec<'s>) -> GroupKind<'s> {
    let (group, kind) = (GroupKind::SERVICE.group, GroupKind::SERVICE.kind);
    GroupKind::new(spec.group.unwrap_or(group), spec.kind.unwrap_or(kind))
}

/// Resolves a reference of a route.
pub(super) fn resolve(
    cluster: &ClusterState<'_>,
    policies: &PolicySet,
    ai_services: &AiServices,
    route: &RouteId,
    spec: &RefSpec<'_>,
    path: &Path<'_>,
) -> Result<Target, Fault> {
    let kind = kind_of(spec);
    check_kind(cluster, route, kind, path)?;
    let namespace = spec.namespace.unwrap_or(&route.name.namespace);
    let name = ObjectName::new(namespace, spec.name);
    let from = (GroupKind::of_route(route.kind), route.name.namespace.as_str());
    cluster.grants.check(from, (kind, namespace, &name.name), path)?;
    if kind == GroupKind::AI_SERVICE {
        ai_service(ai_services, name, path)
    } else {
        port_of_service(cluster, policies, route, name, spec.port, path)
    }
}

/// Refuses what routes of this kind do not refer to.
fn check_kind(
    cluster: &ClusterState<'_>,
    route: &RouteId,
    kind: GroupKind<'_>,
    path: &Path<'_>,
) -> Result<(), Fault> {
    let problem = if kind == GroupKind::SERVICE {
        return Ok(());
    } else if !route.kind.is_http() {
        "only Service is"
    } else if kind != GroupKind::AI_SERVICE {
        "only Service and AIService are"
    } else if !cluster.gates.is_open(Feature::AIService) {
        "--feature-gates AIService=true would"
    } else {
        return Ok(());
    };
    Err(Fault::at(Reason::InvalidKind, path, format_args!("{kind} is not served, {problem}")))
}

fn ai_service(ai_services: &AiServices, name: ObjectName, path: &Path<'_>) -> Result<Target, Fault> {
    let problem = match ai_services.get(&name) {
        Some(Ok(_)) => return Ok(Target::AiService(name)),
        Some(Err(unusable)) => format!("is not usable: {}", unusable.message()),
        None => "does not exist, or is not valid".to_owned(),
    };
    Err(Fault::at(Reason::BackendNotFound, path, format_args!("AIService {name} {problem}")).absent())
}

fn port_of_service(
    cluster: &ClusterState<'_>,
    policies: &PolicySet,
    route: &RouteId,
    name: ObjectName,
    port: Option<i32>,
    path: &Path<'_>,
) -> Result<Target, Fault> {
    let fault = |reason, message: String| Fault::at(reason, path, message);
    let service = cluster.objects.services.get(&name);
    let service = service
        .ok_or_else(|| fault(Reason::BackendNotFound, format!("Service {name} does not exist")).absent())?;
    if let Some(why) = service::not_followed(cluster, &name, service) {
        return Err(fault(Reason::InvalidKind, format!("Service {name} {why}")).absent());
    }
    let path_of_port = path.field("port");
    let Some(number) = port else {
        return Err(Fault::at(Reason::BackendNotFound, path_of_port, "a Service needs it"));
    };
    let transport = route.kind.transport();
    let port = u16::try_from(number).ok().and_then(|port| service::port(service, port, transport));
    let port = port.ok_or_else(|| {
        let message = format_args!("Service {name} has no port {number}");
        Fault::at(Reason::BackendNotFound, path_of_port, message)
    })?;
    // What connections carry is no business of the gateway.
    let usable = if route.kind.is_http() { port.protocol().map(drop) } else { port.is_reached() };
    if let Err(problem) = usable {
        let message = format!("port {} of Service {name}: {problem}", port.number);
        return Err(fault(Reason::UnsupportedProtocol, message));
    }
    let needs_tls = route.kind.is_http() && port.needs_tls();
    let id = BackendId { service: name, port: port.number, transport };
    if needs_tls && policies.transport(&id).is_plain() {
        return Err(needs_policy(&id, path));
    }
    Ok(Target::Backend(id))
}

/// What is wrong with a reference to a port that speaks TLS, where nothing says how its certificate is
/// verified.
pub(super) fn needs_policy(id: &BackendId, path: &Path<'_>) -> Fault {
    let BackendId { service, port, .. } = id;
    let message = format_args!("port {port} of Service {service}: its appProtocol needs a BackendTLSPolicy");
    Fault::at(Reason::UnsupportedProtocol, path, message).absent()
}
