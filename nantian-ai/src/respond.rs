//! Errors as responses in the client's dialect.

use std::collections::VecDeque;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::codec::{StreamDecoder, fault, object};
use crate::dialect::{ClientDialect, Dialect, anthropic, ollama, openai, responses};
use crate::error::Error;
use crate::ir::{Event, Fault};
use crate::usage::Meter;

/// Turns an error into the response that the client gets.
///
/// A proxy that answers all refusals from one table implements this; [`DialectResponder`] is what it
/// replaces. Implemented for closures.
pub trait Responder: Send + Sync {
    /// The response to `error` for a client of `dialect`.
    fn respond(&self, error: &Error, dialect: ClientDialect) -> Response<Bytes>;
}

/// Answers with the status of the error and the JSON that clients of the dialect expect.
///
/// ```
/// use nantian_ai::{ClientDialect, Error};
/// use nantian_ai::respond::{DialectResponder, Responder};
///
/// let response = DialectResponder.respond(&Error::BodyTooLarge { limit: 1024 }, ClientDialect::Ollama);
/// assert_eq!(response.status(), 413);
/// assert_eq!(response.body(), r#"{"error":"the request body is larger than 1024 bytes"}"#);
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct DialectResponder;

// === impl DialectResponder ===

impl Responder for DialectResponder {
    fn respond(&self, error: &Error, dialect: ClientDialect) -> Response<Bytes> {
        let mut response = Response::new(error_body(error, dialect));
        *response.status_mut() = match error {
            Error::Provider { fault, .. } => fault::status(fault.kind, dialect),
            _ => error.status(),
        };
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Error::MethodNotAllowed { allowed, .. } | Error::NoWebSocket { allowed } = error {
            let names: Vec<_> = allowed.iter().map(|method| method.as_str()).collect();
            headers.extend(HeaderValue::from_str(&names.join(", ")).ok().map(|names| (ALLOW, names)));
        }
        if let Error::TooManyBodies = error {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

// === impl Responder ===

impl<F> Responder for F
where
    F: Fn(&Error, ClientDialect) -> Response<Bytes> + Send + Sync,
{
    fn respond(&self, error: &Error, dialect: ClientDialect) -> Response<Bytes> {
        self(error, dialect)
    }
}

/// A refusal of the proxy's own, which has no [`Error`]: its status, and a message in the JSON that clients
/// of the dialect expect.
pub fn refusal(status: StatusCode, message: &str, dialect: ClientDialect) -> Response<Bytes> {
    let (openai, code, anthropic) = match status.as_u16() {
        408 | 504 => ("timeout", "timeout", "timeout_error"),
        413 => ("invalid_request_error", "request_too_large", "request_too_large"),
        400..500 => ("invalid_request_error", "invalid_request", "invalid_request_error"),
        503 => ("server_error", "unavailable", "api_error"),
        _ => ("server_error", "server_error", "api_error"),
    };
    let mut response = Response::new(worded(dialect, (openai, code), anthropic, message));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The JSON of an error in a dialect, for responders that only add to it.
pub fn error_body(error: &Error, dialect: ClientDialect) -> Bytes {
    if let Error::Provider { fault, .. } = error {
        return Bytes::from(object(|body| fault::write(body, fault, dialect)));
    }
    let label = error.label();
    if dialect == ClientDialect::Anthropic
        && let Error::Untranslatable(invalid) = error
        && invalid.field == anthropic::THREAD
    {
        return Bytes::from(anthropic::error_of_thread(label.anthropic, &error.to_string()).to_string());
    }
    worded(dialect, (label.openai, label.code), label.anthropic, &error.to_string())
}

fn worded(dialect: ClientDialect, (openai, code): (&str, &str), anthropic: &str, message: &str) -> Bytes {
    let value = match dialect {
        ClientDialect::Anthropic => anthropic::error(anthropic, message),
        ClientDialect::Ollama => ollama::error(message),
        ClientDialect::OpenAi | ClientDialect::Responses => openai::error(openai, code, message),
    };
    Bytes::from(value.to_string())
}

/// The last event of a stream that cannot go on. It begins with an end of the event before it, which may have
/// stopped anywhere; of a line only where the stream has stopped within one, for clients of Ollama read each
/// line, an empty one as well.
pub(crate) fn error_event(error: &Error, dialect: ClientDialect, meter: &Meter) -> Bytes {
    let (before, data, after) = match dialect {
        ClientDialect::Responses => {
            let label = error.label();
            let events = responses::failed((label.openai, label.code), &error.fault(), meter);
            ("\n\n", events.into(), "")
        }
        ClientDialect::Ollama => {
            (if meter.is_within_line() { "\n" } else { "" }, error_body(error, dialect), "\n")
        }
        ClientDialect::Anthropic => ("\n\nevent: error\ndata: ", error_body(error, dialect), "\n\n"),
        ClientDialect::OpenAi => ("\n\ndata: ", error_body(error, dialect), "\n\n"),
    };
    Bytes::from([before.as_bytes(), &data, after.as_bytes()].concat())
}

/// The error in the first events of a stream that begins with one.
pub(crate) fn fault_in(events: &[u8], dialect: Dialect) -> Fault {
    let mut decoder = StreamDecoder::new(dialect, 0);
    let mut read = VecDeque::new();
    decoder.push(events, &mut read);
    decoder.finish(&mut read);
    let fault = read.into_iter().find_map(|event| match event {
        Event::Failed(fault) => Some(fault),
        _ => None,
    });
    fault.unwrap_or_else(Fault::unreadable)
}
