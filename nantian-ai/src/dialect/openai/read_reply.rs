//! A Chat Completions reply into the common form.

use super::details::{self, Details};
use super::options::{take_logprobs, take_tier};
use super::read_request::read_reasoning;
use super::{all_output, signatures};
use crate::codec::{Fields, Value, fault};
use crate::dialect::gemini;
use crate::ir::{
    Block, Fault, FaultKind, Losses, Reasoning, Reply, Stop, Tokens, ToolCall, ToolIds, arguments,
};

/// What a choice says that changes nothing about the answer.
pub(super) const ABOUT_ITSELF: [&str; 2] = ["index", "native_finish_reason"];

/// Where vLLM and SGLang tell the stop sequence that has ended an answer, or the number of such a token.
const STOPPED_BY: [&str; 2] = ["stop_reason", "matched_stop"];

/// What providers say about themselves beside the choices, and how they have judged the prompt.
pub(super) const ABOUT_THE_PROVIDER: [&str; 11] = [
    "created",
    "id",
    "kv_transfer_params",
    "model",
    "object",
    "obfuscation",
    "prompt_filter_results",
    "provider",
    "system_fingerprint",
    "timings",
    "x_groq",
];

/// Where signatures of calls stand.
pub(super) const SIGNATURES: &str = "tool_calls.extra_content";

pub(crate) fn decode(body: &[u8], ids: &mut ToolIds) -> Result<(Reply, Losses), Fault> {
    let mut fields = Fields::parse_unless_error(body)?;
    let mut losses = Losses::default();
    let choice = fields.any_list("choices").into_iter().next().ok_or_else(Fault::unreadable)?;
    let mut choice = Fields::lenient(choice);
    let mut message = choice.any_object("message");
    let mut content = read_reasoning(&mut message, &mut losses);
    content.extend(read_content(message.take("content"), &mut losses));
    content.extend(message.some_text("refusal").map(Block::Refusal));
    let calls = message.any_list("tool_calls");
    let mut details = Details::default();
    details.take(&mut message, &mut losses);
    let encrypted = details.told(&mut losses);
    calls.into_iter().for_each(|call| read_call(call, &mut content, ids, &mut losses));
    let has_calls = content.iter().any(|block| matches!(block, Block::ToolCall(_)));
    if has_calls {
        content.extend(encrypted.into_iter().map(Block::RedactedReasoning));
    } else if !encrypted.is_empty() {
        losses.add(details::NAME);
    }
    let mut told = choice.any_object("logprobs");
    let logprobs = take_logprobs(&mut told, "content");
    told.rest_below("logprobs", &mut losses);
    let stop = read_end(&mut choice)?.unwrap_or_default().with_calls(has_calls);
    message.ignore(&["role"]);
    message.rest(&mut losses);
    choice.ignore(&ABOUT_ITSELF);
    choice.rest(&mut losses);
    let reply = Reply {
        id: fields.some_text("id"),
        model: fields.some_text("model"),
        content,
        logprobs,
        stop,
        tokens: Tokens { tier: take_tier(&mut fields), ..read_tokens(&mut fields.any_object("usage")) },
    };
    fields.ignore(&ABOUT_THE_PROVIDER);
    fields.rest(&mut losses);
    Ok((reply, losses))
}

/// The content of a message or a delta: text, or Mistral's list of text and thinking.
pub(super) fn read_content(content: Option<Value>, losses: &mut Losses) -> Vec<Block> {
    match content {
        Some(Value::String(text)) if !text.is_empty() => vec![Block::Text(text)],
        Some(Value::Array(parts)) => {
            parts.into_iter().filter_map(|part| read_part(Fields::lenient(part), losses)).collect()
        }
        _ => Vec::new(),
    }
}

fn read_part(mut part: Fields, losses: &mut Losses) -> Option<Block> {
    let block = match part.take("thinking") {
        Some(thinking) => Some(read_thoughts(thinking, losses)),
        None => part.some_text("text").map(Block::Text),
    };
    part.ignore(&["closed", "type"]);
    part.rest_below("content", losses);
    block
}

/// What a model of Mistral has thought: a list of texts, or one.
pub(super) fn read_thoughts(thinking: Value, losses: &mut Losses) -> Block {
    let said = read_content(Some(thinking), losses).into_iter().filter_map(|block| match block {
        Block::Text(text) => Some(text),
        _ => None,
    });
    Block::Reasoning(Reasoning { text: said.collect(), signature: None })
}

/// Reads a call, with its signature before it. What has neither a name nor arguments is none.
fn read_call(call: Value, content: &mut Vec<Block>, ids: &mut ToolIds, losses: &mut Losses) {
    let mut call = Fields::lenient(call);
    let mut function = call.any_object("function");
    let id = call.some_text("id");
    let name = function.any_text("name").unwrap_or_default();
    let text = read_arguments(&mut function);
    let signature = signatures::take(&mut call, SIGNATURES, losses);
    rest_of_call(call, function, losses);
    if name.is_empty() && text.is_empty() {
        return;
    }
    if let Some(signature) = signature {
        gemini::sign(content, signature);
    }
    let id = id.unwrap_or_else(|| ids.next());
    content.push(Block::ToolCall(ToolCall { id, name, arguments: arguments(&text) }));
}

/// The arguments of a call, or what a chunk says of them.
pub(super) fn read_arguments(function: &mut Fields) -> String {
    match function.take("arguments") {
        Some(Value::String(text)) => text,
        Some(whole) => whole.to_string(),
        None => String::new(),
    }
}

/// Names what else is said of a call.
pub(super) fn rest_of_call(mut call: Fields, function: Fields, losses: &mut Losses) {
    call.ignore(&["index", "type"]);
    call.rest_below("tool_calls", losses);
    function.rest_below("tool_calls.function", losses);
}

/// How a choice ends, if it does; some providers say that it has failed where others say why it is complete.
pub(super) fn read_end(choice: &mut Fields) -> Result<Option<Stop>, Fault> {
    // Some say none in each chunk.
    let reason = choice.some_text("finish_reason");
    let sequence = STOPPED_BY.map(|name| choice.some_text(name)).into_iter().flatten().next();
    if let Some(error) = choice.take("error") {
        return Err(fault::of_error(error));
    }
    let Some(reason) = reason else { return Ok(None) };
    if let Some(kind) = failure(&reason) {
        return Err(Fault::new(kind, format!("the provider gave up its answer: {reason}")));
    }
    Ok(Some(match reason.as_str() {
        "length" | "max_tokens" | "model_context_window_exceeded" | "model_length" => Stop::Length,
        "tool_calls" | "function_call" | "tool_use" => Stop::ToolCalls,
        "content_filter" | "refusal" | "sensitive" => Stop::Refused,
        "stop" if sequence.is_some() => Stop::Sequence(sequence),
        _ => Stop::End,
    }))
}

/// What has gone wrong if an answer ends for this reason: words of DeepSeek, Mistral, OpenRouter, vLLM and
/// Z.ai.
pub(super) fn failure(reason: &str) -> Option<FaultKind> {
    match reason {
        "insufficient_system_resource" => Some(FaultKind::Overloaded),
        "abort" | "aborted" | "error" | "network_error" => Some(FaultKind::Upstream),
        _ => None,
    }
}

pub(super) fn read_tokens(usage: &mut Fields) -> Tokens {
    let mut prompt = usage.any_object("prompt_tokens_details");
    let mut completion = usage.any_object("completion_tokens_details");
    // DeepSeek and Moonshot tell them beside the details.
    let [hits, cached] = ["prompt_cache_hit_tokens", "cached_tokens"].map(|name| usage.any_count(name));
    let input = usage.any_count("prompt_tokens");
    let output = usage.any_count("completion_tokens");
    let reasoning = completion.any_count("reasoning_tokens");
    Tokens {
        input,
        cache_read: prompt.any_count("cached_tokens").or(hits).or(cached),
        cache_write: prompt.any_count("cache_write_tokens"),
        output: all_output(input, output, reasoning, usage.any_count("total_tokens")),
        reasoning,
        tier: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cached_is_read_in_the_details_or_beside_them() {
        for (usage, cached) in [
            (r#"{"prompt_tokens":9,"prompt_tokens_details":{"cached_tokens":4},"cached_tokens":7}"#, Some(4)),
            (r#"{"prompt_tokens":9,"prompt_cache_hit_tokens":4}"#, Some(4)),
            (r#"{"prompt_tokens":9,"cached_tokens":4,"prompt_tokens_details":null}"#, Some(4)),
            (r#"{"prompt_tokens":9}"#, None),
        ] {
            let tokens = read_tokens(&mut Fields::parse(usage.as_bytes()).unwrap());
            let metered = crate::dialect::openai::usage(usage.as_bytes());
            assert_eq!((tokens.cache_read, metered.cache_read), (cached, cached), "{usage}");
        }
    }

    #[test]
    fn why_an_answer_ends_is_read_in_the_words_of_each_provider() {
        for (reason, stop) in [
            ("stop", Some(Stop::End)),
            ("eos", Some(Stop::End)),
            ("length", Some(Stop::Length)),
            ("model_length", Some(Stop::Length)),
            ("model_context_window_exceeded", Some(Stop::Length)),
            ("content_filter", Some(Stop::Refused)),
            ("sensitive", Some(Stop::Refused)),
            ("tool_calls", Some(Stop::ToolCalls)),
            ("insufficient_system_resource", None),
            ("network_error", None),
        ] {
            let choice = format!(r#"{{"finish_reason":"{reason}"}}"#);
            let mut choice = Fields::parse(choice.as_bytes()).unwrap();
            assert_eq!(read_end(&mut choice).ok().flatten(), stop, "{reason}");
        }
    }
}
