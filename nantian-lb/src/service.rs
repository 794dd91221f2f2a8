//! The service that picks an endpoint for each request.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderName, Method, Request, Response};
use http_body::Body;
use tower_service::Service;

use crate::balancer::{Balancer, Picked};
use crate::blame::{Blame, BlameAll};
use crate::body::ResponseBody;
use crate::context::PickContext;
use crate::error::PickError;
use crate::exchange::{Exchange, SessionAffinity};
use crate::future::ResponseFuture;
use crate::key::KeySource;
use crate::respond::{DefaultResponder, Responder};
use crate::session::{Session, Sessions};
use crate::tried::Tried;

/// Picks an endpoint for each request and hands both to the inner service.
///
/// The endpoint counts the request from the pick until the response body has ended, or until the response,
/// its body or the future is dropped. What comes of it is [recorded](crate::InFlight::record): a response, an
/// error, or that it was given up [too late](crate::BalanceLayer::blame_after) or when an
/// [`AttemptTimeout`](crate::AttemptTimeout) in its extensions had expired. If the response upgrades the
/// connection, the count goes on with the [`UpgradeGuard`](crate::UpgradeGuard) in its extensions.
///
/// Without an endpoint the [`Responder`] answers. Such a response has the [`PickError`] in its extensions, by
/// which it can be told from a 503 of an endpoint.
///
/// The pick happens in `call`; `poll_ready` is that of the inner service.
#[derive(Clone)]
pub struct Balance<T: Send + Sync, S, J = BlameAll> {
    balancer: Balancer<T>,
    inner: S,
    blame: J,
    options: Options,
}

/// What a balanced client may do besides.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) client_ip: Option<ClientIp>,
    pub(crate) sessions: Option<Sessions>,
    /// After how long a request that is given up speaks against its endpoint.
    pub(crate) late_after: Option<Duration>,
    /// The default, if there is none.
    pub(crate) responder: Option<Arc<dyn Responder>>,
}

/// Finds the client's address.
pub(crate) type ClientIp = Arc<dyn Fn(&HeaderMap, &Extensions) -> Option<IpAddr> + Send + Sync>;

/// A request with the target that it is to be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Routed<T, R> {
    /// The target of the endpoint that was picked.
    pub target: T,
    /// The request, as it came.
    pub request: R,
}

/// A request whose client is found by the embedder's rule.
struct WithClientIp<'a, B> {
    request: &'a Request<B>,
    client_ip: &'a ClientIp,
}

// === impl Balance ===

impl<T: Send + Sync, S, J> Balance<T, S, J> {
    pub(crate) fn new(balancer: Balancer<T>, inner: S, blame: J, options: Options) -> Self {
        Self { balancer, inner, blame, options }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service alone.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The response to a request for which there is no endpoint.
    #[cold]
    fn refuse<B>(&self, error: PickError, request: Request<B>) -> Response<Bytes> {
        let (request, _) = request.into_parts();
        let mut response = match &self.options.responder {
            Some(responder) => responder.respond(&error, &request),
            None => DefaultResponder.respond(&error, &request),
        };
        response.extensions_mut().insert(error);
        response
    }
}

impl<T: Clone + Send + Sync, S, J> Balance<T, S, J> {
    fn pick<B>(&self, request: &Request<B>, session: Option<&Session>) -> Result<Picked<T>, PickError> {
        let mut context = PickContext::new();
        if let Some(session) = session {
            context = context.with_session(session);
        }
        let tried = request.extensions().get::<Tried>();
        let endpoints = tried.map(Tried::endpoints).unwrap_or_default();
        context = context.with_tried(&endpoints);
        if !tried.is_none_or(Tried::may_return) {
            context = context.without_return();
        }
        let picked = match &self.options.client_ip {
            None => self.balancer.pick(&context.with_keys(request)),
            Some(client_ip) => {
                let keys = WithClientIp { request, client_ip };
                self.balancer.pick(&context.with_keys(&keys))
            }
        };
        if let (Some(tried), Ok(picked)) = (tried, &picked) {
            tried.add(picked.id());
        }
        picked
    }
}

impl<T, S, J, B, B2> Service<Request<B>> for Balance<T, S, J>
where
    T: Clone + Send + Sync,
    S: Service<Routed<T, Request<B>>, Response = Response<B2>>,
    J: Blame<S::Error> + Clone,
    B2: Body,
{
    type Response = Response<ResponseBody<B2>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, J>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let affinity =
            self.options.sessions.as_ref().map(|sessions| SessionAffinity::new(sessions, &request));
        let session = affinity.as_ref().and_then(SessionAffinity::session);
        match self.pick(&request, session) {
            Ok(picked) => {
                let affinity = affinity.map(|affinity| affinity.with_detour(picked.is_detour()));
                if let Some(sessions) = &self.options.sessions {
                    sessions.strip(request.headers_mut());
                }
                let (target, in_flight) = picked.into_parts();
                let timeout = request.extensions().get().cloned();
                let late_at = self.options.late_after.map(|after| in_flight.now().saturating_add(after));
                let is_connect = request.method() == Method::CONNECT;
                let response = self.inner.call(Routed { target, request });
                let blame = self.blame.clone();
                let exchange = Exchange { in_flight, timeout, late_at, affinity, blame, is_connect };
                ResponseFuture::new(response, exchange)
            }
            Err(error) => ResponseFuture::refused(self.refuse(error, request)),
        }
    }
}

impl<T: Send + Sync, S: fmt::Debug, J> fmt::Debug for Balance<T, S, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Balance")
            .field("balancer", &self.balancer)
            .field("inner", &self.inner)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

// === impl Routed ===

impl<T, R> Routed<T, R> {
    /// A request for this target: to ask an inner service directly, as tests do.
    pub const fn new(target: T, request: R) -> Self {
        Self { target, request }
    }
}

// === impl Options ===

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("client_ip", &self.client_ip.is_some())
            .field("sessions", &self.sessions)
            .field("late_after", &self.late_after)
            .field("responder", &self.responder.is_some())
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
        (self.client_ip)(self.request.headers(), self.request.extensions())
    }
}
