//! The response body.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::handle::SettleGuard;
use crate::usage_meter::ResponseEnd;

pin_project! {
    /// The inner service's body, or that of a refusal.
    ///
    /// An admitted request's reservation is settled when the body ends or is dropped, unless it was settled
    /// before. The inner body is dropped first, so that a meter in it may settle. The default is an empty
    /// body, for layers that answer by themselves, such as a timeout.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        // Before the guard, so that a usage observer inside may settle when both are dropped.
        #[pin]
        inner: Inner<B>,
        guard: Option<SettleGuard>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = InnerProj]
    enum Inner<B> {
        Passed {
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
    pub(crate) fn passed(body: B, mut guard: Option<SettleGuard>) -> Self {
        // Nobody asks for the end of a body that has none to come.
        if let Some(guard) = &mut guard
            && body.is_end_stream()
        {
            guard.mark_end(ResponseEnd::Complete);
        }
        Self { inner: Inner::Passed { body }, guard }
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn refused(body: Bytes) -> Self {
        let body = Some(body).filter(|body| !body.is_empty());
        Self { inner: Inner::Refused { body }, guard: None }
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
        let mut this = self.project();
        match this.inner.as_mut().project() {
            InnerProj::Passed { mut body } => {
                let frame = ready!(body.as_mut().poll_frame(cx));
                let Some(guard) = this.guard else { return Poll::Ready(frame) };
                match frame {
                    Some(Ok(frame)) => {
                        let frame = frame.map_data(|data| guard.meter_data(data));
                        if body.is_end_stream() {
                            guard.mark_end(ResponseEnd::Complete);
                        }
                        Poll::Ready(Some(Ok(frame)))
                    }
                    end => {
                        let how = if end.is_some() { ResponseEnd::Failed } else { ResponseEnd::Complete };
                        guard.mark_end(how);
                        // Who breaks it off between here and a meter further in has not told that one.
                        this.inner.set(Inner::Refused { body: None });
                        drop(this.guard.take());
                        Poll::Ready(end)
                    }
                }
            }
            InnerProj::Refused { body } => {
                let frame = body.take().map(|body| Ok(Frame::data(body.into())));
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Passed { body } => body.is_end_stream(),
            Inner::Refused { body } => body.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Passed { body } => body.size_hint(),
            Inner::Refused { body } => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
        }
    }
}
