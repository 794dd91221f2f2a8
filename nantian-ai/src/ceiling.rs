//! The most tokens of an answer, as providers name it that refuse to be asked for more: coding agents name one limit, and models
//! have many.

use http::StatusCode;

/// Where a body names the most tokens of its answer.
pub(crate) const LIMITS: [&str; 2] = ["max_completion_tokens", "max_tokens"];

/// What a refusal allows, if it is one of a limit, says so and leaves room for an answer. It may quote the client, and counts for its
/// request alone.
pub(crate) fn most_allowed(status: StatusCode, said: &[u8]) -> Option<u64> {
    if !matches!(status.as_u16(), 400 | 422) {
        return None;
    }
    let said = std::str::from_utf8(said).ok()?;
    if !LIMITS.iter().any(|limit| said.contains(limit)) && !said.contains("in the completion") {
        return None;
    }
    of_model(said).or_else(|| of_request(said)).filter(|most| *most > 0)
}

/// The most that a model ever writes, in the words of OpenAI and Azure, and of Anthropic.
fn of_model(said: &str) -> Option<u64> {
    number_after(said, "supports at most ").or_else(|| {
        let (before, _) = said.split_once(", which is the maximum allowed number of output tokens")?;
        before.rsplit_once("> ")?.1.parse().ok()
    })
}

/// The room that a conversation leaves, in the words of vLLM and of older models of OpenAI.
fn of_request(said: &str) -> Option<u64> {
    let room = number_after(said, "maximum context length is ")?;
    let read = number_after(said, "your request has ").or_else(|| {
        let (before, _) = said.split_once(" in the messages")?;
        before.rsplit_once('(')?.1.parse().ok()
    })?;
    room.checked_sub(read)
}

fn number_after(text: &str, words: &str) -> Option<u64> {
    let (_, after) = text.split_once(words)?;
    let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
    after.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_read_of_the_words_of_each_provider() {
        for (said, most) in [
            (
                "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided 32000.",
                Some(16_384),
            ),
            (
                "max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-haiku",
                Some(8192),
            ),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 64000. This model's maximum context length is 64001 tokens and your request has 24235 input tokens (64000 > 64001 - 24235).",
                Some(39_766),
            ),
            (
                "This model's maximum context length is 16385 tokens. However, you requested 20000 tokens (5000 in the messages, 15000 in the completion). Please reduce the length of the messages or completion.",
                Some(11_385),
            ),
            // The conversation itself is too long, or leaves nothing.
            (
                "max_tokens is too large: 9. This model's maximum context length is 4096 tokens and your request has 4096 input tokens.",
                None,
            ),
            (
                "This model's maximum context length is 16385 tokens. However, you requested 35000 tokens (20000 in the messages, 15000 in the completion).",
                None,
            ),
            (
                "This model's maximum context length is 16385 tokens, however your messages resulted in 20000 tokens.",
                None,
            ),
            (
                "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
                None,
            ),
            (
                "max_tokens is too large: 9. This model supports at most 99999999999999999999 completion tokens",
                None,
            ),
        ] {
            assert_eq!(most_allowed(StatusCode::BAD_REQUEST, said.as_bytes()), most, "{said}");
            assert_eq!(most_allowed(StatusCode::OK, said.as_bytes()), None);
        }
    }
}
