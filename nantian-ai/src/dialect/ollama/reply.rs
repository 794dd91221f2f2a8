//! A reply of Ollama's `/api/chat` from and into the common form.

use std::time::Duration;

use super::write_request::write_call;
use crate::codec::{Defaults, Fields, Object, Value, lost_of_stop, object};
use crate::ir::{Block, Fault, Losses, Reasoning, Reply, Stop, Tokens, ToolCall, ToolIds};

/// What a provider adds about itself, not about the answer.
pub(super) const ABOUT_ITSELF: [&str; 7] = [
    "created_at",
    "eval_duration",
    "load_duration",
    "prompt_eval_duration",
    "remote_host",
    "remote_model",
    "total_duration",
];

pub(crate) fn decode(body: &[u8], ids: &mut ToolIds) -> Result<(Reply, Losses), Fault> {
    let mut fields = Fields::parse_unless_error(body)?;
    if fields.take("done") != Some(Value::Bool(true)) {
        return Err(Fault::truncated());
    }
    let mut losses = Losses::default();
    let mut message = fields.any_object("message");
    let mut content = Vec::new();
    let reasoning = |text| Block::Reasoning(Reasoning { text, signature: None });
    content.extend(message.some_text("thinking").map(reasoning));
    content.extend(message.some_text("content").map(Block::Text));
    let calls = message.any_list("tool_calls");
    let stop = read_stop(fields.any_text("done_reason").as_deref()).with_calls(!calls.is_empty());
    content.extend(calls.into_iter().map(|call| Block::ToolCall(read_call(call, ids, &mut losses))));
    let tokens = read_tokens(&mut fields);
    let model = fields.some_text("model");
    message.ignore(&["role"]);
    message.rest(&mut losses);
    fields.ignore(&ABOUT_ITSELF);
    fields.rest(&mut losses);
    Ok((Reply { id: None, model, content, logprobs: Vec::new(), stop, tokens }, losses))
}

pub(super) fn read_call(call: Value, ids: &mut ToolIds, losses: &mut Losses) -> ToolCall {
    let mut call = Fields::lenient(call);
    let mut function = call.any_object("function");
    let read = ToolCall {
        id: call.some_text("id").unwrap_or_else(|| ids.next()),
        name: function.any_text("name").unwrap_or_default(),
        arguments: function.arguments("arguments"),
    };
    function.ignore(&["index"]);
    function.rest_below("message.tool_calls.function", losses);
    call.ignore(&["type"]);
    call.rest_below("message.tool_calls", losses);
    read
}

pub(super) fn read_stop(reason: Option<&str>) -> Stop {
    match reason {
        Some("length") => Stop::Length,
        _ => Stop::End,
    }
}

/// A prompt that is in the cache counts as nothing, which is no count.
pub(super) fn read_tokens(fields: &mut Fields) -> Tokens {
    Tokens {
        input: fields.any_count("prompt_eval_count").filter(|count| *count > 0),
        output: fields.any_count("eval_count"),
        ..Tokens::default()
    }
}

/// What has no place in a reply is named.
pub(crate) fn encode(reply: &Reply, defaults: &Defaults) -> (Vec<u8>, Losses) {
    let mut losses = lost_of_stop(&reply.stop);
    let mut text = String::new();
    let mut thinking = String::new();
    let mut calls = Vec::new();
    for block in &reply.content {
        match block {
            Block::Text(said) => text.push_str(said),
            Block::Refusal(said) => {
                losses.add("stop");
                text.push_str(said);
            }
            Block::Reasoning(reasoning) => {
                thinking.push_str(&reasoning.text);
                if reasoning.signature.is_some() {
                    losses.add("reasoning.signature");
                }
            }
            Block::RedactedReasoning(_) => losses.add("reasoning.redacted"),
            Block::ToolCall(call) => calls.push(call),
            Block::Image(_) | Block::Document(_) | Block::Audio(_) | Block::ToolResult(_) => {}
        }
    }
    if reply.stop == Stop::Refused {
        losses.add("stop");
    }
    if has_details(&reply.tokens) {
        losses.add("usage.details");
    }
    let body = object(|body| {
        head(body, reply.model.as_deref(), defaults);
        body.object("message", |message| {
            message.text("role", "assistant");
            message.text("content", &text);
            if !thinking.is_empty() {
                message.text("thinking", &thinking);
            }
            if !calls.is_empty() {
                message.list("tool_calls", |list| calls.iter().for_each(|call| write_call(list, call)));
            }
        });
        write_end(body, &reply.stop, &reply.tokens, defaults.took, defaults.took);
    });
    (body, losses)
}

/// Whether there are counts that have no place here.
pub(super) fn has_details(tokens: &Tokens) -> bool {
    let Tokens { cache_read, cache_write, reasoning, .. } = *tokens;
    [cache_read, cache_write, reasoning].into_iter().flatten().any(|count| count > 0)
}

pub(super) fn head(body: &mut Object<'_>, model: Option<&str>, defaults: &Defaults) {
    body.text("model", model.unwrap_or(&defaults.model));
    body.text("created_at", &defaults.created_text());
}

/// What is said last of an answer whose first token came after `first` of the time that it `took`.
pub(super) fn write_end(
    body: &mut Object<'_>,
    stop: &Stop,
    tokens: &Tokens,
    first: Duration,
    took: Duration,
) {
    // Clients divide counts by these times. Of an answer that comes at once nobody knows how long each half
    // of it took.
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
    let written = Some(took.saturating_sub(first)).filter(|time| !time.is_zero());
    body.flag("done", true);
    body.text("done_reason", if *stop == Stop::Length { "length" } else { "stop" });
    body.count("total_duration", nanoseconds(took));
    body.count("load_duration", 0);
    body.some_count("prompt_eval_count", tokens.input);
    body.count("prompt_eval_duration", nanoseconds(first));
    body.some_count("eval_count", tokens.output);
    body.count("eval_duration", nanoseconds(written.unwrap_or(took)));
}
