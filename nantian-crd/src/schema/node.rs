//! What a validator knows of each schema in its document.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use regex::Regex;
use serde_json::{Number, Value};

use super::rule::Rule;

/// Position of a [`Node`] in its validator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NodeId(pub(super) usize);

/// One schema object, read once: what a value has to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    /// Any of these; empty for any type at all.
    pub(super) types: Vec<Type>,
    pub(super) nullable: bool,
    /// No value at all is right.
    pub(super) never: bool,
    /// The value must not be shown.
    pub(super) secret: bool,
    /// The values to choose from.
    pub(super) choices: Option<Vec<Value>>,
    /// What the author of the schema asks of a number.
    pub(super) stated: Range,
    /// What the format of the number can hold.
    pub(super) implied: Range,
    pub(super) length: Size,
    pub(super) formats: Vec<Format>,
    pub(super) list: List,
    pub(super) map: Map,
    pub(super) all_of: Vec<NodeId>,
    pub(super) any_of: Vec<NodeId>,
    pub(super) one_of: Vec<NodeId>,
    pub(super) not: Option<NodeId>,
    pub(super) rules: Vec<Rule>,
}

/// A type of JSON value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Integer,
    Number,
    String,
    Array,
    Object,
}

/// Bounds of a number.
#[derive(Clone, Debug, Default)]
pub(super) struct Range {
    pub(super) low: Option<Bound>,
    pub(super) high: Option<Bound>,
}

/// One end of a [`Range`].
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) limit: Number,
    pub(super) exclusive: bool,
}

/// Bounds of a count.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) min: Option<u64>,
    pub(super) max: Option<u64>,
}

/// What text has to look like.
#[derive(Clone, Debug)]
pub(super) enum Format {
    Pattern { regex: Regex, meaning: String },
    Base64,
    DateTime,
}

/// What a list has to be.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    pub(super) item: Option<NodeId>,
    pub(super) size: Size,
    pub(super) identity: Identity,
}

/// What makes two items of a list the same.
#[derive(Clone, Debug, Default)]
pub(super) enum Identity {
    /// Items may repeat.
    #[default]
    None,
    /// The whole item.
    Whole,
    /// These fields.
    Keys(Vec<String>),
}

/// What an object has to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Map {
    pub(super) fields: BTreeMap<String, NodeId>,
    pub(super) required: Vec<String>,
    pub(super) additional: AdditionalProperties,
    /// Whether fields that no part of the schema declares are faults.
    pub(super) closed: bool,
    pub(super) size: Size,
}

/// What fields beyond the declared ones have to be.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum AdditionalProperties {
    /// Not said: such fields are unknown wherever fields are declared.
    #[default]
    Unsaid,
    /// Anything.
    Open,
    /// Each like this.
    Each(NodeId),
}

// === impl Node ===

impl Node {
    /// The one part that says all there is to say about fields, as in an optional reference.
    pub(super) fn sole_part(&self) -> Option<NodeId> {
        match self.all_of.as_slice() {
            [part] if self.any_of.is_empty() && self.one_of.is_empty() && self.map.fields.is_empty() => {
                Some(*part)
            }
            _ => None,
        }
    }
}

// === impl Type ===

impl Type {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "string" => Self::String,
            "array" => Self::Array,
            "object" => Self::Object,
            _ => return None,
        })
    }

    /// The narrowest type of `value`.
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) if number.is_f64() => Self::Number,
            Value::Number(_) => Self::Integer,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }

    pub(super) fn admits(self, value: &Value) -> bool {
        let found = Self::of(value);
        self == found || (self == Self::Number && found == Self::Integer)
    }

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean => "a boolean",
            Self::Integer => "an integer",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "a list",
            Self::Object => "an object",
        }
    }
}

// === impl Range ===

impl Range {
    /// These bounds, and those of `wider` where there are none.
    pub(super) fn within(&self, wider: &Self) -> Self {
        let either = |own: &Option<Bound>, other: &Option<Bound>| own.clone().or_else(|| other.clone());
        Self { low: either(&self.low, &wider.low), high: either(&self.high, &wider.high) }
    }

    pub(super) fn admits(&self, number: &Number) -> bool {
        let within = |bound: &Option<Bound>, inside: Ordering| {
            bound.as_ref().is_none_or(|bound| match compare(number, &bound.limit) {
                Some(Ordering::Equal) => !bound.exclusive,
                Some(side) => side == inside,
                None => false,
            })
        };
        within(&self.low, Ordering::Greater) && within(&self.high, Ordering::Less)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.low, &self.high) {
            (Some(low), Some(high)) if !low.exclusive && !high.exclusive => {
                write!(f, "{} to {}", low.limit, high.limit)
            }
            (low, high) => {
                let words = |bound: &Bound, exclusive, inclusive| match bound.exclusive {
                    true => format!("{exclusive} {}", bound.limit),
                    false => format!("{inclusive} {}", bound.limit),
                };
                let low = low.as_ref().map(|bound| words(bound, "more than", "at least"));
                let high = high.as_ref().map(|bound| words(bound, "less than", "at most"));
                let both: Vec<_> = low.into_iter().chain(high).collect();
                f.write_str(&both.join(" and "))
            }
        }
    }
}

/// A float that is a whole number, as that number: schemas are often written with the one for the other.
pub(crate) fn whole_number(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    float.to_string().parse::<i64>().ok().map(Number::from)
}

/// Exact between integers, as floats otherwise.
fn compare(a: &Number, b: &Number) -> Option<Ordering> {
    let integer = |n: &Number| n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

// === impl Size ===

impl Size {
    pub(super) fn admits(self, count: usize) -> bool {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.min.is_none_or(|min| min <= count) && self.max.is_none_or(|max| count <= max)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.min, self.max) {
            (Some(min), Some(max)) if min == max => write!(f, "{min}"),
            (Some(min), Some(max)) => write!(f, "{min} to {max}"),
            (Some(min), None) => write!(f, "at least {min}"),
            (None, Some(max)) => write!(f, "at most {max}"),
            (None, None) => f.write_str("any number"),
        }
    }
}
