//! One worker's HTTP client.

use std::{error::Error as _, future::Future, io, pin::Pin, rc::Rc, sync::Arc, time::Duration};

use http::{Method, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::client::conn::TrySendError;
use rustls::ClientConfig as TlsConfig;
use tokio::time::Instant;

use super::{
    Destination, Upgrade, UpstreamBody, UpstreamError,
    body::Lease,
    connect::connect,
    form::{to_absolute_form, to_origin_form},
    http1::Http1,
    http2::Http2,
    pool::Pool,
    tunnel,
    upload::Failure,
};
use crate::{body::Body, grpc, ir::Protocol};

/// An exchange on its way to the head of the response.
pub(super) type Exchange = Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, UpstreamError>>>>;

/// Limits of the client.
#[derive(Debug, Clone)]
pub struct ClientConfig {
    /// Time to open a connection, the TLS handshake included. Default: 5 s.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Default: 60 s.
    pub idle_timeout: Duration,
    /// How long an upgraded connection may be silent; `None` is no limit. Default: 1 h.
    pub tunnel_idle_timeout: Option<Duration>,
    /// Roots and protocols for upstream TLS.
    pub tls: Arc<TlsConfig>,
}

/// One worker's client; its clones share the connections.
#[derive(Debug, Clone)]
pub struct Client {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    pool: Pool,
}

impl Client {
    /// A client without connections.
    pub fn new(config: ClientConfig) -> Self {
        Self { inner: Rc::new(Inner { config, pool: Pool::default() }) }
    }

    /// Sends `request` to `destination`; the future waits for the head of the response.
    ///
    /// A request that met a pooled connection in the moment of its death is sent once more on a fresh one, if
    /// nothing of it was written, or if it is idempotent and has no body (RFC 9110, section 9.2.2).
    ///
    /// # Errors
    /// [`UpstreamError`].
    ///
    /// # Cancellation
    /// Dropping the future, or the body of the response, closes the connection.
    pub fn send(&self, mut destination: Destination, mut request: Request<Body>) -> Exchange {
        let client = self.clone();
        if grpc::is_call(request.version(), request.headers()) {
            // Nothing else carries a call, whatever is said of the Service.
            destination.protocol = Protocol::H2c;
        }
        if destination.protocol == Protocol::H2c {
            to_absolute_form(&mut request, &destination);
            return Box::pin(async move { client.send_http2(&destination, request).await });
        }
        to_origin_form(&mut request, &destination);
        let upgrade = request.extensions_mut().remove::<Upgrade>();
        if let Some(upgrade) = &upgrade {
            upgrade.ask(request.headers_mut());
        }
        let Some(mut connection) = self.inner.pool.take(&destination) else {
            return Box::pin(client.send_fresh(destination, request, upgrade));
        };
        // Begun here and not in the future, which would have to carry the request.
        let copy = repeatable(&request);
        let response = connection.begin(request);
        Box::pin(async move {
            match connection.head(response).await {
                Ok(response) => client.respond(connection, response, upgrade),
                Err(error) => {
                    drop(connection);
                    let request = unsent(&destination, error, copy)?;
                    client.send_fresh(destination, request, upgrade).await
                }
            }
        })
    }

    /// Closes what was unused for too long.
    pub fn sweep(&self, now: Instant) {
        self.inner.pool.sweep(now, self.inner.config.idle_timeout);
    }

    pub(super) fn give_back(&self, connection: Box<Http1>) {
        self.inner.pool.put(connection);
    }

    /// Sends a request on a connection of its own.
    async fn send_fresh(
        self,
        destination: Destination,
        request: Request<Body>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let io = connect(&destination, &self.inner.config.tls, self.inner.config.connect_timeout).await?;
        let name = destination.clone();
        let connection = Http1::handshake(io, destination).await.map_err(|source| broken(&name, source))?;
        let mut connection = Box::new(connection);
        let response = connection.begin(request);
        match connection.head(response).await {
            Ok(response) => self.respond(connection, response, upgrade),
            Err(error) => Err(broken(&name, error.into_error())),
        }
    }

    fn respond(
        &self,
        connection: Box<Http1>,
        mut response: Response<hyper::body::Incoming>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                return Err(UpstreamError::Switched { destination: connection.destination.to_string() });
            };
            let upstream = hyper::upgrade::on(&mut response);
            let held = tunnel::Held::default();
            let idle = self.inner.config.tunnel_idle_timeout;
            tunnel::start(connection, upstream, upgrade, held.clone(), idle);
            response.extensions_mut().insert(held);
            return Ok(response.map(|_| UpstreamBody::default()));
        }
        let (parts, incoming) = response.into_parts();
        let lease = Lease { connection, client: self.clone() };
        Ok(Response::from_parts(parts, UpstreamBody::http1(incoming, lease)))
    }

    async fn send_http2(
        &self,
        destination: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let failure = Failure::of(&mut request);
        let sent = self.exchange_http2(destination, request).await;
        match failure.and_then(|failure| failure.take()) {
            Some(source) if sent.is_err() => {
                Err(UpstreamError::Upload { destination: destination.to_string(), source })
            }
            _ => sent,
        }
    }

    async fn exchange_http2(
        &self,
        destination: &Destination,
        mut request: Request<Body>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if let Some(mut connection) = self.inner.pool.shared(destination) {
            let again = repeatable(&request);
            match connection.send(request).await {
                Ok((response, stream)) => return Ok(response.map(|body| UpstreamBody::http2(body, stream))),
                Err(error) => request = unsent(destination, error, again)?,
            }
        }
        let io = connect(destination, &self.inner.config.tls, self.inner.config.connect_timeout).await?;
        let mut connection = Http2::handshake(io).await.map_err(|source| broken(destination, source))?;
        self.inner.pool.share(destination, connection.clone());
        match connection.send(request).await {
            Ok((response, stream)) => Ok(response.map(|body| UpstreamBody::http2(body, stream))),
            Err(error) => Err(broken(destination, error.into_error())),
        }
    }
}

/// A copy of a request that may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE
    );
    if !idempotent || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// The request to send once more after a pooled connection failed, or the error if that is not safe.
fn unsent(
    destination: &Destination,
    mut error: TrySendError<Request<Body>>,
    copy: Option<Request<Body>>,
) -> Result<Request<Body>, UpstreamError> {
    if let Some(request) = error.take_message() {
        return Ok(request);
    }
    let error = error.into_error();
    match copy {
        Some(request) if has_died(&error) => Ok(request),
        _ => Err(broken(destination, error)),
    }
}

/// Whether the connection has ended, or over HTTP/2 the stream, rather than that the backend has said something wrong.
fn has_died(error: &hyper::Error) -> bool {
    let is_of_http2 = || error.source().is_some_and(|source| !source.is::<io::Error>());
    error.is_incomplete_message()
        || error.is_closed()
        || error.is_canceled()
        || was_reset(error)
        || (!error.is_parse() && is_of_http2())
}

/// Whether the backend has closed the connection by a reset, as it does when a request meets its keep-alive timer.
fn was_reset(error: &hyper::Error) -> bool {
    error.source().and_then(|source| source.downcast_ref::<io::Error>()).is_some_and(|error| {
        matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        )
    })
}

fn broken(destination: &Destination, source: hyper::Error) -> UpstreamError {
    UpstreamError::Exchange { destination: destination.to_string(), source }
}
