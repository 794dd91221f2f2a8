//! The common form into a Responses reply.

use super::signature;
use super::tools::{Called, text_of};
use crate::codec::{Defaults, Echo, List, Object, object};
use crate::dialect::openai::options::write_tier;
use crate::ir::{Block, Fault, FaultKind, Json, Reply, Stop, Tokens, safe_id, safe_item_id};

/// How far a response has come.
pub(super) enum State<'s> {
    Begun,
    Ended { stop: &'s Stop, tokens: &'s Tokens },
    Failed(&'s Fault),
}

pub(crate) fn encode(reply: &Reply, defaults: &Defaults) -> Vec<u8> {
    object(|body| {
        let id = reply.id.as_deref().unwrap_or(&defaults.id);
        let state = State::Ended { stop: &reply.stop, tokens: &reply.tokens };
        write_response(body, id, reply.model.as_deref(), defaults, &state, |list| {
            let mut logprobs = reply.logprobs.as_slice();
            let said = |block: &&Block| !matches!(block, Block::Text(text) if text.is_empty());
            let mut blocks = reply.content.iter().filter(said).enumerate().peekable();
            while let Some((index, block)) = blocks.next() {
                let prefix = match block {
                    Block::Reasoning(_) | Block::RedactedReasoning(_) => "rs",
                    Block::ToolCall(call) => defaults.echo.called(&call.name).prefix(),
                    _ => "msg",
                };
                let made = item_id(prefix, id, index);
                let id = signed_id(block).unwrap_or(&made);
                // They are of the answer's text, which is one.
                let of_text = match block {
                    Block::Text(_) => std::mem::take(&mut logprobs),
                    _ => &[],
                };
                let is_cut = blocks.peek().is_none() && reason_of_cut(&reply.stop).is_some();
                list.object(|item| write_item(item, block, of_text, (id, is_cut), &defaults.echo));
            }
        });
    })
}

/// A whole response.
pub(super) fn write_response(
    body: &mut Object<'_>,
    id: &str,
    model: Option<&str>,
    defaults: &Defaults,
    state: &State<'_>,
    output: impl FnOnce(&mut List<'_>),
) {
    body.text("id", id);
    body.text("object", "response");
    body.count("created_at", defaults.created_seconds());
    let incomplete = match state {
        State::Ended { stop, .. } => reason_of_cut(stop),
        State::Begun | State::Failed(_) => None,
    };
    body.text(
        "status",
        match state {
            State::Begun => "in_progress",
            State::Ended { .. } if incomplete.is_some() => "incomplete",
            State::Ended { .. } => "completed",
            State::Failed(_) => "failed",
        },
    );
    match state {
        State::Failed(fault) => body.object("error", |error| {
            error.text("code", error_code(fault.kind));
            error.text("message", &fault.message);
        }),
        _ => body.null("error"),
    }
    match incomplete {
        Some(reason) => body.object("incomplete_details", |details| details.text("reason", reason)),
        None => body.null("incomplete_details"),
    }
    let echo = &defaults.echo;
    echo.write(body, "instructions", |body| body.null("instructions"));
    echo.write(body, "max_output_tokens", |body| body.null("max_output_tokens"));
    body.text("model", model.unwrap_or(&defaults.model));
    body.list("output", output);
    echo.write(body, "parallel_tool_calls", |body| body.flag("parallel_tool_calls", true));
    body.null("previous_response_id");
    echo.write(body, "prompt_cache_key", |_| {});
    echo.write(body, "reasoning", |_| {});
    echo.write(body, "safety_identifier", |_| {});
    if let State::Ended { tokens, .. } = state {
        write_tier(body, tokens.tier);
    }
    body.flag("store", false);
    echo.write(body, "temperature", |body| body.null("temperature"));
    echo.write(body, "text", |body| {
        body.object("text", |text| text.object("format", |format| format.text("type", "text")));
    });
    echo.write(body, "tool_choice", |body| body.text("tool_choice", "auto"));
    echo.write(body, "tools", |body| body.list("tools", |_| {}));
    echo.write(body, "top_p", |body| body.null("top_p"));
    body.text("truncation", "disabled");
    match state {
        State::Ended { tokens, .. } => body.object("usage", |usage| write_tokens(usage, tokens)),
        _ => body.null("usage"),
    }
    echo.write(body, "user", |_| {});
    echo.write(body, "metadata", |body| body.object("metadata", |_| {}));
}

/// Why an answer is not complete, if it is not.
pub(super) fn reason_of_cut(stop: &Stop) -> Option<&'static str> {
    match stop {
        Stop::Length => Some("max_output_tokens"),
        Stop::Refused => Some("content_filter"),
        _ => None,
    }
}

/// An item that is over; not to its end if it `is_cut`.
pub(super) fn write_item(
    item: &mut Object<'_>,
    block: &Block,
    logprobs: &[Json],
    (id, is_cut): (&str, bool),
    echo: &Echo,
) {
    let status = if is_cut { "incomplete" } else { "completed" };
    item.text("id", id);
    match block {
        Block::Reasoning(reasoning) => {
            item.text("type", "reasoning");
            item.list("summary", |list| {
                if !reasoning.text.is_empty() {
                    list.object(|part| write_part(part, "summary_text", "text", &reasoning.text));
                }
            });
            let signature = reasoning.signature.as_deref();
            let encrypted = signature.map_or(signature::UNSIGNED.into(), |it| signature::write(it, id));
            item.text("encrypted_content", &encrypted);
        }
        Block::RedactedReasoning(data) => {
            item.text("type", "reasoning");
            item.list("summary", |_| {});
            item.text("encrypted_content", &signature::redacted(data));
        }
        Block::ToolCall(call) => {
            let called = echo.called(&call.name);
            item.text("type", called.item());
            item.text("status", status);
            match called {
                Called::Function => item.text("arguments", call.arguments.as_str()),
                Called::Custom => item.text("input", &text_of(&call.arguments)),
                Called::Search => item.json("arguments", &call.arguments),
            }
            item.text("call_id", &safe_id(&call.id));
            write_name(item, &call.name, echo);
        }
        block => {
            item.text("type", "message");
            item.text("status", status);
            item.text("role", "assistant");
            item.list("content", |list| match block {
                Block::Text(text) => list.object(|part| write_text(part, text, logprobs)),
                Block::Refusal(text) => list.object(|part| write_part(part, "refusal", "refusal", text)),
                // Models do not answer with these.
                _ => {}
            });
        }
    }
}

/// The name of a tool as the client knows it.
pub(super) fn write_name(item: &mut Object<'_>, name: &str, echo: &Echo) {
    let own = echo.own_name(name);
    if own.is_some_and(|own| own.called == Called::Search) {
        item.text("execution", "client");
        return;
    }
    item.text("name", own.map_or(name, |own| &own.name));
    item.some_text("namespace", own.and_then(|own| own.namespace.as_deref()));
}

pub(super) fn write_text(part: &mut Object<'_>, text: &str, logprobs: &[Json]) {
    write_part(part, "output_text", "text", text);
    part.list("annotations", |_| {});
    write_logprobs(part, logprobs);
}

pub(super) fn write_logprobs(part: &mut Object<'_>, logprobs: &[Json]) {
    part.list("logprobs", |list| logprobs.iter().for_each(|token| list.json(token)));
}

pub(super) fn write_part(part: &mut Object<'_>, kind: &str, name: &'static str, text: &str) {
    part.text("type", kind);
    part.text(name, text);
}

/// The id that belongs to the signature of an item.
fn signed_id(block: &Block) -> Option<&str> {
    match block {
        Block::Reasoning(reasoning) => {
            let (id, _) = signature::own(reasoning.signature.as_deref()?)?;
            Some(id).filter(|id| !id.is_empty())
        }
        _ => None,
    }
}

/// The id of any other item.
pub(super) fn item_id(prefix: &str, response: &str, index: usize) -> String {
    safe_item_id(&format!("{prefix}_{index}_{response}")).into_owned()
}

pub(super) fn write_tokens(usage: &mut Object<'_>, tokens: &Tokens) {
    let (input, output) = (tokens.input.unwrap_or(0), tokens.output.unwrap_or(0));
    usage.count("input_tokens", input);
    usage.object("input_tokens_details", |details| {
        details.count("cached_tokens", tokens.cache_read.unwrap_or(0));
        details.count("cache_write_tokens", tokens.cache_write.unwrap_or(0));
    });
    usage.count("output_tokens", output);
    usage.object("output_tokens_details", |details| {
        details.count("reasoning_tokens", tokens.reasoning.unwrap_or(0));
    });
    usage.count("total_tokens", input.saturating_add(output));
}

/// The names that there are for what fails a response.
pub(super) fn error_code(kind: FaultKind) -> &'static str {
    match kind {
        FaultKind::ContextLength => "context_length_exceeded",
        FaultKind::Invalid | FaultKind::Unsupported => "invalid_prompt",
        FaultKind::RateLimit => "rate_limit_exceeded",
        _ => "server_error",
    }
}
