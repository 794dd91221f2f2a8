//! The body of a response on its way to the client.

use std::{
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::{stall_timer::StallTimer, state::InFlight};
use crate::{body::BoxError, observe::ObservedBody, policy};

/// The most bytes that are handed to an HTTP/2 stream at once: its client must take so many in the stall
/// timeout.
const PIECE: usize = 16_384;

/// The body of a response on its way to the client.
pub(super) struct ReplyBody {
    body: ObservedBody,
    /// What is left of a frame that is handed over in pieces.
    rest: Bytes,
    /// Why the content broke off, until what came before is written.
    broken: Option<BoxError>,
    /// That of an HTTP/2 stream.
    timer: Option<Rc<StallTimer>>,
    guard: Option<InFlight>,
}

// === impl ReplyBody ===

impl ReplyBody {
    pub(super) fn new(body: ObservedBody, timer: Option<Rc<StallTimer>>, guard: Option<InFlight>) -> Self {
        Self { body, rest: Bytes::new(), broken: None, timer, guard }
    }

    /// The content. hyper drops what it has not written when a body breaks off, so it is given a turn to
    /// write first, and over HTTP/1.1 the time that its client takes to read.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            if self.timer.is_none() && self.guard.as_ref().is_some_and(InFlight::is_writing) {
                // The connection polls this again when it can write.
                self.broken = Some(error);
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(error)));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            // Nothing more is to be sent, not even the head if it has not left.
            Poll::Ready(Some(Err(error))) if policy::is_closed_by_plugin(error.as_ref()) => {
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    /// The next frame of at most [`PIECE`] bytes.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.rest.is_empty() {
            match self.poll_content(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data.len() > PIECE) => {
                    self.rest = frame.into_data().unwrap_or_default();
                }
                polled => return polled,
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(PIECE));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl http_body::Body for ReplyBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.timer.is_none() {
            return self.poll_content(cx);
        }
        let polled = self.poll_piece(cx);
        if let Some(timer) = &self.timer {
            match &polled {
                Poll::Ready(Some(Ok(_))) => timer.response_waits(),
                _ => timer.response_goes_on(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.broken.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let content = self.body.size_hint();
        let rest = self.rest.len() as u64;
        let mut hint = SizeHint::new();
        if let Some(upper) = content.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint.set_lower(content.lower().saturating_add(rest));
        hint
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            timer.response_goes_on();
        }
    }
}
