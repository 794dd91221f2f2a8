//! Anthropic: Messages.

mod enforcement;
mod generation;
mod midway;
mod plan;
mod read_content;
mod read_reply;
mod read_request;
mod read_stream;
mod schema;
mod traits;
mod turns;
pub(crate) mod vertex;
mod write_reply;
mod write_request;
mod write_stream;

pub(crate) use self::enforcement::Enforcement;
pub(crate) use self::generation::{is_for_another, lowered_limit};
pub(crate) use self::plan::{LEAST_BUDGET, Plan};
pub(crate) use self::read_content::{read_block, read_thinking_block, take_cache_control};
pub(crate) use self::read_reply::decode as decode_reply;
pub(crate) use self::read_request::decode as decode_request;
pub(crate) use self::read_stream::StreamReader;
pub(crate) use self::traits::Traits;
pub(crate) use self::write_reply::encode as encode_reply;
pub(crate) use self::write_request::{ONLY_JSON, encode as encode_request, encode_count};
pub(crate) use self::write_stream::StreamWriter;

use std::borrow::Cow;

use http::header::HeaderValue;
use serde::Deserialize;
use serde_json::{Value, json};

use super::lenient::{Count, Fold, Join, Text};
use super::signal::{Reasoning, Reported, Signal};
use super::{bedrock, gemini, openai, responses};
use crate::estimate::Weight;

/// The API version sent when the client names none: the one that the codecs write and read.
pub(crate) const VERSION: HeaderValue = HeaderValue::from_static("2023-06-01");

/// Where a request names a conversation that Anthropic stores, or is to store.
pub(crate) const THREAD: &str = "thread";

/// What a signature begins with that stands for one which no provider has given. Some clients refuse
/// reasoning without.
const SIGNED_HERE: &str = "ntn1.";

/// What the signatures and the encrypted reasoning begin with that this family refuses: made here, or by
/// another one.
pub(crate) const FOREIGN: [&str; 5] =
    [SIGNED_HERE, gemini::OF_GEMINI, responses::OF_RESPONSES, bedrock::OF_BEDROCK, openai::OF_OPENROUTER];

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    message: Option<Message<'a>>,
    #[serde(borrow)]
    content_block: Option<Begun<'a>>,
    delta: Option<Delta>,
    #[serde(borrow)]
    usage: Option<Usage<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message<'a> {
    #[serde(borrow)]
    usage: Option<Usage<'a>>,
}

/// A block that begins.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Begun<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    text: Text,
    thinking: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delta {
    text: Text,
    thinking: Text,
    partial_json: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Usage<'a> {
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    output_tokens: Count,
    output_tokens_details: Option<Details>,
    #[serde(borrow)]
    iterations: Fold<Iteration<'a>>,
}

/// One of the times that a model was asked for an answer, or all those in which a conversation was made
/// shorter before.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Iteration<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    input_tokens: Count,
    cache_read_input_tokens: Count,
    cache_creation_input_tokens: Count,
    output_tokens: Count,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    thinking_tokens: Count,
}

/// The signature of reasoning, or what stands for one.
fn signature(signature: Option<&str>) -> Cow<'_, str> {
    signature.map_or_else(|| format!("{SIGNED_HERE}none").into(), Cow::Borrowed)
}

/// Reads the data of one event of a stream.
pub(crate) fn event(data: &[u8]) -> Signal {
    let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
        return Signal::unreadable();
    };
    let kind = event.kind.as_ref();
    let usage = match kind {
        "message_start" => event.message.and_then(|message| message.usage),
        "message_delta" => event.usage,
        _ => None,
    };
    let delta = event.delta.filter(|_| kind == "content_block_delta");
    let begun = event.content_block.filter(|_| kind == "content_block_start");
    Signal {
        reported: usage.map_or_else(Reported::default, |usage| usage.reported()),
        token: delta.is_some() || begun.as_ref().is_some_and(Begun::is_token),
        text: delta.as_ref().map(Delta::weight).unwrap_or_default(),
        reasoning: match (&delta, &begun) {
            (Some(delta), _) => Some(Reasoning::Shown).filter(|_| !delta.thinking.is_empty()),
            (None, Some(begun)) => Some(Reasoning::Begins).filter(|_| begun.is_reasoning()),
            (None, None) => None,
        },
        settled: kind == "message_delta",
        complete: kind == "message_stop",
        ended: 0,
        failed: kind == "error",
    }
}

/// Reads the `usage` member of a buffered reply.
pub(crate) fn usage(data: &[u8]) -> Reported {
    serde_json::from_slice::<Option<Usage<'_>>>(data)
        .ok()
        .flatten()
        .map_or_else(Reported::default, |usage| usage.reported())
}

/// The body of an error, and the data of an `error` event.
pub(crate) fn error(kind: &str, message: &str) -> Value {
    json!({"type": "error", "error": {"type": kind, "message": message}})
}

/// The same of a request with a thread, as Anthropic's SDKs know it: they say the conversation whole then.
pub(crate) fn error_of_thread(kind: &str, message: &str) -> Value {
    let details = json!({"error_code": "thread_unsupported_request", "unsupported": [THREAD]});
    json!({"type": "error", "error": {"type": kind, "message": message, "details": details}})
}

// === impl Begun ===

impl Begun<'_> {
    /// Whether the model has begun with something of its answer. Text is always begun without any, and
    /// reasoning that is not to be shown has nothing but its beginning for minutes.
    fn is_token(&self) -> bool {
        self.kind != "text" || !self.text.is_empty()
    }

    fn is_reasoning(&self) -> bool {
        matches!(self.kind.as_ref(), "thinking" | "redacted_thinking") && self.thinking.is_empty()
    }
}

// === impl Delta ===

impl Delta {
    fn weight(&self) -> Weight {
        let mut sum = self.text.0;
        sum += self.thinking.0;
        sum += self.partial_json.0;
        sum
    }
}

// === impl Usage ===

impl Usage<'_> {
    fn reported(&self) -> Reported {
        let Fold(compaction) = &self.iterations;
        Reported {
            input: sum(self.input_tokens, compaction.input_tokens).0,
            cache_read: sum(self.cache_read_input_tokens, compaction.cache_read_input_tokens).0,
            cache_written: sum(self.cache_creation_input_tokens, compaction.cache_creation_input_tokens).0,
            output: sum(self.output_tokens, compaction.output_tokens).0,
            reasoning: self.output_tokens_details.as_ref().and_then(|details| details.thinking_tokens.0),
            total: None,
        }
    }
}

// === impl Iteration ===

impl Join for Iteration<'_> {
    /// The counts beside them have the others, but for those of a model that has declined, which nobody pays.
    fn join(&mut self, other: Self) {
        if other.kind != "compaction" {
            return;
        }
        self.input_tokens = sum(self.input_tokens, other.input_tokens);
        self.cache_read_input_tokens = sum(self.cache_read_input_tokens, other.cache_read_input_tokens);
        self.cache_creation_input_tokens =
            sum(self.cache_creation_input_tokens, other.cache_creation_input_tokens);
        self.output_tokens = sum(self.output_tokens, other.output_tokens);
    }
}

/// What is counted in either.
fn sum(one: Count, other: Count) -> Count {
    Count(match (one.0, other.0) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_come_with_the_first_and_the_last_event() {
        let start = event(br#"{"type":"message_start","message":{"id":"m","usage":{"input_tokens":10,"cache_read_input_tokens":5,"output_tokens":1}}}"#);
        assert_eq!(start.reported.input, Some(10));
        assert_eq!(start.reported.cache_read, Some(5));
        assert!(!start.token && !start.settled);
        let delta = event(
            br#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":42}}"#,
        );
        assert_eq!(delta.reported.output, Some(42));
        assert_eq!(delta.reported.input, None);
        assert!(delta.settled && !delta.token);
        assert!(event(br#"{"type":"message_stop"}"#).complete);
    }

    #[test]
    fn what_a_compaction_takes_counts_as_well() {
        // https://platform.claude.com/docs/en/build-with-claude/compaction, "understanding usage"
        const USAGE: &str = r#"{"input_tokens":2,"output_tokens":74,"cache_creation_input_tokens":445,"cache_read_input_tokens":3146,"iterations":[{"type":"compaction","input_tokens":106576,"output_tokens":312,"cache_creation_input_tokens":3146},{"type":"message","input_tokens":2,"output_tokens":74,"cache_creation_input_tokens":445,"cache_read_input_tokens":3146},{"type":"fallback_message","input_tokens":9,"output_tokens":9}]}"#;
        let expected = Reported {
            input: Some(106_578),
            cache_read: Some(3_146),
            cache_written: Some(3_591),
            output: Some(386),
            ..Reported::default()
        };
        assert_eq!(usage(USAGE.as_bytes()), expected);
        let delta = event(format!(r#"{{"type":"message_delta","usage":{USAGE}}}"#).as_bytes());
        assert_eq!(delta.reported, expected);
        assert_eq!(usage(br#"{"input_tokens":2,"iterations":null}"#).input, Some(2));
    }

    #[test]
    fn content_and_the_beginning_of_all_but_text_are_tokens() {
        assert!(!event(br#"{"type":"ping"}"#).token);
        assert!(
            !event(br#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#)
                .token
        );
        for block in [
            r#"{"type":"thinking","thinking":"","signature":""}"#,
            r#"{"type":"redacted_thinking","data":"x"}"#,
            r#"{"type":"tool_use","id":"t","name":"n","input":{}}"#,
        ] {
            let begun =
                event(format!(r#"{{"type":"content_block_start","content_block":{block}}}"#).as_bytes());
            assert!(
                begun.token && (begun.reasoning == Some(Reasoning::Begins)) == block.contains("thinking")
            );
        }
        for delta in [
            r#"{"type":"text_delta","text":"Hi"}"#,
            r#"{"type":"thinking_delta","thinking":"Hm"}"#,
            r#"{"type":"input_json_delta","partial_json":"{"}"#,
            r#"{"type":"signature_delta","signature":"abc"}"#,
        ] {
            let data = format!(r#"{{"type":"content_block_delta","index":0,"delta":{delta}}}"#);
            assert!(event(data.as_bytes()).token, "{delta}");
        }
    }

    #[test]
    fn an_error_event_fails_the_stream() {
        let data = error("overloaded_error", "later").to_string();
        assert!(event(data.as_bytes()).failed);
    }
}
