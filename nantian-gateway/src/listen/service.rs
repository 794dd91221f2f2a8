//! What a request passes before its route: one spelling, honest framing, honest headers.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Scheme};
use http_body::Body as _;
use http_body_util::Limited;
use hyper::{body::Incoming, ext::ReasonPhrase, service::Service, upgrade::OnUpgrade};
use pin_project_lite::pin_project;

use super::{
    accept::PortKey,
    body::ClientBody,
    forward::{Peer, RequestInfo},
    header_order::Order,
    hop_by_hop::{HopHeaders, remove_hop_by_hop},
    http2_head, normalize,
    refusal::{Refusal, refuse},
    reply::ReplyBody,
    response_head::{without_content, without_hop_by_hop},
    stall_timer::{StallTimer, StreamExecutor},
    state::{InFlight, State},
    unread::UnreadBody,
};
use crate::{
    body::Body, compile::RouteFuture, grpc, observe::ObservedBody, policy, respond::LocalReplyText,
    route::RequestHead, runtime::LocalSnapshot, runtime::Worker, snapshot::Port, upstream::Upgrade,
};

/// The service of one connection.
pub(super) struct ConnectionService {
    key: PortKey,
    worker: Rc<Worker>,
    peer: Peer,
    state: Arc<State>,
    /// Where the streams of an HTTP/2 connection run.
    streams: Option<StreamExecutor>,
    /// What is left of the request of an HTTP/1.1 connection.
    unread: Option<UnreadBody>,
}

impl ConnectionService {
    pub(super) fn http1(
        key: PortKey,
        worker: Rc<Worker>,
        peer: Peer,
        state: Arc<State>,
        unread: UnreadBody,
    ) -> Self {
        Self { key, worker, peer, state, streams: None, unread: Some(unread) }
    }

    pub(super) fn http2(
        key: PortKey,
        worker: Rc<Worker>,
        peer: Peer,
        state: Arc<State>,
        streams: StreamExecutor,
    ) -> Self {
        Self { key, worker, peer, state, streams: Some(streams), unread: None }
    }

    /// Finds the route of a request and starts it; `timer` is that of its HTTP/2 stream, or of an upload.
    fn route(
        &self,
        request: Request<Incoming>,
        snapshot: &LocalSnapshot,
        timer: &mut Option<Rc<StallTimer>>,
    ) -> Result<RouteFuture, Refusal> {
        let (mut parts, incoming) = request.into_parts();
        let body = self.body(incoming, &parts.headers, timer);
        let seen = self.check(&mut parts, &body).map_err(|refusal| self.note(refusal, &parts))?;
        // What is matched is what is forwarded; a rule may ask for the protocol of an upgrade besides.
        let order = snapshot.order();
        let upgrades = self.prepare(&mut parts, seen, order, !body.is_end_stream());
        let host = normalize::host(&parts.uri, &parts.headers, parts.version != Version::HTTP_10)
            .map_err(|error| self.note(Refusal::bad_request(error), &parts))?;

        let port = snapshot.port_of(&self.key, self.peer.local.ip());
        let port = port.filter(|port| port.is_tls() == self.peer.tls);
        let Some(port) = port else {
            return Err(self.note(Refusal::new(StatusCode::NOT_FOUND, "no listener"), &parts));
        };
        if self.is_misdirected(port, &host) {
            let reason = "another listener answers for this host: open a connection for it";
            return Err(self.note(Refusal::new(StatusCode::MISDIRECTED_REQUEST, reason), &parts));
        }
        let head = RequestHead {
            host: &host,
            path: parts.uri.path(),
            query: parts.uri.query(),
            method: &parts.method,
            headers: &parts.headers,
        };
        let found = snapshot.find(port, &head).map_err(|error| {
            self.note(Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error), &parts)
        })?;
        if found.is_some_and(|(_, rule)| rule.needs_info) || self.worker.config.access_log.is_some() {
            let info = RequestInfo {
                client: self.peer.client(&parts.headers, &self.worker.config.trusted_proxies),
                peer: self.peer.address,
                destination: self.peer.destination,
                connection: self.peer.connection,
                tls: self.peer.tls,
                is_secure: self.peer.is_secure(&parts.headers),
                session: self.peer.session.clone(),
                port: port.number,
                host: host.as_ref().into(),
                upstream: None,
                filter_state: None,
            };
            parts.extensions.insert(info);
        }
        drop(host);
        let Some((service, rule)) = found else {
            return Ok(snapshot.unmatched(Request::from_parts(parts, Body::empty())));
        };
        if upgrades {
            order.remove(&mut parts.headers, |name| *name == header::UPGRADE);
        }
        if let Some(timer) = timer.as_ref().filter(|_| !body.is_end_stream()) {
            if rule.may_hold_bodies() {
                parts.extensions.insert(timer.held_upload());
            }
            if rule.is_of_calls() {
                // Both sides of a call speak when they like and as long as they like, also before the head of
                // its response.
                timer.free();
            }
        }
        let body = if rule.is_of_calls() { body } else { self.limited(body) };
        Ok(service.call(Request::from_parts(parts, body)))
    }

    /// Refuses what cannot be forwarded truly; gives the path its one spelling.
    fn check(&self, parts: &mut http::request::Parts, body: &Body) -> Result<HopHeaders, Refusal> {
        if self.state.is_refused() {
            return Err(Refusal::bad_request("both Content-Length and Transfer-Encoding"));
        }
        let limit = self.worker.config.max_request_body;
        if body.size_hint().lower() > limit {
            let reason = format!("a request body may have at most {limit} bytes");
            let refusal = policy::refusal(parts, StatusCode::PAYLOAD_TOO_LARGE, &reason);
            return Err(Refusal(Box::new(refusal)));
        }
        if parts.version == Version::HTTP_2 {
            http2_head::settle(parts)?;
        }
        let seen = HopHeaders::of(&parts.headers);
        check_message(parts, seen)?;
        if seen.cdn_loop() {
            let passed = self.worker.config.client.hop.note(&parts.headers, &mut parts.extensions);
            passed.map_err(|error| Refusal::new(StatusCode::LOOP_DETECTED, error))?;
        }
        normalize::one_host(&parts.headers, parts.version).map_err(Refusal::bad_request)?;
        normalize::path(&mut parts.uri, parts.version).map_err(Refusal::bad_request)?;
        Ok(seen)
    }

    /// Whether a request came over a connection that was opened for another listener (RFC 9110, section
    /// 15.5.20): its certificate, and what is asked of its clients, are not those of the host.
    ///
    /// That goes for one without a server name, too, and for one that was opened before its listener asked
    /// for a certificate, or for another one.
    fn is_misdirected(&self, port: &Port, host: &str) -> bool {
        let Some(server) = port.https() else { return false };
        let name = self.peer.server_name.as_deref().filter(|name| *name != host);
        let has_proved = server.admits(self.peer.clients.as_ref(), host);
        if name.is_none() && has_proved {
            return false;
        }
        let of_host = port.router.listener(host);
        let is_other = || name.is_some_and(|name| of_host != port.router.listener(name));
        of_host.is_some() && (!has_proved || is_other())
    }

    /// Counts and logs a refusal.
    fn note(&self, refusal: Refusal, parts: &http::request::Parts) -> Refusal {
        let (status, length) = (refusal.0.status(), refusal.0.body().len());
        let why = refusal.0.extensions().get().map_or("", |LocalReplyText(text)| text);
        self.worker.refusals.note(Some(parts), self.peer.address.ip(), status, length, &why);
        refusal
    }

    /// The request's body.
    fn body(&self, incoming: Incoming, headers: &HeaderMap, timer: &mut Option<Rc<StallTimer>>) -> Body {
        if incoming.is_end_stream() {
            return Body::empty();
        }
        let timer = timer.get_or_insert_with(|| self.worker.connections.timer());
        let waits_for_100 = headers.contains_key(header::EXPECT);
        ClientBody::new(incoming, Rc::clone(timer), self.unread.clone(), waits_for_100).into()
    }

    /// A body that is not known to be too large; one of unknown size is cut at the limit.
    fn limited(&self, body: Body) -> Body {
        match usize::try_from(self.worker.config.max_request_body) {
            Ok(limit) if body.size_hint().upper().is_none() => Body::boxed(Limited::new(body, limit)),
            _ => body,
        }
    }

    /// Removes what was meant for this hop, but for the offer of an upgrade, and says who asks.
    ///
    /// Returns whether there is an offer. There is none beside a body: some backends end such a request at
    /// its head and read the body as requests that no route has seen (RFC 9931).
    fn prepare(
        &self,
        parts: &mut http::request::Parts,
        seen: HopHeaders,
        order: Order,
        has_body: bool,
    ) -> bool {
        let offer = remove_hop_by_hop(&mut parts.headers, seen, order).filter(|_| !has_body);
        let upgrade = offer.and_then(|protocol| {
            let client = parts.extensions.remove::<OnUpgrade>()?;
            Some(Upgrade { protocol, client, guard: self.state.tunnel() })
        });
        let upgrades = upgrade.is_some();
        if let Some(upgrade) = upgrade {
            parts.headers.insert(header::UPGRADE, upgrade.protocol.clone());
            parts.extensions.insert(upgrade);
        }
        // hyper sends 100 as soon as the body is polled, which happens when a backend takes it.
        if seen.expect() {
            order.remove(&mut parts.headers, |name| *name == header::EXPECT);
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
        self.peer.forward(&mut parts.headers, seen, order, authority.as_ref());
        upgrades
    }
}

/// Refuses what cannot be forwarded truly.
fn check_message(parts: &http::request::Parts, seen: HopHeaders) -> Result<(), Refusal> {
    if parts.method == Method::CONNECT {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this is no forward proxy"));
    }
    if parts.uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS) {
        return Err(Refusal::bad_request("the scheme is neither http nor https"));
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
        return Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "the only transfer coding is chunked"));
    }
    Ok(())
}

// === impl ConnectionService ===

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = RequestFuture;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let guard = Some(InFlight::begin(&self.state));
        let is_grpc = grpc::is_call(request.version(), request.headers());
        let (version, is_head) = (request.version(), *request.method() == Method::HEAD);
        let mut timer = self.streams.as_ref().map(|streams| {
            let timer = self.worker.connections.timer();
            streams.announce(Rc::clone(&timer));
            timer
        });
        let snapshot = self.worker.snapshot();
        let reply = match self.route(request, &snapshot, &mut timer) {
            Ok(future) => Reply::Route { future },
            Err(refusal) => Reply::Refused { refusal: Some(refusal) },
        };
        let unread = self.unread.clone();
        let order = snapshot.order();
        RequestFuture { reply, timer, unread, version, is_grpc, is_head, order, guard }
    }
}

pin_project! {
    /// The future of [`ConnectionService`]; dropping it drops the route's future.
    pub(super) struct RequestFuture {
        #[pin]
        reply: Reply,
        timer: Option<Rc<StallTimer>>,
        unread: Option<UnreadBody>,
        version: Version,
        is_grpc: bool,
        is_head: bool,
        order: Order,
        guard: Option<InFlight>,
    }
}

pin_project! {
    #[project = ReplyProjection]
    enum Reply {
        Route { #[pin] future: RouteFuture },
        Refused { refusal: Option<Refusal> },
    }
}

impl Future for RequestFuture {
    type Output = Result<Response<ReplyBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let (is_http2, is_http10) = (*this.version == Version::HTTP_2, *this.version == Version::HTTP_10);
        let response = match this.reply.project() {
            ReplyProjection::Route { future } => {
                let Ok(response) = ready!(future.poll(cx));
                without_hop_by_hop(response, *this.order, *this.version)
            }
            ReplyProjection::Refused { refusal } => refuse(refusal.take()).map(ObservedBody::unobserved),
        };
        let response = match response {
            foreign if *this.is_grpc && grpc::is_foreign(&foreign) => {
                grpc::translated(foreign.map(ObservedBody::emptied), ObservedBody::unobserved(Body::empty()))
            }
            // Over HTTP/1.1 hyper sees to that.
            response if is_http2 => without_content(response, *this.is_head),
            response => response,
        };
        let (timer, mut guard) = (this.timer.take(), this.guard.take());
        let changes_protocol = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if let Some(guard) = &mut guard {
            guard.answered();
            if changes_protocol {
                guard.changes_protocol();
            }
        }
        if let Some(timer) = &timer {
            timer.free();
        }
        let timer = timer.filter(|_| is_http2);
        // Nothing but the end of its connection tells such a client where the content ends.
        let ends_with_connection =
            is_http10 && !changes_protocol && response.body().size_hint().exact().is_none();
        if let Some(guard) = guard.as_ref().filter(|_| ends_with_connection) {
            guard.ends_with_connection();
        }
        let is_last = !is_http2 && guard.as_ref().is_some_and(InFlight::is_draining)
            || this.unread.as_ref().is_some_and(UnreadBody::is_long)
            || ends_with_connection;
        let mut response = response.map(|body| ReplyBody::new(body, timer, guard));
        if is_last && !changes_protocol {
            let upgrades = response.headers().contains_key(header::UPGRADE);
            let options = if upgrades { "close, upgrade" } else { "close" };
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static(options));
        }
        // A gateway speaks its own version, whatever the backend speaks (RFC 9110, section 2.5). But a client
        // of HTTP/1.0 hyper would then tell besides that the connection is kept, if it wants that.
        let closes_http10 = is_http10 && response.headers().contains_key(header::CONNECTION);
        *response.version_mut() = if closes_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        // hyper writes `<none>` where there are no words for a status, such as Anthropic's 529.
        if response.status().canonical_reason().is_none() {
            response.extensions_mut().get_or_insert(ReasonPhrase::from_static(b""));
        }
        Poll::Ready(Ok(response))
    }
}
