//! The filters of a rule, or of a backend reference, as one tower layer.

use std::{
    future::Future,
    ops::ControlFlow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderValue, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{cors::Cors, rewrite::TargetTooLong};
use crate::{
    body::Body,
    ir::{Filter, HeaderModifier, UrlRewrite},
    respond,
};

/// Applies filters in their order; CORS, which comes first, answers a preflight without the inner service. A
/// redirect is none of them: it takes the place of a backend, [`RedirectLayer`](super::RedirectLayer).
#[derive(Debug, Clone)]
pub(crate) struct FilterLayer {
    filters: Arc<Filters>,
}

#[derive(Debug)]
struct Filters {
    cors: Option<Cors>,
    request: Vec<RequestFilter>,
    response: Vec<HeaderModifier>,
}

/// A request that a CORS filter has seen, and its origin if that is allowed.
#[derive(Debug)]
struct CorsRequest {
    origin: Option<HeaderValue>,
}

#[derive(Debug)]
enum RequestFilter {
    Headers(HeaderModifier),
    Rewrite(UrlRewrite),
}

impl FilterLayer {
    /// The layer for `filters`, or `None` if there are none.
    pub(crate) fn new(filters: &[Filter]) -> Option<Self> {
        let mut compiled = Filters { cors: None, request: Vec::new(), response: Vec::new() };
        for filter in filters.iter().cloned() {
            match filter {
                Filter::Cors(cors) => compiled.cors = Some(Cors::new(&cors)),
                Filter::RequestHeaders(changes) => compiled.request.push(RequestFilter::Headers(changes)),
                Filter::ResponseHeaders(changes) => compiled.response.push(changes),
                Filter::UrlRewrite(rewrite) => compiled.request.push(RequestFilter::Rewrite(rewrite)),
                Filter::Redirect(_) => {}
            }
        }
        let is_redirect = |filter: &Filter| matches!(filter, Filter::Redirect(_));
        (!filters.iter().all(is_redirect)).then(|| Self { filters: Arc::new(compiled) })
    }
}

impl Filters {
    /// Changes the request, or answers it.
    fn on_request(
        &self,
        request: Request<Body>,
        crossing: &mut Option<CorsRequest>,
    ) -> ControlFlow<Response<Body>, Request<Body>> {
        let (mut parts, body) = request.into_parts();
        if let Some(cors) = &self.cors {
            if let Some(response) = cors.preflight(&parts) {
                return ControlFlow::Break(response);
            }
            *crossing = Some(CorsRequest { origin: cors.allowed_origin(&parts) });
        }
        for filter in &self.request {
            match filter {
                RequestFilter::Headers(changes) => changes.apply_to_request(&mut parts.headers),
                RequestFilter::Rewrite(rewrite) => {
                    if let Err(TargetTooLong) = rewrite.apply(&mut parts) {
                        let text = "the request target is too long to be rewritten";
                        return ControlFlow::Break(respond::plain(StatusCode::URI_TOO_LONG, text));
                    }
                }
            }
        }
        ControlFlow::Continue(Request::from_parts(parts, body))
    }

    fn on_response(&self, mut response: Response<Body>, crossing: Option<CorsRequest>) -> Response<Body> {
        if let (Some(cors), Some(CorsRequest { origin })) = (&self.cors, crossing) {
            cors.on_response(origin, response.headers_mut());
        }
        for changes in &self.response {
            changes.apply(response.headers_mut());
        }
        response
    }
}

// === impl FilterLayer ===

impl<S> Layer<S> for FilterLayer {
    type Service = FilterService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        FilterService { inner, filters: Arc::clone(&self.filters) }
    }
}

/// The service of [`FilterLayer`].
#[derive(Debug, Clone)]
pub(crate) struct FilterService<S> {
    inner: S,
    filters: Arc<Filters>,
}

// === impl FilterService ===

impl<S> Service<Request<Body>> for FilterService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = FilterFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut crossing = None;
        let state = match self.filters.on_request(request, &mut crossing) {
            ControlFlow::Continue(request) => State::Inner { future: self.inner.call(request) },
            ControlFlow::Break(response) => State::Answered { response: Some(response) },
        };
        FilterFuture { state, crossing, filters: Arc::clone(&self.filters) }
    }
}

pin_project! {
    /// The future of [`FilterService`]; dropping it drops the inner call.
    #[derive(Debug)]
    pub(crate) struct FilterFuture<F> {
        #[pin]
        state: State<F>,
        crossing: Option<CorsRequest>,
        filters: Arc<Filters>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = StateProjection]
    enum State<F> {
        Inner { #[pin] future: F },
        Answered { response: Option<Response<Body>> },
    }
}

// === impl FilterFuture ===

impl<F, E> Future for FilterFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.state.project() {
            StateProjection::Inner { future } => ready!(future.poll(cx))?,
            StateProjection::Answered { response } => response.take().unwrap_or_default(),
        };
        Poll::Ready(Ok(this.filters.on_response(response, this.crossing.take())))
    }
}
