//! The client as tower services.

use std::{
    rc::Rc,
    task::{Context, Poll},
};

use http::{Request, Response};
use nantian_lb::Routed;
use tower::Service;

use super::{Client, Destination, Unanswered, Upgrade, UpstreamBody, UpstreamTls, client::Exchange};
use crate::{
    body::Body,
    grpc,
    ir::{Address, Protocol},
    listen::RequestInfo,
};

/// Sends each request to the endpoint that was picked for it.
#[derive(Debug, Clone)]
pub(crate) struct Connect {
    client: Client,
    tls: Option<UpstreamTls>,
    /// The route is one of calls of gRPC: its backends take them, and speak HTTP/2 whatever is said of them.
    is_of_calls: bool,
}

/// Sends each request to one destination.
#[derive(Debug, Clone)]
pub(crate) struct ConnectTo {
    client: Client,
    destination: Rc<Destination>,
}

impl Connect {
    /// Uses the connections of `client`, and `tls` in the place of that of the endpoints. `is_of_calls`: the
    /// route says that its backends take calls of gRPC; on other routes a client alone says so.
    pub(crate) fn new(client: Client, tls: Option<UpstreamTls>, is_of_calls: bool) -> Self {
        Self { client, tls, is_of_calls }
    }
}

impl Client {
    /// A service that sends to `destination`.
    pub(crate) fn to(&self, destination: Destination) -> ConnectTo {
        ConnectTo { client: self.clone(), destination: Rc::new(destination) }
    }
}

// === impl Connect ===

impl Service<Routed<Destination, Request<Body>>> for Connect {
    type Response = Response<UpstreamBody>;
    type Error = Unanswered;
    type Future = Exchange;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut routed: Routed<Destination, Request<Body>>) -> Self::Future {
        if let Some(tls) = &self.tls {
            routed.target.over(tls);
        }
        let info = routed.request.extensions().get::<RequestInfo>();
        if let (Some(told), Address::Ip(address)) =
            (info.and_then(|info| info.upstream.as_ref()), &routed.target.address)
        {
            told.set(*address);
        }
        let Routed { mut target, request, .. } = routed;
        let is_call = grpc::is_call(request.version(), request.headers());
        if self.is_of_calls {
            // Servers of gRPC break off what comes over HTTP/1.1, and know how to answer here.
            target.protocol = Protocol::H2c;
        }
        let chosen_by_client = match target.protocol {
            Protocol::H2c if request.extensions().get::<Upgrade>().is_some() => {
                // Few servers take one over HTTP/2 (RFC 8441), and many speak both versions on one port.
                target.protocol = Protocol::Http1;
                Some("HTTP/1.1, as upgrades do")
            }
            Protocol::H2c if self.is_of_calls && !is_call => Some("HTTP/2 without calls of gRPC"),
            Protocol::Http1 if is_call => Some("HTTP/2, as calls of gRPC do"),
            _ => None,
        };
        let exchange = self.client.send(target, request);
        let Some(protocol) = chosen_by_client else { return exchange };
        Box::pin(async move { exchange.await.map_err(|unanswered| unanswered.of_chosen_protocol(protocol)) })
    }
}

// === impl ConnectTo ===

impl<B: Into<Body>> Service<Request<B>> for ConnectTo {
    type Response = Response<UpstreamBody>;
    type Error = Unanswered;
    type Future = Exchange;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Unanswered>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        self.client.send((*self.destination).clone(), request.map(Into::into))
    }
}
