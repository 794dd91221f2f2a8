//! Policies: limits, plugins, balancing, TLS to backends, and AI services.

mod ai;
mod attach;
mod attached_gateways;
mod backend_tls;
mod balancing;
mod outcome;
mod pull_secret;
mod secret;
mod target;
mod telemetry;
mod token;
mod wasm;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::outcome::PolicyOutcome;
pub(super) use self::{
    ai::AiServices, attached_gateways::AttachedGateways, target::TargetKey, wasm::named as wasm_plugin,
};
use super::{
    cluster_state::{ClusterState, Report},
    gateway::Gateways,
};
use crate::{
    gates::Feature,
    ir::{
        BackendId, BackendTransport, ControllerName, LoadBalancing, ObjectName, Plugin, Policies, PolicyId,
        RateLimit, Transport,
    },
};

/// Every policy that is in force somewhere, and what became of the others.
#[derive(Default)]
pub(super) struct PolicySet {
    places: HashMap<TargetKey, Policies>,
    balancing: HashMap<ObjectName, LoadBalancing>,
    /// Of Services, of single ports, and of AIServices.
    transports: HashMap<TargetKey, BackendTransport>,
    rate_limits: BTreeMap<PolicyId, RateLimit>,
    token_policies: BTreeSet<PolicyId>,
    plugins: BTreeMap<PolicyId, Plugin>,
    /// The identity of each plugin, and why a filter cannot use it.
    plugin_names: HashMap<ObjectName, (PolicyId, Option<String>)>,
    records: Vec<PolicyOutcome>,
}

// === impl PolicySet ===

impl PolicySet {
    /// Reads the kinds whose gate is open.
    pub(super) fn read(cluster: &ClusterState<'_>, gateways: &Gateways<'_>, report: &mut Report) -> Self {
        let mut set = Self::default();
        let objects = cluster.objects;
        if cluster.gates.is_open(Feature::TokenPolicy) {
            token::read(cluster, gateways, &mut set);
        } else {
            report.ignore(Feature::TokenPolicy, &objects.token_policies);
        }
        if cluster.gates.is_open(Feature::WasmPlugin) {
            wasm::read(cluster, gateways, &mut set);
        } else {
            report.ignore(Feature::WasmPlugin, &objects.wasm_plugins);
        }
        if cluster.gates.is_open(Feature::BackendLBPolicy) {
            balancing::read(cluster, &mut set);
        } else {
            report.ignore(Feature::BackendLBPolicy, &objects.backend_lb_policies);
        }
        backend_tls::read(cluster, &mut set);
        set
    }

    /// The policies that are attached to a place.
    pub(super) fn attached(&self, place: &TargetKey) -> Policies {
        self.places.get(place).cloned().unwrap_or_default()
    }

    /// How requests are spread over the endpoints of a Service.
    pub(super) fn balancing(&self, service: &ObjectName) -> LoadBalancing {
        self.balancing.get(service).cloned().unwrap_or_default()
    }

    /// How connections to a port of a Service are opened: as the policy of the port says, else that of the
    /// Service. Datagrams are none (GEP-1897).
    pub(super) fn transport(&self, id: &BackendId) -> BackendTransport {
        if id.transport == Transport::Udp {
            return BackendTransport::Plain;
        }
        match self.transport_at(&TargetKey::Port(id.clone())) {
            BackendTransport::Plain => self.transport_at(&TargetKey::Service(id.service.clone())),
            of_port => of_port,
        }
    }

    /// How connections are opened, as far as a policy of this very place says.
    pub(super) fn transport_at(&self, place: &TargetKey) -> BackendTransport {
        self.transports.get(place).cloned().unwrap_or_default()
    }

    /// The identity of a plugin that a filter names, and why it cannot be used.
    pub(super) fn plugin_by_name(&self, name: &ObjectName) -> (PolicyId, Option<String>) {
        match self.plugin_names.get(name) {
            Some((id, problem)) => (id.clone(), problem.clone()),
            None => (attach::id(None, name), Some(wasm::absent(name))),
        }
    }

    /// Adds what fails the requests of filters whose plugin does not exist.
    pub(super) fn placeholder_for_absent_plugins(&mut self, attached_gateways: &AttachedGateways) {
        for name in attached_gateways.plugins().filter(|name| !self.plugin_names.contains_key(name)) {
            self.plugins.insert(attach::id(None, name), wasm::placeholder(name));
        }
    }

    pub(super) fn rate_limit(&self, id: &PolicyId) -> Option<&RateLimit> {
        self.rate_limits.get(id)
    }

    /// Every TokenPolicy, whether it is in force or not.
    pub(super) fn token_policies(&self) -> &BTreeSet<PolicyId> {
        &self.token_policies
    }

    pub(super) fn plugin(&self, id: &PolicyId) -> Option<&Plugin> {
        self.plugins.get(id)
    }

    /// Writes the status of every policy in the name of `controller`, once it is known what reaches its
    /// targets.
    pub(super) fn report(
        &self,
        attached_gateways: &AttachedGateways,
        controller: &ControllerName,
        report: &mut Report,
    ) {
        for record in &self.records {
            record.report(attached_gateways, controller, report);
        }
    }
}
