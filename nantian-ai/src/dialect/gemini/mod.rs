//! Google: Gemini's `generateContent`, at the Gemini API and at Vertex AI. Only providers speak it.

pub(crate) mod count;
pub(crate) mod embeddings;
mod read_reply;
mod read_stream;
mod thoughts;
mod traits;
mod write_request;

pub(crate) use self::read_reply::decode as decode_reply;
pub(super) use self::read_reply::sign;
pub(crate) use self::read_stream::StreamReader;
pub(crate) use self::write_request::encode as encode_request;

use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use self::traits::Traits;
use super::lenient::{Count, Fold, Join, Present, Text};
use super::signal::{Reported, Signal};
use crate::codec::{Value, fault};
use crate::ir::{Fault, FaultKind};

/// What signatures of Gemini begin with in the common form. No other family trusts them.
pub(super) const OF_GEMINI: &str = "google.";

/// What those begin with that a provider of Chat Completions tells in the name of Vertex, and wants back so.
pub(super) const OF_VERTEX: &str = "google.vertex.";

/// Stands for the signature of a call that another family, or nobody, has signed; Google's documentation
/// names it.
pub(crate) const UNSIGNED: &str = "skip_thought_signature_validator";

/// A chunk of a stream: an answer of its own form.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Chunk {
    candidates: Fold<Candidate>,
    prompt_feedback: Option<Feedback>,
    usage_metadata: Option<Usage>,
    error: Present,
}

/// What is said of a prompt; one that is blocked gets no candidate.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Feedback {
    block_reason: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Candidate {
    content: Option<Content>,
    finish_reason: Present,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Content {
    parts: Text,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Usage {
    prompt_token_count: Count,
    tool_use_prompt_token_count: Count,
    cached_content_token_count: Count,
    candidates_token_count: Count,
    thoughts_token_count: Count,
    total_token_count: Count,
}

/// Whether a signature is one of Gemini.
pub(crate) fn is_of_gemini(signature: &str) -> bool {
    signature.starts_with(OF_GEMINI)
}

/// The signature as Gemini knows it; `None` for one of another family.
pub(crate) fn own(signature: &str) -> Option<&str> {
    signature.strip_prefix(OF_VERTEX).or_else(|| signature.strip_prefix(OF_GEMINI))
}

/// A signature of Gemini, as the common form has it.
pub(crate) fn tagged(signature: &str) -> String {
    format!("{OF_GEMINI}{signature}")
}

/// Reads the data of one event of a stream.
pub(crate) fn event(data: &[u8]) -> Signal {
    let Ok(chunk) = serde_json::from_slice::<Chunk>(data) else {
        return Signal::unreadable();
    };
    let Fold(candidate) = chunk.candidates;
    let text = candidate.content.map(|content| content.parts).unwrap_or_default();
    let is_blocked = chunk.prompt_feedback.is_some_and(|feedback| feedback.block_reason.0);
    let ended = candidate.finish_reason.0 || is_blocked;
    Signal {
        reported: chunk.usage_metadata.map_or_else(Reported::default, |usage| usage.reported()),
        text: text.0,
        token: !text.is_empty(),
        settled: ended,
        complete: ended,
        ended: 0,
        failed: chunk.error.0,
        reasoning: None,
    }
}

/// Reads what Google says with a status that is no success.
pub(crate) fn fault(status: StatusCode, body: &[u8]) -> Fault {
    match status {
        // Always about what the configured credential may do, and with the number of its project.
        StatusCode::FORBIDDEN => fault::refused_credential(),
        _ => fault::read(status, body),
    }
}

/// Reads the `usageMetadata` member of a buffered reply.
pub(crate) fn usage(data: &[u8]) -> Reported {
    serde_json::from_slice::<Option<Usage>>(data)
        .ok()
        .flatten()
        .map_or_else(Reported::default, |usage| usage.reported())
}

/// Why an answer ends.
fn read_stop(reason: Option<&str>) -> crate::ir::Stop {
    use crate::ir::Stop;
    match reason {
        Some("MAX_TOKENS") => Stop::Length,
        Some(
            "SAFETY"
            | "RECITATION"
            | "BLOCKLIST"
            | "PROHIBITED_CONTENT"
            | "SPII"
            | "IMAGE_SAFETY"
            | "IMAGE_PROHIBITED_CONTENT"
            | "IMAGE_RECITATION"
            | "IMAGE_OTHER"
            | "NO_IMAGE"
            | "LANGUAGE"
            | "ESCALATION"
            | "MODEL_ARMOR",
        ) => Stop::Refused,
        _ => Stop::End,
    }
}

/// What is wrong with an answer that says nothing. One that has simply stopped may have had nothing to say,
/// as after its last call.
fn failure(reason: Option<&str>) -> Option<Fault> {
    let problem = match reason? {
        "MALFORMED_FUNCTION_CALL"
        | "MALFORMED_RESPONSE"
        | "MISSING_THOUGHT_SIGNATURE"
        | "TOO_MANY_TOOL_CALLS"
        | "UNEXPECTED_TOOL_CALL" => "the model has written a tool call that cannot be read",
        "OTHER" => "the model has stopped before it said anything",
        _ => return None,
    };
    Some(Fault::new(FaultKind::Unreadable, problem))
}

/// How long it wants not to be asked: a detail (`google.rpc.RetryInfo`) of what it says with 429, for it has
/// no header.
pub(crate) fn asked_wait(body: &[u8]) -> Option<Duration> {
    let error = serde_json::from_slice(body).map(unlisted).ok()?;
    let details = error.get("error")?.get("details")?.as_list();
    let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str());
    Duration::try_from_secs_f64(delay?.strip_suffix('s')?.parse().ok()?).ok()
}

/// The first of errors that come as a list.
pub(crate) fn unlisted(body: Value) -> Value {
    match body {
        Value::Array(list) => list.into_iter().next().unwrap_or_default(),
        body => body,
    }
}

/// `gemini-3-pro` of `models/gemini-3-pro`.
pub(crate) fn bare_model(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// Whether a model wants to see the signatures of its calls again, wherever it runs.
pub(super) fn wants_signatures(model: &str) -> bool {
    let bare = model.rsplit('/').next().unwrap_or(model);
    Traits::of(&bare.to_ascii_lowercase()).wants_signatures
}

/// The model as a path names it; `None` where none can.
fn path_name(model: &str) -> Option<&str> {
    let model = bare_model(model);
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._@".contains(&byte);
    (!model.is_empty() && model.bytes().all(is_safe) && !model.contains("..")).then_some(model)
}

/// The path of a chat below the base URL, and its query; `None` for a model that no path can name.
pub(crate) fn chat_path(model: &str, stream: bool) -> Option<(String, Option<&'static str>)> {
    let model = path_name(model)?;
    Some(match stream {
        true => (format!("/models/{model}:streamGenerateContent"), Some("alt=sse")),
        false => (format!("/models/{model}:generateContent"), None),
    })
}

// === impl Usage ===

impl Usage {
    fn reported(&self) -> Reported {
        let sum = |one: Count, other: Count| match (one.0, other.0) {
            (None, None) => None,
            (one, other) => Some(one.unwrap_or(0).saturating_add(other.unwrap_or(0))),
        };
        Reported {
            input: sum(self.prompt_token_count, self.tool_use_prompt_token_count),
            cache_read: self.cached_content_token_count.0,
            cache_written: None,
            output: sum(self.candidates_token_count, self.thoughts_token_count),
            reasoning: self.thoughts_token_count.0,
            total: self.total_token_count.0,
        }
    }
}

// === impl Candidate ===

impl Join for Candidate {
    fn join(&mut self, other: Self) {
        if let Some(content) = other.content {
            self.content.get_or_insert_default().parts.0 += content.parts.0;
        }
        self.finish_reason.0 |= other.finish_reason.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_chunk_brings_the_usage_with_the_thoughts() {
        let first = event(br#"{"candidates":[{"content":{"parts":[{"text":"Hi"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":9}}"#);
        assert!(first.token && !first.complete);
        let last = event(br#"{"candidates":[{"content":{"parts":[{"text":""}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":2,"thoughtsTokenCount":5,"totalTokenCount":16,"cachedContentTokenCount":4}}"#);
        assert!(last.complete && last.settled && !last.token);
        let Reported { input, cache_read, output, total, .. } = last.reported;
        assert_eq!((input, cache_read, output, total), (Some(9), Some(4), Some(7), Some(16)));
    }

    #[test]
    fn a_blocked_prompt_is_a_complete_answer() {
        let blocked = event(
            br#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#,
        );
        assert!(blocked.complete && blocked.settled && !blocked.token);
        assert!(!event(br#"{"promptFeedback":{"safetyRatings":[]}}"#).complete);
    }

    #[test]
    fn an_answer_that_says_nothing_says_why() {
        use crate::ir::{Collector, Stop, ToolIds};
        for (reason, stop) in [
            ("STOP", Some(Stop::End)),
            ("NO_IMAGE", Some(Stop::Refused)),
            ("IMAGE_OTHER", Some(Stop::Refused)),
            ("LANGUAGE", Some(Stop::Refused)),
            ("OTHER", None),
            ("MALFORMED_FUNCTION_CALL", None),
        ] {
            let body =
                format!(r#"{{"candidates":[{{"content":{{"role":"model"}},"finishReason":"{reason}"}}]}}"#);
            let whole = decode_reply(body.as_bytes(), &mut ToolIds::new(0)).map(|(reply, _)| reply.stop);
            let mut collector = Collector::default();
            let mut reader = StreamReader::new(ToolIds::new(0));
            reader.event(body.as_bytes(), &mut |event| collector.push(event));
            reader.finish(&mut |event| collector.push(event));
            let streamed = collector.finish().map(|reply| reply.stop);
            for seen in [whole, streamed] {
                assert_eq!(
                    seen.map_err(|fault| fault.kind),
                    stop.clone().ok_or(FaultKind::Unreadable),
                    "{reason}"
                );
            }
        }
    }

    #[test]
    fn a_model_that_no_path_can_name_has_none() {
        let path = chat_path("models/gemini-3-pro", true).unwrap();
        assert_eq!(path, ("/models/gemini-3-pro:streamGenerateContent".to_owned(), Some("alt=sse")));
        for model in ["", "a/b", "a?b", "..", "a%2f"] {
            assert_eq!(chat_path(model, false), None, "{model}");
        }
    }
}
