//! The body of a request over HTTP/2.

use std::sync::{Arc, Mutex};

use http::Request;
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::{
    body::{Body, BoxError},
    sync::lock,
};

/// What went wrong with the body of a request, if anything did: hyper only resets the stream.
///
/// It stays with the request, as one of its extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<BoxError>>>);

// === impl Failure ===

impl Failure {
    /// Keeps what goes wrong with the body of `request`; there is nothing to keep if it has none.
    pub(super) fn of(request: &mut Request<Body>) -> Option<Self> {
        if request.body().is_end_stream() {
            return None;
        }
        if let Some(failure) = request.extensions().get::<Self>() {
            return Some(failure.clone());
        }
        let failure = Self::default();
        request.extensions_mut().insert(failure.clone());
        let (body, kept) = (std::mem::take(request.body_mut()), failure.clone());
        *request.body_mut() = Body::boxed(body.map_err(move |error| {
            kept.keep(error);
            "the body of the request broke off"
        }));
        Some(failure)
    }

    pub(super) fn take(&self) -> Option<BoxError> {
        lock(&self.0).take()
    }

    fn keep(&self, error: BoxError) {
        *lock(&self.0) = Some(error);
    }
}
