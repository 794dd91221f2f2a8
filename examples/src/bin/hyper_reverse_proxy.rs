//! A reverse proxy of plain hyper that spreads requests over its backends by weight.

use std::net::SocketAddr;

use anyhow::ensure;
use axum::{Router, routing::get};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri, body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed, Strategy};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let endpoints = [
        Endpoint::new("large", backend("large").await?).with_weight(2),
        Endpoint::new("small", backend("small").await?),
    ];
    let balancer = Balancer::new(endpoints, &BalanceConfig::new(Strategy::RoundRobin));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url: Uri = format!("http://{}/", listener.local_addr()?).parse()?;
    tokio::spawn(proxy(listener, balancer.clone()));

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut answers = Vec::new();
    for _ in 0..6 {
        let body = client.get(url.clone()).await?.into_body();
        answers.push(String::from_utf8(body.collect().await?.to_bytes().into())?);
    }
    let large = answers.iter().filter(|name| *name == "large").count();
    ensure!(large == 4, "two of three requests go to the larger backend: {answers:?}");

    println!("{}", answers.join(" "));
    Ok(())
}

/// Accepts connections and sends each request to the endpoint that is picked for it.
async fn proxy(listener: TcpListener, balancer: Balancer<SocketAddr>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Incoming>();
    let service = ServiceBuilder::new().layer(BalanceLayer::new(balancer)).service(service_fn(
        move |Routed { target, request, .. }: Routed<SocketAddr, Request<Incoming>>| {
            client.request(aim(request, target))
        },
    ));
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// The request with `target` as its address.
fn aim(mut request: Request<Incoming>, target: SocketAddr) -> Request<Incoming> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = format!("http://{target}{path}").parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// Starts a backend that answers with its name.
async fn backend(name: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/", get(async move || name));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
