use std::collections::{BTreeSet, HashMap};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map as Object, Number, Value};

use super::{
    at::At,
    node::{Form, Identity, List, Node, NodeId, Others, Size, Type},
    rule::child,
    shown::shown,
    suggest::suggest,
    walker::Walker,
};
use crate::fault::{Fault, FaultKind, FieldPath};

/// One walk over one value.
pub(super) struct Visit<'w> {
    walker: &'w Walker,
    faults: Vec<Fault>,
}

/// What a node inherits from the way that led to it.
#[derive(Clone, Copy)]
struct Way {
    /// Whether this node is the outermost of those that describe the value, and so judges unknown fields.
    outermost: bool,
    secret: bool,
    depth: usize,
}

/// Deeper than any JSON text that serde_json reads.
const MAX_DEPTH: usize = 160;
/// Longer lists of field names help nobody.
const MAX_LISTED: usize = 12;

// === impl Visit ===

impl<'w> Visit<'w> {
    /// All faults of `value`.
    pub(super) fn start(walker: &'w Walker, id: NodeId, value: &Value, root: &FieldPath) -> Vec<Fault> {
        let way = Way { outermost: true, secret: false, depth: 0 };
        let mut visit = Self { walker, faults: Vec::new() };
        visit.node(id, value, &At::Root(root), way);
        visit.faults
    }

    fn node(&mut self, id: NodeId, value: &Value, at: &At<'_>, mut way: Way) {
        let Some(node) = self.walker.get(id) else { return };
        way.depth += 1;
        way.secret |= node.secret;
        if way.depth > MAX_DEPTH {
            return self.fault(at, None, FaultKind::TooDeep, None);
        }
        if value.is_null() && node.nullable {
            return;
        }
        if node.never {
            return self.fault(at, None, FaultKind::Forbidden, None);
        }
        if !node.types.is_empty() && !node.types.iter().any(|type_| type_.admits(value)) {
            return self.wrong_type(id, node, value, at, way);
        }
        if let Some(choices) = &node.choices
            && !choices.contains(value)
        {
            return self.not_a_choice(choices, value, at, way);
        }
        match value {
            Value::Number(number) => self.number(node, number, value, at, way),
            Value::String(text) => self.text(node, text, value, at, way),
            Value::Array(items) => self.list(&node.list, items, at, way),
            Value::Object(object) => self.object(id, node, object, at, way),
            Value::Null | Value::Bool(_) => {}
        }
        let outermost = way.outermost && node.sole_part().is_some();
        self.combinations(node, value, at, Way { outermost, ..way });
        self.rules(node, value, at, way);
    }

    fn fault(&mut self, at: &At<'_>, value: Option<String>, kind: FaultKind, allowed: Option<String>) {
        self.faults.push(Fault { path: at.path(), value, kind, allowed });
    }

    fn wrong_type(&mut self, id: NodeId, node: &Node, value: &Value, at: &At<'_>, way: Way) {
        let shown = shown(value, way.secret || self.walker.hides(id, 0));
        let wanted: Vec<_> =
            node.types.iter().filter(|type_| **type_ != Type::Null).map(|type_| type_.as_str()).collect();
        let kind = FaultKind::WrongType { found: Type::of(value).as_str() };
        self.fault(at, shown, kind, Some(wanted.join(" or ")));
    }

    fn not_a_choice(&mut self, choices: &[Value], value: &Value, at: &At<'_>, way: Way) {
        let words = || choices.iter().filter_map(Value::as_str);
        let suggestion = match value.as_str() {
            Some(word) if choices.len() > 1 => suggest(word, words().filter(|word| !word.is_empty())),
            _ => None,
        };
        let spell = |choice: &Value| match choice.as_str() {
            Some(word) if !word.is_empty() => word.to_owned(),
            _ => choice.to_string(),
        };
        let allowed: Vec<_> = choices.iter().filter(|choice| !choice.is_null()).map(spell).collect();
        let kind = FaultKind::NotOneOf { suggestion };
        self.fault(at, shown(value, way.secret), kind, Some(allowed.join(", ")));
    }

    fn number(&mut self, node: &Node, number: &Number, value: &Value, at: &At<'_>, way: Way) {
        let range = match (node.stated.admits(number), node.implied.admits(number)) {
            (true, true) => return,
            (false, _) => node.stated.to_string(),
            (true, false) => node.stated.within(&node.implied).to_string(),
        };
        self.fault(at, shown(value, way.secret), FaultKind::OutOfRange, Some(range));
    }

    fn text(&mut self, node: &Node, text: &str, value: &Value, at: &At<'_>, way: Way) {
        if node.length.min.is_some() || node.length.max.is_some() {
            self.size(node.length, text.chars().count(), "characters", at);
        }
        for form in &node.forms {
            let (fits, meaning) = match form {
                Form::Pattern { regex, meaning } => (regex.is_match(text), meaning.as_str()),
                Form::Base64 => (BASE64_STANDARD.decode(text).is_ok(), "base64"),
                Form::DateTime => (text.parse::<Timestamp>().is_ok(), "a time such as 2026-01-31T12:00:00Z"),
            };
            if !fits {
                self.fault(at, shown(value, way.secret), FaultKind::Malformed, Some(meaning.to_owned()));
            }
        }
    }

    fn size(&mut self, size: Size, found: usize, unit: &'static str, at: &At<'_>) {
        if !size.admits(found) {
            self.fault(at, None, FaultKind::WrongSize { found, unit }, Some(size.to_string()));
        }
    }

    fn list(&mut self, list: &List, items: &[Value], at: &At<'_>, way: Way) {
        self.size(list.size, items.len(), "items", at);
        if let Some(id) = list.item {
            for (index, item) in items.iter().enumerate() {
                self.node(id, item, &At::Item(at, index), Way { outermost: true, ..way });
            }
        }
        self.repetitions(&list.identity, items, at, way);
    }

    fn repetitions(&mut self, identity: &Identity, items: &[Value], at: &At<'_>, way: Way) {
        let key = |item: &Value| match identity {
            Identity::None => None,
            Identity::Whole => Some(item.to_string()),
            Identity::Keys(keys) => {
                let keys = keys.iter().map(|key| child(item, key).map(Value::to_string));
                keys.collect::<Option<Vec<_>>>().map(|keys| keys.join(" "))
            }
        };
        let mut seen = HashMap::new();
        for (index, item) in items.iter().enumerate() {
            let Some(key) = key(item) else { continue };
            if let Some(earlier) = seen.get(&key) {
                let kind = FaultKind::Duplicate { earlier: At::Item(at, *earlier).path() };
                self.fault(&At::Item(at, index), shown(item, way.secret), kind, None);
            } else {
                seen.insert(key, index);
            }
        }
    }

    fn object(&mut self, id: NodeId, node: &Node, object: &Object<String, Value>, at: &At<'_>, way: Way) {
        self.size(node.map.size, object.len(), "fields", at);
        let judges = way.outermost && node.map.closed && node.sole_part().is_none();
        let below = Way { outermost: true, ..way };
        for (name, value) in object {
            let field = At::Field(at, name);
            if judges && !node.map.fields.contains_key(name) {
                let declared = self.walker.fields(id);
                if !declared.contains(name.as_str()) {
                    self.unknown_field(&declared, name, &field);
                    continue;
                }
            }
            match (node.map.fields.get(name), node.map.others) {
                (Some(id), _) if !self.counts_as_absent(*id, value) => self.node(*id, value, &field, below),
                (None, Others::Each(id)) => self.node(id, value, &field, below),
                (Some(_), _) | (None, Others::Unsaid | Others::Open) => {}
            }
        }
        for name in &node.map.required {
            let missing = match (object.get(name), node.map.fields.get(name)) {
                (Some(value), Some(id)) => self.counts_as_absent(*id, value),
                (Some(_), None) => false,
                (None, _) => true,
            };
            if missing {
                self.fault(&At::Field(at, name), None, FaultKind::Missing, None);
            }
        }
    }

    fn counts_as_absent(&self, id: NodeId, value: &Value) -> bool {
        value.is_null() && !self.walker.get(id).is_some_and(|node| node.nullable)
    }

    fn unknown_field(&mut self, declared: &BTreeSet<&str>, name: &str, at: &At<'_>) {
        let kind = FaultKind::UnknownField { suggestion: suggest(name, declared.iter().copied()) };
        let listed = declared.len() <= MAX_LISTED && !declared.is_empty();
        let allowed = listed.then(|| declared.iter().copied().collect::<Vec<_>>().join(", "));
        self.fault(at, None, kind, allowed);
    }

    fn combinations(&mut self, node: &Node, value: &Value, at: &At<'_>, way: Way) {
        for id in &node.all_of {
            self.node(*id, value, at, way);
        }
        if !node.any_of.is_empty() {
            self.alternatives(&node.any_of, value, at, way);
        }
        if !node.one_of.is_empty() && self.alternatives(&node.one_of, value, at, way) > 1 {
            self.fault(at, None, FaultKind::ManyAlternatives, None);
        }
        if let Some(id) = node.not
            && self.attempt(id, value, at, way).is_empty()
        {
            self.fault(at, shown(value, way.secret), FaultKind::Forbidden, None);
        }
    }

    /// How many of the alternatives fit. If none does, the faults of the nearest are reported.
    fn alternatives(&mut self, alternatives: &[NodeId], value: &Value, at: &At<'_>, way: Way) -> usize {
        let attempts: Vec<_> = alternatives.iter().map(|id| self.attempt(*id, value, at, way)).collect();
        let fitting = attempts.iter().filter(|faults| faults.is_empty()).count();
        if fitting == 0 {
            let here = at.path();
            let of_type = |faults: &Vec<Fault>| {
                !faults
                    .iter()
                    .any(|fault| fault.path == here && matches!(fault.kind, FaultKind::WrongType { .. }))
            };
            // A choice that is not among those of an alternative tells more against it than a field that it misses.
            let distance = |faults: &Vec<Fault>| {
                let against = faults.iter().map(|fault| match fault.kind {
                    FaultKind::NotOneOf { .. } => 2,
                    FaultKind::Missing => 1,
                    _ => 0,
                });
                (against.sum::<usize>(), faults.len())
            };
            match attempts.into_iter().filter(of_type).min_by_key(distance) {
                Some(mut nearest) => self.faults.append(&mut nearest),
                None => self.fault(at, shown(value, way.secret), FaultKind::NoAlternative, None),
            }
        }
        fitting
    }

    fn attempt(&self, id: NodeId, value: &Value, at: &At<'_>, way: Way) -> Vec<Fault> {
        let mut visit = Visit { walker: self.walker, faults: Vec::new() };
        visit.node(id, value, at, way);
        visit.faults
    }

    fn rules(&mut self, node: &Node, value: &Value, at: &At<'_>, way: Way) {
        for rule in node.rules.iter().filter(|rule| !(rule.holds)(value)) {
            let kind = FaultKind::Rule { message: rule.message };
            match rule.field {
                Some(name) => {
                    let secret = node.map.fields.get(name).is_some_and(|id| self.walker.hides(*id, 0));
                    let shown = child(value, name).and_then(|field| shown(field, way.secret || secret));
                    self.fault(&At::Field(at, name), shown, kind, None);
                }
                None => self.fault(at, shown(value, way.secret), kind, None),
            }
        }
    }
}
