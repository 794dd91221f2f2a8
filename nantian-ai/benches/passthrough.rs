//! What the crate adds to a call: `cargo bench -p nantian-ai`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use nantian_ai::body::RequestBody;
use nantian_ai::usage::{End, Meter};
use nantian_ai::{AiLayer, Credential, RequestFacts, Surface, Target, TargetConfig};
use tower::{Layer as _, ServiceExt as _, service_fn};

const EVENT: &str = "data: {\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}]}\n\n";

fn main() {
    divan::main();
}

fn chat_of(bytes: usize) -> Bytes {
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(bytes / 45);
    Bytes::from(format!(
        r#"{{"model":"any","messages":[{{"role":"user","content":"{text}"}}],"temperature":0.5}}"#
    ))
}

fn surface() -> Surface {
    Surface::detect(&Method::POST, "/v1/chat/completions", &HeaderMap::new()).unwrap()
}

/// A whole call over an upstream that answers at once.
#[divan::bench(args = [2_000, 400_000])]
fn call(bencher: Bencher<'_, '_>, bytes: usize) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let config = TargetConfig::new("demo/openai", "openai", "gpt-4o").credential(Credential::bearer("sk"));
    let upstream = service_fn(|request: Request<RequestBody>| async move {
        divan::black_box(request);
        let body = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#;
        let response = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::from(body)).unwrap())
    });
    let service = AiLayer::new(Arc::new(Target::new(config).unwrap())).layer(upstream);
    let body = chat_of(bytes);
    bencher.bench_local(|| {
        let request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            .header("authorization", "Bearer theirs")
            .header("user-agent", "client/1")
            .body(Full::new(body.clone()))
            .unwrap();
        runtime.block_on(async {
            let response = service.clone().oneshot(request).await.unwrap();
            response.into_body().collect().await.unwrap().to_bytes()
        })
    });
}

/// What is known of a request before it is sent.
#[divan::bench(args = [2_000, 400_000])]
fn facts(bencher: Bencher<'_, '_>, bytes: usize) {
    let body = chat_of(bytes);
    let surface = surface();
    bencher.counter(BytesCount::new(body.len())).bench_local(|| RequestFacts::read(&surface, &body).unwrap());
}

/// A stream of a thousand tokens, one event in each chunk.
#[divan::bench]
fn stream(bencher: Bencher<'_, '_>) {
    const EVENTS: usize = 1_000;
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut meter = Meter::new(surface(), &RequestFacts::default());
        meter.begin(StatusCode::OK, &headers);
        for _ in 0..EVENTS {
            meter.push(divan::black_box(EVENT.as_bytes()));
        }
        meter.report(End::Finished)
    });
}
