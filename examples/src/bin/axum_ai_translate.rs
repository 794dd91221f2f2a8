//! An axum app that offers an Anthropic endpoint over an OpenAI-type upstream.
//!
//! The provider is a fake one in this program, so that it runs without an account.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use axum::{Json, Router, body::Body, routing::post};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, StatusCode};
use hyper_util::{
    client::legacy::{self, Client},
    rt::TokioExecutor,
};
use nantian_ai::{
    AiLayer, BoxError, Credential, Target, TargetConfig, Unsent, body::RequestBody, headers::DROPPED,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::{Layer as _, ServiceBuilder};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let provider = serve(Router::new().route("/v1/chat/completions", post(complete))).await?;
    let config = TargetConfig::new("example/gpt", "openai", "gpt-4o")
        .with_endpoint(format!("http://{provider}/v1"))
        .with_credential(Credential::bearer("sk-operator"));
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody>();
    // Without this an observer would be told of tokens for calls that never left.
    let client = ServiceBuilder::new().map_err(tell_unsent).service(client);
    let model = ServiceBuilder::new()
        .map_response(|response: hyper::Response<_>| response.map(Body::new))
        .service(AiLayer::new(Target::new(config)?).layer(client));
    let app = Router::new()
        .route_service("/v1/messages", axum::error_handling::HandleError::new(model, unreachable));
    let address = serve(app).await?;

    let question = json!({
        "model": "any",
        "max_tokens": 100,
        "top_k": 40,
        "messages": [{"role": "user", "content": "How far is the moon?"}],
    });
    let request = Request::post(format!("http://{address}/v1/messages"))
        .header("content-type", "application/json")
        .body(Full::<Bytes>::from(question.to_string()))?;
    let response = Client::builder(TokioExecutor::new()).build_http().request(request).await?;
    ensure!(response.status() == StatusCode::OK, "the app answers");
    let dropped = response.headers().get(DROPPED).context("what OpenAI cannot be told is named")?;
    ensure!(dropped == "top_k", "{dropped:?}");
    let answer: Value = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
    ensure!(answer.pointer("/content/0/text") == Some(&json!("384,400 km.")), "{answer}");
    ensure!(answer.pointer("/usage/output_tokens") == Some(&json!(6)), "{answer}");

    println!("an answer in Anthropic's dialect: {answer}");
    Ok(())
}

async fn serve(app: Router) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

/// Whatever fails in a call becomes a response; only a client that cannot be used at all is an error.
async fn unreachable(_: BoxError) -> StatusCode {
    StatusCode::BAD_GATEWAY
}

/// Says which errors come before anything was sent.
fn tell_unsent(error: legacy::Error) -> BoxError {
    if error.is_connect() { Unsent(error.into()).into() } else { error.into() }
}

/// The provider.
async fn complete(Json(request): Json<Value>) -> Json<Value> {
    Json(json!({
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": request.get("model"),
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "384,400 km."},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15},
    }))
}
