//! From a schema document to a validator.

use std::collections::HashMap;

use regex::Regex;
use serde_json::{Map as Object, Number, Value};

use super::{
    catalogue,
    node::{
        AdditionalProperties, Bound, Format, Identity, List, Map, Node, NodeId, Range, Size, Type,
        whole_number,
    },
    rule::{Hint, Rule, items},
    validator::Validator,
};

/// Reads a schema document into a [`Validator`].
///
/// Understood are the keywords of OpenAPI and JSON Schema that Kubernetes, kube and schemars write, and of
/// the Kubernetes extensions those that say something about values: `x-kubernetes-int-or-string`,
/// `x-kubernetes-preserve-unknown-fields`, `x-kubernetes-list-type`, `x-kubernetes-list-map-keys` and
/// `x-kubernetes-validations`. Other keywords are ignored, as is a pattern that is no regular expression
/// here, a reference that points nowhere, and a validation rule whose [`Rule`] is not known.
#[derive(Clone, Debug)]
pub struct Compiler {
    rules: Vec<Rule>,
    hints: Vec<Hint>,
    redacted: Vec<String>,
}

struct Build<'a> {
    compiler: &'a Compiler,
    document: &'a Value,
    nodes: Vec<Node>,
    references: HashMap<&'a str, NodeId>,
}

// === impl Compiler ===

impl Compiler {
    /// A compiler that knows the rules and hints of the four kinds.
    pub fn new() -> Self {
        Self {
            rules: catalogue::rules().copied().collect(),
            hints: catalogue::hints().copied().collect(),
            redacted: Vec::new(),
        }
    }

    /// Recognises these rules too.
    #[must_use]
    pub fn rules(mut self, rules: impl IntoIterator<Item = Rule>) -> Self {
        self.rules.extend(rules);
        self
    }

    /// Explains these patterns too.
    #[must_use]
    pub fn hints(mut self, hints: impl IntoIterator<Item = Hint>) -> Self {
        self.hints.extend(hints);
        self
    }

    /// Never shows a value in or below a field of one of these names, as for `data` of a Secret.
    ///
    /// Fields of format `password` are never shown either.
    #[must_use]
    pub fn redacting<N: Into<String>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.redacted.extend(names.into_iter().map(Into::into));
        self
    }

    /// Reads `document`, whose references are relative to its root.
    pub fn compile(&self, document: &Value) -> Validator {
        let mut build = Build { compiler: self, document, nodes: Vec::new(), references: HashMap::new() };
        let root = build.schema(document);
        Validator::from_nodes(build.nodes, root)
    }
}

impl Default for Compiler {
    fn default() -> Self {
        Self::new()
    }
}

// === impl Build ===

impl<'a> Build<'a> {
    fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() - 1)
    }

    fn schema(&mut self, schema: &'a Value) -> NodeId {
        let node = self.read(schema);
        self.push(node)
    }

    fn schemas(&mut self, schemas: Option<&'a Value>) -> Vec<NodeId> {
        schemas.map_or(&[][..], items).iter().map(|schema| self.schema(schema)).collect()
    }

    /// The node a reference leads to. It has its place before it is read, so that schemas may contain
    /// themselves.
    fn reference(&mut self, reference: &'a str) -> NodeId {
        if let Some(id) = self.references.get(reference) {
            return *id;
        }
        let id = self.push(Node::default());
        self.references.insert(reference, id);
        let target = reference.strip_prefix('#').and_then(|pointer| self.document.pointer(pointer));
        if let Some(target) = target {
            let node = self.read(target);
            if let Some(place) = self.nodes.get_mut(id.0) {
                *place = node;
            }
        }
        id
    }

    fn read(&mut self, schema: &'a Value) -> Node {
        let Value::Object(schema) = schema else {
            return Node { never: schema == &Value::Bool(false), ..Node::default() };
        };
        let text = |key| schema.get(key).and_then(Value::as_str);
        let mut node = Node {
            types: types(schema),
            nullable: flag(schema, "nullable"),
            secret: text("format") == Some("password"),
            choices: choices(schema).map(<[Value]>::to_vec),
            stated: stated(schema),
            implied: text("format").map(implied).unwrap_or_default(),
            length: size(schema, "minLength", "maxLength"),
            formats: self.formats(schema),
            list: self.list(schema),
            map: self.map(schema),
            all_of: self.schemas(schema.get("allOf")),
            not: schema.get("not").map(|not| self.schema(not)),
            rules: self.known_rules(schema),
            ..Node::default()
        };
        if let Some(reference) = text("$ref") {
            node.all_of.push(self.reference(reference));
        }
        node.any_of = self.alternatives(&mut node, schema.get("anyOf"));
        node.one_of = self.alternatives(&mut node, schema.get("oneOf"));
        node.nullable |=
            node.types.contains(&Type::Null) || node.choices.iter().flatten().any(Value::is_null);
        node
    }

    /// Reads `anyOf` or `oneOf`. What stands there for an optional value or for a plain choice is folded into
    /// `node`.
    fn alternatives(&mut self, node: &mut Node, alternatives: Option<&'a Value>) -> Vec<NodeId> {
        let Some(alternatives) = alternatives.and_then(Value::as_array) else {
            return Vec::new();
        };
        let (nulls, rest): (Vec<_>, Vec<_>) = alternatives.iter().partition(|schema| is_null(schema));
        node.nullable |= !nulls.is_empty();
        let plain: Option<Vec<_>> = rest.iter().map(|schema| plain_choices(schema)).collect();
        match plain {
            Some(plain) if !plain.is_empty() => {
                node.choices = Some(plain.concat());
                Vec::new()
            }
            _ => {
                let mut ids: Vec<_> = rest.into_iter().map(|schema| self.schema(schema)).collect();
                if ids.len() == 1 {
                    node.all_of.append(&mut ids);
                }
                ids
            }
        }
    }

    fn formats(&self, schema: &Object<String, Value>) -> Vec<Format> {
        let text = |key| schema.get(key).and_then(Value::as_str);
        let format = match text("format") {
            Some("byte") => Some(Format::Base64),
            Some("date-time") => Some(Format::DateTime),
            _ => None,
        };
        let pattern = text("pattern").and_then(|pattern| {
            let hint = self.compiler.hints.iter().find(|hint| hint.pattern == pattern);
            let meaning =
                hint.map_or_else(|| format!("of the form {pattern}"), |hint| hint.meaning.to_owned());
            Some(Format::Pattern { regex: Regex::new(pattern).ok()?, meaning })
        });
        format.into_iter().chain(pattern).collect()
    }

    fn list(&mut self, schema: &'a Object<String, Value>) -> List {
        let keys = schema.get("x-kubernetes-list-map-keys").map_or(&[][..], items);
        let identity = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
            Some("set") => Identity::Whole,
            Some("map") => Identity::Keys(keys.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            _ if flag(schema, "uniqueItems") => Identity::Whole,
            _ => Identity::None,
        };
        List {
            item: schema.get("items").map(|item| self.schema(item)),
            size: size(schema, "minItems", "maxItems"),
            identity,
        }
    }

    fn map(&mut self, schema: &'a Object<String, Value>) -> Map {
        let fields = schema.get("properties").and_then(Value::as_object);
        let fields =
            fields.into_iter().flatten().map(|(name, field)| (name.clone(), self.field(name, field)));
        let fields = fields.collect();
        let required = schema.get("required").map_or(&[][..], items);
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => AdditionalProperties::Open,
            Some(each @ Value::Object(_)) => AdditionalProperties::Each(self.schema(each)),
            _ if flag(schema, "x-kubernetes-preserve-unknown-fields") => AdditionalProperties::Open,
            _ if schema.contains_key("patternProperties") => AdditionalProperties::Open,
            _ => AdditionalProperties::Unsaid,
        };
        Map {
            fields,
            required: required.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            additional,
            closed: schema.get("additionalProperties") == Some(&Value::Bool(false)),
            size: size(schema, "minProperties", "maxProperties"),
        }
    }

    fn field(&mut self, name: &str, schema: &'a Value) -> NodeId {
        let mut node = self.read(schema);
        node.secret |= self.compiler.redacted.iter().any(|redacted| redacted == name);
        self.push(node)
    }

    fn known_rules(&self, schema: &Object<String, Value>) -> Vec<Rule> {
        let written = schema.get("x-kubernetes-validations").map_or(&[][..], items);
        let written = written.iter().filter_map(|rule| rule.get("rule")?.as_str());
        written.filter_map(|cel| self.compiler.rules.iter().find(|rule| rule.cel == cel).copied()).collect()
    }
}

fn flag(schema: &Object<String, Value>, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

fn types(schema: &Object<String, Value>) -> Vec<Type> {
    if flag(schema, "x-kubernetes-int-or-string") {
        return vec![Type::Integer, Type::String];
    }
    let written = match schema.get("type") {
        Some(Value::Array(names)) => names.as_slice(),
        Some(name) => std::slice::from_ref(name),
        None => &[],
    };
    written.iter().filter_map(Value::as_str).filter_map(Type::named).collect()
}

fn choices(schema: &Object<String, Value>) -> Option<&[Value]> {
    match schema.get("const") {
        Some(only) => Some(std::slice::from_ref(only)),
        None => schema.get("enum").and_then(Value::as_array).map(Vec::as_slice),
    }
}

/// The choices of a schema that does nothing but offer choices.
fn plain_choices(schema: &Value) -> Option<&[Value]> {
    const ANNOTATIONS: [&str; 5] = ["type", "const", "enum", "title", "description"];
    let schema = schema.as_object()?;
    schema.keys().all(|key| ANNOTATIONS.contains(&key.as_str())).then(|| choices(schema)).flatten()
}

fn is_null(schema: &Value) -> bool {
    let Some(schema) = schema.as_object() else {
        return false;
    };
    schema.get("type").and_then(Value::as_str) == Some("null")
        || choices(schema).is_some_and(|choices| !choices.is_empty() && choices.iter().all(Value::is_null))
}

fn size(schema: &Object<String, Value>, min: &str, max: &str) -> Size {
    let count = |key| schema.get(key).and_then(Value::as_u64);
    Size { min: count(min), max: count(max) }
}

/// The bounds a schema states. OpenAPI 3.0 marks an exclusive bound by a flag, JSON Schema by a keyword of
/// its own.
fn stated(schema: &Object<String, Value>) -> Range {
    let bound = |inclusive: &str, exclusive: &str| {
        let limit = |key: &str| {
            schema
                .get(key)
                .and_then(Value::as_number)
                .map(|limit| whole_number(limit).unwrap_or_else(|| limit.clone()))
        };
        match limit(exclusive) {
            Some(limit) => Some(Bound { limit, exclusive: true }),
            None => limit(inclusive).map(|limit| Bound { limit, exclusive: flag(schema, exclusive) }),
        }
    };
    Range { low: bound("minimum", "exclusiveMinimum"), high: bound("maximum", "exclusiveMaximum") }
}

fn implied(format: &str) -> Range {
    let range = |low: i64, high: u64| {
        let bound = |limit: Number| Some(Bound { limit, exclusive: false });
        Range { low: bound(low.into()), high: bound(high.into()) }
    };
    match format {
        "int8" => range(i8::MIN.into(), 0x7f),
        "int16" => range(i16::MIN.into(), 0x7fff),
        "int32" => range(i32::MIN.into(), 0x7fff_ffff),
        "int64" => range(i64::MIN, 0x7fff_ffff_ffff_ffff),
        "uint8" => range(0, u8::MAX.into()),
        "uint16" => range(0, u16::MAX.into()),
        "uint32" => range(0, u32::MAX.into()),
        "uint64" | "uint" => range(0, u64::MAX),
        _ => Range::default(),
    }
}
