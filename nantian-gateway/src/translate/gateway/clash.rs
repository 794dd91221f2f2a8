//! Listeners that exclude one another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{GatewayState, ListenerState, placement};
use crate::{
    ir::{HostPattern, ListenerProtocol, ObjectName, SocketProtocol, Transport},
    source::{FRONT_PORTS, Placements},
    tenancy::Tenancy,
    translate::{cluster_state::ClusterState, conditions::Reason, fault::Fault},
};

/// The listeners of a Gateway that share a port and what carries its bytes.
#[derive(Default)]
struct SharedPort {
    protocols: BTreeSet<SocketProtocol>,
    /// How often each hostname occurs.
    hostnames: BTreeMap<HostPattern, usize>,
}

/// Marks listeners of one Gateway with the same port and protocols that exclude one another, or the same
/// hostname.
///
/// All listeners of a clash are marked, since none of them has a better claim.
pub(super) fn within_gateway(listeners: &mut [ListenerState<'_>]) {
    let mut ports: BTreeMap<(u16, Transport), SharedPort> = BTreeMap::new();
    let accepted =
        |listener: &ListenerState<'_>| Some(listener.protocol?.socket()).filter(|_| listener.is_accepted());
    for (listener, protocol) in listeners.iter().filter_map(|listener| Some((listener, accepted(listener)?)))
    {
        let shared = ports.entry((listener.port, protocol.transport())).or_default();
        shared.protocols.insert(protocol);
        *shared.hostnames.entry(listener.hostname.clone()).or_default() += 1;
    }
    for listener in listeners.iter_mut() {
        let Some(protocol) = accepted(listener) else { continue };
        let Some(shared) = ports.get(&(listener.port, protocol.transport())) else { continue };
        let port = listener.port;
        if shared.protocols.len() > 1 {
            let message = format!("another listener uses port {port} with a different protocol");
            listener.conflict = Some(Fault::new(Reason::ProtocolConflict, message));
        } else if shared.hostnames.get(&listener.hostname).is_some_and(|count| *count > 1) {
            let message = format!("another listener has port {port} and hostname {}", listener.hostname);
            listener.conflict = Some(Fault::new(Reason::HostnameConflict, message));
        }
    }
}

/// Marks listeners of ListenerSets, which begin at `first`, that clash with one before them: the Gateway's
/// own come first, then those of older sets.
pub(super) fn with_earlier(listeners: &mut [ListenerState<'_>], first: usize) {
    for index in first..listeners.len() {
        let (earlier, rest) = listeners.split_at_mut(index);
        let Some(listener) = rest.first_mut().filter(|listener| listener.is_accepted()) else { continue };
        let Some(protocol) = listener.protocol.map(ListenerProtocol::socket) else { continue };
        let mut on_port = earlier.iter().filter(|other| other.is_accepted() && other.port == listener.port);
        let other = on_port.find_map(|other| {
            let spoken = other.protocol?.socket();
            let is_there = spoken.transport() == protocol.transport();
            let excludes = spoken != protocol || other.hostname == listener.hostname;
            (is_there && excludes).then_some((&other.id, spoken))
        });
        let Some((id, spoken)) = other else { continue };
        let port = listener.port;
        listener.conflict = Some(if spoken == protocol {
            let hostname = &listener.hostname;
            let message = format!("listener {id} comes first and has port {port} and hostname {hostname}");
            Fault::new(Reason::HostnameConflict, message)
        } else {
            let message = format!("listener {id} comes first and uses port {port} with a different protocol");
            Fault::new(Reason::ProtocolConflict, message)
        });
    }
}

/// Whether another listener with TLS on the port covers some of the hosts: a browser that has a connection
/// for one of them may use it for the other.
pub(super) fn overlaps(listeners: &[ListenerState<'_>], listener: &ListenerState<'_>) -> bool {
    let is_secured =
        |it: &ListenerState<'_>| it.is_accepted() && it.protocol == Some(ListenerProtocol::Https);
    is_secured(listener)
        && listeners.iter().any(|other| {
            is_secured(other)
                && other.id != listener.id
                && other.port == listener.port
                && other.hostname.intersection(&listener.hostname).is_some()
        })
}

/// A socket that listeners of several Gateways may share.
struct Socket<'a> {
    protocol: SocketProtocol,
    /// The oldest Gateway on it.
    holder: &'a ObjectName,
    /// The hostnames that are taken, and by whom.
    hostnames: HashMap<HostPattern, &'a ObjectName>,
}

/// Whom a listener on addresses of its own must not take clients from.
///
/// The kernel prefers the socket of an address to that of all interfaces, so that whoever names an address
/// would get the clients of all others there. One operator may want that; teams that need not trust one
/// another are kept from it.
fn conflict_elsewhere(
    cluster: &ClusterState<'_>,
    (name, addresses): (&ObjectName, &[Option<IpAddr>]),
    port: u16,
    everywhere: Option<&Socket<'_>>,
) -> Option<String> {
    if cluster.tenancy == Tenancy::Single || addresses.contains(&None) {
        return None;
    }
    if matches!(cluster.objects.placements, Placements::InFront(_)) && FRONT_PORTS.contains(&port) {
        return Some(format!("port {port} is for Services of Gateways, as are all of {FRONT_PORTS:?}"));
    }
    let others = everywhere?.hostnames.values();
    let other = others.filter(|other| other.namespace != name.namespace).min()?;
    Some(format!("Gateway {other} uses port {port} on all interfaces"))
}

/// Marks listeners whose socket an older Gateway uses with a different protocol, or with the same hostname.
pub(super) fn between_gateways(cluster: &ClusterState<'_>, gateways: &mut [GatewayState<'_>]) {
    let mut sockets: HashMap<(Option<IpAddr>, u16, Transport), Socket<'_>> = HashMap::new();
    for gateway in gateways.iter_mut().filter(|gateway| gateway.verdict.is_ok()) {
        for listener in gateway.listeners.iter_mut().filter(|listener| listener.is_servable()) {
            let Some(protocol) = listener.protocol.map(ListenerProtocol::socket) else { continue };
            let Some(port) = placement::bound_port(gateway.placed, protocol.transport(), listener.port)
            else {
                continue;
            };
            let own = gateway.addresses.iter().map(|address| (*address, port, protocol.transport()));
            let present: Vec<_> = own.clone().filter_map(|socket| sockets.get(&socket)).collect();
            let other = present.iter().find(|socket| socket.protocol != protocol);
            let taken = present.iter().find_map(|socket| socket.hostnames.get(&listener.hostname));
            let everywhere = sockets.get(&(None, port, protocol.transport()));
            let conflict_elsewhere =
                conflict_elsewhere(cluster, (gateway.name, &gateway.addresses), port, everywhere);
            if let Some(message) = conflict_elsewhere {
                listener.refused.push(Fault::new(Reason::PortUnavailable, message));
            } else if let Some(Socket { protocol, holder, .. }) = other {
                let message = format!("Gateway {holder} uses port {} for {protocol}", listener.port);
                listener.refused.push(Fault::new(Reason::PortUnavailable, message));
            } else if let Some(holder) = taken {
                let (port, hostname) = (listener.port, &listener.hostname);
                let message = format!("Gateway {holder} has port {port} and hostname {hostname}");
                listener.conflict = Some(Fault::new(Reason::HostnameConflict, message));
            } else {
                for socket in own {
                    let free = || Socket { protocol, holder: gateway.name, hostnames: HashMap::new() };
                    let socket = sockets.entry(socket).or_insert_with(free);
                    socket.hostnames.insert(listener.hostname.clone(), gateway.name);
                }
            }
        }
    }
}
