//! Schemas that OpenAI enforces: it refuses a request with any that leaves something open, or says it in
//! words that it does not know ("Supported schemas" of its guide to structured outputs).

use std::collections::HashSet;

use crate::codec::Value;
use crate::ir::{Json, Tool};

/// The most levels of a schema.
const MOST_LEVELS: u8 = 64;

/// What it refuses in a schema, closed or not.
const REFUSED: [&str; 22] = [
    "allOf",
    "contains",
    "default",
    "dependentRequired",
    "dependentSchemas",
    "else",
    "if",
    "maxContains",
    "maxLength",
    "maxProperties",
    "minContains",
    "minLength",
    "minProperties",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
];

/// The formats of strings that it knows; it refuses others, such as `uri`.
const FORMATS: [&str; 9] =
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uuid"];

/// Whether a tool can be strict as the client wants it: each object of its schema is closed, and all its
/// properties are required.
pub(crate) fn is_strict(tool: &Tool) -> bool {
    tool.strict == Some(true) && read(&tool.schema).is_some_and(|schema| is_enforced(&schema))
}

/// Whether an answer can be held to this schema.
pub(crate) fn holds_answers(schema: &Json) -> bool {
    let is_object = |schema: &Value| schema.get("type").and_then(Value::as_str) == Some("object");
    read(schema).is_some_and(|schema| is_object(&schema) && is_enforced(&schema))
}

fn is_enforced(schema: &Value) -> bool {
    is_whole(schema) && schema.get("anyOf").is_none() && is_closed(schema, MOST_LEVELS)
}

/// Whether the client wants a tool to be strict that cannot be.
pub(crate) fn loses_strictness(tool: &Tool) -> bool {
    tool.strict == Some(true) && !is_strict(tool)
}

fn is_closed(schema: &Value, levels: u8) -> bool {
    let Some(levels) = levels.checked_sub(1) else { return false };
    if let Value::Carried(json) = schema {
        return read(json).is_some_and(|schema| is_closed(&schema, levels));
    }
    let Value::Object(members) = schema else { return false };
    // Nothing may stand beside a reference, and all else must have a type.
    if schema.get("$ref").is_some() {
        return members.len() == 1;
    }
    if schema.get("type").is_none() && schema.get("anyOf").is_none() {
        return false;
    }
    let is_object = |kind: &Value| kind.as_str() == Some("object");
    let may_be_object =
        schema.get("type").is_some_and(|kind| is_object(kind) || kind.as_list().iter().any(is_object));
    if (may_be_object || schema.get("properties").is_some()) && !is_whole(schema) {
        return false;
    }
    members.iter().all(|(name, value)| match (name.as_str(), value) {
        ("properties" | "$defs" | "definitions", Value::Object(schemas)) => {
            schemas.iter().all(|(_, schema)| is_closed(schema, levels))
        }
        ("items", schema) => is_closed(schema, levels),
        ("anyOf", schemas) => schemas.as_list().iter().all(|schema| is_closed(schema, levels)),
        ("format", format) => format.as_str().is_none_or(|format| FORMATS.contains(&format)),
        (name, _) if REFUSED.contains(&name) => false,
        _ => true,
    })
}

/// Whether an object has no keys but those that it must have.
fn is_whole(object: &Value) -> bool {
    let required = object.get("required").map(Value::as_list).unwrap_or_default();
    let required: HashSet<_> = required.iter().filter_map(Value::as_str).collect();
    let is_required = match object.get("properties") {
        None => true,
        Some(Value::Object(properties)) => {
            properties.iter().all(|(name, _)| required.contains(name.as_str()))
        }
        Some(_) => false,
    };
    is_required && object.get("additionalProperties").and_then(Value::as_bool) == Some(false)
}

fn read(json: &Json) -> Option<Value> {
    Value::parse(json.as_str().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_strict_with(schema: &str) -> bool {
        let schema = Json::parse(schema).unwrap();
        let (name, strict) = ("f".to_owned(), Some(true));
        is_strict(&Tool { name, description: None, schema, strict, cached: None })
    }

    #[test]
    fn a_schema_is_enforced_that_leaves_nothing_open() {
        for schema in [
            r#"{"type":"object","properties":{},"additionalProperties":false}"#,
            r#"{"type":"object","properties":{"a":{"type":["string","null"]}},"required":["a"],"additionalProperties":false}"#,
            r#"{"type":"object","properties":{"format":{"type":"string","format":"date"},"default":{"type":"string","enum":["not"]}},"required":["format","default"],"additionalProperties":false}"#,
            r#"{"type":"object","properties":{"properties":{"type":"string"},"input":{"type":"array","items":{"type":"string"}}},"required":["properties","input"],"additionalProperties":false}"#,
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/A"},"b":{"anyOf":[{"$ref":"#/$defs/A"},{"type":"null"}]}},"required":["a","b"],"additionalProperties":false,"$defs":{"A":{"type":"string"}}}"##,
        ] {
            assert!(is_strict_with(schema), "{schema}");
        }
    }

    #[test]
    fn one_that_leaves_something_open_is_not() {
        const OPEN: &str =
            r#"{"type":"object","properties":{"b":{"type":"string"}},"additionalProperties":false}"#;
        for schema in [
            "{}".to_owned(),
            OPEN.to_owned(),
            r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#.to_owned(),
            format!(r#"{{"type":"object","properties":{{"a":{OPEN}}},"required":["a"],"additionalProperties":false}}"#),
            format!(
                r#"{{"type":"object","properties":{{"input":{OPEN}}},"required":["input"],"additionalProperties":false}}"#
            ),
            format!(
                r#"{{"type":"object","properties":{{"a":{{"type":"array","items":{OPEN}}}}},"required":["a"],"additionalProperties":false}}"#
            ),
            format!(
                r#"{{"type":"object","properties":{{"a":{{"anyOf":[{OPEN}]}}}},"required":["a"],"additionalProperties":false}}"#
            ),
            format!(r#"{{"type":"object","properties":{{}},"$defs":{{"x":{OPEN}}},"additionalProperties":false}}"#),
            // Closed, but in words that OpenAI refuses.
            r#"{"type":"object","properties":{"a":{"type":["string","null"],"oneOf":[{"type":"string"},{"type":"null"}]}},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{"a":{"type":"string","not":{"type":"string"}}},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{"a":{"type":"string","format":"uri"}},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{"a":{"type":"string","default":""}},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{},"additionalProperties":false,"anyOf":[{"type":"object","additionalProperties":false}]}"#.to_owned(),
            r##"{"type":"object","properties":{"a":{"$ref":"#/$defs/A","description":"d"}},"required":["a"],"additionalProperties":false,"$defs":{"A":{"type":"string"}}}"##.to_owned(),
            r#"{"type":"object","properties":{"a":{}},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{"a":{"title":"A"}},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{"a":true},"required":["a"],"additionalProperties":false}"#.to_owned(),
            r#"{"type":"object","properties":{"a":{"type":"array","items":[{"type":"string"}]}},"required":["a"],"additionalProperties":false}"#.to_owned(),
        ] {
            assert!(!is_strict_with(&schema), "{schema}");
        }
    }
}
