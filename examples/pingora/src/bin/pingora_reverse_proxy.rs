//! A Pingora proxy that picks endpoints in turn, counts a request to the end of its response, and passes over
//! endpoints that fail.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::num::NonZeroU32;

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use axum::body::Body;
use axum::{Router, routing::get};
use futures_util::{StreamExt as _, stream};
use http_body_util::BodyExt as _;
use nantian_lb::health::{Health, OutlierConfig};
use nantian_lb::{BalanceConfig, Balancer, Endpoint, EndpointId, InFlight, Outcome, PickContext, Strategy};
use nantian_pingora_examples::{backend, client, nobody, proxy};
use pingora_core::{Error, ErrorSource, ErrorType, OrErr as _, Result, upstreams::peer::HttpPeer};
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session};

struct Proxy(Balancer<SocketAddr>);

/// What is known of a request between the callbacks.
#[derive(Default)]
struct Exchange {
    /// Counts the request at its endpoint until it is dropped.
    in_flight: Option<InFlight>,
    tried: Vec<EndpointId>,
}

impl Exchange {
    fn record(&mut self, outcome: Outcome) {
        if let Some(in_flight) = &mut self.in_flight {
            in_flight.record(outcome);
        }
    }
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Exchange;

    fn new_ctx(&self) -> Exchange {
        Exchange::default()
    }

    /// Called again for each retry: an endpoint that was tried is not picked again.
    async fn upstream_peer(&self, session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
        let request = &**session.req_header();
        let context = PickContext::new().with_keys(request).with_tried(&exchange.tried);
        let picked = self.0.pick(&context).or_err(ErrorType::HTTPStatus(503), "no endpoint")?;
        let (target, in_flight) = picked.into_parts();
        exchange.tried.push(in_flight.endpoint().clone());
        exchange.in_flight = Some(in_flight);
        Ok(Box::new(HttpPeer::new(target, false, String::new())))
    }

    fn fail_to_connect(
        &self,
        _: &mut Session,
        _: &HttpPeer,
        exchange: &mut Exchange,
        mut error: Box<Error>,
    ) -> Box<Error> {
        exchange.record(Outcome::Unreachable);
        error.set_retry(true);
        error
    }

    async fn upstream_response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Exchange,
    ) -> Result<()> {
        exchange.record(Outcome::of_head(response.status, &response.headers));
        Ok(())
    }

    /// The end of every request, however it ends. What was told first counts, so that an answer stays one.
    async fn logging(&self, _: &mut Session, error: Option<&Error>, exchange: &mut Exchange) {
        if error.is_some_and(|error| *error.esource() == ErrorSource::Upstream) {
            exchange.record(Outcome::Unreachable);
        }
        exchange.in_flight = None;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let outlier = OutlierConfig::new().with_consecutive_gateway_errors(NonZeroU32::new(3));
    let config = BalanceConfig::new(Strategy::RoundRobin).with_outlier(outlier);
    let endpoints = [
        Endpoint::new("a", named("a").await?),
        Endpoint::new("b", named("b").await?),
        Endpoint::new("gone", nobody().await?),
    ];
    let balancer = Balancer::new(endpoints, &config);
    let url = format!("http://{}", proxy(Proxy(balancer.clone())).await?);
    let client = client();

    // Two downloads that have not ended are counted, one at each endpoint that answers.
    let first = client.get(format!("{url}/endless").parse()?).await?;
    let second = client.get(format!("{url}/endless").parse()?).await?;
    let in_flight = |id: &str| {
        let status = balancer.status();
        status.iter().find(|endpoint| endpoint.id.as_str() == id).map(|endpoint| endpoint.in_flight)
    };
    ensure!([in_flight("a"), in_flight("b")] == [Some(1), Some(1)], "both are busy: {:?}", balancer.status());
    drop((first, second));

    // Whatever is picked first, every request is answered, and the endpoint that is gone is left out in the
    // end.
    for _ in 0..30 {
        let response = client.get(format!("{url}/name").parse()?).await?;
        ensure!(response.status() == 200, "another endpoint is tried");
        let name = response.into_body().collect().await?.to_bytes();
        ensure!(name == "a" || name == "b", "{name:?}");
    }
    let gone = balancer.status().into_iter().find(|endpoint| endpoint.id.as_str() == "gone");
    let gone = gone.context("it is still listed")?;
    ensure!(gone.health == Health::Ejected, "it has failed three times: {gone:?}");

    // The proxy notices that the downloads were given up: nothing is in flight.
    while balancer.status().iter().any(|endpoint| endpoint.in_flight > 0) {
        tokio::task::yield_now().await;
    }
    println!("all requests were answered, and {:?} is passed over", gone.id);
    Ok(())
}

/// Starts a backend that answers with its name.
async fn named(name: &'static str) -> anyhow::Result<SocketAddr> {
    let begins = || stream::once(ready(Ok::<_, Infallible>("the first of many bytes")));
    let endless = async move || Body::from_stream(begins().chain(stream::pending()));
    backend(Router::new().route("/name", get(async move || name)).route("/endless", get(endless))).await
}
