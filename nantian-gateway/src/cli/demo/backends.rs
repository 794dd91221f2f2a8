//! The backends of the demo: two that echo and one that speaks like two LLM providers.

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
const SECRET: &str = "sk-demo";

/// Where the backends listen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) echo: [u16; 2],
    pub(super) llm: u16,
}

/// Starts the backends on free ports of the loopback interface.
pub(super) async fn start() -> io::Result<Ports> {
    let echo = [echo("echo-0").await?, echo("echo-1").await?];
    let providers = Router::new()
        .route("/v1/chat/completions", post(complete))
        .route("/v1/messages", post(write_message));
    let llm = listen(providers).await?;
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
    let credential = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if credential.and_then(|value| value.strip_prefix("Bearer ")) != Some(SECRET) {
        let error = json!({"error": {"message": "wrong credential", "type": "invalid_request_error"}});
        return (StatusCode::UNAUTHORIZED, Json(error)).into_response();
    }
    let model = request.get("model").cloned().unwrap_or_default();
    if is_streamed(&request) {
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

/// Answers as an Anthropic-type provider does.
async fn write_message(headers: HeaderMap, Json(request): Json<Value>) -> Response {
    if headers.get("x-api-key").is_none_or(|value| value != SECRET) {
        let error = json!({"type": "authentication_error", "message": "wrong credential"});
        return (StatusCode::UNAUTHORIZED, Json(json!({"type": "error", "error": error}))).into_response();
    }
    let text = json!({"type": "text", "text": WORDS.concat()});
    Json(json!({
        "id": "msg_demo",
        "type": "message",
        "role": "assistant",
        "model": request.get("model"),
        "content": [text],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        "usage": {"input_tokens": 9, "output_tokens": 6},
    }))
    .into_response()
}

fn is_streamed(request: &Value) -> bool {
    request.get("stream") == Some(&Value::Bool(true))
}

const WORDS: [&str; 6] = ["Hello", " from", " the", " fake", " provider", "."];

fn stream_words(model: Value) -> Response {
    let chunk = move |choices: Value, usage: Value| {
        let chunk = json!({
            "id": "chatcmpl-demo",
            "object": "chat.completion.chunk",
            "model": model,
            "choices": choices,
            "usage": usage,
        });
        format!("data: {chunk}\n\n")
    };
    let choice = |delta: Value, reason: Value| json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
    let words = WORDS.iter().map(|word| chunk(choice(json!({"content": word}), Value::Null), Value::Null));
    let end = [
        chunk(choice(json!({}), "stop".into()), Value::Null),
        chunk(json!([]), json!({"prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15})),
        "data: [DONE]\n\n".to_owned(),
    ];
    let events: Vec<_> = words.chain(end).collect();
    let paced = stream::iter(events).then(|event| async move {
        sleep(Duration::from_millis(100)).await;
        Ok::<_, Infallible>(event)
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(paced)).into_response()
}
