//! What it costs to take in an edit of one route among a thousand with ten rules each.

#![expect(clippy::expect_used, reason = "a bench that cannot set up its world must stop")]

use std::{fmt::Write as _, fs, path::Path, sync::Arc};

use divan::Bencher;
use nantian_gateway::{
    compile::{Registry, compile},
    gates::FeatureGates,
    metrics::Metrics,
    source::Files,
    translate::translate,
};
use nantian_lb::session::SessionKeys;

const ROUTES: usize = 1000;
const RULES: usize = 10;

fn main() {
    divan::main();
}

const WORLD: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: { name: nantian }
spec: { controllerName: gateway.nantian.dev/gateway-controller }
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: gateway, namespace: bench }
spec:
  gatewayClassName: nantian
  listeners: [{ name: http, protocol: HTTP, port: 8080 }]
---
apiVersion: v1
kind: Service
metadata: { name: echo, namespace: bench }
spec: { ports: [{ name: http, port: 80 }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: echo, namespace: bench, labels: { kubernetes.io/service-name: echo } }
addressType: IPv4
ports: [{ name: http, port: 9000 }]
endpoints: [{ addresses: [127.0.0.1] }]
";

fn route(number: usize, edit: usize) -> String {
    let mut text = format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: route-{number}, namespace: bench }}\n\
         spec:\n  parentRefs: [{{ name: gateway }}]\n  hostnames: [host{number}.example.com]\n  rules:\n"
    );
    for rule in 0..RULES {
        let _ = write!(
            text,
            "  - matches: [{{ path: {{ type: PathPrefix, value: /v{rule}/edit{edit} }} }}]\n    \
             backendRefs: [{{ name: echo, port: 80 }}]\n"
        );
    }
    text
}

fn write_world(directory: &Path) {
    fs::write(directory.join("world.yaml"), WORLD).expect("a writable directory");
    for number in 0..ROUTES {
        fs::write(directory.join(format!("route-{number}.yaml")), route(number, 0))
            .expect("a writable directory");
    }
}

/// From the changed file to the snapshot: read, check, translate, compare, compile.
#[divan::bench(sample_count = 20, sample_size = 1)]
fn one_route_of_a_thousand(bencher: Bencher<'_, '_>) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    write_world(directory.path());
    let mut files = Files::new([directory.path().to_owned()]);
    let keys = SessionKeys::new([[1; 32]]).expect("one key");
    let mut registry = Registry::alone(Arc::new(Metrics::new(1)), keys).expect("a TLS configuration");
    let mut served = translate(&files.load().objects, FeatureGates::all()).ir;
    let mut generation = 1;
    let mut edit = 0;
    bencher.bench_local(|| {
        edit += 1;
        fs::write(directory.path().join("route-7.yaml"), route(7, edit)).expect("a writable directory");
        let ir = translate(&files.load().objects, FeatureGates::all()).ir;
        assert!(ir != served, "the edit is seen");
        generation += 1;
        let compiled = compile(&ir, &mut registry, generation);
        served = ir;
        compiled
    });
}
