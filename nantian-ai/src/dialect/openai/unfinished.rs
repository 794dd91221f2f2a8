//! Answers in which nothing is said: a model of OpenAI may think for as long as its answer may be. Chat
//! Completions refuse then, where any other API answers.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// How they refuse, also behind the words of others who hand it on.
const NOTHING_LEFT: &str = "max_tokens or model output limit was reached";

/// The answer that a refusal stands for, if it does: cut off after so many tokens. It may quote the client,
/// and counts for its request alone.
pub(crate) fn unfinished(status: StatusCode, said: &[u8], limit: u64) -> Option<Bytes> {
    let is_it = status == StatusCode::BAD_REQUEST && std::str::from_utf8(said).ok()?.contains(NOTHING_LEFT);
    let answer = || {
        json!({
            "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}],
            "usage": {"completion_tokens": limit},
        })
    };
    is_it.then(|| Bytes::from(answer().to_string()))
}
