//! The body of a response on its way to the client.

use std::{
    io::IoSlice,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http_body::{Body as _, Frame, SizeHint};

use super::{
    stall_timer::{SMALL_IN_LARGE, StallTimer},
    state::InFlight,
};
use crate::{body::BoxError, observe::ObservedBody, policy};

/// The most bytes that are handed to an HTTP/2 stream at once: its client must take so many in the stall
/// timeout.
const PIECE: usize = 16_384;

/// The most while it has less time than that: of a slow line that many streams share each one has its part.
const SMALL_PIECE: usize = PIECE / SMALL_IN_LARGE as usize;

/// The body of a response on its way to the client.
pub(super) struct ReplyBody {
    body: ObservedBody,
    /// What is left of a frame that is handed over in pieces.
    rest: Bytes,
    /// Why the content broke off, until what came before is written.
    broken: Option<BoxError>,
    /// That of an HTTP/2 stream, which has the guard.
    timer: Option<Rc<StallTimer>>,
    guard: Option<InFlight>,
}

/// Bytes of a response. Over HTTP/2 h2 drops them when they are written, or their stream is reset, which may
/// be long after their body is over.
pub(super) struct Piece {
    bytes: Bytes,
    is_large: bool,
    timer: Option<Rc<StallTimer>>,
}

// === impl ReplyBody ===

impl ReplyBody {
    pub(super) fn new(
        body: ObservedBody,
        timer: Option<Rc<StallTimer>>,
        mut guard: Option<InFlight>,
    ) -> Self {
        if let Some(timer) = &timer {
            timer.response_begins(guard.take());
        }
        Self { body, rest: Bytes::new(), broken: None, timer, guard }
    }

    /// The content. hyper drops what it has not written when a body breaks off, so it is given a turn to
    /// write first, and over HTTP/1.1 the time that its client takes to read.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Some(error) = self.broken.take() {
            if self.guard.as_ref().is_some_and(InFlight::is_writing) {
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

    /// The next frame of no more bytes than are handed over at once.
    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let is_hurried = self.timer.as_ref().is_some_and(|timer| timer.is_hurried());
        let most = if is_hurried { SMALL_PIECE } else { PIECE };
        if self.rest.is_empty() {
            match self.poll_content(cx) {
                Poll::Ready(Some(Ok(frame))) if frame.data_ref().is_some_and(|data| data.len() > most) => {
                    self.rest = frame.into_data().unwrap_or_default();
                }
                polled => return polled,
            }
        }
        let piece = self.rest.split_to(self.rest.len().min(most));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

impl http_body::Body for ReplyBody {
    type Data = Piece;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, BoxError>>> {
        let polled = if self.timer.is_some() { self.poll_piece(cx) } else { self.poll_content(cx) };
        polled.map_ok(|frame| frame.map_data(|bytes| Piece::new(bytes, self.timer.clone())))
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
            timer.response_ends();
        }
    }
}

// === impl Piece ===

impl Piece {
    fn new(bytes: Bytes, timer: Option<Rc<StallTimer>>) -> Self {
        let is_large = bytes.len() > SMALL_PIECE;
        if let Some(timer) = &timer {
            timer.piece_waits(is_large);
        }
        Self { bytes, is_large, timer }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn chunks_vectored<'a>(&'a self, into: &mut [IoSlice<'a>]) -> usize {
        self.bytes.chunks_vectored(into)
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if let Some(timer) = &self.timer {
            // h2 has taken it to its end as it wrote it.
            if self.bytes.is_empty() {
                timer.note_taken();
            }
            timer.piece_goes(self.is_large);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, sync::Arc, task::Waker};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::{
        body::Body,
        listen::{stall_timer::StallTimers, state::State},
    };

    /// The next bytes of a response.
    fn next(reply: &mut ReplyBody) -> Option<Piece> {
        match Pin::new(reply).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn pieces_are_small_while_there_is_little_time_for_each() {
        let timers = StallTimers::new(Arc::default());
        let content = ObservedBody::unobserved(Body::full(vec![b'x'; 2 * PIECE]));
        let mut reply = ReplyBody::new(content, Some(timers.begin()), None);
        let lengths = [false, true, false].map(|is_hurried| {
            timers.hurry(is_hurried);
            next(&mut reply).map(|piece| piece.remaining())
        });
        assert_eq!(lengths, [Some(PIECE), Some(SMALL_PIECE), Some(PIECE - SMALL_PIECE)]);
    }

    #[test]
    fn a_connection_is_busy_until_the_last_piece_of_a_response_is_taken() {
        let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let state = Arc::new(State::new(Arc::default(), &Arc::default(), place));
        let timer = StallTimers::new(Arc::default()).begin();
        let content = ObservedBody::unobserved(Body::full(vec![b'x'; 3 * PIECE]));
        let mut reply = ReplyBody::new(content, Some(timer), Some(InFlight::begin(&state)));
        let pieces: Vec<_> = iter::from_fn(|| next(&mut reply)).collect();
        drop(reply);
        assert_eq!(pieces.len(), 3);
        for piece in pieces {
            assert!(!state.expects_head(), "it is not idle");
            drop(piece);
        }
        assert!(state.expects_head());
    }
}
