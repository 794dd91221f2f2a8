//! Services without their type, for one worker.

use std::{
    cell::RefCell,
    fmt,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use http::{Request, Response};
use tower::Service;

use crate::body::{Body, BoxError};

/// A boxed future of one worker.
pub(crate) struct LocalFuture<R, E>(Pin<Box<dyn Future<Output = Result<R, E>>>>);

/// A service without its type; its clones are one service.
///
/// Every service of the gateway is always ready (decisions are made in `call`), so `call` needs no turn at
/// `poll_ready`.
pub(crate) struct LocalService<R, E>(Rc<RefCell<dyn ErasedService<R, E>>>);

/// What answers for a backend, or for all behind some layer of a route.
pub(crate) type BackendService = LocalService<Response<Body>, BoxError>;

trait ErasedService<R, E> {
    fn call(&mut self, request: Request<Body>) -> LocalFuture<R, E>;
}

impl<S> ErasedService<S::Response, S::Error> for S
where
    S: Service<Request<Body>>,
    S::Future: 'static,
{
    fn call(&mut self, request: Request<Body>) -> LocalFuture<S::Response, S::Error> {
        // What only forwards is ready at once; the contract of tower asks for the question all the same.
        let _ = self.poll_ready(&mut Context::from_waker(Waker::noop()));
        LocalFuture(Box::pin(Service::call(self, request)))
    }
}

// === impl LocalService ===

impl<R, E> LocalService<R, E> {
    /// Hides the type of `service`.
    pub(crate) fn new<S>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = R, Error = E> + 'static,
        S::Future: 'static,
    {
        Self(Rc::new(RefCell::new(service)))
    }

    /// Starts the call.
    pub(crate) fn call(&self, request: Request<Body>) -> LocalFuture<R, E> {
        self.0.borrow_mut().call(request)
    }
}

impl<R, E> Service<Request<Body>> for LocalService<R, E> {
    type Response = R;
    type Error = E;
    type Future = LocalFuture<R, E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Self::call(self, request)
    }
}

impl<R, E> Clone for LocalService<R, E> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<R, E> fmt::Debug for LocalService<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalService").finish_non_exhaustive()
    }
}

// === impl LocalFuture ===

impl<R, E> LocalFuture<R, E> {
    /// Hides the type of `future`.
    pub(crate) fn new(future: impl Future<Output = Result<R, E>> + 'static) -> Self {
        Self(Box::pin(future))
    }
}

impl<R, E> Future for LocalFuture<R, E> {
    type Output = Result<R, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx)
    }
}
