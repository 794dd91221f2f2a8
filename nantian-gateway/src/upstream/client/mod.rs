//! One worker's HTTP client.

use std::{
    future::{Future, ready},
    mem,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::body::Incoming;
use rustls::ClientConfig as TlsConfig;
use tokio::time::{Instant, timeout_at};

use super::{
    Destination, Roots, SentTo, Unanswered, Upgrade, UpstreamBody, UpstreamError,
    body::Lease,
    connect::connect,
    http1::Http1,
    http2::Http2,
    pool::Pool,
    request_target::{to_absolute_form, to_origin_form},
    resend::{Attempt, broken, repeatable, unsent},
    tls_client_config, tunnel,
    upload::Upload,
};
use crate::{
    body::Body,
    grpc,
    hops::Hop,
    ir::Protocol,
    socket::{UNANSWERED, unanswered},
    tenancy::Tenancy,
};

/// An exchange on its way to the head of the response.
pub(super) type Exchange = Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, Unanswered>>>>;

/// Limits of the client.
#[derive(Debug, Clone)]
pub(crate) struct ClientConfig {
    /// Time to open a connection, the TLS handshake included. Default: 5 s.
    pub(crate) connect_timeout: Duration,
    /// How long an unused connection is kept. Default: 60 s.
    pub(crate) idle_timeout: Duration,
    /// How long an upgraded connection may be silent; `None` is no limit. Default: 1 h.
    pub(crate) tunnel_idle_timeout: Option<Duration>,
    /// How long a backend may take nothing of the body of a request. Default: 60 s.
    pub(crate) stall_timeout: Duration,
    /// Roots and protocols for destinations whose TLS has none of its own.
    pub(crate) tls: Arc<TlsConfig>,
    /// Where destinations may be.
    pub(crate) tenancy: Tenancy,
    /// Who requests say that they come from.
    pub(crate) hop: Hop,
}

impl ClientConfig {
    /// One for tests and benches: it trusts nobody.
    ///
    /// # Errors
    /// When TLS cannot be set up.
    pub(crate) fn bare() -> Result<Self, rustls::Error> {
        Ok(Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(60),
            tunnel_idle_timeout: None,
            stall_timeout: Duration::from_secs(60),
            tls: tls_client_config(&Roots::none())?,
            tenancy: Tenancy::Single,
            hop: Hop::default(),
        })
    }
}

/// One worker's client; its clones share the connections.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    inner: Rc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: ClientConfig,
    pool: Pool,
}

impl Client {
    /// A client without connections.
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self { inner: Rc::new(Inner { config, pool: Pool::default() }) }
    }

    /// Sends `request` to `destination`; the future waits for the head of the response.
    ///
    /// A request that met a pooled connection in the moment of its death is sent once more on a fresh one, if
    /// nothing of it was written, or if it is idempotent and has no body (RFC 9110, section 9.2.2).
    ///
    /// # Errors
    /// [`Unanswered`]; it carries the request if there is no connection to send it on.
    ///
    /// # Cancellation
    /// Dropping the future, or the body of the response, closes the connection.
    pub(crate) fn send(&self, mut destination: Destination, mut request: Request<Body>) -> Exchange {
        let config = &self.inner.config;
        config.hop.write(&mut request);
        if let Some(sent_to) = request.extensions().get::<SentTo>() {
            sent_to.set(&destination);
        }
        if grpc::is_call(request.version(), request.headers()) {
            // Nothing else carries a call, whatever is said of the Service. Both sides may be silent.
            destination.protocol = Protocol::H2c;
            return self.exchange(destination, request);
        }
        // A connection may be waited for, and then opened after all.
        let Some(upload) = Upload::of(&mut request, &destination, config.connect_timeout * 2) else {
            return self.exchange(destination, request);
        };
        let exchange = self.exchange(destination.clone(), request);
        Box::pin(upload.taken(exchange, destination, config.stall_timeout))
    }

    fn exchange(&self, destination: Destination, mut request: Request<Body>) -> Exchange {
        let client = self.clone();
        if destination.protocol == Protocol::H2c {
            if let Err(error) = to_absolute_form(&mut request, &destination) {
                return Box::pin(ready(Err(error.into())));
            }
            return Box::pin(client.send_http2(destination, request));
        }
        to_origin_form(&mut request, &destination);
        let upgrade = request.extensions_mut().remove::<Upgrade>();
        if let Some(upgrade) = &upgrade {
            upgrade.ask(request.headers_mut());
        }
        // What may become a tunnel has a connection with other limits.
        let pooled = if upgrade.is_none() { self.inner.pool.take(&destination) } else { None };
        let Some(mut connection) = pooled else {
            return Box::pin(client.send_fresh(destination, request, upgrade));
        };
        // Begun here and not in the future, which would have to carry the request.
        let copy = repeatable(&request);
        let response = connection.begin(request);
        Box::pin(async move {
            match connection.head(response).await {
                Ok(response) => Ok(client.respond(connection, response, upgrade)?),
                Err(error) => {
                    drop(connection);
                    let request = unsent(&destination, error, copy)?;
                    // Boxed, because few need it: every exchange would have room for a handshake, and touch
                    // it.
                    Box::pin(client.send_fresh(destination, request, upgrade)).await
                }
            }
        })
    }

    /// Closes what was unused for too long.
    pub(crate) fn sweep(&self, now: Instant) {
        self.inner.pool.sweep(now, self.inner.config.idle_timeout);
    }

    pub(super) fn give_back(&self, connection: Box<Http1>) {
        self.inner.pool.put(connection);
    }

    /// Sends a request on a connection of its own.
    async fn send_fresh(
        self,
        destination: Destination,
        mut request: Request<Body>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<UpstreamBody>, Unanswered> {
        // The sides of a tunnel may pause for as long as they like.
        let unanswered = unanswered(self.inner.config.stall_timeout).filter(|_| upgrade.is_none());
        let mut connection = match self.open_http1(&destination, unanswered).await {
            Ok(connection) => connection,
            Err(error) => {
                if let Some(upgrade) = upgrade {
                    request.extensions_mut().insert(upgrade);
                }
                return Err(Unanswered::unsent(error, request, destination));
            }
        };
        let response = connection.begin(request);
        match connection.head(response).await {
            Ok(response) => Ok(self.respond(connection, response, upgrade)?),
            Err(error) => Err(broken(&destination, error.into_error()).into()),
        }
    }

    async fn open_http1(
        &self,
        destination: &Destination,
        unanswered: Option<Duration>,
    ) -> Result<Box<Http1>, UpstreamError> {
        let io = connect(destination, unanswered, &self.inner.config).await?;
        let connection = Http1::handshake(io, destination.clone()).await;
        Ok(Box::new(connection.map_err(|source| broken(destination, source))?))
    }

    fn respond(
        &self,
        mut connection: Box<Http1>,
        mut response: Response<Incoming>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(upgrade) = upgrade else {
                return Err(UpstreamError::Switched { destination: connection.destination.to_string() });
            };
            let upstream = hyper::upgrade::on(&mut response);
            let held = tunnel::Held::default();
            let idle = self.inner.config.tunnel_idle_timeout;
            let bytes = tunnel::start(connection, upstream, upgrade, held.clone(), idle);
            response.extensions_mut().insert(held);
            response.extensions_mut().insert(bytes);
            return Ok(response.map(|_| UpstreamBody::default()));
        }
        if upgrade.is_some() {
            // Whatever it has answered, it may have left HTTP: some do for an offer that they do not take.
            connection.keep_from_others();
        }
        if !is_readable(&response) {
            return Err(UpstreamError::Encoded { destination: connection.destination.to_string() });
        }
        let (parts, incoming) = response.into_parts();
        connection.learn(&parts.headers);
        let lease = Lease { connection, client: self.clone() };
        Ok(Response::from_parts(parts, UpstreamBody::http1(incoming, lease)))
    }

    /// Sends a request on a connection that others share, and once more on another one if that is safe.
    async fn send_http2(
        self,
        destination: Destination,
        mut request: Request<Body>,
    ) -> Result<Response<UpstreamBody>, Unanswered> {
        let mut attempt = Attempt::first(&mut request);
        loop {
            let (connection, is_pooled) = match self.shared(&destination, attempt.failed_on()).await {
                Ok(connection) => connection,
                Err(error) => return Err(Unanswered::unsent(error, request, destination)),
            };
            attempt.begin(&mut request);
            match connection.clone().send(request).await {
                Ok((response, stream)) => return Ok(response.map(|body| UpstreamBody::http2(body, stream))),
                Err(error) => request = attempt.again(&destination, error, connection, is_pooled)?,
            }
        }
    }

    /// A connection, other than `except`, with room for another stream, and whether others have used it. One
    /// that is being opened is waited for, as long as one may take to open; if there will be none, another
    /// one once more, because the first may have met a backend that begins or ends.
    async fn shared(
        &self,
        destination: &Destination,
        except: Option<&Http2>,
    ) -> Result<(Http2, bool), UpstreamError> {
        let pool = &self.inner.pool;
        let (mut end, mut has_failed) = (None, false);
        loop {
            if let Some(known) = pool.shared(destination, except) {
                return Ok((known, true));
            }
            let end = *end.get_or_insert_with(|| Instant::now() + self.inner.config.connect_timeout);
            let Some(ticket) = pool.ticket(destination).filter(|_| Instant::now() < end) else {
                return Ok((self.open_http2(destination).await?, false));
            };
            if let Ok(Err(error)) = timeout_at(end, ticket.opened()).await
                && mem::replace(&mut has_failed, true)
            {
                return Err(error);
            }
        }
    }

    async fn open_http2(&self, destination: &Destination) -> Result<Http2, UpstreamError> {
        let opening = self.inner.pool.open(destination);
        let opened = async {
            // Many requests share it, and its backend reads on whatever becomes of single ones.
            let io = connect(destination, Some(UNANSWERED), &self.inner.config).await?;
            let connection = Http2::handshake(io, destination, Rc::clone(&opening)).await;
            connection.map_err(|source| broken(destination, source))
        };
        let connection = opened.await.inspect_err(|error| opening.fail(error))?;
        self.inner.pool.share(destination, connection.clone());
        Ok(connection)
    }
}

/// Whether nothing but chunks stands between the bytes and the content: a client would take for the content
/// what another transfer coding has made of it, for its name ends at this hop (RFC 9112, section 6.1).
/// Content of known length is in none.
fn is_readable(response: &Response<Incoming>) -> bool {
    if response.body().size_hint().exact().is_some() {
        return true;
    }
    let mut codings = response.headers().get_all(header::TRANSFER_ENCODING).iter();
    let is_known = |coding: &HeaderValue| {
        let is = |name: &[u8]| coding.as_bytes().eq_ignore_ascii_case(name);
        // The latter is none (RFC 2616, section 3.6); a length beside it would not hold.
        is(b"chunked") || is(b"identity") && !response.headers().contains_key(header::CONTENT_LENGTH)
    };
    codings.next().is_none_or(is_known) && codings.next().is_none()
}

#[cfg(test)]
mod tests;
