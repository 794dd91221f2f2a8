//! The bodies of upstream requests and of responses.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::dialect::Surface;
use crate::error::{BoxError, Error};
use crate::respond::error_event;
use crate::target::Target;
use crate::timeout::Watch;
use crate::usage::{MeteredBody, UsageSink};

/// Below this, one copied chunk costs less than several shared ones.
const COPY_BELOW: usize = 16 * 1024;

/// The body of an upstream request: in memory, cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct RequestBody {
    pieces: VecDeque<Bytes>,
}

pin_project! {
    /// The body of a response: the upstream's, passed on as it comes, or that of an error.
    ///
    /// A stream that comes too late ends with an error event in the client's dialect; a buffered reply that
    /// comes too late ends with an error of the body, which aborts the connection.
    ///
    /// # Cancellation
    /// Dropping it drops the upstream's body, which aborts the upstream's work.
    #[derive(Debug)]
    pub struct ResponseBody<B, K>
    where
        K: UsageSink,
    {
        #[pin]
        kind: Kind<B, K>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B, K>
    where
        K: UsageSink,
    {
        Local { bytes: Option<Bytes> },
        Upstream {
            #[pin]
            body: MeteredBody<B, K>,
            watch: Watch,
            target: Arc<Target>,
            surface: Surface,
        },
    }
}

// === impl RequestBody ===

impl RequestBody {
    /// The length in bytes.
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl From<Vec<Bytes>> for RequestBody {
    /// A body of these pieces, in order; joined if that is cheaper.
    fn from(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        if pieces.len() > 1 && pieces.iter().map(Bytes::len).sum::<usize>() <= COPY_BELOW {
            pieces = vec![Bytes::from(pieces.concat())];
        }
        Self { pieces: pieces.into() }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len())
    }
}

// === impl ResponseBody ===

impl<B, K: UsageSink> ResponseBody<B, K> {
    pub(crate) fn local(bytes: Bytes) -> Self {
        Self { kind: Kind::Local { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()) } }
    }

    pub(crate) fn upstream(
        body: MeteredBody<B, K>,
        watch: Watch,
        target: Arc<Target>,
        surface: Surface,
    ) -> Self {
        Self { kind: Kind::Upstream { body, watch, target, surface } }
    }
}

impl<B, K> Body for ResponseBody<B, K>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    K: UsageSink,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut kind = self.project().kind;
        let (ending, error, surface) = match kind.as_mut().project() {
            KindProj::Local { bytes } => {
                return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes))));
            }
            KindProj::Upstream { mut body, watch, target, surface } => {
                if let Poll::Ready(frame) = body.as_mut().poll_frame(cx) {
                    watch.heard();
                    return Poll::Ready(frame.map(|result| result.map_err(Into::into)));
                }
                let meter = body.meter();
                let has_token = meter.is_some_and(|meter| meter.has_token());
                let (awaited, after) = ready!(watch.poll_late(cx, has_token));
                let error = Error::Timeout { target: target.name().to_owned(), awaited, after };
                let ending = Ending::of(&body);
                body.fail();
                (ending, error, surface.clone())
            }
        };
        kind.set(Kind::Local { bytes: None });
        Poll::Ready(match ending {
            Ending::Complete => None,
            Ending::Event => Some(Ok(Frame::data(error_event(&error, &surface)))),
            Ending::Abort => Some(Err(error.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Local { bytes } => bytes.is_none(),
            Kind::Upstream { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Local { bytes } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Upstream { body, .. } => body.size_hint(),
        }
    }
}

/// How a body ends that comes too late.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// The answer is complete, only the end of the body is missing.
    Complete,
    /// With one more event.
    Event,
    /// With an error: what has been sent already cannot be completed.
    Abort,
}

// === impl Ending ===

impl Ending {
    fn of<B: Body<Data = Bytes>, K: UsageSink>(body: &MeteredBody<B, K>) -> Self {
        match body.meter() {
            Some(meter) if meter.reads_events() && body.size_hint().exact().is_none() => {
                if meter.is_complete() { Self::Complete } else { Self::Event }
            }
            _ => Self::Abort,
        }
    }
}
