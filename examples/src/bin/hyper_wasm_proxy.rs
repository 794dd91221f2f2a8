//! A reverse proxy of plain hyper that runs a Proxy-Wasm plugin on what it forwards.

use std::{net::SocketAddr, thread};

use anyhow::ensure;
use axum::{Router, http::HeaderMap, routing::get};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, Uri, body::Incoming, server::conn::http1};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use nantian_wasm::{Engine, Module, Plugin, PluginConfig, WasmLayer, body::RequestBody};
use tokio::net::TcpListener;
use tower::{Layer as _, service_fn};

/// What a plugin author's toolchain would give as `plugin.wasm`.
const PLUGIN: &str = include_str!("../../../nantian-wasm/tests/guests/add_header.wat");

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (engine, threads) = Engine::new()?;
    thread::spawn(|| threads.clock.run());
    thread::spawn(|| threads.upkeep.run());
    let module = Module::compile(&engine, &wat::parse_str(PLUGIN)?, None)?;
    let plugin = Plugin::new(&module, PluginConfig::new("greeter"))?;

    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(proxy(listener, plugin, backend().await?));

    let (status, greeting) = ask(format!("{url}/").parse()?).await?;
    ensure!((status, &*greeting) == (200, "hello from greeter\n"), "{status}: {greeting:?}");
    let (status, teapot) = ask(format!("{url}/wasm-teapot").parse()?).await?;
    ensure!((status, &*teapot) == (418, "short and stout\n"), "{status}: {teapot:?}");

    println!("the backend said {greeting:?}, the plugin {teapot:?}");
    Ok(())
}

/// Accepts connections and forwards each request past the plugin.
async fn proxy(listener: TcpListener, plugin: Plugin, backend: SocketAddr) {
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<Incoming>>();
    let service = WasmLayer::new([plugin]).layer(service_fn(move |mut request: Request<_>| {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        if let Ok(uri) = format!("http://{backend}{path}").parse() {
            *request.uri_mut() = uri;
        }
        client.request(request)
    }));
    while let Ok((stream, _)) = listener.accept().await {
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Starts a backend that says what the plugin wrote into the request.
async fn backend() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new().route(
        "/",
        get(async |headers: HeaderMap| {
            let plugin = headers.get("x-wasm-plugin").and_then(|name| name.to_str().ok());
            format!("hello from {}\n", plugin.unwrap_or("nobody"))
        }),
    );
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn ask(url: Uri) -> anyhow::Result<(u16, String)> {
    let response = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>().get(url).await?;
    let status = response.status().as_u16();
    Ok((status, String::from_utf8(response.into_body().collect().await?.to_bytes().into())?))
}
