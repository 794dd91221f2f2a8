//! A Converse reply into the common form.

use super::{OF_BEDROCK, is_malformed, read_stop};
use crate::codec::Fields;
use crate::ir::{Block, Fault, FaultKind, Losses, Reasoning, Reply, Tokens, ToolCall};

/// What is said beside an answer: how long it took, and padding that hides its length.
const ABOUT_ITSELF: [&str; 4] = ["metrics", "p", "performanceConfig", "serviceTier"];

pub(crate) fn decode(body: &[u8]) -> Result<(Reply, Losses), Fault> {
    let mut fields = Fields::parse_said(body)?;
    let mut output = fields.take("output").map(Fields::lenient).ok_or_else(Fault::unreadable)?;
    let mut losses = Losses::default();
    let mut content = Vec::new();
    let mut message = output.any_object("message");
    for block in message.any_list("content") {
        content.extend(read_block(Fields::lenient(block), &mut losses));
    }
    let reason = fields.any_text("stopReason");
    // What it has only thought is no answer.
    if content.iter().all(Block::is_reasoning) && is_malformed(reason.as_deref()) {
        return Err(malformed());
    }
    let has_calls = content.iter().any(|block| matches!(block, Block::ToolCall(_)));
    let reply = Reply {
        id: None,
        model: None,
        content,
        logprobs: Vec::new(),
        stop: read_stop(reason.as_deref()).with_calls(has_calls),
        tokens: read_tokens(&mut fields.any_object("usage")),
    };
    message.ignore(&["role"]);
    message.rest_below("output.message", &mut losses);
    output.rest_below("output", &mut losses);
    rest_beside(fields, &mut losses);
    Ok((reply, losses))
}

/// Names what else is said beside an answer: what a guardrail has found, and what only the model's own API
/// has words for.
pub(super) fn rest_beside(mut fields: Fields, losses: &mut Losses) {
    fields.ignore(&ABOUT_ITSELF);
    fields.rest(losses);
}

fn read_block(mut block: Fields, losses: &mut Losses) -> Vec<Block> {
    let text = block.some_text("text").map(Block::Text);
    let call = read_call(block.any_object("toolUse"), losses);
    let reasoning = read_reasoning(block.any_object("reasoningContent"), losses);
    let mut read: Vec<_> = text.into_iter().chain(call).chain(reasoning).collect();
    // Text with what it is taken from.
    let mut cited = block.any_object("citationsContent");
    for part in cited.any_list("content") {
        let mut part = Fields::lenient(part);
        read.extend(part.some_text("text").map(Block::Text));
        part.rest_below("content.citationsContent", losses);
    }
    cited.rest_below("content", losses);
    block.rest_below("content", losses);
    read
}

fn read_call(mut call: Fields, losses: &mut Losses) -> Option<Block> {
    let name = call.some_text("name")?;
    let id = call.any_text("toolUseId").unwrap_or_default();
    let arguments = call.arguments("input");
    call.rest_below("content.toolUse", losses);
    Some(Block::ToolCall(ToolCall { id, name, arguments }))
}

fn read_reasoning(mut reasoning: Fields, losses: &mut Losses) -> Option<Block> {
    let encrypted = reasoning.some_text("redactedContent");
    let plain = reasoning.take("reasoningText").map(Fields::lenient);
    reasoning.rest_below("content.reasoningContent", losses);
    if let Some(data) = encrypted {
        return Some(Block::RedactedReasoning(format!("{OF_BEDROCK}{data}")));
    }
    let mut said = plain?;
    let text = said.any_text("text").unwrap_or_default();
    let signature = said.some_text("signature");
    said.rest_below("content.reasoningContent", losses);
    Some(Block::Reasoning(Reasoning { text, signature }))
}

pub(super) fn read_tokens(usage: &mut Fields) -> Tokens {
    let cache_read = usage.any_count("cacheReadInputTokens");
    let cache_write = usage.any_count("cacheWriteInputTokens");
    let cached = cache_read.unwrap_or(0).saturating_add(cache_write.unwrap_or(0));
    Tokens {
        input: usage.any_count("inputTokens").map(|input| input.saturating_add(cached)),
        cache_read,
        cache_write,
        output: usage.any_count("outputTokens"),
        reasoning: None,
        tier: None,
    }
}

pub(super) fn malformed() -> Fault {
    Fault::new(FaultKind::Unreadable, "the model has written what cannot be read")
}
