//! A Responses reply into the common form.

use super::item::read_reasoning;
use crate::codec::{Fields, Value};
use crate::dialect::openai::options::{take_logprobs, take_tier};
use crate::ir::{Block, Fault, Json, Losses, Reply, Stop, Tokens, ToolCall, ToolIds, arguments};

/// What is said beside an answer: how it came to be, and what was asked for.
const ABOUT_ITSELF: [&str; 32] = [
    "background",
    "billing",
    "completed_at",
    "content_filters",
    "conversation",
    "created_at",
    "frequency_penalty",
    "id",
    "instructions",
    "max_output_tokens",
    "max_tool_calls",
    "metadata",
    "model",
    "moderation",
    "object",
    "parallel_tool_calls",
    "presence_penalty",
    "previous_response_id",
    "prompt",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning",
    "safety_identifier",
    "store",
    "temperature",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "top_p",
    "truncation",
    "user",
];

pub(crate) fn decode(body: &[u8], ids: &mut ToolIds) -> Result<(Reply, Losses), Fault> {
    let mut fields = Fields::parse_unless_error(body)?;
    let stop = read_stop(&mut fields).ok_or_else(Fault::unreadable)?;
    let Some(Value::Array(output)) = fields.take("output") else {
        return Err(Fault::unreadable());
    };
    let mut losses = Losses::default();
    let (mut content, mut logprobs) = (Vec::new(), Vec::new());
    for item in output {
        read_output(Fields::lenient(item), ids, (&mut content, &mut logprobs), &mut losses);
    }
    let has_calls = content.iter().any(|block| matches!(block, Block::ToolCall(_)));
    let reply = Reply {
        id: fields.some_text("id"),
        model: fields.some_text("model"),
        content,
        logprobs,
        stop: stop.with_calls(has_calls),
        tokens: read_tokens(&mut fields),
    };
    rest_beside(fields, &mut losses);
    Ok((reply, losses))
}

/// Names what else is said beside an answer.
pub(super) fn rest_beside(mut response: Fields, losses: &mut Losses) {
    response.ignore(&ABOUT_ITSELF);
    response.rest(losses);
}

/// Reads an item of an `output`: what it says, and the log probabilities of that.
pub(super) fn read_output(
    mut item: Fields,
    ids: &mut ToolIds,
    (content, logprobs): (&mut Vec<Block>, &mut Vec<Json>),
    losses: &mut Losses,
) {
    let kind = item.any_text("type").unwrap_or_default();
    let id = item.any_text("id").unwrap_or_default();
    match kind.as_str() {
        "message" => {
            for part in item.any_list("content") {
                let mut part = Fields::lenient(part);
                let text = part.some_text("text").map(Block::Text);
                let refusal = part.some_text("refusal").map(Block::Refusal);
                content.extend(text.or(refusal));
                logprobs.extend(take_logprobs(&mut part, "logprobs"));
                part.ignore(&["type", "parsed"]);
                part.rest_below("output.content", losses);
            }
            item.ignore(&["phase", "role"]);
        }
        "reasoning" => content.extend(read_reasoning(&mut item, &id, losses)),
        "function_call" => content.push(Block::ToolCall(ToolCall {
            id: item.some_text("call_id").unwrap_or_else(|| ids.next()),
            name: item.any_text("name").unwrap_or_default(),
            arguments: arguments(&item.any_text("arguments").unwrap_or_default()),
        })),
        // Tools that the provider has run itself, and whatever it adds.
        kind => return losses.add_below("output", kind),
    }
    item.ignore(&["status"]);
    item.rest_below("output", losses);
}

/// Why the answer ends; `None` if it is none, or none yet.
pub(super) fn read_stop(response: &mut Fields) -> Option<Stop> {
    let mut details = response.any_object("incomplete_details");
    match response.any_text("status").as_deref() {
        None | Some("completed") => Some(Stop::End),
        Some("incomplete") => Some(match details.any_text("reason").as_deref() {
            Some("content_filter") => Stop::Refused,
            _ => Stop::Length,
        }),
        Some(_) => None,
    }
}

pub(super) fn read_tokens(response: &mut Fields) -> Tokens {
    let mut usage = response.any_object("usage");
    let mut input = usage.any_object("input_tokens_details");
    let mut output = usage.any_object("output_tokens_details");
    Tokens {
        input: usage.any_count("input_tokens"),
        cache_read: input.any_count("cached_tokens"),
        cache_write: input.any_count("cache_write_tokens"),
        output: usage.any_count("output_tokens"),
        reasoning: output.any_count("reasoning_tokens"),
        tier: take_tier(response),
    }
}
