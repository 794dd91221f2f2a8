//! The Service: one decision per call.

use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response};
use tower_service::Service;

use crate::body::ResponseBody;
use crate::cost::is_preflight;
use crate::decide::{Charge, Decided, Outcome};
use crate::error::{Denied, Lacking};
use crate::future::ResponseFuture;
use crate::handle::{ReservationHandle, Ticket};
use crate::headers;
use crate::layer::{Claimed, Settings};
use crate::line::HeldBytes;
use crate::observe::Decision;
use crate::policy::OnLimit;

/// Passes on the requests that a limiter admits and answers the others.
///
/// Clones share the limiter. `poll_ready` is that of the inner service; where a decision takes time, the instance that was
/// ready is kept for the request.
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    settings: Arc<Settings>,
}

/// A request that passes, or the answer to one that does not.
pub(crate) enum Verdict<B> {
    Pass(Request<B>, Option<Ticket>),
    Refuse(Response<bytes::Bytes>),
}

impl<S> RateLimit<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }
}

impl<S, B, ResBody> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = &self.settings;
        if settings.preflight_exempt && is_preflight(request.method(), request.headers()) {
            settings.observe.decided(&Decision::Exempt);
            return ResponseFuture::passed(self.inner.call(request), None);
        }
        let (parts, body) = request.into_parts();
        let claim = match settings.claim(&parts) {
            Claimed::By(claim) => claim,
            Claimed::Nobody => {
                settings.observe.decided(&Decision::Exempt);
                return ResponseFuture::passed(self.inner.call(Request::from_parts(parts, body)), None);
            }
            Claimed::Lacks(part) => {
                settings.observe.decided(&Decision::Unknown(&part));
                let mut response = settings.responder.unknown(&part, &parts);
                response.extensions_mut().insert(Lacking);
                return ResponseFuture::refused(response);
            }
        };
        let held = parts.extensions.get().map_or(0, |HeldBytes(bytes)| *bytes);
        match settings.decider.decide(claim, settings.cost(&parts), held) {
            Decided::Now(outcome) => match settings.act(outcome, parts, body) {
                Verdict::Pass(request, ticket) => ResponseFuture::passed(self.inner.call(request), ticket),
                Verdict::Refuse(response) => ResponseFuture::refused(response),
            },
            Decided::Later(decision) => {
                let next = self.inner.clone();
                let ready = mem::replace(&mut self.inner, next);
                ResponseFuture::deciding(decision, Arc::clone(settings), ready, parts, body)
            }
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Does with a request what was decided.
    pub(crate) fn act<B>(self: &Arc<Self>, outcome: Outcome, parts: Parts, body: B) -> Verdict<B> {
        match (outcome, self.decider.policy().on_limit()) {
            (Outcome::Admitted(charge), _) => {
                let mut request = Request::from_parts(parts, body);
                let ticket = self.admitted(charge, &mut request);
                Verdict::Pass(request, Some(ticket))
            }
            (Outcome::Denied(denied), OnLimit::Warn) => {
                self.observe.decided(&Decision::Warned(&denied));
                Verdict::Pass(Request::from_parts(parts, body), None)
            }
            (Outcome::Denied(denied), _) => {
                self.observe.decided(&Decision::Denied(&denied));
                let mut response = self.responder.refuse(&denied, &parts);
                headers::refused(response.headers_mut(), &denied);
                response.extensions_mut().insert::<Denied>(denied);
                Verdict::Refuse(response)
            }
            #[cfg(feature = "redis")]
            (Outcome::Unchecked, _) => {
                self.observe.decided(&Decision::Unchecked);
                Verdict::Pass(Request::from_parts(parts, body), None)
            }
            #[cfg(feature = "redis")]
            (Outcome::Unavailable, OnLimit::Warn) => {
                self.observe.decided(&Decision::Unchecked);
                Verdict::Pass(Request::from_parts(parts, body), None)
            }
            #[cfg(feature = "redis")]
            (Outcome::Unavailable, _) => {
                self.observe.decided(&Decision::Unavailable);
                let mut response = self.responder.unavailable(&parts);
                headers::unavailable(response.headers_mut());
                response.extensions_mut().insert(crate::error::Unavailable);
                Verdict::Refuse(response)
            }
        }
    }

    /// The ticket of an admitted request, whose handle is left in its extensions if there are tokens to settle.
    fn admitted<B>(self: &Arc<Self>, charge: Charge, request: &mut Request<B>) -> Ticket {
        self.observe.decided(&Decision::Admitted(charge.levels()));
        let outer = request.extensions().get::<ReservationHandle>().cloned();
        let handle = ReservationHandle::new(charge, Arc::clone(self), outer);
        if self.counts_tokens() {
            request.extensions_mut().insert(handle.clone());
        }
        Ticket::new(handle)
    }
}
