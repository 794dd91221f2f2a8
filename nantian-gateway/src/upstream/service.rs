//! The client as tower services.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response};
use nantian_lb::Routed;
use tower::Service;

use super::{Client, Destination, UpstreamBody};
use crate::body::{Body, BoxError};

type Exchange = Pin<Box<dyn Future<Output = Result<Response<UpstreamBody>, BoxError>>>>;

/// Sends each request to the endpoint that was picked for it.
#[derive(Debug, Clone)]
pub struct Connect {
    client: Client,
}

/// Sends each request to one destination.
#[derive(Debug, Clone)]
pub struct ConnectTo {
    client: Client,
    destination: Destination,
}

impl Connect {
    /// Uses the connections of `client`.
    pub fn new(client: Client) -> Self {
        Self { client }
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
    type Error = BoxError;
    type Future = Exchange;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, routed: Routed<Destination, Request<Body>>) -> Self::Future {
        let client = self.client.clone();
        Box::pin(async move { Ok(client.send(routed.target, routed.request).await?) })
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
        let (client, destination) = (self.client.clone(), self.destination.clone());
        let request = request.map(Body::boxed);
        Box::pin(async move { Ok(client.send(destination, request).await?.map(Body::from)) })
    }
}
