//! Turning a refusal into a response.

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::error::PickError;

/// Turns a [`PickError`] into the response that the client gets.
///
/// Implemented for closures.
pub trait Responder {
    /// The response to a request for which there is no endpoint.
    fn respond(&self, error: &PickError) -> Response<Bytes>;
}

/// Answers 503 with an empty body.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DefaultResponder;

// === impl DefaultResponder ===

impl Responder for DefaultResponder {
    fn respond(&self, _: &PickError) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

// === impl Responder ===

impl<F> Responder for F
where
    F: Fn(&PickError) -> Response<Bytes>,
{
    fn respond(&self, error: &PickError) -> Response<Bytes> {
        self(error)
    }
}
