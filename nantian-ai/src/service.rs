//! The service: takes requests, leaves the rest to its future.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody};
use crate::error::BoxError;
use crate::future::ResponseFuture;
use crate::layer_parts::LayerParts;
use crate::usage::UsageObserver;

/// The service of an [`AiLayer`](crate::AiLayer).
///
/// Its error is the inner service's, from `poll_ready` alone: whatever fails in a call becomes a response,
/// with the [`Error`](crate::Error) in its extensions.
pub struct AiService<S, O = ()> {
    inner: S,
    shared: Arc<LayerParts<O>>,
}

// === impl AiService ===

impl<S, O> AiService<S, O> {
    pub(crate) fn new(inner: S, shared: Arc<LayerParts<O>>) -> Self {
        Self { inner, shared }
    }

    /// The wrapped service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The wrapped service.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the wrapped service out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, O> Clone for AiService<S, O> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.shared))
    }
}

impl<S: fmt::Debug, O> fmt::Debug for AiService<S, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AiService")
            .field("inner", &self.inner)
            .field("target", &self.shared.target)
            .finish_non_exhaustive()
    }
}

impl<S, O, B, B2> Service<Request<B>> for AiService<S, O>
where
    S: Service<Request<RequestBody>, Response = Response<B2>> + Clone,
    S::Error: Into<BoxError>,
    O: UsageObserver,
    B: Body,
    B::Error: Into<BoxError>,
    B2: Body<Data = Bytes>,
    B2::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<B2, O::Sink>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, B2, O>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The copy that was found ready goes with the request.
        let copy = self.inner.clone();
        let ready = std::mem::replace(&mut self.inner, copy);
        ResponseFuture::new(ready, Arc::clone(&self.shared), request)
    }
}
