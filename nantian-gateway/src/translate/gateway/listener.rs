//! One listener of a Gateway: what it accepts and what is wrong with it.

use gateway_api::experimental::gateways::{Gateway, GatewayListeners, GatewayListenersTlsMode};

use nantian_crd::GATEWAY_API_GROUP;

use super::{certificate, clients::Clients, namespaces::NamespaceFilter};
use crate::{
    ir::{
        Attachment, Certificate, ClientValidation, HostPattern, ListenerId, ListenerProtocol, ObjectName,
        RouteKind, SocketProtocol,
    },
    translate::{
        cluster_state::ClusterState,
        conditions::Reason,
        fault::{Fault, Faults, Path},
        grants::GroupKind,
        hostname,
    },
};

/// A listener on its way to the intermediate representation.
pub(in crate::translate) struct ListenerState<'a> {
    pub(in crate::translate) id: ListenerId,
    pub(in crate::translate) port: u16,
    /// `None` if the protocol is not served.
    pub(in crate::translate) protocol: Option<ListenerProtocol>,
    pub(in crate::translate) hostname: HostPattern,
    /// The kinds of routes that may attach.
    pub(in crate::translate) kinds: Vec<RouteKind>,
    pub(in crate::translate) namespaces: NamespaceFilter<'a>,
    pub(in crate::translate) certificates: Vec<Certificate>,
    /// What its clients have to prove.
    pub(in crate::translate) clients: Option<ClientValidation>,
    /// Why the listener is not accepted.
    pub(in crate::translate) refused: Faults,
    /// References that do not resolve.
    pub(in crate::translate) unresolved: Faults,
    /// A clash with another listener of the same Gateway or its ListenerSets, or with one of an older
    /// Gateway.
    pub(in crate::translate) conflict: Option<Fault>,
    /// The routes that it accepts.
    pub(in crate::translate) attachments: Vec<Attachment>,
}

// === impl ListenerParent ===

impl ListenerParent<'_> {
    fn kind(&self) -> GroupKind<'static> {
        if self.set.is_some() { GroupKind::LISTENER_SET } else { GroupKind::GATEWAY }
    }

    fn namespace(&self) -> &str {
        &self.set.unwrap_or(self.gateway).namespace
    }
}

// === impl ListenerState ===

impl ListenerState<'_> {
    /// Whether nothing but its Gateway could keep the listener from serving requests.
    pub(in crate::translate) fn is_servable(&self) -> bool {
        self.is_accepted() && !self.kinds.is_empty() && self.has_needed_certificates()
    }

    pub(in crate::translate) fn is_accepted(&self) -> bool {
        self.refused.is_empty() && self.conflict.is_none()
    }

    fn has_needed_certificates(&self) -> bool {
        !self.protocol.is_some_and(ListenerProtocol::ends_tls) || !self.certificates.is_empty()
    }
}

/// Who declares listeners, and where they are served.
pub(super) struct ListenerParent<'a> {
    pub(super) gateway: &'a ObjectName,
    pub(super) spec: &'a Gateway,
    /// The ListenerSet, unless it is the Gateway itself.
    pub(super) set: Option<&'a ObjectName>,
}

/// Reads listeners, each by itself.
pub(super) fn read<'a>(
    cluster: &ClusterState<'_>,
    declarer: &ListenerParent<'_>,
    specs: &'a [GatewayListeners],
) -> Vec<ListenerState<'a>> {
    let root = Path::SPEC.field("listeners");
    let mut listeners: Vec<ListenerState<'a>> = Vec::new();
    for (index, spec) in specs.iter().enumerate() {
        let path = root.index(index);
        let mut listener = read_one(cluster, declarer, spec, &path);
        if listeners.iter().any(|earlier| earlier.id == listener.id) {
            let message = format!("{:?} is the name of an earlier listener", spec.name);
            listener.refused.push(Fault::unsupported(&path.field("name"), message));
        }
        if listener.protocol == Some(ListenerProtocol::Https) {
            let clients = Clients::of_port(cluster, declarer.gateway, declarer.spec, spec.port);
            listener.clients = clients.validation;
            listener.refused.extend(clients.refused);
            listener.unresolved.extend(clients.unresolved);
        }
        listeners.push(listener);
    }
    listeners
}

fn read_one<'a>(
    cluster: &ClusterState<'_>,
    declarer: &ListenerParent<'_>,
    spec: &'a GatewayListeners,
    path: &Path<'_>,
) -> ListenerState<'a> {
    let mut refused = Faults::default();
    let mut unresolved = Faults::default();
    let protocol = refused.keep(protocol(spec, path));
    let port = refused.keep(port(spec, path)).unwrap_or_default();
    let hostname = refused.keep(host(spec, path)).unwrap_or_default();
    let namespaces =
        refused.keep(NamespaceFilter::read(declarer.namespace(), spec, path)).unwrap_or_default();
    let kinds = protocol.map(|protocol| kinds(protocol, spec, path, &mut unresolved)).unwrap_or_default();
    if let Some(protocol) = protocol {
        refuse_the_misplaced(protocol, spec, path, &mut refused);
    }
    let certificates = match protocol {
        Some(protocol) if protocol.ends_tls() => certificates(cluster, declarer, spec, path, &mut unresolved),
        _ => Vec::new(),
    };
    // It keeps a ListenerSet from being accepted, whatever else it may wait for.
    unresolved.begin_with(Reason::RefNotPermitted);
    ListenerState {
        id: ListenerId {
            gateway: declarer.gateway.clone(),
            set: declarer.set.cloned(),
            name: spec.name.clone(),
        },
        port,
        protocol,
        hostname,
        kinds,
        namespaces,
        certificates,
        clients: None,
        refused,
        unresolved,
        conflict: None,
        attachments: Vec::new(),
    }
}

fn protocol(spec: &GatewayListeners, path: &Path<'_>) -> Result<ListenerProtocol, Fault> {
    match spec.protocol.as_str() {
        "HTTP" => Ok(ListenerProtocol::Http),
        "HTTPS" => Ok(ListenerProtocol::Https),
        "TLS" if is_passed_through(spec) => Ok(ListenerProtocol::TlsPassthrough),
        "TLS" => Ok(ListenerProtocol::Tls),
        "TCP" => Ok(ListenerProtocol::Tcp),
        "UDP" => Ok(ListenerProtocol::Udp),
        other => {
            let message = format!("{other:?} is not served, only HTTP, HTTPS, TLS, TCP and UDP are");
            Err(Fault::at(Reason::UnsupportedProtocol, path.field("protocol"), message))
        }
    }
}

fn port(spec: &GatewayListeners, path: &Path<'_>) -> Result<u16, Fault> {
    match u16::try_from(spec.port) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Fault::unsupported(&path.field("port"), format_args!("{} is not in 1..=65535", spec.port))),
    }
}

fn host(spec: &GatewayListeners, path: &Path<'_>) -> Result<HostPattern, Fault> {
    match spec.hostname.as_deref() {
        None | Some("") => Ok(HostPattern::Any),
        Some(text) => hostname::pattern(text).ok_or_else(|| {
            Fault::unsupported(&path.field("hostname"), format_args!("{text:?} is not a host name"))
        }),
    }
}

fn is_passed_through(spec: &GatewayListeners) -> bool {
    spec.tls.as_ref().is_some_and(|tls| tls.mode == Some(GatewayListenersTlsMode::Passthrough))
}

/// Refuses fields that mean nothing with the protocol.
fn refuse_the_misplaced(
    protocol: ListenerProtocol,
    spec: &GatewayListeners,
    path: &Path<'_>,
    refused: &mut Faults,
) {
    if protocol.socket() != SocketProtocol::Tls && spec.tls.is_some() {
        let message = format!("protocol {protocol} has no TLS");
        refused.push(Fault::unsupported(&path.field("tls"), message));
    }
    if matches!(protocol, ListenerProtocol::Tcp | ListenerProtocol::Udp) && spec.hostname.is_some() {
        let message = format!("protocol {protocol} has no host names");
        refused.push(Fault::unsupported(&path.field("hostname"), message));
    }
    let path = path.field("tls");
    if protocol == ListenerProtocol::Https && is_passed_through(spec) {
        let message = "\"Passthrough\" is not possible with protocol HTTPS, only Terminate is";
        refused.push(Fault::unsupported(&path.field("mode"), message));
    }
    let options = spec.tls.as_ref().and_then(|tls| tls.options.as_ref());
    if let Some(option) = options.and_then(|options| options.keys().next()) {
        let message = format!("{option:?} is not supported, no option is");
        refused.push(Fault::unsupported(&path.field("options"), message));
    }
}

/// The kinds of routes that are asked for; those that the protocol does not serve are unresolved references.
fn kinds(
    protocol: ListenerProtocol,
    spec: &GatewayListeners,
    path: &Path<'_>,
    unresolved: &mut Faults,
) -> Vec<RouteKind> {
    let asked = spec.allowed_routes.as_ref().and_then(|allowed| allowed.kinds.as_deref()).unwrap_or_default();
    if asked.is_empty() {
        return protocol.routes().to_vec();
    }
    let mut kinds = Vec::new();
    let path = path.field("allowedRoutes");
    let path = path.field("kinds");
    for (index, asked) in asked.iter().enumerate() {
        let asked = GroupKind::new(asked.group.as_deref().unwrap_or(GATEWAY_API_GROUP), &asked.kind);
        match protocol.routes().iter().find(|kind| GroupKind::of_route(**kind) == asked) {
            Some(kind) if kinds.contains(kind) => {}
            Some(kind) => kinds.push(*kind),
            None => {
                let served: Vec<_> = protocol.routes().iter().map(|kind| kind.as_str()).collect();
                let served = served.join(" and ");
                let message = format!("{asked} is not served with protocol {protocol}, which has {served}");
                unresolved.push(Fault::at(Reason::InvalidRouteKinds, path.index(index), message));
            }
        }
    }
    kinds
}

fn certificates(
    cluster: &ClusterState<'_>,
    declarer: &ListenerParent<'_>,
    spec: &GatewayListeners,
    path: &Path<'_>,
    unresolved: &mut Faults,
) -> Vec<Certificate> {
    let path = path.field("tls");
    let path = path.field("certificateRefs");
    let refs = spec.tls.as_ref().and_then(|tls| tls.certificate_refs.as_deref()).unwrap_or_default();
    if refs.is_empty() {
        let message = format!("protocol {} needs a certificate", spec.protocol);
        unresolved.push(Fault::at(Reason::InvalidCertificateRef, path, message));
    }
    let refs = refs.iter().enumerate();
    refs.filter_map(|(index, reference)| {
        let from = (declarer.kind(), declarer.namespace());
        let (reference, bad) = (certificate::reference!(reference), Reason::InvalidCertificateRef);
        unresolved.keep(certificate::resolve(cluster, from, &reference, bad, &path.index(index)))
    })
    .collect()
}
