//! What is installed is what the API server would take: every object has a known kind, and no field that its
//! kind has not.
#![cfg(test)]

use std::{env, fs, path::Path};

use gateway_api::gatewayclasses::GatewayClass;
use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, Deployment},
        autoscaling::v2::HorizontalPodAutoscaler,
        core::v1::{Namespace, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads and writes an object as one of `T`; what `T` has no field for is lost on the way.
fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(object.clone())?)
}

fn read(object: &Value) -> Result<Value, serde_json::Error> {
    let word = |field: &str| object[field].as_str().unwrap_or_default();
    match (word("apiVersion"), word("kind")) {
        ("v1", "Namespace") => through::<Namespace>(object),
        ("v1", "Service") => through::<Service>(object),
        ("v1", "ServiceAccount") => through::<ServiceAccount>(object),
        ("apps/v1", "DaemonSet") => through::<DaemonSet>(object),
        ("apps/v1", "Deployment") => through::<Deployment>(object),
        ("autoscaling/v2", "HorizontalPodAutoscaler") => through::<HorizontalPodAutoscaler>(object),
        ("networking.k8s.io/v1", "NetworkPolicy") => through::<NetworkPolicy>(object),
        ("policy/v1", "PodDisruptionBudget") => through::<PodDisruptionBudget>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRole") => through::<ClusterRole>(object),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding") => through::<ClusterRoleBinding>(object),
        ("rbac.authorization.k8s.io/v1", "Role") => through::<Role>(object),
        ("rbac.authorization.k8s.io/v1", "RoleBinding") => through::<RoleBinding>(object),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => {
            through::<CustomResourceDefinition>(object)
        }
        ("gateway.networking.k8s.io/v1", "GatewayClass") => through::<GatewayClass>(object),
        (version, kind) => panic!("{version} {kind} is not expected"),
    }
}

/// The paths of fields in `written` that `read` has not, or not so.
fn lost(written: &Value, read: &Value, path: &str, found: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (name, written) in written {
                lost(written, read.get(name).unwrap_or(&Value::Null), &format!("{path}.{name}"), found);
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (written, read)) in written.iter().zip(read).enumerate() {
                lost(written, read, &format!("{path}[{index}]"), found);
            }
        }
        // An empty map or list is the same as none.
        (Value::Object(fields), Value::Null) if fields.is_empty() => {}
        (Value::Array(items), Value::Null) if items.is_empty() => {}
        (Value::Number(written), Value::Number(read)) if written.as_f64() == read.as_f64() => {}
        (written, read) if written == read => {}
        _ => found.push(path.to_owned()),
    }
}

/// The objects in all files below a directory, each with its file.
fn objects(directory: &Path) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.display().to_string();
        if path.is_dir() {
            found.extend(objects(&path));
        } else if path.extension().is_some_and(|extension| extension == "yaml")
            && !name.ends_with("kustomization.yaml")
        {
            let text = fs::read_to_string(&path).unwrap();
            let documents = text.split("\n---").map(|document| serde_saphyr::from_str(document).unwrap());
            let documents = documents.filter(|document: &Value| !document.is_null());
            found.extend(documents.map(|document| (name.clone(), document)));
        }
    }
    found
}

fn check(directory: &Path) {
    let objects = objects(directory);
    assert!(!objects.is_empty(), "nothing in {}", directory.display());
    for (file, object) in objects {
        let title = format!("{file}: {} {}", object["kind"], object["metadata"]["name"]);
        let read = read(&object).unwrap_or_else(|error| panic!("{title}: {error}"));
        let mut found = Vec::new();
        lost(&object, &read, "", &mut found);
        assert!(found.is_empty(), "{title}: {found:?}");
    }
}

#[test]
fn the_kustomize_base_is_objects_of_the_api() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/kustomize/base"));
}

#[test]
fn the_crds_are_objects_of_the_api() {
    check(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/crds"));
}

/// `.ci/charts` renders the charts with several values and names the directory.
#[test]
fn rendered_charts_are_objects_of_the_api() {
    if let Some(directory) = env::var_os("RENDERED_CHARTS") {
        check(Path::new(&directory));
    }
}

#[test]
fn a_field_that_no_kind_has_is_found() {
    let object: Value = serde_saphyr::from_str(
        "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {selectors: {a: b}, ports: [{port: 80, targetPort: http}]}}",
    )
    .unwrap();
    let mut found = Vec::new();
    lost(&object, &read(&object).unwrap(), "", &mut found);
    assert_eq!(found, [".spec.selectors"]);
}
