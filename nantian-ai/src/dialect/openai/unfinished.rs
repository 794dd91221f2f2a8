//! Answers in which nothing is said: a model of OpenAI may think for as long as its answer may be. Chat
//! Completions refuse then, where any other API answers.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

/// How their refusals begin.
const NOTHING_LEFT: &str =
    "Could not finish the message because max_tokens or model output limit was reached";

/// Whether a refusal, by its message, stands for an answer. One that quotes these words is of something else.
pub(crate) fn is_unfinished(status: StatusCode, message: &str) -> bool {
    status == StatusCode::BAD_REQUEST && of_the_first(message).starts_with(NOTHING_LEFT)
}

/// Such an answer: cut off after so many tokens.
pub(crate) fn unfinished(limit: u64) -> Bytes {
    let answer = json!({
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "length"}],
        "usage": {"completion_tokens": limit},
    });
    Bytes::from(answer.to_string())
}

/// A message without what LiteLLM puts before it, `litellm.BadRequestError: AzureException - `, or Portkey,
/// `azure-openai error: `.
fn of_the_first(message: &str) -> &str {
    let is_name = |name: &str| name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if let Some((_, said)) = message.split_once(" error: ").filter(|(name, _)| is_name(name)) {
        return said;
    }
    let behind = message.strip_prefix("litellm.").and_then(|named| named.split_once(" - "));
    match behind {
        Some((name, said)) if name.ends_with("Exception") || name.ends_with("Error") => said,
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_stands_for_an_answer_if_it_begins_with_the_words() {
        let of = |message: &str| is_unfinished(StatusCode::BAD_REQUEST, message);
        let whole = format!("{NOTHING_LEFT}. Please try again with higher max_tokens.");
        for before in [
            "",
            "litellm.BadRequestError: OpenAIException - ",
            "litellm.BadRequestError: AzureException BadRequestError - ",
            "openai error: ",
            "azure-openai error: ",
        ] {
            assert!(of(&format!("{before}{whole}")), "{before}");
        }
        for quoting in [
            format!("Invalid value: '{whole}'."),
            format!("messages.0 - {whole}"),
            format!("litellm.BadRequestError: OpenAIException - Invalid value: 'a - {whole}'"),
            format!("litellm.BadRequestError: invalid value 'a - {whole}'"),
            format!("invalid value: error: {whole}"),
            format!("openai error: invalid value 'a error: {whole}'"),
        ] {
            assert!(!of(&quoting), "{quoting}");
        }
        assert!(!is_unfinished(StatusCode::INTERNAL_SERVER_ERROR, &whole));
    }
}
