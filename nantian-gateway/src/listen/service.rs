//! What a request passes before its route: one spelling, honest framing, honest headers.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::Limited;
use hyper::{body::Incoming, service::Service, upgrade::OnUpgrade};
use pin_project_lite::pin_project;

use super::{
    accept::PortKey,
    body::{ClientBody, Debt},
    connections::State,
    forward::{self, Peer, RequestInfo},
    hop_by_hop::{HopHeaders, remove_hop_by_hop},
    normalize,
};
use crate::{
    body::{Body, BoxError},
    compile::RouteFuture,
    observe::ObservedBody,
    respond,
    route::RequestHead,
    runtime::Worker,
    upstream::Upgrade,
};

/// The service of one connection.
pub(super) struct Edge {
    key: PortKey,
    worker: Rc<Worker>,
    peer: Peer,
    state: Arc<State>,
}

/// A request that is refused before it has a route.
struct Refusal {
    status: StatusCode,
    reason: String,
    close: bool,
}

impl Refusal {
    fn bad_request(reason: impl ToString) -> Self {
        Self { status: StatusCode::BAD_REQUEST, reason: reason.to_string(), close: true }
    }
}

impl Edge {
    pub(super) fn new(key: PortKey, worker: Rc<Worker>, peer: Peer, state: Arc<State>) -> Self {
        Self { key, worker, peer, state }
    }

    /// Finds the route of a request and starts it; tells what the client still owes.
    fn route(&self, request: Request<Incoming>) -> Result<(RouteFuture, Option<Debt>), Refusal> {
        let (mut parts, incoming) = request.into_parts();
        if self.state.is_refused() {
            return Err(Refusal::bad_request("both Content-Length and Transfer-Encoding"));
        }
        let seen = HopHeaders::of(&parts.headers);
        check_message(&parts, seen)?;
        if parts.version == Version::HTTP_2 {
            forward::join_cookies(&mut parts.headers);
        }
        normalize::path(&mut parts.uri).map_err(Refusal::bad_request)?;
        let host = normalize::host(&parts.uri, &parts.headers, parts.version != Version::HTTP_10)
            .map_err(Refusal::bad_request)?;

        let snapshot = self.worker.snapshot();
        let port = snapshot.port(&self.key).filter(|port| port.is_tls() == self.peer.tls);
        let Some(port) = port else {
            return Err(Refusal {
                status: StatusCode::NOT_FOUND,
                reason: "no listener".to_owned(),
                close: true,
            });
        };
        let head = RequestHead {
            host: &host,
            path: parts.uri.path(),
            query: parts.uri.query(),
            method: &parts.method,
            headers: &parts.headers,
        };
        let found = snapshot.find(port, &head);
        if found.as_ref().is_some_and(|found| found.needs_info) || self.worker.config.access_log.is_some() {
            let info = RequestInfo {
                client: self.peer.client(&parts.headers, &self.worker.config.trusted_proxies),
                peer: self.peer.address,
                tls: self.peer.tls,
                port: self.peer.port,
                host: host.as_ref().into(),
                matched_prefix: found.as_ref().and_then(|found| found.prefix),
            };
            parts.extensions.insert(info);
        }
        drop(host);
        let Some(found) = found else {
            return Ok((snapshot.unmatched(Request::from_parts(parts, Body::empty())), None));
        };
        let (body, debt) = self.body(incoming)?;
        self.prepare(&mut parts, seen);
        Ok((found.service.call(Request::from_parts(parts, body)), debt))
    }

    /// The request's body, if it is not known to be too large; one of unknown size is cut at the limit.
    fn body(&self, incoming: Incoming) -> Result<(Body, Option<Debt>), Refusal> {
        if incoming.is_end_stream() {
            return Ok((Body::empty(), None));
        }
        let limit = self.worker.config.max_request_body;
        let size = incoming.size_hint();
        if size.lower() > limit {
            let reason = format!("a request body may have at most {limit} bytes");
            return Err(Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, reason, close: true });
        }
        let (body, debt) = ClientBody::new(incoming, Arc::clone(&self.state));
        let body = match usize::try_from(limit) {
            Ok(limit) if size.upper().is_none() => Body::boxed(Limited::new(body, limit)),
            _ => body.into(),
        };
        Ok((body, Some(debt)))
    }

    /// Removes what was meant for this hop and says who asks.
    fn prepare(&self, parts: &mut http::request::Parts, seen: HopHeaders) {
        let protocol = remove_hop_by_hop(&mut parts.headers, seen);
        if let (Some(protocol), Some(client)) = (protocol, parts.extensions.remove::<OnUpgrade>()) {
            parts.extensions.insert(Upgrade { protocol, client, guard: self.state.tunnel() });
        }
        // hyper sends 100 as soon as the body is polled, which happens when a backend takes it.
        if seen.expect() {
            parts.headers.remove(header::EXPECT);
        }
        let authority = match parts.uri.authority() {
            Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
            None => parts.headers.get(header::HOST).cloned(),
        };
        if parts.uri.authority().is_some()
            && let Some(authority) = &authority
        {
            parts.headers.insert(header::HOST, authority.clone());
        }
        self.peer.forward(&mut parts.headers, seen, authority.as_ref());
    }
}

/// Refuses what cannot be forwarded truly.
fn check_message(parts: &http::request::Parts, seen: HopHeaders) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        let reason = "this is no forward proxy".to_owned();
        return Err(Refusal { status: StatusCode::METHOD_NOT_ALLOWED, reason, close: true });
    }
    if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
        return Err(Refusal::bad_request("only OPTIONS is about the server as a whole"));
    }
    if !seen.transfer_encoding() {
        return Ok(());
    }
    let mut codings = parts.headers.get_all(header::TRANSFER_ENCODING).iter();
    if let Some(coding) = codings.next()
        && (codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        let reason = "the only transfer coding is chunked".to_owned();
        return Err(Refusal { status: StatusCode::NOT_IMPLEMENTED, reason, close: true });
    }
    Ok(())
}

// === impl Edge ===

impl Service<Request<Incoming>> for Edge {
    type Response = Response<DownstreamBody>;
    type Error = Infallible;
    type Future = EdgeFuture;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.state.request_begins();
        let guard = Some(InFlight(Arc::clone(&self.state)));
        let state = match self.route(request) {
            Ok((future, debt)) => Reply::Route { future, debt },
            Err(refusal) => {
                self.worker.refused(refusal.status);
                Reply::Refused { refusal: Some(refusal) }
            }
        };
        EdgeFuture { state, guard }
    }
}

/// The connection is busy while this lives.
struct InFlight(Arc<State>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.response_ends();
    }
}

pin_project! {
    /// The future of [`Edge`]; dropping it drops the route's future.
    pub(super) struct EdgeFuture {
        #[pin]
        state: Reply,
        guard: Option<InFlight>,
    }
}

pin_project! {
    #[project = ReplyProjection]
    enum Reply {
        Route { #[pin] future: RouteFuture, debt: Option<Debt> },
        Refused { refusal: Option<Refusal> },
    }
}

impl Future for EdgeFuture {
    type Output = Result<Response<DownstreamBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = match this.state.project() {
            ReplyProjection::Route { future, debt } => {
                let Ok(response) = ready!(future.poll(cx));
                if let Some(debt) = debt.take() {
                    debt.forgive();
                }
                response.map(Downstream::Observed)
            }
            ReplyProjection::Refused { refusal } => refuse(refusal.take()).map(Downstream::Plain),
        };
        let guard = this.guard.take();
        let response = response.map(|body| DownstreamBody { body, _guard: guard });
        Poll::Ready(Ok(without_hop_by_hop(response)))
    }
}

fn refuse(refusal: Option<Refusal>) -> Response<Body> {
    let Some(Refusal { status, reason, close }) = refusal else {
        return Response::default();
    };
    let mut response = respond::plain(status, &reason);
    if close {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Removes what the backend meant for the gateway; a change of protocol is announced again.
fn without_hop_by_hop(mut response: Response<DownstreamBody>) -> Response<DownstreamBody> {
    // A gateway speaks its own version, whatever the backend speaks (RFC 9110, section 2.5).
    *response.version_mut() = Version::HTTP_11;
    if matches!(response.body().body, Downstream::Plain(_)) {
        return response;
    }
    let seen = HopHeaders::of(response.headers());
    if seen.transfer_encoding() {
        // The length is not that of the body (RFC 9112, section 6.3).
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    let upgrade = remove_hop_by_hop(response.headers_mut(), seen);
    if let Some(protocol) = upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    response
}

/// The body of a response on its way to the client.
pub(super) struct DownstreamBody {
    body: Downstream,
    _guard: Option<InFlight>,
}

enum Downstream {
    Observed(ObservedBody),
    Plain(Body),
}

impl http_body::Body for DownstreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.body {
            Downstream::Observed(body) => Pin::new(body).poll_frame(cx),
            Downstream::Plain(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.body {
            Downstream::Observed(body) => body.is_end_stream(),
            Downstream::Plain(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.body {
            Downstream::Observed(body) => body.size_hint(),
            Downstream::Plain(body) => body.size_hint(),
        }
    }
}
