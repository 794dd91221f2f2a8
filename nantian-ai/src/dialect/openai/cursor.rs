//! What Cursor asks for as Chat Completions: a request in the form of Responses, or one whose tools have that
//! form. It wants an answer of Chat Completions to either, in which every call is one of a function.

use std::collections::{HashMap, HashSet};

use memchr::memmem;

use crate::codec::{Fields, Invalid, Value};
use crate::dialect::responses::{self, OwnName, Tools};
use crate::edit::Object;
use crate::ir::{Losses, Request, Tool};

/// What a chat calls the most tokens of its answer.
const LIMITS: [&str; 3] = ["max_completion_tokens", "max_tokens", "n_predict"];

/// Whether a request for a chat is in the form of Responses.
pub(crate) fn has_form_of_responses(object: &Object<'_>) -> bool {
    let says = |name: &str| object.value(name).is_some_and(|value| value != b"null");
    says("input") && !says("messages")
}

/// Whether a request for a chat is in a form that no provider of Chat Completions takes.
pub(crate) fn is_of_cursor(object: &Object<'_>) -> bool {
    has_form_of_responses(object) || !text_tools(object).is_empty()
}

/// What the client calls its tools that take any text.
pub(crate) fn own_names(object: &Object<'_>) -> HashMap<String, OwnName> {
    let mut tools = Tools::default();
    // Those of a request that is refused have no names.
    let read = tools.read(text_tools(object), &mut Losses::default());
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
        limit = limit.max(fields.count(name)?);
    }
    let (request, losses) = responses::decode_fields(fields)?;
    let max_output = limit.max(request.max_output);
    Ok((Request { stream_usage: asks.unwrap_or(false), max_output, ..request }, losses))
}

/// Whether a tool is in the form of Responses.
pub(super) fn is_flat(tool: &Value) -> bool {
    let is_function = tool.get("type").and_then(Value::as_str) == Some("function");
    let is_flat = is_function && tool.get("name").is_some() && tool.get("function").is_none();
    is_flat || takes_text(tool)
}

/// Reads such a tool.
pub(super) fn read_tool(tool: Value, losses: &mut Losses) -> Result<Vec<Tool>, Invalid> {
    let mut tools = Tools::default();
    tools.read(vec![tool], losses)?;
    Ok(tools.into_tools())
}

/// The names of tools that take any text.
pub(super) fn text_names(tools: &[Value]) -> HashSet<String> {
    let names = tools.iter().filter(|tool| takes_text(tool)).filter_map(|tool| tool.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

fn text_tools(object: &Object<'_>) -> Vec<Value> {
    let may_hold_some = |json: &&[u8]| memmem::find(json, b"\"custom\"").is_some();
    match object.value("tools").filter(may_hold_some).map(Value::parse) {
        Some(Ok(Value::Array(tools))) => tools.into_iter().filter(takes_text).collect(),
        _ => Vec::new(),
    }
}

/// Whether a tool takes any text and is in the form of Responses.
fn takes_text(tool: &Value) -> bool {
    let is_custom = tool.get("type").and_then(Value::as_str) == Some("custom");
    is_custom && tool.get("name").is_some() && tool.get("custom").is_none()
}
