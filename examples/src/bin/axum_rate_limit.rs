//! An axum application that takes three requests a minute from each API key: one line, the `layer`.
//!
//! Served with `axum::serve(listener, app)`; here the program is its own client.

use anyhow::{Context as _, ensure};
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode, header},
    response::Response,
    routing::get,
};
use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer};
use tower::ServiceExt as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let policy = Policy::builder().limit(Limit::requests_per_minute(3)).scope("apiKey".parse()?).build()?;
    let app =
        Router::new().route("/", get(async || "hello\n")).layer(RateLimitLayer::new(Limiter::new(policy)));

    for _ in 0..3 {
        ensure!(ask(&app, "alice").await?.status() == StatusCode::OK, "three requests pass");
    }
    let refused = ask(&app, "alice").await?;
    ensure!(refused.status() == StatusCode::TOO_MANY_REQUESTS, "the fourth is refused");
    let wait = refused.headers().get(header::RETRY_AFTER).context("a refusal says when to come back")?;
    ensure!(ask(&app, "bob").await?.status() == StatusCode::OK, "other keys are not touched");

    println!("3 of 4 requests passed; the next one may come in {} s", wait.to_str()?);
    Ok(())
}

async fn ask(app: &Router, key: &str) -> anyhow::Result<Response> {
    let request = Request::get("/").header(header::AUTHORIZATION, format!("Bearer {key}"));
    Ok(app.clone().oneshot(request.body(Body::empty())?).await?)
}
