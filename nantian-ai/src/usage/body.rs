//! A reply body that is metered while it passes.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{End, Meter, UsageSink};

pin_project! {
    /// Passes a body on untouched and tells a [`UsageSink`] at its end.
    ///
    /// # Cancellation
    /// Dropped before its end, it tells the sink what was used until then.
    #[derive(Debug)]
    pub struct MeteredBody<B, K>
    where
        K: UsageSink,
    {
        #[pin]
        body: B,
        metering: Option<Metering<K>>,
    }
}

/// A meter that tells its sink exactly once, at the latest when it is dropped.
#[derive(Debug)]
pub(crate) struct Metering<K: UsageSink> {
    meter: Meter,
    sink: Option<K>,
}

// === impl MeteredBody ===

impl<B, K> MeteredBody<B, K>
where
    B: Body,
    K: UsageSink,
{
    /// Without metering the body only passes.
    pub(crate) fn new(body: B, mut metering: Option<Metering<K>>) -> Self {
        if let Some(metering) = metering.as_mut()
            && body.is_end_stream()
        {
            metering.end(End::Finished);
        }
        Self { body, metering }
    }

    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.metering.as_ref().map(|metering| &metering.meter)
    }

    /// Ends the metering of a body that will not be read on.
    pub(crate) fn fail(self: Pin<&mut Self>) {
        if let Some(metering) = self.project().metering {
            metering.end(End::Failed);
        }
    }
}

impl<B, K> Body for MeteredBody<B, K>
where
    B: Body<Data = Bytes>,
    K: UsageSink,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        if let Some(metering) = this.metering {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        metering.meter.push(data);
                    }
                    if this.body.is_end_stream() {
                        metering.end(End::Finished);
                    }
                }
                Some(Err(_)) => metering.end(End::Failed),
                None => metering.end(End::Finished),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

// === impl Metering ===

impl<K: UsageSink> Metering<K> {
    pub(crate) fn new(meter: Meter, sink: K) -> Self {
        Self { meter, sink: Some(sink) }
    }

    /// Takes the head of the reply.
    pub(crate) fn begin(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.meter.begin(status, headers);
    }

    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    pub(crate) fn meter_mut(&mut self) -> &mut Meter {
        &mut self.meter
    }

    /// Notes that an upstream may have worked on the prompt.
    pub(super) fn mark_sent(&mut self) {
        self.meter.mark_sent();
    }

    /// Tells nobody: another attempt elsewhere will be told of.
    pub(crate) fn forget(&mut self) {
        self.sink = None;
    }

    pub(crate) fn end(&mut self, end: End) {
        if let Some(sink) = self.sink.take() {
            sink.finish(self.meter.report(end));
        }
    }
}

impl<K: UsageSink> Drop for Metering<K> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
