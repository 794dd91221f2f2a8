//! The steps of one call, which [`ResponseFuture`](crate::future::ResponseFuture) puts in order.

pub(crate) mod attempt;
mod begin;
pub(crate) mod budget;
pub(crate) mod chunk_path;
pub(crate) mod deadline;
mod end;
mod first_bytes;
mod identify;
pub(crate) mod receive;
mod refusal;
pub(crate) mod silence;
pub(crate) mod timeout;

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use tokio::time::Instant;

use self::attempt::{Answer, Failed, Step, is_encoded};
use self::budget::BudgetedCall;
use self::chunk_path::ChunkPath;
use self::deadline::Deadline;
use self::first_bytes::fault_of;
use self::receive::{Aim, Received, Receiving};
use self::timeout::Watch;
use crate::body::RequestBody;
use crate::codec::fault;
use crate::dialect::Surface;
use crate::error::{Awaited, BoxError, Error, Unsent};
use crate::headers::{ESTIMATED, USAGE};
use crate::ir::{Fault, FaultKind};
use crate::memory::HeldMemory;
use crate::outbound::{Prepared, Way, answer_model};
use crate::respond::fault_in;
use crate::retry::Failure;
use crate::route::{Later, Onward};
use crate::target::Target;
use crate::target::config::ConnectTimeout;
use crate::usage::{Metering, UsageSink};
use crate::wish::{Wish, Wishes};

/// The least that `Retry-After` can say, which is waited for in any case.
const SHORT: Duration = Duration::from_secs(1);

/// A request that has been read and is being tried.
pub(crate) struct Call<K: UsageSink> {
    /// What the client asked for.
    surface: Surface,
    /// What is told in place of a count of tokens, if that is asked for.
    estimate: Option<u64>,
    way: Way,
    /// What is told of a request that passes without all that it says.
    lost: Option<HeaderValue>,
    /// The answer names another model than is asked.
    is_renamed: bool,
    /// Gone once the last attempt is under way.
    prepared: Option<Prepared>,
    streaming: bool,
    metering: Box<Metering<K>>,
    watch: Watch,
    deadline: Option<Deadline>,
    /// What a failure means to those who count.
    onward: Onward,
    /// Whose turn it is among several secrets.
    turn: usize,
    retries: u32,
    /// What the provider has refused, and is asked without.
    withdrawn: Wishes,
    /// Another limit has been asked for than the client's.
    fitted: bool,
    /// Gone once it is kept for another ask.
    budgeted: Option<BudgetedCall>,
}

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// The request of the next attempt, which begins now.
    pub(crate) fn attempt(&mut self, target: &Target) -> Option<Request<RequestBody>> {
        let config = target.config();
        self.watch = Watch::new(config.timeouts, self.deadline, self.streaming);
        let may_fit = !self.fitted && self.prepared.as_ref().is_some_and(Prepared::may_fit);
        let may_ask_anew = may_fit || self.prepared.as_ref().is_some_and(Prepared::may_be_refused);
        let may_ask_anew = may_ask_anew || self.has_other_secret(target);
        let may_repeat = self.repeats() < config.retry.max_retries || may_ask_anew;
        let mut request =
            if may_repeat { self.prepared.as_ref()?.request() } else { self.prepared.take()?.into_request() };
        if let Some(connect) = config.timeouts.connect {
            request.extensions_mut().insert(ConnectTimeout(connect));
        }
        target.sign_at(SystemTime::now(), self.turn, &mut request);
        self.metering.attempts_mut().begin();
        Some(request)
    }

    /// Ready when the reply has not come in time.
    pub(crate) fn poll_late(&mut self, target: &Target, cx: &mut Context<'_>) -> Poll<Failed> {
        self.watch.poll_late(cx, false).map(|late| Failed::late(target, late))
    }

    /// What becomes of a call for which there is no time to ask anybody.
    pub(crate) fn out_of_time(&self, target: &Target) -> Option<Failed> {
        self.watch.out_of_time().map(|late| Failed::late(target, late))
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
    pub(crate) fn arrived<B>(
        &mut self,
        target: &Target,
        response: Response<B>,
        held: Option<&HeldMemory>,
    ) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let status = response.status();
        self.metering.attempts_mut().answered(status);
        if !status.is_success() {
            return self.refused(target, response);
        }
        self.metering.begin(status, response.headers());
        let meter = self.metering.meter();
        let events = meter.reads_events();
        let taught = |wish: &Wish| wish.is_given_up(events) && self.withdrawn.may_teach(*wish);
        for wish in self.withdrawn.iter().filter(taught) {
            target.forgo(wish);
        }
        self.watch.expect_stream(meter.is_stream());
        let translated = matches!(self.way, Way::Translated(_));
        if translated && is_encoded(response.headers()) {
            self.metering.meter_mut().mark_unread();
            let fault = Fault::new(FaultKind::Unreadable, "the provider's answer is compressed, unasked");
            return Step::Failed(Failed::of(target, fault, response.headers()));
        }
        let is_awaited = self.surface.operation().awaits_answer() && !is_encoded(response.headers());
        let aim = self.aim().filter(|_| !is_awaited || !self.metering.meter().is_in_doubt());
        let Some(aim) = aim.or(is_awaited.then_some(Aim::Beginning)) else { return Step::Pass(response) };
        let (head, body) = response.into_parts();
        Step::Receive(Receiving::new(head, body, aim).holding(held))
    }

    /// How much is awaited of a reply that does not pass as it is, or is a stream.
    fn aim(&self) -> Option<Aim> {
        let meter = self.metering.meter();
        let (wants_stream, is_whole) = match &self.way {
            Way::Translated(translation) => (translation.is_stream(), true),
            Way::Same | Way::HidingUsage => (true, false),
            Way::Renamed(_) => (true, meter.reads_whole()),
        };
        let is_stream = meter.reads_events() && wants_stream;
        if is_stream { Some(Aim::FirstToken) } else { is_whole.then_some(Aim::Whole) }
    }

    /// Judges what has come of a reply.
    pub(crate) fn received<B>(
        &mut self,
        target: &Target,
        receiving: Receiving<B>,
        received: Received,
    ) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let headers = &receiving.head.headers;
        match received {
            Received::Ending => return Step::Refused(Failed::from(Error::Ending)),
            _ if receiving.is_refusal() => return self.objected(target, receiving),
            Received::Broken => return Step::Failed(Failed::of(target, Fault::truncated(), headers)),
            Received::TooLarge => return Step::Failed(Failed::of(target, Fault::too_large(), headers)),
            Received::NoMemory => return Step::Failed(Failed::from(Error::TooManyBodies)),
            Received::Enough => {}
        }
        match receiving.aim {
            Aim::Whole => return self.whole(target, receiving),
            Aim::Beginning => {
                // Called JSON, it may be the stream that was asked for.
                let Some(aim) = self.aim() else { return self.begun(target, receiving) };
                self.watch.expect_stream(self.metering.meter().is_stream());
                return Step::Receive(receiving.aiming(aim));
            }
            Aim::FirstToken | Aim::Refusal | Aim::Objection => {}
        }
        let meter = self.metering.meter_mut();
        if meter.has_failed() && !meter.has_token() {
            meter.refuse();
            let said = receiving.joined();
            // As with a status that says so, it was not free.
            if fault::is_of_an_answer(&said) {
                meter.mark_sent();
            }
            let fault = fault_in(&said, meter.dialect());
            return Step::Failed(Failed::of(target, fault, headers));
        }
        if receiving.is_over() && !meter.has_token() && !meter.has_end() {
            if meter.reads_json(&receiving.joined()) {
                return match &self.way {
                    Way::Translated(_) | Way::Renamed(_) => self.whole(target, receiving),
                    Way::Same | Way::HidingUsage => self.begun(target, receiving),
                };
            }
            return Step::Failed(Failed::of(target, Fault::truncated(), headers));
        }
        let answer = self.stream(receiving);
        if let Some((_, via)) = &answer.rest
            && let Some(fault) = via.failed_at_once()
        {
            if via.lacks_room() {
                return Step::Failed(Failed::from(Error::TooManyBodies));
            }
            let failed = Failed::of(target, fault.clone(), &answer.head.headers);
            self.discard(fault.kind);
            return Step::Failed(failed);
        }
        Step::Answer(Box::new(answer))
    }

    /// A stream on its way, as far as it has come.
    fn stream<B>(&self, receiving: Receiving<B>) -> Answer<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        if let Way::Renamed(name) = &self.way {
            let begun = answer_model::beginning(receiving.joined(), name);
            let (mut head, _, rest) = receiving.into_parts();
            head.headers.remove(CONTENT_LENGTH);
            return Answer { head, held: VecDeque::from([begun]), rest: Some((rest, ChunkPath::Pass)) };
        }
        let room = receiving.memory();
        let (mut head, held, rest) = receiving.into_parts();
        let mut via = match &self.way {
            Way::Same | Way::Renamed(_) => ChunkPath::Pass,
            Way::HidingUsage => ChunkPath::Hide(Box::default()),
            Way::Translated(translation) => {
                translation.write_stream_head(&mut head);
                ChunkPath::Translate(Box::new(translation.translator().holding(room)))
            }
        };
        // An error may have to be added.
        if !via.is_pass() || self.metering.meter().reads_events() {
            head.headers.remove(CONTENT_LENGTH);
        }
        let held = held.into_iter().map(|chunk| via.push(chunk)).collect();
        Answer { head, held, rest: Some((rest, via)) }
    }

    fn whole<B>(&mut self, target: &Target, receiving: Receiving<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let body = receiving.joined();
        let events = self.metering.meter().reads_events();
        let headers = receiving.head.headers.clone();
        let (mut head, ..) = receiving.into_parts();
        let translation = match &self.way {
            Way::Translated(translation) => translation,
            Way::Renamed(name) => {
                let cut = || self.metering.meter().lacks_end().then(Fault::truncated);
                if let Some(fault) = fault_of(&body).or_else(cut) {
                    return self.no_answer(target, fault, &headers);
                }
                head.headers.remove(CONTENT_LENGTH);
                return Step::Answer(Box::new(Answer::whole(head, answer_model::whole(body, name))));
            }
            Way::Same | Way::HidingUsage => return Step::Answer(Box::new(Answer::whole(head, body))),
        };
        match translation.reply_with(&body, events, self.metering.meter().told_input()) {
            Ok((body, losses)) => {
                self.metering.note_losses(&losses);
                translation.write_head(&mut head, losses);
                if self.metering.meter().is_estimated() {
                    head.headers.insert(USAGE, ESTIMATED);
                }
                Step::Answer(Box::new(Answer::whole(head, body)))
            }
            Err(fault) => self.no_answer(target, fault, &headers),
        }
    }

    /// Notes what an answer is for which the client is told of a failure.
    fn discard(&mut self, kind: FaultKind) {
        let meter = self.metering.meter_mut();
        match kind {
            FaultKind::Truncated => {}
            FaultKind::Unreadable => meter.mark_unread(),
            _ => meter.refuse(),
        }
    }

    /// How long to wait before another attempt, if any. One that timed out is paid for: the request was not
    /// free.
    pub(crate) fn retry(&mut self, target: &Target, failed: &Failed) -> Option<Duration> {
        self.metering.attempts_mut().failed(failed.error.code());
        if let Error::Timeout { .. } = failed.error {
            self.metering.meter_mut().mark_sent();
        }
        let failure = match &failed.error {
            Error::Provider { fault, .. } => {
                Failure::Response { status: fault.kind.status(), headers: &failed.headers }
            }
            Error::Token { source, .. } if !source.is_passing() => return None,
            Error::Timeout { awaited: Awaited::Answer, .. } | Error::TooManyBodies => return None,
            _ => Failure::NoResponse,
        };
        self.next(target, failure)
    }

    fn next(&mut self, target: &Target, failure: Failure<'_>) -> Option<Duration> {
        let (retry, now) = (&target.config().retry, SystemTime::now());
        self.onward.later = None;
        let wait = retry.next_at(now, self.repeats(), failure, fastrand::f64())?;
        // What would be too late is not waited for: another target may serve the request in time.
        if !self.watch.leaves(wait) {
            return None;
        }
        // Who is not to be asked for longer is passed over while another one may be.
        let most = retry.backoff.max(SHORT);
        if self.onward.more && failure.asked_at(now).is_some_and(|asked| asked > most) {
            let may = self.budgeted.as_mut().is_some_and(BudgetedCall::may_be_put_off);
            self.onward.later =
                may.then(|| Later { at: Instant::now() + wait, repeats: self.repeats().saturating_add(1) });
            return None;
        }
        if !self.may_repeat(target) {
            return None;
        }
        tracing::debug!(target = target.name(), retries = self.retries + 1, ?wait, "trying again");
        Some(self.again(wait))
    }

    /// Another attempt is to be made.
    pub(crate) fn rest(&mut self) {
        self.metering.attempts_mut().end();
    }

    /// Whether there is a secret that no attempt has used.
    fn has_other_secret(&self, target: &Target) -> bool {
        usize::try_from(self.retries).is_ok_and(|retries| retries + 1 < target.secrets())
    }

    /// How often the provider has been asked again, before it was passed over, too.
    fn repeats(&self) -> u32 {
        self.onward.repeats.saturating_add(self.retries)
    }

    /// How often the provider has been asked.
    fn attempts(&self) -> u32 {
        self.retries + 1 + self.withdrawn.count() + u32::from(self.fitted)
    }

    fn may_repeat(&mut self, target: &Target) -> bool {
        let may = self.budgeted.as_mut().is_some_and(BudgetedCall::may_repeat);
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
