//! OpenAI: Responses.

mod item;
mod openai_alone;
mod read_reply;
mod read_request;
mod read_stream;
mod signature;
mod streamed_item;
mod tools;
mod turn;
mod write_reply;
mod write_request;
mod write_stream;

pub(crate) use self::openai_alone::{is_for_openai_alone, without_null_contents};
pub(crate) use self::read_reply::decode as decode_reply;
pub(crate) use self::read_request::{decode as decode_request, decode_fields};
pub(crate) use self::read_stream::StreamReader;
pub(super) use self::signature::OF_RESPONSES;
pub(crate) use self::signature::{MADE_HERE, is_of_responses, mark_of_own};
pub(crate) use self::tools::{Called, OwnName, Tools, arguments_of, is_run_by_client, text_of};
pub(crate) use self::write_reply::encode as encode_reply;
pub(crate) use self::write_request::{ENCRYPTED, encode as encode_request, encode_count};
pub(crate) use self::write_stream::{StreamWriter, failed};

use std::borrow::Cow;

use serde::Deserialize;

use super::lenient::Text;
use super::openai::Usage;
use super::signal::{Reasoning, Reported, Signal};
use crate::codec::Object;

/// What is asked for in `include` to be told the log probabilities of an answer's tokens.
const LOGPROBS: &str = "message.output_text.logprobs";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    delta: Text,
    #[serde(borrow)]
    item: Option<Item<'a>>,
    response: Option<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Item<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    usage: Option<Usage>,
}

/// Reads the data of one event of a stream.
pub(crate) fn event(data: &[u8]) -> Signal {
    if data.trim_ascii() == b"[DONE]" {
        return Signal::default();
    }
    let Ok(event) = serde_json::from_slice::<Event<'_>>(data) else {
        return Signal::unreadable();
    };
    let kind = event.kind.as_ref();
    let complete = matches!(kind, "response.completed" | "response.incomplete");
    // Without a type it is an error of the kind that Chat Completions sends.
    let failed = matches!(kind, "" | "error" | "response.failed" | "response.cancelled");
    let usage = event.response.and_then(|response| response.usage);
    // The model has begun, and for a long time nothing else may come of that.
    let thinks = kind == "response.output_item.added" && event.item.is_some_and(|it| it.kind == "reasoning");
    Signal {
        reported: usage.map_or_else(Reported::default, |usage| usage.reported()),
        text: if kind.ends_with(".delta") { event.delta.0 } else { Text::default().0 },
        token: thinks || (!complete && !failed && is_of_an_answer(kind)),
        reasoning: match kind {
            _ if thinks => Some(Reasoning::Begins),
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                Some(Reasoning::Shown)
            }
            _ => None,
        },
        settled: complete,
        complete,
        failed,
        ended: 0,
    }
}

/// Whether an event tells something of the answer, and not only that there will be one.
fn is_of_an_answer(kind: &str) -> bool {
    kind.strip_prefix("response.").is_some_and(|what| {
        let last = what.rsplit('.').next().unwrap_or(what);
        !matches!(last, "created" | "in_progress" | "queued" | "added")
    })
}

/// What an error is, as OpenAI documents it and, below `error`, as OpenAI sends it: by the latter its SDKs
/// know that a stream has failed.
fn write_error(event: &mut Object<'_>, kind: &str, code: &str, message: &str) {
    event.text("code", code);
    event.text("message", message);
    event.null("param");
    event.object("error", |error| {
        error.text("type", kind);
        error.text("code", code);
        error.text("message", message);
        error.null("param");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_told_when_the_answer_is_complete() {
        let delta = event(br#"{"type":"response.output_text.delta","delta":"Hi"}"#);
        assert!(delta.token && !delta.complete);
        let done = event(br#"{"type":"response.completed","response":{"id":"r","usage":{"input_tokens":7,"output_tokens":3,"input_tokens_details":{"cached_tokens":2}}}}"#);
        let thinks = event(br#"{"type":"response.output_item.added","item":{"type":"reasoning"}}"#);
        assert!(thinks.token && thinks.reasoning == Some(Reasoning::Begins));
        assert!(done.complete && done.settled);
        assert_eq!(done.reported.input, Some(7));
        assert_eq!(done.reported.cache_read, Some(2));
    }

    #[test]
    fn all_that_is_of_the_answer_is_a_token() {
        for (kind, token) in [
            ("response.output_text.delta", true),
            ("response.audio.delta", true),
            ("response.image_generation_call.partial_image", true),
            ("response.web_search_call.searching", true),
            ("response.output_item.done", true),
            ("response.created", false),
            ("response.queued", false),
            ("response.in_progress", false),
            ("response.image_generation_call.in_progress", false),
            ("response.output_item.added", false),
            ("response.completed", false),
            ("response.failed", false),
            ("keepalive", false),
        ] {
            assert_eq!(event(format!(r#"{{"type":"{kind}"}}"#).as_bytes()).token, token, "{kind}");
        }
    }

    #[test]
    fn errors_inside_a_stream_are_seen() {
        for failed in [
            r#"{"type":"response.failed","response":{}}"#,
            r#"{"type":"error","code":"server_error","message":"later"}"#,
            r#"{"error":{"message":"overloaded"}}"#,
        ] {
            assert!(event(failed.as_bytes()).failed, "{failed}");
        }
        assert!(!event(br#"{"type":"response.created","response":{"error":null}}"#).failed);
    }
}
