//! OpenAI: Chat Completions, Completions, Embeddings, and what is compatible with them.

pub(crate) mod embeddings;
mod levels;
mod names;
mod profile;
mod read_reply;
mod read_request;
mod read_stream;
mod thinkers;
mod write_reply;
mod write_request;
mod write_stream;

pub(crate) use self::names::older_names;
pub(crate) use self::read_reply::decode as decode_reply;
pub(crate) use self::read_request::{decode as decode_request, read_stop, read_tools};
pub(crate) use self::read_stream::StreamReader;
pub(crate) use self::thinkers::Thinker;
pub(crate) use self::write_reply::encode as encode_reply;
pub(crate) use self::write_request::{FAILED, encode as encode_request, result_text, write_tools};
pub(crate) use self::write_stream::StreamWriter;

use serde::Deserialize;
use serde_json::{Value, json};

use super::lenient::{Count, Fold, Join, Present, Text};
use super::signal::{Reported, Signal};

/// One event of a stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    choices: Fold<Choice>,
    usage: Option<Usage>,
    error: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Choice {
    delta: Option<Delta>,
    text: Text,
    finish_reason: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    content: Text,
    reasoning_content: Text,
    reasoning: Text,
    refusal: Text,
    tool_calls: Text,
    function_call: Text,
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
    prompt_cache_hit_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    cached_tokens: Count,
}

/// Reads the data of one event of a stream.
pub(crate) fn event(data: &[u8]) -> Signal {
    if data.trim_ascii() == b"[DONE]" {
        return Signal { settled: true, complete: true, ..Signal::default() };
    }
    let Ok(event) = serde_json::from_slice::<Event>(data) else {
        return Signal::unreadable();
    };
    let Fold(choice) = &event.choices;
    let text = choice.text.0;
    Signal {
        reported: event.usage.as_ref().map_or_else(Reported::default, Usage::reported),
        text,
        token: !choice.text.is_empty(),
        settled: false,
        complete: choice.finish_reason.0,
        failed: event.error.0,
    }
}

/// Reads the `usage` member of a buffered reply.
pub(crate) fn usage(data: &[u8]) -> Reported {
    serde_json::from_slice::<Option<Usage>>(data)
        .ok()
        .flatten()
        .map_or_else(Reported::default, |usage| usage.reported())
}

/// The body of an error.
pub(crate) fn error(kind: &str, code: &str, message: &str) -> Value {
    json!({"error": {"message": message, "type": kind, "param": null, "code": code}})
}

// === impl Usage ===

impl Usage {
    pub(super) fn reported(&self) -> Reported {
        let cached = |details: &Option<Details>| details.as_ref().and_then(|details| details.cached_tokens.0);
        Reported {
            input: self.prompt_tokens.0.or(self.input_tokens.0),
            cache_read: cached(&self.prompt_tokens_details)
                .or(cached(&self.input_tokens_details))
                .or(self.prompt_cache_hit_tokens.0),
            cache_written: None,
            output: self.completion_tokens.0.or(self.output_tokens.0),
            total: self.total_tokens.0,
        }
    }
}

// === impl Choice ===

impl Join for Choice {
    /// Keeps the text of all choices in `text`.
    fn join(&mut self, other: Self) {
        self.text.0 += other.text.0;
        if let Some(delta) = other.delta {
            for text in [
                delta.content,
                delta.reasoning_content,
                delta.reasoning,
                delta.refusal,
                delta.tool_calls,
                delta.function_call,
            ] {
                self.text.0 += text.0;
            }
        }
        self.finish_reason.0 |= other.finish_reason.0;
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
    fn the_last_chunk_brings_the_usage() {
        let signal = event(br#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":12,"total_tokens":21,"prompt_tokens_details":{"cached_tokens":4}}}"#);
        assert_eq!(
            signal.reported,
            Reported {
                input: Some(9),
                cache_read: Some(4),
                cache_written: None,
                output: Some(12),
                total: Some(21),
            }
        );
    }

    #[test]
    fn errors_inside_a_stream_are_seen() {
        assert!(event(br#"{"error":{"message":"overloaded"}}"#).failed);
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
