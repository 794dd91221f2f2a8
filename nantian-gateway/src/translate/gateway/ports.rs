//! The sockets of all Gateways.

use std::{collections::BTreeMap, net::IpAddr};

use super::{GatewayState, Gateways, ListenerState};
use crate::{
    ir::{Listener, ListenerProtocol, Port, Transport},
    translate::policy::{PolicySet, TargetKey},
};

/// The sockets to bind: listeners of different Gateways share one where address and port agree.
pub(in crate::translate) fn ports(gateways: &Gateways<'_>, policies: &PolicySet) -> Vec<Port> {
    let mut sockets: BTreeMap<(Option<IpAddr>, u16, Transport), Port> = BTreeMap::new();
    for gateway in gateways.iter() {
        for listener in gateway.listeners.iter().filter(|listener| gateway.serves(listener)) {
            let Some(protocol) = listener.protocol else { continue };
            let entry = to_ir(gateway, listener, protocol, policies);
            let (protocol, transport) = (protocol.socket(), protocol.socket().transport());
            let Some(number) = gateway.bound_port(transport, listener.port) else { continue };
            let public_port = (number != listener.port).then_some(listener.port);
            for address in &gateway.addresses {
                let socket = sockets.entry((*address, number, transport));
                let empty =
                    || Port { address: *address, port: number, public_port, protocol, listeners: Vec::new() };
                socket.or_insert_with(empty).listeners.push(entry.clone());
            }
        }
    }
    let mut ports: Vec<_> = sockets.into_values().collect();
    for port in &mut ports {
        port.listeners.sort_by(|left, right| left.id.cmp(&right.id));
    }
    ports
}

fn to_ir(
    gateway: &GatewayState<'_>,
    listener: &ListenerState<'_>,
    protocol: ListenerProtocol,
    policies: &PolicySet,
) -> Listener {
    let mut attached = policies.attached(&TargetKey::Gateway(gateway.name.clone(), None));
    let section = Some(listener.id.name.clone());
    match &listener.id.set {
        None => attached.append(policies.attached(&TargetKey::Gateway(gateway.name.clone(), section))),
        Some(set) => {
            attached.append(policies.attached(&TargetKey::ListenerSet(set.clone(), None)));
            attached.append(policies.attached(&TargetKey::ListenerSet(set.clone(), section)));
        }
    }
    Listener {
        id: listener.id.clone(),
        protocol,
        hostname: listener.hostname.clone(),
        certificates: listener.certificates.clone(),
        client_validation: listener.clients.clone(),
        client_certificate: gateway.client_certificate.clone(),
        policies: attached,
        routes: listener.attachments.clone(),
    }
}
