//! Reads manifests for tests.

use std::sync::Arc;

use nantian_gateway::{
    ir::ObjectName,
    source::{ByName, Objects},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Every document of a YAML text, as objects.
pub(crate) fn objects(yaml: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).expect("the manifests parse");
    let mut objects = Objects::default();
    for document in documents {
        let kind = document["kind"].as_str().expect("a document has a kind").to_owned();
        match kind.as_str() {
            "GatewayClass" => insert(&mut objects.gateway_classes, document),
            "Gateway" => insert(&mut objects.gateways, document),
            "ListenerSet" => insert(&mut objects.listener_sets, document),
            "HTTPRoute" => insert(&mut objects.http_routes, document),
            "GRPCRoute" => insert(&mut objects.grpc_routes, document),
            "TLSRoute" => insert(&mut objects.tls_routes, document),
            "TCPRoute" => insert(&mut objects.tcp_routes, document),
            "UDPRoute" => insert(&mut objects.udp_routes, document),
            "ReferenceGrant" => insert(&mut objects.reference_grants, document),
            "BackendTLSPolicy" => insert(&mut objects.backend_tls_policies, document),
            "Namespace" => insert(&mut objects.namespaces, document),
            "Service" => insert(&mut objects.services, document),
            "EndpointSlice" => insert(&mut objects.endpoint_slices, document),
            "Secret" => insert(&mut objects.secrets, document),
            "ConfigMap" => insert(&mut objects.config_maps, document),
            "AIService" => insert(&mut objects.ai_services, document),
            "TokenPolicy" => insert(&mut objects.token_policies, document),
            "WasmPlugin" => insert(&mut objects.wasm_plugins, document),
            "BackendLBPolicy" => insert(&mut objects.backend_lb_policies, document),
            other => panic!("no test needs the kind {other}"),
        }
    }
    objects
}

fn insert<T: DeserializeOwned>(objects: &mut ByName<T>, document: Value) {
    let metadata = &document["metadata"];
    let namespace = match document["kind"].as_str() {
        Some("GatewayClass" | "Namespace") => "",
        _ => metadata["namespace"].as_str().unwrap_or("default"),
    };
    let name = ObjectName::new(namespace, metadata["name"].as_str().expect("an object has a name"));
    let object = serde_json::from_value(document).unwrap_or_else(|error| panic!("{name}: {error}"));
    objects.insert(name, Arc::new(object));
}
