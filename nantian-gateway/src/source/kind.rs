//! Which kinds the gateway reads, and what to say about the others.

use nantian_crd::schema::suggest;

/// A kind that the gateway reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    GatewayClass,
    Gateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TlsRoute,
    TcpRoute,
    UdpRoute,
    ReferenceGrant,
    BackendTlsPolicy,
    Namespace,
    Service,
    EndpointSlice,
    Secret,
    ConfigMap,
    AiService,
    TokenPolicy,
    WasmPlugin,
    BackendLbPolicy,
}

/// How a kind is addressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct KindInfo {
    /// The name in `kind`.
    pub(super) name: &'static str,
    /// The API group; empty for the core group.
    pub(super) group: &'static str,
    /// The versions whose fields the gateway knows; the first is the one it reads.
    pub(super) versions: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub(super) is_namespaced: bool,
}

/// What an `apiVersion` and a `kind` stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A kind that the gateway reads.
    Read(Kind),
    /// A kind of someone else.
    Skipped,
    /// A kind of the Gateway API that the gateway does not serve.
    Unserved,
    /// A slip: the field that is wrong, and the reason.
    Slip(&'static str, String),
}

const GATEWAY_API: &str = "gateway.networking.k8s.io";
const NANTIAN: &str = "gateway.nantian.dev";

/// Kinds of the Gateway API that are not served: what a ReferenceGrant was called before.
const NOT_SERVED: [&str; 1] = ["ReferencePolicy"];

// === impl Kind ===

impl Kind {
    /// Every kind that is read.
    pub(super) const ALL: [Self; 19] = [
        Self::GatewayClass,
        Self::Gateway,
        Self::ListenerSet,
        Self::HttpRoute,
        Self::GrpcRoute,
        Self::TlsRoute,
        Self::TcpRoute,
        Self::UdpRoute,
        Self::ReferenceGrant,
        Self::BackendTlsPolicy,
        Self::Namespace,
        Self::Service,
        Self::EndpointSlice,
        Self::Secret,
        Self::ConfigMap,
        Self::AiService,
        Self::TokenPolicy,
        Self::WasmPlugin,
        Self::BackendLbPolicy,
    ];

    /// How the kind is addressed.
    pub(super) const fn info(self) -> KindInfo {
        let (name, group, versions, is_namespaced): (_, _, &[_], _) = match self {
            Self::GatewayClass => ("GatewayClass", GATEWAY_API, &["v1", "v1beta1"], false),
            Self::Gateway => ("Gateway", GATEWAY_API, &["v1", "v1beta1"], true),
            Self::ListenerSet => ("ListenerSet", GATEWAY_API, &["v1"], true),
            Self::HttpRoute => ("HTTPRoute", GATEWAY_API, &["v1", "v1beta1"], true),
            Self::GrpcRoute => ("GRPCRoute", GATEWAY_API, &["v1"], true),
            Self::TlsRoute => ("TLSRoute", GATEWAY_API, &["v1", "v1alpha3"], true),
            Self::TcpRoute => ("TCPRoute", GATEWAY_API, &["v1", "v1alpha2"], true),
            Self::UdpRoute => ("UDPRoute", GATEWAY_API, &["v1", "v1alpha2"], true),
            Self::ReferenceGrant => ("ReferenceGrant", GATEWAY_API, &["v1", "v1beta1"], true),
            Self::BackendTlsPolicy => ("BackendTLSPolicy", GATEWAY_API, &["v1"], true),
            Self::Namespace => ("Namespace", "", &["v1"], false),
            Self::Service => ("Service", "", &["v1"], true),
            Self::EndpointSlice => ("EndpointSlice", "discovery.k8s.io", &["v1"], true),
            Self::Secret => ("Secret", "", &["v1"], true),
            Self::ConfigMap => ("ConfigMap", "", &["v1"], true),
            Self::AiService => ("AIService", NANTIAN, &["v1alpha1"], true),
            Self::TokenPolicy => ("TokenPolicy", NANTIAN, &["v1alpha1"], true),
            Self::WasmPlugin => ("WasmPlugin", NANTIAN, &["v1alpha1"], true),
            Self::BackendLbPolicy => ("BackendLBPolicy", GATEWAY_API, &["v1alpha2"], true),
        };
        KindInfo { name, group, versions, is_namespaced }
    }

    /// Whether the kind is one of the four of this project.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::AiService | Self::TokenPolicy | Self::WasmPlugin | Self::BackendLbPolicy)
    }

    /// Whether the name of an object has to be one DNS label, for other names are made of it.
    pub(super) const fn is_named_by_a_label(self) -> bool {
        matches!(self, Self::Namespace | Self::Service)
    }
}

// === impl KindInfo ===

impl KindInfo {
    /// The `apiVersion` that the gateway reads.
    pub(super) fn api_version(&self) -> String {
        self.versions.first().map_or_else(String::new, |version| self.api_version_of(version))
    }

    pub(super) fn api_version_of(&self, version: &str) -> String {
        if self.group.is_empty() { version.to_owned() } else { format!("{}/{version}", self.group) }
    }
}

// === impl Meaning ===

impl Meaning {
    /// Looks up what a document claims to be.
    pub(super) fn of(api_version: &str, kind: &str) -> Self {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        let named: Vec<_> = Kind::ALL.into_iter().filter(|candidate| candidate.info().name == kind).collect();
        match named.iter().find(|candidate| candidate.info().group == group) {
            Some(found) if found.info().versions.contains(&version) => Self::Read(*found),
            Some(found) => Self::Slip("apiVersion", wrong_version(api_version, found.info())),
            None if group == GATEWAY_API || group == NANTIAN => unknown_kind(group, kind),
            None => match named.first() {
                Some(named) if is_likely_typo(group, named.info().group) => {
                    Self::Slip("apiVersion", wrong_version(api_version, named.info()))
                }
                _ => Self::Skipped,
            },
        }
    }
}

fn wrong_version(found: &str, info: KindInfo) -> String {
    let versions: Vec<_> = info.versions.iter().map(|version| info.api_version_of(version)).collect();
    format!("{found:?} has no {}; allowed: {}", info.name, versions.join(", "))
}

/// Whether `group` was written where `meant` was meant: a typing error, or a group that belongs to
/// Kubernetes.
///
/// Other groups have kinds of the same names (a Service of Knative, a Gateway of Istio), which are none of
/// our business.
fn is_likely_typo(group: &str, meant: &str) -> bool {
    ["", "apps", "discovery.k8s.io", "networking.k8s.io"].contains(&group)
        || suggest(group, [meant]).is_some()
}

fn unknown_kind(group: &str, kind: &str) -> Meaning {
    if group == GATEWAY_API && NOT_SERVED.contains(&kind) {
        return Meaning::Unserved;
    }
    let read = Kind::ALL.into_iter().map(Kind::info).filter(|info| info.group == group).map(|info| info.name);
    let others = NOT_SERVED.into_iter().filter(|_| group == GATEWAY_API);
    let known: Vec<_> = read.chain(others).collect();
    let hint = match suggest(kind, known.iter().copied()) {
        Some(suggestion) => format!("did you mean {suggestion:?}?"),
        None => format!("known are {}", known.join(", ")),
    };
    Meaning::Slip("kind", format!("{kind:?} is no kind of {group}; {hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_group_and_version() {
        for api_version in ["gateway.networking.k8s.io/v1", "gateway.networking.k8s.io/v1beta1"] {
            assert_eq!(Meaning::of(api_version, "HTTPRoute"), Meaning::Read(Kind::HttpRoute));
        }
        assert_eq!(Meaning::of("v1", "Service"), Meaning::Read(Kind::Service));
        assert_eq!(Meaning::of("discovery.k8s.io/v1", "EndpointSlice"), Meaning::Read(Kind::EndpointSlice));
    }

    #[test]
    fn kinds_of_others_are_skipped_even_under_a_familiar_name() {
        for (api_version, kind) in [
            ("apps/v1", "Deployment"),
            ("v1", "ServiceAccount"),
            ("serving.knative.dev/v1", "Service"),
            ("networking.istio.io/v1", "Gateway"),
        ] {
            assert_eq!(Meaning::of(api_version, kind), Meaning::Skipped, "{api_version} {kind}");
        }
    }

    #[test]
    fn kinds_of_the_gateway_api_that_are_not_served_are_told_from_those_of_others() {
        for kind in NOT_SERVED {
            assert_eq!(Meaning::of("gateway.networking.k8s.io/v1", kind), Meaning::Unserved, "{kind}");
        }
    }

    #[test]
    fn a_slip_is_named_with_what_was_meant() {
        for (api_version, kind, field, reason) in [
            (
                "gateway.networking.k8s.io/v1",
                "HttpRoute",
                "kind",
                r#""HttpRoute" is no kind of gateway.networking.k8s.io; did you mean "HTTPRoute"?"#,
            ),
            (
                "gateway.nantian.dev/v1alpha1",
                "Cache",
                "kind",
                r#""Cache" is no kind of gateway.nantian.dev; known are AIService, TokenPolicy, WasmPlugin"#,
            ),
            (
                "gateway.networking.k8s.io/v1alpha2",
                "HTTPRoute",
                "apiVersion",
                r#""gateway.networking.k8s.io/v1alpha2" has no HTTPRoute; allowed: gateway.networking.k8s.io/v1, gateway.networking.k8s.io/v1beta1"#,
            ),
            (
                "gateway.nantain.dev/v1alpha1",
                "TokenPolicy",
                "apiVersion",
                r#""gateway.nantain.dev/v1alpha1" has no TokenPolicy; allowed: gateway.nantian.dev/v1alpha1"#,
            ),
            (
                "v1",
                "HTTPRoute",
                "apiVersion",
                r#""v1" has no HTTPRoute; allowed: gateway.networking.k8s.io/v1, gateway.networking.k8s.io/v1beta1"#,
            ),
        ] {
            assert_eq!(Meaning::of(api_version, kind), Meaning::Slip(field, reason.to_owned()));
        }
    }
}
