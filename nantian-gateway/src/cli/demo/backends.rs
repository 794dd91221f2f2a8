//! The backends of the demo: two that echo and one that speaks like an LLM provider.

use std::{convert::Infallible, io, time::Duration};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::post,
};
use futures_util::stream::{self, StreamExt};
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, time::sleep};

/// The credential that the demo's Secret holds.
const SECRET: &str = "Bearer sk-demo";

/// Where the backends listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) echo: [u16; 2],
    pub(super) llm: u16,
}

/// Starts the backends on free ports of the loopback interface.
pub(super) async fn start() -> io::Result<Ports> {
    let echo = [echo("echo-0").await?, echo("echo-1").await?];
    let llm = listen(Router::new().route("/v1/chat/completions", post(complete))).await?;
    Ok(Ports { echo, llm })
}

async fn echo(pod: &'static str) -> io::Result<u16> {
    listen(Router::new().fallback(reflect).with_state(pod)).await
}

async fn listen(router: Router) -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    crate::runtime::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "a backend of the demo ended");
        }
    });
    Ok(port)
}

/// Says which pod it is and what it was asked.
async fn reflect(
    State(pod): State<&'static str>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Json<Value> {
    let headers: Map<String, Value> = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    Json(json!({
        "pod": pod,
        "method": method.as_str(),
        "path": uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    }))
}

/// Answers as an OpenAI-type provider does.
async fn complete(headers: HeaderMap, Json(request): Json<Value>) -> Response {
    if headers.get(header::AUTHORIZATION).is_none_or(|value| value != SECRET) {
        let error = json!({"error": {"message": "wrong credential", "type": "invalid_request_error"}});
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    let model = request.get("model").cloned().unwrap_or_default();
    if request.get("stream") == Some(&Value::Bool(true)) {
        return stream_words(model);
    }
    Json(json!({
        "id": "chatcmpl-demo",
        "object": "chat.completion",
        "model": model,
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": WORDS.concat()},
            "finish_reason": "stop",
        }],
        "usage": {"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15},
    }))
    .into_response()
}

const WORDS: [&str; 6] = ["Hello", " from", " the", " fake", " provider", "."];

fn stream_words(model: Value) -> Response {
    let chunk = move |content: &str| {
        let chunk = json!({
            "id": "chatcmpl-demo",
            "object": "chat.completion.chunk",
            "model": model,
            "choices": [{"index": 0, "delta": {"content": content}, "finish_reason": null}],
        });
        format!("data: {chunk}\n\n")
    };
    let events: Vec<_> =
        WORDS.iter().map(|word| chunk(word)).chain(["data: [DONE]\n\n".to_owned()]).collect();
    let paced = stream::iter(events).then(|event| async move {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(event)
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(paced)).into_response()
}
