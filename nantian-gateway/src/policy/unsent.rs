//! Refunds what was reserved for requests that reached nobody, and for those that are refused or answered before any provider.

use std::{
    error::Error,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use nantian_ai::{Unasked, Unsent};
use nantian_ratelimit::{ReservationHandle, Settlement};
use tower::{Layer, Service};

use crate::{
    body::{Body, BoxError},
    respond::find,
    upstream::UpstreamError,
};

/// Settles the reservation of a request of which nothing was sent, before anybody who knows less does.
#[derive(Debug, Clone, Copy)]
pub(super) struct UnsentLayer;

#[derive(Debug, Clone)]
pub(super) struct UnsentService<S> {
    inner: S,
}

impl<S> Layer<S> for UnsentLayer {
    type Service = UnsentService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        UnsentService { inner }
    }
}

impl<S, B> Service<Request<Body>> for UnsentService<S>
where
    S: Service<Request<Body>, Response = Response<B>, Error = BoxError>,
    S::Future: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let reservation = request.extensions().get::<ReservationHandle>().cloned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let result = answer.await;
            let unsent = match &result {
                Ok(response) => response.extensions().get::<Unasked>().is_some(),
                Err(error) => is_unsent(error.as_ref()),
            };
            if let Some(reservation) = reservation.filter(|_| unsent) {
                reservation.settle(Settlement::NotServed);
            }
            result
        })
    }
}

/// Tells an AIService of an error before which nothing was sent.
pub(super) fn mark_unsent(error: BoxError) -> BoxError {
    if is_unsent(error.as_ref()) { Box::new(Unsent(error)) } else { error }
}

fn is_unsent(error: &(dyn Error + 'static)) -> bool {
    let error = find::<UpstreamError>(error);
    matches!(error, Some(UpstreamError::Connect { .. } | UpstreamError::ConnectTimeout { .. }))
}
