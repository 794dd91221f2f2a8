//! `retry` of a rule: a request that has failed is sent again.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, request::Parts};
use nantian_lb::Tried;
use tokio::time::{sleep, timeout};
use tower::{Layer, Service};

use super::{RetryBudget, TimedOut};
use crate::{
    body::{Body, BoxError},
    compile::{BackendService, LocalFuture},
    ir,
    metrics::RouteMetrics,
    replay::ReplayBuffer,
    respond::find,
    upstream::UpstreamError,
};

/// A wait grows up to this many times the first.
const LONGEST: u32 = 16;
/// The most bytes of a body that are kept; a longer one is sent once.
const KEPT: usize = 1 << 20;

/// Sends a request again that has failed.
#[derive(Debug, Clone)]
pub(crate) struct RetryLayer {
    retry: ir::RouteRetry,
    budget: Arc<RetryBudget>,
    metrics: Arc<RouteMetrics>,
    worker: usize,
}

/// The service of [`RetryLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Retry {
    inner: BackendService,
    layer: RetryLayer,
}

// === impl RetryLayer ===

impl RetryLayer {
    /// Takes retries from the part of `worker` in `budget`, and counts them in its shard.
    pub(crate) fn new(
        retry: ir::RouteRetry,
        budget: Arc<RetryBudget>,
        metrics: Arc<RouteMetrics>,
        worker: usize,
    ) -> Self {
        Self { retry, budget, metrics, worker }
    }
}

impl Layer<BackendService> for RetryLayer {
    type Service = Retry;

    fn layer(&self, inner: BackendService) -> Retry {
        Retry { inner, layer: self.clone() }
    }
}

// === impl Retry ===

impl Service<Request<Body>> for Retry {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = LocalFuture<Response<Body>, BoxError>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    /// # Cancellation
    /// Dropping the future drops the present attempt; no other is made.
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.layer.budget.deposit(self.layer.worker);
        LocalFuture::new(self.clone().run(request))
    }
}

impl Retry {
    async fn run(self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (mut parts, body) = request.into_parts();
        // Copies of the parts share it: no endpoint is tried twice while there is another.
        parts.extensions.insert(Tried::new());
        let replay = ReplayBuffer::of(body, KEPT);
        let next = || replay.as_ref().map_or_else(Body::empty, ReplayBuffer::next);
        let mut wait = self.layer.retry.backoff;
        let mut body = next();
        for _ in 0..self.layer.retry.attempts {
            let result = self.inner.call(Request::from_parts(parts.clone(), body)).await;
            let may_repeat = replay.as_ref().is_none_or(ReplayBuffer::is_whole);
            if !may_repeat
                || !self.has_failed(&parts, &result)
                || !self.layer.budget.withdraw(self.layer.worker)
            {
                return result;
            }
            if let Some(shard) = self.layer.metrics.shard(self.layer.worker) {
                shard.retried();
            }
            // What has yet to be read of the content is for the next attempt alone.
            body = next();
            let drained = async {
                if let Ok(response) = result {
                    let _ = timeout(wait, response.into_body().drain()).await;
                }
            };
            tokio::join!(sleep(jittered(wait)), drained);
            wait = (wait * 2).min(self.layer.retry.backoff * LONGEST);
        }
        drop(replay);
        self.inner.call(Request::from_parts(parts, body)).await
    }

    /// Whether an attempt has failed in a way that another one may mend. What may have reached the backend is
    /// repeated only if that does no harm (RFC 9110, section 9.2.2).
    fn has_failed(&self, request: &Parts, result: &Result<Response<Body>, BoxError>) -> bool {
        match result {
            Ok(response) => self.layer.retry.codes.contains(&response.status().as_u16()),
            Err(error) => match find::<UpstreamError>(error.as_ref()) {
                Some(UpstreamError::Connect { .. } | UpstreamError::ConnectTimeout { .. }) => true,
                Some(error @ UpstreamError::Exchange { .. }) => {
                    error.is_of_endpoint() && request.method.is_idempotent()
                }
                Some(_) => false,
                None => find::<TimedOut>(error.as_ref()).is_some() && request.method.is_idempotent(),
            },
        }
    }
}

/// At least `wait`, and up to half as long again, so that those who failed together do not come back
/// together.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(1.0 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future, rc::Rc};

    use http::StatusCode;
    use http_body_util::BodyExt as _;
    use tower::service_fn;

    use super::*;
    use crate::{
        compile::LocalService,
        kept::{KeptBytes, tests::all_but},
        metrics::Metrics,
    };

    #[tokio::test(start_paused = true)]
    async fn last_attempt_keeps_nothing_that_it_has_sent() {
        let _others = all_but(150);
        let calls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&calls);
        let backend = LocalService::new(service_fn(move |request: Request<Body>| {
            counted.set(counted.get() + 1);
            let is_silent = counted.get() == 2;
            async move {
                request.into_body().collect().await?;
                if is_silent {
                    future::pending::<()>().await;
                }
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok::<_, BoxError>(response)
            }
        }));
        let retry = ir::RouteRetry { codes: vec![503], attempts: 1, backoff: Duration::from_millis(25) };
        let (budget, metrics) = (Arc::new(RetryBudget::new(1)), Metrics::new(1).route("demo/route"));
        let mut service = RetryLayer::new(retry, budget, metrics, 0).layer(backend);
        let mut answer = service.call(Request::new(Body::full(vec![b'a'; 100])));
        assert!(timeout(Duration::from_secs(60), &mut answer).await.is_err());
        assert_eq!(calls.get(), 2);
        let mut more = KeptBytes::default();
        assert!(more.set(150));
    }
}
