//! The Service: one decision per call.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::cost::Cost;
use crate::decide::{Decided, Outcome};
use crate::decision_request::{DecisionRequest, Part};
use crate::early_charge::{self, EarlyCharge, EarlyCharges};
#[cfg(feature = "redis")]
use crate::error::Unavailable;
use crate::error::{Denied, MissingPart};
use crate::future::{PendingRequest, ResponseFuture};
use crate::handle::{ReservationHandle, SettleGuard};
use crate::headers;
use crate::layer::{KeyLookup, Settings};
use crate::observe::Decision;
use crate::policy::OnLimit;
use crate::respond::Refusal;
use crate::wait_queue::HeldBytes;

/// Passes on the requests that a limiter admits and answers the others.
///
/// Clones share the limiter. `poll_ready` is that of the inner service; where a decision takes time, the
/// instance that was ready is dropped, and another one asked for readiness when the request passes: who waits
/// keeps nothing that others need.
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    settings: Arc<Settings>,
}

/// A request that passes, or the answer to one that does not.
pub(crate) enum Verdict<B> {
    Pass(Request<B>, Option<SettleGuard>),
    Refuse(Response<Bytes>),
}

impl<S> RateLimit<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the wrapped service out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B, ResBody> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    ResBody: Body,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = &self.settings;
        let (mut parts, body) = request.into_parts();
        let key = if (settings.exempt)(&parts) { KeyLookup::Nobody } else { settings.key(&parts) };
        let key = match key {
            KeyLookup::By(key) => key,
            KeyLookup::Nobody => {
                settings.observer.decided(&Decision::Exempt);
                let inner = self.inner.call(Request::from_parts(parts, body));
                return ResponseFuture::passed(inner, None, false);
            }
            KeyLookup::Lacks(missing) if settings.decider.policy().on_limit() == OnLimit::Warn => {
                settings.observer.decided(&Decision::Missing(&missing));
                let inner = self.inner.call(Request::from_parts(parts, body));
                return ResponseFuture::passed(inner, None, settings.report_levels);
            }
            KeyLookup::Lacks(missing) => {
                return ResponseFuture::refused(settings.refuse_missing(missing, &mut parts));
            }
        };
        let begun = EarlyCharges::take(&mut parts.extensions, settings);
        let cost = settings.cost(&parts);
        let (cost, begun, waited) = match begun {
            Some(EarlyCharge { taken: Some(taken), .. }) if cost.tokens == 0 => {
                let guard = settings.admitted(taken, None, &mut parts);
                let inner = self.inner.call(Request::from_parts(parts, body));
                return ResponseFuture::passed(inner, Some(guard), false);
            }
            Some(EarlyCharge { taken: Some(taken), waited, .. }) => {
                (Cost { requests: 0, ..cost }, Some(taken), waited)
            }
            Some(EarlyCharge { taken: None, waited, .. }) => (cost, None, waited),
            None => (cost, None, Duration::ZERO),
        };
        let held = parts.extensions.get().map_or(0, |HeldBytes(bytes)| *bytes);
        let request = DecisionRequest::new(key, cost, Part::Rest, &mut parts.extensions);
        let request = DecisionRequest { held, waited, ..request };
        match settings.decider.decide(request) {
            Decided::Now(outcome) => match settings.act(outcome, begun, parts, body) {
                Verdict::Pass(request, guard) => {
                    ResponseFuture::passed(self.inner.call(request), guard, settings.report_levels)
                }
                Verdict::Refuse(response) => ResponseFuture::refused(response),
            },
            Decided::Later(decision) => {
                let service = self.inner.clone();
                // The one that is ready may have what others wait for.
                self.inner = service.clone();
                let pending = PendingRequest { settings: Arc::clone(settings), service, begun, parts, body };
                ResponseFuture::deciding(decision, pending)
            }
        }
    }
}

// === impl Settings ===

impl Settings {
    /// Does with a request what was decided; `begun` was taken of its cost before.
    pub(crate) fn act<B>(
        self: &Arc<Self>,
        outcome: Outcome,
        begun: Option<ReservationHandle>,
        mut parts: Parts,
        body: B,
    ) -> Verdict<B> {
        match (outcome, self.decider.policy().on_limit()) {
            (Outcome::Admitted(charge), _) => {
                let handle = ReservationHandle::new(charge, Arc::clone(self));
                let guard = self.admitted(handle, begun, &mut parts);
                Verdict::Pass(Request::from_parts(parts, body), Some(guard))
            }
            (Outcome::Denied(denied), OnLimit::Warn) => {
                self.observer.decided(&Decision::Warned(&denied));
                Verdict::Pass(Request::from_parts(parts, body), None)
            }
            (Outcome::Denied(denied), _) => {
                let denied = match begun {
                    Some(begun) => begun.cancel_beside(denied),
                    None => denied,
                };
                Verdict::Refuse(self.refuse(denied, &mut parts))
            }
            #[cfg(feature = "redis")]
            (Outcome::Unavailable, OnLimit::Reject | OnLimit::Queue(_)) => {
                if let Some(begun) = begun {
                    begun.cancel_own();
                }
                Verdict::Refuse(self.refuse_unavailable(&mut parts))
            }
            #[cfg(feature = "redis")]
            (Outcome::Unavailable, OnLimit::Warn) => self.unchecked(parts, body),
            (Outcome::Unchecked, _) => self.unchecked(parts, body),
        }
    }

    /// A request that passes whatever the limits say.
    fn unchecked<B>(&self, parts: Parts, body: B) -> Verdict<B> {
        self.observer.decided(&Decision::Unchecked);
        Verdict::Pass(Request::from_parts(parts, body), None)
    }

    /// The response to a request that a limit denies. As with the other refusals, what layers have taken for
    /// it before its body was read comes back.
    pub(crate) fn refuse(&self, denied: Denied, request: &mut Parts) -> Response<Bytes> {
        early_charge::cancel(&mut request.extensions);
        self.observer.decided(&Decision::Denied(&denied));
        let mut response = self.responder.respond(Refusal::Denied(&denied), request);
        let told = response.headers_mut();
        if self.report_levels {
            denied.write_fields(told);
            if headers::is_of_anthropic(&request.headers) {
                denied.levels().write_anthropic_fields(told, SystemTime::now());
            }
        } else {
            headers::refused(told, &denied);
        }
        response.extensions_mut().insert::<Denied>(denied);
        response
    }

    /// The response to a request of which nobody knows whose it is.
    pub(crate) fn refuse_missing(&self, missing: MissingPart, request: &mut Parts) -> Response<Bytes> {
        early_charge::cancel(&mut request.extensions);
        self.observer.decided(&Decision::Missing(&missing));
        let mut response = self.responder.respond(Refusal::Missing(&missing), request);
        if response.status() == StatusCode::UNAUTHORIZED {
            missing.write_fields(response.headers_mut());
        }
        response.extensions_mut().insert(missing);
        response
    }

    /// The response to a request that cannot be decided on.
    #[cfg(feature = "redis")]
    pub(crate) fn refuse_unavailable(&self, request: &mut Parts) -> Response<Bytes> {
        early_charge::cancel(&mut request.extensions);
        self.observer.decided(&Decision::Unavailable);
        let mut response = self.responder.respond(Refusal::Unavailable(&Unavailable), request);
        Unavailable.write_fields(response.headers_mut());
        response.extensions_mut().insert(Unavailable);
        response
    }

    /// The guard of an admitted request, whose handle is left in its extensions if there are tokens to
    /// settle.
    fn admitted(
        &self,
        handle: ReservationHandle,
        begun: Option<ReservationHandle>,
        request: &mut Parts,
    ) -> SettleGuard {
        self.observer.decided(&Decision::Admitted(handle.levels()));
        let metering = self.metering(request);
        if self.counts_tokens() {
            handle.enter(&mut request.extensions);
        }
        SettleGuard::new(handle, begun, metering, &request.headers)
    }
}
