//! How a refused stream looks to the client.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};

use crate::error::Failure;

/// Turns a failure into a response.
///
/// Implemented by every `Fn(&Failure) -> Response<Bytes> + Clone`.
pub trait Responder: Clone {
    /// The response to send. What it says should not tell clients about the plugin.
    fn respond(&self, failure: &Failure) -> Response<Bytes>;
}

/// Answers with [`Failure::status`] and, as Envoy does, without a body; only of a body too large to be held it says more.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DefaultResponder;

// === impl DefaultResponder ===

impl Responder for DefaultResponder {
    fn respond(&self, failure: &Failure) -> Response<Bytes> {
        let status = failure.status();
        let text = match status {
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::INTERNAL_SERVER_ERROR => status.canonical_reason(),
            _ => None,
        };
        let text = text.unwrap_or_default();
        let mut response = Response::new(Bytes::from_static(text.as_bytes()));
        if !text.is_empty() {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
        *response.status_mut() = status;
        response
    }
}

impl<F> Responder for F
where
    F: Fn(&Failure) -> Response<Bytes> + Clone,
{
    fn respond(&self, failure: &Failure) -> Response<Bytes> {
        self(failure)
    }
}
