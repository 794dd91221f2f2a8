//! What guards the targets of a policy that cannot be read and has no good version.

use std::sync::Arc;

use gateway_api::backendtlspolicies::{
    BackendTlsPolicy, BackendTlsPolicySpec, BackendTlsPolicyTargetRefs, BackendTlsPolicyValidation,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nantian_crd::{FailurePolicy, TargetRef, WasmPlugin, WasmPluginSpec};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::kind::{Kind, Object};
use crate::ir::ObjectName;

/// A policy of nothing but what can be read of `object`: the translator refuses it, and what it guards is
/// shut.
///
/// `None` for kinds that guard nothing, and for TokenPolicies: as long as one cannot be read and has no good
/// version, its targets are served without the limit, as they are while the gateway has not seen the policy
/// yet.
pub(super) fn placeholder(kind: Kind, name: &ObjectName, object: &Map<String, Value>) -> Option<Object> {
    match kind {
        Kind::WasmPlugin => Some(Object::WasmPlugin(Arc::new(plugin(name, object)))),
        Kind::BackendTlsPolicy => Some(Object::BackendTlsPolicy(Arc::new(tls(name, object)))),
        _ => None,
    }
}

/// A plugin of the targets and the failure policy.
fn plugin(name: &ObjectName, object: &Map<String, Value>) -> WasmPlugin {
    let failure_policy =
        object.get("spec").and_then(|spec| read::<FailurePolicy>(spec.get("failurePolicy")?));
    let mut spec = WasmPluginSpec::default();
    spec.target_refs = targets::<TargetRef>(object);
    spec.failure_policy = failure_policy.unwrap_or_default();
    let mut plugin = WasmPlugin::new(&name.name, spec);
    plugin.metadata = metadata(name, object);
    plugin
}

/// A policy of the targets, which trusts nobody.
fn tls(name: &ObjectName, object: &Map<String, Value>) -> BackendTlsPolicy {
    let spec = BackendTlsPolicySpec {
        options: None,
        target_refs: targets::<BackendTlsPolicyTargetRefs>(object),
        validation: BackendTlsPolicyValidation::default(),
    };
    BackendTlsPolicy { metadata: metadata(name, object), spec, status: None }
}

/// The references to targets that can be read.
fn targets<T: DeserializeOwned>(object: &Map<String, Value>) -> Vec<T> {
    let targets = object.get("spec").and_then(|spec| spec.get("targetRefs")?.as_array());
    targets.into_iter().flatten().filter_map(read).collect()
}

fn metadata(name: &ObjectName, object: &Map<String, Value>) -> ObjectMeta {
    let known = object.get("metadata").and_then(read::<ObjectMeta>).unwrap_or_default();
    ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        uid: known.uid,
        generation: known.generation,
        creation_timestamp: known.creation_timestamp,
        ..ObjectMeta::default()
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("no object") };
        object
    }

    #[test]
    fn of_a_broken_plugin_the_targets_and_the_failure_policy_are_kept() {
        let object = object(serde_json::json!({
            "metadata": {"name": "p", "uid": "u", "labels": 7},
            "spec": {
                "wasm": {"inline": "not base64!", "sha265": ""},
                "targetRefs": [{"group": "", "kind": "Service", "name": "a"}, {"kind": "Nothing"}, 7],
                "failurePolicy": "FailOpen",
            },
        }));
        let name = ObjectName::new("demo", "p");
        assert!(placeholder(Kind::Service, &name, &object).is_none());
        let Some(Object::WasmPlugin(plugin)) = placeholder(Kind::WasmPlugin, &name, &object) else {
            panic!("no plugin")
        };
        let targets: Vec<_> = plugin.spec.target_refs.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(targets, ["a"]);
        assert_eq!(plugin.spec.failure_policy, FailurePolicy::FailOpen);
        assert_eq!(plugin.metadata.name.as_deref(), Some("p"));
        assert!(nantian_crd::validate(&serde_json::to_value(&*plugin).unwrap()).is_err());
    }

    #[test]
    fn of_a_broken_tls_policy_the_targets_are_kept() {
        let object = object(serde_json::json!({
            "metadata": {"name": "p", "namespace": "demo"},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": "a"}, 7],
                "validation": {"hostname": 7, "wellKnownCACertificates": "System"},
            },
        }));
        let name = ObjectName::new("demo", "p");
        let Some(Object::BackendTlsPolicy(policy)) = placeholder(Kind::BackendTlsPolicy, &name, &object)
        else {
            panic!("no policy")
        };
        let targets: Vec<_> = policy.spec.target_refs.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(targets, ["a"]);
        assert_eq!(policy.spec.validation, BackendTlsPolicyValidation::default());
    }
}
