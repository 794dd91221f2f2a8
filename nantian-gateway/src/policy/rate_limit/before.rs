//! What limits say before the body of a request is read.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{Request, Response};
use http_body::Body as _;
use nantian_ratelimit::RateLimitLayer;
use tower::{Layer, Service};

use super::body_facts::BodyFactsLayer;
use crate::body::{Body, BoxError};

/// Asks limits whatever they can say before a body is read: who is over them gets nothing read.
#[derive(Debug, Clone)]
pub(crate) struct BeforeBody {
    /// Tells whether it will be read.
    reader: BodyFactsLayer,
    /// The limits whose keys nothing in the body decides, the outermost first.
    limits: Arc<[RateLimitLayer]>,
}

#[derive(Debug, Clone)]
pub(crate) struct BeforeBodyService<S> {
    inner: S,
    layer: BeforeBody,
}

impl BeforeBody {
    /// `None` if there is nobody to ask.
    pub(super) fn new(reader: BodyFactsLayer, limits: Vec<RateLimitLayer>) -> Option<Self> {
        (!limits.is_empty()).then(|| Self { reader, limits: limits.into() })
    }
}

impl<S> Layer<S> for BeforeBody {
    type Service = BeforeBodyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        BeforeBodyService { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for BeforeBodyService<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError> + Clone + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        if body.is_end_stream() || !self.layer.reader.reads(&parts, &body.size_hint()) {
            return Box::pin(self.inner.call(Request::from_parts(parts, body)));
        }
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let limits = Arc::clone(&self.layer.limits);
        Box::pin(async move {
            for limit in limits.iter() {
                if let Err(refused) = limit.begin(&mut parts).await {
                    return Ok(refused.map(Body::full));
                }
            }
            inner.call(Request::from_parts(parts, body)).await
        })
    }
}
