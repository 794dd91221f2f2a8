//! The body of a response of a route.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pin_project! {
    /// The body of a model's response, or that of the route's own. The default is an empty body, for layers
    /// that answer by themselves, such as a timeout.
    ///
    /// # Cancellation
    /// Dropping it drops the model's body.
    #[derive(Debug)]
    pub struct RouteBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B> {
        Model { #[pin] body: B },
        Own { bytes: Option<Bytes> },
    }
}

// === impl RouteBody ===

impl<B> RouteBody<B> {
    pub(super) fn of_model(body: B) -> Self {
        Self { kind: Kind::Model { body } }
    }

    /// The body of the model's response, or the bytes of the route's own.
    ///
    /// # Errors
    /// The bytes, as far as they have not been read.
    pub fn into_inner(self) -> Result<B, Bytes> {
        match self.kind {
            Kind::Model { body } => Ok(body),
            Kind::Own { bytes } => Err(bytes.unwrap_or_default()),
        }
    }

    pub(super) fn own(bytes: Bytes) -> Self {
        Self { kind: Kind::Own { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) } }
    }
}

impl<B> Default for RouteBody<B> {
    fn default() -> Self {
        Self::own(Bytes::new())
    }
}

impl<B: Body<Data = Bytes>> Body for RouteBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Model { body } => body.poll_frame(cx),
            KindProj::Own { bytes } => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Model { body } => body.is_end_stream(),
            Kind::Own { bytes } => bytes.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Model { body } => body.size_hint(),
            Kind::Own { bytes } => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
        }
    }
}
