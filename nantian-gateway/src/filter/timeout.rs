//! A time limit on a whole exchange, `timeouts.request` and `timeouts.backendRequest`.

use std::{
    cell::Cell,
    future::Future,
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use http_body::Body as _;
use nantian_ai::Deadline;
use nantian_lb::AttemptTimeout;
use nantian_ratelimit::MaxWait;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower::{Layer, Service};

use crate::{
    body::{Body, BoxError},
    grpc,
};

/// How long whatever stands around a body that ends in time may hold up its end.
const GRACE: Duration = Duration::from_secs(1);

/// The exchange took longer than its limit. Maps to 504 if the response has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no complete answer within {0:?}")]
pub(crate) struct TimedOut(pub(crate) Duration);

/// Ends an exchange that takes longer than a limit, the response body included; a call of gRPC has that of
/// its client besides (`grpc-timeout`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeoutLayer {
    limit: Option<Duration>,
    scope: TimeoutScope,
    /// Whether AIServices are told, which end in their clients' words.
    tells: bool,
    /// Whether limits are told, behind which nobody is to wait longer.
    bounds_waits: bool,
}

/// Where on the way of an exchange a limit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeoutScope {
    /// Around all of it; whoever is further inside may ask when it is over.
    Outside { is_asked: bool },
    /// Further inside.
    Inside,
    /// Around an attempt at an endpoint, which has failed if it was asked and does not answer in time.
    Attempt,
}

/// When an exchange is over, and how long it may take.
#[derive(Debug, Clone, Copy)]
struct ExchangeEnd {
    at: Instant,
    limit: Duration,
}

impl TimeoutLayer {
    /// Allows `limit` for each exchange, and each call of gRPC no more than its client does.
    pub(crate) const fn new(limit: Option<Duration>) -> Self {
        let scope = TimeoutScope::Outside { is_asked: false };
        Self { limit, scope, tells: false, bounds_waits: false }
    }

    /// Allows `limit` for each attempt at one endpoint, which has failed if it does not answer in time.
    pub(crate) const fn of_attempt(limit: Duration) -> Self {
        Self { scope: TimeoutScope::Attempt, ..Self::new(Some(limit)) }
    }

    /// Lets a layer further [`inside`](Self::inside) end the exchange at the same time.
    pub(crate) const fn asked_inside(self, is_asked: bool) -> Self {
        Self { scope: TimeoutScope::Outside { is_asked }, ..self }
    }

    /// Tells AIServices further inside how long they have.
    pub(crate) const fn telling_services(self, tells: bool) -> Self {
        Self { tells, ..self }
    }

    /// Tells limits further inside how long a request may wait for its turn: who would come later is refused
    /// at once.
    pub(crate) const fn bounding_waits(self, bounds_waits: bool) -> Self {
        Self { bounds_waits, ..self }
    }

    /// Ends the exchange when a layer around it would: what is in between sees the answer.
    pub(crate) const fn inside() -> Self {
        Self { scope: TimeoutScope::Inside, ..Self::new(None) }
    }

    /// When an exchange that begins now is over; tells who is inside.
    fn end(&self, request: &mut Request<Body>) -> Option<ExchangeEnd> {
        let of_client = match self.scope {
            TimeoutScope::Inside => return request.extensions().get().copied(),
            // How little time a client has is no fault of an endpoint.
            TimeoutScope::Attempt => None,
            TimeoutScope::Outside { .. } => grpc::timeout(request),
        };
        let limit = match (self.limit, of_client) {
            (Some(limit), Some(of_client)) => limit.min(of_client),
            (limit, of_client) => limit.or(of_client)?,
        };
        if self.tells {
            // Before the timer starts, so that theirs is never the later one.
            request.extensions_mut().insert(Deadline::after(limit));
        }
        if self.bounds_waits {
            request.extensions_mut().insert(MaxWait::from_now(limit));
        }
        let end = ExchangeEnd { at: Instant::now().checked_add(limit)?, limit };
        if self.scope == (TimeoutScope::Outside { is_asked: true }) {
            request.extensions_mut().insert(end);
        }
        Some(end)
    }
}

// === impl TimeoutLayer ===

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Timeout { inner, layer: *self }
    }
}

/// The service of [`TimeoutLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Timeout<S> {
    inner: S,
    layer: TimeoutLayer,
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let scope = self.layer.scope;
        let blame = (scope == TimeoutScope::Attempt).then(|| TimeoutReporter::of(&mut request));
        let end = self.layer.end(&mut request);
        let sleep = end.map(|end| Box::pin(sleep_until(end.at)));
        let limit = end.map(|end| end.limit).unwrap_or_default();
        TimeoutFuture { inner: self.inner.call(request), sleep, limit, scope, blame }
    }
}

pin_project! {
    /// The future of [`Timeout`]; dropping it drops the inner call.
    #[derive(Debug)]
    pub(crate) struct TimeoutFuture<F> {
        #[pin]
        inner: F,
        sleep: Option<Pin<Box<Sleep>>>,
        limit: Duration,
        scope: TimeoutScope,
        blame: Option<TimeoutReporter>,
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
            // What comes when the time is over is the answer of who is inside, and to be sent whole.
            let is_asked = *this.scope == TimeoutScope::Outside { is_asked: true };
            let sleep = sleep.filter(|sleep| !is_asked || Instant::now() < sleep.deadline());
            return Poll::Ready(result.map(|response| {
                let ends_in_time = response.extensions().get::<Deadline>().is_some();
                response.map(|body| match sleep {
                    Some(mut sleep) if !body.is_end_stream() => {
                        if ends_in_time {
                            let last = sleep.deadline() + GRACE;
                            sleep.as_mut().reset(last);
                        }
                        timed(body, sleep, limit, ends_in_time)
                    }
                    _ => body,
                })
            }));
        }
        match this.sleep.as_mut().map(|sleep| sleep.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => {
                if let Some(blame) = this.blame {
                    blame.tell();
                }
                Poll::Ready(Err(TimedOut(*this.limit).into()))
            }
            _ => Poll::Pending,
        }
    }
}

/// A body for what is left of the time. One that ends in time sees to that itself, unless something around it
/// is held up.
fn timed(body: Body, mut sleep: Pin<Box<Sleep>>, limit: Duration, ends_in_time: bool) -> Body {
    body.polled_by(move |body, cx| {
        if ends_in_time {
            let polled = Pin::new(&mut *body).poll_frame(cx);
            if polled.is_ready() {
                return polled;
            }
        }
        // The time first: a client that reads slowly must not stretch it.
        if sleep.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(TimedOut(limit).into())));
        }
        if ends_in_time { Poll::Pending } else { Pin::new(body).poll_frame(cx) }
    })
}

/// Tells the balancer of an endpoint that does not answer in time, unless it has yet to be sent the whole
/// request.
#[derive(Debug)]
struct TimeoutReporter {
    attempt_timeout: AttemptTimeout,
    is_sent: Rc<Cell<bool>>,
}

// === impl TimeoutReporter ===

impl TimeoutReporter {
    fn of(request: &mut Request<Body>) -> Self {
        let attempt_timeout = AttemptTimeout::new();
        let is_sent = Rc::new(Cell::new(request.body().is_end_stream()));
        if !is_sent.get() {
            let (body, sent) = (mem::take(request.body_mut()), Rc::clone(&is_sent));
            *request.body_mut() = body.inspect(move |polled, is_over| {
                if matches!(polled, Poll::Ready(None)) || (polled.is_ready() && is_over) {
                    sent.set(true);
                }
            });
        }
        request.extensions_mut().insert(attempt_timeout.clone());
        Self { attempt_timeout, is_sent }
    }

    fn tell(&self) {
        if self.is_sent.get() {
            self.attempt_timeout.expire();
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed, health::OutlierConfig};
    use tower::{ServiceBuilder, ServiceExt as _, service_fn};

    use super::*;

    /// Whether an endpoint is ejected after five attempts, none of which it answers; it reads the body or
    /// not.
    async fn is_ejected(layer: TimeoutLayer, body: fn() -> Body, reads: bool) -> bool {
        let config = BalanceConfig::default().with_outlier(OutlierConfig::new());
        let balancer = Balancer::new([Endpoint::new("a", ()), Endpoint::new("b", ())], &config);
        let attempt = ServiceBuilder::new()
            .layer(layer)
            .map_response(|response: Response<_>| response.map(Body::boxed))
            .layer(BalanceLayer::new(balancer.clone()))
            .service(service_fn(move |Routed { request, .. }: Routed<(), Request<Body>>| async move {
                if reads {
                    let _ = request.into_body().collect().await;
                }
                std::future::pending::<Result<Response<Body>, BoxError>>().await
            }));
        for _ in 0..10 {
            let late = attempt.clone().oneshot(Request::new(body())).await.unwrap_err();
            assert!(late.is::<TimedOut>(), "{late}");
        }
        balancer.status().iter().any(|status| status.ejections > 0)
    }

    const LIMIT: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_was_asked_and_is_silent_has_failed() {
        let attempt = TimeoutLayer::of_attempt(LIMIT);
        assert!(is_ejected(attempt, Body::empty, false).await);
        assert!(is_ejected(attempt, || Body::full("abc"), true).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_has_yet_to_be_asked_has_not_failed() {
        assert!(!is_ejected(TimeoutLayer::of_attempt(LIMIT), || Body::full("abc"), false).await);
        assert!(!is_ejected(TimeoutLayer::new(Some(LIMIT)), Body::empty, false).await);
    }
}
