//! What a client says of how an answer is to be made, and for whom.

use std::borrow::Cow;

use crate::dialect::ClientDialect;
use crate::edit::Object;

/// The longest name of a user or a conversation that is kept, in bytes.
const LONGEST: usize = 512;

/// The longest list of stop sequences that is kept, in bytes of JSON.
const LONGEST_STOPS: usize = 4 * 1024;

/// What a client says of how an answer is to be made, and for whom, as traces tell it.
///
/// ```
/// use nantian_ai::{RequestFacts, Surface};
///
/// let request = http::Request::post("/v1/chat/completions").body(()).unwrap();
/// let surface = Surface::detect(request.method(), request.uri().path(), request.headers()).unwrap();
/// let body = br#"{"model":"gpt-4o","temperature":0.5,"stop":"END","user":"u-7","messages":[]}"#;
///
/// let settings = RequestFacts::read(&surface, body).unwrap().settings;
/// assert_eq!((settings.temperature, settings.seed), (Some(0.5), None));
/// assert_eq!((settings.stop[0].as_str(), settings.user.as_deref()), ("END", Some("u-7")));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Settings {
    /// How tokens are drawn.
    pub temperature: Option<f64>,
    /// Of which share of all tokens.
    pub top_p: Option<f64>,
    /// Of how many tokens.
    pub top_k: Option<u64>,
    /// By how much tokens are avoided that have come often.
    pub frequency_penalty: Option<f64>,
    /// By how much tokens are avoided that have come.
    pub presence_penalty: Option<f64>,
    /// What the drawing begins with.
    pub seed: Option<i64>,
    /// What the answer ends at. Nothing if it is too much to be kept.
    pub stop: Vec<String>,
    /// Whether the answer is to be JSON, if the client says what it is to be.
    pub json: Option<bool>,
    /// The conversation that the request goes on with, as the provider names it.
    pub conversation: Option<String>,
    /// For whom the answer is.
    pub user: Option<String>,
}

// === impl Settings ===

impl Settings {
    pub(crate) fn of_object(dialect: ClientDialect, object: &Object<'_>) -> Self {
        let options = inner(object, "options").filter(|_| dialect == ClientDialect::Ollama);
        let drawn = options.as_ref().unwrap_or(object);
        let format = match dialect {
            ClientDialect::Anthropic => {
                inner(object, "output_config").and_then(|config| is_json(&config, "format"))
            }
            ClientDialect::Ollama => {
                object.value("format").filter(|format| !matches!(*format, b"null" | b"\"\"")).map(|_| true)
            }
            ClientDialect::Responses => inner(object, "text").and_then(|text| is_json(&text, "format")),
            _ => is_json(object, "response_format"),
        };
        let user = match dialect {
            ClientDialect::Anthropic => inner(object, "metadata").and_then(|it| name(it.text("user_id"))),
            _ => name(object.text("safety_identifier")).or_else(|| name(object.text("user"))),
        };
        let conversation = match dialect {
            ClientDialect::Responses => name(object.text("conversation"))
                .or_else(|| inner(object, "conversation").and_then(|it| name(it.text("id")))),
            _ => None,
        };
        let stop = if dialect == ClientDialect::Anthropic { "stop_sequences" } else { "stop" };
        Self {
            temperature: number(drawn, "temperature"),
            top_p: number(drawn, "top_p"),
            top_k: drawn.number("top_k"),
            frequency_penalty: number(drawn, "frequency_penalty"),
            presence_penalty: number(drawn, "presence_penalty"),
            seed: drawn.value("seed").and_then(|seed| serde_json::from_slice(seed).ok()),
            stop: texts(drawn, stop),
            json: format,
            conversation,
            user,
        }
    }
}

fn inner<'a>(object: &Object<'a>, name: &str) -> Option<Object<'a>> {
    Object::parse(object.value(name)?).ok()
}

fn number(object: &Object<'_>, name: &str) -> Option<f64> {
    serde_json::from_slice(object.value(name)?).ok()
}

/// A text, or several of them.
fn texts(object: &Object<'_>, name: &str) -> Vec<String> {
    let Some(json) = object.value(name).filter(|json| json.len() <= LONGEST_STOPS) else { return Vec::new() };
    match object.text(name) {
        Some(text) => vec![text.into_owned()],
        None => serde_json::from_slice(json).unwrap_or_default(),
    }
}

/// Whether a form of an answer, which says its type, is JSON.
fn is_json(object: &Object<'_>, name: &str) -> Option<bool> {
    Some(inner(object, name)?.text("type")?.starts_with("json"))
}

fn name(text: Option<Cow<'_, str>>) -> Option<String> {
    text.filter(|text| !text.is_empty() && text.len() <= LONGEST).map(Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;
    use crate::{RequestFacts, Surface};

    #[test]
    fn each_dialect_says_it_in_its_own_words() {
        let expected = Settings {
            temperature: Some(0.5),
            top_p: Some(0.25),
            stop: vec!["END".to_owned()],
            json: Some(true),
            user: Some("u-7".to_owned()),
            ..Settings::default()
        };
        for (path, body, more) in [
            (
                "/v1/chat/completions",
                r#"{"temperature":0.5,"top_p":0.25,"stop":["END"],"seed":-3,"presence_penalty":1,"response_format":{"type":"json_object"},"user":"u-7"}"#,
                Settings { seed: Some(-3), presence_penalty: Some(1.0), ..expected.clone() },
            ),
            (
                "/v1/responses",
                r#"{"temperature":0.5,"top_p":0.25,"text":{"format":{"type":"json_schema"}},"safety_identifier":"u-7","conversation":{"id":"conv_1"}}"#,
                Settings { stop: Vec::new(), conversation: Some("conv_1".to_owned()), ..expected.clone() },
            ),
            (
                "/v1/messages",
                r#"{"temperature":0.5,"top_p":0.25,"top_k":9,"stop_sequences":["END"],"output_config":{"format":{"type":"json_schema"}},"metadata":{"user_id":"u-7"}}"#,
                Settings { top_k: Some(9), ..expected.clone() },
            ),
            (
                "/api/chat",
                r#"{"options":{"temperature":0.5,"top_p":0.25,"seed":7,"stop":["END"]},"format":"json"}"#,
                Settings { seed: Some(7), user: None, ..expected.clone() },
            ),
            (
                "/api/chat",
                r#"{"options":{"stop":"END"},"format":""}"#,
                Settings { stop: vec!["END".to_owned()], ..Settings::default() },
            ),
            ("/v1/chat/completions", r#"{"temperature":"hot","stop":[1],"user":{}}"#, Settings::default()),
        ] {
            let surface = Surface::detect(&Method::POST, path, &HeaderMap::new()).unwrap();
            let facts = RequestFacts::read(&surface, body.as_bytes()).unwrap();
            assert_eq!(facts.settings, more, "{path} {body}");
        }
    }

    #[test]
    fn stop_sequences_are_kept_as_far_as_they_are_few() {
        let surface = Surface::detect(&Method::POST, "/v1/chat/completions", &HeaderMap::new()).unwrap();
        for (stop, kept) in [
            (format!(r#""{}""#, "x".repeat(LONGEST_STOPS - 2)), 1),
            (format!(r#""{}""#, "x".repeat(LONGEST_STOPS - 1)), 0),
            (format!(r#"["",{}""]"#, r#""","#.repeat(LONGEST_STOPS / 3)), 0),
        ] {
            let facts = RequestFacts::read(&surface, format!(r#"{{"stop":{stop}}}"#).as_bytes()).unwrap();
            assert_eq!(facts.settings.stop.len(), kept);
        }
    }
}
