//! Services: their ports and endpoints.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use k8s_openapi::{
    api::{
        core::v1::{ObjectReference, Service, ServicePort},
        discovery::v1::{Endpoint as SliceEndpoint, EndpointPort, EndpointSlice},
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{cluster_state::ClusterState, locality::TopologyPreference};
use crate::{
    ir::{Address, BackendId, Endpoint, ObjectName, Protocol, Transport},
    tenancy::Tenancy,
};

/// The `addressType` of endpoints that are names.
const FQDN: &str = "FQDN";

/// A port of a Service.
pub(super) struct Port<'a> {
    pub(super) number: u16,
    /// What it is reached by.
    transport: Transport,
    spec: Option<&'a ServicePort>,
}

/// The port `number` of a Service that is reached by `transport`, or the one that is not. A Service that is
/// only a name (`ExternalName`) need not list its ports.
pub(super) fn port(service: &Service, number: u16, transport: Transport) -> Option<Port<'_>> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    if ports.is_empty() && number > 0 && external_name(service).is_some() {
        return Some(Port { number, transport, spec: None });
    }
    let mut of_number = ports.iter().filter(|port| port.port == i32::from(number));
    let wanted = of_number.clone().find(|port| transport_of(port.protocol.as_deref()) == Some(transport));
    Some(Port { number, transport, spec: Some(wanted.or_else(|| of_number.next())?) })
}

/// `protocol` of a port; `None` is one that is not served.
pub(super) fn transport_of(protocol: Option<&str>) -> Option<Transport> {
    match protocol {
        None | Some("TCP") => Some(Transport::Tcp),
        Some("UDP") => Some(Transport::Udp),
        Some(_) => None,
    }
}

fn app_protocol(port: &ServicePort) -> Result<Protocol, String> {
    let Some(name) = port.app_protocol.as_deref() else { return Ok(Protocol::Http1) };
    match name.to_ascii_lowercase().as_str() {
        "http" | "https" | "kubernetes.io/ws" | "kubernetes.io/wss" => Ok(Protocol::Http1),
        // Those without a domain are what operators and other meshes write, and no standard.
        "kubernetes.io/h2c" | "h2c" | "http2" | "grpc" => Ok(Protocol::H2c),
        _ => Err(format!(
            "appProtocol {name:?} is not served, only http, https, kubernetes.io/h2c (or h2c, http2, grpc), \
             kubernetes.io/ws and kubernetes.io/wss are"
        )),
    }
}

/// The endpoints of a backend: those that are ready, and those that still serve while they end.
pub(super) fn endpoints(cluster: &ClusterState<'_>, id: &BackendId) -> Vec<Endpoint> {
    let Some(service) = cluster.objects.services.get(&id.service) else { return Vec::new() };
    let Some(port) = port(service, id.port, id.transport) else { return Vec::new() };
    if let Some(name) = external_name(service) {
        if cluster.tenancy == Tenancy::Shared {
            return Vec::new();
        }
        let number = port.target_number().unwrap_or(id.port);
        return vec![named(name.to_owned(), number)];
    }
    let mut slices = cluster.slices(&id.service).to_vec();
    slices.retain(|slice| cluster.tenancy == Tenancy::Single || !has_names(slice));
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref());
    if let Some(preferred) = families.and_then(<[_]>::first) {
        // Of the addresses of a pod the first one counts.
        slices.sort_by_key(|slice| slice.address_type != *preferred);
    }
    let topology_preference = TopologyPreference::of(service, &slices, &cluster.here);
    let mut seen: HashMap<String, Option<&ObjectReference>> = HashMap::new();
    let (mut pods, mut endpoints) = (HashSet::new(), Vec::new());
    for (is_wanted, draining) in [(is_ready as Wanted, false), (is_serving, true)] {
        for (endpoint, pod) in collect(&slices, &port, topology_preference, is_wanted) {
            let uid = pod.and_then(|pod| pod.uid.as_deref());
            if uid.is_some_and(|uid| pods.contains(uid)) {
                continue;
            }
            let Some(id) = new_id(&seen, &endpoint, pod, &id.service) else { continue };
            seen.insert(id.clone(), pod);
            pods.extend(uid);
            endpoints.push(Endpoint { id, draining, ..endpoint });
        }
    }
    endpoints
}

/// What an endpoint is known by that is not among those that were `seen`: the name of its pod, so that it
/// stays the same where its address changes, with the namespace if that is not its Service's; or the address,
/// if it has no name or another pod has it, as one of another cluster may.
fn new_id(
    seen: &HashMap<String, Option<&ObjectReference>>,
    endpoint: &Endpoint,
    pod: Option<&ObjectReference>,
    service: &ObjectName,
) -> Option<String> {
    let name = pod.and_then(|pod| name_of(pod, service)).filter(|name| {
        let known = seen.get(name).copied().flatten();
        known.zip(pod).is_none_or(|(known, pod)| !is_another(known, pod))
    });
    let id = name.unwrap_or_else(|| endpoint.id.clone());
    (!seen.contains_key(&id)).then_some(id)
}

/// The name of a pod for a Service, whoever else is there and ready.
fn name_of(pod: &ObjectReference, service: &ObjectName) -> Option<String> {
    let name = pod.name.as_ref()?;
    let elsewhere = pod.namespace.as_ref().filter(|namespace| **namespace != service.namespace);
    Some(elsewhere.map_or_else(|| name.clone(), |namespace| format!("{namespace}/{name}")))
}

/// Whether two references by one name lead to different pods.
fn is_another(pod: &ObjectReference, other: &ObjectReference) -> bool {
    pod.uid.as_ref().zip(other.uid.as_ref()).is_some_and(|(one, other)| one != other)
}

/// Which endpoints of a slice are wanted.
type Wanted = fn(&SliceEndpoint) -> bool;

/// The session affinity that a Service has of itself, if it is not `None`.
pub(super) fn affinity<'a>(cluster: &ClusterState<'a>, name: &ObjectName) -> Option<&'a str> {
    let spec = cluster.objects.services.get(name)?.spec.as_ref()?;
    spec.session_affinity.as_deref().filter(|affinity| *affinity != "None")
}

/// Why requests do not go where a Service leads: in a cluster to no mere name, by which whoever writes a
/// Service or its endpoints would reach what no ReferenceGrant lets him refer to (Gateway API,
/// `BackendObjectReference`; CVE-2021-25740).
pub(super) fn not_followed(
    cluster: &ClusterState<'_>,
    name: &ObjectName,
    service: &Service,
) -> Option<&'static str> {
    if cluster.tenancy == Tenancy::Single {
        return None;
    }
    let slices = cluster.slices(name);
    if external_name(service).is_some() {
        Some("is of type ExternalName, which is not served in a cluster")
    } else if !slices.is_empty() && slices.iter().all(|slice| has_names(slice)) {
        Some("has EndpointSlices of addressType FQDN alone, which are not served in a cluster")
    } else {
        None
    }
}

fn has_names(slice: &EndpointSlice) -> bool {
    slice.address_type == FQDN
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    spec.external_name.as_deref().filter(|_| spec.type_.as_deref() == Some("ExternalName"))
}

/// Each address of the endpoints that are wanted, by which it is known, and its pod.
fn collect<'s>(
    slices: &[&'s EndpointSlice],
    port: &Port<'_>,
    topology_preference: TopologyPreference<'_>,
    is_wanted: Wanted,
) -> impl Iterator<Item = (Endpoint, Option<&'s ObjectReference>)> {
    slices.iter().filter_map(move |slice| Some((slice, port.in_slice(slice)?))).flat_map(
        move |(slice, number)| {
            let wanted = slice.endpoints.iter().filter(move |endpoint| is_wanted(endpoint));
            wanted.flat_map(move |endpoint| {
                let pod = endpoint.target_ref.as_ref();
                let tier = topology_preference.tier(endpoint);
                let addresses = endpoint.addresses.iter();
                addresses.filter_map(move |address| {
                    let found = Endpoint { tier, ..at(address, number, &slice.address_type)? };
                    Some((found, pod))
                })
            })
        },
    )
}

fn at(address: &str, port: u16, kind: &str) -> Option<Endpoint> {
    if kind == FQDN {
        return Some(named(address.to_owned(), port));
    }
    let address = SocketAddr::new(address.parse().ok()?, port);
    Some(Endpoint { id: address.to_string(), address: Address::Ip(address), draining: false, tier: 0 })
}

fn named(name: String, port: u16) -> Endpoint {
    Endpoint { id: format!("{name}:{port}"), address: Address::Dns(name, port), draining: false, tier: 0 }
}

/// Kubernetes: an endpoint that says nothing is ready.
pub(super) fn is_ready(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) != Some(false)
}

fn is_serving(endpoint: &SliceEndpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.serving) == Some(true)
}

// === impl Port ===

impl Port<'_> {
    /// Whether it can be reached by what it was asked for by, or why not.
    pub(super) fn is_reached(&self) -> Result<(), String> {
        let protocol = self.spec.and_then(|spec| spec.protocol.as_deref());
        if self.spec.is_none() || transport_of(protocol) == Some(self.transport) {
            return Ok(());
        }
        let wanted = match self.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        Err(format!("protocol {} is not served, only {wanted} is", protocol.unwrap_or("TCP")))
    }

    /// What requests to it are sent by, or why none can be.
    pub(super) fn protocol(&self) -> Result<Protocol, String> {
        self.is_reached()?;
        self.spec.map_or(Ok(Protocol::Http1), app_protocol)
    }

    /// Whether requests to it are sent over TLS alone. Names of services are the same in upper and in lower
    /// case (RFC 6335, section 5.1).
    pub(super) fn needs_tls(&self) -> bool {
        let name = self.spec.and_then(|spec| spec.app_protocol.as_deref()).unwrap_or_default();
        ["https", "kubernetes.io/wss"].iter().any(|secured| name.eq_ignore_ascii_case(secured))
    }

    /// The number that endpoints listen on, if the Service itself says it.
    fn target_number(&self) -> Option<u16> {
        match self.spec.and_then(|spec| spec.target_port.as_ref()) {
            None => Some(self.number),
            Some(IntOrString::Int(0)) => Some(self.number),
            Some(IntOrString::Int(number)) => u16::try_from(*number).ok(),
            Some(IntOrString::String(_)) => None,
        }
    }

    /// The number that the endpoints of a slice listen on.
    ///
    /// A slice names its ports as the Service does; one written by hand may use the target's name or number
    /// instead, or list no ports at all, which means all.
    fn in_slice(&self, slice: &EndpointSlice) -> Option<u16> {
        let ports = slice.ports.as_deref().unwrap_or_default();
        if ports.is_empty() {
            return self.target_number();
        }
        let name = self.spec.and_then(|spec| spec.name.as_deref()).unwrap_or_default();
        let target = self.spec.and_then(|spec| spec.target_port.as_ref());
        let by_name =
            |wanted: &str| self.own(ports).find(|port| port.name.as_deref().unwrap_or_default() == wanted);
        let found = by_name(name).or_else(|| match target {
            Some(IntOrString::String(target)) => by_name(target),
            _ => {
                let number = self.target_number().map(i32::from);
                self.own(ports).find(|port| port.port.is_some() && port.port == number)
            }
        })?;
        match found.port {
            Some(number) => u16::try_from(number).ok(),
            None => self.target_number(),
        }
    }

    /// Those of the ports that are reached by the same.
    fn own<'p>(&self, ports: &'p [EndpointPort]) -> impl Iterator<Item = &'p EndpointPort> + use<'p> {
        let own = Some(self.transport);
        ports.iter().filter(move |port| transport_of(port.protocol.as_deref()) == own)
    }
}
