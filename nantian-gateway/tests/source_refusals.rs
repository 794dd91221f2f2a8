//! What the translator refuses, and edits that are taken back for it.

#![cfg(test)]

use std::fs;

use nantian_gateway::{
    gates::FeatureGates,
    source::{Cause, Files, Objects, Refusal, refusals},
    translate::{conditions::Reason, translate},
};
use tempfile::TempDir;

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: nantian}
spec: {controllerName: gateway.nantian.dev/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: web}
spec: {gatewayClassName: nantian, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
";

fn route(pattern: &str, parent: &str) -> String {
    format!(
        "{GATEWAY}
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: shop}}
spec:
  parentRefs: [{{name: {parent}}}]
  rules: [{{matches: [{{path: {{type: RegularExpression, value: \"{pattern}\"}}}}], backendRefs: [{{name: echo, port: 80}}]}}]
"
    )
}

fn refused(objects: &Objects, cause: Cause) -> Vec<Refusal> {
    let translation = translate(objects, FeatureGates::all());
    refusals(&translation).into_iter().filter(|refusal| refusal.cause == cause).collect()
}

#[test]
fn an_edit_that_the_translator_refuses_leaves_the_last_good_version_in_place() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let mut files = Files::new([file.clone()]);
    fs::write(&file, route("/items/[0-9]+", "web")).unwrap();
    let good = files.load().objects;
    assert_eq!(refused(&good, Cause::Spec), []);

    fs::write(&file, route("/items/[0-9", "web")).unwrap();
    let refused_now = refused(&files.load().objects, Cause::Spec);
    assert_eq!(refused_now.len(), 1);
    assert_eq!(refused_now[0].path, "spec.rules[0].matches[0].path.value");
    assert!(files.reject(refused_now.iter().map(|refusal| &refusal.object)));
    assert_eq!(files.objects().http_routes, good.http_routes);
    assert_eq!(refused(files.objects(), Cause::Spec), []);
}

#[test]
fn a_missing_backend_is_an_absence_and_no_reason_to_take_an_edit_back() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, route("/", "web")).unwrap();
    let objects = Files::new([file]).load().objects;
    let absent = refused(&objects, Cause::Absence);
    assert_eq!(absent.len(), 1);
    assert_eq!(absent[0].reason, "Service default/echo does not exist");
    assert_eq!(refused(&objects, Cause::Spec), []);
}

#[test]
fn a_policy_that_cannot_be_enforced_leaves_the_last_good_version_in_place() {
    let policy = |rest: &str| {
        format!(
            "{}---
apiVersion: gateway.nantian.dev/v1alpha1
kind: WasmPlugin
metadata: {{name: guard}}
spec: {{targetRefs: [{{group: gateway.networking.k8s.io, kind: HTTPRoute, name: shop}}], wasm: {{inline: AGFzbQEAAAA=}}{rest}}}
",
            route("/", "web")
        )
    };
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    let mut files = Files::new([file.clone()]);
    fs::write(&file, policy("")).unwrap();
    let good = files.load().objects;

    fs::write(&file, policy(", sandbox: {allowFileSystem: true}")).unwrap();
    let found = refused(&files.load().objects, Cause::Spec);
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].path.as_str(), found[0].code),
        ("spec.sandbox.allowFileSystem", Reason::Unsupported)
    );
    assert!(files.reject(found.iter().map(|refusal| &refusal.object)));
    assert_eq!(files.objects().wasm_plugins, good.wasm_plugins);
}

#[test]
fn what_people_write_does_not_tear_a_refusal_apart() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("a.yaml");
    fs::write(&file, route("/(; spec.hostnames: it does not exist", "web")).unwrap();
    let found = refused(&Files::new([file]).load().objects, Cause::Spec);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].path, "spec.rules[0].matches[0].path.value");
}
