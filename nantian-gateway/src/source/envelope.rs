//! What every object says first: its kind and its name.

use serde_json::{Map, Value};

use super::{fault::Subject, kind::Kind, meaning::Meaning, objects::ObjectRef};
use crate::ir::ObjectName;

/// What a document turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Envelope {
    /// An object that the gateway reads.
    Object(Kind, ObjectName),
    /// An object of a kind of someone else.
    Skipped(Subject),
    /// An object of a kind of the Gateway API that the gateway does not serve.
    Unserved(Subject),
    /// Not an object that anything could be said about: the field and the reason.
    Faulty(Option<Subject>, &'static str, String),
}

/// A name that an API server would not take.
const NOT_A_NAME: &str = "is not a DNS name: lower-case letters, digits, - and ., at most 253";
pub(super) const NOT_A_LABEL: &str = "is not a DNS label: lower-case letters, digits and -, at most 63";

// === impl Envelope ===

impl Envelope {
    /// Opens the envelope of `object`.
    pub(super) fn open(object: &Map<String, Value>) -> Self {
        let kind = match text(object, "kind") {
            Ok(kind) => kind,
            Err(reason) => return Self::Faulty(None, "kind", reason),
        };
        let metadata = object.get("metadata").and_then(Value::as_object);
        let field = |field| metadata.and_then(|metadata| metadata.get(field)?.as_str()).unwrap_or_default();
        let (namespace, name) = (field("namespace"), field("name"));
        let name = (!name.is_empty()).then(|| ObjectName::new(namespace, name));
        let subject = Some(Subject { kind: kind.to_owned(), name });
        let meaning = match text(object, "apiVersion") {
            Ok(api_version) => Meaning::of(api_version, kind),
            Err(reason) => return Self::Faulty(subject, "apiVersion", reason),
        };
        match (meaning, subject) {
            (Meaning::Read(kind), subject) => Self::named(kind, subject, metadata),
            (Meaning::Slip(field, reason), subject) => Self::Faulty(subject, field, reason),
            (Meaning::Skipped, Some(subject)) => Self::Skipped(subject),
            (Meaning::Unserved, Some(subject)) => Self::Unserved(subject),
            (Meaning::Skipped | Meaning::Unserved, None) => Self::Faulty(None, "kind", MISSING.to_owned()),
        }
    }

    fn named(kind: Kind, subject: Option<Subject>, metadata: Option<&Map<String, Value>>) -> Self {
        let Some(metadata) = metadata else {
            return Self::Faulty(subject, "metadata", MISSING.to_owned());
        };
        let name = match text(metadata, "name") {
            Ok(name) => name,
            Err(reason) => return Self::Faulty(subject, "metadata.name", reason),
        };
        if kind.is_named_by_a_label() && !is_label(name) {
            return Self::Faulty(subject, "metadata.name", format!("{name:?} {NOT_A_LABEL}"));
        }
        if !is_name(name) {
            return Self::Faulty(subject, "metadata.name", format!("{name:?} {NOT_A_NAME}"));
        }
        if !kind.info().is_namespaced {
            return Self::Object(kind, ObjectName::new("", name));
        }
        let namespace = match metadata.get("namespace") {
            None | Some(Value::Null) => DEFAULT_NAMESPACE,
            Some(Value::String(namespace)) if is_label(namespace) => namespace,
            Some(Value::String(namespace)) => {
                return Self::Faulty(subject, "metadata.namespace", format!("{namespace:?} {NOT_A_LABEL}"));
            }
            Some(_) => return Self::Faulty(subject, "metadata.namespace", NOT_TEXT.to_owned()),
        };
        Self::Object(kind, ObjectName::new(namespace, name))
    }
}

/// The namespace of an object that names none.
const DEFAULT_NAMESPACE: &str = "default";
const MISSING: &str = "required field is missing";
const NOT_TEXT: &str = "is not a string";

fn text<'a>(object: &'a Map<String, Value>, field: &str) -> Result<&'a str, String> {
    match object.get(field) {
        None | Some(Value::Null) => Err(MISSING.to_owned()),
        Some(Value::String(text)) if text.is_empty() => Err(MISSING.to_owned()),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(_) | Value::Object(_)) => Err(NOT_TEXT.to_owned()),
        // YAML makes booleans of `n` and `yes`.
        Some(_) => Err(format!("{NOT_TEXT}; put it in quotes")),
    }
}

fn is_name(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_alphanumeric_inside)
}

pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && is_alphanumeric_inside(text)
}

fn is_alphanumeric_inside(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let ends = [text.bytes().next(), text.bytes().next_back()];
    ends.into_iter().all(|end| end.is_some_and(is_inner))
        && text.bytes().all(|byte| is_inner(byte) || byte == b'-')
}

/// The items of a `List`, or of a list of one kind.
pub(super) fn list_items(object: &Map<String, Value>) -> Option<&Vec<Value>> {
    object.get("kind")?.as_str()?.strip_suffix("List")?;
    object.get("items")?.as_array()
}

/// The name of `object` in reports.
pub(super) fn reference(kind: Kind, name: ObjectName) -> ObjectRef {
    ObjectRef { kind: kind.info().name, name }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn open(value: &Value) -> Envelope {
        Envelope::open(value.as_object().unwrap())
    }

    fn gateway(metadata: &Value) -> Value {
        json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": metadata })
    }

    #[test]
    fn an_object_without_namespace_is_in_default() {
        let found = open(&gateway(&json!({ "name": "web" })));
        assert_eq!(found, Envelope::Object(Kind::Gateway, ObjectName::new("default", "web")));
    }

    #[test]
    fn a_cluster_scoped_object_has_no_namespace() {
        let namespace =
            json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "a", "namespace": "b" } });
        assert_eq!(open(&namespace), Envelope::Object(Kind::Namespace, ObjectName::new("", "a")));
    }

    #[test]
    fn a_name_has_to_be_a_dns_name() {
        for name in ["", "Web", "-web", "web-", "a..b", "a_b", &"a".repeat(254)] {
            let found = open(&gateway(&json!({ "name": name })));
            assert!(matches!(found, Envelope::Faulty(_, "metadata.name", _)), "{name:?}: {found:?}");
        }
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a.b" } });
        assert!(matches!(open(&service), Envelope::Faulty(_, "metadata.name", _)));
    }
}
