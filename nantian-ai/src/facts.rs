//! What a proxy wants to know about a request before it is sent.

use http::header::{CONTENT_LENGTH, HeaderMap};
use serde::de::IgnoredAny;

use crate::dialect::{ClientDialect, Operation, Surface, openai};
use crate::edit::Object;
use crate::edit::lookalike;
use crate::error::Error;
use crate::estimate::estimate_tokens;
use crate::references;
use crate::settings::Settings;

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
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RequestFacts {
    /// What the client speaks; `None` where nobody has looked.
    pub dialect: Option<ClientDialect>,
    /// What the client asks for; `None` where nobody has looked.
    pub operation: Option<Operation>,
    /// The model the client names.
    pub model: Option<String>,
    /// Whether the client wants a stream.
    pub stream: bool,
    /// The most tokens that one answer may have, as the client limits it; zero for operations that
    /// generate nothing. `None` also for what some provider takes for no limit, such as 0.
    pub max_tokens: Option<u64>,
    /// How many answers are generated.
    pub choices: u64,
    /// The answer is made after its request has ended, for whoever fetches it later: `background` of
    /// Responses.
    pub background: bool,
    /// The model is given what the body only refers to: a conversation or a file that the provider has
    /// stored, or what lies behind a URL.
    pub refers: bool,
    /// The provider runs tools of its own, such as a search, whose results count as a part of the prompt. A
    /// [`Prepared`](crate::Prepared) request that is translated has none.
    pub runs_tools: bool,
    /// The input tokens, as [`estimate_tokens`] counts them, and for a request to a [`Target`](crate::Target)
    /// as its [`Calibration`](crate::Calibration) corrects that; zero for operations that spend none.
    pub input_estimate: u64,
    /// What is said of how the answer is to be made, and for whom.
    pub settings: Settings,
}

// === impl RequestFacts ===

impl RequestFacts {
    /// Reads a request body.
    ///
    /// # Errors
    /// [`Error::NotJson`] if the operation takes a JSON object and this is none.
    pub fn read(surface: &Surface, body: &[u8]) -> Result<Self, Error> {
        if !surface.operation().names_a_model() {
            return Ok(Self::without_body(surface));
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

    /// Whether the client wants a stream. Servers in Python take `1` and `"true"` for `true`, too, and `"no"`
    /// for `false`.
    pub(crate) fn streams(surface: &Surface, object: &Object<'_>) -> bool {
        let is_silent = object.value("stream").is_none_or(|value| value == b"null");
        let is_asked = || says(object, "stream") && !says_no(object, "stream");
        let asked = if is_silent { surface.streams_by_default() } else { is_asked() };
        surface.operation().generates() && asked
    }

    pub(crate) fn without_body(surface: &Surface) -> Self {
        let (dialect, operation) = (Some(surface.dialect()), Some(surface.operation()));
        Self { dialect, operation, max_tokens: Some(0), choices: 1, ..Self::default() }
    }

    pub(crate) fn of_object(surface: &Surface, object: &Object<'_>, body: &[u8]) -> Self {
        let operation = surface.operation();
        Self {
            dialect: Some(surface.dialect()),
            operation: Some(operation),
            model: object.text("model").map(Into::into),
            stream: Self::streams(surface, object),
            max_tokens: if operation.generates() { max_tokens(surface, object) } else { Some(0) },
            choices: choices(surface, object),
            refers: operation.spends() && references::refers(surface.dialect(), object, body),
            runs_tools: operation.generates() && references::has_tools_of_provider(object),
            background: surface.dialect() == ClientDialect::Responses && says(object, "background"),
            input_estimate: if operation.spends() { estimate_tokens(body) } else { 0 },
            settings: Settings::of_object(surface.dialect(), object),
        }
    }
}

/// Whether a member says anything but no.
fn says(object: &Object<'_>, name: &str) -> bool {
    object.value(name).is_some_and(|value| !matches!(value, b"null" | b"false" | b"0" | b"\"\""))
}

/// Whether a member is a text that servers in Python take for `false`.
fn says_no(object: &Object<'_>, name: &str) -> bool {
    const NO: [&str; 6] = ["0", "f", "false", "n", "no", "off"];
    object.text(name).is_some_and(|text| NO.iter().any(|no| text.eq_ignore_ascii_case(no)))
}

/// OpenAI's other dialects and those of others give one answer, whatever they are told.
fn choices(surface: &Surface, object: &Object<'_>) -> u64 {
    if surface.dialect() != ClientDialect::OpenAi {
        return 1;
    }
    let shown = count(object, "n");
    match surface.operation() {
        Operation::Generate => {
            let prompts = object.value("prompt").map_or(1, prompts);
            shown.max(count(object, "best_of")).saturating_mul(prompts)
        }
        _ => shown,
    }
}

/// At least 1. Servers in Python take `3.0` and `"3"` for 3, too.
fn count(object: &Object<'_>, name: &str) -> u64 {
    let number: Option<f64> = match object.text(name) {
        Some(text) => text.trim().parse().ok(),
        None => object.value(name).and_then(|value| serde_json::from_slice(value).ok()),
    };
    #[expect(clippy::cast_possible_truncation, reason = "float casts saturate")]
    number.map_or(1, |number| number as u64).max(1)
}

/// How many texts, or lists of tokens, there are; one list of tokens is one.
fn prompts(json: &[u8]) -> u64 {
    let first = json.strip_prefix(b"[").and_then(|list| list.trim_ascii_start().first());
    match first {
        // A vector of nothing takes no memory.
        Some(b'"' | b'[') => serde_json::from_slice(json).map_or(1, |all: Vec<IgnoredAny>| all.len() as u64),
        _ => 1,
    }
}

fn max_tokens(surface: &Surface, object: &Object<'_>) -> Option<u64> {
    // A backend in Go may find a limit by another spelling.
    if lookalike::any(object) {
        return None;
    }
    let is_chat = surface.operation() == Operation::Chat;
    match surface.dialect() {
        ClientDialect::Ollama => most(&Object::parse(object.value("options")?).ok()?, &["num_predict"]),
        ClientDialect::Responses => most(object, &["max_output_tokens"]),
        ClientDialect::Anthropic => most(object, &["max_tokens"]),
        // Some providers obey the one, some the other. Cursor names the last.
        ClientDialect::OpenAi if is_chat && openai::has_form_of_responses(object) => {
            most_with_llamacpp(object, &["max_completion_tokens", "max_tokens", "max_output_tokens"])
        }
        ClientDialect::OpenAi => most_with_llamacpp(object, &["max_completion_tokens", "max_tokens"]),
    }
}

/// The most that any of `names` allows, and llama.cpp's own, which it obeys before all. Who else serves the
/// request knows no such name, so that it limits nothing by itself.
fn most_with_llamacpp(object: &Object<'_>, names: &[&str]) -> Option<u64> {
    most(object, names)?;
    most(object, &[names, &["n_predict"]].concat())
}

/// The most that any of `names` allows. One that is no whole number above 0 may be no limit: Ollama takes 0
/// so, others -1.
fn most(object: &Object<'_>, names: &[&str]) -> Option<u64> {
    let given = names.iter().filter(|name| object.value(name).is_some_and(|value| value != b"null"));
    let limits = given.map(|name| object.number(name).filter(|tokens| *tokens > 0));
    limits.reduce(|most, limit| Some(most?.max(limit?))).flatten()
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
            // Who serves it may know no limit there, or another one.
            ("/api/chat", r#"{"options":{"num_predict":0}}"#, None),
            ("/v1/chat/completions", r#"{"max_tokens":0}"#, None),
            ("/v1/chat/completions", r#"{"max_tokens":"9"}"#, None),
            ("/v1/chat/completions", r#"{"max_completion_tokens":1,"max_tokens":-1}"#, None),
            ("/v1/chat/completions", r#"{"max_completion_tokens":7,"max_tokens":null}"#, Some(7)),
            ("/v1/chat/completions", r#"{"max_tokens":1,"n_predict":-1}"#, None),
            ("/v1/chat/completions", r#"{"max_tokens":1,"n_predict":500}"#, Some(500)),
            // Most providers do not know the name.
            ("/v1/chat/completions", r#"{"n_predict":1,"messages":[]}"#, None),
            ("/v1/chat/completions", r#"{"n_predict":1,"max_tokens":null}"#, None),
            ("/v1/completions", r#"{"n_predict":1,"prompt":"x"}"#, None),
            ("/v1/chat/completions", r#"{"max_tokens":1,"MAX_TOKENS":500}"#, None),
            ("/v1/chat/completions", r#"{"input":"x","max_output_tokens":9}"#, Some(9)),
            ("/v1/chat/completions", r#"{"input":"x","max_output_tokens":9,"max_tokens":10}"#, Some(10)),
            ("/v1/chat/completions", r#"{"input":"x","max_output_tokens":9,"messages":[]}"#, None),
            ("/v1/completions", r#"{"prompt":"x","input":"x","max_output_tokens":9}"#, None),
            ("/v1/chat/completions", "{}", None),
            ("/v1/embeddings", r#"{"input":"x"}"#, Some(0)),
        ] {
            assert_eq!(facts(path, body).max_output(), expected, "{path} {body}");
        }
    }

    #[test]
    fn every_answer_that_is_generated_counts() {
        for (path, body, expected) in [
            ("/v1/chat/completions", r#"{"n":3,"best_of":9,"prompt":["a","b"]}"#, 3),
            ("/v1/chat/completions", r#"{"n":"50"}"#, 50),
            ("/v1/chat/completions", r#"{"n":5e1}"#, 50),
            ("/v1/chat/completions", r#"{"n":null}"#, 1),
            ("/v1/chat/completions", r#"{"n":-3}"#, 1),
            ("/v1/completions", r#"{"prompt":"a, b","n":2}"#, 2),
            ("/v1/completions", r#"{"prompt":"a","n":2,"best_of":5}"#, 5),
            ("/v1/completions", r#"{"prompt":[ "a", "b,c" ],"n":2}"#, 4),
            ("/v1/completions", r#"{"prompt":[1,2,3]}"#, 1),
            ("/v1/completions", r#"{"prompt":[[1,2],[3],[]],"best_of":2}"#, 6),
            ("/v1/completions", r#"{"prompt":[]}"#, 1),
            ("/v1/messages", r#"{"n":3}"#, 1),
        ] {
            assert_eq!(facts(path, body).choices, expected, "{path} {body}");
        }
    }

    #[test]
    fn responses_may_be_made_in_the_background() {
        assert!(facts("/v1/responses", r#"{"background":true}"#).background);
        for (path, body) in [
            ("/v1/responses", "{}"),
            ("/v1/responses", r#"{"background":false}"#),
            ("/v1/responses", r#"{"background":null}"#),
            ("/v1/chat/completions", r#"{"background":true}"#),
        ] {
            assert!(!facts(path, body).background, "{path} {body}");
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
    fn what_some_server_takes_for_a_stream_is_one() {
        for (said, is_stream) in [
            ("true", true),
            ("1", true),
            ("\"true\"", true),
            ("\"yes\"", true),
            ("\"false\"", false),
            ("\"False\"", false),
            ("\"0\"", false),
            ("\"OFF\"", false),
            ("\"no\"", false),
            ("\"f\"", false),
            ("\"n\"", false),
            ("false", false),
            ("0", false),
            ("\"\"", false),
            ("null", false),
        ] {
            let body = format!(r#"{{"stream":{said}}}"#);
            assert_eq!(facts("/v1/chat/completions", &body).stream, is_stream, "{said}");
            assert_eq!(facts("/api/chat", &body).stream, is_stream || said == "null", "{said}");
            assert!(!facts("/v1/embeddings", &body).stream, "{said}");
        }
        assert!(facts("/v1/chat/completions", "\u{feff}{\"stream\":true}").stream);
    }

    #[test]
    fn counting_tokens_spends_none() {
        let counted = facts("/v1/messages/count_tokens", r#"{"messages":[]}"#);
        assert_eq!(counted.input_estimate, 0);
    }
}
