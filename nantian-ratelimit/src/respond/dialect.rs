//! Refusals in the words of the API that a client speaks.

use std::fmt::Write;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use super::{ProblemJson, Refusal, Responder, response};
use crate::error::{Denied, whole_millis};
use crate::headers::is_of_anthropic;
use crate::limit::Unit;

/// The refusal in the form that the client's library understands. The default.
///
/// | client | told by | body of a denial |
/// |---|---|---|
/// | gRPC | `Content-Type: application/grpc…` | none: status 200 with `grpc-status: 8` (RESOURCE_EXHAUSTED), as gRPC demands |
/// | Anthropic | the header `anthropic-version`, or a path that ends in `/messages` or `/messages/count_tokens`, or has `/v1/messages/`; not the messages of OpenAI's `threads` and `completions` | `rate_limit_error` |
/// | Ollama | a path that ends in `/api/chat`, `/api/generate`, `/api/embed` or `/api/embeddings` | `error` |
/// | OpenAI | a path with a segment `v1` | `rate_limit_exceeded` |
/// | others | | a problem document, as [`ProblemJson`] writes it |
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct DialectResponder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Grpc,
    Anthropic,
    Ollama,
    OpenAi,
}

/// What went wrong, in the terms of each dialect.
struct ErrorText<'a> {
    status: StatusCode,
    grpc: u16,
    anthropic: &'a str,
    openai: &'a str,
    /// The code of OpenAI's errors, in quotes, or `null`.
    code: &'a str,
    message: &'a str,
}

const JSON: &str = "application/json";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

// === impl DialectResponder ===

impl Responder for DialectResponder {
    fn respond(&self, refusal: Refusal<'_>, request: &Parts) -> Response<Bytes> {
        let Some(dialect) = Dialect::of(request) else { return ProblemJson.respond(refusal, request) };
        let (status, message) = (refusal.status(), refusal.to_string());
        match refusal {
            Refusal::Denied(denied) => dialect.tell_denial(status, denied),
            Refusal::Missing(_) => {
                let is_credential = status == StatusCode::UNAUTHORIZED;
                let (grpc, anthropic) =
                    if is_credential { (16, "authentication_error") } else { (3, "invalid_request_error") };
                let openai = "invalid_request_error";
                dialect.tell(&ErrorText { status, grpc, anthropic, openai, code: "null", message: &message })
            }
            Refusal::Unavailable(_) => {
                let (anthropic, openai) = ("api_error", "server_error");
                let code = "null";
                dialect.tell(&ErrorText { status, grpc: 14, anthropic, openai, code, message: &message })
            }
        }
    }
}

// === impl Dialect ===

impl Dialect {
    fn of(request: &Parts) -> Option<Self> {
        let content_type = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
        if let Some(rest) = content_type.strip_prefix(b"application/grpc")
            && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
        {
            return Some(Self::Grpc);
        }
        let path = request.uri.path().trim_end_matches('/');
        let mut segments = path.split('/').skip(1);
        let ends_in = |wanted: &[&str]| wanted.iter().any(|end| path.ends_with(end));
        let has_messages =
            ends_in(&["/messages", "/messages/count_tokens"]) || path.contains("/v1/messages/");
        // Those of OpenAI's threads and stored completions are a part of these.
        let is_part = segments.clone().any(|segment| matches!(segment, "threads" | "completions"));
        if is_of_anthropic(&request.headers) || (has_messages && !is_part) {
            Some(Self::Anthropic)
        } else if ends_in(&["/api/chat", "/api/generate", "/api/embed", "/api/embeddings"]) {
            Some(Self::Ollama)
        } else if ends_in(&["/chat/completions", "/completions", "/responses", "/embeddings"])
            || segments.any(|segment| segment == "v1")
        {
            Some(Self::OpenAi)
        } else {
            None
        }
    }

    fn tell_denial(self, status: StatusCode, denied: &Denied) -> Response<Bytes> {
        let message = format!("rate limit reached: {denied}");
        let openai = match denied.limit().unit() {
            Unit::Tokens => "tokens",
            Unit::Requests => "requests",
        };
        let (anthropic, code) = ("rate_limit_error", r#""rate_limit_exceeded""#);
        let mut response =
            self.tell(&ErrorText { status, grpc: 8, anthropic, openai, code, message: &message });
        if self == Self::Grpc {
            // A negative pushback says that trying again is of no use.
            let pushback = denied
                .retry_after()
                .map_or_else(|| "-1".to_owned(), |wait| whole_millis(wait).as_millis().max(1).to_string());
            response
                .headers_mut()
                .extend(HeaderValue::try_from(pushback).ok().map(|value| (GRPC_PUSHBACK, value)));
        }
        response
    }

    /// Nothing in a message needs escaping: names of limits and headers, and numbers.
    fn tell(self, text: &ErrorText<'_>) -> Response<Bytes> {
        let ErrorText { status, message, .. } = *text;
        match self {
            Self::Grpc => grpc(text),
            Self::Anthropic => {
                let kind = text.anthropic;
                let body = format!(r#"{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}"#);
                response(status, JSON, body)
            }
            Self::Ollama => response(status, JSON, format!(r#"{{"error":"{message}"}}"#)),
            Self::OpenAi => {
                let (kind, code) = (text.openai, text.code);
                let body = format!(
                    r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":{code}}}}}"#
                );
                response(status, JSON, body)
            }
        }
    }
}

/// A response of trailers only: its fields are the head's.
fn grpc(text: &ErrorText<'_>) -> Response<Bytes> {
    let mut response = response(StatusCode::OK, "application/grpc", String::new());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from(text.grpc));
    headers
        .extend(HeaderValue::try_from(percent_encoded(text.message)).ok().map(|value| (GRPC_MESSAGE, value)));
    response
}

/// As gRPC's `grpc-message` wants it: printable ASCII as it is, except for `%`.
fn percent_encoded(message: &str) -> String {
    let mut encoded = String::with_capacity(message.len());
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            _ => {
                // Writing to a string does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn what_a_field_cannot_carry_is_percent_encoded() {
        assert_eq!(percent_encoded("retry after 1.5s"), "retry after 1.5s");
        assert_eq!(percent_encoded("100% of 5µs\n"), "100%25 of 5%C2%B5s%0A");
    }
}
