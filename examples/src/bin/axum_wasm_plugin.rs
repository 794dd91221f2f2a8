//! An axum application behind a Proxy-Wasm plugin, which adds a request header and answers one path by
//! itself.

use std::thread;

use anyhow::ensure;
use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
    routing::get,
};
use http_body_util::BodyExt as _;
use nantian_wasm::{Engine, Module, Plugin, PluginConfig, WasmLayer};
use tower::ServiceExt as _;

/// What a plugin author's toolchain would give as `plugin.wasm`.
const PLUGIN: &str = include_str!("../../../nantian-wasm/tests/guests/add_header.wat");

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (engine, threads) = Engine::new()?;
    thread::spawn(|| threads.clock.run());
    thread::spawn(|| threads.upkeep.run());
    let module = Module::compile(&engine, &wat::parse_str(PLUGIN)?, None)?;
    let plugin = Plugin::new(&module, PluginConfig::new("greeter"))?;

    let app = Router::new().route("/", get(greet)).layer(WasmLayer::new([plugin]));

    let greeting = ask(&app, "/").await?;
    ensure!(greeting == (StatusCode::OK, "hello from greeter\n".to_owned()), "{greeting:?}");
    let teapot = ask(&app, "/wasm-teapot").await?;
    ensure!(teapot == (StatusCode::IM_A_TEAPOT, "short and stout\n".to_owned()), "{teapot:?}");

    println!("the application said {:?}, the plugin {:?}", greeting.1, teapot.1);
    Ok(())
}

/// Says what the plugin wrote into the request.
async fn greet(headers: HeaderMap) -> String {
    let plugin = headers.get("x-wasm-plugin").and_then(|name| name.to_str().ok());
    format!("hello from {}\n", plugin.unwrap_or("nobody"))
}

async fn ask(app: &Router, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let response = app.clone().oneshot(Request::get(path).body(Body::empty())?).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8(body.into())?))
}
