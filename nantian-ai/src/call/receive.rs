//! The part of a reply that must be there before the client is answered.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};

use crate::call::first_bytes::Begun;
use crate::error::{BoxError, Ending, Error};
use crate::memory::HeldMemory;
use crate::usage::{Metering, UsageSink};

/// The largest whole reply that is translated, in bytes.
const LARGEST_REPLY: usize = 64 * 1024 * 1024;

/// The most that is read of an error, in bytes.
const LARGEST_REFUSAL: usize = 64 * 1024;

/// The most of an answer in one piece that is held back for its end, in bytes.
const LARGEST_HELD: usize = 64 * 1024;

/// The most of a stream that is held back for its first token, in bytes.
const LARGEST_PREFACE: usize = 1024 * 1024;

/// Pieces below this length are put together, in bytes: beside a small one more is kept than it is long.
const SMALL: usize = 16 * 1024;

/// A reply on its way.
#[derive(Debug)]
pub(crate) struct Receiving<B> {
    pub(crate) head: Parts,
    pub(crate) aim: Aim,
    rest: Rest<B>,
    /// What has come, but for what is last and less than `SMALL`.
    held: VecDeque<Bytes>,
    last: BytesMut,
    size: usize,
    /// What is held of the memory that its request holds some of.
    memory: Option<HeldMemory>,
}

/// How much of a reply is awaited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Aim {
    /// The first event of a stream that says something.
    FirstToken,
    /// All of it.
    Whole,
    /// As much as tells whether it is an answer, and all of it if it is an error or no larger than most.
    Beginning,
    /// All of it, which is no answer.
    Refusal,
    /// The same, to be passed on as it is unless it objects to what only this side has said.
    Objection,
}

/// What has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Received {
    /// As much as was awaited.
    Enough,
    /// More than is read.
    TooLarge,
    /// More than there is memory for now.
    NoMemory,
    /// An error of the body.
    Broken,
    /// The same, because the process ends.
    Ending,
}

/// A body that may have ended already.
#[derive(Debug)]
pub(crate) struct Rest<B>(Option<Pin<Box<B>>>);

/// Whether all data of a body has come. One that tells its length may end, or tell trailers, only later.
pub(crate) fn has_come(body: &impl Body) -> bool {
    body.is_end_stream() || body.size_hint().exact() == Some(0)
}

// === impl Receiving ===

impl<B> Receiving<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    pub(crate) fn new(head: Parts, body: B, aim: Aim) -> Self {
        let (held, last) = <(VecDeque<Bytes>, BytesMut)>::default();
        Self { head, aim, rest: Rest(Some(Box::pin(body))), held, last, size: 0, memory: None }
    }

    /// Holds memory for what is awaited, if the request does.
    pub(crate) fn holding(mut self, request: Option<&HeldMemory>) -> Self {
        self.memory = request.map(HeldMemory::beside);
        self
    }

    /// The memory that holds what is kept of it.
    pub(crate) fn memory(&self) -> Option<HeldMemory> {
        self.memory.clone()
    }

    /// Awaits more than has come.
    pub(crate) fn aiming(self, aim: Aim) -> Self {
        Self { aim, ..self }
    }

    /// Ready when enough has come; the meter has seen all of it.
    pub(crate) fn poll<K: UsageSink>(
        &mut self,
        metering: &mut Metering<K>,
        cx: &mut Context<'_>,
    ) -> Poll<Received> {
        loop {
            if self.aim == Aim::FirstToken {
                let meter = metering.meter();
                if meter.has_token() || meter.has_end() || self.size > LARGEST_PREFACE {
                    return Poll::Ready(Received::Enough);
                }
                if self.memory.as_ref().is_some_and(|memory| memory.keep(self.size).is_err()) {
                    return Poll::Ready(Received::NoMemory);
                }
            }
            let data = match ready!(Pin::new(&mut self.rest).poll_frame(cx)) {
                None => {
                    metering.meter_mut().finish();
                    return Poll::Ready(Received::Enough);
                }
                Some(Err(error)) => {
                    let error: BoxError = error.into();
                    tracing::debug!(%error, "a reply broke off");
                    let ends = Ending::is_in(error.as_ref());
                    return Poll::Ready(if ends { Received::Ending } else { Received::Broken });
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    Err(_trailers) => continue,
                },
            };
            metering.push(&data);
            self.keep(data);
            match self.aim {
                Aim::Beginning => match self.begun() {
                    // What breaks off can be asked for again as long as nobody has heard of it.
                    Some(Begun::Answer) if self.size <= LARGEST_HELD && metering.meter().lacks_end() => {}
                    Some(Begun::Answer | Begun::Other) => return Poll::Ready(Received::Enough),
                    _ if self.size > LARGEST_REFUSAL => return Poll::Ready(Received::Enough),
                    Some(Begun::Error) | None => {}
                },
                Aim::Whole if self.size > LARGEST_REPLY => return Poll::Ready(Received::TooLarge),
                Aim::Whole => match self.hold() {
                    Ok(()) => {}
                    Err(Error::BodyTooLarge { .. }) => return Poll::Ready(Received::TooLarge),
                    Err(_) => return Poll::Ready(Received::NoMemory),
                },
                Aim::Refusal | Aim::Objection if self.size > LARGEST_REFUSAL => {
                    return Poll::Ready(Received::Enough);
                }
                Aim::FirstToken | Aim::Refusal | Aim::Objection => {}
            }
        }
    }

    /// Keeps what has come. What comes in one piece is not copied.
    fn keep(&mut self, data: Bytes) {
        let is_first = self.size == 0;
        self.size += data.len();
        if data.is_empty() {
            return;
        }
        if is_first || data.len() >= SMALL {
            self.end_last();
            self.held.push_back(data);
            return;
        }
        self.last.extend_from_slice(&data);
        if self.last.len() >= SMALL {
            self.end_last();
        }
    }

    /// Puts no more to the small pieces that came last.
    fn end_last(&mut self) {
        if !self.last.is_empty() {
            self.held.push_back(std::mem::take(&mut self.last).freeze());
        }
    }

    /// All that has come, in its order.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.held.iter().map(|piece| &**piece).chain(std::iter::once(&*self.last))
    }

    /// Holds memory for what has come.
    fn hold(&self) -> Result<(), Error> {
        self.memory.as_ref().map_or(Ok(()), |memory| memory.hold(self.size as u64))
    }

    /// What has begun to come.
    pub(crate) fn begun(&self) -> Option<Begun> {
        Begun::of(self.pieces())
    }

    /// Whether it is the refusal of a request.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.aim, Aim::Refusal | Aim::Objection)
    }

    /// Whether nothing comes after what has come.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.0.is_none()
    }

    /// Whether all data has come, of which the body may not have said that it is all, or have trailers.
    pub(crate) fn has_all_data(&self) -> bool {
        has_come(&self.rest)
    }

    /// What has come, as one.
    pub(crate) fn joined(&self) -> Bytes {
        if let Some(first) = self.held.front().filter(|first| first.len() == self.size) {
            return first.clone();
        }
        let mut joined = BytesMut::with_capacity(self.size);
        self.pieces().for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }

    /// With an answer in the place of all that has come and comes.
    pub(crate) fn answered(mut self, answer: Bytes) -> Self {
        self.head.status = StatusCode::OK;
        self.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let (size, held) = (answer.len(), VecDeque::from([answer]));
        Self { rest: Rest(None), size, held, last: BytesMut::new(), ..self }
    }

    /// The head, what has come, and what comes.
    pub(crate) fn into_parts(mut self) -> (Parts, VecDeque<Bytes>, Rest<B>) {
        self.end_last();
        (self.head, self.held, self.rest)
    }
}

// === impl Rest ===

impl<B> Rest<B> {
    pub(crate) fn of(body: B) -> Self {
        Self(Some(Box::pin(body)))
    }
}

impl<B: Body> Body for Rest<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Some(body) = self.0.as_mut() else { return Poll::Ready(None) };
        let frame = ready!(body.as_mut().poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use http::Response;
    use http_body_util::Empty;

    use super::*;

    #[test]
    fn small_pieces_are_put_together_in_their_order() {
        let (head, ()) = Response::new(()).into_parts();
        let mut receiving = Receiving::new(head, Empty::<Bytes>::new(), Aim::Whole);
        let reply = b"0123456".repeat(SMALL);
        let (small, large) = reply.split_at(3 * SMALL + 1);
        receiving.keep(Bytes::new());
        small.chunks(1).for_each(|piece| receiving.keep(Bytes::copy_from_slice(piece)));
        receiving.keep(Bytes::copy_from_slice(large));
        receiving.keep(Bytes::from_static(b"7"));
        receiving.keep(Bytes::from_static(b"8"));
        assert_eq!(receiving.joined(), [&reply[..], b"78"].concat());
        let (_, held, _) = receiving.into_parts();
        let lengths: Vec<_> = held.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [1, SMALL, SMALL, SMALL, large.len(), 2]);
    }
}
