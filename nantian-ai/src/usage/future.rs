//! The head of a metered reply.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::Response;
use http_body::Body;
use pin_project_lite::pin_project;

use super::{End, MeteredBody, Metering, UsageSink};

pin_project! {
    /// The future of a [`UsageService`](super::UsageService).
    ///
    /// # Cancellation
    /// Dropped, it tells the sink that the request was aborted.
    #[derive(Debug)]
    pub struct UsageFuture<F, K>
    where
        K: UsageSink,
    {
        #[pin]
        inner: F,
        metering: Option<Box<Metering<K>>>,
    }
}

// === impl UsageFuture ===

impl<F, K: UsageSink> UsageFuture<F, K> {
    pub(super) fn new(inner: F, metering: Option<Box<Metering<K>>>) -> Self {
        Self { inner, metering }
    }
}

impl<F, K, B, E> Future for UsageFuture<F, K>
where
    F: Future<Output = Result<Response<B>, E>>,
    K: UsageSink,
    B: Body,
{
    type Output = Result<Response<MeteredBody<B, K>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut metering = this.metering.take();
        if let Some(metering) = metering.as_mut() {
            match &result {
                Ok(response) => metering.begin(response.status(), response.headers()),
                Err(_) => {
                    // It may be a timeout, and behind one the upstream has the prompt.
                    metering.mark_sent();
                    metering.end(End::Failed);
                }
            }
        }
        Poll::Ready(result.map(|response| response.map(|body| MeteredBody::new(body, metering))))
    }
}
