//! A reverse proxy of plain hyper that spreads requests over its backends by weight, and passes over those
//! that fail, but not for what goes wrong with the content that clients send.

use std::{error::Error as _, net::SocketAddr};

use anyhow::ensure;
use axum::{Router, routing::any};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri, body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::{Client, Error},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed, Strategy, health::OutlierConfig};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tower::{ServiceBuilder, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let endpoints = [
        Endpoint::new("large", backend("large").await?).with_weight(2),
        Endpoint::new("small", backend("small").await?),
    ];
    let config = BalanceConfig::new(Strategy::RoundRobin).with_outlier(OutlierConfig::new());
    let balancer = Balancer::new(endpoints, &config);
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let url: Uri = format!("http://{address}/").parse()?;
    tokio::spawn(proxy(listener, balancer.clone()));

    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut answers = Vec::new();
    for _ in 0..6 {
        let body = client.get(url.clone()).await?.into_body();
        answers.push(String::from_utf8(body.collect().await?.to_bytes().into())?);
    }
    let large = answers.iter().filter(|name| *name == "large").count();
    ensure!(large == 4, "two of three requests go to the larger backend: {answers:?}");

    // Five failures in a row would be enough.
    for _ in 0..9 {
        break_off(address).await?;
    }
    ensure!(balancer.status().iter().all(|endpoint| endpoint.ejections == 0), "no endpoint has failed");

    println!("{}", answers.join(" "));
    Ok(())
}

/// Accepts connections and sends each request to the endpoint that is picked for it.
async fn proxy(listener: TcpListener, balancer: Balancer<SocketAddr>) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Incoming>();
    let balance = BalanceLayer::new(balancer).blame(is_of_endpoint);
    let service = ServiceBuilder::new().layer(balance).service(service_fn(
        move |Routed { target, request, .. }: Routed<SocketAddr, Request<Incoming>>| {
            client.request(aim(request, target))
        },
    ));
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Whether it speaks against the endpoint: a request whose body its client has not sent does not.
fn is_of_endpoint(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    source.is_none_or(|source| !source.is_user())
}

/// The request with `target` as its address.
fn aim(mut request: Request<Incoming>, target: SocketAddr) -> Request<Incoming> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if let Ok(uri) = format!("http://{target}{path}").parse() {
        *request.uri_mut() = uri;
    }
    request
}

/// Begins an upload, and leaves it at that.
async fn break_off(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: shop\r\ncontent-length: 9\r\n\r\nhalf").await?;
    stream.shutdown().await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Starts a backend that reads what it is sent, and answers with its name.
async fn backend(name: &'static str) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/", any(async move |_: Bytes| name));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
