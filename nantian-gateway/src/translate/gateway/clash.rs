//! Listeners that exclude one another.

use std::{collections::HashMap, fmt, net::IpAddr};

use super::{GatewayState, ListenerState, placement};
use crate::{
    ir::{HostPattern, ListenerProtocol, ObjectName, SocketProtocol, Transport},
    tenancy::Tenancy,
    translate::{cluster_state::ClusterState, conditions::Reason, fault::Fault},
};

/// Marks listeners of one Gateway with the same port and protocols that exclude one another, or the same
/// hostname.
///
/// All listeners of a clash are marked, since none of them has a better claim.
pub(super) fn within_gateway(listeners: &mut [ListenerState<'_>]) {
    let conflicts: Vec<_> = (0..listeners.len()).map(|index| conflict_within(listeners, index)).collect();
    for (listener, conflict) in listeners.iter_mut().zip(conflicts) {
        listener.conflict = conflict.or(listener.conflict.take());
    }
}

/// What keeps two listeners off one socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Clash {
    /// They need sockets of different kinds.
    Socket,
    /// They have the same hostname, and different protocols there.
    Protocol,
    /// They have the same hostname.
    Hostname,
}

// === impl Clash ===

impl Clash {
    fn between(listener: &ListenerState<'_>, other: &ListenerState<'_>) -> Option<Self> {
        // Both modes are one protocol.
        let written = |protocol| match protocol {
            ListenerProtocol::TlsPassthrough => ListenerProtocol::Tls,
            other => other,
        };
        let (own, spoken) = (listener.protocol?, other.protocol?);
        let is_one_port = own.socket().transport() == spoken.socket().transport();
        let shares = listener.port == other.port && is_one_port;
        if !shares || !listener.is_accepted() || !other.is_accepted() {
            None
        } else if own.socket() != spoken.socket() {
            Some(Self::Socket)
        } else if listener.hostname != other.hostname {
            None
        } else if written(own) != written(spoken) {
            Some(Self::Protocol)
        } else {
            Some(Self::Hostname)
        }
    }

    /// What the listener is told whose conflict this is with `others`.
    fn fault(self, listener: &ListenerState<'_>, others: impl fmt::Display) -> Fault {
        let (port, hostname) = (listener.port, &listener.hostname);
        let (reason, message) = match self {
            Self::Socket => (
                Reason::ProtocolConflict,
                format!("port {port} is used with a different protocol by {others}"),
            ),
            Self::Protocol => {
                let what = format!("port {port} and hostname {hostname}");
                (Reason::ProtocolConflict, format!("{what} are used with a different protocol by {others}"))
            }
            Self::Hostname => {
                let message = format!("port {port} and hostname {hostname} are also those of {others}");
                (Reason::HostnameConflict, message)
            }
        };
        Fault::new(reason, message)
    }
}

/// The clash of a listener with others, the gravest one.
fn conflict_within(listeners: &[ListenerState<'_>], index: usize) -> Option<Fault> {
    let listener = listeners.get(index)?;
    let others = listeners.iter().enumerate().filter(|(other, _)| *other != index);
    let clashes = others.filter_map(|(_, other)| Some((Clash::between(listener, other)?, other)));
    let clashes: Vec<_> = clashes.collect();
    [Clash::Socket, Clash::Protocol, Clash::Hostname].into_iter().find_map(|clash| {
        let names = clashes.iter().filter(|(one, _)| *one == clash).map(|(_, other)| other.id.name.as_str());
        let names: Vec<_> = names.collect();
        (!names.is_empty()).then(|| clash.fault(listener, names.join(", ")))
    })
}

/// Marks listeners of ListenerSets, which begin at `first`, that clash with one before them: the Gateway's
/// own come first, then those of older sets.
pub(super) fn with_earlier(listeners: &mut [ListenerState<'_>], first: usize) {
    for index in first..listeners.len() {
        let (earlier, rest) = listeners.split_at_mut(index);
        let Some(listener) = rest.first_mut() else { continue };
        let clash = earlier.iter().find_map(|other| Some((Clash::between(listener, other)?, &other.id)));
        let fault =
            clash.map(|(clash, id)| clash.fault(listener, format_args!("listener {id}, which comes first")));
        listener.conflict = fault.or(listener.conflict.take());
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
