//! How a call ends.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body::Body;

use super::Call;
use crate::body::ResponseBody;
use crate::call::attempt::{Answer, Failed};
use crate::call::budget::BudgetedCall;
use crate::call::chunk_path::ChunkPath;
use crate::call::deadline::Deadline;
use crate::call::receive::Rest;
use crate::codec::Defaults;
use crate::dialect::{ClientDialect, Operation};
use crate::error::Error;
use crate::headers::{DROPPED, MODEL};
use crate::ir::{Fault, FaultKind};
use crate::layer_parts::LayerParts;
use crate::outbound::{Way, clean_response, kept_headers};
use crate::retry::Attempts;
use crate::route::Onward;
use crate::target::Target;
use crate::translate::refusal::too_long;
use crate::usage::{End, MeteredBody, UsageSink};

// === impl Call ===

impl<K: UsageSink> Call<K> {
    /// The response of an attempt whose reply passes as it comes.
    pub(crate) fn pass<B, O>(
        self,
        shared: &LayerParts<O>,
        response: Response<B>,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let (head, body) = response.into_parts();
        let status = head.status;
        let answer = Answer { head, held: VecDeque::new(), rest: Some((Rest::of(body), ChunkPath::Pass)) };
        if status.is_success() {
            return self.finish(shared, answer);
        }
        let fault = shared.target.refusals().read(status, &[]);
        self.pass_refusal(shared, answer, fault)
    }

    /// The response of an attempt that was refused, in the provider's words.
    pub(crate) fn pass_refusal<B, O>(
        mut self,
        shared: &LayerParts<O>,
        answer: Answer<B>,
        fault: Fault,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let estimate = self.estimate_instead(answer.head.status, &fault);
        let error = Error::Provider { target: shared.target.name().to_owned(), fault };
        if let Some(count) = estimate {
            return self.estimated(shared, count, error.code());
        }
        let onward = Onward { sent: self.metering.meter().is_sent(), ..self.onward };
        if !error.may_fail_over() {
            let mut response = self.finish(shared, answer);
            response.extensions_mut().insert(onward);
            return response;
        }
        let permit = self.lend();
        self.metering.note_error(error.code());
        if onward.more {
            self.metering.pass_on();
        }
        let mut response = self.finish(shared, answer);
        response.extensions_mut().insert(Arc::new(error));
        response.extensions_mut().insert(onward);
        if let Some(permit) = permit {
            response.extensions_mut().insert(permit);
        }
        response
    }

    /// The right to be repeated, for the extensions of the response of a target that may be asked again
    /// later.
    fn lend(&mut self) -> Option<Arc<BudgetedCall>> {
        self.onward.later.and_then(|_| self.budgeted.take()).map(Arc::new)
    }

    /// The response with an answer.
    pub(crate) fn finish<B, O>(
        mut self,
        shared: &LayerParts<O>,
        answer: Answer<B>,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        let attempts = self.attempts();
        let mut head = answer.head;
        clean_response(&mut head.headers);
        if let Some(lost) = self.lost.take() {
            head.headers.insert(DROPPED, lost);
        }
        if self.is_renamed
            && head.status.is_success()
            && let Ok(model) = HeaderValue::from_str(shared.target.model())
        {
            head.headers.insert(MODEL, model);
        }
        let held = answer.held;
        let body = match answer.rest {
            None => {
                self.metering.end(End::Finished);
                ResponseBody::local(held.into_iter().next().unwrap_or_default())
            }
            Some((rest, via)) => {
                let body = MeteredBody::new(rest, Some(self.metering)).judged();
                let body = if via.is_translated() { body.hold() } else { body };
                let target = Arc::clone(&shared.target);
                ResponseBody::upstream(body, held, via, self.watch, target, self.surface)
            }
        };
        let mut response = Response::from_parts(head, body);
        note(attempts, &mut response);
        keep(self.deadline, &mut response);
        response
    }

    /// The response to a request that nobody has answered.
    pub(crate) fn fail<B, O>(mut self, shared: &LayerParts<O>, failed: Failed) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        // In its own dialect a client knows what a failure means.
        if let (Way::Translated(_), Some(count)) = (&self.way, self.estimate) {
            return self.estimated(shared, count, failed.error.code());
        }
        let sent = self.metering.meter().is_sent();
        self.metering.note_error(failed.error.code());
        if self.onward.more && failed.error.may_fail_over() {
            self.metering.pass_on();
        }
        self.metering.end(if matches!(failed.error, Error::Ending) { End::Dropped } else { End::Failed });
        let mut headers = kept_headers(&failed.headers);
        if failed.error.is_of_credential() {
            // Another try mends nothing, whatever the provider says; the clients of OpenAI and Anthropic are
            // told so by this field.
            headers.remove(RETRY_AFTER);
            headers.remove("retry-after-ms");
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        let told = self.told_in_stream(&shared.target, &failed.error);
        let mut response = shared.answer(failed.error, self.surface.dialect());
        if let Some(events) = told {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            *response.body_mut() = ResponseBody::local(events);
        }
        response.extensions_mut().insert(Onward { sent, ..self.onward });
        if let Some(permit) = self.lend() {
            response.extensions_mut().insert(permit);
        }
        keep(self.deadline, &mut response);
        for (name, value) in headers {
            if let Some(name) = name {
                response.headers_mut().entry(name).or_insert(value);
            }
        }
        note(self.attempts(), &mut response);
        response
    }

    /// Whether a stream is to tell of a failure, and no status: that a conversation is too long OpenAI says
    /// in one to who has asked for it, and Codex shortens a conversation for nothing else.
    pub(super) fn tells_in_stream(&self, fault: &Fault) -> bool {
        let is_chat = self.surface.operation() == Operation::Chat;
        let is_streamed = is_chat && self.surface.dialect() == ClientDialect::Responses && self.streaming;
        is_streamed && fault.kind == FaultKind::ContextLength
    }

    /// That stream.
    fn told_in_stream(&self, target: &Target, error: &Error) -> Option<Bytes> {
        let Error::Provider { fault, .. } = error else { return None };
        self.tells_in_stream(fault).then(|| match &self.way {
            Way::Translated(translation) => translation.too_long(fault),
            Way::Same | Way::HidingUsage | Way::Renamed(_) => {
                let id = format!("resp_{:032x}", fastrand::u128(..));
                too_long(fault, Defaults::of_failure(id, target.model().to_owned()))
            }
        })
    }

    /// What is told in place of a count that passes, if the provider has no such operation and nobody else is
    /// asked for it.
    pub(super) fn estimate_instead(&self, status: StatusCode, fault: &Fault) -> Option<u64> {
        let is_absent = matches!(status.as_u16(), 404 | 405 | 501);
        let goes_on = self.onward.more && fault.kind.is_of_the_provider();
        self.estimate.filter(|_| is_absent && !goes_on)
    }

    /// The response to a count of tokens that the provider does not give.
    fn estimated<B, O>(
        mut self,
        shared: &LayerParts<O>,
        count: u64,
        code: &'static str,
    ) -> Response<ResponseBody<B, K>>
    where
        B: Body<Data = Bytes>,
    {
        self.metering.note_error(code);
        self.metering.end(End::Failed);
        let mut response = shared.count(self.surface.dialect(), count);
        note(self.attempts(), &mut response);
        response
    }
}

/// Tells how often the target was asked, if it was more than once.
fn note<B>(attempts: u32, response: &mut Response<B>) {
    if attempts > 1 {
        response.extensions_mut().insert(Attempts(attempts));
    }
}

/// Tells whoever has set a time that the response keeps to it.
fn keep<B>(deadline: Option<Deadline>, response: &mut Response<B>) {
    if let Some(deadline) = deadline {
        response.extensions_mut().insert(deadline);
    }
}
