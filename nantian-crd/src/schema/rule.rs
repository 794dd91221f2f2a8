//! Rules across fields (`x-kubernetes-validations`), and what patterns mean in words.

use schemars::Schema;
use serde_json::{Value, json};

/// A rule across fields: once as CEL for the API server, once as Rust for offline validation, both with the
/// same verdict.
///
/// The CEL text stands in a schema as `x-kubernetes-validations`; the validator recognises it there and calls
/// the Rust. On values that the rest of the schema refuses, `holds` should say yes, so that one mistake gives
/// one fault.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rule {
    /// The rule in CEL; `self` is the value that the rule is attached to.
    pub cel: &'static str,
    /// The rule in words, such that it can follow the value of `field`.
    pub message: &'static str,
    /// The field, directly below the value, that is to blame; the value itself if absent.
    pub field: Option<&'static str>,
    /// The rule in Rust.
    pub holds: fn(&Value) -> bool,
}

/// Says in words what a `pattern` of a schema asks for.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Hint {
    /// The pattern, exactly as the schema has it.
    pub pattern: &'static str,
    /// What matches it, such that it can follow "is not".
    pub meaning: &'static str,
}

// === impl Rule ===

impl Rule {
    /// A rule whose value is to blame where it does not hold.
    pub const fn new(cel: &'static str, message: &'static str, holds: fn(&Value) -> bool) -> Self {
        Self { cel, message, field: None, holds }
    }

    /// Blames the [`field`](Self::field).
    #[must_use]
    pub const fn with_field(self, field: &'static str) -> Self {
        Self { field: Some(field), ..self }
    }
}

// === impl Hint ===

impl Hint {
    /// Says what `pattern` asks for.
    pub const fn new(pattern: &'static str, meaning: &'static str) -> Self {
        Self { pattern, meaning }
    }
}

/// A transform that puts `rules` into a schema.
pub(crate) fn enforcing(rules: &'static [Rule]) -> impl FnMut(&mut Schema) {
    move |schema| {
        let rules: Vec<_> = rules.iter().map(validation).collect();
        schema.insert("x-kubernetes-validations".to_owned(), rules.into());
    }
}

fn validation(rule: &Rule) -> Value {
    match rule.field {
        Some(field) => json!({ "rule": rule.cel, "message": rule.message, "fieldPath": format!(".{field}") }),
        None => json!({ "rule": rule.cel, "message": rule.message }),
    }
}

/// Whether `object` has the field; null counts as absent, as it does for the API server.
pub(crate) fn has(object: &Value, field: &str) -> bool {
    child(object, field).is_some()
}

/// The text in a field of `object`, if it is there and is text.
pub(crate) fn text<'a>(object: &'a Value, field: &str) -> Option<&'a str> {
    child(object, field).and_then(Value::as_str)
}

/// A field of `object`, if it is there.
pub(crate) fn child<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get(field).filter(|value| !value.is_null())
}

/// The items of `list`; none if it is no list.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}
