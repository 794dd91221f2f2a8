//! The Service: one decision per call.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_service::Service;

use crate::body::ResponseBody;
use crate::cost::is_preflight;
use crate::error::Denied;
use crate::future::ResponseFuture;
use crate::handle::{ReservationHandle, Ticket};
use crate::headers;
use crate::layer::Settings;
use crate::observe::Decision;
use crate::policy::OnLimit;
use crate::reservation::Reservation;

/// Passes on the requests that a limiter admits and answers the others.
///
/// Clones share the limiter. `poll_ready` is that of the inner service.
#[derive(Debug, Clone)]
pub struct RateLimit<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> RateLimit<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }

    /// The ticket of an admitted request, whose handle is left in its extensions if there are tokens to settle.
    fn admitted<B>(&self, reservation: Reservation, request: &mut Request<B>) -> Ticket {
        let settings = &self.settings;
        settings.observe.decided(&Decision::Admitted(reservation.levels()));
        let outer = request.extensions().get::<ReservationHandle>().cloned();
        let handle = ReservationHandle::new(reservation, Arc::clone(settings), outer);
        if settings.counts_tokens() {
            request.extensions_mut().insert(handle.clone());
        }
        Ticket::new(handle)
    }
}

impl<S, B, ResBody> Service<Request<B>> for RateLimit<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let settings = &self.settings;
        if settings.preflight_exempt && is_preflight(request.method(), request.headers()) {
            settings.observe.decided(&Decision::Exempt);
            return ResponseFuture::exempt(self.inner.call(request));
        }
        let (parts, body) = request.into_parts();
        let decision = settings.limiter.admit(settings.key(&parts), settings.cost(&parts));
        match (decision, settings.limiter.policy().on_limit()) {
            (Ok(admitted), _) => {
                let reservation = admitted.reserve();
                let mut request = Request::from_parts(parts, body);
                let ticket = self.admitted(reservation, &mut request);
                ResponseFuture::admitted(self.inner.call(request), ticket)
            }
            (Err(denied), OnLimit::Warn) => {
                settings.observe.decided(&Decision::Warned(&denied));
                ResponseFuture::exempt(self.inner.call(Request::from_parts(parts, body)))
            }
            (Err(denied), OnLimit::Reject) => {
                settings.observe.decided(&Decision::Denied(&denied));
                let mut response = settings.responder.refuse(&denied, &parts);
                headers::refused(response.headers_mut(), &denied);
                response.extensions_mut().insert::<Denied>(denied);
                ResponseFuture::refused(response)
            }
        }
    }
}
