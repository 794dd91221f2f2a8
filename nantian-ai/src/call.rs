//! The steps of one call, which [`ResponseFuture`](crate::future::ResponseFuture) puts in order.

mod begin;
mod identify;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body::Body;

use crate::DROPPED;
use crate::attempt::{Answer, Failed, is_encoded, is_json};
use crate::body::{RequestBody, ResponseBody};
use crate::budget::BudgetedCall;
use crate::config::ConnectTimeout;
use crate::dialect::Surface;
use crate::error::{BoxError, Error};
use crate::ir::{Fault, FaultKind};
use crate::outbound::{Prepared, Way, clean_response};
use crate::receive::{Aim, Received, Receiving, Rest};
use crate::respond::fault_in;
use crate::retry::{Attempts, Failure};
use crate::route::Onward;
use crate::shared::Shared;
use crate::target::Target;
use crate::timeout::Watch;
use crate::translate::kept_headers;
use crate::usage::{End, MeteredBody, Metering, UsageSink};
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
        let is_auth = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED);
        let other_secret = is_auth && target.secrets() > 1;
        if other_secret && self.retries < target.config().retry.max_retries && self.may_repeat(target) {
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

    /// The response of an attempt whose reply passes as it comes.
    pub(crate) fn pass<B, O>(
        mut self,
        shared: &Shared<O>,
        response: Response<B>,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = response.into_parts();
        let refusal = (!head.status.is_success()).then(|| {
            let fault = shared.target.dialect().decode_fault(head.status, &[]);
            Error::Provider { target: shared.target.name().to_owned(), fault }
        });
        let refusal = refusal.filter(Error::may_fail_over);
        let onward = self.onward;
        let sent = self.metering.meter().is_sent();
        if let Some(refusal) = &refusal {
            self.metering.note_error(refusal.code());
            self.metering.count_attempts(self.retries + 1);
            if onward.more {
                self.metering.pass_on();
            }
        }
        let answer = Answer { head, held: VecDeque::new(), rest: Some((Rest::of(body), Via::Pass)) };
        let mut response = self.finish(shared, answer);
        if let Some(error) = refusal {
            response.extensions_mut().insert(Arc::new(error));
            response.extensions_mut().insert(Onward { sent, ..onward });
        }
        response
    }

    /// The response with an answer.
    pub(crate) fn finish<B, O>(
        mut self,
        shared: &Shared<O>,
        answer: Answer<B>,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let attempts = Attempts(self.retries + 1);
        self.metering.count_attempts(attempts.0);
        let mut head = answer.head;
        clean_response(&mut head.headers);
        if let Some(lost) = self.lost.take() {
            head.headers.insert(DROPPED, lost);
        }
        let held = answer.held;
        let body = match answer.rest {
            None => {
                self.metering.end(End::Finished);
                ResponseBody::local(held.into_iter().next().unwrap_or_default())
            }
            Some((rest, via)) => {
                let body = MeteredBody::new(rest, Some(self.metering));
                let body = if via.is_translated() { body.hold() } else { body };
                let target = Arc::clone(&shared.target);
                ResponseBody::upstream(body, held, via, self.watch, target, self.surface)
            }
        };
        let mut response = Response::from_parts(head, body);
        response.extensions_mut().insert(attempts);
        response
    }

    /// The response to a request that nobody has answered.
    pub(crate) fn fail<B, O>(mut self, shared: &Shared<O>, failed: Failed) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let sent = self.metering.meter().is_sent();
        self.metering.count_attempts(self.retries + 1);
        self.metering.note_error(failed.error.code());
        if let Way::Translated(translation) = &self.way
            && let Some(estimate) = translation.estimate()
        {
            self.metering.end(End::Failed);
            let mut response = shared.count(self.surface.dialect(), estimate);
            response.extensions_mut().insert(Attempts(self.retries + 1));
            return response;
        }
        if self.onward.more && failed.error.may_fail_over() {
            self.metering.pass_on();
        }
        self.metering.end(End::Failed);
        let mut response = shared.answer(failed.error, self.surface.dialect());
        response.extensions_mut().insert(Onward { sent, ..self.onward });
        for (name, value) in kept_headers(&failed.headers) {
            if let Some(name) = name {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        response.extensions_mut().insert(Attempts(self.retries + 1));
        response
    }
}
