//! What has to be written, so that every Gateway has its Service.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use gateway_api::experimental::gateways::Gateway;
use k8s_openapi::api::{core::v1::Service, discovery::v1::Endpoint};
use kube::api::ApiResource;
use serde_json::Value;

use super::{GatewayServiceConfig, desired};
use crate::{
    ir::{ObjectName, Transport},
    source::{
        Objects, Placements,
        kube::{FRONT_PORTS, belongs_to, digest, front_ports, listener_ports, ours, service_name},
    },
    translate::{SERVICE_NAME_LABEL, asked_of_service, has_parameters},
};

/// The families of addresses that replicas can have.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

/// What has to be written.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Services to create or to change.
    pub(super) services: Vec<Desired>,
    /// EndpointSlices to create or to change.
    pub(super) slices: Vec<Desired>,
    /// Services to delete, whose Gateways have others.
    pub(super) delete: Vec<ObjectName>,
    /// What keeps Gateways from being reached.
    pub(super) obstacles: Vec<Obstacle>,
}

/// Something that is in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Obstacle {
    /// The Gateway that it keeps from being reached, if there is one.
    pub(super) gateway: Option<ObjectName>,
    pub(super) text: String,
}

/// The fields of an object that have to be as they are here.
#[derive(Debug)]
pub(super) struct Desired {
    /// The Gateway that it is for.
    pub(super) gateway: ObjectName,
    pub(super) resource: ApiResource,
    pub(super) name: ObjectName,
    pub(super) body: Value,
}

/// Compares what there is with what there should be.
pub(super) fn plan(objects: &Objects, config: &GatewayServiceConfig) -> Plan {
    let mut plan = Plan::default();
    let bound = |name: &ObjectName| match &objects.placements {
        Placements::InFront(placed) => placed.get(name).map(|placement| &placement.ports),
        _ => None,
    };
    let gateways = ours(objects);
    let all = gateways.iter().filter_map(|(name, _)| bound(name)).flatten();
    let mut taken: BTreeSet<(Transport, u16)> =
        all.map(|((transport, _), bound)| (*transport, *bound)).collect();
    if !objects.withheld.is_empty() {
        taken.extend(named_ports(objects, &gateways));
    }
    let replicas = replicas(objects, &config.own_service);
    let mut kept = BTreeSet::new();
    for (name, gateway) in gateways {
        let service_name = service_name(name, gateway);
        let present = objects.services.get(&service_name);
        let uid = present.and_then(|service| service.metadata.uid.as_deref());
        let asked = listener_ports(objects, name, gateway);
        // What the translator refuses is not served, so that nothing in front of it changes but where the
        // replicas are, some of which may serve the version before.
        let Some(address) = asked_address(objects, gateway) else {
            let own = present.filter(|service| {
                belongs_to(service, gateway) && other_replicas(objects, service, config).is_none()
            });
            if let (Some(service), Some(uid)) = (own, uid) {
                let ports = own_ports(objects, name, service);
                plan.lead_to(&replicas, objects, name, (&service_name, uid), &ports);
            }
            continue;
        };
        if present.is_some_and(|service| !belongs_to(service, gateway)) {
            // Nobody's Service is changed but ours.
            plan.obstacle(name, format!("Service {service_name} exists and belongs to somebody else"));
            continue;
        }
        if let Some(other) = present.and_then(|service| other_replicas(objects, service, config)) {
            let text = format!(
                "Service {service_name} leads to the replicas of Service {other}: of several installations in a \
                 cluster each has a --controller-name of its own; if that one is gone, take the annotation {} \
                 away",
                desired::REPLICAS
            );
            plan.obstacle(name, text);
            continue;
        }
        let service = present.map(|service| &**service);
        let (count, unseen) = (asked.len(), ports_of_unseen(objects, name, &asked, service));
        let mut ports = with_all_listeners(gateway, asked, bound(name), &mut taken);
        if ports.len() < count {
            plan.obstacle(
                name,
                format!("all ports of {FRONT_PORTS:?} are used, of its {count} it has {}", ports.len()),
            );
        }
        ports.extend(unseen);
        if ports.is_empty() {
            continue;
        }
        kept.insert(service_name.clone());
        let body = desired::service(name, gateway, &service_name, config, address, &ports, service);
        plan.services.extend(desired(name, &service_name, body, service));
        if let Some(uid) = uid {
            if replicas.is_empty() {
                let own = &config.own_service;
                plan.obstacle(
                    name,
                    format!("its Service leads nowhere, for Service {own} has no EndpointSlice"),
                );
            }
            plan.lead_to(&replicas, objects, name, (&service_name, uid), &ports);
        }
    }
    let left_over = objects.services.iter().filter(|(name, service)| {
        !kept.contains(*name)
            && desired::is_ours(&service.metadata)
            && is_obsolete(objects, name, service, &config.own_service)
    });
    plan.delete = left_over.map(|(name, _)| name.clone()).collect();
    plan
}

impl Plan {
    /// The slices alone, of Services that are as they should be: only the leader chooses ports.
    pub(super) fn of_slices(mut self) -> Self {
        self.slices.retain(|slice| self.services.iter().all(|service| service.gateway != slice.gateway));
        Self { slices: self.slices, ..Self::default() }
    }

    /// Adds the slices of the Service of a Gateway, which has this UID: by these ports to the replicas.
    fn lead_to(
        &mut self,
        replicas: &BTreeMap<String, Vec<Endpoint>>,
        objects: &Objects,
        gateway: &ObjectName,
        (service, uid): (&ObjectName, &str),
        ports: &BTreeMap<(Transport, u16), u16>,
    ) {
        for family in FAMILIES {
            let slice = ObjectName::new(&*service.namespace, desired::slice_name(service, family));
            let present = objects.endpoint_slices.get(&slice).map(|slice| &**slice);
            let endpoints = match (replicas.get(family), present) {
                (Some(endpoints), _) => endpoints.as_slice(),
                // There is none any more that has such an address.
                (None, Some(_)) if !replicas.is_empty() => &[],
                (None, _) => continue,
            };
            let body = desired::slice(service, uid, &slice, family, endpoints, ports);
            self.slices.extend(desired(gateway, &slice, body, present));
        }
    }

    fn obstacle(&mut self, gateway: &ObjectName, text: String) {
        self.obstacles.push(Obstacle { gateway: Some(gateway.clone()), text });
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(gateway) = &self.gateway {
            write!(f, "Gateway {gateway}: ")?;
        }
        f.write_str(&self.text)
    }
}

/// The address that the Service of a Gateway is asked for, if any in particular; nothing at all where the
/// Gateway is refused.
fn asked_address(objects: &Objects, gateway: &Gateway) -> Option<Option<IpAddr>> {
    let class =
        objects.gateway_classes.get(&ObjectName::new("", gateway.spec.gateway_class_name.as_str()))?;
    if has_parameters(gateway, class) {
        return None;
    }
    asked_of_service(gateway).ok()
}

/// `body` as something to write, unless `present` is as it says.
fn desired<T>(gateway: &ObjectName, name: &ObjectName, body: Value, present: Option<&T>) -> Option<Desired>
where
    T: kube::Resource<DynamicType = ()> + serde::Serialize,
{
    let is_there = present.is_some_and(|present| desired::is_as(present, &body));
    let (gateway, name) = (gateway.clone(), name.clone());
    (!is_there).then(|| Desired { gateway, resource: ApiResource::erase::<T>(&()), name, body })
}

/// The Service of another installation to whose replicas a Service leads, as long as that is there, or out of
/// sight: the two would take it from each other for ever.
fn other_replicas(objects: &Objects, service: &Service, config: &GatewayServiceConfig) -> Option<ObjectName> {
    let other = leads_to(service)?;
    let may_be_there = objects.withheld.contains(&other.namespace)
        || objects.services.contains_key(&other)
        || !config.scope.has_services_of(&other.namespace);
    (other != config.own_service && may_be_there).then_some(other)
}

/// The Service to whose replicas a Service leads.
fn leads_to(service: &Service) -> Option<ObjectName> {
    let (namespace, name) = service.metadata.annotations.as_ref()?.get(desired::REPLICAS)?.split_once('/')?;
    Some(ObjectName::new(namespace, name))
}

/// Whether the Gateway of a Service of ours has another one by the name of another class, which has an
/// address. That of a Gateway with another controller goes only if it leads to our replicas, for it may be
/// that of another installation. With one that is gone the cluster takes its Service away; to lose sight of a
/// Gateway or its class is no reason to give up an address.
fn is_obsolete(objects: &Objects, name: &ObjectName, service: &Service, own: &ObjectName) -> bool {
    let owners = service.metadata.owner_references.iter().flatten();
    owners.map(|owner| ObjectName::new(&*name.namespace, owner.name.as_str())).any(|owner| {
        let Some(gateway) = objects.gateways.get(&owner).filter(|it| belongs_to(service, it)) else {
            return false;
        };
        let class = ObjectName::new("", gateway.spec.gateway_class_name.as_str());
        let Some(class) = objects.gateway_classes.get(&class) else { return false };
        let has_another = || service_name(&owner, gateway) != *name && has_address(objects, &owner);
        match objects.is_ours(class) {
            true => has_another(),
            false => leads_to(service).is_some_and(|replicas| replicas == *own),
        }
    })
}

/// The ports of the process that the Services of these Gateways lead to, whatever their listeners.
fn named_ports(objects: &Objects, gateways: &[(&ObjectName, &Gateway)]) -> Vec<(Transport, u16)> {
    let services = gateways.iter().filter_map(|(name, it)| objects.services.get(&service_name(name, it)));
    let ports = services.flat_map(|service| front_ports(service));
    ports.map(|((transport, _), bound)| (transport, bound)).collect()
}

/// The ports to which the Service of a Gateway leads beside those that are `asked` for, while they may be of
/// listeners that cannot be seen.
fn ports_of_unseen(
    objects: &Objects,
    gateway: &ObjectName,
    asked: &BTreeSet<(Transport, u16)>,
    present: Option<&Service>,
) -> BTreeMap<(Transport, u16), u16> {
    let present = present.filter(|_| !objects.withheld.is_empty());
    let mut ports = present.map(|service| own_ports(objects, gateway, service)).unwrap_or_default();
    ports.retain(|port, _| !asked.contains(port));
    ports
}

/// The ports that a Service leads to, apart from those of other Gateways: whoever may write Services there
/// may have edited it.
fn own_ports(objects: &Objects, gateway: &ObjectName, service: &Service) -> BTreeMap<(Transport, u16), u16> {
    let mut others = BTreeSet::new();
    if let Placements::InFront(placed) = &objects.placements {
        let placed = placed.iter().filter(|(name, _)| *name != gateway);
        let ports = placed.flat_map(|(_, placement)| &placement.ports);
        others.extend(ports.map(|((transport, _), bound)| (*transport, *bound)));
    }
    front_ports(service).filter(|((transport, _), bound)| !others.contains(&(*transport, *bound))).collect()
}

/// Whether the Service of a Gateway has an address.
fn has_address(objects: &Objects, gateway: &ObjectName) -> bool {
    let Placements::InFront(placed) = &objects.placements else { return false };
    placed.get(gateway).is_some_and(|placed| !placed.addresses.is_empty())
}

/// The port of the process for each of the listener ports that are `asked` for: the one that is `bound`, or a
/// free one.
fn with_all_listeners(
    gateway: &Gateway,
    asked: BTreeSet<(Transport, u16)>,
    bound: Option<&BTreeMap<(Transport, u16), u16>>,
    taken: &mut BTreeSet<(Transport, u16)>,
) -> BTreeMap<(Transport, u16), u16> {
    let mut ports = BTreeMap::new();
    for (transport, port) in asked {
        let bound = bound.and_then(|bound| bound.get(&(transport, port))).copied();
        let bound = bound.or_else(|| free_port(gateway, transport, port, taken));
        if let Some(bound) = bound {
            taken.insert((transport, bound));
            ports.insert((transport, port), bound);
        }
    }
    ports
}

/// A port that no other listener has.
///
/// Where the search begins is up to the Gateway, so that a port that was given up is not soon that of another
/// Gateway: its old Service may lead to it for a while.
fn free_port(
    gateway: &Gateway,
    transport: Transport,
    port: u16,
    taken: &BTreeSet<(Transport, u16)>,
) -> Option<u16> {
    let identity = format!("{:?} {transport:?} {port}", gateway.metadata.uid);
    let count = FRONT_PORTS.len();
    let first = usize::try_from(digest(identity.as_bytes()) % u64::try_from(count).ok()?).ok()?;
    let mut ports = FRONT_PORTS.cycle().skip(first).take(count);
    ports.find(|bound| !taken.contains(&(transport, *bound)))
}

/// The replicas of this gateway by the family of their addresses.
fn replicas(objects: &Objects, own: &ObjectName) -> BTreeMap<String, Vec<Endpoint>> {
    let mut families: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    for (name, slice) in &objects.endpoint_slices {
        let labels = slice.metadata.labels.as_ref();
        let is_own = labels
            .and_then(|labels| labels.get(SERVICE_NAME_LABEL))
            .is_some_and(|service| **service == *own.name);
        if name.namespace == own.namespace && is_own {
            families.entry(slice.address_type.clone()).or_default().extend(slice.endpoints.iter().cloned());
        }
    }
    families
}

#[cfg(test)]
mod tests;
