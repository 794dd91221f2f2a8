//! The Service through which a Gateway is reached.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

use gateway_api::experimental::gateways::{Gateway, GatewayListeners};
use k8s_openapi::{
    api::core::v1::{LoadBalancerStatus, Service, ServicePort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use serde::Deserialize as _;
use serde_json::Value;

use super::ours::ours;
use crate::{
    ir::{ObjectName, Transport},
    source::{
        objects::Objects,
        placement::{Placement, PublicAddress},
    },
    translate::added_listeners,
};

/// The ports that are bound for listeners of Gateways with a Service: below those from which Linux takes
/// ports for connections to others, and below that of the admin server.
pub(crate) const FRONT_PORTS: RangeInclusive<u16> = 10_000..=18_999;

/// The longest name of a Service.
const MAX_NAME: usize = 63;

/// The name of a Gateway's Service: `GATEWAY-CLASS` as GEP-1762 has it, and a digest of that where it is no
/// name of a Service.
pub(crate) fn service_name(name: &ObjectName, gateway: &Gateway) -> ObjectName {
    let text = format!("{}-{}", name.name, gateway.spec.gateway_class_name);
    let is_label = text.len() <= MAX_NAME
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let text = if is_label { text } else { format!("gateway-{:016x}", digest(text.as_bytes())) };
    ObjectName::new(&*name.namespace, text)
}

/// FNV-1a: the same in every version of the program.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |digest, byte| {
        (digest ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Whether the Service belongs to the Gateway.
pub(crate) fn belongs_to(service: &Service, gateway: &Gateway) -> bool {
    let owners = service.metadata.owner_references.iter().flatten();
    owners
        .filter(|owner| owner.kind == "Gateway")
        .any(|owner| Some(&owner.uid) == gateway.metadata.uid.as_ref())
}

/// What the port of a listener is of; `None` for a protocol that is not known.
fn transport(listener: &GatewayListeners) -> Option<Transport> {
    match listener.protocol.as_str() {
        "HTTP" | "HTTPS" | "TLS" | "TCP" => Some(Transport::Tcp),
        "UDP" => Some(Transport::Udp),
        _ => None,
    }
}

/// The Service of a Gateway, if it is there.
fn service_of<'a>(objects: &'a Objects, name: &ObjectName, gateway: &Gateway) -> Option<&'a Service> {
    let service = objects.services.get(&service_name(name, gateway))?;
    belongs_to(service, gateway).then_some(service)
}

/// The ports that the listeners of a Gateway ask for, those of its ListenerSets included.
pub(crate) fn listener_ports(
    objects: &Objects,
    name: &ObjectName,
    gateway: &Gateway,
) -> BTreeSet<(Transport, u16)> {
    let added = added_listeners(objects, name, gateway);
    let listeners = gateway.spec.listeners.iter().chain(&added);
    let port = |listener: &GatewayListeners| Some((transport(listener)?, u16::try_from(listener.port).ok()?));
    listeners.filter_map(port).collect()
}

/// The ports of the process that the Service of each Gateway leads to.
///
/// A Service counts only for ports that are for this, that its Gateway has listeners for, and that no other
/// Gateway has already, as `placed` says: whoever may write Services in some namespace must not reach by one
/// what else the process listens on. Of those who come at once the oldest Gateway has a port.
fn claims(
    objects: &Objects,
    placed: &BTreeMap<ObjectName, Placement>,
) -> BTreeMap<ObjectName, BTreeMap<(Transport, u16), u16>> {
    let claimed = |(name, gateway)| {
        let service = service_of(objects, name, gateway)?;
        let asked = listener_ports(objects, name, gateway);
        let ports = front_ports(service).filter(|(port, _)| asked.contains(port));
        Some((name, ports.collect::<Vec<_>>()))
    };
    let claimed: Vec<(&ObjectName, _)> = ours(objects).into_iter().filter_map(claimed).collect();
    let each =
        claimed.iter().flat_map(|(name, ports)| ports.iter().map(move |(port, bound)| (*name, port, bound)));
    let is_kept = |name, port, bound| {
        placed.get(name).and_then(|placed: &Placement| placed.ports.get(port)) == Some(bound)
    };
    let kept = each.filter(|(name, port, bound)| is_kept(name, port, bound));
    let mut owners: BTreeMap<(Transport, u16), (&ObjectName, u16)> =
        kept.map(|(name, (transport, port), bound)| ((*transport, *bound), (name, *port))).collect();
    let mut claims = BTreeMap::new();
    for (name, ports) in claimed {
        let is_own = |((transport, port), bound): &((Transport, u16), u16)| {
            *owners.entry((*transport, *bound)).or_insert((name, *port)) == (name, *port)
        };
        claims.insert(name.clone(), ports.into_iter().filter(is_own).collect());
    }
    claims
}

/// The ports of the process that a Service leads to, each for one of its own.
pub(crate) fn front_ports(service: &Service) -> impl Iterator<Item = ((Transport, u16), u16)> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter_map(bound_port);
    ports.filter(|(_, bound)| FRONT_PORTS.contains(bound))
}

fn bound_port(port: &ServicePort) -> Option<((Transport, u16), u16)> {
    let transport = match port.protocol.as_deref() {
        None | Some("TCP") => Transport::Tcp,
        Some("UDP") => Transport::Udp,
        Some(_) => return None,
    };
    let Some(IntOrString::Int(target)) = port.target_port else { return None };
    Some(((transport, u16::try_from(port.port).ok()?), u16::try_from(target).ok()?))
}

/// Where the Gateways are reached whose Services are there, after they were reached where `placed` says;
/// `status` gives the status of a Service.
pub(crate) fn placements(
    objects: &Objects,
    placed: &BTreeMap<ObjectName, Placement>,
    status: impl Fn(&ObjectName) -> Value,
) -> BTreeMap<ObjectName, Placement> {
    let mut claims = claims(objects, placed);
    let place = |(name, gateway): (&ObjectName, &Gateway)| {
        let service = service_of(objects, name, gateway)?;
        let addresses = addresses(service, &status(&service_name(name, gateway)));
        Some((name.clone(), Placement { ports: claims.remove(name)?, addresses }))
    };
    ours(objects).into_iter().filter_map(place).collect()
}

fn addresses(service: &Service, status: &Value) -> Vec<PublicAddress> {
    let spec = service.spec.as_ref();
    let ip = |text: &String| text.parse().ok().map(PublicAddress::Ip);
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ClusterIP") {
        return spec.into_iter().flat_map(|spec| spec.cluster_ips.iter().flatten()).filter_map(ip).collect();
    }
    let balancer = status.get("loadBalancer").map(LoadBalancerStatus::deserialize);
    let balancer = balancer.and_then(Result::ok).unwrap_or_default();
    let ingress = balancer.ingress.unwrap_or_default();
    if ingress.is_empty() {
        // Where there is no balancer, an operator may lead addresses of his own to the machines.
        return spec.into_iter().flat_map(|spec| spec.external_ips.iter().flatten()).filter_map(ip).collect();
    }
    ingress
        .into_iter()
        .filter_map(|ingress| {
            ingress.ip.as_ref().and_then(ip).or_else(|| ingress.hostname.map(PublicAddress::Host))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gateway(class: &str) -> Gateway {
        serde_json::from_value(json!({
            "metadata": { "uid": "u" }, "spec": { "gatewayClassName": class, "listeners": [] },
        }))
        .unwrap()
    }

    #[test]
    fn a_service_has_a_name_that_services_can_have() {
        let name = |gateway_name: &str, class: &str| {
            service_name(&ObjectName::new("demo", gateway_name), &gateway(class)).name.to_string()
        };
        assert_eq!(name("web", "nantian"), "web-nantian");
        for odd in ["1web", "web.example.com", &"w".repeat(63)] {
            let name = name(odd, "nantian");
            assert!(name.starts_with("gateway-") && name.len() == 24, "{name}");
        }
        assert_ne!(name("1", "nantian"), name("2", "nantian"));
    }

    #[test]
    fn only_the_owner_is_reached_through_a_service() {
        let service = |uid: &str| -> Service {
            let owner = json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "name": "web", "uid": uid });
            serde_json::from_value(json!({ "metadata": { "ownerReferences": [owner] } })).unwrap()
        };
        assert!(belongs_to(&service("u"), &gateway("nantian")));
        assert!(!belongs_to(&service("v"), &gateway("nantian")));
        assert!(!belongs_to(&Service::default(), &gateway("nantian")));
    }

    #[test]
    fn addresses_are_those_that_the_balancer_or_the_cluster_has_given() {
        let service = |kind: &str| -> Service {
            let spec = json!({ "type": kind, "clusterIPs": ["10.96.0.7", "fd00::7"] });
            serde_json::from_value(json!({ "spec": spec })).unwrap()
        };
        let status = || json!({ "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }, { "hostname": "lb.example.com" }] } });
        let ip = |text: &str| PublicAddress::Ip(text.parse().unwrap());
        let host = PublicAddress::Host("lb.example.com".to_owned());
        assert_eq!(addresses(&service("LoadBalancer"), &status()), [ip("192.0.2.1"), host]);
        assert_eq!(addresses(&service("LoadBalancer"), &Value::Null), []);
        assert_eq!(addresses(&service("ClusterIP"), &status()), [ip("10.96.0.7"), ip("fd00::7")]);
        let mut by_hand = service("LoadBalancer");
        by_hand.spec.as_mut().unwrap().external_ips = Some(vec!["192.0.2.7".to_owned()]);
        assert_eq!(addresses(&by_hand, &json!({ "loadBalancer": {} })), [ip("192.0.2.7")]);
        assert_eq!(addresses(&by_hand, &status()).first(), Some(&ip("192.0.2.1")), "a balancer knows better");
    }
}
