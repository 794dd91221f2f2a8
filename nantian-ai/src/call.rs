//! The steps of one call, which [`ResponseFuture`](crate::future::ResponseFuture) puts in order.

mod begin;
mod end;
mod identify;

use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Request, Response};
use http_body::Body;

use crate::attempt::{Answer, Failed, is_encoded, is_json};
use crate::body::RequestBody;
use crate::budget::BudgetedCall;
use crate::config::ConnectTimeout;
use crate::dialect::Surface;
use crate::error::{BoxError, Error, Unsent};
use crate::ir::{Fault, FaultKind};
use crate::outbound::{Prepared, Way};
use crate::receive::{Aim, Received, Receiving};
use crate::respond::fault_in;
use crate::retry::Failure;
use crate::route::Onward;
use crate::target::Target;
use crate::timeout::Watch;
use crate::usage::{Metering, UsageSink};
use crate::via::Via;

/// A request that has been read and is being tried.
pub(crate) struct Call<K: UsageSink> {
    /// What the client asked for.
    surface: Surface,
    way: Way,
    /// What is told of a request that passes without all that it says.
    lost: Option<HeaderValue>,
    /// Gone once the last attempt is under way.
    prepared: Option<Prepared>,
    streaming: bool,
    metering: Metering<K>,
    watch: Watch,
    /// What a failure means to those who count.
    onward: Onward,
    /// Whose turn it is among several secrets.
    turn: usize,
    retries: u32,
    budgeted: BudgetedCall,
}

/// What becomes of a reply whose head has come.
pub(crate) enum Arrived<B> {
    /// Another attempt, after so long.
    Again(Duration),
    /// The client gets it, in whatever pieces it comes.
    Pass(Response<B>),
    /// More of it must come first.
    Receive(Receiving<B>),
    /// It is no answer.
    Failed(Failed),
}

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// The request of the next attempt, which begins now.
    pub(crate) fn attempt(&mut self, target: &Target) -> Option<Request<RequestBody>> {
        let config = target.config();
        self.watch = Watch::new(config.timeouts, self.streaming);
        let mut request = if self.retries < config.retry.max_retries {
            self.prepared.as_ref()?.request()
        } else {
            self.prepared.take()?.into_request()
        };
        if let Some(connect) = config.timeouts.connect {
            request.extensions_mut().insert(ConnectTimeout(connect));
        }
        target.sign_at(SystemTime::now(), self.turn, &mut request);
        Some(request)
    }

    /// Ready when the reply has not come in time.
    pub(crate) fn poll_late(&mut self, target: &Target, cx: &mut Context<'_>) -> Poll<Failed> {
        let late = self.watch.poll_late(cx, false);
        late.map(|(awaited, after)| {
            Failed::from(Error::Timeout { target: target.name().to_owned(), awaited, after })
        })
    }

    /// More of a reply; ready when enough of it has come.
    pub(crate) fn poll_receive<B>(
        &mut self,
        receiving: &mut Receiving<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Received>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let received = receiving.poll(&mut self.metering, cx);
        if received.is_ready() {
            self.watch.heard();
        }
        received
    }

    /// The inner service has failed; unless it says that nothing was sent, the prompt has been paid for.
    pub(crate) fn broke(&mut self, error: &(dyn std::error::Error + 'static)) {
        if !Unsent::is_in(error) {
            self.metering.meter_mut().mark_sent();
        }
    }

    /// Judges a reply by its head.
    pub(crate) fn arrived<B>(&mut self, target: &Target, response: Response<B>) -> Arrived<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let status = response.status();
        if !status.is_success() {
            return self.refused(target, response);
        }
        self.metering.begin(status, response.headers());
        let meter = self.metering.meter();
        let events = meter.reads_events();
        self.watch.expect_stream(meter.is_stream());
        let translated = matches!(self.way, Way::Translated(_));
        if translated && is_encoded(response.headers()) {
            self.metering.meter_mut().refuse();
            let fault = Fault::new(FaultKind::Upstream, "the provider's answer is compressed, unasked");
            return Arrived::Failed(Failed::of(target, fault, response.headers()));
        }
        let wants_stream = match &self.way {
            Way::Translated(translation) => translation.is_stream(),
            Way::Same | Way::HidingUsage => true,
        };
        let aim = match (events, translated) {
            (true, _) if wants_stream => Aim::FirstToken,
            (_, true) => Aim::Whole,
            (_, false) => return Arrived::Pass(response),
        };
        let (head, body) = response.into_parts();
        Arrived::Receive(Receiving::new(head, body, aim))
    }

    fn refused<B>(&mut self, target: &Target, response: Response<B>) -> Arrived<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let status = response.status();
        // 402: there is no credit behind it.
        let is_auth = matches!(status.as_u16(), 401 | 402 | 407);
        let is_of_the_secret = is_auth || matches!(status.as_u16(), 403 | 429);
        let may_repeat = self.retries < target.config().retry.max_retries;
        if is_of_the_secret && may_repeat && self.has_other_secret(target) && self.may_repeat(target) {
            return Arrived::Again(self.again(Duration::ZERO));
        }
        let failure = Failure::Response { status, headers: response.headers() };
        if let Some(wait) = self.next(target, failure) {
            return Arrived::Again(wait);
        }
        self.metering.begin(status, response.headers());
        // A refused credential is this side's fault: passed on, a client would blame its own.
        if is_auth {
            return Arrived::Failed(Error::UpstreamAuth { target: target.name().to_owned(), status }.into());
        }
        let translated = matches!(self.way, Way::Translated(_));
        if !translated && is_json(response.headers()) {
            return Arrived::Pass(response);
        }
        let (head, body) = response.into_parts();
        Arrived::Receive(Receiving::new(head, body, Aim::Refusal))
    }

    /// Judges what has come of a reply.
    pub(crate) fn received<B>(
        &mut self,
        target: &Target,
        receiving: Receiving<B>,
        received: Received,
    ) -> Result<Answer<B>, Failed>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let meter = self.metering.meter_mut();
        match received {
            Received::Broken if receiving.aim != Aim::Refusal => {
                return Err(Failed::of(target, Fault::truncated(), &receiving.head.headers));
            }
            Received::TooLarge => {
                let fault =
                    Fault::new(FaultKind::Upstream, "the provider's answer is too large to be translated");
                return Err(Failed::of(target, fault, &receiving.head.headers));
            }
            Received::Enough | Received::Broken => {}
        }
        match receiving.aim {
            Aim::Refusal => {
                let fault = target.dialect().decode_fault(receiving.head.status, &receiving.joined());
                Err(Failed::of(target, fault, &receiving.head.headers))
            }
            Aim::FirstToken if meter.has_failed() && !meter.has_token() => {
                meter.refuse();
                let spoken = self.metering.meter().surface().dialect();
                let fault = fault_in(&receiving.joined(), spoken);
                Err(Failed::of(target, fault, &receiving.head.headers))
            }
            Aim::FirstToken if receiving.is_over() && !meter.has_token() && !meter.has_end() => {
                Err(Failed::of(target, Fault::truncated(), &receiving.head.headers))
            }
            Aim::FirstToken => Ok(self.stream(receiving)),
            Aim::Whole => self.whole(target, receiving),
        }
    }

    fn stream<B>(&self, receiving: Receiving<B>) -> Answer<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let (mut head, held, rest) = receiving.into_parts();
        let via = match &self.way {
            Way::Same => Via::Pass,
            Way::HidingUsage => Via::Hide(Box::default()),
            Way::Translated(translation) => {
                translation.write_stream_head(&mut head);
                Via::Translate(Box::new(translation.translator()))
            }
        };
        if !via.is_pass() {
            head.headers.remove(CONTENT_LENGTH);
        }
        Answer { head, held, rest: Some((rest, via)) }
    }

    fn whole<B>(&mut self, target: &Target, receiving: Receiving<B>) -> Result<Answer<B>, Failed>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let body = receiving.joined();
        let events = self.metering.meter().reads_events();
        let headers = receiving.head.headers.clone();
        let (mut head, ..) = receiving.into_parts();
        let Way::Translated(translation) = &self.way else {
            return Ok(Answer::whole(head, body));
        };
        match translation.reply(&body, events) {
            Ok((body, losses)) => {
                self.metering.note_losses(&losses);
                translation.write_head(&mut head, losses);
                Ok(Answer::whole(head, body))
            }
            Err(fault) => {
                if fault.kind != FaultKind::Truncated {
                    self.metering.meter_mut().refuse();
                }
                Err(Failed::of(target, fault, &headers))
            }
        }
    }

    /// How long to wait before another attempt, if any. One that timed out is paid for: the request was not free.
    pub(crate) fn retry(&mut self, target: &Target, failed: &Failed) -> Option<Duration> {
        if let Error::Timeout { .. } = failed.error {
            self.metering.meter_mut().mark_sent();
        }
        let failure = match &failed.error {
            Error::Provider { fault, .. } => {
                Failure::Response { status: fault.kind.status(), headers: &failed.headers }
            }
            Error::UpstreamAuth { .. } => return None,
            Error::Token { source, .. } if !source.is_passing() => return None,
            _ => Failure::NoResponse,
        };
        self.next(target, failure)
    }

    fn next(&mut self, target: &Target, failure: Failure<'_>) -> Option<Duration> {
        let retry = &target.config().retry;
        let wait = retry.next_at(SystemTime::now(), self.retries, failure, fastrand::f64())?;
        if !self.may_repeat(target) {
            return None;
        }
        tracing::debug!(target = target.name(), retries = self.retries + 1, ?wait, "trying again");
        Some(self.again(wait))
    }

    /// Whether there is a secret that no attempt has used.
    fn has_other_secret(&self, target: &Target) -> bool {
        usize::try_from(self.retries).is_ok_and(|retries| retries + 1 < target.secrets())
    }

    fn may_repeat(&mut self, target: &Target) -> bool {
        let may = self.budgeted.may_repeat();
        if !may {
            tracing::debug!(target = target.name(), "too many calls are repeats");
            self.metering.note_over_budget();
        }
        may
    }

    fn again(&mut self, wait: Duration) -> Duration {
        self.retries += 1;
        self.turn = self.turn.wrapping_add(1);
        wait
    }
}
