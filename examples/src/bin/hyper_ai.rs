//! A hyper client that becomes an LLM service: address, model and credential are the operator's, the rest the
//! caller's.
//!
//! The provider is a fake one in this program, so that it runs without an account.

use std::{net::SocketAddr, sync::mpsc};

use anyhow::{anyhow, ensure};
use axum::{
    Json, Router,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use nantian_ai::{
    AiLayer, BoxError, Credential, Target, TargetConfig, Unsent,
    body::RequestBody,
    usage::{Outcome, UsageReport},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let (answer, report) = ask(provider().await?).await?;
    let model = answer.get("model").and_then(Value::as_str);
    ensure!(model == Some("gpt-4o"), "the provider is asked for the operator's model: {answer}");
    let tokens = report.usage.total;
    ensure!(tokens == 15, "the usage is what the provider reports");
    println!("an answer for {tokens} tokens: {answer}");

    // It is bound, so that nobody else takes its port, and listens not.
    let nobody = TcpSocket::new_v4()?;
    nobody.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    let (answer, report) = ask(nobody.local_addr()?).await?;
    ensure!(report.outcome == Outcome::NotServed, "what was never sent costs nothing: {report:?}");
    println!("a provider that cannot be reached, for {} tokens: {answer}", report.usage.total);
    Ok(())
}

/// Asks the provider at an address, through a client that has become a model of it.
async fn ask(provider: SocketAddr) -> anyhow::Result<(Value, UsageReport)> {
    let config = TargetConfig::new("example/gpt", "openai", "gpt-4o")
        .with_endpoint(format!("http://{provider}/v1"))
        .with_credential(Credential::bearer("sk-operator"));
    // Connections are the client's, and so is the time for them.
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(config.timeouts.connect);
    // As in `https://`, which is left to the connector around it.
    connector.enforce_http(false);
    // A real provider is asked over HTTPS, with `https_only()`; the one here speaks HTTP.
    let connector = HttpsConnectorBuilder::new()
        .with_native_roots()?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    let client = Client::builder(TokioExecutor::new()).build::<_, RequestBody>(connector);
    let (reports, used) = mpsc::channel();
    let layer = AiLayer::new(Target::new(config)?).observer(move |_: &_, _: &_| {
        let reports = reports.clone();
        move |report: UsageReport| {
            // The receiver lives as long as the program.
            let _ = reports.send(report);
        }
    });
    let service = layer.layer(ServiceBuilder::new().map_err(tell_unsent).service(client));

    let request = Request::post("/v1/chat/completions")
        .header(header::AUTHORIZATION, "Bearer of-the-caller")
        .body(Full::<Bytes>::from(r#"{"model": "any", "messages": [{"role": "user", "content": "Hi"}]}"#))?;
    let response = service.oneshot(request).await.map_err(|error| anyhow!(error))?;
    let body = response.into_body().collect().await.map_err(|error| anyhow!(error))?.to_bytes();
    Ok((serde_json::from_slice(&body)?, used.recv()?))
}

/// Says which errors come before anything was sent; after any other one the provider may have worked on the
/// prompt, and it is charged.
fn tell_unsent(error: legacy::Error) -> BoxError {
    if error.is_connect() { Unsent(error.into()).into() } else { error.into() }
}

/// Starts a provider that knows one credential.
async fn provider() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/v1/chat/completions", post(complete));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn complete(headers: HeaderMap, Json(request): Json<Value>) -> Result<Json<Value>, StatusCode> {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != "Bearer sk-operator") {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(Json(json!({
        "object": "chat.completion",
        "model": request.get("model"),
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15},
    })))
}
