//! The kinds that the gateway reads, and one object of any of them.

use std::sync::Arc;

use gateway_api::backendtlspolicies::BackendTlsPolicy;
use gateway_api::experimental::{
    gatewayclasses::GatewayClass, gateways::Gateway, grpcroutes::GrpcRoute, httproutes::HttpRoute,
    listenersets::ListenerSet, referencegrants::ReferenceGrant, tcproutes::TcpRoute, tlsroutes::TlsRoute,
    udproutes::UdpRoute,
};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Secret, Service},
    discovery::v1::EndpointSlice,
};
use nantian_crd::{AiService, BackendLbPolicy, TokenPolicy, WasmPlugin};
use serde_json::Value;

use super::objects::Objects;
use crate::ir::ObjectName;

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

pub(super) const GATEWAY_API: &str = "gateway.networking.k8s.io";
pub(super) const NANTIAN: &str = "gateway.nantian.dev";

/// Writes once what has to be said for each kind: its Rust type, where its objects are, and its [`KindInfo`].
macro_rules! kinds {
    ($($kind:ident in $field:ident: $name:literal, $group:expr, $versions:expr, $is_namespaced:literal;)+) => {
        /// A kind that the gateway reads.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(super) enum Kind {
            $($kind),+
        }

        impl Kind {
            /// Every kind that is read.
            pub(super) const ALL: [Self; [$($name),+].len()] = [$(Self::$kind),+];

            /// How the kind is addressed.
            pub(super) const fn info(self) -> KindInfo {
                match self {
                    $(Self::$kind => KindInfo {
                        name: $name,
                        group: $group,
                        versions: &$versions,
                        is_namespaced: $is_namespaced,
                    }),+
                }
            }

            /// The schema of whole objects, as their Rust type has it.
            pub(super) fn document(self) -> Value {
                match self {
                    $(Self::$kind => nantian_crd::schema::resource::<$kind>()),+
                }
            }
        }

        /// One object of any kind that the gateway reads.
        #[derive(Debug, Clone)]
        pub(super) enum Object {
            $($kind(Arc<$kind>)),+
        }

        impl Object {
            /// Reads a value that has passed all checks.
            pub(super) fn read(kind: Kind, value: Value) -> Result<Self, serde_json::Error> {
                match kind {
                    $(Kind::$kind => serde_json::from_value(value).map(|object| Self::$kind(Arc::new(object)))),+
                }
            }

            /// Whether both say the same.
            pub(super) fn equals(&self, other: &Self) -> bool {
                match (self, other) {
                    $((Self::$kind(this), Self::$kind(that)) => Arc::ptr_eq(this, that) || this == that,)+
                    _ => false,
                }
            }
        }

        impl Objects {
            /// Adds an object, in place of the one of this name.
            pub(super) fn put(&mut self, name: ObjectName, object: Object) {
                match object {
                    $(Object::$kind(object) => drop(self.$field.insert(name, object))),+
                }
            }

            /// Takes an object out.
            pub(super) fn remove(&mut self, object: &Object, name: &ObjectName) {
                match object {
                    $(Object::$kind(_) => drop(self.$field.remove(name))),+
                }
            }

            /// How many objects there are.
            pub fn len(&self) -> usize {
                0 $(+ self.$field.len())+
            }

            /// Whether there is no object at all.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

kinds! {
    GatewayClass in gateway_classes: "GatewayClass", GATEWAY_API, ["v1", "v1beta1"], false;
    Gateway in gateways: "Gateway", GATEWAY_API, ["v1", "v1beta1"], true;
    ListenerSet in listener_sets: "ListenerSet", GATEWAY_API, ["v1"], true;
    HttpRoute in http_routes: "HTTPRoute", GATEWAY_API, ["v1", "v1beta1"], true;
    GrpcRoute in grpc_routes: "GRPCRoute", GATEWAY_API, ["v1"], true;
    TlsRoute in tls_routes: "TLSRoute", GATEWAY_API, ["v1", "v1alpha3"], true;
    TcpRoute in tcp_routes: "TCPRoute", GATEWAY_API, ["v1", "v1alpha2"], true;
    UdpRoute in udp_routes: "UDPRoute", GATEWAY_API, ["v1", "v1alpha2"], true;
    ReferenceGrant in reference_grants: "ReferenceGrant", GATEWAY_API, ["v1", "v1beta1"], true;
    BackendTlsPolicy in backend_tls_policies: "BackendTLSPolicy", GATEWAY_API, ["v1"], true;
    Namespace in namespaces: "Namespace", "", ["v1"], false;
    Service in services: "Service", "", ["v1"], true;
    EndpointSlice in endpoint_slices: "EndpointSlice", "discovery.k8s.io", ["v1"], true;
    Secret in secrets: "Secret", "", ["v1"], true;
    ConfigMap in config_maps: "ConfigMap", "", ["v1"], true;
    AiService in ai_services: "AIService", NANTIAN, ["v1alpha1"], true;
    TokenPolicy in token_policies: "TokenPolicy", NANTIAN, ["v1alpha1"], true;
    WasmPlugin in wasm_plugins: "WasmPlugin", NANTIAN, ["v1alpha1"], true;
    BackendLbPolicy in backend_lb_policies: "BackendLBPolicy", GATEWAY_API, ["v1alpha2"], true;
}

// === impl Kind ===

impl Kind {
    /// Whether the kind is one of the four of this project.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::AiService | Self::TokenPolicy | Self::WasmPlugin | Self::BackendLbPolicy)
    }

    /// Whether an object is read only once another one refers to it: a cluster may have many that are large.
    #[cfg(feature = "kubernetes")]
    pub(super) const fn is_read_on_reference(self) -> bool {
        matches!(self, Self::Secret | Self::ConfigMap)
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
