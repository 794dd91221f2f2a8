//! Turning a refusal into a response.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::error::PickError;

/// Turns a [`PickError`] into the response that the client gets.
///
/// Implemented for closures.
pub trait Responder: Send + Sync {
    /// The response to `request`, for which there is no endpoint.
    fn respond(&self, error: &PickError, request: &Parts) -> Response<Bytes>;
}

/// Answers 503 with an empty body, and gRPC clients as they demand: 200 with `grpc-status: 14` (UNAVAILABLE).
/// The default.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to say about it")]
pub struct DefaultResponder;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

// === impl DefaultResponder ===

impl Responder for DefaultResponder {
    fn respond(&self, _: &PickError, request: &Parts) -> Response<Bytes> {
        let mut response = Response::new(Bytes::new());
        if is_grpc(request) {
            // A response of trailers only: its fields are the head's.
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, UNAVAILABLE);
        } else {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        }
        response
    }
}

/// Whether the client speaks gRPC; gRPC-Web is another protocol.
fn is_grpc(request: &Parts) -> bool {
    let content_type = request.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let rest = content_type.strip_prefix(b"application/grpc");
    rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
}

// === impl Responder ===

impl<F> Responder for F
where
    F: Fn(&PickError, &Parts) -> Response<Bytes> + Send + Sync,
{
    fn respond(&self, error: &PickError, request: &Parts) -> Response<Bytes> {
        self(error, request)
    }
}
