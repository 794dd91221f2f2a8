//! The service.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::body::{RequestBody, ResponseBody};
use crate::error::BoxError;
use crate::future::ResponseFuture;
use crate::layer::StreamInfoSource;
use crate::plugin::Plugin;
use crate::respond::SharedResponder;
use crate::stream::StreamContext;

/// Runs plugins around `S`; made by [`WasmLayer`](crate::WasmLayer).
///
/// Plugins see a request in [`call`](Service::call), so a request that a plugin answers never reaches `S`. A
/// response that stands for a [`Failure`](crate::Failure) has it in its extensions, and one that is sent in
/// the place of another one has those of that ([`ReplacedExtensions`](crate::respond::ReplacedExtensions)).
#[derive(Debug, Clone)]
pub struct WasmService<S> {
    inner: S,
    plugins: Arc<[Plugin]>,
    teller: StreamInfoSource,
    responder: SharedResponder,
}

// === impl WasmService ===

impl<S> WasmService<S> {
    pub(crate) fn new(
        inner: S,
        plugins: Arc<[Plugin]>,
        teller: StreamInfoSource,
        responder: SharedResponder,
    ) -> Self {
        Self { inner, plugins, teller, responder }
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

impl<S, B, T> Service<Request<B>> for WasmService<S>
where
    S: Service<Request<RequestBody<B>>, Response = Response<T>> + Clone,
    B: Body,
    B::Error: Into<BoxError>,
    T: Body,
    T::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<T>>;
    type Error = S::Error;
    type Future = ResponseFuture<S, B, T>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if self.plugins.is_empty() {
            return ResponseFuture::unwatched(self.inner.call(request.map(RequestBody::unwatched)));
        }
        let info = self.teller.tell(request.extensions_mut());
        let stream = StreamContext::new(Arc::clone(&self.plugins), info).keeping_lengths();
        ResponseFuture::start(stream, &mut self.inner, request, self.responder.clone())
    }
}
