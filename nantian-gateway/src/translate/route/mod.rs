//! Routes: which requests and connections go where.

mod attach;
mod backends;
mod cors;
mod filter_spec;
mod filters;
mod grpc;
mod matches;
mod mirror;
mod retry;
mod rules;
mod stream;
mod timeouts;

use std::borrow::Cow;

use gateway_api::experimental::httproutes::HttpRoute;

use self::{
    attach::{Accepted, AcceptingListener, Parent},
    rules::{RuleReader, Rules},
};
use super::{
    cluster_state::{ClusterState, Report, by_age},
    conditions::{Condition, ConditionType, Conditions, Reason},
    fault::{Fault, Faults, Path},
    gateway::Gateways,
    grants::GroupKind,
    hostname,
    policy::{AiServices, AttachedGateways, PolicySet, TargetKey},
    status::{ObjectStatus, ParentStatus, RouteStatus},
};
use crate::{
    ir::{Attachment, HostPattern, ListenerProtocol, ObjectName, Route, RouteId, RouteKind},
    source::ObjectRef,
};

/// A route of any kind, as an HTTPRoute.
struct AnyRoute<'a> {
    id: RouteId,
    route: Cow<'a, HttpRoute>,
    /// What its matches say besides.
    calls: Vec<grpc::MethodMatch>,
    /// What is wrong with it as a route of its kind.
    refused: Faults,
}

/// A route, read.
struct RouteState<'a> {
    id: &'a RouteId,
    route: &'a HttpRoute,
    /// All hosts if empty.
    hostnames: Vec<HostPattern>,
    rules: Rules,
}

/// Why a listener takes one route and not a younger one: an HTTPRoute and a GRPCRoute may not share a host.
pub(super) const CLASH: &str = "an older route of the other kind has some of its hosts";

/// What parents make of a route.
#[derive(Default)]
struct Verdict {
    statuses: Vec<ParentStatus>,
    /// The Gateways that accept it, and their listeners.
    accepted: Vec<(ObjectName, Vec<AcceptingListener>)>,
}

/// Translates every route: attaches it to listeners and writes its status.
///
/// Returns the routes that a served listener takes, in the order that breaks ties.
pub(super) fn translate(
    cluster: &ClusterState<'_>,
    policies: &PolicySet,
    ai_services: &AiServices,
    gateways: &mut Gateways<'_>,
    attached_gateways: &mut AttachedGateways,
    report: &mut Report,
) -> Vec<Route> {
    let mut routes = Vec::new();
    for AnyRoute { id, route, calls, refused } in written(cluster) {
        let reader = RuleReader { cluster, policies, ai_services, route: &id };
        let mut rules = reader.read(&route, refused);
        grpc::name_calls(&mut rules.list, calls);
        attach::distinct(route.spec.parent_refs.as_deref().unwrap_or_default(), &mut rules.refused);
        let hostnames = hostnames(&route, &mut rules);
        let state = RouteState { id: &id, route: &route, hostnames, rules };
        let verdict = state.judge(cluster, gateways, report);
        let object = ObjectRef { kind: id.kind.as_str(), name: id.name.clone() };
        report.status(object, ObjectStatus::Route(RouteStatus { parents: verdict.statuses }));
        let rules = state.rules;
        let mut served = false;
        for (gateway, taken) in verdict.accepted {
            let listeners = attach_to(gateways, &gateway, &id, taken);
            if !listeners.is_empty() {
                attached_gateways.route(&id, &gateway, &listeners, &rules.list, &rules.plugins);
                served = true;
            }
        }
        if served {
            let policies = policies.attached(&TargetKey::Route(id.clone(), None));
            routes.push(Route { id, policies, rules: rules.list });
        }
    }
    routes
}

/// The routes of every kind in the order that breaks ties.
fn written<'a>(cluster: &ClusterState<'a>) -> Vec<AnyRoute<'a>> {
    let id = |kind, name: &ObjectName| RouteId { kind, name: name.clone() };
    let http = cluster.objects.http_routes.iter().map(|(name, route)| AnyRoute {
        id: id(RouteKind::Http, name),
        route: Cow::Borrowed(&**route),
        calls: Vec::new(),
        refused: Faults::default(),
    });
    let grpc = cluster.objects.grpc_routes.iter().map(|(name, route)| {
        let (route, calls, refused) = grpc::as_http(route);
        AnyRoute { id: id(RouteKind::Grpc, name), route: Cow::Owned(route), calls, refused }
    });
    let mut written: Vec<_> = http.chain(grpc).collect();
    written.extend(
        cluster
            .objects
            .tls_routes
            .iter()
            .map(|(name, route)| stream::written(id(RouteKind::Tls, name), &route.metadata, &route.spec)),
    );
    written.extend(
        cluster
            .objects
            .tcp_routes
            .iter()
            .map(|(name, route)| stream::written(id(RouteKind::Tcp, name), &route.metadata, &route.spec)),
    );
    written.extend(
        cluster
            .objects
            .udp_routes
            .iter()
            .map(|(name, route)| stream::written(id(RouteKind::Udp, name), &route.metadata, &route.spec)),
    );
    written.sort_by(|left, right| {
        let by_name = || left.id.name.cmp(&right.id.name);
        by_age(&*left.route, &*right.route).then_with(by_name)
    });
    written
}

fn hostnames(route: &HttpRoute, rules: &mut Rules) -> Vec<HostPattern> {
    let path = Path::SPEC.field("hostnames");
    let mut hostnames = Vec::new();
    for (index, text) in route.spec.hostnames.iter().flatten().enumerate() {
        let pattern = hostname::pattern(text).ok_or_else(|| {
            Fault::unsupported(&path.index(index), format_args!("{text:?} is not a host name"))
        });
        hostnames.extend(rules.refused.keep(pattern));
    }
    hostnames
}

fn warn_of_the_unserved(object: &ObjectRef, route: &HttpRoute, report: &mut Report) {
    if route.spec.use_default_gateways.is_some() {
        report.warn(object, "spec.useDefaultGateways: not served, the route has to name its parents");
    }
    if route.spec.parent_refs.as_ref().is_none_or(Vec::is_empty) {
        report.warn(object, "spec.parentRefs: empty, so no Gateway serves the route");
    }
}

/// Who wants an AIService to stand in for others gives it the smallest weight, not none.
fn warn_of_unused_ai_services(object: &ObjectRef, route: &HttpRoute, report: &mut Report) {
    for (rule, spec) in route.spec.rules.iter().flatten().enumerate() {
        let references = spec.backend_refs.as_deref().unwrap_or_default();
        for (index, reference) in references.iter().enumerate() {
            if reference.kind.as_deref() == Some(GroupKind::AI_SERVICE.kind) && reference.weight == Some(0) {
                let path = format!("spec.rules[{rule}].backendRefs[{index}].weight");
                let name = &reference.name;
                report
                    .warn(object, format!("{path}: 0, so AIService {name} is not asked even if others fail"));
            }
        }
    }
}

/// Attaches a route to listeners of a Gateway, and says what those of them speak that are served.
fn attach_to(
    gateways: &mut Gateways<'_>,
    gateway: &ObjectName,
    id: &RouteId,
    taken: Vec<AcceptingListener>,
) -> Vec<ListenerProtocol> {
    let Some(gateway) = gateways.get_mut(gateway) else { return Vec::new() };
    let mut served = Vec::new();
    for AcceptingListener { listener, hostnames } in taken {
        let accepted = gateway.verdict.is_ok();
        let Some(listener) = gateway.listeners.get_mut(listener) else { continue };
        if accepted && listener.is_servable() {
            served.extend(listener.protocol);
        }
        // Routes are attached one after the other: only the last attachment can be of the same route,
        // when two of its parentRefs name the same listener. Both name the same hosts.
        let is_same = |last: &Attachment| last.route == *id;
        if !listener.attachments.last().is_some_and(is_same) {
            listener.attachments.push(Attachment { route: id.clone(), hostnames });
        }
    }
    served
}

// === impl RouteState ===

impl RouteState<'_> {
    /// Asks each parent of the route.
    fn judge(&self, cluster: &ClusterState<'_>, gateways: &Gateways<'_>, report: &mut Report) -> Verdict {
        let object = ObjectRef { kind: self.id.kind.as_str(), name: self.id.name.clone() };
        warn_of_the_unserved(&object, self.route, report);
        warn_of_unused_ai_services(&object, self.route, report);
        let path = Path::SPEC.field("parentRefs");
        let mut verdict = Verdict::default();
        for (index, parent) in self.route.spec.parent_refs.iter().flatten().enumerate() {
            let (gateway, listeners) =
                match attach::resolve(cluster, gateways, self.id, &self.hostnames, parent) {
                    Parent::Ours { gateway, listeners } => (gateway, listeners),
                    Parent::Foreign => continue,
                    Parent::Nothing(problem) => {
                        report.warn(&object, format!("{}: {problem}", path.index(index)));
                        continue;
                    }
                };
            let taken = listeners.and_then(|taken| self.rules.refused.summary().map_or(Ok(taken), Err));
            if let Ok(Accepted { clashing, .. }) = &taken
                && !clashing.is_empty()
            {
                let (path, names) = (path.index(index), clashing.join(", "));
                report.warn(&object, format!("{path}: {CLASH} at listener {names}"));
            }
            let ends_tls = taken.iter().flat_map(|taken| &taken.listeners).any(|taken| {
                let listener = gateways.get(&gateway).and_then(|it| it.listeners.get(taken.listener));
                listener.is_some_and(|listener| listener.protocol == Some(ListenerProtocol::Tls))
            });
            verdict.statuses.push(ParentStatus {
                parent_ref: attach::verbatim(parent),
                controller_name: cluster.objects.controller.clone(),
                conditions: self.conditions(&taken, ends_tls),
            });
            verdict.accepted.extend(taken.ok().map(|taken| (gateway, taken.listeners)));
        }
        verdict
    }

    /// The conditions of a parent, of whose listeners some may end the TLS of clients.
    fn conditions(&self, taken: &Result<Accepted, Fault>, ends_tls: bool) -> Conditions {
        let mut conditions = Conditions::new(self.route.metadata.generation);
        conditions.set(match taken {
            Ok(taken) => {
                let mut message = match taken.listeners.len() {
                    1 => "attached to 1 listener".to_owned(),
                    count => format!("attached to {count} listeners"),
                };
                if !taken.clashing.is_empty() {
                    message = format!("{message}; {CLASH} at {}", taken.clashing.join(", "));
                }
                Condition::holds(ConditionType::Accepted, Reason::Accepted, message)
            }
            Err(fault) => fault.condition(ConditionType::Accepted),
        });
        let mut unresolved = self.rules.unresolved.clone();
        if ends_tls {
            unresolved.extend(self.rules.unsecured.clone());
        }
        conditions.set(unresolved.condition(
            ConditionType::ResolvedRefs,
            Reason::ResolvedRefs,
            "all references resolve",
        ));
        conditions
    }
}
