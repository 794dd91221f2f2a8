//! Ollama's own API.

pub(crate) mod embeddings;
mod loading;
mod read_request;
mod reply;
mod stream;
mod write_request;

pub(crate) use self::loading::Loading;
pub(crate) use self::read_request::decode as decode_request;
pub(crate) use self::reply::{decode as decode_reply, encode as encode_reply};
pub(crate) use self::stream::{StreamReader, StreamWriter};
pub(crate) use self::write_request::encode as encode_request;

use serde::Deserialize;
use serde_json::{Value, json};

use super::lenient::{Count, Present, Text};
use super::signal::{Reported, Signal};

/// One line of a stream, or a whole reply.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    message: Option<Message>,
    response: Text,
    thinking: Text,
    done: bool,
    prompt_eval_count: Count,
    eval_count: Count,
    error: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    content: Text,
    thinking: Text,
    tool_calls: Text,
}

/// Reads one line of a stream.
pub(crate) fn line(data: &[u8]) -> Signal {
    let Ok(line) = serde_json::from_slice::<Line>(data) else {
        return Signal::unreadable();
    };
    let mut text = line.response;
    text.0 += line.thinking.0;
    if let Some(message) = line.message {
        text.0 += message.content.0;
        text.0 += message.thinking.0;
        text.0 += message.tool_calls.0;
    }
    Signal {
        reported: Reported {
            input: line.prompt_eval_count.0,
            output: line.eval_count.0,
            ..Reported::default()
        },
        text: text.0,
        token: !text.is_empty(),
        settled: line.done,
        complete: line.done,
        ended: 0,
        failed: line.error.0,
        reasoning: None,
    }
}

/// Reads one of the counts of a buffered reply.
pub(crate) fn count(name: &str, data: &[u8]) -> Reported {
    let value = serde_json::from_slice::<Count>(data).map_or(None, |count| count.0);
    let mut reported = Reported::default();
    match name {
        "prompt_eval_count" => reported.input = value,
        "eval_count" => reported.output = value,
        _ => {}
    }
    reported
}

/// The body of an error, and the line that reports one inside a stream.
pub(crate) fn error(message: &str) -> Value {
    json!({"error": message})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_brings_the_counts() {
        let first = line(br#"{"model":"m","message":{"role":"assistant","content":"Hi"},"done":false}"#);
        assert!(first.token && !first.complete);
        let last = line(br#"{"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":26,"eval_count":7}"#);
        assert!(last.complete && last.settled && !last.token);
        assert_eq!(last.reported.input, Some(26));
        assert_eq!(last.reported.output, Some(7));
    }

    #[test]
    fn an_error_line_fails_the_stream() {
        assert!(line(error("model not found").to_string().as_bytes()).failed);
    }
}
