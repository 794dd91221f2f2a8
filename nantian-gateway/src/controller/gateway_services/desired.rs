//! The objects in front of a Gateway, as they should be.

use std::{collections::BTreeMap, net::IpAddr};

use gateway_api::experimental::gateways::Gateway;
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::Endpoint},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{GatewayServiceConfig, ServiceKind, TrafficPolicy};
use crate::{
    ir::{ObjectName, Transport},
    source::kube::digest,
    translate::SERVICE_NAME_LABEL,
};

/// The label that says who takes care of a Service.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The same of an EndpointSlice.
const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGER: &str = "nantian-gateway";
/// The label that names the Gateway of what was made for it (GEP-1762).
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// The same for its class.
const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
/// The annotation with a digest of what was written last.
const APPLIED: &str = "gateway.nantian.dev/applied";
/// The annotation that names the Service whose replicas a Service leads to.
pub(super) const REPLICAS: &str = "gateway.nantian.dev/replicas";

/// Whether an object was made by this program.
pub(super) fn is_ours(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(MANAGED_BY))
        .is_some_and(|manager| manager == MANAGER)
        && metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Gateway")
}

/// The Service of a Gateway, which asks for this address if it asks for one, in the place of the `present`.
pub(super) fn service(
    gateway_name: &ObjectName,
    gateway: &Gateway,
    name: &ObjectName,
    config: &GatewayServiceConfig,
    address: Option<IpAddr>,
    ports: &BTreeMap<(Transport, u16), u16>,
    present: Option<&Service>,
) -> Value {
    let infrastructure = gateway.spec.infrastructure.as_ref();
    let asked = infrastructure.and_then(|infrastructure| infrastructure.labels.as_ref());
    let mut labels: Map<String, Value> =
        asked.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone().into())).collect();
    labels.insert(MANAGED_BY.to_owned(), MANAGER.into());
    labels.insert(GATEWAY_NAME.to_owned(), label(&gateway_name.name).into());
    labels.insert(GATEWAY_CLASS_NAME.to_owned(), label(&gateway.spec.gateway_class_name).into());
    let asked = infrastructure.and_then(|infrastructure| infrastructure.annotations.as_ref());
    let mut annotations = asked.cloned().unwrap_or_default();
    annotations.insert(REPLICAS.to_owned(), config.own_service.to_string());
    let ports = ports.iter().map(|((transport, port), bound)| {
        json!({
            "name": port_name(*transport, *port),
            "protocol": protocol(*transport),
            "port": port,
            "targetPort": bound,
        })
    });
    let mut spec = Map::new();
    spec.insert("type".to_owned(), kind_name(config.kind).into());
    spec.insert("ports".to_owned(), ports.collect());
    if config.kind == ServiceKind::LoadBalancer {
        spec.insert("externalTrafficPolicy".to_owned(), policy_name(config.traffic_policy).into());
        if let Some(class) = load_balancer_class(config, present) {
            spec.insert("loadBalancerClass".to_owned(), class.into());
        }
        if let Some(address) = address {
            spec.insert("loadBalancerIP".to_owned(), address.to_string().into());
        }
    }
    let owner = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "name": gateway_name.name,
        "uid": gateway.metadata.uid,
        "controller": true,
    });
    marked(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name.name,
            "namespace": name.namespace,
            "labels": labels,
            "annotations": annotations,
            "ownerReferences": [owner],
        },
        "spec": spec,
    }))
}

/// The class of the load balancer, which nobody may change, nor add, once the Service is for one.
fn load_balancer_class<'a>(
    config: &'a GatewayServiceConfig,
    present: Option<&'a Service>,
) -> Option<&'a str> {
    let spec = present.and_then(|service| service.spec.as_ref());
    match spec.filter(|spec| spec.type_.as_deref() == Some("LoadBalancer")) {
        Some(spec) => spec.load_balancer_class.as_deref(),
        None => config.load_balancer_class.as_deref(),
    }
}

/// The name of the EndpointSlice of a Service for one family of addresses.
pub(super) fn slice_name(service: &ObjectName, family: &str) -> String {
    format!("{}-{}", service.name, family.to_ascii_lowercase())
}

/// The replicas behind the Service of a Gateway, which has no selector: they may be in another namespace.
pub(super) fn slice(
    service: &ObjectName,
    uid: &str,
    name: &ObjectName,
    family: &str,
    endpoints: &[Endpoint],
    ports: &BTreeMap<(Transport, u16), u16>,
) -> Value {
    let ports = ports.iter().map(|((transport, port), bound)| {
        json!({ "name": port_name(*transport, *port), "protocol": protocol(*transport), "port": bound })
    });
    let endpoints = endpoints.iter().map(|endpoint| {
        let Endpoint { addresses, conditions, node_name, target_ref, zone, .. } = endpoint;
        without_null(json!({
            "addresses": addresses,
            "conditions": conditions,
            "nodeName": node_name,
            // GKE sends nothing to an endpoint that names no pod.
            "targetRef": target_ref,
            "zone": zone,
        }))
    });
    marked(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name.name,
            "namespace": name.namespace,
            "labels": { (SERVICE_NAME_LABEL): service.name, (SLICE_MANAGED_BY): MANAGER },
            "annotations": {},
            "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": service.name, "uid": uid }],
        },
        "addressType": family,
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    }))
}

/// Whether `present` is what was written last for `body`, and still has all of its fields.
pub(super) fn is_as(present: &impl Serialize, body: &Value) -> bool {
    // Objects of Kubernetes have no form that JSON has not.
    let present = serde_json::to_value(present).unwrap_or_default();
    has(&present, body)
}

/// Others may add to an object, also to its lists.
fn has(present: &Value, desired: &Value) -> bool {
    match (present, desired) {
        (Value::Object(present), Value::Object(desired)) => desired
            .iter()
            .filter(|(name, _)| !["apiVersion", "kind"].contains(&name.as_str()))
            .all(|(name, desired)| present.get(name).is_some_and(|present| has(present, desired))),
        (Value::Array(present), Value::Array(desired)) => {
            desired.iter().all(|desired| present.iter().any(|present| has(present, desired)))
        }
        (present, desired) => present == desired,
    }
}

/// With a digest of itself, by which a field is seen that is not wanted any more.
fn marked(mut body: Value) -> Value {
    let digest = digest(body.to_string().as_bytes());
    if let Some(annotations) = body.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.insert(APPLIED.to_owned(), format!("{digest:016x}").into());
    }
    body
}

fn without_null(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|_, field| !field.is_null());
    }
    value
}

/// A name as the value of a label, which has at most 63 bytes.
fn label(name: &str) -> String {
    if name.len() <= 63 { name.to_owned() } else { format!("{:016x}", digest(name.as_bytes())) }
}

fn port_name(transport: Transport, port: u16) -> String {
    format!("{}-{port}", protocol(transport).to_ascii_lowercase())
}

const fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "TCP",
        Transport::Udp => "UDP",
    }
}

const fn policy_name(policy: TrafficPolicy) -> &'static str {
    match policy {
        TrafficPolicy::Local => "Local",
        TrafficPolicy::Cluster => "Cluster",
    }
}

const fn kind_name(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::ClusterIp => "ClusterIP",
    }
}
