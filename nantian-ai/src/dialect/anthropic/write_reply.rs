//! The common form into a Messages reply.

use super::write_request::write_block;
use crate::codec::{Defaults, Object, object};
use crate::ir::{Block, Reply, Stop, Tier, Tokens};

pub(crate) fn encode(reply: &Reply, defaults: &Defaults) -> Vec<u8> {
    object(|body| {
        head(body, reply.id.as_deref(), reply.model.as_deref(), defaults);
        body.list("content", |list| {
            let said = |block: &&Block| !matches!(block, Block::Text(text) if text.is_empty());
            reply.content.iter().filter(said).for_each(|block| write_block(list, block));
        });
        let refuses = reply.content.iter().any(|block| matches!(block, Block::Refusal(_)));
        write_stop(body, Some(&reply.stop.clone().with_refusal(refuses)));
        body.object("usage", |usage| {
            write_tokens(usage, &reply.tokens);
            write_tier(usage, reply.tokens.tier);
        });
    })
}

/// What every message begins with.
pub(super) fn head(body: &mut Object<'_>, id: Option<&str>, model: Option<&str>, defaults: &Defaults) {
    body.text("id", id.unwrap_or(&defaults.id));
    body.text("type", "message");
    body.text("role", "assistant");
    body.text("model", model.unwrap_or(&defaults.model));
}

pub(super) fn write_stop(body: &mut Object<'_>, stop: Option<&Stop>) {
    let (reason, sequence) = match stop {
        None => (None, None),
        Some(Stop::End) => (Some("end_turn"), None),
        Some(Stop::Length) => (Some("max_tokens"), None),
        Some(Stop::Sequence(sequence)) => (Some("stop_sequence"), sequence.as_deref()),
        Some(Stop::ToolCalls) => (Some("tool_use"), None),
        Some(Stop::Refused) => (Some("refusal"), None),
    };
    match reason {
        Some(reason) => body.text("stop_reason", reason),
        None => body.null("stop_reason"),
    }
    match sequence {
        Some(sequence) => body.text("stop_sequence", sequence),
        None => body.null("stop_sequence"),
    }
}

pub(super) fn write_tokens(usage: &mut Object<'_>, tokens: &Tokens) {
    usage.count("input_tokens", tokens.uncached().unwrap_or(0));
    usage.some_count("cache_creation_input_tokens", tokens.cache_write);
    usage.some_count("cache_read_input_tokens", tokens.cache_read);
    usage.count("output_tokens", tokens.output.unwrap_or(0));
    if let Some(reasoning) = tokens.reasoning {
        usage.object("output_tokens_details", |details| details.count("thinking_tokens", reasoning));
    }
}

/// By which tier an answer is served, as a whole one and the beginning of a stream tell it.
pub(super) fn write_tier(usage: &mut Object<'_>, tier: Option<Tier>) {
    let name = match tier {
        Some(Tier::Default) => Some("standard"),
        Some(Tier::Priority) => Some("priority"),
        _ => None,
    };
    usage.some_text("service_tier", name);
}
