//! The common form into a Chat Completions reply.

use std::borrow::Cow;

use super::options::write_tier;
use super::signatures::Signature;
use crate::codec::{Defaults, Echo, Object, object};
use crate::ir::{Block, Json, Reply, Stop, Tokens, ToolCall, safe_id};

pub(crate) fn encode(reply: &Reply, defaults: &Defaults) -> Vec<u8> {
    object(|body| {
        head(body, "chat.completion", reply.id.as_deref(), reply.model.as_deref(), defaults);
        body.list("choices", |choices| {
            choices.object(|choice| {
                choice.count("index", 0);
                choice.object("message", |message| write_message(message, &reply.content, &defaults.echo));
                write_logprobs(choice, &reply.logprobs);
                choice.text("finish_reason", stop_name(&reply.stop));
            });
        });
        body.object("usage", |usage| write_tokens(usage, &reply.tokens));
        write_tier(body, reply.tokens.tier);
    })
}

/// The log probabilities of the tokens of a text, if there are any.
pub(super) fn write_logprobs(choice: &mut Object<'_>, logprobs: &[Json]) {
    if logprobs.is_empty() {
        return choice.null("logprobs");
    }
    choice.object("logprobs", |told| {
        told.list("content", |list| logprobs.iter().for_each(|token| list.json(token)));
        told.null("refusal");
    });
}

/// What every reply and every chunk begins with.
pub(super) fn head(
    body: &mut Object<'_>,
    kind: &str,
    id: Option<&str>,
    model: Option<&str>,
    defaults: &Defaults,
) {
    body.text("id", id.unwrap_or(&defaults.id));
    body.text("object", kind);
    body.count("created", defaults.created_seconds());
    body.text("model", model.unwrap_or(&defaults.model));
}

fn write_message(message: &mut Object<'_>, content: &[Block], echo: &Echo) {
    message.text("role", "assistant");
    let mut text = String::new();
    let mut refusal = String::new();
    let mut reasoning = String::new();
    for block in content {
        match block {
            Block::Text(said) => text.push_str(said),
            Block::Refusal(said) => refusal.push_str(said),
            Block::Reasoning(thought) => reasoning.push_str(&thought.text),
            _ => {}
        }
    }
    if text.is_empty() {
        message.null("content");
    } else {
        message.text("content", &text);
    }
    if refusal.is_empty() {
        message.null("refusal");
    } else {
        message.text("refusal", &refusal);
    }
    if !reasoning.is_empty() {
        message.text("reasoning_content", &reasoning);
    }
    let signed: Vec<_> = content
        .iter()
        .filter(|block| match block {
            Block::Reasoning(reasoning) => reasoning.signature.is_some(),
            block => matches!(block, Block::RedactedReasoning(_)),
        })
        .collect();
    if !signed.is_empty() {
        message.list("thinking_blocks", |list| {
            for block in signed {
                list.object(|item| write_thinking_block(item, block));
            }
        });
    }
    let arguments_of = |call: &ToolCall| echo.text_of(call).unwrap_or_else(|| call.arguments.to_string());
    write_calls(message, content, safe_id, arguments_of, |at| Signature::before(content, at));
}

/// A block of reasoning as Anthropic has it, so that a client can give it back with its signature.
pub(super) fn write_thinking_block(item: &mut Object<'_>, block: &Block) {
    match block {
        Block::Reasoning(reasoning) => {
            item.text("type", "thinking");
            item.text("thinking", &reasoning.text);
            item.some_text("signature", reasoning.signature.as_deref());
        }
        Block::RedactedReasoning(data) => {
            item.text("type", "redacted_thinking");
            item.text("data", data);
        }
        _ => {}
    }
}

/// The tool calls of a message, if it has any, by ids that the reader takes, and with the signatures of those
/// at a place: some clients give these back, and no `thinking_blocks`.
pub(super) fn write_calls<'c>(
    message: &mut Object<'_>,
    content: &'c [Block],
    id_of: fn(&str) -> Cow<'_, str>,
    arguments_of: impl Fn(&ToolCall) -> String,
    signature_of: impl Fn(usize) -> Option<Signature<'c>>,
) {
    let calls: Vec<_> = content
        .iter()
        .enumerate()
        .filter_map(|(at, block)| match block {
            Block::ToolCall(call) => Some((call, signature_of(at))),
            _ => None,
        })
        .collect();
    if calls.is_empty() {
        return;
    }
    message.list("tool_calls", |list| {
        for (call, signature) in calls {
            list.object(|item| {
                item.text("id", &id_of(&call.id));
                item.text("type", "function");
                item.object("function", |function| {
                    function.text("name", &call.name);
                    function.text("arguments", &arguments_of(call));
                });
                if let Some(signature) = signature {
                    signature.write(item);
                }
            });
        }
    });
}

pub(super) fn stop_name(stop: &Stop) -> &'static str {
    match stop {
        Stop::Length => "length",
        Stop::ToolCalls => "tool_calls",
        Stop::Refused => "content_filter",
        Stop::End | Stop::Sequence(_) => "stop",
    }
}

pub(super) fn write_tokens(usage: &mut Object<'_>, tokens: &Tokens) {
    let (input, output) = (tokens.input.unwrap_or(0), tokens.output.unwrap_or(0));
    usage.count("prompt_tokens", input);
    usage.count("completion_tokens", output);
    usage.count("total_tokens", input.saturating_add(output));
    if tokens.cache_read.is_some() || tokens.cache_write.is_some() {
        usage.object("prompt_tokens_details", |details| {
            details.some_count("cached_tokens", tokens.cache_read);
            details.some_count("cache_write_tokens", tokens.cache_write);
        });
    }
    if let Some(reasoning) = tokens.reasoning {
        usage.object("completion_tokens_details", |details| details.count("reasoning_tokens", reasoning));
    }
}
