//! Which Secrets and ConfigMaps an object refers to.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::ours::ours;
use crate::{
    ir::ObjectName,
    source::{
        kind::Kind,
        objects::{ByName, ObjectRef, Objects},
    },
};

/// The kinds whose objects refer to any.
const REFERRERS: [Kind; 5] =
    [Kind::Gateway, Kind::ListenerSet, Kind::BackendTlsPolicy, Kind::AiService, Kind::WasmPlugin];

/// The fields that refer to some, each with the kind that is meant: a reference that names another one is
/// refused.
const FIELDS: [(&str, Kind); 8] = [
    ("caCertificateRefs", Kind::ConfigMap),
    ("certificateRefs", Kind::Secret),
    ("clientCertificateRef", Kind::Secret),
    ("configMap", Kind::ConfigMap),
    ("imagePullSecret", Kind::Secret),
    ("publicKeyRef", Kind::Secret),
    ("secret", Kind::Secret),
    ("secretKeyRef", Kind::Secret),
];

/// Whether objects of a kind may refer to any.
pub(super) fn refers(kind: Kind) -> bool {
    REFERRERS.contains(&kind)
}

/// The same of the name of a kind.
pub(super) fn refers_by_name(kind: &str) -> bool {
    REFERRERS.iter().any(|referrer| referrer.info().name == kind)
}

/// What an object refers to, whether or not it may.
pub(super) fn references(kind: Kind, namespace: &str, object: &Value) -> BTreeSet<ObjectRef> {
    let mut found = BTreeSet::new();
    if let Some(spec) = object.get("spec").filter(|_| refers(kind)) {
        collect(spec, namespace, &mut found);
    }
    found
}

/// What those that are handed out refer to, apart from Gateways of other controllers and their ListenerSets.
pub(super) fn references_of_all(objects: &Objects) -> BTreeSet<ObjectRef> {
    let mut found = BTreeSet::new();
    let ours: BTreeSet<&ObjectName> = ours(objects).into_iter().map(|(name, _)| name).collect();
    let (mut gateways, mut sets) = (objects.gateways.clone(), objects.listener_sets.clone());
    gateways.retain(|name, _| ours.contains(name));
    sets.retain(|name, set| {
        let parent = &set.spec.parent_ref;
        let namespace = parent.namespace.as_deref().unwrap_or(&name.namespace);
        ours.contains(&ObjectName::new(namespace, parent.name.as_str()))
    });
    add(Kind::Gateway, &gateways, &mut found);
    add(Kind::ListenerSet, &sets, &mut found);
    add(Kind::BackendTlsPolicy, &objects.backend_tls_policies, &mut found);
    add(Kind::AiService, &objects.ai_services, &mut found);
    add(Kind::WasmPlugin, &objects.wasm_plugins, &mut found);
    found
}

fn add<T: Serialize>(kind: Kind, objects: &ByName<T>, found: &mut BTreeSet<ObjectRef>) {
    for (name, object) in objects {
        // Objects of Kubernetes have no form that JSON has not.
        let object = serde_json::to_value(&**object).unwrap_or_default();
        found.extend(references(kind, &name.namespace, &object));
    }
}

fn collect(value: &Value, namespace: &str, found: &mut BTreeSet<ObjectRef>) {
    match value {
        Value::Array(values) => values.iter().for_each(|value| collect(value, namespace, found)),
        Value::Object(fields) => {
            for (field, value) in fields {
                if let Some((_, kind)) = FIELDS.iter().find(|(name, _)| name == field) {
                    let one = std::slice::from_ref(value);
                    let values = value.as_array().map_or(one, Vec::as_slice);
                    found.extend(values.iter().filter_map(|value| reference(*kind, namespace, value)));
                }
                collect(value, namespace, found);
            }
        }
        _ => {}
    }
}

/// What a value refers to: a name alone, or a reference as any kind of object writes it.
fn reference(kind: Kind, namespace: &str, value: &Value) -> Option<ObjectRef> {
    let text = |field: &str| value.get(field).and_then(Value::as_str);
    let kind = kind.info().name;
    let name =
        value.as_str().or_else(|| text("name")).filter(|_| text("kind").is_none_or(|named| named == kind))?;
    let name = ObjectName::new(text("namespace").unwrap_or(namespace), name);
    Some(ObjectRef { kind, name })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde_json::json;

    use super::*;
    use crate::{gates::FeatureGates, source::Files, translate::translate};

    #[test]
    fn a_reference_names_the_kind_that_is_meant_or_none_and_may_name_a_namespace() {
        let gateway = json!({ "spec": { "listeners": [
            { "tls": { "certificateRefs": [{ "name": "own" }, { "name": "other", "namespace": "certs" }] } },
            { "tls": { "certificateRefs": [{ "kind": "ConfigMap", "name": "map" }, { "kind": "Secret", "name": "x" }] } },
        ] } });
        let found = |kind| {
            let found = references(kind, "demo", &gateway);
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(found(Kind::Gateway), ["Secret certs/other", "Secret demo/own", "Secret demo/x"]);
        assert!(found(Kind::Service).is_empty());
    }

    /// The names of all fields below a schema.
    fn fields(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Array(values) => values.iter().for_each(|value| fields(value, found)),
            Value::Object(parts) => {
                let named = parts.get("properties").and_then(Value::as_object);
                found.extend(named.into_iter().flat_map(|named| named.keys().cloned()));
                parts.values().for_each(|value| fields(value, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_field_that_may_refer_to_one_is_known() {
        for kind in Kind::ALL.into_iter().filter(|kind| !kind.is_read_on_reference()) {
            let mut found = BTreeSet::new();
            fields(&kind.document(), &mut found);
            let suspects = ["secret", "configmap", "certificateref", "keyref"];
            found.retain(|field| suspects.iter().any(|part| field.to_ascii_lowercase().contains(part)));
            // The key itself, which is no reference.
            found.remove("secretKey");
            let is_known = |field: &String| FIELDS.iter().any(|(known, _)| known == field);
            assert!(found.is_empty() || (refers(kind) && found.iter().all(is_known)), "{kind:?}: {found:?}");
        }
    }

    #[test]
    fn what_nothing_refers_to_changes_nothing() {
        let worlds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let mut dropped = 0;
        for world in fs::read_dir(worlds).unwrap() {
            let path = world.unwrap().path();
            let all = Files::new([path.clone()]).load().objects;
            let mut wanted = all.clone();
            let found = references_of_all(&all);
            let is_found = |kind, name: &ObjectName| found.contains(&ObjectRef { kind, name: name.clone() });
            wanted.secrets.retain(|name, _| is_found("Secret", name));
            wanted.config_maps.retain(|name, _| is_found("ConfigMap", name));
            dropped += all.len() - wanted.len();
            let gates = FeatureGates::all();
            assert_eq!(translate(&all, gates), translate(&wanted, gates), "{}", path.display());
        }
        assert!(dropped > 0, "some refer to none");
    }
}
