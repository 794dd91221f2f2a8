//! JSON that is carried, not looked at.

use std::fmt;

use crate::wire::json::Scanner;

/// A JSON text without insignificant space: the arguments of a tool call, a schema. Keys keep their order and
/// numbers their digits, because providers key their caches by bytes.
///
/// ```
/// use nantian_ai::ir::Json;
///
/// let json = Json::parse("{ \"b\": 1.10,\n\"a\": \"x y\" }").unwrap();
/// assert_eq!(json.as_str(), r#"{"b":1.10,"a":"x y"}"#);
/// assert!(json.is_object());
/// assert!(Json::parse("{\"b\":").is_none());
/// ```
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct Json(Box<str>);

// === impl Json ===

impl Json {
    /// Takes a text if it is JSON.
    pub fn parse(text: &str) -> Option<Self> {
        let mut scanner = Scanner::new();
        scanner.push(text.as_bytes(), |_, _| {}).ok()?;
        scanner.finish().ok()?;
        Some(Self(compact(text).into()))
    }

    /// Takes a text if it is an object, with its space.
    pub(crate) fn as_written(text: &str) -> Option<Self> {
        Self::parse(text).filter(Self::is_object).map(|_| Self(text.into()))
    }

    /// The empty object.
    pub fn empty_object() -> Self {
        Self("{}".into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is an object.
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// The memory that some take, in bytes.
    pub(crate) fn weight(all: &[Self]) -> usize {
        all.iter().map(|json| size_of::<Self>() + json.0.len()).sum()
    }

    /// What is written as JSON without insignificant space.
    pub(crate) fn of(value: &impl fmt::Display) -> Self {
        Self(value.to_string().into())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Leaves out space that is in no string.
fn compact(text: &str) -> String {
    let mut compact = String::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    for letter in text.chars() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = in_string,
            '"' => in_string = !in_string,
            ' ' | '\t' | '\n' | '\r' if !in_string => continue,
            _ => {}
        }
        compact.push(letter);
    }
    compact
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_in_strings_and_escaped_quotes_stay() {
        let json = Json::parse("\n{ \"a \\\" \\\\\" : [ 1 , \" \" ] }\t").unwrap();
        assert_eq!(json.as_str(), "{\"a \\\" \\\\\":[1,\" \"]}");
    }

    #[test]
    fn what_is_not_json_is_none() {
        for text in ["", "{", "{}x", "'a'", "{\"a\":1,}"] {
            assert!(Json::parse(text).is_none(), "{text}");
        }
    }
}
