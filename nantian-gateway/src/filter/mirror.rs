//! RequestMirror: a copy of a request, whose answer nobody waits for.

use std::{
    cell::Cell,
    fmt,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body::Body as _;
use tokio::time::{Instant, timeout_at};
use tower::{Layer, Service};

use super::tee::{BodyCopy, copied};
use crate::{
    body::{Body, BoxError},
    compile::BackendService,
    hops::Hops,
    ir::Share,
    listen::RequestInfo,
    metrics::{MirrorResult, RouteMetrics},
    respond::{ErrorChain, LocalReplyText, LoggedError},
    runtime::spawn_local,
    upstream::Upgrade,
};

/// Copies on their way to one mirror, of one worker; further ones are left out.
const IN_FLIGHT: usize = 128;
/// How long a mirror may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The golden part of a circle of 2^64 points.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One mirror of a rule, for one worker.
pub(crate) struct Mirror {
    sample: Sample,
    service: BackendService,
    metrics: Arc<RouteMetrics>,
    worker: usize,
    in_flight: Cell<usize>,
}

/// Picks a share of the requests.
///
/// Each request goes on from the last one by a golden part of a circle. Its points lie evenly, so any run of
/// requests has its share to within a few, which chance would not give it; and they never come around, so
/// requests that repeat in some order are all picked alike.
#[derive(Debug)]
struct Sample {
    share: Share,
    point: Cell<u64>,
}

/// Sends copies of requests to mirrors, which neither slow nor fail the requests themselves.
#[derive(Debug, Clone)]
pub(crate) struct MirrorLayer {
    mirrors: Rc<[Rc<Mirror>]>,
}

/// The service of [`MirrorLayer`].
#[derive(Debug, Clone)]
pub(crate) struct MirrorService<S> {
    inner: S,
    mirrors: Rc<[Rc<Mirror>]>,
}

/// The head of a copy.
struct Head {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
    info: Option<RequestInfo>,
    /// A mirror may lead back here, too.
    hops: Option<Hops>,
}

// === impl MirrorLayer ===

impl MirrorLayer {
    /// The layer for `mirrors`, or `None` if there are none.
    pub(crate) fn new(mirrors: impl IntoIterator<Item = Mirror>) -> Option<Self> {
        let mirrors: Rc<[_]> = mirrors.into_iter().map(Rc::new).collect();
        (!mirrors.is_empty()).then_some(Self { mirrors })
    }
}

impl<S> Layer<S> for MirrorLayer {
    type Service = MirrorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MirrorService { inner, mirrors: Rc::clone(&self.mirrors) }
    }
}

// === impl MirrorService ===

impl<S: Service<Request<Body>>> Service<Request<Body>> for MirrorService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let chosen: Vec<_> = self.mirrors.iter().filter(|mirror| mirror.sample.picks()).cloned().collect();
        // A tunnel cannot be copied.
        if chosen.is_empty() || request.extensions().get::<Upgrade>().is_some() {
            return self.inner.call(request);
        }
        let head = Head::of(&request);
        let send = move |body: Option<BodyCopy>| {
            for mirror in &chosen {
                mirror.send(&head, body.clone());
            }
        };
        if request.body().is_end_stream() {
            send(Some(BodyCopy::default()));
            return self.inner.call(request);
        }
        self.inner.call(request.map(|body| copied(body, send)))
    }
}

// === impl Head ===

impl Head {
    fn of(request: &Request<Body>) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
            // Where a copy goes is nobody's concern.
            info: request.extensions().get().map(|info| RequestInfo {
                upstream: None,
                filter_state: None,
                ..RequestInfo::clone(info)
            }),
            hops: request.extensions().get().cloned(),
        }
    }

    /// A request of its own: it shares no reservation and nothing else that the original carries.
    fn with(&self, body: BodyCopy) -> Request<Body> {
        let mut request = Request::new(body.into());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        if let Some(info) = self.info.clone() {
            request.extensions_mut().insert(info);
        }
        if let Some(hops) = self.hops.clone() {
            request.extensions_mut().insert(hops);
        }
        request
    }
}

// === impl Sample ===

impl Sample {
    /// Whether the next request is one of the share.
    fn picks(&self) -> bool {
        let point = self.point.get().wrapping_add(STEP);
        self.point.set(point);
        (u128::from(point) * u128::from(self.share.denominator)) >> 64 < u128::from(self.share.numerator)
    }
}

// === impl Mirror ===

impl Mirror {
    /// Sends `share` of the requests to `service`; copies are counted in the shard of `worker`.
    pub(crate) fn new(
        share: Share,
        service: BackendService,
        metrics: Arc<RouteMetrics>,
        worker: usize,
    ) -> Self {
        metrics.has_mirror();
        let sample = Sample { share, point: Cell::new(fastrand::u64(..)) };
        Self { sample, service, metrics, worker, in_flight: Cell::new(0) }
    }

    /// Sends a copy, unless there is none or too many are on their way.
    fn send(self: &Rc<Self>, head: &Head, body: Option<BodyCopy>) {
        let body = body.filter(|_| self.in_flight.get() < IN_FLIGHT);
        let Some(body) = body else { return self.count(MirrorResult::LeftOut) };
        let place = MirrorPermit::taken(self);
        let request = head.with(body);
        spawn_local(async move {
            let end = Instant::now() + LIMIT;
            let answer = timeout_at(end, place.0.service.call(request)).await;
            let answer = of_mirror(answer.map_err(BoxError::from).flatten());
            place.0.count(if answer.is_some() { MirrorResult::Answered } else { MirrorResult::Failed });
            if let Some(answer) = answer {
                let _ = timeout_at(end, answer.into_body().drain()).await;
            }
        });
    }

    fn count(&self, result: MirrorResult) {
        if let Some(shard) = self.metrics.shard(self.worker) {
            shard.mirrored(result);
        }
    }
}

/// What the mirror has answered. An answer of the gateway's own is none.
fn of_mirror(answer: Result<Response<Body>, BoxError>) -> Option<Response<Body>> {
    let failed = |why: &dyn fmt::Display| tracing::debug!(error = %why, "a mirrored request failed");
    let answer = answer.inspect_err(|error| failed(&ErrorChain(error.as_ref()))).ok()?;
    let Some(LocalReplyText(text)) = answer.extensions().get() else { return Some(answer) };
    failed(answer.extensions().get().map_or(text, |LoggedError(why)| why));
    None
}

/// A copy on its way.
struct MirrorPermit(Rc<Mirror>);

impl MirrorPermit {
    fn taken(mirror: &Rc<Mirror>) -> Self {
        mirror.in_flight.set(mirror.in_flight.get() + 1);
        Self(Rc::clone(mirror))
    }
}

impl Drop for MirrorPermit {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("share", &self.sample.share).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(numerator: u32, denominator: u32, point: u64) -> Sample {
        Sample { share: Share { numerator, denominator }, point: Cell::new(point) }
    }

    proptest! {
        #[test]
        fn any_run_has_its_share_to_within_a_few(
            (numerator, denominator) in (1..1000_u32).prop_flat_map(|denominator| (0..=denominator, Just(denominator))),
            start: u64,
            requests in 1..2000_u32,
        ) {
            let sample = sample(numerator, denominator, start);
            let picked = (0..requests).filter(|_| sample.picks()).count();
            let expected = f64::from(requests) * f64::from(numerator) / f64::from(denominator);
            let difference = (f64::from(u32::try_from(picked).unwrap()) - expected).abs();
            prop_assert!(difference < 4.0, "{picked} instead of {expected}");
        }
    }

    #[test]
    fn all_are_picked_or_none() {
        let (all, none) = (sample(100, 100, 5), sample(0, 100, 5));
        assert!((0..1000).all(|_| all.picks()) && (0..1000).all(|_| !none.picks()));
    }

    #[test]
    fn requests_that_take_turns_are_picked_alike() {
        for turns in 2..10 {
            let sample = sample(1, 2, 7);
            let mut picked = vec![0; turns];
            for request in 0..1000 * turns {
                picked[request % turns] += usize::from(sample.picks());
            }
            assert!(picked.iter().all(|count| (470..530).contains(count)), "{turns} in turn: {picked:?}");
        }
    }
}
