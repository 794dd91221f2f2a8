//! What a proxy wants to know about a request before it is sent.

use http::header::{CONTENT_LENGTH, HeaderMap};

use crate::dialect::{Dialect, Operation, Surface};
use crate::edit::Object;
use crate::error::Error;
use crate::estimate::estimate_tokens;

/// Bytes of an average request body for each token.
const BYTES_PER_TOKEN: u64 = 4;

/// The few members of a request body that routing and token limits need.
///
/// ```
/// use nantian_ai::{RequestFacts, Surface};
///
/// let request = http::Request::post("/v1/chat/completions").body(()).unwrap();
/// let surface = Surface::detect(request.method(), request.uri().path(), request.headers()).unwrap();
/// let body = br#"{"model":"gpt-4o","stream":true,"max_tokens":200,"messages":[]}"#;
///
/// let facts = RequestFacts::read(&surface, body).unwrap();
/// assert_eq!(facts.model.as_deref(), Some("gpt-4o"));
/// assert!(facts.stream);
/// assert_eq!(facts.max_output(), Some(200));
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct RequestFacts {
    /// What the client asks for; `None` where nobody has looked.
    pub operation: Option<Operation>,
    /// The model the client names.
    pub model: Option<String>,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// The most tokens that one answer may have, as the client limits it; zero for operations that
    /// generate nothing.
    pub max_tokens: Option<u64>,
    /// How many answers are asked for.
    pub choices: u64,
    /// The input tokens, as [`estimate_tokens`] counts them, and for a request to a [`Target`](crate::Target) as its
    /// [`Calibration`](crate::Calibration) corrects that; zero for operations that spend none.
    pub input_estimate: u64,
}

// === impl RequestFacts ===

impl RequestFacts {
    /// Reads a request body.
    ///
    /// # Errors
    /// [`Error::NotJson`] if the operation takes a JSON object and this is none.
    pub fn read(surface: &Surface, body: &[u8]) -> Result<Self, Error> {
        if !surface.operation().names_a_model() {
            return Ok(Self::without_body(surface.operation()));
        }
        Ok(Self::of_object(surface, &Object::parse(body)?, body))
    }

    /// All answers together: the most tokens that may come out, if the client limits them.
    pub fn max_output(&self) -> Option<u64> {
        self.max_tokens.map(|tokens| tokens.saturating_mul(self.choices.max(1)))
    }

    /// What can be said of a request whose body nobody has read.
    pub(crate) fn unread(headers: &HeaderMap) -> Self {
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        Self { input_estimate: length.map_or(0, |bytes| bytes.div_ceil(BYTES_PER_TOKEN)), ..Self::default() }
    }

    pub(crate) fn without_body(operation: Operation) -> Self {
        Self { operation: Some(operation), max_tokens: Some(0), choices: 1, ..Self::default() }
    }

    pub(crate) fn of_object(surface: &Surface, object: &Object<'_>, body: &[u8]) -> Self {
        let operation = surface.operation();
        Self {
            operation: Some(operation),
            model: object.text("model").map(Into::into),
            stream: operation.generates()
                && object.flag("stream").unwrap_or_else(|| surface.streams_by_default()),
            max_tokens: if operation.generates() { max_tokens(surface.dialect(), object) } else { Some(0) },
            choices: choices(surface, object),
            input_estimate: if operation.spends() { estimate_tokens(body) } else { 0 },
        }
    }
}

/// OpenAI's other dialects and those of others give one answer, whatever they are told.
fn choices(surface: &Surface, object: &Object<'_>) -> u64 {
    match surface.dialect() {
        Dialect::OpenAi => object.number("n").unwrap_or(1),
        _ => 1,
    }
}

fn max_tokens(dialect: Dialect, object: &Object<'_>) -> Option<u64> {
    match dialect {
        Dialect::Bedrock | Dialect::Gemini => None,
        Dialect::Ollama => {
            let options = Object::parse(object.value("options")?).ok()?;
            options.number("num_predict")
        }
        Dialect::Responses => object.number("max_output_tokens"),
        Dialect::Anthropic => object.number("max_tokens"),
        // Some providers obey the one, some the other.
        Dialect::OpenAi => object.number("max_completion_tokens").max(object.number("max_tokens")),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn facts(path: &str, body: &str) -> RequestFacts {
        let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
        RequestFacts::read(&surface, body.as_bytes()).unwrap()
    }

    #[test]
    fn each_dialect_limits_its_answer_by_its_own_name() {
        for (path, body, expected) in [
            ("/v1/chat/completions", r#"{"max_tokens":5,"max_completion_tokens":7}"#, Some(7)),
            ("/v1/chat/completions", r#"{"max_tokens":5,"n":3}"#, Some(15)),
            ("/v1/responses", r#"{"max_output_tokens":9}"#, Some(9)),
            ("/v1/messages", r#"{"max_tokens":32000}"#, Some(32_000)),
            // What a dialect does not know says nothing in it.
            ("/v1/messages", r#"{"max_tokens":32000,"max_completion_tokens":1,"n":9}"#, Some(32_000)),
            ("/v1/chat/completions", r#"{"max_tokens":900,"max_completion_tokens":7}"#, Some(900)),
            ("/v1/responses", r#"{"max_output_tokens":9,"max_tokens":1,"n":9}"#, Some(9)),
            ("/api/chat", r#"{"options":{"num_predict":11},"n":1000000}"#, Some(11)),
            ("/api/chat", r#"{"options":{"num_predict":11}}"#, Some(11)),
            ("/api/chat", r#"{"options":{"num_predict":-1}}"#, None),
            ("/v1/chat/completions", "{}", None),
            ("/v1/embeddings", r#"{"input":"x"}"#, Some(0)),
        ] {
            assert_eq!(facts(path, body).max_output(), expected, "{path} {body}");
        }
    }

    #[test]
    fn ollama_streams_unless_told_otherwise() {
        assert!(facts("/api/chat", "{}").stream);
        assert!(!facts("/api/chat", r#"{"stream":false}"#).stream);
        assert!(!facts("/v1/chat/completions", "{}").stream);
        assert!(!facts("/api/embed", "{}").stream);
    }

    #[test]
    fn counting_tokens_spends_none() {
        let counted = facts("/v1/messages/count_tokens", r#"{"messages":[]}"#);
        assert_eq!(counted.input_estimate, 0);
    }
}
