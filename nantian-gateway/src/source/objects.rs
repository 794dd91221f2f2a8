//! The objects that the translator reads.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

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
use serde::Serialize;

use super::placement::Placements;
use crate::ir::{ControllerName, ObjectName};

/// The objects of one kind, in the order of namespace and name.
pub type ByName<T> = BTreeMap<ObjectName, Arc<T>>;

/// Every object that the gateway knows, the last good version of each.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// GatewayClasses, cluster-scoped.
    pub gateway_classes: ByName<GatewayClass>,
    /// Gateways.
    pub gateways: ByName<Gateway>,
    /// ListenerSets.
    pub listener_sets: ByName<ListenerSet>,
    /// HTTPRoutes.
    pub http_routes: ByName<HttpRoute>,
    /// GRPCRoutes.
    pub grpc_routes: ByName<GrpcRoute>,
    /// TLSRoutes.
    pub tls_routes: ByName<TlsRoute>,
    /// TCPRoutes.
    pub tcp_routes: ByName<TcpRoute>,
    /// UDPRoutes.
    pub udp_routes: ByName<UdpRoute>,
    /// ReferenceGrants.
    pub reference_grants: ByName<ReferenceGrant>,
    /// Namespaces, cluster-scoped; one that is absent exists and has only its name label.
    pub namespaces: ByName<Namespace>,
    /// BackendTLSPolicies.
    pub backend_tls_policies: ByName<BackendTlsPolicy>,
    /// Services.
    pub services: ByName<Service>,
    /// EndpointSlices.
    pub endpoint_slices: ByName<EndpointSlice>,
    /// Secrets.
    pub secrets: ByName<Secret>,
    /// ConfigMaps.
    pub config_maps: ByName<ConfigMap>,
    /// AIServices.
    pub ai_services: ByName<AiService>,
    /// TokenPolicies.
    pub token_policies: ByName<TokenPolicy>,
    /// WasmPlugins.
    pub wasm_plugins: ByName<WasmPlugin>,
    /// BackendLBPolicies.
    pub backend_lb_policies: ByName<BackendLbPolicy>,
    /// Those among them that cannot be read and have no good version, and why: each keeps shut what it was
    /// meant to guard.
    pub unreadable: BTreeMap<ObjectRef, String>,
    /// Where Gateways are reached; not an object, but what the source has made of some.
    pub placements: Placements,
    /// Whose classes are served; not an object either, but what the source was told.
    pub controller: ControllerName,
    /// The namespaces in which there may be others that cannot be seen for now, as only who makes the
    /// Services of Gateways is told: nothing is to be taken away for want of them.
    pub withheld: BTreeSet<String>,
}

impl Objects {
    /// Whether a class is this gateway's.
    pub(crate) fn is_ours(&self, class: &GatewayClass) -> bool {
        class.spec.controller_name == self.controller.as_str()
    }

    /// What has to be known to take care of what stands in front of Gateways.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn for_gateway_services(&self) -> Self {
        Self {
            gateway_classes: self.gateway_classes.clone(),
            gateways: self.gateways.clone(),
            listener_sets: self.listener_sets.clone(),
            namespaces: self.namespaces.clone(),
            services: self.services.clone(),
            endpoint_slices: self.endpoint_slices.clone(),
            placements: self.placements.clone(),
            controller: self.controller.clone(),
            ..Self::default()
        }
    }
}

/// A kind and a name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectRef {
    /// The kind.
    pub kind: &'static str,
    /// The name.
    pub name: ObjectName,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}
