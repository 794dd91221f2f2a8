//! A Converse reply into the common form.

use super::{OF_BEDROCK, is_malformed, read_stop};
use crate::codec::Fields;
use crate::ir::{Block, Fault, FaultKind, Losses, Reasoning, Reply, Tokens, ToolCall};

pub(crate) fn decode(body: &[u8]) -> Result<(Reply, Losses), Fault> {
    let mut fields = Fields::parse(body).map_err(|_| Fault::unreadable())?;
    let mut output = fields.take("output").map(Fields::lenient).ok_or_else(Fault::unreadable)?;
    let mut losses = Losses::default();
    let mut content = Vec::new();
    for block in output.any_object("message").any_list("content") {
        read_block(Fields::lenient(block), &mut content, &mut losses);
    }
    let reason = fields.any_text("stopReason");
    if content.is_empty() && is_malformed(reason.as_deref()) {
        return Err(malformed());
    }
    let has_calls = content.iter().any(|block| matches!(block, Block::ToolCall(_)));
    let reply = Reply {
        id: None,
        model: None,
        content,
        stop: read_stop(reason.as_deref()).with_calls(has_calls),
        tokens: read_tokens(&mut fields.any_object("usage")),
    };
    Ok((reply, losses))
}

fn read_block(mut block: Fields, content: &mut Vec<Block>, losses: &mut Losses) {
    if let Some(text) = block.any_text("text") {
        content.extend((!text.is_empty()).then_some(Block::Text(text)));
        return;
    }
    let mut call = block.any_object("toolUse");
    if let Some(name) = call.some_text("name") {
        content.push(Block::ToolCall(ToolCall {
            id: call.any_text("toolUseId").unwrap_or_default(),
            name,
            arguments: call.json_object("input"),
        }));
        return;
    }
    let mut reasoning = block.any_object("reasoningContent");
    if let Some(data) = reasoning.some_text("redactedContent") {
        content.push(Block::RedactedReasoning(format!("{OF_BEDROCK}{data}")));
        return;
    }
    if let Some(mut said) = reasoning.take("reasoningText").map(Fields::lenient) {
        let text = said.any_text("text").unwrap_or_default();
        content.push(Block::Reasoning(Reasoning { text, signature: said.some_text("signature") }));
        return;
    }
    // Text with what it is taken from.
    let mut cited = block.any_object("citationsContent");
    for part in cited.any_list("content") {
        content.extend(Fields::lenient(part).some_text("text").map(Block::Text));
    }
    if !cited.any_list("citations").is_empty() {
        losses.add("content.citations");
    }
    block.rest_below("content", losses);
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
    }
}

pub(super) fn malformed() -> Fault {
    Fault::new(FaultKind::Upstream, "the model has written what cannot be read")
}
