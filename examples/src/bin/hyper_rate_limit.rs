//! A server of plain hyper that limits LLM tokens: a request reserves an estimate, its real usage settles it.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Response, body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, ReservationHandle, Settlement};
use tokio::net::TcpListener;
use tower::{Layer as _, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let policy = Policy::builder().limit(Limit::tokens_per_minute(1000)).scope("apiKey".parse()?).build()?;
    let layer = RateLimitLayer::new(Limiter::new(policy));
    let address = serve(layer).await?;

    // The first answer uses more than anybody could know before: what is left is 100, and no second one fits.
    let first = ask(address, "alice").await?;
    ensure!(first.status() == 200, "a full bucket is enough");
    let second = ask(address, "alice").await?;
    ensure!(second.status() == 429, "900 tokens are typical now, and 100 are left");
    let wait = second.headers().get("retry-after").context("a refusal says when to come back")?.clone();
    let body = second.into_body().collect().await?.to_bytes();
    ensure!(body.starts_with(br#"{"error":{"message":"rate limit reached"#), "it is told as OpenAI would");
    ensure!(ask(address, "bob").await?.status() == 200, "other keys are not touched");

    println!("900 of 1000 tokens are used; the next 900 may come in {} s", wait.to_str()?);
    Ok(())
}

/// Starts a server whose every answer uses 900 tokens.
async fn serve(layer: RateLimitLayer) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let service = layer.layer(service_fn(async |request: Request<Incoming>| {
        if let Some(reservation) = request.extensions().get::<ReservationHandle>() {
            reservation.settle(Settlement::Used(900));
        }
        Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::from("answer")))
    }));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(service.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}

async fn ask(address: SocketAddr, key: &str) -> anyhow::Result<Response<Incoming>> {
    let request = Request::post(format!("http://{address}/v1/chat/completions"))
        .header("authorization", format!("Bearer {key}"))
        .body(Full::<Bytes>::from(r#"{"model":"any","messages":[]}"#))?;
    Ok(Client::builder(TokioExecutor::new()).build_http().request(request).await?)
}
