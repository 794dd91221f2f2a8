//! The most tokens of an answer, within the bounds that providers name who refuse to be asked for more or
//! for fewer: coding agents name one limit, and models have many; and they ask for one token to learn whether
//! a model is there.

use bytes::Bytes;
use http::StatusCode;

use crate::edit::Object;

/// Where a body names the most tokens of its answer, and in which of its members.
const LIMITS: [(Option<&str>, &str); 6] = [
    (None, "max_completion_tokens"),
    (None, "max_tokens"),
    (None, "max_output_tokens"),
    (Some("generationConfig"), "maxOutputTokens"),
    (Some("inferenceConfig"), "maxTokens"),
    (Some("options"), "num_predict"),
];

/// Words without which a refusal is of something else, beside the names of limits.
const OF_A_LIMIT: [&str; 2] = ["in the completion", "maximum tokens you requested"];

/// Words before the most that a model ever writes: of OpenAI and Azure in Chat Completions and in Responses,
/// Groq, DeepSeek, Ollama's cloud, Bedrock, and Fireworks, which writes more in a stream.
const BEFORE_THE_MOST: [&str; 7] = [
    "supports at most ",
    "Expected a value <= ",
    "must be less than or equal to ",
    "the valid range of max_tokens is [1, ",
    "maximum output tokens (",
    "exceeds the model limit of ",
    "Requests with max_tokens > ",
];

/// Words of OpenAI and Azure before the least that some of their models take.
const BEFORE_THE_LEAST: &str = "Expected a value >= ";
/// No model takes only more than this. What a refusal quotes of a client must not raise its limit further.
const LEAST_AT_MOST: u64 = 1024;

/// What a provider says of the limits that it takes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Bound {
    /// None above this.
    Most(u64),
    /// None below this.
    Least(u64),
}

/// A body whose limit is within the bound, and that limit; `None` if no other one is asked for.
pub(crate) fn fitted(body: &Bytes, bound: Bound) -> Option<(Bytes, u64)> {
    let object = Object::parse(body).ok()?;
    let fit = |object: &Object<'_>, body: &Bytes, name: &str| {
        let limit = bound.instead_of(object.number(name)?)?;
        Some((Bytes::from(object.set(body, &[(name, &limit.to_string())]).concat()), limit))
    };
    LIMITS.into_iter().find_map(|(outer, name)| {
        let Some(outer) = outer else { return fit(&object, body, name) };
        let inner = Bytes::copy_from_slice(object.value(outer)?);
        let (inner, limit) = fit(&Object::parse(&inner).ok()?, &inner, name)?;
        let inner = std::str::from_utf8(&inner).ok()?;
        Some((Bytes::from(object.set(body, &[(outer, inner)]).concat()), limit))
    })
}

// === impl Bound ===

impl Bound {
    /// What a refusal allows, if it is one of a limit, says so and leaves room for an answer. It may quote
    /// the client, and counts for its request alone.
    pub(crate) fn of_refusal(status: StatusCode, said: &[u8]) -> Option<Self> {
        if !matches!(status.as_u16(), 400 | 422) {
            return None;
        }
        let said = std::str::from_utf8(said).ok()?;
        let mut words = LIMITS.iter().map(|(_, name)| name).chain(&OF_A_LIMIT);
        if !words.any(|words| said.contains(words)) {
            return None;
        }
        let most = of_model(said).or_else(|| of_request(said)).filter(|most| *most > 0);
        let least = || number_after(said, BEFORE_THE_LEAST).filter(|least| *least <= LEAST_AT_MOST);
        most.map(Self::Most).or_else(|| least().map(Self::Least))
    }

    /// What is to be asked for, if it is another limit.
    fn instead_of(self, asked: u64) -> Option<u64> {
        match self {
            Self::Most(most) => (asked > most).then_some(most),
            Self::Least(least) => (asked < least).then_some(least),
        }
    }
}

/// The most that a model ever writes.
fn of_model(said: &str) -> Option<u64> {
    let of_anthropic = || {
        let (before, _) = said.split_once(", which is the maximum allowed number of output tokens")?;
        before.rsplit_once("> ")?.1.parse().ok()
    };
    let of_google = || {
        let (range, _) = said.split_once(" (exclusive)")?;
        range.rsplit_once("(inclusive) to ")?.1.parse::<u64>().ok()?.checked_sub(1)
    };
    let named = BEFORE_THE_MOST.into_iter().find_map(|words| number_after(said, words));
    named.or_else(of_anthropic).or_else(of_google)
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
    let after = after.trim_start_matches('`');
    let end = after.find(|it: char| !it.is_ascii_digit()).unwrap_or(after.len());
    after.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::Bound::{Least, Most};
    use super::*;

    #[test]
    fn the_limit_is_read_of_the_words_of_each_provider() {
        for (said, bound) in [
            (
                "max_tokens is too large: 32000. This model supports at most 16384 completion tokens, whereas you provided 32000.",
                Some(Most(16_384)),
            ),
            (
                "max_tokens: 64000 > 8192, which is the maximum allowed number of output tokens for claude-3-5-haiku",
                Some(Most(8192)),
            ),
            (
                "'max_tokens' or 'max_completion_tokens' is too large: 64000. This model's maximum context length is 64001 tokens and your request has 24235 input tokens (64000 > 64001 - 24235).",
                Some(Most(39_766)),
            ),
            (
                "This model's maximum context length is 16385 tokens. However, you requested 20000 tokens (5000 in the messages, 15000 in the completion). Please reduce the length of the messages or completion.",
                Some(Most(11_385)),
            ),
            (
                "`max_tokens` must be less than or equal to `8192`, the maximum value for `max_tokens` is less than the `context_window` for this model",
                Some(Most(8192)),
            ),
            ("max_tokens for `llama` must be less than or equal to 8000", Some(Most(8000))),
            ("Invalid max_tokens value, the valid range of max_tokens is [1, 8192]", Some(Most(8192))),
            (
                "max_tokens (1048576) exceeds model's maximum output tokens (65536) for model deepseek",
                Some(Most(65_536)),
            ),
            (
                "Requests with max_tokens > 4096 must have stream=true, or the connection may time out",
                Some(Most(4096)),
            ),
            (
                "The maximum tokens you requested exceeds the model limit of 10000. Try again with a maximum tokens value that is lower than 10000.",
                Some(Most(10_000)),
            ),
            (
                "Unable to submit request because it has a maxOutputTokens value of 32000 but the supported range is from 1 (inclusive) to 8193 (exclusive). Update the value and try again.",
                Some(Most(8192)),
            ),
            (
                "Invalid 'max_output_tokens': integer above maximum value. Expected a value <= 16384, but got 32000 instead.",
                Some(Most(16_384)),
            ),
            (
                "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.",
                Some(Least(16)),
            ),
            (
                "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 100000, but got 1 instead.",
                None,
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
            assert_eq!(Bound::of_refusal(StatusCode::BAD_REQUEST, said.as_bytes()), bound, "{said}");
            assert_eq!(Bound::of_refusal(StatusCode::OK, said.as_bytes()), None);
        }
    }

    #[test]
    fn a_limit_is_changed_where_each_dialect_has_it_and_nothing_else_changes() {
        for (body, expected) in [
            (r#"{"max_tokens": 9,"a":1}"#, Some(r#"{"max_tokens": 5,"a":1}"#)),
            (
                r#"{"a":{"max_tokens":9},"max_output_tokens":9}"#,
                Some(r#"{"a":{"max_tokens":9},"max_output_tokens":5}"#),
            ),
            (
                r#"{"inferenceConfig":{"temperature":1.0,"maxTokens":9},"a":1}"#,
                Some(r#"{"inferenceConfig":{"temperature":1.0,"maxTokens":5},"a":1}"#),
            ),
            (
                r#"{"generationConfig":{"maxOutputTokens":9}}"#,
                Some(r#"{"generationConfig":{"maxOutputTokens":5}}"#),
            ),
            (r#"{"options":{"num_predict":9}}"#, Some(r#"{"options":{"num_predict":5}}"#)),
            (r#"{"max_tokens":5,"options":{"num_predict":4}}"#, None),
            (r#"{"messages":[]}"#, None),
        ] {
            let lowered = fitted(&Bytes::from_static(body.as_bytes()), Most(5));
            let expected = expected.map(|body| (Bytes::from_static(body.as_bytes()), 5));
            assert_eq!(lowered, expected, "{body}");
        }
        let raised = fitted(&Bytes::from_static(br#"{"max_completion_tokens":1}"#), Least(16));
        assert_eq!(raised, Some((Bytes::from_static(br#"{"max_completion_tokens":16}"#), 16)));
        assert_eq!(fitted(&Bytes::from_static(br#"{"max_tokens":16}"#), Least(16)), None);
    }
}
