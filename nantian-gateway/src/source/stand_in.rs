//! What guards the targets of a WasmPlugin that cannot be read and has no good version.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use nantian_crd::{FailurePolicy, Sandbox, StreamFraming, TargetRef, WasmPlugin, WasmPluginSpec, WasmSource};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{kind::Kind, object::Object};
use crate::ir::ObjectName;

/// A plugin of nothing but the targets and the failure policy that can be read of `object`: the translator refuses it, and
/// what it guards is shut. `None` for other kinds, whose absence opens nothing.
pub(super) fn stand_in(kind: Kind, name: &ObjectName, object: &Map<String, Value>) -> Option<Object> {
    if kind != Kind::WasmPlugin {
        return None;
    }
    let spec = object.get("spec");
    let targets = spec.and_then(|spec| spec.get("targetRefs")?.as_array());
    let target_refs: Vec<TargetRef> = targets.into_iter().flatten().filter_map(read).collect();
    let failure_policy = spec.and_then(|spec| read::<FailurePolicy>(spec.get("failurePolicy")?));
    let known = object.get("metadata").and_then(read::<ObjectMeta>).unwrap_or_default();
    let metadata = ObjectMeta {
        name: Some(name.name.clone()),
        namespace: Some(name.namespace.clone()),
        uid: known.uid,
        generation: known.generation,
        creation_timestamp: known.creation_timestamp,
        ..ObjectMeta::default()
    };
    let spec = WasmPluginSpec {
        wasm: WasmSource::default(),
        target_refs,
        hooks: Vec::new(),
        config: None,
        plugin_name: None,
        vm_config: None,
        stream_framing: StreamFraming::default(),
        sandbox: Sandbox::default(),
        failure_policy: failure_policy.unwrap_or_default(),
    };
    Some(Object::WasmPlugin(Arc::new(WasmPlugin { metadata, spec, status: None })))
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    serde_json::from_value(value.clone()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_broken_plugin_the_targets_and_the_failure_policy_are_kept() {
        let object = serde_json::json!({
            "metadata": {"name": "p", "uid": "u", "labels": 7},
            "spec": {
                "wasm": {"inline": "not base64!", "sha265": ""},
                "targetRefs": [{"group": "", "kind": "Service", "name": "a"}, {"kind": "Nothing"}, 7],
                "failurePolicy": "FailOpen",
            },
        });
        let Value::Object(object) = object else { panic!("no object") };
        let name = ObjectName::new("demo", "p");
        assert!(stand_in(Kind::Service, &name, &object).is_none());
        let Some(Object::WasmPlugin(plugin)) = stand_in(Kind::WasmPlugin, &name, &object) else {
            panic!("no plugin")
        };
        let targets: Vec<_> = plugin.spec.target_refs.iter().map(|target| target.name.as_str()).collect();
        assert_eq!(targets, ["a"]);
        assert_eq!(plugin.spec.failure_policy, FailurePolicy::FailOpen);
        assert_eq!(plugin.metadata.name.as_deref(), Some("p"));
        assert!(nantian_crd::validate(&serde_json::to_value(&*plugin).unwrap()).is_err());
    }
}
