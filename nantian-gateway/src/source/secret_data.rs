//! The bytes in Secrets and ConfigMaps.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use super::kind::Kind;

/// Takes the line breaks out of base64, which block scalars bring in and the API server ignores.
pub(super) fn join_lines(kind: Kind, object: &mut Map<String, Value>) {
    let field = match kind {
        Kind::Secret => "data",
        Kind::ConfigMap => "binaryData",
        _ => return,
    };
    for text in object.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut) {
        if let Value::String(text) = text {
            text.retain(|character| !matches!(character, '\n' | '\r'));
        }
    }
}

/// Merges the `stringData` of a Secret that has passed all checks into its `data`, as the API server does.
pub(super) fn merge_string_data(kind: Kind, object: &mut Map<String, Value>) {
    if kind != Kind::Secret {
        return;
    }
    let Some(Value::Object(texts)) = object.remove("stringData") else {
        return;
    };
    let data = object.entry("data").or_insert(Value::Null);
    if data.is_null() {
        *data = Value::Object(Map::new());
    }
    if let Value::Object(data) = data {
        let encode = |text: &Value| STANDARD.encode(text.as_str().unwrap_or_default());
        data.extend(texts.iter().map(|(key, text)| (key.clone(), encode(text).into())));
    }
}
