//! The response future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::body::ResponseBody;
use crate::decide::Decision;
use crate::error::{Denied, MissingPart, Unavailable};
use crate::handle::{Attempted, ReservationHandle, SettleGuard};
use crate::headers;
use crate::layer::Settings;
use crate::service::Verdict;

pin_project! {
    /// The future of [`RateLimit`](crate::RateLimit).
    ///
    /// # Cancellation
    ///
    /// Dropping it drops the inner call; its request stays charged, its tokens as they were reserved, unless
    /// somebody settled them. One that waits in a queue, or for the inner service, leaves and has cost
    /// nothing but what [`begin`](crate::RateLimitLayer::begin) has taken.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, B>
    where
        S: Service<Request<B>>,
    {
        #[pin]
        state: State<S, S::Future, B>,
    }
}

pin_project! {
    #[project = StateProj]
    #[project_replace = StateReplaced]
    enum State<S, F, B> {
        Deciding {
            decision: Decision,
            pending: Option<PendingRequest<S, B>>,
        },
        Admitted {
            service: S,
            request: Option<Request<B>>,
            guard: CancelGuard,
            strips: bool,
        },
        Passed {
            // Before the guard, so that a usage observer inside may settle when both are dropped.
            #[pin]
            inner: F,
            guard: Option<SettleGuard>,
            // Whether what an upstream says of its limits ends here where nothing was charged.
            strips: bool,
        },
        Refused {
            response: Option<Response<Bytes>>,
        },
    }
}

/// The charge of a request that the inner service has not seen: when this is dropped it comes back.
struct CancelGuard(Option<SettleGuard>);

/// A request that was not decided on yet, and the service that is to be made ready for it.
pub(crate) struct PendingRequest<S, B> {
    pub(crate) settings: Arc<Settings>,
    pub(crate) service: S,
    /// What was taken before its body was read.
    pub(crate) begun: Option<ReservationHandle>,
    pub(crate) parts: Parts,
    pub(crate) body: B,
}

// === impl ResponseFuture ===

impl<S, B> ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    pub(crate) fn passed(inner: S::Future, guard: Option<SettleGuard>, strips: bool) -> Self {
        Self { state: State::Passed { inner, guard, strips } }
    }

    pub(crate) fn refused(response: Response<Bytes>) -> Self {
        let response = Some(response);
        Self { state: State::Refused { response } }
    }

    pub(crate) fn deciding(decision: Decision, pending: PendingRequest<S, B>) -> Self {
        Self { state: State::Deciding { decision, pending: Some(pending) } }
    }
}

impl<S, B, ResBody> Future for ResponseFuture<S, B>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    ResBody: Body,
{
    type Output = Result<Response<ResponseBody<ResBody>>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Refused { response } => {
                    return match response.take() {
                        Some(response) => Poll::Ready(Ok(response.map(ResponseBody::refused))),
                        None => Poll::Pending,
                    };
                }
                StateProj::Passed { inner, guard, strips } => {
                    let result = ready!(inner.poll(cx));
                    return Poll::Ready(finish(result, guard.take(), *strips));
                }
                StateProj::Admitted { service, request, guard, strips } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        drop(CancelGuard(guard.0.take()));
                        return Poll::Ready(Err(error));
                    }
                    let Some(request) = request.take() else { return Poll::Pending };
                    State::Passed { inner: service.call(request), guard: guard.0.take(), strips: *strips }
                }
                StateProj::Deciding { decision, pending } => {
                    let outcome = ready!(decision.as_mut().poll(cx));
                    let Some(PendingRequest { settings, service, begun, parts, body }) = pending.take()
                    else {
                        return Poll::Pending;
                    };
                    match settings.act(outcome, begun, parts, body) {
                        Verdict::Pass(request, guard) => {
                            let (request, guard) = (Some(request), CancelGuard(guard));
                            State::Admitted { service, request, guard, strips: settings.report_levels }
                        }
                        Verdict::Refuse(response) => State::Refused { response: Some(response) },
                    }
                }
            };
            state.as_mut().project_replace(next);
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        if let Some(guard) = self.0.take() {
            guard.cancel();
        }
    }
}

impl<S, B> fmt::Debug for ResponseFuture<S, B>
where
    S: Service<Request<B>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// Hands the guard on to the body of the response; an error ends it here. [`ReservationHandle`] says what is
/// refunded.
///
/// [`ReservationHandle`]: crate::ReservationHandle
fn finish<B: Body, E>(
    result: Result<Response<B>, E>,
    mut guard: Option<SettleGuard>,
    strips: bool,
) -> Result<Response<ResponseBody<B>>, E> {
    let mut response = result?;
    let extensions = response.extensions();
    let is_refused = extensions.get::<Denied>().is_some()
        || extensions.get::<Unavailable>().is_some()
        || extensions.get::<MissingPart>().is_some();
    if is_refused {
        let is_attempted = extensions.get::<Attempted>().is_some();
        if let Some(guard) = guard.take_if(|_| !is_attempted) {
            guard.cancel();
        }
    } else if let Some(guard) = &mut guard {
        response = guard.meter_head(response);
        guard.report_levels(&mut response);
        if response.status().is_server_error() && response.status() != StatusCode::GATEWAY_TIMEOUT {
            guard.fail();
        }
    } else if strips {
        headers::strip_once(&mut response);
    }
    Ok(response.map(|body| ResponseBody::passed(body, guard)))
}
