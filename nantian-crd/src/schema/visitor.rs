//! Checks one value, node by node.

use std::collections::{BTreeSet, HashMap};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map as Object, Number, Value};

use super::{
    location::Location,
    node::{AdditionalProperties, Format, Identity, List, Node, NodeId, Size, Type},
    rule::child,
    shown::shown,
    suggest::suggest,
    validator::Validator,
};
use crate::fault::{Fault, FaultKind, FieldPath};

/// One walk over one value.
pub(super) struct Visitor<'w> {
    validator: &'w Validator,
    faults: Vec<Fault>,
}

/// What a node inherits from the nodes that led to it.
#[derive(Clone, Copy)]
struct Inherited {
    /// Whether this node is the outermost of those that describe the value, and so judges unknown fields.
    outermost: bool,
    secret: bool,
    depth: usize,
}

/// Deeper than any JSON text that serde_json reads.
const MAX_DEPTH: usize = 160;
/// Longer lists of field names help nobody.
const MAX_LISTED: usize = 12;

// === impl Visitor ===

impl<'w> Visitor<'w> {
    /// All faults of `value`.
    pub(super) fn start(validator: &'w Validator, id: NodeId, value: &Value, root: &FieldPath) -> Vec<Fault> {
        let inherited = Inherited { outermost: true, secret: false, depth: 0 };
        let mut visitor = Self { validator, faults: Vec::new() };
        visitor.node(id, value, &Location::Root(root), inherited);
        visitor.faults
    }

    fn node(&mut self, id: NodeId, value: &Value, at: &Location<'_>, mut inherited: Inherited) {
        let Some(node) = self.validator.get(id) else { return };
        inherited.depth += 1;
        inherited.secret |= node.secret;
        if inherited.depth > MAX_DEPTH {
            return self.fault(at, None, FaultKind::TooDeep, None);
        }
        if value.is_null() && node.nullable {
            return;
        }
        if node.never {
            return self.fault(at, None, FaultKind::Forbidden, None);
        }
        if !node.types.is_empty() && !node.types.iter().any(|type_| type_.admits(value)) {
            return self.wrong_type(id, node, value, at, inherited);
        }
        if let Some(choices) = &node.choices
            && !choices.contains(value)
        {
            return self.not_a_choice(choices, value, at, inherited);
        }
        match value {
            Value::Number(number) => self.number(node, number, value, at, inherited),
            Value::String(text) => self.text(node, text, value, at, inherited),
            Value::Array(items) => self.list(&node.list, items, at, inherited),
            Value::Object(object) => self.object(id, node, object, at, inherited),
            Value::Null | Value::Bool(_) => {}
        }
        let outermost = inherited.outermost && node.sole_part().is_some();
        self.combinations(node, value, at, Inherited { outermost, ..inherited });
        self.rules(node, value, at, inherited);
    }

    fn fault(&mut self, at: &Location<'_>, value: Option<String>, kind: FaultKind, allowed: Option<String>) {
        self.faults.push(Fault { path: at.path(), value, kind, allowed });
    }

    fn wrong_type(
        &mut self,
        id: NodeId,
        node: &Node,
        value: &Value,
        at: &Location<'_>,
        inherited: Inherited,
    ) {
        let shown = shown(value, inherited.secret || self.validator.hides(id, 0));
        let wanted: Vec<_> =
            node.types.iter().filter(|type_| **type_ != Type::Null).map(|type_| type_.as_str()).collect();
        let kind = FaultKind::WrongType { found: Type::of(value).as_str() };
        self.fault(at, shown, kind, Some(wanted.join(" or ")));
    }

    fn not_a_choice(&mut self, choices: &[Value], value: &Value, at: &Location<'_>, inherited: Inherited) {
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
        self.fault(at, shown(value, inherited.secret), kind, Some(allowed.join(", ")));
    }

    fn number(
        &mut self,
        node: &Node,
        number: &Number,
        value: &Value,
        at: &Location<'_>,
        inherited: Inherited,
    ) {
        let range = match (node.stated.admits(number), node.implied.admits(number)) {
            (true, true) => return,
            (false, _) => node.stated.to_string(),
            (true, false) => node.stated.within(&node.implied).to_string(),
        };
        self.fault(at, shown(value, inherited.secret), FaultKind::OutOfRange, Some(range));
    }

    fn text(&mut self, node: &Node, text: &str, value: &Value, at: &Location<'_>, inherited: Inherited) {
        if node.length.min.is_some() || node.length.max.is_some() {
            self.size(node.length, text.chars().count(), "characters", at);
        }
        for format in &node.formats {
            let (fits, meaning) = match format {
                Format::Pattern { regex, meaning } => (regex.is_match(text), meaning.as_str()),
                Format::Base64 => (BASE64_STANDARD.decode(text).is_ok(), "base64"),
                Format::DateTime => {
                    (text.parse::<Timestamp>().is_ok(), "a time such as 2026-01-31T12:00:00Z")
                }
            };
            if !fits {
                self.fault(
                    at,
                    shown(value, inherited.secret),
                    FaultKind::Malformed,
                    Some(meaning.to_owned()),
                );
            }
        }
    }

    fn size(&mut self, size: Size, found: usize, unit: &'static str, at: &Location<'_>) {
        if !size.admits(found) {
            self.fault(at, None, FaultKind::WrongSize { found, unit }, Some(size.to_string()));
        }
    }

    fn list(&mut self, list: &List, items: &[Value], at: &Location<'_>, inherited: Inherited) {
        self.size(list.size, items.len(), "items", at);
        if let Some(id) = list.item {
            for (index, item) in items.iter().enumerate() {
                self.node(id, item, &Location::Item(at, index), Inherited { outermost: true, ..inherited });
            }
        }
        self.repetitions(&list.identity, items, at, inherited);
    }

    fn repetitions(&mut self, identity: &Identity, items: &[Value], at: &Location<'_>, inherited: Inherited) {
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
                let kind = FaultKind::Duplicate { earlier: Location::Item(at, *earlier).path() };
                self.fault(&Location::Item(at, index), shown(item, inherited.secret), kind, None);
            } else {
                seen.insert(key, index);
            }
        }
    }

    fn object(
        &mut self,
        id: NodeId,
        node: &Node,
        object: &Object<String, Value>,
        at: &Location<'_>,
        inherited: Inherited,
    ) {
        self.size(node.map.size, object.len(), "fields", at);
        let judges = inherited.outermost && node.map.closed && node.sole_part().is_none();
        let below = Inherited { outermost: true, ..inherited };
        for (name, value) in object {
            let field = Location::Field(at, name);
            if judges && !node.map.fields.contains_key(name) {
                let declared = self.validator.fields(id);
                if !declared.contains(name.as_str()) {
                    self.unknown_field(&declared, name, &field);
                    continue;
                }
            }
            match (node.map.fields.get(name), node.map.additional) {
                (Some(id), _) if !self.counts_as_absent(*id, value) => self.node(*id, value, &field, below),
                (None, AdditionalProperties::Each(id)) => self.node(id, value, &field, below),
                (Some(_), _) | (None, AdditionalProperties::Unsaid | AdditionalProperties::Open) => {}
            }
        }
        for name in &node.map.required {
            let missing = match (object.get(name), node.map.fields.get(name)) {
                (Some(value), Some(id)) => self.counts_as_absent(*id, value),
                (Some(_), None) => false,
                (None, _) => true,
            };
            if missing {
                self.fault(&Location::Field(at, name), None, FaultKind::Missing, None);
            }
        }
    }

    fn counts_as_absent(&self, id: NodeId, value: &Value) -> bool {
        value.is_null() && !self.validator.get(id).is_some_and(|node| node.nullable)
    }

    fn unknown_field(&mut self, declared: &BTreeSet<&str>, name: &str, at: &Location<'_>) {
        let kind = FaultKind::UnknownField { suggestion: suggest(name, declared.iter().copied()) };
        let listed = declared.len() <= MAX_LISTED && !declared.is_empty();
        let allowed = listed.then(|| declared.iter().copied().collect::<Vec<_>>().join(", "));
        self.fault(at, None, kind, allowed);
    }

    fn combinations(&mut self, node: &Node, value: &Value, at: &Location<'_>, inherited: Inherited) {
        for id in &node.all_of {
            self.node(*id, value, at, inherited);
        }
        if !node.any_of.is_empty() {
            self.alternatives(&node.any_of, value, at, inherited);
        }
        if !node.one_of.is_empty() && self.alternatives(&node.one_of, value, at, inherited) > 1 {
            self.fault(at, None, FaultKind::ManyAlternatives, None);
        }
        if let Some(id) = node.not
            && self.attempt(id, value, at, inherited).is_empty()
        {
            self.fault(at, shown(value, inherited.secret), FaultKind::Forbidden, None);
        }
    }

    /// How many of the alternatives fit. If none does, the faults of the nearest are reported.
    fn alternatives(
        &mut self,
        alternatives: &[NodeId],
        value: &Value,
        at: &Location<'_>,
        inherited: Inherited,
    ) -> usize {
        let attempts: Vec<_> =
            alternatives.iter().map(|id| self.attempt(*id, value, at, inherited)).collect();
        let fitting = attempts.iter().filter(|faults| faults.is_empty()).count();
        if fitting == 0 {
            let here = at.path();
            let of_type = |faults: &Vec<Fault>| {
                !faults
                    .iter()
                    .any(|fault| fault.path == here && matches!(fault.kind, FaultKind::WrongType { .. }))
            };
            // A choice that is not among those of an alternative tells more against it than a field that it
            // misses.
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
                None => self.fault(at, shown(value, inherited.secret), FaultKind::NoAlternative, None),
            }
        }
        fitting
    }

    fn attempt(&self, id: NodeId, value: &Value, at: &Location<'_>, inherited: Inherited) -> Vec<Fault> {
        let mut visitor = Visitor { validator: self.validator, faults: Vec::new() };
        visitor.node(id, value, at, inherited);
        visitor.faults
    }

    fn rules(&mut self, node: &Node, value: &Value, at: &Location<'_>, inherited: Inherited) {
        for rule in node.rules.iter().filter(|rule| !(rule.holds)(value)) {
            let kind = FaultKind::Rule { message: rule.message };
            match rule.field {
                Some(name) => {
                    let secret = node.map.fields.get(name).is_some_and(|id| self.validator.hides(*id, 0));
                    let shown = child(value, name).and_then(|field| shown(field, inherited.secret || secret));
                    self.fault(&Location::Field(at, name), shown, kind, None);
                }
                None => self.fault(at, shown(value, inherited.secret), kind, None),
            }
        }
    }
}
