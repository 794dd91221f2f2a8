//! What a Service is asked for that is no operation of a model by its path, and may use tokens all the same.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use nantian_ai::Surface;
use nantian_ratelimit::{ReservationHandle, Settlement};
use tower::{Layer, Service};

use crate::body::{Body, BoxError};

/// Keeps what was reserved for a request that a Service serves and nobody can meter.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnmeteredLayer;

#[derive(Debug, Clone)]
pub(super) struct UnmeteredService<S> {
    inner: S,
}

/// Counts a reservation as used when it is dropped: whoever gives up a request does not know what it used.
struct Kept(Option<ReservationHandle>);

impl<S> Layer<S> for UnmeteredLayer {
    type Service = UnmeteredService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        UnmeteredService { inner }
    }
}

impl<S, B> Service<Request<Body>> for UnmeteredService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: 'static,
    B: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_metered =
            Surface::detect_decoded(request.method(), request.uri().path(), request.headers()).is_ok();
        let reservation = request.extensions().get::<ReservationHandle>().filter(|_| !is_metered).cloned();
        let kept = Kept(reservation);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let status = response.status();
            // Who redirects, refuses or fails has not asked a model; behind a timeout somebody may have.
            if !status.is_success() && status != StatusCode::GATEWAY_TIMEOUT {
                kept.let_go();
            }
            Ok(response)
        })
    }
}

impl Kept {
    /// Leaves it to others to settle.
    fn let_go(mut self) {
        self.0 = None;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(reservation) = self.0.take() {
            reservation.settle(Settlement::AsReserved);
        }
    }
}
