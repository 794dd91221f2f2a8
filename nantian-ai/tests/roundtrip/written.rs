//! Answers as those providers write them whose dialects are only read here.

use nantian_ai::ir::{Block, Reply, Stop, Tokens};
use serde_json::{Value, json};

use crate::frames::frames;

fn value(json: &nantian_ai::ir::Json) -> Value {
    serde_json::from_str(json.as_str()).unwrap()
}

fn bedrock_reason(stop: &Stop) -> &'static str {
    match stop {
        Stop::Length => "max_tokens",
        Stop::Refused => "guardrail_intervened",
        Stop::ToolCalls => "tool_use",
        _ => "end_turn",
    }
}

fn bedrock_usage(tokens: &Tokens) -> Value {
    let cached = tokens.cache_read.unwrap();
    json!({
        "inputTokens": tokens.input.unwrap() - cached,
        "cacheReadInputTokens": cached,
        "outputTokens": tokens.output,
    })
}

pub(crate) fn bedrock_reply(reply: &Reply) -> Value {
    let content: Vec<_> = reply
        .content
        .iter()
        .map(|block| match block {
            Block::Text(text) => json!({"text": text}),
            Block::Reasoning(reasoning) => json!({"reasoningContent": {
                "reasoningText": {"text": reasoning.text, "signature": reasoning.signature},
            }}),
            Block::ToolCall(call) => json!({"toolUse": {
                "toolUseId": call.id,
                "name": call.name,
                "input": value(&call.arguments),
            }}),
            block => panic!("{block:?}"),
        })
        .collect();
    json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": bedrock_reason(&reply.stop),
        "usage": bedrock_usage(&reply.tokens),
    })
}

/// Text comes in two pieces.
fn halves(text: &str) -> impl Iterator<Item = &str> {
    let middle = (text.len() / 2..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap();
    [&text[..middle], &text[middle..]].into_iter().filter(|half| !half.is_empty())
}

pub(crate) fn bedrock_stream(reply: &Reply) -> Vec<u8> {
    let mut events = vec![("messageStart", json!({"role": "assistant"}))];
    for (index, block) in reply.content.iter().enumerate() {
        let delta = |delta: Value| ("contentBlockDelta", json!({"contentBlockIndex": index, "delta": delta}));
        match block {
            Block::Text(text) => events.extend(halves(text).map(|half| delta(json!({"text": half})))),
            Block::Reasoning(reasoning) => {
                let said = |what: Value| delta(json!({"reasoningContent": what}));
                events.extend(halves(&reasoning.text).map(|half| said(json!({"text": half}))));
                let signature = reasoning.signature.iter();
                events.extend(signature.map(|signature| said(json!({"signature": signature}))));
            }
            Block::ToolCall(call) => {
                let start = json!({"toolUse": {"toolUseId": call.id, "name": call.name}});
                events.push(("contentBlockStart", json!({"contentBlockIndex": index, "start": start})));
                let input = halves(call.arguments.as_str());
                events.extend(input.map(|half| delta(json!({"toolUse": {"input": half}}))));
            }
            block => panic!("{block:?}"),
        }
        events.push(("contentBlockStop", json!({"contentBlockIndex": index})));
    }
    events.push(("messageStop", json!({"stopReason": bedrock_reason(&reply.stop)})));
    events.push(("metadata", json!({"usage": bedrock_usage(&reply.tokens)})));
    let events: Vec<_> = events.into_iter().map(|(name, event)| (name, event.to_string())).collect();
    frames(events.iter().map(|(name, event)| (*name, event.as_str())))
}

/// A thought's signature stands on the part after it.
fn gemini_parts(reply: &Reply) -> Vec<Value> {
    let mut parts = Vec::new();
    let mut signature = None;
    for block in &reply.content {
        let mut part = match block {
            Block::Text(text) => json!({"text": text}),
            Block::Reasoning(reasoning) => {
                let own = reasoning.signature.as_deref();
                signature = own.map(|own| own.strip_prefix("google.").unwrap());
                parts.push(json!({"text": reasoning.text, "thought": true}));
                continue;
            }
            Block::ToolCall(call) => json!({"functionCall": {
                "id": call.id,
                "name": call.name,
                "args": value(&call.arguments),
            }}),
            block => panic!("{block:?}"),
        };
        if let Some(signature) = signature.take() {
            part["thoughtSignature"] = signature.into();
        }
        parts.push(part);
    }
    parts.extend(signature.map(|signature| json!({"text": "", "thoughtSignature": signature})));
    parts
}

fn gemini_chunk(reply: &Reply, parts: &[Value], is_last: bool) -> Value {
    let reason = match reply.stop {
        Stop::Length => "MAX_TOKENS",
        Stop::Refused => "SAFETY",
        _ => "STOP",
    };
    let reasoning = reply.tokens.reasoning.unwrap();
    let mut candidate = json!({"content": {"role": "model", "parts": parts}});
    if is_last {
        candidate["finishReason"] = reason.into();
    }
    json!({
        "candidates": [candidate],
        "responseId": reply.id,
        "modelVersion": reply.model,
        "usageMetadata": {
            "promptTokenCount": reply.tokens.input,
            "cachedContentTokenCount": reply.tokens.cache_read,
            "candidatesTokenCount": reply.tokens.output.unwrap() - reasoning,
            "thoughtsTokenCount": reasoning,
        },
    })
}

pub(crate) fn gemini_reply(reply: &Reply) -> Value {
    gemini_chunk(reply, &gemini_parts(reply), true)
}

pub(crate) fn gemini_stream(reply: &Reply) -> Vec<u8> {
    let parts = gemini_parts(reply);
    let chunks = parts.chunks(1).map(|parts| gemini_chunk(reply, parts, false));
    let chunks = chunks.chain([gemini_chunk(reply, &[], true)]);
    chunks.flat_map(|chunk| format!("data: {chunk}\n\n").into_bytes()).collect()
}
