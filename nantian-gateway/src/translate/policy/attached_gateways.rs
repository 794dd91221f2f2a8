//! Which Gateways reach what.

use std::collections::{BTreeMap, BTreeSet};

use super::TargetKey;
use crate::ir::{BackendId, ListenerId, ListenerProtocol, ObjectName, RouteId, Rule};

/// The Gateways through which requests reach routes, backends and plugins.
#[derive(Default)]
pub(in crate::translate) struct AttachedGateways {
    /// The listeners of each Gateway itself that serve requests; an entry for each Gateway of which any
    /// listener does.
    listeners: BTreeMap<ObjectName, BTreeSet<String>>,
    /// The Gateway of each ListenerSet, and its listeners that serve requests.
    sets: BTreeMap<ObjectName, (ObjectName, BTreeSet<String>)>,
    routes: Gateways<RouteId>,
    /// The Services that requests reach.
    asked: Services,
    /// Those that connections and datagrams reach.
    streamed: Services,
    /// Those of them to which the gateway would speak TLS itself.
    connected: Services,
    ai_services: Gateways<ObjectName>,
    plugins: Gateways<ObjectName>,
}

struct Gateways<K>(BTreeMap<K, BTreeSet<ObjectName>>);

/// Services and their ports.
#[derive(Default)]
struct Services {
    services: Gateways<ObjectName>,
    ports: Gateways<BackendId>,
}

/// What the policies of a kind are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Concern {
    /// Requests.
    Requests,
    /// All that has to find an endpoint.
    Balancing,
    /// Connections that the gateway may put behind TLS.
    Tls,
}

// === impl AttachedGateways ===

impl AttachedGateways {
    /// What is reached through `served` listeners before there is any route.
    pub(in crate::translate) fn new<'l>(served: impl Iterator<Item = &'l ListenerId>) -> Self {
        let mut attached_gateways = Self::default();
        for id in served {
            let own = attached_gateways.listeners.entry(id.gateway.clone()).or_default();
            match &id.set {
                None => drop(own.insert(id.name.clone())),
                Some(set) => {
                    let of_set = attached_gateways.sets.entry(set.clone());
                    let (_, listeners) = of_set.or_insert_with(|| (id.gateway.clone(), BTreeSet::new()));
                    listeners.insert(id.name.clone());
                }
            }
        }
        attached_gateways
    }

    /// Notes that `gateway` serves `route` on listeners of these protocols, and with it all that its rules
    /// and its filters refer to.
    pub(in crate::translate) fn route(
        &mut self,
        route: &RouteId,
        gateway: &ObjectName,
        listeners: &[ListenerProtocol],
        rules: &[Rule],
        plugins: &[ObjectName],
    ) {
        if !route.kind.is_http() {
            for backend in rules.iter().flat_map(Rule::backends) {
                self.streamed.add(backend, gateway);
                if listeners.iter().any(|protocol| protocol.begins_tls()) {
                    self.connected.add(backend, gateway);
                }
            }
            return;
        }
        self.routes.add(route, gateway);
        for backend in rules.iter().flat_map(Rule::backends) {
            self.asked.add(backend, gateway);
        }
        for name in rules.iter().flat_map(Rule::ai_services) {
            self.ai_services.add(name, gateway);
        }
        for plugin in plugins {
            self.plugins.add(plugin, gateway);
        }
    }

    /// The Gateways to which a target belongs, each with whether what the policy is about reaches the target
    /// through it.
    pub(super) fn gateways<'s>(
        &'s self,
        target: &'s TargetKey,
        concern: Concern,
    ) -> Vec<(&'s ObjectName, bool)> {
        let asking = self.of_requests(target);
        if concern == Concern::Requests {
            let reached = self.reaches(target);
            return asking.into_iter().map(|gateway| (gateway, reached)).collect();
        }
        let connected = self.connected.of(target);
        let mut gateways = [&*asking, &*self.streamed.of(target)].concat();
        gateways.sort_unstable();
        gateways.dedup();
        let is_reached = |gateway: &ObjectName| {
            concern == Concern::Balancing || asking.contains(&gateway) || connected.contains(&gateway)
        };
        gateways.into_iter().map(|gateway| (gateway, is_reached(gateway))).collect()
    }

    /// Whether requests reach a target.
    fn reaches(&self, target: &TargetKey) -> bool {
        match target {
            TargetKey::Gateway(gateway, section) => self
                .listeners
                .get(gateway)
                .is_some_and(|listeners| section.as_ref().is_none_or(|section| listeners.contains(section))),
            TargetKey::ListenerSet(set, Some(section)) => {
                self.sets.get(set).is_some_and(|(_, listeners)| listeners.contains(section))
            }
            other => !self.of_requests(other).is_empty(),
        }
    }

    /// The Gateways to which a target belongs: itself, or those through which requests reach it.
    fn of_requests<'s>(&'s self, target: &'s TargetKey) -> Vec<&'s ObjectName> {
        match target {
            TargetKey::Gateway(gateway, _) => vec![gateway],
            TargetKey::ListenerSet(set, _) => {
                self.sets.get(set).map(|(gateway, _)| gateway).into_iter().collect()
            }
            TargetKey::Route(route, _) => self.routes.of(route),
            TargetKey::Service(_) | TargetKey::Port(_) => self.asked.of(target),
            TargetKey::AiService(name) => self.ai_services.of(name),
        }
    }

    /// The Gateways of the routes whose filters name a plugin.
    pub(super) fn gateways_of_plugin(&self, plugin: &ObjectName) -> Vec<&ObjectName> {
        self.plugins.of(plugin)
    }

    /// The plugins that filters of served routes name, whether or not they exist.
    pub(super) fn plugins(&self) -> impl Iterator<Item = &ObjectName> {
        self.plugins.0.keys()
    }
}

// === impl Services ===

impl Services {
    fn add(&mut self, backend: &BackendId, gateway: &ObjectName) {
        self.services.add(&backend.service, gateway);
        self.ports.add(backend, gateway);
    }

    fn of(&self, target: &TargetKey) -> Vec<&ObjectName> {
        match target {
            TargetKey::Service(service) => self.services.of(service),
            TargetKey::Port(port) => self.ports.of(port),
            _ => Vec::new(),
        }
    }
}

// === impl Gateways ===

impl<K> Default for Gateways<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Gateways<K> {
    fn add(&mut self, name: &K, gateway: &ObjectName) {
        match self.0.get_mut(name) {
            Some(gateways) if gateways.contains(gateway) => {}
            Some(gateways) => {
                gateways.insert(gateway.clone());
            }
            None => {
                self.0.insert(name.clone(), BTreeSet::from([gateway.clone()]));
            }
        }
    }

    fn of(&self, name: &K) -> Vec<&ObjectName> {
        self.0.get(name).into_iter().flatten().collect()
    }
}
