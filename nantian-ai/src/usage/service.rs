//! The service that meters any service.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ACCEPT_ENCODING, HeaderValue};
use http::{Request, Response};
use http_body::Body;
use tower_service::Service;

use super::{Meter, MeteredBody, Metering, UsageFuture, UsageObserver};
use crate::dialect::Surface;
use crate::facts::RequestFacts;
use crate::memory::BodyMemory;

/// The service of a [`UsageLayer`](super::UsageLayer).
///
/// [`RequestFacts`] in the extensions of the request bring the input estimate. Without them a quarter of
/// `content-length` stands for it, rounded up, or zero where there is none.
#[derive(Debug)]
pub struct UsageService<S, O> {
    inner: S,
    observer: Arc<O>,
    memory: Option<BodyMemory>,
}

// === impl UsageService ===

impl<S, O> UsageService<S, O> {
    pub(super) fn new(inner: S, observer: Arc<O>, memory: Option<BodyMemory>) -> Self {
        Self { inner, observer, memory }
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

impl<S: Clone, O> Clone for UsageService<S, O> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.observer), self.memory.clone())
    }
}

impl<S, O, B, B2> Service<Request<B>> for UsageService<S, O>
where
    S: Service<Request<B>, Response = Response<B2>>,
    O: UsageObserver,
    B2: Body,
{
    type Response = Response<MeteredBody<B2, O::Sink>>;
    type Error = S::Error;
    type Future = UsageFuture<S::Future, O::Sink>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut head, body) = request.into_parts();
        let surface = Surface::detect_decoded(&head.method, head.uri.path(), &head.headers).ok();
        let metering = surface.map(|surface| {
            head.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            let known = head.extensions.get::<RequestFacts>();
            let facts = known.cloned().unwrap_or_else(|| RequestFacts::unread(&head.headers));
            let sink = self.observer.begin(&head.extensions, &facts);
            let mut metering = Metering::new(Meter::new(&surface, &facts), sink);
            metering.hold(self.memory.as_ref().map(BodyMemory::begin));
            metering
        });
        let request = Request::from_parts(head, body);
        UsageFuture::new(self.inner.call(request), metering)
    }
}
