//! Manifests in one line each.

use std::fmt::Write as _;

use super::Backend;

/// The class of every Gateway.
pub(crate) const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nantian}
spec: {controllerName: gateway.nantian.dev/gateway-controller}
---";

/// The Gateway `demo` with these listeners.
pub(crate) fn gateway(listeners: &[String]) -> String {
    let listeners = listeners.join(", ");
    format!(
        "{CLASS}
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: demo, namespace: demo}}
spec:
  gatewayClassName: nantian
  addresses: [{{type: IPAddress, value: 127.0.0.1}}]
  listeners: [{listeners}]
"
    )
}

/// A Service whose port 80 speaks `protocol`, and its endpoints.
pub(crate) fn service(name: &str, protocol: &str, backends: &[&Backend]) -> String {
    let mut manifest = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: demo}}
spec: {{ports: [{{name: http, port: 80, appProtocol: {protocol}}}]}}
"
    );
    for (index, backend) in backends.iter().enumerate() {
        write!(
            manifest,
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}-{index}, namespace: demo, labels: {{kubernetes.io/service-name: {name}}}}}
addressType: IPv4
ports: [{{name: http, port: {}}}]
endpoints: [{{addresses: [{}]}}]
",
            backend.address.port(),
            backend.address.ip(),
        )
        .unwrap();
    }
    manifest
}

/// An HTTPRoute of the Gateway `demo` with these rules; `spec` is further fields.
pub(crate) fn route(name: &str, spec: &str, rules: &[String]) -> String {
    let rules = rules.join(", ");
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: {name}, namespace: demo}}
spec: {{parentRefs: [{{name: demo}}], {spec} rules: [{rules}]}}
"
    )
}

/// A rule for a path prefix.
pub(crate) fn rule(prefix: &str, rest: &str) -> String {
    format!("{{matches: [{{path: {{type: PathPrefix, value: {prefix}}}}}], {rest}}}")
}

/// The field that sends a rule to a Service.
pub(crate) fn to(service: &str) -> String {
    format!("backendRefs: [{{name: {service}, port: 80}}]")
}

/// A WasmPlugin on the HTTPRoute of the same name.
pub(crate) fn plugin(name: &str, wasm: &str) -> String {
    format!(
        "
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: {name}, namespace: demo}}
spec:
  targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: {name}}}]
  wasm: {{{wasm}}}
"
    )
}

/// A BackendLBPolicy on the Service of the same name.
pub(crate) fn lb_policy(service: &str, spec: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1alpha2
kind: BackendLBPolicy
metadata: {{name: {service}, namespace: demo}}
spec: {{targetRefs: [{{group: '', kind: Service, name: {service}}}], {spec}}}
"
    )
}

/// A BackendTLSPolicy of a Service; `validation` is its fields.
pub(crate) fn backend_tls_policy(service: &str, section: &str, validation: &str) -> String {
    format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{name: {service}{section}, namespace: demo}}
spec:
  targetRefs: [{{group: '', kind: Service, name: {service}{}}}]
  validation: {{{validation}}}
",
        if section.is_empty() { String::new() } else { format!(", sectionName: {section}") }
    )
}

/// The fields that trust the ConfigMap `ca` for a name.
pub(crate) fn trusting_authority(ca: &str, host: &str) -> String {
    format!("caCertificateRefs: [{{group: '', kind: ConfigMap, name: {ca}}}], hostname: {host}")
}
