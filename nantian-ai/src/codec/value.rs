//! JSON as a tree, but for what is only carried: arguments and schemas keep the text that they came as.

use std::cell::Cell;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::ir::Json;
use crate::wire::BYTE_ORDER_MARK;

/// Members of this name are carried where they are objects: the arguments of calls, and schemas.
const CARRIED: [&str; 6] = ["args", "arguments", "input", "input_schema", "parameters", "schema"];

/// The same in the outermost object, where Ollama has a schema.
const CARRIED_OUTERMOST: [&str; 1] = ["format"];

/// Containers within containers, at most. What is read again counts on: the depth of a whole body is bounded,
/// not that of a text.
const MAX_DEPTH: u8 = 128;

/// How many levels a list counts that stands where an object would be carried. Each of them is read once more
/// than what is around it, so that many within one another would be read again and again.
const LEVELS_OF_A_LIST: u8 = 32;

/// Values in a body, at most. Each takes much more memory than the two bytes in which it can be written.
const MOST_VALUES: u32 = 1 << 19;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Value {
    #[default]
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Value>),
    /// In their order; of several members with one name the last counts.
    Object(Vec<(String, Value)>),
    /// An object that is carried.
    Carried(Json),
}

/// Reads a value.
#[derive(Clone, Copy)]
struct Reader<'r> {
    carried: &'static [&'static str],
    /// Of what is around it.
    depth: u8,
    /// How many more values the body may have.
    left: &'r Cell<u32>,
}

// === impl Value ===

impl Value {
    /// Reads a whole body.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, serde_json::Error> {
        let left = Cell::new(MOST_VALUES);
        let text = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        Reader { carried: &CARRIED_OUTERMOST, depth: 0, left: &left }.read(text)
    }

    /// Reads what a provider says. JavaScript cuts characters in two, so that an event may end with one half
    /// and the next begin with the other: U+FFFD stands for each.
    pub(crate) fn parse_said(body: &[u8]) -> Result<Self, serde_json::Error> {
        Self::parse(body).or_else(|error| match without_halves(body) {
            Some(whole) => Self::parse(&whole),
            None => Err(error),
        })
    }

    /// A member of an object.
    pub(crate) fn get(&self, name: &str) -> Option<&Self> {
        let Self::Object(members) = self else { return None };
        members.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The memory that it takes, in bytes.
    pub(crate) fn weight(&self) -> usize {
        let beside: usize = match self {
            Self::Null | Self::Bool(_) | Self::Number(_) => 0,
            Self::String(text) => text.len(),
            Self::Array(list) => list.iter().map(Self::weight).sum(),
            Self::Object(members) => Self::weight_of(members),
            Self::Carried(json) => json.as_str().len(),
        };
        size_of::<Self>() + beside
    }

    /// The same of the members of an object.
    pub(crate) fn weight_of(members: &[(String, Self)]) -> usize {
        members.iter().map(|(name, value)| size_of::<String>() + name.len() + value.weight()).sum()
    }

    pub(crate) fn is_null(&self) -> bool {
        *self == Self::Null
    }

    pub(crate) fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(flag) => Some(*flag),
            _ => None,
        }
    }

    pub(crate) fn as_number(&self) -> Option<&Number> {
        match self {
            Self::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_list(&self) -> &[Self] {
        match self {
            Self::Array(list) => list,
            _ => &[],
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let left = Cell::new(MOST_VALUES);
        Reader { carried: &CARRIED, depth: 0, left: &left }.deserialize(deserializer)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::String(text) => write_text(text, f),
            Self::Array(list) => {
                for (at, value) in list.iter().enumerate() {
                    f.write_str(if at == 0 { "[" } else { "," })?;
                    value.fmt(f)?;
                }
                f.write_str(if list.is_empty() { "[]" } else { "]" })
            }
            Self::Object(members) => {
                for (at, (name, value)) in members.iter().enumerate() {
                    f.write_str(if at == 0 { "{" } else { "," })?;
                    write_text(name, f)?;
                    f.write_str(":")?;
                    value.fmt(f)?;
                }
                f.write_str(if members.is_empty() { "{}" } else { "}" })
            }
            Self::Carried(json) => json.fmt(f),
        }
    }
}

fn write_text(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

/// The text with U+FFFD for each half of a surrogate pair that is alone in it, if any is.
fn without_halves(body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = None;
    let mut at = 0;
    while let Some(found) = memchr::memchr(b'\\', body.get(at..).unwrap_or_default()) {
        let start = at + found;
        at = match (unit(body, start), unit(body, start + 6)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => start + 12,
            (Some(0xD800..=0xDFFF), _) => {
                let whole: &mut Vec<u8> = whole.get_or_insert_with(|| body.to_vec());
                whole.splice(start + 2..start + 6, *b"fffd");
                start + 6
            }
            _ => start + 2,
        };
    }
    whole
}

/// The code unit that is escaped at a place.
fn unit(body: &[u8], at: usize) -> Option<u16> {
    let digits = body.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

// === impl Reader ===

impl Reader<'_> {
    fn read(self, text: &[u8]) -> Result<Value, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = self.deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(value)
    }

    /// Of what is so many levels further in.
    fn within<E: Error>(self, levels: u8) -> Result<Self, E> {
        match self.depth.checked_add(levels).filter(|depth| *depth <= MAX_DEPTH) {
            Some(depth) => Ok(Self { carried: &CARRIED, depth, left: self.left }),
            None => Err(E::custom("nested too deeply")),
        }
    }

    /// Counts a value of a list or an object.
    fn count<E: Error>(self) -> Result<(), E> {
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or_else(|| E::custom(format!("more than {MOST_VALUES} values")))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Number::from_f64(number).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.within(1)?;
        let mut list = Vec::new();
        while let Some(value) = seq.next_element_seed(inner)? {
            self.count()?;
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.within(1)?;
        let mut members = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            self.count()?;
            let value = if self.carried.contains(&name.as_str()) {
                let raw = map.next_value::<&RawValue>()?.get();
                match raw.starts_with('{') {
                    true => Json::parse(raw)
                        .map(Value::Carried)
                        .ok_or_else(|| Error::custom(format!("`{name}` is nested too deeply")))?,
                    false if raw.starts_with('[') => {
                        inner.within(LEVELS_OF_A_LIST)?.read(raw.as_bytes()).map_err(Error::custom)?
                    }
                    false => inner.read(raw.as_bytes()).map_err(Error::custom)?,
                }
            } else {
                map.next_value_seed(inner)?
            };
            members.push((name, value));
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_carried_keeps_its_digits_and_everything_else_is_a_tree() {
        let body = r#"{"input":[{"input":{ "order" : 123456789012345678901,"price":1.10,"e":1E3 }}],
            "format":{"a":0.30000000000000004},"a":{"format":{"b":1},"arguments":"{\"c\": 2}"}}"#;
        let value = Value::parse(body.as_bytes()).unwrap();
        assert_eq!(
            value.to_string(),
            r#"{"input":[{"input":{"order":123456789012345678901,"price":1.10,"e":1E3}}],"format":{"a":0.30000000000000004},"a":{"format":{"b":1},"arguments":"{\"c\": 2}"}}"#
        );
        assert!(matches!(value.get("format"), Some(Value::Carried(_))));
        assert!(matches!(value.get("a").and_then(|a| a.get("format")), Some(Value::Object(_))));
        assert!(matches!(value.get("a").and_then(|a| a.get("arguments")), Some(Value::String(_))));
    }

    #[test]
    fn halves_of_characters_cost_an_answer_nothing_else() {
        for (said, read) in [
            (r#""a\ud83c""#, "a\u{fffd}"),
            (r#""\udf0d b""#, "\u{fffd} b"),
            (r#""\uD83C\ud83c\udf0d\n""#, "\u{fffd}\u{1f30d}\n"),
            (r#""\ud83c\\udf0d""#, "\u{fffd}\\udf0d"),
        ] {
            assert!(Value::parse(said.as_bytes()).is_err(), "{said}");
            assert_eq!(Value::parse_said(said.as_bytes()).unwrap(), Value::String(read.to_owned()), "{said}");
        }
        for bad in [r#""\ud83c"#, r#""\ud83"#, r#""\\ud83c"#, "<html>"] {
            assert!(Value::parse_said(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn depth_is_bounded_also_where_a_value_is_carried() {
        for name in ["args", "other"] {
            let nested =
                |depth| format!("{{\"a\":{{\"{name}\":{}0{}", "{\"b\":".repeat(depth), "}".repeat(depth + 2));
            assert!(Value::parse(nested(100).as_bytes()).is_ok(), "{name}");
            assert!(Value::parse(nested(200).as_bytes()).is_err(), "{name}");
        }
        let text = format!("{{\"a\":{{\"input\":{}0{}}}}}", "[".repeat(200), "]".repeat(200));
        assert!(Value::parse(text.as_bytes()).is_err());
    }

    #[test]
    fn the_number_of_values_is_bounded_wherever_they_are() {
        let most = MOST_VALUES as usize;
        let list = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        let members = |count: usize| format!("{{{}\"\":0}}", "\"\":0,".repeat(count - 1));
        for (body, is_read) in [
            (list(most), true),
            (list(most + 1), false),
            (members(most), true),
            (members(most + 1), false),
            // In lists within lists, and where an object would be carried.
            (format!("[{0},{0}]", list(most / 2)), false),
            (format!("{{\"input\":{0},\"a\":{0}}}", list(most / 2)), false),
            // What is carried is text.
            (format!("{{\"format\":{{\"a\":{}}}}}", list(most + 1)), true),
        ] {
            assert_eq!(Value::parse(body.as_bytes()).is_ok(), is_read, "{}", body.get(..20).unwrap());
        }
    }

    #[test]
    fn a_text_within_a_text_does_not_begin_to_count_anew() {
        for name in CARRIED {
            let nested =
                |depth| format!("{}0{}", format!("{{\"{name}\":[").repeat(depth), "]}".repeat(depth));
            // The outermost is not carried.
            assert!(Value::parse(nested(4).as_bytes()).is_ok(), "{name}");
            for depth in [5, 10_000] {
                assert!(Value::parse(nested(depth).as_bytes()).is_err(), "{name} {depth}");
            }
        }
    }
}
