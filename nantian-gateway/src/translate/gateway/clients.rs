//! What a Gateway wants its clients to prove.

use gateway_api::experimental::gateways::{
    Gateway, GatewayTlsFrontendDefaultValidationMode as DefaultMode,
    GatewayTlsFrontendPerPortTlsValidationMode as PortMode,
};

use crate::{
    ir::{Authorities, ClientValidation, ObjectName},
    translate::{
        authorities,
        cluster_state::ClusterState,
        conditions::Reason,
        fault::{Fault, Faults, Path},
        grants::GroupKind,
    },
};

/// Validation of clients, read for one port.
#[derive(Default)]
pub(super) struct Clients {
    /// `None` is that they are not asked for a certificate.
    pub(super) validation: Option<ClientValidation>,
    /// Why nobody could be served.
    pub(super) refused: Option<Fault>,
    /// Authorities that are not to be had.
    pub(super) unresolved: Faults,
}

/// A reference to authorities.
struct Reference<'a> {
    kind: GroupKind<'a>,
    namespace: Option<&'a str>,
    name: &'a str,
}

/// Takes apart a validation, of which the Rust types have one for each place.
macro_rules! parts {
    ($spec:expr, $mode:ident) => {{
        let references = $spec.ca_certificate_refs.iter().map(|reference| Reference {
            kind: GroupKind::new(&reference.group, &reference.kind),
            namespace: reference.namespace.as_deref(),
            name: &reference.name,
        });
        (references.collect::<Vec<_>>(), $spec.mode == Some($mode::AllowInsecureFallback))
    }};
}

// === impl Clients ===

impl Clients {
    /// What is asked of the clients of an HTTPS listener on `port`.
    pub(super) fn of_port(
        cluster: &ClusterState<'_>,
        name: &ObjectName,
        gateway: &Gateway,
        port: i32,
    ) -> Self {
        let frontend = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref());
        let Some(frontend) = frontend else { return Self::default() };
        let path = Path::SPEC.field("tls");
        let path = path.field("frontend");
        let mut ports = frontend.per_port.iter().flatten().enumerate();
        match ports.find(|(_, entry)| entry.port == port) {
            Some((index, entry)) => {
                let Some(spec) = &entry.tls.validation else { return Self::default() };
                let path = path.field("perPort");
                let path = path.index(index);
                Self::read(cluster, name, parts!(spec, PortMode), &path.field("tls"))
            }
            None => {
                let Some(spec) = &frontend.default.validation else { return Self::default() };
                Self::read(cluster, name, parts!(spec, DefaultMode), &path.field("default"))
            }
        }
    }

    fn read(
        cluster: &ClusterState<'_>,
        gateway: &ObjectName,
        (references, insecure_fallback): (Vec<Reference<'_>>, bool),
        path: &Path<'_>,
    ) -> Self {
        let path = path.field("validation");
        let path = path.field("caCertificateRefs");
        let mut authorities = Authorities::default();
        let mut unresolved = Faults::default();
        for (index, reference) in references.iter().enumerate() {
            let path = path.index(index);
            unresolved.keep(reference.resolve(cluster, gateway, &path, &mut authorities));
        }
        if authorities.certificates.is_empty() {
            let message = "none of them holds a certificate, so no client could be served";
            let refused = Some(Fault::at(Reason::NoValidCACertificate, path, message).absent());
            return Self { validation: None, refused, unresolved };
        }
        let validation = Some(ClientValidation { authorities, insecure_fallback });
        Self { validation, refused: None, unresolved }
    }
}

// === impl Reference ===

impl Reference<'_> {
    fn resolve(
        &self,
        cluster: &ClusterState<'_>,
        gateway: &ObjectName,
        path: &Path<'_>,
        authorities: &mut Authorities,
    ) -> Result<(), Fault> {
        let Self { kind, name, .. } = *self;
        if kind != GroupKind::CONFIG_MAP {
            let message = format!("{kind} is not supported, only ConfigMap is");
            return Err(Fault::at(Reason::InvalidCACertificateKind, path, message));
        }
        let own = gateway.namespace.as_str();
        let namespace = self.namespace.unwrap_or(own);
        cluster.grants.check((GroupKind::GATEWAY, own), (kind, namespace, name), path)?;
        authorities::add(cluster, ObjectName::new(namespace, name), path, authorities)
    }
}

/// Whether clients without a valid certificate are served on some port.
pub(super) fn may_fall_back(gateway: &Gateway) -> bool {
    let Some(frontend) = gateway.spec.tls.as_ref().and_then(|tls| tls.frontend.as_ref()) else {
        return false;
    };
    let default = frontend.default.validation.as_ref();
    let ports = frontend.per_port.iter().flatten().filter_map(|entry| entry.tls.validation.as_ref());
    default.is_some_and(|spec| spec.mode == Some(DefaultMode::AllowInsecureFallback))
        || ports.into_iter().any(|spec| spec.mode == Some(PortMode::AllowInsecureFallback))
}
