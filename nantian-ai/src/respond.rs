//! Errors as responses in the client's dialect.

use bytes::Bytes;
use http::Response;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};

use crate::codec::{Fields, fault};
use crate::dialect::{Dialect, anthropic, ollama, openai, responses};
use crate::error::Error;
use crate::ir::Fault;
use crate::wire::ndjson;

/// Turns an error into the response that the client gets.
///
/// A proxy that answers all refusals from one table implements this; [`DialectResponder`] is what it
/// replaces.
pub trait Respond {
    /// The response to `error` for a client of `dialect`.
    fn respond(&self, error: &Error, dialect: Dialect) -> Response<Bytes>;
}

/// Answers with the status of the error and the JSON that clients of the dialect expect.
///
/// ```
/// use nantian_ai::{Dialect, Error};
/// use nantian_ai::respond::{DialectResponder, Respond};
///
/// let response = DialectResponder.respond(&Error::BodyTooLarge { limit: 1024 }, Dialect::Ollama);
/// assert_eq!(response.status(), 413);
/// assert_eq!(response.body(), r#"{"error":"the request body is larger than 1024 bytes"}"#);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct DialectResponder;

// === impl DialectResponder ===

impl Respond for DialectResponder {
    fn respond(&self, error: &Error, dialect: Dialect) -> Response<Bytes> {
        let mut response = Response::new(error_body(error, dialect));
        *response.status_mut() = match error {
            Error::Provider { fault, .. } => fault::status(fault.kind, dialect),
            _ => error.status(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Error::MethodNotAllowed { allowed, .. } = error {
            let names: Vec<_> = allowed.iter().map(|method| method.as_str()).collect();
            headers.extend(HeaderValue::from_str(&names.join(", ")).ok().map(|names| (ALLOW, names)));
        }
        response
    }
}

/// The JSON of an error in a dialect, for responders that only add to it.
pub fn error_body(error: &Error, dialect: Dialect) -> Bytes {
    let label = error.label();
    let message = error.to_string();
    let value = match dialect {
        Dialect::Anthropic => anthropic::error(label.anthropic, &message),
        Dialect::Gemini => {
            let status = error.status();
            let name = fault::gemini_name(status);
            serde_json::json!({"error": {"code": status.as_u16(), "message": message, "status": name}})
        }
        Dialect::Ollama => ollama::error(&message),
        Dialect::OpenAi | Dialect::Responses => openai::error(label.openai, label.code, &message),
    };
    Bytes::from(value.to_string())
}

/// The last event of a stream that cannot go on. It begins with a line end, so that it is an event of its
/// own even when the stream stopped within a line.
pub(crate) fn error_event(error: &Error, dialect: Dialect) -> Bytes {
    let data = match dialect {
        Dialect::Responses => Bytes::from(responses::error(error.code(), &error.to_string()).to_string()),
        _ => error_body(error, dialect),
    };
    let (before, after) = match dialect {
        Dialect::Ollama => ("\n", "\n"),
        Dialect::Anthropic | Dialect::Responses => ("\n\nevent: error\ndata: ", "\n\n"),
        Dialect::Gemini | Dialect::OpenAi => ("\n\ndata: ", "\n\n"),
    };
    Bytes::from([before.as_bytes(), &data, after.as_bytes()].concat())
}

/// The error in the first events of a stream that begins with one.
pub(crate) fn fault_in(events: &[u8]) -> Fault {
    let mut found = None;
    let mut look = |data: &[u8]| {
        let Ok(mut fields) = Fields::parse(data) else { return };
        let of_response = fields.any_object("response").take("error");
        let error = fields.take("error").or(of_response).map(fault::of_error);
        let is_error = fields.any_text("type").as_deref() == Some("error");
        let error = error.or_else(|| is_error.then(|| fault::of_event(&mut fields)));
        found = found.take().or(error);
    };
    let mut lines = ndjson::NdjsonDecoder::new(events.len());
    let mut each_line = |item: ndjson::Item<'_>| {
        if let ndjson::Item::Line(line) = item {
            look(line.strip_prefix(b"data:").unwrap_or(line));
        }
    };
    lines.push(events, &mut each_line);
    lines.finish(&mut each_line);
    found.unwrap_or_else(Fault::unreadable)
}
