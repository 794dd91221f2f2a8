//! The outermost layer of a route.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::{
    AccessLog, ObservedBody,
    access_log::{Entry, LoggedRequest},
};
use crate::{
    body::{Body, BoxError},
    metrics::RouteMetrics,
    policy::Cutoff,
    respond::{ErrorChain, LoggedError},
    runtime::spawn_local,
    upstream::TunnelBytes,
};

/// Counts the exchanges of a route, and logs them if there is an access log.
#[derive(Debug, Clone)]
pub(crate) struct ObserveLayer {
    slot: Rc<Slot>,
}

/// Where exchanges are counted and logged.
#[derive(Debug)]
struct Slot {
    route: Arc<str>,
    metrics: Arc<RouteMetrics>,
    worker: usize,
    log: Option<AccessLog>,
    /// Whether the process ends, which cuts exchanges that take too long.
    cutoff: Cutoff,
}

impl ObserveLayer {
    /// Counts in the shard of `worker`, whose exchanges `cutoff` cuts.
    pub(crate) fn new(
        route: Arc<str>,
        metrics: Arc<RouteMetrics>,
        worker: usize,
        log: Option<AccessLog>,
        cutoff: Cutoff,
    ) -> Self {
        Self { slot: Rc::new(Slot { route, metrics, worker, log, cutoff }) }
    }
}

/// One exchange; when it is dropped, it is counted and logged.
#[derive(Debug)]
pub(super) struct Exchange {
    slot: Rc<Slot>,
    begun: Instant,
    request: Option<Box<LoggedRequest>>,
    pub(super) status: Option<StatusCode>,
    pub(super) bytes: u64,
    /// What the response opened, if it did; it may be cut with the process's end.
    tunnel: Option<TunnelBytes>,
    /// What the head of the response says of its length.
    length: Option<u64>,
    /// There is no more of the response.
    pub(super) is_over: bool,
}

/// Why a response is not whole, or is not there, of which the backend's part was no fault.
const NOT_TAKEN: &str = "the client left or took nothing before all was sent";
const NOT_AWAITED: &str = "the client left before there was a response";
const CUT: &str = "the process ended before all was sent";
const UNANSWERED: &str = "the process ended before there was a response";

// === impl Exchange ===

impl Exchange {
    fn begin(slot: &Rc<Slot>, request: &mut Request<Body>) -> Self {
        if let Some(shard) = slot.metrics.shard(slot.worker) {
            shard.begin();
        }
        Self {
            slot: Rc::clone(slot),
            begun: Instant::now(),
            request: slot.log.as_ref().map(|_| Box::new(LoggedRequest::of(request))),
            status: None,
            bytes: 0,
            tunnel: None,
            length: None,
            is_over: false,
        }
    }

    /// There is a response.
    fn answered(&mut self, response: &Response<Body>) {
        self.status = Some(response.status());
        let Some(request) = &mut self.request else { return };
        let length = response.headers().get(header::CONTENT_LENGTH);
        self.length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        self.is_over = request.is_head() || response.body().is_end_stream();
        if let Some(LoggedError(why)) = response.extensions().get() {
            request.error = Some(why.to_string());
        }
    }

    /// The response opens a tunnel; the exchange is over when that is.
    async fn end_with(mut self, mut tunnel: TunnelBytes) {
        self.tunnel = Some(tunnel.clone());
        self.is_over = false;
        tunnel.ended().await;
        self.is_over = true;
    }

    /// Why the client has not got the whole response, if it has not and nothing broke.
    fn why_cut(&self, request: &LoggedRequest) -> Option<&'static str> {
        let is_cut = !self.is_over && self.length.is_none_or(|length| self.bytes < length);
        Some(match (self.status, self.slot.cutoff.is_cut()) {
            (None, false) => NOT_AWAITED,
            (None, true) => UNANSWERED,
            (Some(_), false) if is_cut => NOT_TAKEN,
            (Some(_), true) if is_cut || request.ai_calls.is_aborted() => CUT,
            _ => return None,
        })
    }

    /// The response has begun and cannot be sent whole.
    pub(super) fn broke_off(&mut self, error: &BoxError) {
        if let Some(request) = &mut self.request {
            request.error = Some(ErrorChain(error.as_ref()).to_string());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let took = self.begun.elapsed();
        if let Some(shard) = self.slot.metrics.shard(self.slot.worker) {
            shard.end(self.status, took);
        }
        if let (Some(log), Some(mut request)) = (&self.slot.log, self.request.take()) {
            if request.error.is_none() {
                let of_calls = request.ai_calls.failure(self.status);
                request.error = of_calls.or_else(|| self.why_cut(&request).map(str::to_owned));
            }
            let status = self.status.map(|status| status.as_u16());
            let bytes = self.tunnel.as_ref().map_or(self.bytes, TunnelBytes::sent);
            log.write(&Entry { route: &self.slot.route, request: &request, status, bytes, took });
        }
    }
}

// === impl ObserveLayer ===

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observe { inner, slot: Rc::clone(&self.slot) }
    }
}

/// The service of [`ObserveLayer`].
#[derive(Debug, Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    slot: Rc<Slot>,
}

// === impl Observe ===

impl<S> Service<Request<Body>> for Observe<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<ObservedBody>;
    type Error = Infallible;
    type Future = ObserveFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let exchange = Some(Exchange::begin(&self.slot, &mut request));
        ObserveFuture { inner: self.inner.call(request), exchange }
    }
}

pin_project! {
    /// The future of [`Observe`]; dropping it counts the exchange as one without a response.
    #[derive(Debug)]
    pub(crate) struct ObserveFuture<F> {
        #[pin]
        inner: F,
        exchange: Option<Exchange>,
    }
}

// === impl ObserveFuture ===

impl<F> Future for ObserveFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = Result<Response<ObservedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Ok(mut response) = ready!(this.inner.poll(cx));
        let mut exchange = this.exchange.take();
        if let Some(exchange) = &mut exchange {
            exchange.answered(&response);
        }
        if let Some(tunnel) = response.extensions_mut().remove()
            && let Some(exchange) = exchange.take()
        {
            spawn_local(exchange.end_with(tunnel));
        }
        Poll::Ready(Ok(response.map(|body| ObservedBody::new(body, exchange))))
    }
}
