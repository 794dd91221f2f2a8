//! The schema of each kind that is not ours: the fields of the Rust type, and the bounds that the API server
//! adds.

use nantian_crd::schema::{Compiler, Validator};
use serde_json::{Map, Value, json};

use super::{
    bounds::{BOUNDS, Bound, form},
    kind::Kind,
};

/// What checks objects of `kind`.
pub(super) fn validator(kind: Kind) -> Validator {
    let secrets = if kind == Kind::Secret { &["data", "stringData"][..] } else { &[] };
    let rules = BOUNDS.iter().filter_map(Bound::rule);
    Compiler::new().hints(form::HINTS).rules(rules).redacting(secrets.iter().copied()).compile(&bounded(kind))
}

/// The schema of `kind` with all bounds and without references.
fn bounded(kind: Kind) -> Value {
    let mut document = kind.document();
    // Types that older versions of the API were made into have the same fields.
    if let Some(version) = document.pointer_mut("/properties/apiVersion") {
        *version = json!({ "enum": [kind.info().api_version()] });
    }
    let none = Map::new();
    let definitions = document.get("$defs").and_then(Value::as_object).unwrap_or(&none);
    Bounding { definitions }.node(&document, kind.info().name)
}

/// Copies a schema, with its references resolved, and adds the bounds of each field on the way.
struct Bounding<'a> {
    definitions: &'a Map<String, Value>,
}

impl Bounding<'_> {
    /// The schema of the field at `path`.
    fn node(&self, node: &Value, path: &str) -> Value {
        let Some(node) = node.as_object() else {
            return node.clone();
        };
        if let Some(target) = self.target(node).or_else(|| non_null(node)) {
            return self.node(target, path);
        }
        let mut copy = Map::new();
        for (keyword, value) in node {
            let value = match (keyword.as_str(), value) {
                ("$defs" | "title" | "description" | "default", _) => continue,
                ("properties", Value::Object(fields)) => self.fields(fields, path),
                ("items" | "additionalProperties", value) => self.node(value, &format!("{path}[]")),
                (_, value) => value.clone(),
            };
            copy.insert(keyword.clone(), value);
        }
        let bounds = BOUNDS.iter().filter(|bound| bound.is_of(path));
        bounds.for_each(|bound| copy.extend(bound.keywords()));
        Value::Object(copy)
    }

    fn fields(&self, fields: &Map<String, Value>, path: &str) -> Value {
        let field =
            |(name, node): (&String, &Value)| (name.clone(), self.node(node, &format!("{path}.{name}")));
        Value::Object(fields.iter().map(field).collect())
    }

    fn target(&self, node: &Map<String, Value>) -> Option<&Value> {
        let name = node.get("$ref")?.as_str()?.rsplit('/').next()?;
        self.definitions.get(name)
    }
}

/// What an optional field is if it is there; null is then the same as nothing.
fn non_null(node: &Map<String, Value>) -> Option<&Value> {
    let alternatives = node.get("anyOf")?.as_array()?;
    let mut others = alternatives.iter().filter(|node| node.get("type").is_none_or(|name| name != "null"));
    others.next().filter(|_| others.next().is_none())
}

#[cfg(test)]
mod tests {
    use nantian_crd::FieldPath;

    use super::*;

    /// The path of every field below `node`, which is at `path`.
    fn paths(node: &Value, path: String, all: &mut Vec<String>) {
        for (name, field) in node.get("properties").and_then(Value::as_object).into_iter().flatten() {
            paths(field, format!("{path}.{name}"), all);
        }
        for keyword in ["items", "additionalProperties"] {
            node.get(keyword).into_iter().for_each(|item| paths(item, format!("{path}[]"), all));
        }
        all.push(path);
    }

    #[test]
    fn every_bound_is_on_a_field_that_exists() {
        let mut all = Vec::new();
        for kind in Kind::ALL {
            paths(&bounded(kind), kind.info().name.to_owned(), &mut all);
        }
        for bound in BOUNDS {
            assert!(all.iter().any(|path| bound.is_of(path)), "{bound:?}");
        }
    }

    #[test]
    fn every_form_is_a_regular_expression_with_a_meaning() {
        let told = |schema: &Value| {
            let faults = Compiler::new().hints(form::HINTS).compile(schema);
            faults
                .validate(&json!(" "), &FieldPath::root())
                .iter()
                .map(ToString::to_string)
                .collect::<String>()
        };
        for pattern in BOUNDS.iter().filter_map(|bound| bound.keywords().remove("pattern")) {
            let said = told(&json!({ "type": "string", "pattern": pattern }));
            assert!(!said.is_empty() && !said.contains("of the form"), "{pattern}: {said}");
        }
    }
}
