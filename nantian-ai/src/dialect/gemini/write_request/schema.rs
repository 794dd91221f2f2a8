//! Schemas as Gemini takes them: beside a `$ref` next to nothing may stand but other members of that kind.

use memchr::memmem;

use crate::codec::Value;
use crate::ir::Json;

/// The schema without what stands beside references, other than what is `taken` there; `None` if there is
/// nothing.
pub(super) fn without_neighbours(schema: &Json, taken: &[&str]) -> Option<Json> {
    if !refers(schema) {
        return None;
    }
    let mut value = Value::parse(schema.as_str().as_bytes()).ok()?;
    strip(&mut value, taken).then(|| Json::of(&value))
}

/// Whether there may be a reference in it.
pub(super) fn refers(json: &Json) -> bool {
    memmem::find(json.as_str().as_bytes(), b"\"$ref\"").is_some()
}

/// Strips a value of them, and tells whether there were any.
fn strip(value: &mut Value, taken: &[&str]) -> bool {
    match value {
        Value::Array(list) => list.iter_mut().fold(false, |found, value| strip(value, taken) | found),
        Value::Object(members) => {
            let refers = members.iter().any(|(name, value)| name == "$ref" && value.as_str().is_some());
            let before = members.len();
            // An older name of `$defs`, without which the reference would be to nothing.
            members.retain(|(name, _)| {
                !refers || name.starts_with('$') || name == "definitions" || taken.contains(&name.as_str())
            });
            let is_stripped = members.len() < before;
            members.iter_mut().fold(is_stripped, |found, (_, value)| strip(value, taken) | found)
        }
        Value::Carried(json) => {
            let stripped = without_neighbours(json, taken);
            let is_stripped = stripped.is_some();
            stripped.into_iter().for_each(|stripped| *json = stripped);
            is_stripped
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stands_beside_a_reference() {
        for (schema, left) in [
            (
                r##"{"properties":{"a":{"$ref":"#/$defs/a","description":"d","$comment":"c"},"input":{"$ref":"#/$defs/a","title":"t"}},"$defs":{"a":{"type":"string"}}}"##,
                r##"{"properties":{"a":{"$ref":"#/$defs/a","$comment":"c"},"input":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"string"}}}"##,
            ),
            (
                r##"{"$ref":"#/definitions/a","title":"t","definitions":{"a":{"anyOf":[{"$ref":"#/definitions/b","default":1.10}]}}}"##,
                r##"{"$ref":"#/definitions/a","definitions":{"a":{"anyOf":[{"$ref":"#/definitions/b"}]}}}"##,
            ),
        ] {
            let schema = Json::parse(schema).unwrap();
            assert_eq!(without_neighbours(&schema, &[]).unwrap().as_str(), left);
        }
        for whole in [
            r##"{"properties":{"a":{"$ref":"#/$defs/a"}}}"##,
            // A property of that name.
            r#"{"properties":{"$ref":{"type":"string"},"a":{"type":"string"}}}"#,
            r#"{"type":"object"}"#,
        ] {
            assert_eq!(without_neighbours(&Json::parse(whole).unwrap(), &[]), None, "{whole}");
        }
    }
}
