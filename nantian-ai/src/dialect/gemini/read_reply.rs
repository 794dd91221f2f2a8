//! A `generateContent` reply into the common form.

use super::{failure, read_stop, tagged, unlisted};
use crate::codec::{Fields, Value, fault};
use crate::ir::{Block, Fault, Json, Losses, Reasoning, Reply, Stop, Tokens, ToolCall, ToolIds};

/// What a part of an answer says.
pub(super) enum Said {
    Thought(String),
    Text(String),
    Call {
        id: Option<String>,
        name: String,
        arguments: Json,
    },
    /// What has no counterpart, by its name.
    Other(String),
    Nothing,
}

/// What an answer says that changes nothing about it.
const ABOUT_ITSELF: [&str; 5] = ["avgLogprobs", "finishMessage", "index", "safetyRatings", "tokenCount"];

/// What is said beside the answers.
const ABOUT_THE_PROVIDER: [&str; 3] = ["createTime", "modelStatus", "promptFeedback"];

pub(crate) fn decode(body: &[u8], ids: &mut ToolIds) -> Result<(Reply, Losses), Fault> {
    let body = Value::parse_said(body).map_err(|_| Fault::unreadable())?;
    let Value::Object(_) = &body else { return Err(error_of(body)) };
    let mut fields = Fields::lenient(body);
    if let Some(error) = fields.take("error") {
        return Err(fault::of_error(error));
    }
    let mut losses = Losses::default();
    let tokens = read_tokens(&mut fields.any_object("usageMetadata"));
    let (id, model) = (fields.some_text("responseId"), fields.some_text("modelVersion"));
    let Some(candidate) = fields.any_list("candidates").into_iter().next() else {
        // A prompt that is refused has no answer.
        fields.any_object("promptFeedback").some_text("blockReason").ok_or_else(Fault::unreadable)?;
        rest_of_reply(fields, &mut losses);
        return Ok((Reply { id, model, stop: Stop::Refused, tokens, ..Reply::default() }, losses));
    };
    let mut candidate = Fields::lenient(candidate);
    let mut content = Vec::new();
    let mut said = candidate.any_object("content");
    // A signature on a part that says nothing is for the next one.
    let mut held = None;
    for part in said.any_list("parts") {
        let mut part = Fields::lenient(part);
        let signature =
            part.some_text("thoughtSignature").map(|signature| tagged(&signature)).or(held.take());
        let said = read_part(&mut part, &mut losses);
        part.rest_below("content.parts", &mut losses);
        if matches!(said, Said::Nothing) && !matches!(content.last(), Some(Block::Reasoning(_))) {
            held = signature;
            continue;
        }
        match (&signature, &said) {
            (None, _) | (_, Said::Thought(_)) => {}
            (Some(signature), Said::Text(_)) if !is_unsigned(content.last()) => {
                name_held(Some(signature), &mut losses);
            }
            (Some(signature), _) => sign(&mut content, signature.clone()),
        }
        match said {
            Said::Thought(text) => content.push(Block::Reasoning(Reasoning { text, signature })),
            Said::Text(text) => content.push(Block::Text(text)),
            Said::Call { id, name, arguments } => {
                let id = id.unwrap_or_else(|| ids.next());
                content.push(Block::ToolCall(ToolCall { id, name, arguments }));
            }
            Said::Other(name) => losses.add_below("content.parts", &name),
            Said::Nothing => {}
        }
    }
    name_held(held.as_deref(), &mut losses);
    let reason = candidate.any_text("finishReason");
    // What it has only thought is no answer.
    if content.iter().all(Block::is_reasoning)
        && let Some(failure) = failure(reason.as_deref())
    {
        return Err(failure);
    }
    rest_of_answer(candidate, said, &mut losses);
    rest_of_reply(fields, &mut losses);
    let has_calls = content.iter().any(|block| matches!(block, Block::ToolCall(_)));
    let stop = read_stop(reason.as_deref()).with_calls(has_calls);
    Ok((Reply { id, model, content, logprobs: Vec::new(), stop, tokens }, losses))
}

/// Names a signature that is told nobody: of a text without thoughts, or for which no part has come.
/// Reasoning that says nothing would stand first or last, where clients look for the answer, and Gemini
/// checks those of calls alone.
pub(super) fn name_held(signature: Option<&str>, losses: &mut Losses) {
    if signature.is_some() {
        losses.add_below("content.parts", "thoughtSignature");
    }
}

/// Names what else is said of an answer.
pub(super) fn rest_of_answer(mut candidate: Fields, mut content: Fields, losses: &mut Losses) {
    candidate.ignore(&ABOUT_ITSELF);
    candidate.rest(losses);
    content.ignore(&["role"]);
    content.rest_below("content", losses);
}

/// Names what is said beside the answer.
pub(super) fn rest_of_reply(mut reply: Fields, losses: &mut Losses) {
    reply.ignore(&ABOUT_THE_PROVIDER);
    reply.rest(losses);
}

/// Reads a part of an answer, but for its signature.
pub(super) fn read_part(part: &mut Fields, losses: &mut Losses) -> Said {
    let is_thought = matches!(part.take("thought"), Some(Value::Bool(true)));
    if let Some(text) = part.any_text("text") {
        return match (is_thought, text.is_empty()) {
            (_, true) => Said::Nothing,
            (true, false) => Said::Thought(text),
            (false, false) => Said::Text(text),
        };
    }
    let mut call = part.any_object("functionCall");
    if let Some(name) = call.some_text("name") {
        let (id, arguments) = (call.some_text("id"), call.arguments("args"));
        call.rest_below("content.parts.functionCall", losses);
        return Said::Call { id, name, arguments };
    }
    let known = ["inlineData", "fileData", "executableCode", "codeExecutionResult"];
    match known.into_iter().find(|name| part.take(name).is_some()) {
        Some(name) => Said::Other(name.to_owned()),
        None => Said::Nothing,
    }
}

pub(super) fn read_tokens(usage: &mut Fields) -> Tokens {
    let sum = |one: Option<u64>, other: Option<u64>| match (one, other) {
        (None, None) => None,
        (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
    };
    let thoughts = usage.any_count("thoughtsTokenCount");
    Tokens {
        input: sum(usage.any_count("promptTokenCount"), usage.any_count("toolUsePromptTokenCount")),
        cache_read: usage.any_count("cachedContentTokenCount"),
        cache_write: None,
        output: sum(usage.any_count("candidatesTokenCount"), thoughts),
        reasoning: thoughts,
        tier: None,
    }
}

/// The error in a body that is a list of them.
pub(super) fn error_of(body: Value) -> Fault {
    let error = Fields::lenient(unlisted(body)).take("error");
    error.map_or_else(Fault::unreadable, fault::of_error)
}

/// Whether a block is reasoning that nothing has signed yet.
fn is_unsigned(block: Option<&Block>) -> bool {
    matches!(block, Some(Block::Reasoning(reasoning)) if reasoning.signature.is_none())
}

/// Signs the reasoning before a part.
pub(in crate::dialect) fn sign(blocks: &mut Vec<Block>, signature: String) {
    match blocks.last_mut() {
        Some(Block::Reasoning(reasoning)) if reasoning.signature.is_none() => {
            reasoning.signature = Some(signature);
        }
        _ => {
            let signature = Some(signature);
            blocks.push(Block::Reasoning(Reasoning { text: String::new(), signature }));
        }
    }
}
