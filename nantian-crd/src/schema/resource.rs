//! Schemas of whole objects, metadata included.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{compile::Compiler, validator::Validator};
use crate::target_ref::DNS_NAME;

/// The schema of whole objects of kind `K`: the schema of the type, with `apiVersion`, `kind` and `metadata`.
///
/// Works for the kinds of Kubernetes itself as for custom resources. `status` is the business of controllers
/// and may be anything.
pub fn resource<K>() -> Value
where
    K: Resource<DynamicType = ()> + JsonSchema,
{
    let root = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<K>();
    whole(root.to_value(), &K::api_version(&()), &K::kind(&()))
}

impl Validator {
    /// Checks whole objects of kind `K`, see [`resource`].
    pub fn of<K>() -> Self
    where
        K: Resource<DynamicType = ()> + JsonSchema,
    {
        Compiler::new().compile(&resource::<K>())
    }
}

/// Completes the schema of an object with what all objects have in common.
pub(crate) fn whole(mut schema: Value, api_version: &str, kind: &str) -> Value {
    let Value::Object(root) = &mut schema else {
        return schema;
    };
    let properties = entry(root, "properties", json!({}));
    if let Value::Object(properties) = properties {
        properties.insert("apiVersion".to_owned(), json!({ "enum": [api_version] }));
        properties.insert("kind".to_owned(), json!({ "enum": [kind] }));
        properties.insert("metadata".to_owned(), metadata());
        properties.insert("status".to_owned(), Value::Bool(true));
    }
    if let Value::Array(required) = entry(root, "required", json!([])) {
        for name in ["apiVersion", "kind", "metadata"] {
            if !required.iter().any(|other| other == name) {
                required.push(name.into());
            }
        }
    }
    schema
}

fn entry<'a>(object: &'a mut Map<String, Value>, key: &str, default: Value) -> &'a mut Value {
    object.entry(key).or_insert(default)
}

/// Metadata of an object that has its name, as opposed to one that waits for the API server to give it one.
fn metadata() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<ObjectMeta>().to_value();
    if let Value::Object(root) = &mut schema {
        root.insert("required".to_owned(), json!(["name"]));
        if let Value::Object(properties) = entry(root, "properties", json!({})) {
            for (field, most) in [("name", 253), ("namespace", 63)] {
                properties.insert(
                    field.to_owned(),
                    json!({ "type": "string", "minLength": 1, "maxLength": most, "pattern": DNS_NAME }),
                );
            }
        }
    }
    schema
}
