//! RequestMirror: a copy of a request, whose answer nobody waits for.

use std::{
    cell::Cell,
    fmt,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Uri, Version};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Limited};
use tokio::time::timeout;
use tower::{Layer, Service};

use super::tee::Tee;
use crate::{
    body::{Body, BoxError},
    compile::LocalService,
    ir::Share,
    listen::RequestInfo,
    metrics::RouteMetrics,
    runtime::spawn_local,
    upstream::Upgrade,
};

/// Copies on their way to one mirror, of one worker; further ones are left out.
const IN_FLIGHT: usize = 128;
/// How long a mirror may take.
const LIMIT: Duration = Duration::from_secs(30);
/// The most bytes that are read of an answer to keep its connection.
const DRAINED: usize = 65_536;

/// One mirror of a rule, for one worker.
pub struct Mirror {
    share: Share,
    service: LocalService<Response<Body>, BoxError>,
    metrics: Arc<RouteMetrics>,
    worker: usize,
    in_flight: Cell<usize>,
}

/// Sends copies of requests to mirrors, which neither slow nor fail the requests themselves.
#[derive(Debug, Clone)]
pub struct MirrorLayer {
    mirrors: Rc<[Rc<Mirror>]>,
}

/// The service of [`MirrorLayer`].
#[derive(Debug, Clone)]
pub struct MirrorService<S> {
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
}

// === impl MirrorLayer ===

impl MirrorLayer {
    /// The layer for `mirrors`, or `None` if there are none.
    pub fn new(mirrors: impl IntoIterator<Item = Mirror>) -> Option<Self> {
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
        let chosen: Vec<_> = self.mirrors.iter().filter(|mirror| mirror.is_chosen()).cloned().collect();
        // A tunnel cannot be copied.
        if chosen.is_empty() || request.extensions().get::<Upgrade>().is_some() {
            return self.inner.call(request);
        }
        let head = Head::of(&request);
        let send = move |body: Option<Bytes>| {
            for mirror in &chosen {
                mirror.send(&head, body.clone());
            }
        };
        if request.body().is_end_stream() {
            send(Some(Bytes::new()));
            return self.inner.call(request);
        }
        self.inner.call(request.map(|body| Body::boxed(Tee::new(body, send))))
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
            info: request.extensions().get().cloned(),
        }
    }

    /// A request of its own: it shares no reservation and nothing else that the original carries.
    fn with(&self, body: Bytes) -> Request<Body> {
        let mut request = Request::new(Body::full(body));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers.clone();
        if let Some(info) = self.info.clone() {
            request.extensions_mut().insert(info);
        }
        request
    }
}

// === impl Mirror ===

impl Mirror {
    /// Sends `share` of the requests to `service`; copies are counted in the shard of `worker`.
    pub fn new(
        share: Share,
        service: LocalService<Response<Body>, BoxError>,
        metrics: Arc<RouteMetrics>,
        worker: usize,
    ) -> Self {
        Self { share, service, metrics, worker, in_flight: Cell::new(0) }
    }

    fn is_chosen(&self) -> bool {
        let Share { numerator, denominator } = self.share;
        numerator >= denominator || fastrand::u32(..denominator) < numerator
    }

    /// Sends a copy, unless there is none or too many are on their way.
    fn send(self: &Rc<Self>, head: &Head, body: Option<Bytes>) {
        let body = body.filter(|_| self.in_flight.get() < IN_FLIGHT);
        if let Some(shard) = self.metrics.shard(self.worker) {
            shard.mirrored(body.is_some());
        }
        let Some(body) = body else { return };
        let place = Place::taken(self);
        let request = head.with(body);
        spawn_local(async move {
            let exchange = async {
                let response = place.0.service.call(request).await?;
                Limited::new(response.into_body(), DRAINED).collect().await
            };
            if let Ok(Err(error)) = timeout(LIMIT, exchange).await {
                tracing::debug!(%error, "a mirrored request failed");
            }
        });
    }
}

/// A copy on its way.
struct Place(Rc<Mirror>);

impl Place {
    fn taken(mirror: &Rc<Mirror>) -> Self {
        mirror.in_flight.set(mirror.in_flight.get() + 1);
        Self(Rc::clone(mirror))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("share", &self.share).finish_non_exhaustive()
    }
}
