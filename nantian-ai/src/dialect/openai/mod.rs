//! OpenAI: Chat Completions, Completions, Embeddings, and what is compatible with them.

mod allowed_tools;
mod cursor;
mod delta;
mod details;
pub(crate) mod embeddings;
mod levels;
mod limits;
mod names;
pub(crate) mod options;
mod profile;
mod read_calls;
mod read_parts;
mod read_reply;
mod read_request;
mod read_stream;
mod signatures;
mod streamed_call;
mod strict;
mod thinkers;
mod thinking;
mod turns;
mod unfinished;
mod write_reply;
mod write_request;
mod write_stream;

pub(super) use self::allowed_tools::read_allowed;
pub(crate) use self::cursor::{has_form_of_responses, is_of_cursor, own_names};
pub(super) use self::details::{OF_OPENROUTER, is_of_openrouter};
pub(crate) use self::limits::{has_limits_in_bodies, limit_headers};
pub(crate) use self::names::{known_names, limit_renamed};
pub(crate) use self::profile::{
    is_mistral, refused_marks, refused_reasoning, refuses_thought_parts, takes_turns, tells_templates,
    wants_brief_ids,
};
pub(crate) use self::read_reply::decode as decode_reply;
pub(crate) use self::read_request::{
    decode as decode_request, read_detail, read_stop, read_tools, read_verbosity,
};
pub(crate) use self::read_stream::StreamReader;
pub(crate) use self::strict::{holds_answers, is_strict, loses_strictness};
pub(crate) use self::thinkers::{Thinker, may_be_off};
pub(crate) use self::thinking::ThinkingBy;
pub(crate) use self::turns::{ACKNOWLEDGED, FAILED, OF_SCHEMA, result_text};
pub(crate) use self::unfinished::{is_unfinished, unfinished};
pub(crate) use self::write_reply::encode as encode_reply;
pub(crate) use self::write_request::{encode as encode_request, write_tools};
pub(crate) use self::write_stream::StreamWriter;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use self::delta::Delta;
use super::lenient::{Count, Fold, Join, Present, Text};
use super::signal::{Reported, Signal};

/// One event of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(borrow)]
    choices: Fold<Choice<'a>>,
    usage: Option<Usage>,
    error: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice<'a> {
    index: Count,
    delta: Option<Delta>,
    text: Text,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    error: Present,
    /// One of the choices has failed.
    #[serde(skip)]
    failed: bool,
    /// The choices that end, a bit each.
    #[serde(skip)]
    ended: u128,
    /// Something of an answer is in it.
    #[serde(skip)]
    speaks: bool,
}

/// The names of Chat Completions and those of Responses; some providers send both.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Usage {
    prompt_tokens: Count,
    input_tokens: Count,
    completion_tokens: Count,
    output_tokens: Count,
    total_tokens: Count,
    prompt_tokens_details: Option<Details>,
    input_tokens_details: Option<Details>,
    completion_tokens_details: Option<Details>,
    output_tokens_details: Option<Details>,
    /// DeepSeek and Moonshot tell here what others tell in the details.
    prompt_cache_hit_tokens: Count,
    cached_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
    cache_write_tokens: Count,
    reasoning_tokens: Count,
}

/// Reads the data of one event of a stream.
pub(crate) fn event(data: &[u8]) -> Signal {
    if data.trim_ascii() == b"[DONE]" {
        return Signal { settled: true, complete: true, ..Signal::default() };
    }
    let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
        return Signal::unreadable();
    };
    let Fold(choices) = &event.choices;
    Signal {
        reported: event.usage.as_ref().map_or_else(Reported::default, Usage::reported),
        text: choices.text.0,
        token: choices.speaks,
        settled: false,
        complete: false,
        ended: choices.ended,
        failed: event.error.0 || choices.failed,
        reasoning: None,
    }
}

/// Reads the `usage` member of a buffered reply.
pub(crate) fn usage(data: &[u8]) -> Reported {
    let usage =
        std::str::from_utf8(data).ok().and_then(|json| serde_json::from_str::<Option<Usage>>(json).ok());
    usage.flatten().map_or_else(Reported::default, |usage| usage.reported())
}

/// All tokens that came out: xAI counts those of reasoning apart from the others, and in the total.
fn all_output(
    input: Option<u64>,
    output: Option<u64>,
    reasoning: Option<u64>,
    total: Option<u64>,
) -> Option<u64> {
    let with_reasoning = output?.saturating_add(reasoning.unwrap_or(0));
    let is_apart = total.is_some() && total == input.map(|input| input.saturating_add(with_reasoning));
    if is_apart { Some(with_reasoning) } else { output }
}

/// The body of an error.
pub(crate) fn error(kind: &str, code: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

// === impl Usage ===

impl Usage {
    pub(super) fn reported(&self) -> Reported {
        let one = |chat: &Option<Details>, responses: &Option<Details>, count: fn(&Details) -> Count| {
            [chat, responses].into_iter().flatten().find_map(|details| count(details).0)
        };
        let of_input = |count| one(&self.prompt_tokens_details, &self.input_tokens_details, count);
        let of_output = |count| one(&self.completion_tokens_details, &self.output_tokens_details, count);
        let input = self.prompt_tokens.0.or(self.input_tokens.0);
        let output = self.completion_tokens.0.or(self.output_tokens.0);
        let reasoning = of_output(|details| details.reasoning_tokens);
        let total = self.total_tokens.0;
        let beside = self.prompt_cache_hit_tokens.0.or(self.cached_tokens.0);
        Reported {
            input,
            cache_read: of_input(|details| details.cached_tokens).or(beside),
            cache_written: of_input(|details| details.cache_write_tokens),
            output: all_output(input, output, reasoning, total),
            reasoning,
            total,
        }
    }
}

// === impl Choice ===

impl Join for Choice<'_> {
    /// Keeps the text of all choices in `text`.
    fn join(&mut self, other: Self) {
        let delta = other.delta.unwrap_or_default();
        self.text.0 += other.text.0;
        self.text.0 += delta.text.0;
        self.speaks |= delta.other || !delta.text.is_empty() || !other.text.is_empty();
        self.failed |= other.error.0;
        // Some say an empty one in each chunk.
        if let Some(reason) = other.finish_reason.filter(|reason| reason.get() != "\"\"") {
            self.failed |= read_reply::failure(reason.get().trim_matches('"')).is_some();
            let index = other.index.0.unwrap_or(0).min(u128::BITS as u64 - 1);
            self.ended |= 1 << index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_only_names_the_role_is_no_token() {
        let signal = event(br#"{"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#);
        assert_eq!(signal, Signal::default());
    }

    #[test]
    fn text_reasoning_and_tool_calls_are_tokens() {
        for delta in [
            r#"{"content":"Hello"}"#,
            r#"{"content":null,"reasoning_content":"Hm"}"#,
            r#"{"tool_calls":[{"index":0,"function":{"arguments":"{}"}}]}"#,
            r#"{"content":[{"type":"text","text":"Hi"}]}"#,
        ] {
            let data = format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
            let signal = event(data.as_bytes());
            assert!(signal.token, "{delta}");
            assert!(!signal.complete);
        }
    }

    #[test]
    fn whatever_a_delta_holds_is_a_token_and_no_text_unless_it_is_known_to_be() {
        for delta in [
            r#"{"audio":{"id":"audio_1"}}"#,
            r#"{"audio":{"data":"UklGRg=="}}"#,
            r#"{"content":"","images":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBOR"}}]}"#,
            r#"{"role":"assistant","reasoning_details":[{"type":"reasoning.encrypted","data":"x"}]}"#,
        ] {
            let signal = event(format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#).as_bytes());
            assert!(signal.token && signal.text == Default::default(), "{delta}");
        }
        for delta in [
            r#"{"role":"assistant","name":"MiniMax AI","audio_content":""}"#,
            r#"{"role":"assistant","content":null,"annotations":[],"provider_specific_fields":{"a":null}}"#,
        ] {
            let signal = event(format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#).as_bytes());
            assert!(!signal.token, "{delta}");
        }
    }

    #[test]
    fn each_choice_ends_for_itself() {
        for (choices, ended) in [
            (r#"{"delta":{},"finish_reason":"stop"}"#, 1),
            (r#"{"index":2,"delta":{},"finish_reason":"stop"}"#, 4),
            (r#"{"index":0,"finish_reason":"stop"},{"index":1,"finish_reason":"length"}"#, 3),
            (r#"{"index":0,"finish_reason":null}"#, 0),
            (r#"{"index":0,"finish_reason":""}"#, 0),
            (r#"{"index":1e300,"finish_reason":"stop"},{"index":-1,"finish_reason":"stop"}"#, 1),
            (r#"{"index":500,"finish_reason":"stop"}"#, 1 << 127),
        ] {
            let signal = event(format!(r#"{{"choices":[{choices}]}}"#).as_bytes());
            assert_eq!((signal.ended, signal.complete), (ended, false), "{choices}");
        }
        assert!(event(b"[DONE]").complete);
    }

    #[test]
    fn the_last_chunk_brings_the_usage() {
        let signal = event(br#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4,"cache_write_tokens":3},"completion_tokens_details":{"reasoning_tokens":7}}}"#);
        assert_eq!(
            signal.reported,
            Reported {
                input: Some(9),
                cache_read: Some(4),
                cache_written: Some(3),
                output: Some(12),
                reasoning: Some(7),
                total: Some(21),
            }
        );
    }

    #[test]
    fn reasoning_that_is_counted_apart_is_output_too() {
        for (output, reasoning, total, all) in [
            (Some(12), Some(7), Some(28), Some(19)),
            (Some(12), Some(7), Some(21), Some(12)),
            (Some(12), Some(7), None, Some(12)),
            (Some(12), None, Some(21), Some(12)),
            (None, Some(7), Some(16), None),
        ] {
            assert_eq!(all_output(Some(9), output, reasoning, total), all);
        }
        assert_eq!(all_output(None, Some(12), Some(7), Some(19)), Some(12));
    }

    #[test]
    fn errors_inside_a_stream_are_seen() {
        for failed in [
            r#"{"error":{"message":"overloaded"}}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"insufficient_system_resource"}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"network_error"}]}"#,
            r#"{"choices":[{"delta":{},"finish_reason":"error","error":{"code":502,"message":"m"}}]}"#,
        ] {
            assert!(event(failed.as_bytes()).failed, "{failed}");
        }
        assert!(!event(br#"{"choices":[{"delta":{},"finish_reason":"errors"}]}"#).failed);
    }

    #[test]
    fn shapes_that_are_not_known_do_not_fail() {
        let signal =
            event(br#"{"choices":{"odd":1},"usage":{"prompt_tokens":"many","completion_tokens":3.0}}"#);
        assert_eq!(signal.reported.input, None);
        assert_eq!(signal.reported.output, Some(3));
        assert_eq!(event(b"not json"), Signal::unreadable());
    }
}
