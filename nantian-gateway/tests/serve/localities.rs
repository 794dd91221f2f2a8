//! Endpoints that are near, and those that are not.

use std::fmt::Write as _;

use crate::support::{Backend, Running, World, rule, to};

/// The Service `a` with `spec`, and one slice with each of these endpoints, which `place` says where they
/// are.
fn service(spec: &str, endpoints: &[(&Backend, &str)]) -> String {
    let mut manifest = format!(
        "
apiVersion: v1
kind: Service
metadata: {{name: a, namespace: demo}}
spec: {{{spec} ports: [{{name: http, port: 80}}]}}
"
    );
    for (index, (backend, place)) in endpoints.iter().enumerate() {
        let (address, port) = (backend.address.ip(), backend.address.port());
        write!(
            manifest,
            "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: a-{index}, namespace: demo, labels: {{kubernetes.io/service-name: a}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [{address}], {place}}}]
"
        )
        .unwrap();
    }
    manifest
}

/// Who answers forty requests, in the order of their names.
async fn answering(gateway: &Running) -> Vec<String> {
    let mut names = Vec::new();
    let mut wire = gateway.connect().await;
    for _ in 0..40 {
        names.push(wire.get("/").await.header("x-backend").unwrap().to_owned());
    }
    names.sort();
    names.dedup();
    names
}

const PREFER: &str = "trafficDistribution: PreferSameZone,";

#[tokio::test]
async fn a_service_that_prefers_its_zone_is_served_there_while_anything_is_ready_there() {
    let (near, far) = (Backend::echo("near").await, Backend::echo("far").await);
    let gateway = World::new()
        .options(&["--zone", "eu-1a"])
        .manifest("service", &service(PREFER, &[(&near, "zone: eu-1a"), (&far, "zone: eu-1b")]))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    assert_eq!(answering(&gateway).await, ["near"]);
    let tiers = |config: serde_json::Value| {
        let endpoints = config["endpoints"]["demo/a:80"].as_array().unwrap().clone();
        let mut tiers: Vec<_> = endpoints.iter().map(|endpoint| endpoint["tier"].as_u64().unwrap()).collect();
        tiers.sort_unstable();
        tiers
    };
    assert_eq!(tiers(gateway.config().await), [0, 1]);

    let ending = "zone: eu-1a, conditions: {ready: false, serving: true, terminating: true}";
    gateway.edit("service", &service(PREFER, &[(&near, ending), (&far, "zone: eu-1b")])).await;
    assert_eq!(answering(&gateway).await, ["far"]);

    gateway.edit("service", &service("", &[(&near, "zone: eu-1a"), (&far, "zone: eu-1b")])).await;
    assert_eq!(answering(&gateway).await, ["far", "near"], "a Service that does not ask for it is spread");
}

#[tokio::test]
async fn hints_count_if_all_endpoints_have_them_and_the_node_tells_the_zone() {
    let (near, far) = (Backend::echo("near").await, Backend::echo("far").await);
    let here = "zone: eu-1a, nodeName: node-1, hints: {forZones: [{name: eu-1a}]}";
    let there = "zone: eu-1b, nodeName: node-2, hints: {forZones: [{name: eu-1b}]}";
    let gateway = World::new()
        .variable("NANTIAN_NODE", "node-1")
        .manifest("service", &service("", &[(&near, here), (&far, there)]))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    assert_eq!(answering(&gateway).await, ["near"]);
    gateway.edit("service", &service("", &[(&near, here), (&far, "zone: eu-1b")])).await;
    assert_eq!(answering(&gateway).await, ["far", "near"]);
}

#[tokio::test]
async fn who_fails_nearby_is_helped_out_from_afar() {
    let (near, far) = (
        Backend::answering(|_| "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await,
        Backend::echo("far").await,
    );
    let gateway = World::new()
        .options(&["--zone", "eu-1a"])
        .manifest("service", &service(PREFER, &[(&near, "zone: eu-1a"), (&far, "zone: eu-1b")]))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    let mut wire = gateway.connect().await;
    let mut failed = 0;
    for _ in 0..40 {
        failed += usize::from(wire.get("/").await.status() == 503);
    }
    assert_eq!(failed, 5, "until it is ejected");
}

#[tokio::test]
async fn a_preference_that_nobody_can_follow_is_told() {
    let near = Backend::echo("near").await;
    let gateway = World::new()
        .manifest("service", &service(PREFER, &[(&near, "zone: eu-1a")]))
        .route("a", &[rule("/", &to("a"))])
        .start()
        .await;
    assert_eq!(answering(&gateway).await, ["near"]);
    let warnings = gateway.config().await["warnings"].to_string();
    assert!(
        warnings.contains("spec.trafficDistribution: PreferSameZone has no effect without --zone"),
        "{warnings}"
    );
}
