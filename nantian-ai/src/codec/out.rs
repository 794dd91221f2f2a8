//! Writes JSON in the order in which it is said.

use std::borrow::Cow;

use bytes::Bytes;

use crate::edit;
use crate::ir::Json;

/// An object that is being written.
pub(crate) struct Object<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

/// A list that is being written.
pub(crate) struct List<'o> {
    out: &'o mut Vec<u8>,
    empty: bool,
}

/// A whole body.
pub(crate) fn object(write: impl FnOnce(&mut Object<'_>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    append(&mut out, write);
    out
}

/// An object after what is in `out` already.
pub(crate) fn append(out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.push(b'{');
    write(&mut Object { out, empty: true });
    out.push(b'}');
}

// === impl Object ===

impl Object<'_> {
    pub(crate) fn text(&mut self, name: &'static str, text: &str) {
        string(self.name(name), text);
    }

    pub(crate) fn some_text(&mut self, name: &'static str, text: Option<&str>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    pub(crate) fn count(&mut self, name: &'static str, count: u64) {
        let count = count.to_string();
        self.name(name).extend_from_slice(count.as_bytes());
    }

    pub(crate) fn some_count(&mut self, name: &'static str, count: Option<u64>) {
        if let Some(count) = count {
            self.count(name, count);
        }
    }

    pub(crate) fn some_integer(&mut self, name: &'static str, integer: Option<i64>) {
        if let Some(integer) = integer {
            self.name(name).extend_from_slice(integer.to_string().as_bytes());
        }
    }

    pub(crate) fn some_number(&mut self, name: &'static str, number: Option<f64>) {
        if let Some(number) = number {
            let number = serde_json::Value::from(number).to_string();
            self.name(name).extend_from_slice(number.as_bytes());
        }
    }

    pub(crate) fn flag(&mut self, name: &'static str, flag: bool) {
        let flag: &[u8] = if flag { b"true" } else { b"false" };
        self.name(name).extend_from_slice(flag);
    }

    pub(crate) fn some_flag(&mut self, name: &'static str, flag: Option<bool>) {
        if let Some(flag) = flag {
            self.flag(name, flag);
        }
    }

    pub(crate) fn null(&mut self, name: &'static str) {
        self.name(name).extend_from_slice(b"null");
    }

    pub(crate) fn json(&mut self, name: &'static str, json: &Json) {
        self.name(name).extend_from_slice(json.as_str().as_bytes());
    }

    /// The schema of a tool's arguments, as all take it.
    pub(crate) fn schema(&mut self, name: &'static str, schema: &Json) {
        self.raw(name, &of_arguments(schema.as_str().as_bytes()));
    }

    pub(crate) fn object(&mut self, name: &'static str, write: impl FnOnce(&mut Object<'_>)) {
        append(self.name(name), write);
    }

    pub(crate) fn list(&mut self, name: &'static str, write: impl FnOnce(&mut List<'_>)) {
        let out = self.name(name);
        out.push(b'[');
        write(&mut List { out, empty: true });
        out.push(b']');
    }

    pub(crate) fn numbers(&mut self, name: &'static str, numbers: &[f32]) {
        write_numbers(self.name(name), numbers);
    }

    /// JSON as it has been written elsewhere.
    pub(crate) fn raw(&mut self, name: &'static str, json: &[u8]) {
        self.name(name).extend_from_slice(json);
    }

    fn name(&mut self, name: &'static str) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }
}

// === impl List ===

impl List<'_> {
    pub(crate) fn object(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        append(self.next(), write);
    }

    pub(crate) fn text(&mut self, text: &str) {
        string(self.next(), text);
    }

    pub(crate) fn numbers(&mut self, numbers: &[f32]) {
        write_numbers(self.next(), numbers);
    }

    pub(crate) fn json(&mut self, json: &Json) {
        self.next().extend_from_slice(json.as_str().as_bytes());
    }

    /// Items as they have been written elsewhere, commas between them.
    pub(crate) fn raw(&mut self, items: &[u8]) {
        if !items.is_empty() {
            self.next().extend_from_slice(items);
        }
    }

    fn next(&mut self) -> &mut Vec<u8> {
        if !std::mem::take(&mut self.empty) {
            self.out.push(b',');
        }
        self.out
    }
}

/// A schema that says that arguments are an object, and which there are: Anthropic refuses one that leaves
/// out the former, OpenAI the latter.
fn of_arguments(schema: &[u8]) -> Cow<'_, [u8]> {
    let Ok(object) = edit::Object::parse(schema) else { return schema.into() };
    let is_unsaid = |name: &str| object.value(name).is_none_or(|value| value == b"null");
    if !is_unsaid("type") && object.text("type").as_deref() != Some("object") {
        return schema.into();
    }
    let mut missing = vec![("type", "\"object\""), ("properties", "{}")];
    missing.retain(|(name, _)| is_unsaid(name));
    if missing.is_empty() {
        return schema.into();
    }
    object.set(&Bytes::copy_from_slice(schema), &missing).concat().into()
}

/// A list of numbers, with as many digits as tell each from its neighbours.
fn write_numbers(out: &mut Vec<u8>, numbers: &[f32]) {
    // Writing to memory does not fail, and no number here is infinite.
    let _ = serde_json::to_writer(out, numbers);
}

/// A JSON string: quotes, backslashes and control characters escaped (RFC 8259, 7).
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else { break };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            byte => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn members_are_written_in_order() {
        let body = object(|body| {
            body.text("b", "x");
            body.list("a", |list| {
                list.text("y");
                list.object(|item| item.flag("c", true));
            });
            body.some_number("t", Some(1.0));
            body.null("n");
            body.object("e", |_| {});
        });
        assert_eq!(body, br#"{"b":"x","a":["y",{"c":true}],"t":1.0,"n":null,"e":{}}"#);
    }

    #[test]
    fn a_schema_says_that_arguments_are_an_object_and_which_there_are() {
        for (schema, written) in [
            ("{}", r#"{"type":"object","properties":{}}"#),
            (r#"{"type":"object"}"#, r#"{"properties":{},"type":"object"}"#),
            (
                r#"{"$schema":"s","properties":{"a":{}}}"#,
                r#"{"type":"object","$schema":"s","properties":{"a":{}}}"#,
            ),
            (r#"{"type":null,"properties":null}"#, r#"{"type":"object","properties":{}}"#),
            (
                r#"{"properties":{"type":{}},"type":"object"}"#,
                r#"{"properties":{"type":{}},"type":"object"}"#,
            ),
            (r#"{"type":"string"}"#, r#"{"type":"string"}"#),
            (r#"{"type":["object","null"]}"#, r#"{"type":["object","null"]}"#),
            ("true", "true"),
        ] {
            assert_eq!(*of_arguments(schema.as_bytes()), *written.as_bytes(), "{schema}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn any_text_is_read_as_it_was_written(text in any::<String>()) {
            let body = object(|body| body.text("t", &text));
            prop_assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), json!({"t": text}));
        }
    }
}
