//! All four layers around one client: limits, a plugin, a provider of models, and its servers. The tokens
//! that the provider reports are those that the limits count.

use std::{net::SocketAddr, thread, time::Duration};

use anyhow::{anyhow, ensure};
use axum::{Json, Router, body::Body, routing::post};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, http::Extensions};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nantian_ai::{
    AiLayer, BoxError, RequestFacts, Target, TargetConfig, Timeouts,
    body::RequestBody,
    usage::{Outcome, UsageReport, UsageSink},
};
use nantian_lb::{BalanceConfig, BalanceLayer, Balancer, Endpoint, Routed, Strategy, health::OutlierConfig};
use nantian_ratelimit::{Limit, Limiter, Policy, RateLimitLayer, ReservationHandle, Settlement};
use nantian_wasm::{Engine, Module, Plugin, PluginConfig, WasmLayer};
use serde_json::json;
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt as _, service_fn, util::BoxCloneSyncService};

/// What a plugin author's toolchain would give as `plugin.wasm`.
const PLUGIN: &str = include_str!("../../../nantian-wasm/tests/guests/add_header.wat");

/// How long a server has for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);

type Service = BoxCloneSyncService<Request<Full<Bytes>>, Response<Body>, BoxError>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let service = service([server().await?, server().await?])?;
    // The first answer takes 15 of 20 tokens: more than had been expected of it, and too many for another
    // one.
    for expected in [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS] {
        let question = r#"{"model": "any", "messages": [{"role": "user", "content": "Hi"}]}"#;
        let request = Request::post("/v1/chat/completions").body(Full::from(question))?;
        let response = service.clone().oneshot(request).await.map_err(|error| anyhow!(error))?;
        ensure!(response.status() == expected, "{response:?}");
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await?;
        println!("{expected}: {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

fn service(servers: [SocketAddr; 2]) -> anyhow::Result<Service> {
    let (engine, threads) = Engine::new()?;
    thread::spawn(|| threads.clock.run());
    thread::spawn(|| threads.upkeep.run());
    let module = Module::compile(&engine, &wat::parse_str(PLUGIN)?, None)?;
    let plugin = Plugin::new(&module, PluginConfig::new("greeter"))?;
    let policy = Policy::builder().limit(Limit::tokens_per_minute(20)).build()?;
    // Its host is nowhere: the balancer says where requests go.
    let target = TargetConfig::new("fleet", "openai", "gpt-4o")
        .with_endpoint("http://fleet.example/v1")
        .with_timeouts(Timeouts::uniform(TIMEOUT));
    let endpoints = servers.map(|address| Endpoint::new(address.to_string(), address));
    let config = BalanceConfig::new(Strategy::LeastRequest).with_outlier(OutlierConfig::new());
    let balancer = Balancer::new(endpoints, &config);
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody>();
    let send =
        service_fn(move |Routed { target, mut request, .. }: Routed<SocketAddr, Request<RequestBody>>| {
            let client = client.clone();
            async move {
                let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
                *request.uri_mut() = format!("http://{target}{path}").parse()?;
                client.request(request).await.map_err(BoxError::from)
            }
        });
    Ok(BoxCloneSyncService::new(
        ServiceBuilder::new()
            .map_response(|response: Response<_>| response.map(Body::new))
            .layer(RateLimitLayer::new(Limiter::new(policy)))
            .layer(WasmLayer::new([plugin]))
            .layer(AiLayer::new(Target::new(target)?).observer(settle))
            // A server that never answers is one that has failed, though it is the layer above that gives up.
            .layer(BalanceLayer::new(balancer).blame_after(TIMEOUT - Duration::from_secs(1)))
            .service(send),
    ))
}

/// Settles what was reserved for a request with what its answer has used. An estimate is no reason to give
/// anything back.
fn settle(extensions: &Extensions, _: &RequestFacts) -> impl UsageSink + use<> {
    let reservation = extensions.get::<ReservationHandle>().cloned();
    reservation.map(|reservation| {
        move |UsageReport { usage, outcome, .. }: UsageReport| {
            reservation.settle(match outcome {
                Outcome::NotServed => Settlement::NotServed,
                _ if usage.estimated => Settlement::AtLeast(usage.total),
                _ => Settlement::Used(usage.total),
            });
        }
    })
}

/// One of the provider's servers.
async fn server() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let complete = async || {
        let message = json!({"role": "assistant", "content": "Hello."});
        let usage = json!({"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15});
        Json(json!({"choices": [{"index": 0, "message": message}], "usage": usage}))
    };
    let app = Router::new().route("/v1/chat/completions", post(complete));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
