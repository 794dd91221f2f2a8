//! What a provider's refusal comes to.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::Body;

use super::Call;
use crate::call::attempt::{Answer, Failed, Step, is_json};
use crate::call::chunk_path::ChunkPath;
use crate::call::receive::{Aim, Receiving};
use crate::codec::fault::{is_refused_credential, refuses_credential};
use crate::dialect::{Dialect, gemini, openai};
use crate::error::{BoxError, Error};
use crate::ir::FaultKind;
use crate::outbound::Way;
use crate::outbound::fitted_limit::Bound;
use crate::retry::{Failure, tell_wait};
use crate::target::Target;
use crate::usage::UsageSink;
use crate::wish::Wish;

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// Judges a refusal by its status.
    pub(super) fn refused<B>(&mut self, target: &Target, mut response: Response<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let status = response.status();
        let is_auth = refuses_credential(status);
        let is_of_the_secret = is_auth || matches!(status.as_u16(), 403 | 429);
        // That a secret is refused for itself says nothing of the provider's state, so that another one needs
        // no budget. A 403 may as well be of what is asked.
        if is_of_the_secret && self.has_other_secret(target) && (is_auth || self.may_repeat(target)) {
            if is_auth {
                self.metering.attempts_mut().failed("upstream_auth");
            }
            return Step::Again(self.again(Duration::ZERO));
        }
        let failure = Failure::Response { status, headers: response.headers() };
        if !waits_by_words(target, status, response.headers())
            && let Some(wait) = self.next(target, failure)
        {
            return Step::Again(wait);
        }
        if let Some(asked) = failure.asked_at(SystemTime::now()) {
            tell_wait(response.headers_mut(), asked);
        }
        self.metering.begin(status, response.headers());
        // A refused credential is this side's fault: passed on, a client would blame its own.
        if is_auth {
            return Step::Refused(Error::UpstreamAuth { target: target.name().to_owned(), status }.into());
        }
        let is_own = !matches!(self.way, Way::Translated(_)) && is_json(response.headers());
        let passes = is_own && !target.refusals().is_denied(status);
        let aim = match passes {
            true if is_judged_by_words(status) => Aim::Objection,
            true => return Step::Pass(response),
            false => Aim::Refusal,
        };
        let (head, body) = response.into_parts();
        Step::Receive(Receiving::new(head, body, aim))
    }

    /// Judges a refusal by what it says, after its status has been judged.
    pub(super) fn objected<B>(&mut self, target: &Target, mut receiving: Receiving<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let said = receiving.joined();
        let status = receiving.head.status;
        if self.withdraws(status, &said) || self.fits(status, &said) {
            return Step::Again(Duration::ZERO);
        }
        let mut fault = target.refusals().read(status, &said);
        if let Way::Translated(translation) = &self.way
            && let Some(answer) = translation.unfinished(status, &fault.message)
        {
            return self.unfinished(target, receiving.answered(answer));
        }
        // The thoughts, and what the model has failed at, are paid for, whoever is told of them.
        let is_unfinished =
            target.dialect() == Dialect::OpenAi && openai::is_unfinished(status, &fault.message);
        if is_unfinished || fault.kind == FaultKind::Unreadable {
            self.metering.meter_mut().mark_sent();
        }
        // It cannot but think: it calls tools at Responses alone. What has been learnt was of the model
        // before, if there was one.
        let is_learnt = matches!(self.way, Way::Translated(_)) && target.forgoes(Wish::Effort);
        let is_told_not_to = is_learnt || self.withdrawn.has(Wish::Effort);
        if is_told_not_to && fault.kind == FaultKind::Invalid && fault.message.contains("reasoning_effort") {
            target.wish_again(Wish::Effort);
            fault.kind = FaultKind::Unsupported;
        }
        let is_of_the_secret = is_refused_credential(&fault);
        let headers = &mut receiving.head.headers;
        let waits = waits_by_words(target, status, headers) && !is_of_the_secret;
        if waits && let Some(wait) = wait_in_words(target, status, &said) {
            tell_wait(headers, wait);
        }
        // The model has failed, and may do better.
        if waits || fault.kind == FaultKind::Unreadable {
            let failure = Failure::Response { status: fault.kind.status(), headers: &receiving.head.headers };
            if let Some(wait) = self.next(target, failure) {
                return Step::Again(wait);
            }
        }
        if is_of_the_secret && self.has_other_secret(target) {
            self.metering.attempts_mut().failed("upstream_auth");
            return Step::Again(self.again(Duration::ZERO));
        }
        if is_of_the_secret {
            // No time mends it.
            self.onward.later = None;
        }
        // A server that has no such operation may say so in no words of its dialect.
        let is_made_up_for =
            !matches!(self.way, Way::Translated(_)) && self.estimate_instead(status, &fault).is_some();
        let passes = receiving.aim == Aim::Objection || is_made_up_for;
        if passes && !is_of_the_secret && !self.tells_in_stream(&fault) {
            let (head, held, rest) = receiving.into_parts();
            return Step::Objected(
                Box::new(Answer { head, held, rest: Some((rest, ChunkPath::Pass)) }),
                fault,
            );
        }
        Step::Refused(Failed::of(target, fault, &receiving.head.headers))
    }

    /// What a refusal is whose reasons have not come in time: the provider has decided, and is not to be
    /// asked again.
    pub(crate) fn unexplained<B>(&self, target: &Target, receiving: &Receiving<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let fault = target.refusals().read(receiving.head.status, &receiving.joined());
        Step::Refused(Failed::of(target, fault, &receiving.head.headers))
    }

    /// Takes the refusal of a model that has thought for as long as its answer may be for an answer. It was
    /// not free.
    fn unfinished<B>(&mut self, target: &Target, answer: Receiving<B>) -> Step<B>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        self.metering.begin(answer.head.status, &answer.head.headers);
        self.metering.meter_mut().push(&answer.joined());
        self.whole(target, answer)
    }

    /// Asks for as many tokens as the provider allows, if it says so and has been asked for more or for
    /// fewer; once, as that is no retry.
    fn fits(&mut self, status: StatusCode, said: &[u8]) -> bool {
        let Some(bound) = Bound::of_refusal(status, said) else { return false };
        let (Some(prepared), false) = (&mut self.prepared, self.fitted) else { return false };
        self.fitted = prepared.fit(bound);
        if self.fitted {
            self.way = prepared.way().clone();
            self.metering.note_losses(prepared.losses());
        }
        self.fitted
    }

    /// Asks without what the provider refuses, if it can be left out. That is no retry: it says nothing of
    /// the provider's state.
    fn withdraws(&mut self, status: StatusCode, said: &[u8]) -> bool {
        let Some(prepared) = &mut self.prepared else { return false };
        let Some(wish) = prepared.withdraw(status, said, self.onward.more) else { return false };
        self.withdrawn.add(wish);
        self.way = prepared.way().clone();
        self.metering.note_losses(prepared.losses());
        if !matches!(self.way, Way::Translated(_)) {
            self.lost = prepared.losses().header_value();
        }
        true
    }
}

/// Whether the words alone tell how long a provider wants not to be asked.
fn waits_by_words(target: &Target, status: StatusCode, headers: &HeaderMap) -> bool {
    let says_so =
        target.dialect() == Dialect::Gemini || openai::has_limits_in_bodies(&target.config().provider);
    let failure = Failure::Response { status, headers };
    says_so && status == StatusCode::TOO_MANY_REQUESTS && failure.asked_at(SystemTime::now()).is_none()
}

/// How long that is.
fn wait_in_words(target: &Target, status: StatusCode, said: &[u8]) -> Option<Duration> {
    if target.dialect() == Dialect::Gemini {
        return gemini::asked_wait(said);
    }
    let headers = openai::limit_headers(said);
    Failure::Response { status, headers: &headers }.asked_at(SystemTime::now())
}

/// Statuses of which only the words tell what is meant: that something in a request cannot be, with 404 that
/// nobody behind OpenRouter serves it, with 500 that llama.cpp does not, or with 429 that the account has no
/// credit left.
fn is_judged_by_words(status: StatusCode) -> bool {
    matches!(status.as_u16(), 400 | 404 | 422 | 429 | 500)
}
