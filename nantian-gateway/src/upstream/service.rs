//! The client as tower services.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use nantian_lb::Routed;
use tower::Service;

use super::{Client, Destination, Unanswered, UpstreamBody, UpstreamTls, client::Exchange};
use crate::{
    body::{Body, BoxError},
    ir::Address,
    listen::RequestInfo,
};

/// Sends each request to the endpoint that was picked for it.
#[derive(Debug, Clone)]
pub struct Connect {
    client: Client,
    tls: Option<UpstreamTls>,
}

/// Sends each request to one destination.
#[derive(Debug, Clone)]
pub struct ConnectTo {
    client: Client,
    destination: Destination,
}

impl Connect {
    /// Uses the connections of `client`, and `tls` in the place of that of the endpoints.
    pub fn new(client: Client, tls: Option<UpstreamTls>) -> Self {
        Self { client, tls }
    }
}

impl Client {
    /// A service that sends to `destination`.
    pub fn to(&self, destination: Destination) -> ConnectTo {
        ConnectTo { client: self.clone(), destination }
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
        self.client.send(routed.target, routed.request)
    }
}

// === impl ConnectTo ===

impl<B> Service<Request<B>> for ConnectTo
where
    B: http_body::Body<Data = bytes::Bytes> + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let exchange = self.client.send(self.destination.clone(), request.map(Body::boxed));
        Box::pin(async move { Ok(exchange.await?.map(Body::from)) })
    }
}
