//! Bodies that plugins look at as they pass.

mod lengths;
mod relay;
mod watch;

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

pub use self::relay::BodyError;
pub(crate) use self::relay::Relay;
use self::watch::Watch;
use crate::error::BoxError;
use crate::handle::StreamHandle;
use crate::stream::Direction;

pin_project! {
    /// A request's body, as the inner service reads it.
    ///
    /// Frames pass untouched unless a plugin has a callback for them; then the length is unknown until the
    /// end. An error is the client's own, or a [`BodyError`] when a plugin ended the request.
    pub struct RequestBody<B> {
        #[pin]
        inner: Inner<B>,
        watch: Watch,
    }
}

/// A frame that plugins have let pass.
pub(crate) type Passed = Result<Frame<Bytes>, BoxError>;

pin_project! {
    #[project = InnerProjection]
    enum Inner<B> {
        Untouched { #[pin] body: B },
        // Was polled while its headers were held.
        Begun { body: Pin<Box<B>> },
    }
}

pin_project! {
    /// A response's body, as the client reads it: the inner service's, or one that stands in for it.
    ///
    /// Frames pass untouched unless a plugin has a callback for them; then the length is unknown until the
    /// end. The plugins' stream ends with this body, or when it is dropped. The default is an empty body, for
    /// layers that answer by themselves, such as a timeout.
    pub struct ResponseBody<B> {
        #[pin]
        source: Source<B>,
        watch: Watch,
        end: Option<End>,
    }
}

/// The end of a stream, which comes with that of its response.
struct End {
    stream: StreamHandle,
    /// Bytes of a body that plugins are not shown; none where they are.
    unseen: Option<usize>,
}

pin_project! {
    #[project = SourceProjection]
    pub(crate) enum Source<B> {
        Upstream { #[pin] body: B },
        Local { bytes: Bytes },
        // Was polled while its headers were held.
        Begun { source: Pin<Box<Source<B>>> },
    }
}

// === impl End ===

impl End {
    /// Ready when a plugin that is not shown the body ends the stream while nothing comes.
    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<BoxError> {
        if !self.may_break() {
            return Poll::Pending;
        }
        let mut shared = ready!(self.stream.poll_lock(cx));
        ready!(shared.context.poll_response(cx));
        let action = shared.context.on_response_body(&mut Bytes::new(), false);
        if let Some(error) = BodyError::of(&action) {
            return Poll::Ready(error.into());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Waits for nothing any more, since something has come.
    fn stop_waiting(&mut self) {
        if self.may_break() {
            self.stream.stop_waiting();
        }
    }

    fn may_break(&self) -> bool {
        self.unseen.is_some() && self.stream.may_be_interrupted()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.stream.count(Direction::Response, self.unseen.unwrap_or_default());
    }
}

// === impl RequestBody ===

impl<B> RequestBody<B> {
    pub(crate) fn unwatched(body: B) -> Self {
        Self { inner: Inner::Untouched { body }, watch: Watch::default() }
    }

    pub(crate) fn watched(body: B, relay: Relay) -> Self {
        Self { inner: Inner::Untouched { body }, watch: Watch::new(Some(relay), None) }
    }

    /// A body that no plugin looks at, and whose size one may ask for when it is gone.
    pub(crate) fn counted(body: B, stream: StreamHandle) -> Self {
        Self { inner: Inner::Untouched { body }, watch: Watch::counting(stream) }
    }

    /// A body that was begun while its headers were held: `front` is what has come of it.
    pub(crate) fn begun(body: Pin<Box<B>>, relay: Relay, front: Option<Passed>) -> Self {
        Self { inner: Inner::Begun { body }, watch: Watch::new(Some(relay), front) }
    }

    /// The client's own body.
    ///
    /// # Errors
    ///
    /// This body, if a plugin looks at it.
    pub fn into_untouched(self) -> Result<B, Self> {
        match self {
            Self { inner: Inner::Untouched { body }, watch: Watch(None) } => Ok(body),
            watched => Err(watched),
        }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if let Some(front) = this.watch.take_front() {
            return Poll::Ready(Some(front));
        }
        match (this.watch.relay_mut(), this.inner.project()) {
            (Some(relay), InnerProjection::Untouched { body }) => relay.poll_frame(body, cx),
            (Some(relay), InnerProjection::Begun { body }) => relay.poll_frame(body.as_mut(), cx),
            (None, InnerProjection::Untouched { body }) => {
                let frame = ready!(poll_plain(body, cx));
                this.watch.count(frame.as_ref());
                Poll::Ready(frame)
            }
            (None, InnerProjection::Begun { body }) => poll_plain(body.as_mut(), cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_end_stream(|| self.inner.body().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.watch.size_hint(|| self.inner.body().size_hint())
    }
}

impl<B> Inner<B> {
    fn body(&self) -> &B {
        match self {
            Self::Untouched { body } => body,
            Self::Begun { body } => body,
        }
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("watched", &self.watch.relay().is_some()).finish_non_exhaustive()
    }
}

// === impl ResponseBody ===

impl<B> ResponseBody<B> {
    pub(crate) fn unwatched(body: B) -> Self {
        Self { source: Source::Upstream { body }, watch: Watch::default(), end: None }
    }

    /// A body, and the stream that ends with it.
    pub(crate) fn new(source: Source<B>, stream: StreamHandle, relay: Option<Relay>) -> Self {
        let unseen = if relay.is_some() { None } else { Some(0) };
        Self { source, watch: Watch::new(relay, None), end: Some(End { stream, unseen }) }
    }

    /// A body that its plugins have made as a whole.
    pub(crate) fn whole(bytes: Bytes, stream: StreamHandle) -> Self {
        let end = Some(End { stream, unseen: None });
        Self { source: Source::Local { bytes }, watch: Watch::default(), end }
    }

    /// A body that was begun while its headers were held: `front` is what has come of it.
    pub(crate) fn begun(
        source: Pin<Box<Source<B>>>,
        stream: StreamHandle,
        relay: Relay,
        front: Option<Passed>,
    ) -> Self {
        let end = Some(End { stream, unseen: None });
        Self { source: Source::Begun { source }, watch: Watch::new(Some(relay), front), end }
    }

    /// As it is sent: to HEAD without bytes that were made here.
    pub(crate) fn sent(mut self, is_head: bool) -> Self {
        if let (true, Source::Local { bytes }) = (is_head, &mut self.source) {
            bytes.clear();
        }
        self
    }

    /// Breaks the body off before its first byte, and with it the response: not even its headers are to
    /// leave.
    pub(crate) fn broken_by(mut self, error: Option<BoxError>) -> Self {
        if let Some(error) = error {
            self.watch.break_off(error);
        }
        self
    }
}

impl<B> Default for ResponseBody<B> {
    fn default() -> Self {
        Self { source: Source::Local { bytes: Bytes::new() }, watch: Watch::default(), end: None }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = self.project();
        if let Some(error) = this.watch.take_broken() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match (this.watch.take_front(), this.watch.relay_mut()) {
            (Some(front), _) => Poll::Ready(Some(front)),
            (None, Some(relay)) => relay.poll_frame(this.source, cx),
            (None, None) => this.source.poll_frame(cx),
        };
        let (frame, is_deferred) = match (polled, this.end.as_mut()) {
            (Poll::Ready(frame), end) => {
                if let Some(end) = end {
                    end.stop_waiting();
                }
                (frame, this.watch.relay().is_some())
            }
            (Poll::Pending, Some(end)) => (Some(Err(ready!(end.poll_broken(cx)))), true),
            (Poll::Pending, None) => return Poll::Pending,
        };
        if let (Some(End { unseen: Some(unseen), .. }), Some(Ok(frame))) = (this.end.as_mut(), &frame) {
            *unseen = unseen.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        }
        if let (false, Some(End { stream, .. }), Some(Err(_))) = (is_deferred, this.end.as_mut(), &frame) {
            stream.note_broken();
        }
        if !matches!(frame, Some(Ok(_))) {
            this.watch.end();
            *this.end = None;
        }
        match frame {
            // A server sends what it has before it looks again: the client learns the status of what breaks
            // off.
            Some(Err(error)) if is_deferred => {
                this.watch.break_off(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_end_stream(|| self.source.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.watch.size_hint(|| self.source.size_hint())
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("watched", &self.watch.relay().is_some()).finish_non_exhaustive()
    }
}

// === impl Source ===

impl<B> Body for Source<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project() {
            SourceProjection::Upstream { body } => poll_plain(body, cx),
            SourceProjection::Local { bytes } => {
                let bytes = std::mem::take(bytes);
                Poll::Ready(Some(bytes).filter(|bytes| !bytes.is_empty()).map(|bytes| Ok(Frame::data(bytes))))
            }
            SourceProjection::Begun { source } => source.as_mut().poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Upstream { body } => body.is_end_stream(),
            Self::Local { bytes } => bytes.is_empty(),
            Self::Begun { source } => source.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Upstream { body } => body.size_hint(),
            Self::Local { bytes } => SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
            Self::Begun { source } => source.size_hint(),
        }
    }
}

/// A body's next frame as bytes; bytes that are `Bytes` already are not copied.
pub(crate) fn poll_plain<B>(
    body: Pin<&mut B>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    let frame = ready!(body.poll_frame(cx));
    Poll::Ready(frame.map(|frame| match frame {
        Ok(frame) => Ok(frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))),
        Err(error) => Err(error.into()),
    }))
}
