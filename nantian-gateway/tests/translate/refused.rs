//! What is told of objects that do not go together with others.

use nantian_gateway::{gates::FeatureGates, ir::BackendTransport, translate::translate};
use serde_json::Value;

use crate::load;

const CLASS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: nantian }
spec: { controllerName: gateway.nantian.dev/gateway-controller }
---
";

fn gateway(listeners: &str) -> String {
    format!(
        "{CLASS}
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{ name: web }}
spec: {{ gatewayClassName: nantian, listeners: [{listeners}] }}
---
"
    )
}

fn statuses(objects: &str) -> Value {
    serde_json::to_value(translate(&load::objects(objects), FeatureGates::all()).statuses).unwrap()
}

/// `Status Reason: message` of a condition.
fn said(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|condition| condition["type"] == kind).unwrap();
    let [status, reason, message] =
        ["status", "reason", "message"].map(|field| found[field].as_str().unwrap());
    format!("{status} {reason}: {message}")
}

/// A policy for this target, and a route to the Service `api`, whose port is called `https`.
fn with_backend_tls(target: &str) -> String {
    format!(
        "{}
apiVersion: v1
kind: Service
metadata: {{ name: api }}
spec: {{ ports: [{{ name: https, port: 443 }}] }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: shop }}
spec: {{ parentRefs: [{{ name: web }}], rules: [{{ backendRefs: [{{ name: api, port: 443 }}] }}] }}
---
apiVersion: gateway.networking.k8s.io/v1
kind: BackendTLSPolicy
metadata: {{ name: verified }}
spec:
  targetRefs: [{{ group: '', kind: Service, {target} }}]
  validation: {{ wellKnownCACertificates: System, hostname: api.example.org }}
",
        gateway("{ name: http, port: 80, protocol: HTTP }")
    )
}

#[test]
fn a_policy_for_tls_to_a_port_that_is_not_there_is_told_so_at_the_gateways_of_its_service() {
    let objects = load::objects(&with_backend_tls("name: api, sectionName: htps"));
    let translation = translate(&objects, FeatureGates::all());
    let statuses = serde_json::to_value(&translation.statuses).unwrap();
    let ancestors = &statuses["BackendTLSPolicy default/verified"]["ancestors"];
    assert_eq!(ancestors.as_array().unwrap().len(), 1);
    assert_eq!(ancestors[0]["ancestorRef"]["name"], "web");
    let told = "False TargetNotFound: Service default/api has no port htps";
    assert_eq!(said(&ancestors[0], "Accepted"), told);
    assert_eq!(translation.warnings, [], "the status tells it");
    let transports: Vec<_> = translation.ir.backends.values().map(|backend| &backend.transport).collect();
    assert_eq!(transports, [&BackendTransport::Plain], "a policy that is not attached changes nothing");
}

#[test]
fn a_policy_for_tls_whose_target_is_nowhere_is_warned_of() {
    for (target, told) in [
        ("name: apii", "spec.targetRefs[0]: Service default/apii does not exist"),
        ("name: apii, sectionName: https", "spec.targetRefs[0]: Service default/apii does not exist"),
    ] {
        let objects = load::objects(&with_backend_tls(target));
        let translation = translate(&objects, FeatureGates::all());
        let warnings: Vec<_> = translation.warnings.iter().map(|warning| warning.message.as_str()).collect();
        assert_eq!(warnings, [told]);
    }
}

#[test]
fn listeners_of_one_port_and_hostname_that_speak_differently_conflict_in_their_protocol() {
    let through = "{ name: b, port: 443, protocol: TLS, tls: { mode: Passthrough } }";
    let certificate = "tls: { certificateRefs: [{ name: cert }] }";
    for (protocol, told) in [
        ("HTTPS", "True ProtocolConflict: port 443 and hostname * are used with a different protocol by "),
        ("TLS", "True HostnameConflict: port 443 and hostname * are also those of "),
    ] {
        let first = format!("{{ name: a, port: 443, protocol: {protocol}, {certificate} }}");
        let statuses = statuses(&gateway(&format!("{first}, {through}")));
        let status = &statuses["Gateway default/web"];
        let [a, b] = [0, 1].map(|index| said(&status["listeners"][index], "Conflicted"));
        assert_eq!([a, b], [format!("{told}b"), format!("{told}a")]);
    }
}

#[test]
fn a_gateway_says_which_of_its_listeners_are_in_conflict() {
    let listeners = "{ name: a, port: 80, protocol: HTTP, hostname: x.com }, { name: b, port: 80, protocol: HTTP, \
                     hostname: X.com }, { name: c, port: 80, protocol: HTTP }";
    let status = &statuses(&gateway(listeners))["Gateway default/web"];
    let told = "True ListenersNotValid: 1 of 3 listeners valid: c; in conflict: a, b";
    assert_eq!(said(status, "Accepted"), told);
    let told = "False HostnameConflict: port 80 and hostname x.com are also those of b";
    assert_eq!(said(&status["listeners"][0], "Accepted"), told);
}

#[test]
fn a_route_that_no_listener_takes_is_told_whether_for_its_kind_or_its_namespace() {
    for (kinds, namespace, told) in [
        ("[{ kind: GRPCRoute }]", "default", "no listener takes HTTPRoutes"),
        ("[{ kind: HTTPRoute }]", "elsewhere", "no listener allows HTTPRoutes of namespace elsewhere"),
    ] {
        let gateway = gateway(&format!(
            "{{ name: http, port: 80, protocol: HTTP, allowedRoutes: {{ kinds: {kinds} }} }}"
        ));
        let objects = format!(
            "{gateway}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{ name: shop, namespace: {namespace} }}
spec: {{ parentRefs: [{{ name: web, namespace: default }}] }}
"
        );
        let status = &statuses(&objects)[format!("HTTPRoute {namespace}/shop")];
        let told = format!("False NotAllowedByListeners: {told}");
        assert_eq!(said(&status["parents"][0], "Accepted"), told);
    }
}
