//! What is noted of an object that was seen.

use kube::api::{DynamicObject, ObjectMeta};
use serde_json::{Map, Value};

use crate::{
    ir::ObjectName,
    source::{kind::Kind, objects::ObjectRef},
};

/// The kind and name of an object; nothing if it has no name.
pub(super) fn name(kind: Kind, metadata: &ObjectMeta) -> Option<ObjectRef> {
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = ObjectName::new(namespace, metadata.name.as_deref()?);
    Some(ObjectRef { kind: kind.info().name, name })
}

/// What decides whose an object is.
pub(super) fn owner(kind: Kind, name: &ObjectRef, object: &Value) -> Option<ObjectRef> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str);
    match kind {
        Kind::Gateway => {
            let class = ObjectName::new("", text("/spec/gatewayClassName")?);
            Some(ObjectRef { kind: Kind::GatewayClass.info().name, name: class })
        }
        Kind::ListenerSet => {
            let namespace = text("/spec/parentRef/namespace").unwrap_or(&name.name.namespace);
            let gateway = ObjectName::new(namespace, text("/spec/parentRef/name")?);
            Some(ObjectRef { kind: Kind::Gateway.info().name, name: gateway })
        }
        _ => None,
    }
}

/// The object as its author wrote it: what the server adds at every write is no change of it.
pub(super) fn plain(
    kind: Kind,
    DynamicObject { mut metadata, data, .. }: DynamicObject,
) -> Map<String, Value> {
    metadata.resource_version = None;
    metadata.managed_fields = None;
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), kind.info().api_version().into());
    object.insert("kind".to_owned(), kind.info().name.into());
    // Metadata has no form that cannot be written as JSON.
    object.insert("metadata".to_owned(), serde_json::to_value(metadata).unwrap_or_default());
    if let Value::Object(data) = data {
        object.extend(data.into_iter().filter(|(field, _)| field != "status"));
    }
    object
}
