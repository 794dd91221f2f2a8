//! Gateway: sockets and listeners.

mod addresses;
mod certificate;
mod clash;
mod clients;
mod listener;
mod namespaces;
mod placement;
mod ports;
mod report;
mod set;

use std::{collections::HashMap, net::IpAddr};

#[cfg(feature = "kubernetes")]
use gateway_api::experimental::gatewayclasses::GatewayClass;
use gateway_api::experimental::gateways::Gateway;

#[cfg(feature = "kubernetes")]
pub(crate) use self::set::added_listeners;
pub(crate) use self::{
    addresses::{asked_addresses, asked_of_service},
    certificate::fault as certificate_fault,
};
use self::{listener::ListenerParent, placement::Placed, set::SetState};
pub(super) use self::{
    listener::ListenerState,
    ports::ports,
    report::report,
    set::{ListenerSets, parent},
};
use super::{
    cluster_state::{ClusterState, Report, oldest_first},
    conditions::Reason,
    fault::{Fault, Faults, Path},
    gateway_class::Classes,
    grants::GroupKind,
};
use crate::{
    ir::{Certificate, ListenerId, ListenerProtocol, ObjectName, SocketProtocol, Transport},
    source::{ObjectRef, Placements},
};

/// The Gateways that are ours, oldest first.
pub(super) struct Gateways<'a> {
    list: Vec<GatewayState<'a>>,
    by_name: HashMap<&'a ObjectName, usize>,
    /// The Gateway of each ListenerSet, and the place of the set in it.
    sets: HashMap<&'a ObjectName, (usize, usize)>,
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
    /// Its own, then those of its ListenerSets.
    pub(super) listeners: Vec<ListenerState<'a>>,
    /// Its ListenerSets, oldest first.
    pub(super) sets: Vec<SetState<'a>>,
    /// Whether clients without a valid certificate are served on some port.
    pub(super) may_fall_back: bool,
    /// What is presented to backends.
    pub(super) client_certificate: Option<Certificate>,
    /// What is wrong with the references of the Gateway itself, if it has any.
    pub(super) references: Option<Faults>,
}

// === impl Gateways ===

impl<'a> Gateways<'a> {
    /// Reads every Gateway whose class is ours.
    pub(super) fn read(
        cluster: &ClusterState<'a>,
        classes: &Classes<'_>,
        sets: &'a ListenerSets<'a>,
        report: &mut Report,
    ) -> Self {
        let mut list = Vec::new();
        for (name, gateway) in oldest_first(&cluster.objects.gateways) {
            let object = ObjectRef { kind: "Gateway", name: name.clone() };
            match classes.get(&gateway.spec.gateway_class_name) {
                Some(class) => {
                    warn_of_the_unserved(&object, gateway, report);
                    list.push(GatewayState::read(cluster, name, gateway, class, sets));
                }
                None => warn_of_an_absent_class(cluster, &object, gateway, report),
            }
        }
        clash::between_gateways(cluster, &mut list);
        let by_name = list.iter().enumerate().map(|(index, gateway)| (gateway.name, index)).collect();
        let sets = list.iter().enumerate().flat_map(|(index, gateway): (_, &GatewayState<'a>)| {
            gateway.sets.iter().enumerate().map(move |(place, set)| (set.name, (index, place)))
        });
        let sets = sets.collect();
        Self { list, by_name, sets }
    }

    /// The Gateway of a ListenerSet, and what it makes of it; `None` if the Gateway is none of ours.
    pub(super) fn of_set(&self, name: &ObjectName) -> Option<(&GatewayState<'a>, &SetState<'a>)> {
        let (gateway, set) = self.sets.get(name)?;
        let gateway = self.list.get(*gateway)?;
        Some((gateway, gateway.sets.get(*set)?))
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
        cluster: &ClusterState<'a>,
        name: &'a ObjectName,
        gateway: &'a Gateway,
        class: &Result<(), Fault>,
        sets: &'a ListenerSets<'a>,
    ) -> Self {
        let (asked, bindable) = match asked(gateway, &cluster.objects.placements) {
            Ok(asked) => (asked, Ok(())),
            Err(fault) => (Vec::new(), Err(fault)),
        };
        let placed = Placed::find(&cluster.objects.placements, name, &asked);
        let addresses = match placed {
            _ if asked.is_empty() => vec![None],
            Placed::InFront { .. } => vec![None],
            _ => asked.into_iter().map(Some).collect(),
        };
        let verdict = class_verdict(gateway, class).and_then(|()| parameters(gateway)).and(bindable);
        let own = ListenerParent { gateway: name, spec: gateway, set: None };
        let mut listeners = listener::read(cluster, &own, &gateway.spec.listeners);
        clash::within_gateway(&mut listeners);
        let first = listeners.len();
        let mut states = Vec::new();
        for set in sets.of(name) {
            let admitted = set::admit(cluster.objects, (name, gateway), set.name);
            let accepted = verdict.as_ref().map_err(|fault| {
                let message = format!("Gateway {name} is not accepted: {}", fault.message());
                Fault::at(Reason::ParentNotAccepted, Path::SPEC.field("parentRef"), message)
            });
            let verdict = admitted.and(accepted.map(|&()| ()));
            if verdict.is_ok() {
                let declarer = ListenerParent { set: Some(set.name), ..own };
                listeners.extend(listener::read(cluster, &declarer, &set.listeners));
            }
            states.push(SetState { name: set.name, generation: set.generation, verdict });
        }
        clash::with_earlier(&mut listeners, first);
        let may_fall_back = clients::may_fall_back(gateway);
        let (client_certificate, references) = client_certificate(cluster, name, gateway);
        let generation = gateway.metadata.generation;
        Self {
            name,
            generation,
            verdict,
            addresses,
            placed,
            listeners,
            sets: states,
            may_fall_back,
            client_certificate,
            references,
        }
    }

    /// The listeners that the Gateway itself, or one of its ListenerSets, declares.
    pub(super) fn declared_by<'s>(
        &'s self,
        set: Option<&'s ObjectName>,
    ) -> impl Iterator<Item = (usize, &'s ListenerState<'a>)> {
        let listeners = self.listeners.iter().enumerate();
        listeners.filter(move |(_, listener)| listener.id.set.as_ref() == set)
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
    cluster: &ClusterState<'_>,
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
    let found = faults.keep(certificate::resolve(cluster, from, &reference, bad, &path));
    (found, Some(faults))
}

fn class_verdict(gateway: &Gateway, class: &Result<(), Fault>) -> Result<(), Fault> {
    let name = &gateway.spec.gateway_class_name;
    class
        .clone()
        .map_err(|fault| Fault::new(fault.reason, format!("GatewayClass {name}: {}", fault.message())))
}

/// Whether a Gateway of this class is refused for parameters, of its own or of the class.
#[cfg(feature = "kubernetes")]
pub(crate) fn has_parameters(gateway: &Gateway, class: &GatewayClass) -> bool {
    parameters(gateway).is_err() || class.spec.parameters_ref.is_some()
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

/// The addresses that a Gateway asks for, of whoever can give it one; any will do where there are none.
fn asked(gateway: &Gateway, placements: &Placements) -> Result<Vec<IpAddr>, Fault> {
    let asked = match placements {
        Placements::InFront(_) => asked_of_service(gateway).map(|asked| asked.into_iter().collect()),
        _ => asked_addresses(gateway),
    };
    asked.map_err(|error| Fault::of_policy(Reason::UnsupportedAddress, &error))
}

/// Fields that change nothing in what is served, so that they are no reason to refuse the Gateway.
fn warn_of_the_unserved(object: &ObjectRef, gateway: &Gateway, report: &mut Report) {
    let spec = &gateway.spec;
    if spec.default_scope.is_some() {
        report.warn(
            object,
            "spec.defaultScope: default Gateways are not served, a route has to name its parent",
        );
    }
}

fn warn_of_an_absent_class(
    cluster: &ClusterState<'_>,
    object: &ObjectRef,
    gateway: &Gateway,
    report: &mut Report,
) {
    let class = &gateway.spec.gateway_class_name;
    if !cluster.objects.gateway_classes.contains_key(&ObjectName::new("", class.as_str())) {
        report.warn(object, format!("spec.gatewayClassName: GatewayClass {class} does not exist"));
    }
}
