//! How a refused stream looks to the client.

use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_TYPE, HeaderValue};

use crate::error::Failure;

/// Turns a failure into a response.
///
/// Implemented by every `Fn(&Failure) -> Response<Bytes> + Clone`.
pub trait Responder: Clone {
    /// The response to send. What it says should not tell clients about the plugin.
    fn respond(&self, failure: &Failure) -> Response<Bytes>;
}

/// Answers with [`Failure::status`] and the status in words.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DefaultResponder;

// === impl DefaultResponder ===

impl Responder for DefaultResponder {
    fn respond(&self, failure: &Failure) -> Response<Bytes> {
        let status = failure.status();
        let reason = status.canonical_reason().unwrap_or("plugin failure");
        let mut response = Response::new(Bytes::from(format!("{reason}\n")));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
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
