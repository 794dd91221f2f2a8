//! The body of a request over HTTP/2.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Request;
use http_body::{Body as _, Frame, SizeHint};

use crate::body::{Body, BoxError};

/// What went wrong with the body of a request, if anything did: hyper only resets the stream.
#[derive(Debug, Clone)]
pub(super) struct Failure(Rc<RefCell<Option<BoxError>>>);

/// A body whose failure is kept.
struct Upload {
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
        let failure = Self(Rc::default());
        let body = std::mem::take(request.body_mut());
        *request.body_mut() = Body::boxed(Upload { body, failure: failure.clone() });
        Some(failure)
    }

    pub(super) fn take(&self) -> Option<BoxError> {
        self.0.borrow_mut().take()
    }
}

// === impl Upload ===

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        polled.map_err(|error| {
            *self.failure.0.borrow_mut() = Some(error);
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
