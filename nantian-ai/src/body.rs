//! The bodies of upstream requests and of responses.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::call::chunk_path::ChunkPath;
use crate::call::receive::{Rest, has_come};
use crate::call::silence::Silence;
use crate::call::timeout::Watch;
use crate::dialect::Surface;
use crate::error::{BoxError, Ending, Error};
use crate::headers::{DROPPED, ESTIMATED, USAGE};
use crate::target::Target;
use crate::usage::{End, Meter, MeteredBody, UsageSink};

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
    /// comes too late, or ends before its last brace, ends with an error of the body, which aborts the
    /// connection. What is lost of a stream that is translated is named in a trailer, [`DROPPED`]; another
    /// one, [`USAGE`], says that its usage is an estimate. Its client hears something every 15 seconds, if
    /// only a comment, if its dialect has any.
    ///
    /// The default is an empty body, for layers that answer by themselves, such as a timeout.
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
        Local {
            bytes: Option<Bytes>,
            // In a box, because few answers have any.
            trailers: Option<Box<HeaderMap>>,
        },
        Upstream {
            #[pin]
            body: MeteredBody<Rest<B>, K>,
            held: VecDeque<Bytes>,
            via: ChunkPath,
            // The length has been told: nothing can be added.
            sized: bool,
            watch: Watch,
            // Of a client that can be told that there is nothing to say yet.
            silence: Option<Silence>,
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

    /// All of it, as one.
    pub(crate) fn joined(&self) -> Bytes {
        match self.pieces.len() {
            1 => self.pieces.front().cloned().unwrap_or_default(),
            _ => self.pieces.iter().flatten().copied().collect(),
        }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        vec![bytes].into()
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
        Self { kind: Kind::Local { bytes: Some(bytes).filter(|bytes| !bytes.is_empty()), trailers: None } }
    }
}

impl<B, K: UsageSink> Default for ResponseBody<B, K> {
    fn default() -> Self {
        Self::local(Bytes::new())
    }
}

impl<B: Body<Data = Bytes>, K: UsageSink> ResponseBody<B, K> {
    /// What has been `held` back, which is metered and has gone its way already, and the rest; in a stream of
    /// `surface`.
    pub(crate) fn upstream(
        body: MeteredBody<Rest<B>, K>,
        held: VecDeque<Bytes>,
        via: ChunkPath,
        watch: Watch,
        target: Arc<Target>,
        surface: Surface,
    ) -> Self {
        let is_stream = body.meter().is_some_and(Meter::reads_events);
        let sized = via.is_pass() && !is_stream && body.size_hint().exact().is_some();
        let silence = via.pings().then(Silence::new);
        Self { kind: Kind::Upstream { body, held, via, sized, watch, silence, target, surface } }
    }
}

/// What comes of a turn of a body.
enum Turn {
    /// A chunk; empty ones are left out.
    Chunk(Bytes),
    /// Trailers and the like.
    Frame(Frame<Bytes>),
    /// The last chunk, if there is one, and the trailers of the upstream's body.
    Trailers(Option<Bytes>, HeaderMap),
    /// The last chunk of the upstream's body, if there is one.
    Last(Option<Bytes>),
    /// An error that breaks the body off.
    Break(BoxError),
    /// Nothing more.
    Over,
}

impl<B, K> KindProj<'_, B, K>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
    K: UsageSink,
{
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let (body, held, via, sized, watch, silence, target, surface) = match self {
            Self::Local { bytes, trailers } => {
                let trailers = || trailers.take().map(|trailers| Turn::Frame(Frame::trailers(*trailers)));
                return Poll::Ready(bytes.take().map(Turn::Chunk).or_else(trailers).unwrap_or(Turn::Over));
            }
            Self::Upstream { body, held, via, sized, watch, silence, target, surface } => {
                (body, held, via, **sized, watch, silence, target, surface)
            }
        };
        if let Some(chunk) = held.pop_front() {
            if held.is_empty() {
                **held = VecDeque::new();
            }
            return Poll::Ready(Turn::Chunk(chunk));
        }
        if via.is_ended() {
            // The end of the body is here, as a rule: a connection that has been read to it can be used
            // again.
            let _ = body.as_mut().poll_frame(cx);
            return Poll::Ready(Turn::Last(None));
        }
        // The time first: a client that reads slowly must not stretch it.
        let polled = match watch.out_of_time() {
            Some(late) => Err(late),
            None => Ok(body.as_mut().poll_frame(cx)),
        };
        let is_last = matches!(&polled, Ok(Poll::Ready(Some(Ok(frame)))) if frame.is_trailers());
        let is_half = (is_last || has_come(&**body)) && lacks_end(body.meter(), surface);
        let late = |(awaited, after)| {
            let error = Error::Timeout { target: target.name().to_owned(), awaited, after };
            (error.clone(), error.into())
        };
        let (error, source) = match polled {
            Err(passed) => late(passed),
            Ok(Poll::Ready(Some(Err(source)))) => broken(source.into(), target),
            Ok(Poll::Ready(_)) if is_half => broken(Error::truncated(target.name()).into(), target),
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                watch.heard();
                return Poll::Ready(match frame.into_data() {
                    Ok(data) => told(silence, via.push(data)),
                    Err(frame) if via.is_pass() => match frame.into_trailers() {
                        Ok(trailers) => {
                            let last = (!sized).then(|| via.finish(body.meter(), surface, target.name()));
                            Turn::Trailers(last, trailers)
                        }
                        Err(frame) => Turn::Frame(frame),
                    },
                    Err(_) => Turn::Chunk(Bytes::new()),
                });
            }
            Ok(Poll::Ready(None)) if sized => return Poll::Ready(Turn::Last(None)),
            Ok(Poll::Ready(None)) => {
                return Poll::Ready(Turn::Last(Some(via.finish(body.meter(), surface, target.name()))));
            }
            Ok(Poll::Pending) => {
                let has_token = body.meter().is_some_and(|meter| meter.has_token());
                let Poll::Ready(passed) = watch.poll_late(cx, has_token) else {
                    ready!(silence.as_mut().map_or(Poll::Pending, |silence| silence.poll(cx)));
                    // If there is nothing to say, too: it is asked again after as long.
                    if let Some(silence) = silence {
                        silence.end();
                    }
                    return Poll::Ready(Turn::Chunk(via.ping()));
                };
                late(passed)
            }
        };
        let last = via.fail(&error, body.meter(), surface).filter(|_| !sized);
        let is_cut = body.meter().is_some_and(|meter| !meter.has_end());
        if let Error::Ending = error {
            // As if the client had gone: the provider has not failed.
            body.as_mut().conclude(&via.losses());
            body.as_mut().fail(None, End::Dropped);
        } else {
            conclude(body.as_mut(), via);
            body.as_mut().fail(is_cut.then(|| error.code()), End::Failed);
        }
        Poll::Ready(last.map_or(Turn::Break(source), |last| Turn::Last(Some(last))))
    }

    /// Tells the meter what a translated answer has lost, once all of it is known. Gives the trailers that
    /// name it.
    fn conclude(&mut self) -> Option<Box<HeaderMap>> {
        let Self::Upstream { body, via, .. } = self else { return None };
        if !via.is_ended() {
            return None;
        }
        conclude(body.as_mut(), via);
        let is_estimated = !via.has_failed() && body.meter().is_some_and(Meter::is_estimated);
        let trailers = [
            via.losses().header_value().map(|lost| (DROPPED, lost)),
            is_estimated.then_some((USAGE, ESTIMATED)),
        ];
        let trailers: HeaderMap = trailers.into_iter().flatten().collect();
        (!trailers.is_empty()).then(|| Box::new(trailers))
    }
}

/// What an error of the upstream's body is.
fn broken(source: BoxError, target: &Target) -> (Error, BoxError) {
    let ends = Ending::is_in(source.as_ref());
    (if ends { Error::Ending } else { Error::truncated(target.name()) }, source)
}

/// Whether an answer in one piece lacks its end so far. No client can use a part of it, and once a client has
/// one, nothing tells that it is a part but an error of the body.
fn lacks_end(meter: Option<&Meter>, surface: &Surface) -> bool {
    surface.operation().awaits_answer() && meter.is_some_and(Meter::lacks_end)
}

/// A chunk for the client, which hears something with it unless it is empty.
fn told(silence: &mut Option<Silence>, chunk: Bytes) -> Turn {
    if let Some(silence) = silence
        && !chunk.is_empty()
    {
        silence.end();
    }
    Turn::Chunk(chunk)
}

/// Tells the meter how a translated answer has ended for the client, and what of it is lost.
fn conclude<B, K>(mut body: Pin<&mut MeteredBody<Rest<B>, K>>, via: &ChunkPath)
where
    B: Body<Data = Bytes>,
    K: UsageSink,
{
    if via.has_failed() {
        body.as_mut().refute();
    }
    body.conclude(&via.losses());
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
        loop {
            let turn = ready!(kind.as_mut().project().turn(cx));
            let trailers = kind.as_mut().project().conclude();
            // What is left of the upstream's body is let go with `set`.
            match turn {
                Turn::Chunk(chunk) if chunk.is_empty() => {}
                Turn::Chunk(chunk) => return Poll::Ready(Some(Ok(Frame::data(chunk)))),
                Turn::Frame(frame) => return Poll::Ready(Some(Ok(frame))),
                Turn::Last(last) => {
                    let bytes = last.filter(|last| !last.is_empty());
                    kind.set(Kind::Local { bytes, trailers });
                }
                Turn::Trailers(last, trailers) => {
                    let bytes = last.filter(|last| !last.is_empty());
                    kind.set(Kind::Local { bytes, trailers: Some(Box::new(trailers)) });
                }
                Turn::Break(error) => {
                    kind.set(Kind::Local { bytes: None, trailers: None });
                    return Poll::Ready(Some(Err(error)));
                }
                Turn::Over => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Local { bytes, trailers } => bytes.is_none() && trailers.is_none(),
            Kind::Upstream { body, held, via, sized, surface, .. } => {
                let told = body.meter().is_none_or(|meter| !meter.reads_events() || meter.has_end());
                let is_whole = (*sized || told) && !lacks_end(body.meter(), surface);
                via.is_pass() && held.is_empty() && is_whole && body.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Local { bytes, .. } => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Kind::Upstream { body, held, sized: true, .. } => {
                let held = held.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                body.size_hint()
                    .exact()
                    .map_or_else(SizeHint::default, |rest| SizeHint::with_exact(rest + held))
            }
            Kind::Upstream { .. } => SizeHint::default(),
        }
    }
}
