//! Takes a body's frames past the plugins.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http_body::{Body, Frame, SizeHint};

use super::lengths::{Lengths, length};
use super::{Passed, poll_plain};
use crate::error::{BoxError, Failure};
use crate::handle::{StreamHandle, StreamState};
use crate::held_bodies::HeldBodies;
use crate::pending_message::{Ending, Gathered};
use crate::stream::{Action, BodyBytes, Direction};

/// A plugin ended a body before its time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BodyError {
    /// The plugin answered the request without waiting for the rest of its body.
    #[error("a plugin answered before the request's body ended")]
    Answered,
    /// The plugin failed the stream.
    #[error(transparent)]
    Failed(Failure),
    /// The plugins made the body longer or shorter than the content-length that had left before it.
    #[error("plugins made {sent} bytes of a body whose content-length is {declared}")]
    Length {
        /// The content-length.
        declared: u64,
        /// Bytes that the plugins passed on.
        sent: u64,
    },
}

/// One body's way past the plugins.
pub(crate) struct Relay {
    stream: Option<StreamHandle>,
    direction: Direction,
    stage: Stage,
    chunk: Bytes,
    /// What the plugins have let pass and nobody has been given yet.
    passed: Bytes,
    /// The memory of what waits to be shown, or passed and waits to be taken.
    held: Option<HeldBodies>,
    trailers: HeaderMap,
    /// Why the body breaks off behind what was read of it before.
    broken: Option<BoxError>,
    lengths: Lengths,
    /// The last bytes are shown together with the end, as for bodies that are made whole and those of HTTP/2,
    /// whose last frame says that it is; others end in a call of their own, as in Envoy.
    folds_end: bool,
}

/// What is to be done next.
enum Stage {
    Read,
    /// `is_last` when the body has said that nothing follows these bytes.
    ShowBytes {
        end: bool,
        is_last: bool,
    },
    ShowTrailers,
    SendTrailers,
    Done,
}

// === impl BodyError ===

impl BodyError {
    /// How an action ends the message that it was the answer to.
    pub(crate) fn of(action: &Action) -> Option<Self> {
        match action {
            Action::Continue | Action::Hold | Action::Pending => None,
            Action::Respond(_) => Some(Self::Answered),
            Action::Fail(failure) => Some(Self::Failed(failure.clone())),
            Action::BreakOff(end) => Some(end.clone()),
        }
    }
}

// === impl Relay ===

impl Relay {
    /// The way of a body; `folds_end` for one whose last frame ends it.
    pub(crate) fn new(stream: &mut StreamHandle, direction: Direction, folds_end: bool) -> Self {
        Self {
            stream: Some(stream.share(direction)),
            direction,
            stage: Stage::Read,
            chunk: Bytes::new(),
            passed: Bytes::new(),
            held: None,
            trailers: HeaderMap::new(),
            broken: None,
            lengths: Lengths::default(),
            folds_end,
        }
    }

    /// With what was read of the body before.
    pub(crate) fn having(mut self, gathered: Gathered) -> Self {
        self.chunk = gathered.bytes.into_bytes();
        self.held = gathered.held;
        self.lengths.received = length(&self.chunk);
        let has_bytes = !self.chunk.is_empty();
        self.stage = match gathered.ending {
            Some(Ending::Whole) => Stage::ShowBytes { end: true, is_last: true },
            Some(Ending::Trailers(trailers)) => {
                self.trailers = trailers;
                Stage::ShowTrailers
            }
            ending => {
                self.broken = match ending {
                    Some(Ending::Broken(error)) => Some(error),
                    _ => None,
                };
                if has_bytes { Stage::ShowBytes { end: false, is_last: false } } else { Stage::Read }
            }
        };
        self
    }

    /// Bytes that have passed the plugins.
    pub(crate) fn sent(&self) -> u64 {
        self.lengths.sent
    }

    /// Whether as many bytes have passed as have come.
    pub(crate) fn keeps_length(&self) -> bool {
        self.lengths.sent == self.lengths.received
    }

    /// Holds the body to the length its headers promise.
    pub(crate) fn declare(mut self, headers: &HeaderMap) -> Self {
        let declared = headers.get(CONTENT_LENGTH).map(HeaderValue::to_str);
        self.lengths.declared = declared.and_then(|text| text.ok()?.parse().ok());
        self
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self.stage, Stage::Done) && self.passed.is_empty()
    }

    /// Lets go of the stream.
    pub(crate) fn end(&mut self) {
        (self.stream, self.stage, self.passed) = (None, Stage::Done, Bytes::new());
    }

    /// What is to come, with what has come and was not given yet in front of it.
    pub(crate) fn size_hint_behind(&self, front: Option<&Passed>) -> SizeHint {
        let front = match front {
            None => Some(0),
            Some(Ok(frame)) => frame.data_ref().map(length),
            Some(Err(_)) => None,
        };
        front.filter(|_| self.is_done()).map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next frame, for who takes it at once.
    pub(crate) fn poll_frame<B>(
        &mut self,
        body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let frame = ready!(self.poll_front(body, cx));
        self.front_taken();
        Poll::Ready(frame)
    }

    /// The frame that was polled as the front is taken: its memory is given back.
    pub(crate) fn front_taken(&mut self) {
        self.held = None;
    }

    /// The next frame, which waits for its headers to leave.
    pub(crate) fn poll_front<B>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        let mut has_asked = false;
        loop {
            match self.stage {
                Stage::Read => {
                    if let Some(error) = self.broken.take() {
                        return Poll::Ready(self.break_off(error));
                    }
                    let Poll::Ready(frame) = poll_plain(body.as_mut(), cx) else {
                        ready!(self.poll_released(cx));
                        // What lets go again and again lets the thread do something else in between.
                        if std::mem::replace(&mut has_asked, true) {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        self.stage = Stage::ShowBytes { end: false, is_last: false };
                        continue;
                    };
                    if let Some(passed) = self.take_in(frame, body.is_end_stream()) {
                        return Poll::Ready(Some(passed));
                    }
                }
                Stage::ShowBytes { .. } | Stage::ShowTrailers => {
                    let shown = self.poll_show(cx);
                    if shown.is_pending() && !self.passed.is_empty() {
                        return self.give();
                    }
                    if let Err(error) = ready!(shown) {
                        (self.stage, self.broken, self.stream) = (Stage::Read, Some(error.into()), None);
                        // As in Envoy, a client gets what has passed; a backend must not take it for a whole.
                        if self.direction == Direction::Response && !self.passed.is_empty() {
                            return self.give();
                        }
                        self.passed = Bytes::new();
                        continue;
                    }
                    let passed = BodyBytes::Frame(std::mem::take(&mut self.passed));
                    self.passed = passed.followed_by(std::mem::take(&mut self.chunk)).into_bytes();
                    // Whoever reads so many bytes as were announced does not ask for the end.
                    let is_end_next = matches!(self.stage, Stage::ShowBytes { .. });
                    if !is_end_next && !self.passed.is_empty() {
                        return self.give();
                    }
                }
                Stage::SendTrailers => {
                    self.stage = Stage::Done;
                    return Poll::Ready(Some(Ok(Frame::trailers(std::mem::take(&mut self.trailers)))));
                }
                Stage::Done => return Poll::Ready(None),
            }
        }
    }

    /// Gives what has passed on.
    fn give(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.passed)))))
    }

    /// Decides what becomes of a frame; what no plugin has a callback for comes back.
    fn take_in(
        &mut self,
        frame: Option<Result<Frame<Bytes>, BoxError>>,
        was_last: bool,
    ) -> Option<Result<Frame<Bytes>, BoxError>> {
        let frame = match frame {
            None => {
                self.stage = Stage::ShowBytes { end: true, is_last: true };
                return None;
            }
            Some(Err(error)) => return self.break_off(error),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                self.lengths.received = self.lengths.received.saturating_add(length(&data));
                self.chunk = data;
                self.stage = Stage::ShowBytes { end: self.folds_end && was_last, is_last: was_last };
                None
            }
            Err(frame) => match frame.into_trailers() {
                Ok(trailers) => {
                    self.trailers = trailers;
                    self.stage = Stage::ShowTrailers;
                    None
                }
                Err(other) => Some(Ok(other)),
            },
        }
    }

    /// The body has broken off on its way here.
    fn break_off(&mut self, error: BoxError) -> Option<Result<Frame<Bytes>, BoxError>> {
        self.stage = Stage::Done;
        if let Some(stream) = &mut self.stream {
            stream.stop_waiting();
            if self.direction == Direction::Response {
                stream.note_broken();
            }
        }
        Some(Err(error))
    }

    /// Ready when a plugin lets go what it holds while nothing comes.
    fn poll_released(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(stream) = self.stream.as_mut() else { return Poll::Pending };
        let mut shared = ready!(stream.poll_lock(cx));
        shared.context.poll_step(self.direction, cx)
    }

    /// Shows the plugins what was read, and moves on to what follows.
    fn poll_show(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        let Some(stream) = self.stream.as_mut() else {
            self.stage = Stage::Done;
            return Poll::Ready(Ok(()));
        };
        let mut shared = ready!(stream.poll_lock(cx));
        if let Some(held) = self.held.take_if(|_| self.passed.is_empty()) {
            self.held = shared.context.go_on_holding(held);
        }
        let (action, next) = loop {
            let context = &mut shared.context;
            let (end, trailers, next) = match self.stage {
                Stage::ShowTrailers => (false, Some(&mut self.trailers), Stage::SendTrailers),
                Stage::ShowBytes { end: true, .. } => (true, None, Stage::Done),
                Stage::ShowBytes { is_last: true, .. } => {
                    (false, None, Stage::ShowBytes { end: true, is_last: true })
                }
                _ => (false, None, Stage::Read),
            };
            let action = context.on_body(self.direction, &mut self.chunk, end, trailers);
            if !matches!(action, Action::Pending) {
                if let (Some(trailers), Action::Continue) = (context.take_trailers(self.direction), &action) {
                    self.trailers = trailers;
                    break (action, Stage::SendTrailers);
                }
                break (action, next);
            }
            ready!(shared.context.poll_wait(self.direction, cx));
        };
        // What the plugins have kept of it counts as theirs.
        let passes = !self.chunk.is_empty() || !self.passed.is_empty();
        self.held = shared.context.take_passing().or_else(|| self.held.take().filter(|_| passes));
        let ended = settle(action, &mut shared);
        let ends = matches!(next, Stage::Done | Stage::SendTrailers);
        self.stage = next;
        drop(shared);
        if ends {
            // Nothing more is shown: a body that is kept after its end does not keep the stream.
            self.stream = None;
        }
        Poll::Ready(ended.and_then(|()| self.lengths.pass(&self.chunk, ends)))
    }
}

/// What an action means for a body.
fn settle(action: Action, shared: &mut StreamState) -> Result<(), BodyError> {
    let Some(error) = BodyError::of(&action) else { return Ok(()) };
    // Whoever waits for headers sends this instead; once a response's have left, nobody does.
    if !matches!(action, Action::BreakOff(_)) {
        shared.refusal = Some(Box::new(action));
    }
    Err(error)
}
