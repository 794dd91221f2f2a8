//! The committed CRD files are what the types say. To bring them up to date:
//! `UPDATE_CRDS=1 cargo nextest run -p nantian-crd crds_on_disk`.

use std::{env, fs, path::PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use nantian_crd::{crds, crds_yaml};

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "deploy", "crds"].iter().collect()
}

/// The documents of the stream, with the name of each.
fn documents() -> Vec<(String, String)> {
    let names = crds().into_iter().map(|crd| crd.metadata.name.expect("a CRD has a name"));
    let stream = crds_yaml();
    let documents = stream.split_terminator("---\n").skip(1).map(str::to_owned);
    names.zip(documents).collect()
}

#[test]
fn are_what_the_types_say() {
    let documents = documents();
    assert_eq!(documents.len(), 4);
    for (name, document) in &documents {
        let path = folder().join(format!("{name}.yaml"));
        if env::var_os("UPDATE_CRDS").is_some() {
            fs::create_dir_all(folder()).expect("the folder can be made");
            fs::write(&path, document).expect("the file can be written");
        }
        let on_disk = fs::read_to_string(&path).unwrap_or_default();
        assert!(on_disk == *document, "{} is not up to date: see the head of this test", path.display());
    }
}

#[test]
fn are_all_there_is_in_the_folder() {
    let mut found: Vec<_> = fs::read_dir(folder())
        .expect("the folder exists")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8"))
        .collect();
    found.sort();
    let mut expected: Vec<_> = documents().into_iter().map(|(name, _)| format!("{name}.yaml")).collect();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn read_back_as_the_same_definitions() {
    let stream: Vec<CustomResourceDefinition> =
        serde_saphyr::from_multiple(&crds_yaml()).expect("the stream is YAML");
    assert!(stream == crds(), "the stream reads back as other definitions");
}

/// What the API server demands of every part of a schema before it takes the definition.
fn assert_structural(schema: &JSONSchemaProps, path: &str) {
    let of_any_type = schema.x_kubernetes_int_or_string == Some(true);
    assert!(schema.type_.is_some() || of_any_type, "{path} has no type");
    assert!(schema.ref_path.is_none() && schema.definitions.is_none(), "{path} has references");
    assert!(
        schema.any_of.is_none() && schema.one_of.is_none() && schema.all_of.is_none(),
        "{path} has alternatives"
    );
    assert!(schema.nullable.is_none() && schema.unique_items.is_none(), "{path} is nullable or unique");
    let formats = ["int32", "int64", "double", "date-time", "password"];
    let format = schema.format.as_deref();
    assert!(format.is_none_or(|format| formats.contains(&format)), "{path} has the format {format:?}");
    let fields: Vec<_> = schema.properties.iter().flatten().collect();
    for rule in schema.x_kubernetes_validations.iter().flatten() {
        let field = rule.field_path.as_deref().and_then(|path| path.strip_prefix('.'));
        assert!(field.is_none_or(|field| fields.iter().any(|(name, _)| *name == field)), "{path}: {rule:?}");
    }
    for (name, field) in fields {
        assert!(
            !["y", "n", "yes", "no", "on", "off"].contains(&name.as_str()),
            "{path}.{name} is a boolean in YAML 1.1"
        );
        assert_structural(field, &format!("{path}.{name}"));
    }
    if let Some(JSONSchemaPropsOrArray::Schema(item)) = &schema.items {
        for key in schema.x_kubernetes_list_map_keys.iter().flatten() {
            assert!(item.required.iter().flatten().any(|name| name == key), "{path} may lack its key {key}");
        }
        assert!(schema.max_items.is_some(), "{path} has no bound, so that rules on it have no bounded cost");
        assert_structural(item, &format!("{path}[]"));
    }
}

#[test]
fn are_structural() {
    for crd in crds() {
        let name = crd.spec.names.plural;
        for version in crd.spec.versions {
            let schema = version.schema.and_then(|schema| schema.open_api_v3_schema).expect("a schema");
            assert_structural(&schema, &name);
        }
    }
}

#[test]
fn say_how_policies_spread_and_why_they_may_be_in_their_group() {
    for crd in crds() {
        let kind = crd.spec.names.kind.as_str();
        let labels = crd.metadata.labels.unwrap_or_default();
        let spread = labels.get("gateway.networking.k8s.io/policy").map(String::as_str);
        let expected = match kind {
            "AIService" => None,
            "BackendLBPolicy" => Some("Direct"),
            _ => Some("Inherited"),
        };
        assert_eq!(spread, expected, "{kind}");
        let annotations = crd.metadata.annotations.unwrap_or_default();
        let approved =
            annotations.get("api-approved.kubernetes.io").is_some_and(|text| text.starts_with("unapproved,"));
        assert_eq!(approved, crd.spec.group.ends_with(".k8s.io"), "{kind}");
        assert_eq!(annotations.contains_key("gateway.networking.k8s.io/bundle-version"), approved, "{kind}");
        assert_eq!(annotations.contains_key("gateway.networking.k8s.io/channel"), approved, "{kind}");
    }
}
