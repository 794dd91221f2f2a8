//! A reply body that is metered while it passes.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http::header::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::call::AttemptLog;
use super::{CallReport, Content, End, Meter, Outcome, UsageReport, UsageSink, excerpt};
use crate::codec::fault;
use crate::dialect::{ClientDialect, Dialect};
use crate::ir::{Fault, Losses};
use crate::memory::HeldMemory;
use crate::target::calibration::Calibration;

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
        // In a box, because responses are moved about.
        metering: Option<Box<Metering<K>>>,
        // Whoever reads the body says when its end is to be told, and what is known only then.
        held: bool,
        // And what an error of it means.
        judged: bool,
        end: Option<End>,
    }
}

/// A meter and a watch, which tell their sink exactly once, at the latest when they are dropped.
#[derive(Debug)]
pub(crate) struct Metering<K: UsageSink> {
    meter: Meter,
    sink: Option<K>,
    call: CallReport,
    attempts: AttemptLog,
    started: Instant,
    /// When the first and the last token came.
    tokens: Option<(Instant, Instant)>,
    kept: Option<Kept>,
    /// Holds what the meter keeps of a stream, if there is a bound for all.
    room: Option<HeldMemory>,
    calibration: Option<Arc<Calibration>>,
}

/// What is kept of a call to be told.
#[derive(Debug)]
struct Kept {
    client: ClientDialect,
    request: Bytes,
    partial: bool,
    upstream: Dialect,
    reply: Vec<u8>,
    most: usize,
    /// What request and answer take of the memory for bodies, if there is a bound.
    room: Option<HeldMemory>,
}

/// The bytes of an answer, and the room for them and their request.
struct KeptReply {
    bytes: Vec<u8>,
    _room: Option<HeldMemory>,
}

// === impl MeteredBody ===

impl<B, K> MeteredBody<B, K>
where
    B: Body,
    K: UsageSink,
{
    /// Without metering the body only passes.
    pub(crate) fn new(body: B, mut metering: Option<Box<Metering<K>>>) -> Self {
        if let Some(metering) = metering.as_mut()
            && body.is_end_stream()
        {
            metering.end(End::Finished);
        }
        Self { body, metering, held: false, judged: false, end: None }
    }

    /// Waits for [`conclude`](Self::conclude) before the end is told.
    pub(crate) fn hold(mut self) -> Self {
        self.held = true;
        self
    }

    /// Waits for [`fail`](Self::fail) where the body ends in an error.
    pub(crate) fn judged(mut self) -> Self {
        self.judged = true;
        self
    }

    /// Notes what has been lost so far, and tells the end if it has come.
    pub(crate) fn conclude(self: Pin<&mut Self>, losses: &Losses) {
        let this = self.project();
        if let Some(metering) = this.metering {
            metering.note_losses(losses);
            if let Some(end) = this.end.take() {
                metering.end(end);
            }
        }
    }

    pub(crate) fn meter(&self) -> Option<&Meter> {
        self.metering.as_ref().map(|metering| &metering.meter)
    }

    /// Notes that the client has been told of a failure, whatever the body says.
    pub(crate) fn refute(self: Pin<&mut Self>) {
        if let Some(metering) = self.project().metering {
            metering.meter.fail();
        }
    }

    /// Ends the metering of a body that will not be read on, because of an error unless the answer had ended
    /// before.
    pub(crate) fn fail(self: Pin<&mut Self>, code: Option<&'static str>, end: End) {
        if let Some(metering) = self.project().metering {
            if let Some(code) = code {
                metering.note_error(code);
            }
            metering.end(end);
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
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                metering.push(data);
            }
            let end = match &frame {
                // Nothing follows trailers, and who has seen them asks for no more.
                Some(Ok(frame)) => {
                    (frame.is_trailers() || this.body.is_end_stream()).then_some(End::Finished)
                }
                Some(Err(_)) => (!*this.judged).then_some(End::Failed),
                None => Some(End::Finished),
            };
            match end {
                Some(end) if *this.held => *this.end = Some(end),
                Some(end) => metering.end(end),
                None => {}
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
    pub(crate) fn new(meter: Meter, sink: K) -> Box<Self> {
        Box::new(Self {
            meter,
            sink: Some(sink),
            call: CallReport::default(),
            attempts: AttemptLog::default(),
            started: Instant::now(),
            tokens: None,
            kept: None,
            room: None,
            calibration: None,
        })
    }

    /// Holds memory for what the meter keeps.
    pub(crate) fn hold(&mut self, room: Option<HeldMemory>) {
        self.room = room;
    }

    /// Compares the estimate of the input with what the provider reports.
    pub(crate) fn teach(&mut self, calibration: &Arc<Calibration>) {
        self.calibration = Some(Arc::clone(calibration));
    }

    /// Keeps of the request and of the answer as much as `most` bytes each, and nothing once they find no
    /// `room`.
    pub(crate) fn keep(
        &mut self,
        client: ClientDialect,
        request: &Bytes,
        upstream: Dialect,
        most: usize,
        room: Option<HeldMemory>,
    ) {
        let partial = request.len() > most;
        let request = if partial { excerpt(request, most).unwrap_or_default() } else { request.clone() };
        let kept = Kept { client, request, partial, upstream, reply: Vec::new(), most, room };
        self.kept = kept.has_room(0).then_some(kept);
    }

    /// Takes the next chunk of the reply's body.
    pub(crate) fn push(&mut self, data: &[u8]) {
        self.meter.push(data);
        if let Some(room) = &self.room
            && room.keep(self.meter.kept()).is_err()
        {
            self.meter.skip_event();
        }
        if let Some(kept) = &mut self.kept {
            let left = kept.most.saturating_sub(kept.reply.len());
            let more = data.get(..left).unwrap_or(data);
            if kept.has_room(more.len()) {
                kept.reply.extend_from_slice(more);
            } else {
                self.kept = None;
            }
        }
        self.heard();
    }

    fn heard(&mut self) {
        if self.meter.is_stream() && self.meter.has_token() {
            let now = Instant::now();
            let (first, _) = self.tokens.unwrap_or((now, now));
            self.tokens = Some((first, now));
        }
    }

    pub(crate) fn attempts_mut(&mut self) -> &mut AttemptLog {
        &mut self.attempts
    }

    /// Notes that another attempt was due, and the budget did not allow it.
    pub(crate) fn note_over_budget(&mut self) {
        self.call.over_budget = true;
    }

    /// Notes the error that stands for an answer.
    pub(crate) fn note_error(&mut self, code: &'static str) {
        self.attempts.failed(code);
        self.call.error = Some(code);
    }

    /// Notes what was left out.
    pub(crate) fn note_losses(&mut self, losses: &Losses) {
        self.call.dropped.extend(losses.clone());
    }

    /// Takes the head of the reply.
    pub(crate) fn begin(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.meter.begin(status, headers);
        self.tokens = None;
        if let Some(kept) = &mut self.kept {
            kept.reply.clear();
        }
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

    /// Tells that another target will be asked.
    pub(crate) fn pass_on(&mut self) {
        if let Some(sink) = self.sink.take() {
            sink.pass_on(self.report(End::Failed));
        }
    }

    pub(crate) fn end(&mut self, end: End) {
        if let Some(sink) = self.sink.take() {
            sink.finish(self.report(end));
        }
    }

    fn report(&mut self, end: End) -> UsageReport {
        let mut report = self.meter.report(end);
        if let (Some(calibration), false) = (&self.calibration, report.usage.estimated) {
            calibration.learn(self.meter.input_estimate(), report.usage.input);
        }
        let gaps = self.meter.spoken_events().saturating_sub(1);
        let mean = |(first, last): (Instant, Instant)| {
            let gaps = u32::try_from(gaps).ok().filter(|gaps| *gaps > 0)?;
            Some(last.duration_since(first) / gaps)
        };
        // It may have broken off with nobody to say so. What is no JSON to who counts may be whole.
        let is_read = self.meter.reads_whole() && !self.meter.lacks_end() && !self.meter.has_failed();
        let is_whole = end == End::Finished && is_read;
        let is_cut = report.outcome == Outcome::Truncated && !is_whole;
        let error = self.call.error.or_else(|| is_cut.then(|| fault::openai_names(&Fault::truncated()).1));
        report.call = CallReport {
            duration: self.started.elapsed(),
            first_token: self.tokens.map(|(first, _)| first.duration_since(self.started)),
            between_tokens: self.tokens.and_then(mean),
            attempts: self.attempts.take(error),
            error,
            over_budget: self.call.over_budget,
            dropped: std::mem::take(&mut self.call.dropped),
            content: self.kept.take().map(|kept| Content {
                client: kept.client,
                request: kept.request,
                partial: kept.partial,
                upstream: kept.upstream,
                reply: Bytes::from_owner(KeptReply { bytes: kept.reply, _room: kept.room }),
                stream: report.call.stream,
            }),
            ..report.call
        };
        report
    }
}

// === impl Kept ===

impl Kept {
    /// Whether there is room for so many more bytes, which is held from then on.
    fn has_room(&self, more: usize) -> bool {
        let bytes = self.request.len().saturating_add(self.reply.len()).saturating_add(more);
        self.room.as_ref().is_none_or(|room| room.hold_spare(bytes))
    }
}

// === impl KeptReply ===

impl AsRef<[u8]> for KeptReply {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl<K: UsageSink> Drop for Metering<K> {
    fn drop(&mut self) {
        self.end(End::Dropped);
    }
}
