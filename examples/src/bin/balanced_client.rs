//! A client in the manner of reqwest over the balanced service: one URL, many servers, and none of it seen by
//! who calls it.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::{Client as Http, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use nantian_lb::{
    BalanceConfig, BalanceLayer, Balancer, Endpoint, PickError, Routed, Strategy, Tried, body::ResponseBody,
    health::OutlierConfig,
};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tower::{Layer as _, Service as _, service_fn};

/// How many servers a request is tried at.
const ATTEMPTS: usize = 3;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (one, two, three) = (server("one").await?, server("two").await?, server("three").await?);
    let client = Client::new([("one", one.address), ("two", two.address), ("three", three.address)]);

    let mut answers = Vec::new();
    for _ in 0..6 {
        answers.push(client.get("/").await?);
    }
    ensure!(client.in_flight() == 0, "requests that have ended are not counted");

    // A server is gone: nobody notices, and after five failures it is not asked any more.
    two.task.abort();
    while client.ejected().is_empty() {
        answers.push(client.get("/").await?);
        ensure!(answers.len() < 10_000, "it is asked, and so it is found out");
    }
    ensure!(client.ejected() == ["two"], "{:?}", client.ejected());
    for _ in 0..20 {
        answers.push(client.get("/").await?);
        ensure!(answers.last().is_some_and(|answer| answer != "two"), "{answers:?}");
    }

    // A request is counted until its response has been read.
    let response = client.send("/").await?;
    ensure!(client.in_flight() == 1);
    drop(response);
    ensure!(client.in_flight() == 0);

    println!("{} answers, {} ejected", answers.len(), client.ejected().join(" "));
    Ok(())
}

/// A client that asks its servers in turn. Clones share everything.
#[derive(Clone)]
struct Client {
    http: Http<HttpConnector, Empty<Bytes>>,
    balancer: Balancer<SocketAddr>,
    layer: BalanceLayer<SocketAddr>,
}

impl Client {
    fn new(servers: impl IntoIterator<Item = (&'static str, SocketAddr)>) -> Self {
        let endpoints = servers.into_iter().map(|(name, address)| Endpoint::new(name, address));
        let config = BalanceConfig::new(Strategy::RoundRobin).with_outlier(OutlierConfig::new());
        let balancer = Balancer::new(endpoints, &config);
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let http = Http::builder(TokioExecutor::new()).build(connector);
        Self { http, layer: BalanceLayer::new(balancer.clone()), balancer }
    }

    /// The text at this path.
    async fn get(&self, path: &str) -> anyhow::Result<String> {
        let body = self.send(path).await?.into_body().collect().await?;
        Ok(String::from_utf8(body.to_bytes().into())?)
    }

    /// The response, from another server if one does not answer.
    async fn send(&self, path: &str) -> io::Result<Response<ResponseBody<Incoming>>> {
        let http = self.http.clone();
        let mut service = self.layer.layer(service_fn(move |routed: Routed<SocketAddr, Request<_>>| {
            let (http, Routed { target, request, .. }) = (http.clone(), routed);
            async move { http.request(aim(request, target)?).await.map_err(io::Error::other) }
        }));
        let tried = Tried::new();
        let mut failure = io::Error::from(io::ErrorKind::NotConnected);
        for _ in 0..ATTEMPTS {
            let request = Request::builder().method(Method::GET).uri(path).extension(tried.clone());
            match service.call(request.body(Empty::new()).map_err(io::Error::other)?).await {
                Ok(response) if response.extensions().get::<PickError>().is_some() => {}
                Ok(response) => return Ok(response),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    fn in_flight(&self) -> usize {
        self.balancer.status().iter().map(|server| server.in_flight).sum()
    }

    fn ejected(&self) -> Vec<String> {
        let servers = self.balancer.status().into_iter();
        servers.filter(|server| server.ejections > 0).map(|server| server.id.to_string()).collect()
    }
}

/// The request with `target` as its address.
fn aim(mut request: Request<Empty<Bytes>>, target: SocketAddr) -> io::Result<Request<Empty<Bytes>>> {
    let uri = format!("http://{target}{}", request.uri().path());
    *request.uri_mut() = uri.parse().map_err(io::Error::other)?;
    Ok(request)
}

/// A server; its connections end with its task.
struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Starts a server that answers with its name.
async fn server(name: &'static str) -> anyhow::Result<Server> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = hyper::service::service_fn(move |_: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(Response::new(name.to_owned())))
            });
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok(Server { address, task })
}
