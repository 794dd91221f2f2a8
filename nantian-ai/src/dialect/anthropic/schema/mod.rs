//! JSON Schemas as Claude enforces them, which is less than JSON Schema can say.
//!
//! Objects are closed, and what else is not known goes into the description, as Anthropic's own SDKs do it:
//! it is asked for, not enforced. A schema that would become another one is none: objects of any keys, any
//! value, recursion.

use std::collections::HashSet;

use crate::codec::Value;
use crate::ir::Json;

/// The formats of strings that are enforced.
const FORMATS: [&str; 10] =
    ["date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid"];

/// What says nothing of values.
const OF_THE_SCHEMA: [&str; 3] = ["$comment", "$id", "$schema"];

/// What is kept as it is.
const KEPT: [&str; 3] = ["description", "title", "default"];

/// What says which keys an object has, beside where they are closed: both could not be met together.
const OF_KEYS: [&str; 9] = [
    "additionalProperties",
    "anyOf",
    "dependentSchemas",
    "if",
    "oneOf",
    "patternProperties",
    "properties",
    "required",
    "unevaluatedProperties",
];

/// The most definitions, and the most levels of one schema.
const MOST_DEFINITIONS: usize = 128;
const MOST_LEVELS: u8 = 64;

/// A schema that Claude takes where an answer has to fit it.
#[derive(Debug)]
pub(super) struct Enforced {
    pub(super) schema: Json,
    /// Whether all that it demands is enforced.
    pub(super) is_whole: bool,
    /// How many properties may be left out, and how many values may be of several types: Claude takes few of
    /// either.
    pub(super) optional: usize,
    pub(super) unions: usize,
}

/// An object as it is written.
type Members = Vec<(String, Value)>;

struct Reader {
    definitions: Vec<String>,
    is_whole: bool,
    optional: usize,
    unions: usize,
}

/// The schema as Claude takes it; `None` for one that it cannot enforce.
pub(super) fn enforced(schema: &Json) -> Option<Enforced> {
    let mut members = members(Value::Carried(schema.clone()))?;
    let mut definitions = Vec::new();
    for name in ["$defs", "definitions"] {
        let defined = take(&mut members, name).map_or_else(|| Some(Vec::new()), self::members)?;
        definitions.extend(defined.into_iter().map(|definition| (name, definition)));
    }
    if definitions.len() > MOST_DEFINITIONS || are_recursive(&definitions) {
        return None;
    }
    let path = |(at, (name, _)): &(&str, (String, Value))| format!("#/{at}/{name}");
    let mut reader = Reader {
        definitions: definitions.iter().map(path).collect(),
        is_whole: true,
        optional: 0,
        unions: 0,
    };
    let mut written = reader.read(members, 0)?;
    for at in ["$defs", "definitions"] {
        let mut read = Vec::new();
        for (_, (name, value)) in definitions.extract_if(.., |(place, _)| *place == at) {
            read.push((name, Value::Object(reader.read(self::members(value)?, 0)?)));
        }
        if !read.is_empty() {
            written.push((at.to_owned(), Value::Object(read)));
        }
    }
    let Reader { is_whole, optional, unions, .. } = reader;
    Some(Enforced { schema: Json::of(&Value::Object(written)), is_whole, optional, unions })
}

/// Whether definitions refer to one another in a circle.
fn are_recursive(definitions: &[(&str, (String, Value))]) -> bool {
    let names: Vec<_> = definitions.iter().map(|(at, (name, _))| format!("#/{at}/{name}")).collect();
    let refers_to = |(_, (_, value)): &(&str, (String, Value))| {
        let mut into = HashSet::new();
        references(value, &mut into, 0);
        into.retain(|name| names.contains(name));
        into
    };
    let mut open: Vec<_> = names.iter().zip(definitions.iter().map(refers_to)).collect();
    loop {
        let left: HashSet<&String> = open.iter().map(|(name, _)| *name).collect();
        open.retain(|(_, refers_to)| refers_to.iter().any(|name| left.contains(name)));
        if open.is_empty() || open.len() == left.len() {
            return !open.is_empty();
        }
    }
}

fn references(value: &Value, into: &mut HashSet<String>, level: u8) {
    if level > MOST_LEVELS {
        return;
    }
    match value {
        Value::Array(list) => list.iter().for_each(|value| references(value, into, level + 1)),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text) if name == "$ref" => {
                        into.insert(text.clone());
                    }
                    value => references(value, into, level + 1),
                }
            }
        }
        Value::Carried(json) => {
            if let Ok(value) = Value::parse(json.as_str().as_bytes()) {
                references(&value, into, level + 1);
            }
        }
        _ => {}
    }
}

/// The members of an object, also of one that is carried.
fn members(value: Value) -> Option<Members> {
    match value {
        Value::Object(members) => Some(members),
        Value::Carried(json) => match Value::parse(json.as_str().as_bytes()) {
            Ok(Value::Object(members)) => Some(members),
            _ => None,
        },
        _ => None,
    }
}

fn take(members: &mut Members, name: &str) -> Option<Value> {
    let at = members.iter().position(|(known, _)| known == name)?;
    Some(members.remove(at).1)
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn speaks_of_keys(schema: &Members) -> bool {
    schema.iter().any(|(name, _)| OF_KEYS.contains(&name.as_str()))
}

fn is_plain(value: &Value) -> bool {
    !matches!(value, Value::Array(_) | Value::Object(_) | Value::Carried(_))
}

// === impl Reader ===

impl Reader {
    /// Reads a schema so many levels within.
    fn read(&mut self, mut schema: Members, level: u8) -> Option<Members> {
        if level > MOST_LEVELS {
            return None;
        }
        schema.retain(|(name, _)| !OF_THE_SCHEMA.contains(&name.as_str()));
        // One part is the whole; several, each of them closed, could not be met together.
        if let Some(parts) = take(&mut schema, "allOf") {
            let Value::Array(parts) = parts else { return None };
            let [part] = <[Value; 1]>::try_from(parts).ok()?;
            let known: HashSet<_> = schema.iter().map(|(name, _)| name.clone()).collect();
            for (name, value) in members(part)? {
                match known.contains(&name) {
                    true if KEPT.contains(&name.as_str()) => {}
                    true => return None,
                    false => schema.push((name, value)),
                }
            }
            return self.read(schema, level + 1);
        }
        if let Some(reference) = take(&mut schema, "$ref") {
            let known = reference.as_str().is_some_and(|name| self.definitions.iter().any(|it| it == name));
            let known = known && !speaks_of_keys(&schema);
            // Nothing may stand beside it.
            self.is_whole &= schema.is_empty();
            return known.then(|| vec![("$ref".to_owned(), reference)]);
        }
        let mut written = self.read_kind(&mut schema, level)?;
        for name in KEPT {
            written.extend(take(&mut schema, name).map(|value| (name.to_owned(), value)));
        }
        self.describe(schema, &mut written);
        Some(written)
    }

    /// Reads what kind of value there is to be.
    fn read_kind(&mut self, schema: &mut Members, level: u8) -> Option<Members> {
        let mut written = Members::new();
        let kind = take(schema, "type");
        for name in ["enum", "const"] {
            let Some(value) = take(schema, name) else { continue };
            let is_known = match &value {
                Value::Array(list) => name == "enum" && !list.is_empty() && list.iter().all(is_plain),
                value => name == "const" && is_plain(value),
            };
            // They say the type, too.
            let into = if is_known { &mut written } else { &mut *schema };
            into.push((name.to_owned(), value));
        }
        for name in ["anyOf", "oneOf"] {
            let Some(variants) = take(schema, name) else { continue };
            let Value::Array(variants) = variants else { return None };
            if !written.is_empty() || speaks_of_keys(schema) {
                return None;
            }
            let read = |variant| Some(Value::Object(self.read(members(variant)?, level + 1)?));
            let read = variants.into_iter().map(read).collect::<Option<Vec<_>>>()?;
            self.is_whole &= name == "anyOf";
            self.unions += 1;
            written.push(("anyOf".to_owned(), Value::Array(read)));
        }
        if !written.is_empty() {
            return Some(written);
        }
        let has = |name: &str| schema.iter().any(|(known, _)| known == name);
        let kind = kind.or_else(|| {
            let implied = [("properties", "object"), ("items", "array")];
            implied.into_iter().find(|(name, _)| has(name)).map(|(_, kind)| text(kind))
        })?;
        let is = |name: &str| {
            kind.as_str() == Some(name) || kind.as_list().iter().any(|kind| kind.as_str() == Some(name))
        };
        self.unions += usize::from(kind.as_list().len() > 1);
        if is("object") {
            self.read_object(schema, &mut written, level)?;
        }
        if is("array") {
            self.read_array(schema, &mut written, level)?;
        }
        if is("string") {
            let format = take(schema, "format");
            let known = format.as_ref().and_then(Value::as_str).is_some_and(|name| FORMATS.contains(&name));
            let into = if known { &mut written } else { schema };
            into.extend(format.map(|format| ("format".to_owned(), format)));
        }
        written.insert(0, ("type".to_owned(), kind));
        Some(written)
    }

    fn read_object(&mut self, schema: &mut Members, written: &mut Members, level: u8) -> Option<()> {
        let properties = take(schema, "properties").map(members);
        let properties = match (properties, take(schema, "additionalProperties")) {
            (Some(properties), None | Some(Value::Bool(false))) => properties?,
            (None, Some(Value::Bool(false))) => Vec::new(),
            // No more keys than are named fit, too.
            (Some(properties), Some(Value::Bool(true))) => properties.filter(|named| !named.is_empty())?,
            _ => return None,
        };
        let required = take(schema, "required").unwrap_or_else(|| Value::Array(Vec::new()));
        let needed: HashSet<_> = required.as_list().iter().filter_map(Value::as_str).collect();
        let named = properties.iter().map(|(name, _)| name.as_str()).collect();
        if speaks_of_keys(schema) || !needed.is_subset(&named) {
            return None;
        }
        let mut read = Vec::with_capacity(properties.len());
        for (name, value) in properties {
            self.optional += usize::from(!needed.contains(name.as_str()));
            let value = self.read(members(value)?, level + 1)?;
            read.push((name, Value::Object(value)));
        }
        written.push(("properties".to_owned(), Value::Object(read)));
        if !required.as_list().is_empty() {
            written.push(("required".to_owned(), required));
        }
        written.push(("additionalProperties".to_owned(), Value::Bool(false)));
        Some(())
    }

    fn read_array(&mut self, schema: &mut Members, written: &mut Members, level: u8) -> Option<()> {
        if schema.iter().any(|(name, _)| name == "prefixItems") {
            return None;
        }
        if let Some(items) = take(schema, "items") {
            let items = self.read(members(items)?, level + 1)?;
            written.push(("items".to_owned(), Value::Object(items)));
        }
        if let Some(least) = take(schema, "minItems") {
            let is_known = least.as_number().and_then(serde_json::Number::as_u64).is_some_and(|it| it <= 1);
            let into = if is_known { written } else { schema };
            into.push(("minItems".to_owned(), least));
        }
        Some(())
    }

    /// Says in the description what nobody enforces.
    fn describe(&mut self, rest: Members, written: &mut Members) {
        if rest.is_empty() {
            return;
        }
        self.is_whole = false;
        let rest: Vec<_> = rest.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        let rest = format!("{{{}}}", rest.join(", "));
        match written.iter_mut().find(|(name, _)| name == "description") {
            Some((_, Value::String(said))) => {
                said.push_str("\n\n");
                said.push_str(&rest);
            }
            _ => written.push(("description".to_owned(), Value::String(rest))),
        }
    }
}

#[cfg(test)]
mod tests;
