//! The body of a request over HTTP/2.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BoxError};

/// What went wrong with the body of a request, if anything did: hyper only resets the stream.
///
/// It stays with the request, as one of its extensions.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<BoxError>>>);

/// A body whose failure is kept.
struct UploadBody {
    body: Body,
    failure: Failure,
}

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
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::boxed(UploadBody { body, failure: failure.clone() });
        Some(failure)
    }

    pub(super) fn take(&self) -> Option<BoxError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, error: BoxError) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

// === impl UploadBody ===

impl http_body::Body for UploadBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_err(|error| {
            self.failure.keep(error);
            "the body of the request broke off".into()
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
