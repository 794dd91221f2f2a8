//! Listeners that exclude one another.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
};

use super::{GatewayState, ListenerState};
use crate::{
    ir::{HostPattern, ListenerProtocol, ObjectName},
    translate::{conditions::Reason, fault::Fault},
};

/// The listeners of a Gateway that share a port.
#[derive(Default)]
struct SharedPort {
    protocols: BTreeSet<ListenerProtocol>,
    /// How often each hostname occurs.
    hostnames: BTreeMap<HostPattern, usize>,
}

/// Marks listeners of one Gateway with the same port and different protocols, or the same hostname.
///
/// All listeners of a clash are marked, since none of them has a better claim.
pub(super) fn within_gateway(listeners: &mut [ListenerState<'_>]) {
    let mut ports: BTreeMap<u16, SharedPort> = BTreeMap::new();
    for listener in listeners.iter().filter(|listener| listener.is_accepted()) {
        let shared = ports.entry(listener.port).or_default();
        shared.protocols.extend(listener.protocol);
        *shared.hostnames.entry(listener.hostname.clone()).or_default() += 1;
    }
    for listener in listeners.iter_mut().filter(|listener| listener.is_accepted()) {
        let Some(shared) = ports.get(&listener.port) else { continue };
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

/// Refuses listeners whose socket an older Gateway uses with a different protocol.
pub(super) fn between_gateways(gateways: &mut [GatewayState<'_>]) {
    let mut sockets: HashMap<(Option<IpAddr>, u16), (ListenerProtocol, &ObjectName)> = HashMap::new();
    for gateway in gateways.iter_mut().filter(|gateway| gateway.verdict.is_ok()) {
        for listener in gateway.listeners.iter_mut().filter(|listener| listener.is_servable()) {
            let Some(protocol) = listener.protocol else { continue };
            let own = gateway.addresses.iter().map(|address| (*address, listener.port));
            let taken = own
                .clone()
                .find_map(|socket| sockets.get(&socket).filter(|(present, _)| *present != protocol));
            match taken {
                Some((present, holder)) => {
                    let message = format!("Gateway {holder} uses port {} for {present}", listener.port);
                    listener.refused.push(Fault::new(Reason::PortUnavailable, message));
                }
                None => sockets.extend(own.map(|socket| (socket, (protocol, gateway.name)))),
            }
        }
    }
}
