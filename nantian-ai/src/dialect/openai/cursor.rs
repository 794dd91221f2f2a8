//! What Cursor asks for as Chat Completions: a request in the form of Responses, or one whose tools have that
//! form. It wants an answer of Chat Completions to either, in which every call is one of a function.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::codec::{Fields, Invalid, Value};
use crate::dialect::lenient::{Few, Present};
use crate::dialect::responses::{self, OwnName, Tools};
use crate::edit::Object;
use crate::ir::{Losses, Request, Tool};

/// What a chat calls the most tokens of its answer.
const LIMITS: [&str; 3] = ["max_completion_tokens", "max_tokens", "n_predict"];

/// What tells in which form a tool is.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Form<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    name: Present,
    function: Present,
    custom: Present,
}

/// Whether a request for a chat is in the form of Responses.
pub(crate) fn has_form_of_responses(object: &Object<'_>) -> bool {
    let says = |name: &str| object.value(name).is_some_and(|value| value != b"null");
    says("input") && !says("messages")
}

/// Whether a request for a chat is in a form that no provider of Chat Completions takes.
pub(crate) fn is_of_cursor(object: &Object<'_>) -> bool {
    has_form_of_responses(object) || tools_that(Form::is_flat, object).next().is_some()
}

/// What the client calls its tools that take any text.
pub(crate) fn own_names(object: &Object<'_>) -> HashMap<String, OwnName> {
    let mut tools = Tools::default();
    let texts = tools_that(Form::takes_text, object);
    let texts = texts.filter_map(|tool| serde_json::from_str(tool).ok()).collect();
    // Those of a request that is refused have no names.
    let read = tools.read(texts, &mut Losses::default());
    read.map(|_| tools.into_own_names()).unwrap_or_default()
}

/// Reads a request in the form of Responses.
pub(super) fn decode(mut fields: Fields) -> Result<(Request, Losses), Invalid> {
    if !fields.has("input") {
        return Err(fields.invalid("messages", "is missing"));
    }
    // It means what it means in a chat.
    let options = fields.object("stream_options", "stream_options")?;
    let asks = options.map(|mut options| options.flag("include_usage")).transpose()?.flatten();
    // Limits of a chat may stand beside its own; a limiter believes the largest.
    let mut limit = None;
    for name in LIMITS {
        limit = limit.max(fields.limit(name)?);
    }
    let (request, losses) = responses::decode_fields(fields)?;
    let max_output = limit.max(request.max_output);
    Ok((Request { stream_usage: asks.unwrap_or(false), max_output, ..request }, losses))
}

/// Whether a tool is in the form of Responses.
pub(super) fn is_flat(tool: &Value) -> bool {
    Form::of(tool).is_flat()
}

/// Reads such a tool.
pub(super) fn read_tool(tool: Value, losses: &mut Losses) -> Result<Vec<Tool>, Invalid> {
    let mut tools = Tools::default();
    tools.read(vec![tool], losses)?;
    Ok(tools.into_tools())
}

/// The names of tools that take any text.
pub(super) fn text_names(tools: &[Value]) -> HashSet<String> {
    let texts = tools.iter().filter(|tool| Form::of(tool).takes_text());
    let names = texts.filter_map(|tool| tool.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

/// The tools of a request whose form is one: of the others no more is read than that.
fn tools_that<'a>(is_so: fn(&Form<'a>) -> bool, object: &Object<'a>) -> impl Iterator<Item = &'a str> {
    let list = object.value("tools").and_then(|json| serde_json::from_slice::<Few<&RawValue>>(json).ok());
    let tools = list.map(|Few(tools)| tools).unwrap_or_default().into_iter().map(RawValue::get);
    tools.filter(move |tool| is_so(&Form::read(tool)))
}

// === impl Form ===

impl<'a> Form<'a> {
    /// What is no tool is in none.
    fn read(tool: &'a str) -> Self {
        serde_json::from_str(tool).unwrap_or_default()
    }

    fn of(tool: &'a Value) -> Self {
        let says = |name| Present(tool.get(name).is_some_and(|value| !value.is_null()));
        Self {
            kind: tool.get("type").and_then(Value::as_str).unwrap_or_default().into(),
            name: says("name"),
            function: says("function"),
            custom: says("custom"),
        }
    }

    /// Whether it is that of Responses.
    fn is_flat(&self) -> bool {
        let is_function = self.kind == "function" && self.name.0 && !self.function.0;
        is_function || self.takes_text()
    }

    /// Whether it is that of Responses for a tool that takes any text.
    fn takes_text(&self) -> bool {
        self.kind == "custom" && self.name.0 && !self.custom.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_in_one_form_however_it_is_read() {
        for (tool, is) in [
            (r#"{"type":"function","name":"a","parameters":{"properties":{"function":{}}}}"#, true),
            (r#"{"name":"a", "type":"function", "function":null}"#, true),
            (r#"{"type":"custom","name":"a"}"#, true),
            (r#"{"type":"custom","custom":{"name":"a"}}"#, false),
            (r#"{"type":"function","function":{"name":"a","parameters":{"type":"custom"}}}"#, false),
            (r#"{"type":"function","name":"a","function":{"name":"a"}}"#, false),
            (r#"{"type":"function","name":null}"#, false),
            (r#"{"type":"web_search","name":"a"}"#, false),
            (r#"{"type":["function"],"name":"a"}"#, false),
            (r#""function""#, false),
        ] {
            assert_eq!(is_flat(&Value::parse(tool.as_bytes()).unwrap()), is, "{tool}");
            let request = format!(r#"{{"messages":[],"tools":[{{"function":{{}}}},7,{tool}]}}"#);
            assert_eq!(is_of_cursor(&Object::parse(request.as_bytes()).unwrap()), is, "{tool}");
        }
        assert!(!is_of_cursor(&Object::parse(br#"{"tools":{"type":"function","name":"a"}}"#).unwrap()));
    }
}
