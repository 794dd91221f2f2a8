//! One object of any kind.

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

use super::{kind::Kind, objects::Objects};
use crate::ir::ObjectName;

/// Writes once what has to be said for each kind.
macro_rules! objects {
    ($($kind:ident($type:ty) in $field:ident),+ $(,)?) => {
        /// One object of any kind that the gateway reads.
        #[derive(Debug, Clone)]
        pub(super) enum Object {
            $($kind(Arc<$type>)),+
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

        impl Kind {
            /// The schema of whole objects, as their Rust type has it.
            pub(super) fn document(self) -> Value {
                match self {
                    $(Self::$kind => nantian_crd::schema::resource::<$type>()),+
                }
            }
        }
    };
}

objects! {
    GatewayClass(GatewayClass) in gateway_classes,
    Gateway(Gateway) in gateways,
    ListenerSet(ListenerSet) in listener_sets,
    HttpRoute(HttpRoute) in http_routes,
    GrpcRoute(GrpcRoute) in grpc_routes,
    TlsRoute(TlsRoute) in tls_routes,
    TcpRoute(TcpRoute) in tcp_routes,
    UdpRoute(UdpRoute) in udp_routes,
    ReferenceGrant(ReferenceGrant) in reference_grants,
    BackendTlsPolicy(BackendTlsPolicy) in backend_tls_policies,
    Namespace(Namespace) in namespaces,
    Service(Service) in services,
    EndpointSlice(EndpointSlice) in endpoint_slices,
    Secret(Secret) in secrets,
    ConfigMap(ConfigMap) in config_maps,
    AiService(AiService) in ai_services,
    TokenPolicy(TokenPolicy) in token_policies,
    WasmPlugin(WasmPlugin) in wasm_plugins,
    BackendLbPolicy(BackendLbPolicy) in backend_lb_policies,
}
