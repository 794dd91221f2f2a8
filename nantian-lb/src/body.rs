//! The body of a balanced response.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::in_flight::InFlight;

pin_project! {
    /// A response body that ends the count of its request when it ends, fails or is dropped; or that of a
    /// refusal.
    ///
    /// Frames, trailers and size are those of the inner body. The default is an empty body, for layers that
    /// answer by themselves, such as a timeout.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: Inner<B>,
        in_flight: Option<InFlight>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = InnerProj]
    enum Inner<B> {
        Balanced {
            #[pin]
            body: B,
        },
        Refused {
            body: Option<Bytes>,
        },
    }
}

// === impl ResponseBody ===

impl<B: Body> ResponseBody<B> {
    /// A body that has ended already gives its guard back at once.
    pub(crate) fn new(body: B, in_flight: Option<InFlight>) -> Self {
        let in_flight = in_flight.filter(|_| !body.is_end_stream());
        Self { inner: Inner::Balanced { body }, in_flight }
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn refused(body: Bytes) -> Self {
        let body = Some(body).filter(|body| !body.is_empty());
        Self { inner: Inner::Refused { body }, in_flight: None }
    }
}

impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self::refused(Bytes::new())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Data: From<Bytes>,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        match this.inner.project() {
            InnerProj::Balanced { mut body } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
                    *this.in_flight = None;
                }
                Poll::Ready(frame)
            }
            InnerProj::Refused { body } => Poll::Ready(body.take().map(|body| Ok(Frame::data(body.into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Balanced { body } => body.is_end_stream(),
            Inner::Refused { body } => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Balanced { body } => body.size_hint(),
            Inner::Refused { body } => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
        }
    }
}
