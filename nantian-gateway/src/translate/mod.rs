//! The one translator: objects in, the intermediate representation and every condition out.
//!
//! [`translate`] is a pure function: no clock, no input or output, the same objects give the same
//! translation. What is wrong with an object becomes a condition of that object, and never stops another one.

mod authorities;
mod cluster_state;
pub mod conditions;
mod fault;
mod gateway;
mod gateway_class;
mod grants;
pub(crate) mod hostname;
mod locality;
mod policy;
mod route;
mod service;
mod session;
pub mod status;

use std::collections::BTreeSet;

use serde::Serialize;

#[cfg(feature = "kubernetes")]
pub(crate) use self::cluster_state::{SERVICE_NAME_LABEL, oldest_first};
pub(crate) use self::gateway::certificate_fault;
#[cfg(feature = "kubernetes")]
pub(crate) use self::gateway::{added_listeners, asked_addresses, asked_of_service, has_parameters};
use self::{
    cluster_state::{ClusterState, Report},
    gateway::{Gateways, ListenerSets},
    locality::TopologyPreference,
    policy::{AiServices, AttachedGateways, PolicySet, TargetKey},
    status::Statuses,
};
pub use self::{
    cluster_state::{Ignored, Warning},
    locality::Locality,
};
use crate::{
    gates::FeatureGates,
    ir::{Backend, BackendId, BackendTransport, Ir, ObjectName, Plugin, Transport},
    pattern::Patterns,
    policy::OwnIdentities,
    source::{ObjectRef, Objects},
    tenancy::Tenancy,
};

/// What the objects mean.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Translation {
    /// What to serve.
    pub ir: Ir,
    /// What became of each object.
    pub statuses: Statuses,
    /// The objects whose gate is closed.
    pub ignored: Vec<Ignored>,
    /// What deserves attention and has no condition.
    pub warnings: Vec<Warning>,
}

/// What is known of the place where the gateway runs.
#[derive(Debug, Clone, Copy)]
pub struct Environment<'a> {
    /// Its zone and its node.
    pub here: &'a Locality,
    /// Who it is at the clouds; `None` where nobody knows, as when manifests are only checked.
    pub identities: Option<&'a OwnIdentities>,
    /// Whether those who write the objects trust one another.
    pub tenancy: Tenancy,
}

/// Translates the objects, with the kinds whose gate is open.
pub fn translate(objects: &Objects, gates: FeatureGates) -> Translation {
    let nowhere = Environment { here: &Locality::default(), identities: None, tenancy: Tenancy::Single };
    translate_at(objects, gates, &Patterns::default(), nowhere)
}

/// The same for a gateway in this `environment`, which takes regular expressions from `patterns`, so that
/// none is compiled that was met before.
pub fn translate_at(
    objects: &Objects,
    gates: FeatureGates,
    patterns: &Patterns,
    environment: Environment<'_>,
) -> Translation {
    let cluster = ClusterState::new(objects, gates, patterns, environment);
    let mut report = Report::default();
    let classes = gateway_class::translate(&cluster, &mut report);
    let sets = ListenerSets::read(&cluster, &mut report);
    let mut gateways = Gateways::read(&cluster, &classes, &sets, &mut report);
    let mut attached_gateways = AttachedGateways::new(gateways.served());
    let ai_services = AiServices::read(&cluster, &mut report);
    let mut policies = PolicySet::read(&cluster, &gateways, &mut report);
    let routes = route::translate(
        &cluster,
        &policies,
        &ai_services,
        &mut gateways,
        &mut attached_gateways,
        &mut report,
    );
    policies.placeholder_for_absent_plugins(&attached_gateways);
    let mut ir = Ir { ports: gateway::ports(&gateways, &policies), routes, ..Ir::default() };
    add_backends(&mut ir, &cluster, &policies, &ai_services);
    add_policies(&mut ir, &policies);
    add_upstreams(&mut ir, &cluster, &policies);
    warn_of_unknown_place(&ir, &cluster, &mut report);
    gateway::report(&gateways, &mut report);
    policies.report(&attached_gateways, &objects.controller, &mut report);
    Translation { ir, statuses: report.statuses, ignored: report.ignored, warnings: report.warnings }
}

/// A WasmPlugin as it runs, whatever refers to it; or why it is not accepted.
pub(crate) fn wasm_plugin(objects: &Objects, name: &ObjectName) -> Result<Plugin, String> {
    let nowhere = Environment { here: &Locality::default(), identities: None, tenancy: Tenancy::Single };
    let patterns = Patterns::default();
    let cluster = ClusterState::new(objects, FeatureGates::all(), &patterns, nowhere);
    policy::wasm_plugin(&cluster, name).map_err(|fault| fault.message())
}

/// Adds the Services and AIServices that routes refer to.
fn add_backends(ir: &mut Ir, cluster: &ClusterState<'_>, policies: &PolicySet, ai_services: &AiServices) {
    let Ir { routes, backends, endpoints, ai_services: services, .. } = ir;
    for rule in routes.iter().flat_map(|route| &route.rules) {
        for id in rule.backends() {
            if !backends.contains_key(id) {
                backends.insert(id.clone(), backend(cluster, policies, id));
                endpoints.insert(id.clone(), service::endpoints(cluster, id));
            }
        }
        for name in rule.ai_services() {
            if !services.contains_key(name)
                && let Some(Ok(service)) = ai_services.get(name)
            {
                let mut service = service.clone();
                let place = TargetKey::AiService(name.clone());
                service.transport = policies.transport_at(&place);
                service.policies = policies.attached(&place);
                services.insert(name.clone(), service);
            }
        }
    }
}

fn backend(cluster: &ClusterState<'_>, policies: &PolicySet, id: &BackendId) -> Backend {
    Backend {
        load_balancing: policies.balancing(&id.service),
        policies: policies.attached(&TargetKey::Service(id.service.clone())),
        ..connected(cluster, policies, id)
    }
}

/// A backend as plugins call it: neither balanced nor limited.
fn connected(cluster: &ClusterState<'_>, policies: &PolicySet, id: &BackendId) -> Backend {
    let service = cluster.objects.services.get(&id.service);
    let port = service.and_then(|service| service::port(service, id.port, id.transport));
    let needs_tls = port.as_ref().is_some_and(service::Port::needs_tls);
    let transport = match policies.transport(id) {
        // Datagrams are sent as they are, those of QUIC too.
        BackendTransport::Plain if needs_tls && id.transport == Transport::Tcp => {
            BackendTransport::Passthrough
        }
        transport => transport,
    };
    let protocol = port.and_then(|port| port.protocol().ok()).unwrap_or_default();
    Backend { protocol, transport, ..Backend::default() }
}

/// Adds the Services that plugins may call.
fn add_upstreams(ir: &mut Ir, cluster: &ClusterState<'_>, policies: &PolicySet) {
    let Ir { plugins, backends, endpoints, .. } = ir;
    for id in plugins.values().flat_map(|plugin| &plugin.upstreams) {
        if !backends.contains_key(id) {
            backends.insert(id.clone(), connected(cluster, policies, id));
            endpoints.insert(id.clone(), service::endpoints(cluster, id));
        }
    }
}

/// Says which Services ask for near endpoints in vain.
fn warn_of_unknown_place(ir: &Ir, cluster: &ClusterState<'_>, report: &mut Report) {
    let names: BTreeSet<_> = ir.backends.keys().map(|id| &id.service).collect();
    for name in names {
        let service = cluster.objects.services.get(name);
        if let Some(preference) =
            service.and_then(|service| TopologyPreference::unknown(service, &cluster.here))
        {
            let object = ObjectRef { kind: "Service", name: name.clone() };
            let option = if preference == "PreferSameNode" { "--node" } else { "--zone" };
            let message = format!("spec.trafficDistribution: {preference} has no effect without {option}");
            report.warn(&object, message);
        }
    }
}

/// Adds the limits and plugins that anything refers to, and which limits there are.
fn add_policies(ir: &mut Ir, policies: &PolicySet) {
    let limits: BTreeSet<_> = ir.policies().flat_map(|place| &place.rate_limits).collect();
    let limits = limits.into_iter().filter_map(|id| Some((id.clone(), policies.rate_limit(id)?.clone())));
    let limits = limits.collect();
    let plugins: BTreeSet<_> = ir.policies().flat_map(|place| &place.plugins).collect();
    let plugins = plugins.into_iter().filter_map(|id| Some((id.clone(), policies.plugin(id)?.clone())));
    ir.plugins = plugins.collect();
    ir.rate_limits = limits;
    ir.token_policies = policies.token_policies().clone();
}
