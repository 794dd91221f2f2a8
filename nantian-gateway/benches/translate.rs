//! How long a translation takes: a thousand HTTPRoutes with ten rules each.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot be set up has nothing to measure"
)]

use std::sync::Arc;

use divan::Bencher;
use nantian_gateway::{
    gates::FeatureGates,
    ir::ObjectName,
    source::{ByName, Objects},
    translate::translate,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn main() {
    divan::main();
}

#[divan::bench(args = [10, 1000], sample_count = 50)]
fn routes_of_ten_rules(bencher: Bencher<'_, '_>, routes: usize) {
    let objects = world(routes);
    bencher.bench(|| translate(divan::black_box(&objects), FeatureGates::all()));
}

fn world(routes: usize) -> Objects {
    let mut objects = Objects::default();
    let class = json!({ "controllerName": "gateway.nantian.dev/gateway-controller" });
    insert(&mut objects.gateway_classes, "", "nantian", json!({ "spec": class }));
    let listeners = json!([
        { "name": "http", "port": 80, "protocol": "HTTP" },
        { "name": "example", "port": 81, "protocol": "HTTP", "hostname": "*.example.com" },
    ]);
    let gateway = json!({ "gatewayClassName": "nantian", "listeners": listeners });
    insert(&mut objects.gateways, "default", "web", json!({ "spec": gateway }));
    for index in 0..routes {
        let service = format!("service-{index}");
        let spec = json!({ "ports": [{ "name": "http", "port": 80 }] });
        insert(&mut objects.services, "default", &service, json!({ "spec": spec }));
        insert(&mut objects.endpoint_slices, "default", &service, slice(&service, index));
        insert(&mut objects.http_routes, "default", &format!("route-{index}"), route(index, &service));
    }
    objects
}

fn slice(service: &str, index: usize) -> Value {
    let endpoints: Vec<_> = (0..3)
        .map(|pod| json!({ "addresses": [format!("10.{pod}.{}.{}", index / 250, index % 250)] }))
        .collect();
    json!({
        "metadata": { "labels": { "kubernetes.io/service-name": service } },
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080 }],
        "endpoints": endpoints,
    })
}

fn route(index: usize, service: &str) -> Value {
    let rules: Vec<_> = (0..10)
        .map(|rule| {
            json!({
                "name": format!("rule-{rule}"),
                "matches": [{
                    "path": { "type": "PathPrefix", "value": format!("/api/v{rule}") },
                    "headers": [{ "name": "x-tenant", "value": "blue" }],
                }],
                "filters": [{
                    "type": "RequestHeaderModifier",
                    "requestHeaderModifier": { "set": [{ "name": "x-rule", "value": "yes" }] },
                }],
                "backendRefs": [{ "name": service, "port": 80 }],
                "timeouts": { "request": "10s" },
            })
        })
        .collect();
    json!({ "spec": {
        "parentRefs": [{ "name": "web" }],
        "hostnames": [format!("host-{index}.example.com")],
        "rules": rules,
    } })
}

fn insert<T: DeserializeOwned>(objects: &mut ByName<T>, namespace: &str, name: &str, mut object: Value) {
    if object.get("metadata").is_none() {
        object["metadata"] = json!({});
    }
    object["metadata"]["name"] = name.into();
    object["metadata"]["namespace"] = namespace.into();
    let kind = serde_json::from_value(object).expect("the object is of its kind");
    objects.insert(ObjectName::new(namespace, name), Arc::new(kind));
}
