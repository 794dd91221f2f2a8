//! Gateway: sockets and listeners.

mod certificate;
mod clash;
mod listener;
mod namespaces;
mod placement;
mod ports;
mod report;

use std::{collections::HashMap, net::IpAddr};

use gateway_api::experimental::gateways::Gateway;

pub(crate) use self::certificate::fault as certificate_fault;
use self::placement::Placed;
pub(super) use self::{listener::ListenerState, ports::ports, report::report};
use super::{
    conditions::Reason,
    fault::{Fault, Faults, Path},
    gateway_class::Classes,
    grants::GroupKind,
    world::{Report, World, oldest_first},
};
use crate::{
    ir::{Certificate, ListenerId, ListenerProtocol, ObjectName, SocketProtocol, Transport},
    source::ObjectRef,
};

/// The Gateways that are ours, oldest first.
pub(super) struct Gateways<'a> {
    list: Vec<GatewayState<'a>>,
    by_name: HashMap<&'a ObjectName, usize>,
}

/// A Gateway on its way to the intermediate representation.
pub(super) struct GatewayState<'a> {
    pub(super) name: &'a ObjectName,
    pub(super) generation: Option<i64>,
    /// What is wrong with the Gateway as a whole; none of its listeners is served then.
    pub(super) verdict: Result<(), Fault>,
    /// The addresses to bind; `None` is all interfaces. Never empty.
    pub(super) addresses: Vec<Option<IpAddr>>,
    placed: Placed<'a>,
    pub(super) listeners: Vec<ListenerState<'a>>,
    /// What is presented to backends.
    pub(super) client_certificate: Option<Certificate>,
    /// What is wrong with the references of the Gateway itself, if it has any.
    pub(super) references: Option<Faults>,
}

// === impl Gateways ===

impl<'a> Gateways<'a> {
    /// Reads every Gateway whose class is ours.
    pub(super) fn read(world: &World<'a>, classes: &Classes<'_>, report: &mut Report) -> Self {
        let mut list = Vec::new();
        for (name, gateway) in oldest_first(&world.objects.gateways) {
            let object = ObjectRef { kind: "Gateway", name: name.clone() };
            match classes.get(&gateway.spec.gateway_class_name) {
                Some(class) => {
                    warn_of_the_unserved(&object, gateway, report);
                    list.push(GatewayState::read(world, name, gateway, class));
                }
                None => warn_of_an_absent_class(world, &object, gateway, report),
            }
        }
        clash::between_gateways(&mut list);
        let by_name = list.iter().enumerate().map(|(index, gateway)| (gateway.name, index)).collect();
        Self { list, by_name }
    }

    pub(super) fn get(&self, name: &ObjectName) -> Option<&GatewayState<'a>> {
        self.list.get(*self.by_name.get(name)?)
    }

    pub(super) fn get_mut(&mut self, name: &ObjectName) -> Option<&mut GatewayState<'a>> {
        self.list.get_mut(*self.by_name.get(name)?)
    }

    /// The listeners that serve requests, as opposed to connections and datagrams.
    pub(super) fn served(&self) -> impl Iterator<Item = &ListenerId> {
        self.list.iter().flat_map(|gateway| {
            let served = gateway.listeners.iter().filter(|listener| gateway.serves(listener));
            served
                .filter(|listener| listener.kinds.iter().any(|kind| kind.is_http()))
                .map(|listener| &listener.id)
        })
    }

    /// All of them, oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &GatewayState<'a>> {
        self.list.iter()
    }
}

// === impl GatewayState ===

impl<'a> GatewayState<'a> {
    fn read(
        world: &World<'a>,
        name: &'a ObjectName,
        gateway: &'a Gateway,
        class: &Result<(), Fault>,
    ) -> Self {
        let (addresses, bindable) = match addresses(gateway) {
            Ok(addresses) => (addresses, Ok(())),
            Err(fault) => (vec![None], Err(fault)),
        };
        let placed = match addresses.as_slice() {
            [None] => Placed::find(&world.objects.placements, name),
            _ => Placed::AsAsked,
        };
        let verdict = class_verdict(gateway, class).and_then(|()| parameters(gateway)).and(bindable);
        let mut listeners = listener::read(world, name, gateway);
        clash::within_gateway(&mut listeners);
        let (client_certificate, references) = client_certificate(world, name, gateway);
        let generation = gateway.metadata.generation;
        Self { name, generation, verdict, addresses, placed, listeners, client_certificate, references }
    }

    /// Whether this listener of the Gateway serves requests.
    pub(super) fn serves(&self, listener: &ListenerState<'_>) -> bool {
        let protocol = listener.protocol.map(ListenerProtocol::socket);
        let is_bound = |transport| self.bound_port(transport, listener.port).is_some();
        self.verdict.is_ok()
            && listener.is_servable()
            && protocol.map(SocketProtocol::transport).is_some_and(is_bound)
    }

    /// The port to bind for a listener's port; `None` as long as nobody has said which.
    fn bound_port(&self, transport: Transport, port: u16) -> Option<u16> {
        placement::bound_port(self.placed, transport, port)
    }
}

/// The certificate for backends, and what is wrong with it; neither if none is asked for.
fn client_certificate(
    world: &World<'_>,
    name: &ObjectName,
    gateway: &Gateway,
) -> (Option<Certificate>, Option<Faults>) {
    let backend = gateway.spec.tls.as_ref().and_then(|tls| tls.backend.as_ref());
    let Some(reference) = backend.and_then(|backend| backend.client_certificate_ref.as_ref()) else {
        return (None, None);
    };
    let path = Path::SPEC.field("tls");
    let path = path.field("backend");
    let path = path.field("clientCertificateRef");
    let from = (GroupKind::GATEWAY, name.namespace.as_str());
    let (reference, bad) = (certificate::reference!(reference), Reason::InvalidClientCertificateRef);
    let mut faults = Faults::default();
    let found = faults.keep(certificate::resolve(world, from, &reference, bad, &path));
    (found, Some(faults))
}

fn class_verdict(gateway: &Gateway, class: &Result<(), Fault>) -> Result<(), Fault> {
    let name = &gateway.spec.gateway_class_name;
    class
        .clone()
        .map_err(|fault| Fault::new(fault.reason, format!("GatewayClass {name}: {}", fault.message())))
}

fn parameters(gateway: &Gateway) -> Result<(), Fault> {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    if infrastructure.is_some_and(|infrastructure| infrastructure.parameters_ref.is_some()) {
        let path = Path::SPEC.field("infrastructure");
        let message = "no kind of parameters is supported";
        return Err(Fault::at(Reason::InvalidParameters, path.field("parametersRef"), message));
    }
    Ok(())
}

/// The addresses to bind. An entry without a value leaves the choice to the gateway.
fn addresses(gateway: &Gateway) -> Result<Vec<Option<IpAddr>>, Fault> {
    let root = Path::SPEC.field("addresses");
    let mut addresses = Vec::new();
    for (index, address) in gateway.spec.addresses.iter().flatten().enumerate() {
        let path = root.index(index);
        let unsupported =
            |field, message: String| Fault::at(Reason::UnsupportedAddress, path.field(field), message);
        match address.r#type.as_deref() {
            None | Some("IPAddress") => {}
            Some(other) => {
                return Err(unsupported("type", format!("{other:?} is not supported, only IPAddress is")));
            }
        }
        let value = address.value.as_deref().filter(|value| !value.is_empty());
        let parsed = value.map(str::parse).transpose();
        let parsed = parsed.map_err(|_| {
            unsupported("value", format!("{:?} is not an IP address", value.unwrap_or_default()))
        })?;
        if !addresses.contains(&parsed) {
            addresses.push(parsed);
        }
    }
    // A socket on all interfaces covers every single address.
    if addresses.is_empty() || addresses.contains(&None) {
        addresses = vec![None];
    }
    Ok(addresses)
}

/// Fields that change nothing in what is served, so that they are no reason to refuse the Gateway.
fn warn_of_the_unserved(object: &ObjectRef, gateway: &Gateway, report: &mut Report) {
    let spec = &gateway.spec;
    if spec.allowed_listeners.is_some() {
        report.warn(object, "spec.allowedListeners: ListenerSets are not served");
    }
    if spec.default_scope.is_some() {
        report.warn(
            object,
            "spec.defaultScope: default Gateways are not served, a route has to name its parent",
        );
    }
}

fn warn_of_an_absent_class(world: &World<'_>, object: &ObjectRef, gateway: &Gateway, report: &mut Report) {
    let class = &gateway.spec.gateway_class_name;
    if !world.objects.gateway_classes.contains_key(&ObjectName::new("", class.as_str())) {
        report.warn(object, format!("spec.gatewayClassName: GatewayClass {class} does not exist"));
    }
}
