//! A message whose headers wait for a plugin, and what comes of its body meanwhile.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, request, response};
use http_body::{Body, Frame};

use crate::body::{Relay, RequestBody, ResponseBody, Source, poll_plain};
use crate::error::BoxError;
use crate::handle::StreamHandle;
use crate::headers_phase::{Watching, forwarded, replied};
use crate::held_bodies::HeldBodies;
use crate::held_message::HeldMessage;
use crate::stream::{BodyBytes, Direction, StreamContext};

/// Headers that wait, and their body.
pub(crate) struct PendingMessage<P, B> {
    pub(crate) parts: P,
    /// Neither a body nor trailers follow.
    pub(crate) end: bool,
    body: Incoming<B>,
    folds_end: bool,
    /// How much of the body is read while a plugin holds the headers; absent while none has.
    limit: Option<usize>,
}

enum Incoming<B> {
    Untouched(B),
    /// What comes while a plugin holds the headers is shown as one part, as in Envoy.
    Gathered(Pin<Box<B>>, Gathered),
}

/// What has come of a body.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) bytes: BodyBytes,
    pub(crate) ending: Option<Ending>,
    /// The memory that it takes.
    pub(crate) held: Option<HeldBodies>,
    /// There was no memory for more.
    is_full: bool,
}

/// How a body ended that was gathered to its end.
pub(crate) enum Ending {
    Whole,
    Trailers(HeaderMap),
    Broken(BoxError),
}

/// A message whose plugins have let its headers go.
pub(crate) enum Released<M, H> {
    Now(M),
    /// They wait for the first part of its body.
    Later(Box<H>),
}

// === impl PendingMessage ===

impl<P, B> PendingMessage<P, B> {
    pub(crate) fn new(folds_end: bool, parts: P, body: B, end: bool) -> Self {
        Self { parts, end, body: Incoming::Untouched(body), folds_end, limit: None }
    }

    /// As a message that its plugins hold until they have seen more of it.
    pub(crate) fn into_held(self, direction: Direction, stream: &mut StreamHandle) -> HeldMessage<P, B> {
        let (parts, body, relay) = self.open(direction, stream);
        HeldMessage::new(parts, body, relay)
    }

    /// How many bytes of the body have been read.
    pub(crate) fn gathered_bytes(&self) -> usize {
        match &self.body {
            Incoming::Untouched(_) => 0,
            Incoming::Gathered(_, gathered) => gathered.bytes.len(),
        }
    }

    /// The headers, and the body with its way past the plugins.
    pub(crate) fn open(self, direction: Direction, stream: &mut StreamHandle) -> (P, Pin<Box<B>>, Relay) {
        let relay = Relay::new(stream, direction, self.folds_end);
        match self.body {
            Incoming::Untouched(body) => (self.parts, Box::pin(body), relay),
            Incoming::Gathered(body, gathered) => (self.parts, body, relay.having(gathered)),
        }
    }
}

impl<P, B> PendingMessage<P, B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// How much of the body is read while its headers wait: as much as the plugin may hold that holds them
    /// now, or that has let them go. What has come by then belongs to it, too: whether that or the answer to
    /// a call-out has woken the task is chance.
    pub(crate) fn limit(&mut self, of_holder: Option<usize>) -> Option<usize> {
        self.limit = of_holder.or(self.limit);
        self.limit
    }

    /// Reads what is there of the body, if there is one, up to so many bytes and as long as there is memory
    /// for them.
    pub(crate) fn gather(mut self, limit: usize, stream: &StreamContext, cx: &mut Context<'_>) -> Self {
        if self.end {
            return self;
        }
        let (mut body, mut gathered) = match self.body {
            Incoming::Untouched(body) => {
                (Box::pin(body), Gathered { held: stream.begin_holding(), ..Gathered::default() })
            }
            Incoming::Gathered(body, gathered) => (body, gathered),
        };
        loop {
            let refuses = |held: &HeldBodies| held.hold(gathered.bytes.len() + 1).is_err();
            gathered.is_full = gathered.is_full || gathered.held.as_ref().is_some_and(refuses);
            if gathered.is_full || gathered.ending.is_some() || gathered.bytes.len() >= limit {
                break;
            }
            let Poll::Ready(frame) = poll_plain(body.as_mut(), cx) else { break };
            match frame.map(|frame| frame.map(Frame::into_data)) {
                None => gathered.ending = Some(Ending::Whole),
                Some(Err(error)) => gathered.ending = Some(Ending::Broken(error)),
                Some(Ok(Ok(data))) => {
                    gathered.bytes = gathered.bytes.followed_by(data);
                    if body.is_end_stream() {
                        gathered.ending = Some(Ending::Whole);
                    }
                }
                Some(Ok(Err(frame))) => gathered.ending = frame.into_trailers().ok().map(Ending::Trailers),
            }
        }
        self.body = Incoming::Gathered(body, gathered);
        self
    }
}

impl<B> PendingMessage<request::Parts, B> {
    /// The request, whose plugins have let its headers go.
    pub(crate) fn released(
        self,
        watching: Watching,
        stream: &mut StreamHandle,
    ) -> Released<Request<RequestBody<B>>, HeldMessage<request::Parts, B>> {
        // Only when what has come has passed is it known to keep a length.
        let may_leave = self.gathered_bytes() == 0 || !self.parts.headers.contains_key(CONTENT_LENGTH);
        match self.body {
            Incoming::Untouched(body) if watching != Watching::Length => {
                Released::Now(forwarded(self.parts, body, watching, stream))
            }
            Incoming::Gathered(..) if watching != Watching::Length && may_leave => {
                Released::Now(self.into_held(Direction::Request, stream).into_request())
            }
            _ => Released::Later(Box::new(self.into_held(Direction::Request, stream).until_first_part())),
        }
    }
}

impl<T> PendingMessage<response::Parts, Source<T>> {
    /// The response, whose plugins have let its headers go.
    pub(crate) fn released(
        self,
        watching: Watching,
        stream: &mut StreamHandle,
    ) -> Released<Response<ResponseBody<T>>, HeldMessage<response::Parts, Source<T>>> {
        // Only when what has come has passed is it known to keep a length.
        let may_leave = self.gathered_bytes() == 0 || !self.parts.headers.contains_key(CONTENT_LENGTH);
        match self.body {
            Incoming::Untouched(source) if watching != Watching::Length => {
                Released::Now(replied(self.parts, source, watching, stream))
            }
            Incoming::Gathered(..) if watching == Watching::Emptied => {
                Released::Now(replied(self.parts, Source::Local { bytes: Bytes::new() }, watching, stream))
            }
            Incoming::Gathered(..) if watching != Watching::Length && may_leave => {
                Released::Now(self.into_held(Direction::Response, stream).into_response(false, stream))
            }
            _ => Released::Later(Box::new(self.into_held(Direction::Response, stream).until_first_part())),
        }
    }
}
