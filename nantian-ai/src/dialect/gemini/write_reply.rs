//! The common form into a `generateContent` reply.

use super::own;
use crate::codec::{Defaults, Object, object};
use crate::ir::{Block, Losses, Reply, Stop, Tokens};

pub(crate) fn encode(reply: &Reply, defaults: &Defaults) -> (Vec<u8>, Losses) {
    let mut losses = Losses::default();
    let body = object(|body| {
        body.list("candidates", |list| {
            list.object(|candidate| {
                candidate.object("content", |content| {
                    content.list("parts", |list| {
                        let mut signature = None;
                        for block in &reply.content {
                            match block {
                                Block::Reasoning(reasoning) => {
                                    let next = reasoning.signature.as_deref().and_then(own);
                                    if next.is_none() && reasoning.signature.is_some() {
                                        losses.add("content.signature");
                                    }
                                    if !reasoning.text.is_empty() {
                                        list.object(|part| write_part(part, block, None));
                                    }
                                    signature = next;
                                }
                                Block::RedactedReasoning(_) => losses.add("content.redacted_thinking"),
                                Block::Text(text) | Block::Refusal(text) if text.is_empty() => {}
                                block => list.object(|part| write_part(part, block, signature.take())),
                            }
                        }
                        if let Some(signature) = signature {
                            list.object(|part| {
                                write_part(part, &Block::Text(String::new()), Some(signature));
                            });
                        }
                    });
                    content.text("role", "model");
                });
                candidate.text("finishReason", stop_name(&reply.stop));
                candidate.count("index", 0);
            });
        });
        write_tail(body, &reply.tokens, reply.id.as_deref(), reply.model.as_deref(), defaults);
    });
    (body, losses)
}

/// What every reply and every chunk ends with.
pub(super) fn write_tail(
    body: &mut Object<'_>,
    tokens: &Tokens,
    id: Option<&str>,
    model: Option<&str>,
    defaults: &Defaults,
) {
    body.object("usageMetadata", |usage| {
        let (input, output) = (tokens.input.unwrap_or(0), tokens.output.unwrap_or(0));
        usage.count("promptTokenCount", input);
        usage.count("candidatesTokenCount", output.saturating_sub(tokens.reasoning.unwrap_or(0)));
        usage.some_count("thoughtsTokenCount", tokens.reasoning);
        usage.some_count("cachedContentTokenCount", tokens.cache_read);
        usage.count("totalTokenCount", input.saturating_add(output));
    });
    body.text("modelVersion", model.unwrap_or(&defaults.model));
    body.text("responseId", id.unwrap_or(&defaults.id));
}

pub(super) fn write_part(part: &mut Object<'_>, block: &Block, signature: Option<&str>) {
    match block {
        Block::Text(text) | Block::Refusal(text) => part.text("text", text),
        Block::Reasoning(reasoning) => {
            part.text("text", &reasoning.text);
            part.flag("thought", true);
        }
        Block::ToolCall(call) => part.object("functionCall", |body| {
            body.text("id", &call.id);
            body.text("name", &call.name);
            body.json("args", &call.arguments);
        }),
        // Models do not answer with these.
        _ => {}
    }
    part.some_text("thoughtSignature", signature);
}

pub(super) fn stop_name(stop: &Stop) -> &'static str {
    match stop {
        Stop::Length => "MAX_TOKENS",
        Stop::Refused => "SAFETY",
        Stop::End | Stop::Sequence(_) | Stop::ToolCalls => "STOP",
    }
}
