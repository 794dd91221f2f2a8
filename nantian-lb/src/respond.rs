//! Turning a refusal into a response.

use http::{Response, StatusCode};

use crate::error::PickError;

/// Turns a [`PickError`] into the response that the client gets.
///
/// Implemented for closures.
pub trait Responder<B> {
    /// The response to a request for which there is no endpoint.
    fn respond(&self, error: &PickError) -> Response<B>;
}

/// Answers 503 with an empty body: the default value of the body type.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct DefaultResponder;

// === impl DefaultResponder ===

impl<B: Default> Responder<B> for DefaultResponder {
    fn respond(&self, _: &PickError) -> Response<B> {
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response
    }
}

// === impl Responder ===

impl<B, F> Responder<B> for F
where
    F: Fn(&PickError) -> Response<B>,
{
    fn respond(&self, error: &PickError) -> Response<B> {
        self(error)
    }
}
