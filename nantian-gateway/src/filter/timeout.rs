//! A time limit on a whole exchange, `timeouts.request` and `timeouts.backendRequest`.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};
use tower::{Layer, Service};

use crate::body::{Body, BoxError};

/// The exchange took longer than its limit. Maps to 504 if the response has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no complete answer within {0:?}")]
pub struct TimedOut(pub Duration);

/// Ends an exchange that takes longer than a limit, the response body included.
#[derive(Debug, Clone, Copy)]
pub struct TimeoutLayer {
    limit: Duration,
}

impl TimeoutLayer {
    /// Allows `limit` for each exchange.
    pub const fn new(limit: Duration) -> Self {
        Self { limit }
    }
}

// === impl TimeoutLayer ===

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout { inner, limit: self.limit }
    }
}

/// The service of [`TimeoutLayer`].
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    limit: Duration,
}

// === impl Timeout ===

impl<S> Service<Request<Body>> for Timeout<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = TimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let sleep = Some(Box::pin(sleep(self.limit)));
        TimeoutFuture { inner: self.inner.call(request), sleep, limit: self.limit }
    }
}

pin_project! {
    /// The future of [`Timeout`]; dropping it drops the inner call.
    #[derive(Debug)]
    pub struct TimeoutFuture<F> {
        #[pin]
        inner: F,
        sleep: Option<Pin<Box<Sleep>>>,
        limit: Duration,
    }
}

// === impl TimeoutFuture ===

impl<F> Future for TimeoutFuture<F>
where
    F: Future<Output = Result<Response<Body>, BoxError>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(result) = this.inner.poll(cx) {
            let (sleep, limit) = (this.sleep.take(), *this.limit);
            return Poll::Ready(result.map(|response| {
                response.map(|body| match sleep {
                    Some(sleep) if !body.is_end_stream() => Body::boxed(TimeoutBody { body, sleep, limit }),
                    _ => body,
                })
            }));
        }
        match this.sleep.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Poll::Ready(Err(TimedOut(*this.limit).into())),
            _ => Poll::Pending,
        }
    }
}

/// What is left of the time, applied to the body.
struct TimeoutBody {
    body: Body,
    sleep: Pin<Box<Sleep>>,
    limit: Duration,
}

// === impl TimeoutBody ===

impl http_body::Body for TimeoutBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // The time first: a client that reads slowly must not stretch it.
        if self.sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(TimedOut(self.limit).into())));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
