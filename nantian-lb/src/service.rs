//! The service that picks an endpoint for each request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::balancer::Balancer;
use crate::body::ResponseBody;
use crate::context::PickContext;
use crate::future::ResponseFuture;
use crate::key::{ClientIp, KeySource};
use crate::respond::Responder;

/// Picks an endpoint for each request and hands both to the inner service.
///
/// The endpoint counts the request from the pick until the response body has ended, or until the response, its body or the
/// future is dropped. If the response upgrades the connection, the count goes on with the
/// [`UpgradeGuard`](crate::UpgradeGuard) in its extensions.
///
/// The pick happens in `call`; `poll_ready` is that of the inner service.
#[derive(Clone)]
pub struct Balance<T, S, R> {
    balancer: Balancer<T>,
    inner: S,
    client_ip: Option<Arc<dyn ClientIp>>,
    responder: R,
}

/// A request with the target that it is to be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<T, R> {
    /// The target of the endpoint that was picked.
    pub target: T,
    /// The request, as it came.
    pub request: R,
}

/// A request whose client is found by the embedder's rule.
struct WithClientIp<'a, B> {
    request: &'a Request<B>,
    client_ip: &'a dyn ClientIp,
}

// === impl Balance ===

impl<T, S, R> Balance<T, S, R> {
    pub(crate) fn new(
        balancer: Balancer<T>,
        inner: S,
        client_ip: Option<Arc<dyn ClientIp>>,
        responder: R,
    ) -> Self {
        Self { balancer, inner, client_ip, responder }
    }
}

impl<T, S, R, B, B2> Service<Request<B>> for Balance<T, S, R>
where
    T: Clone,
    S: Service<Routed<T, Request<B>>, Response = Response<B2>>,
    B2: Body,
    R: Responder<B2>,
{
    type Response = Response<ResponseBody<B2>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, B2>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let context = PickContext::new();
        let picked = match self.client_ip.as_deref() {
            None => self.balancer.pick(&context.with_keys(&request)),
            Some(client_ip) => {
                let keys = WithClientIp { request: &request, client_ip };
                self.balancer.pick(&context.with_keys(&keys))
            }
        };
        match picked {
            Ok(picked) => {
                let (target, in_flight) = picked.into_parts();
                let is_connect = request.method() == Method::CONNECT;
                let response = self.inner.call(Routed { target, request });
                ResponseFuture::new(response, in_flight, is_connect)
            }
            Err(error) => ResponseFuture::refused(self.responder.respond(&error)),
        }
    }
}

impl<T, S: fmt::Debug, R: fmt::Debug> fmt::Debug for Balance<T, S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("balancer", &self.balancer)
            .field("inner", &self.inner)
            .field("client_ip", &self.client_ip.is_some())
            .field("responder", &self.responder)
            .finish()
    }
}

// === impl WithClientIp ===

impl<B> KeySource for WithClientIp<'_, B> {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.request.header(name)
    }

    fn host(&self) -> Option<&str> {
        self.request.host()
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client_ip.client_ip(self.request.headers(), self.request.extensions())
    }
}
