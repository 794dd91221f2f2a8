//! An axum application that takes three requests a minute from each API key, and five from each address,
//! whatever keys it tries: one line for each, the `layer`.
//!
//! Served with `axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())`, which tells
//! addresses; here the program is its own client.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Body,
    extract::ConnectInfo,
    http::{Request, StatusCode, header},
    response::Response,
    routing::get,
};
use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer};
use tower::ServiceExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let of_key = limiter(3, "apiKey")?;
    let of_address = RateLimitLayer::new(limiter(5, "ip")?)
        .client_ip(|_, extensions| Some(extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    let app = Router::new()
        .route("/", get(async || "hello\n"))
        .layer(RateLimitLayer::new(of_key))
        .layer(of_address);

    for _ in 0..3 {
        ensure!(ask(&app, "alice").await?.status() == StatusCode::OK, "three requests pass");
    }
    let refused = ask(&app, "alice").await?;
    ensure!(refused.status() == StatusCode::TOO_MANY_REQUESTS, "the fourth is refused");
    let wait = refused.headers().get(header::RETRY_AFTER).context("a refusal says when to come back")?;
    ensure!(ask(&app, "bob").await?.status() == StatusCode::OK, "other keys are not touched");
    ensure!(ask(&app, "carol").await?.status() == StatusCode::OK, "what was refused has cost nothing");
    let refused = ask(&app, "dave").await?;
    ensure!(
        refused.status() == StatusCode::TOO_MANY_REQUESTS,
        "five of an address pass, whatever their keys"
    );

    println!("5 of 7 requests passed; alice's next one may come in {} s", wait.to_str()?);
    Ok(())
}

fn limiter(per_minute: u64, scope: &str) -> anyhow::Result<Limiter> {
    let limit = Limit::requests_per_minute(per_minute);
    Ok(Limiter::new(Policy::builder().limit(limit).scope(scope.parse()?).build()?))
}

async fn ask(app: &Router, key: &str) -> anyhow::Result<Response> {
    let client = ConnectInfo(SocketAddr::from(([192, 0, 2, 1], 40000)));
    let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {key}")).extension(client);
    Ok(app.clone().oneshot(request.body(Body::empty())?).await?)
}
