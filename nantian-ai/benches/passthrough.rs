//! What the crate adds to a call: `cargo bench -p nantian-ai`.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use futures_util::stream;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use nantian_ai::body::RequestBody;
use nantian_ai::codec::{Defaults, Echo, StreamDecoder, StreamEncoder};
use nantian_ai::ir::ToolNames;
use nantian_ai::usage::{End, Meter};
use nantian_ai::{AiLayer, Credential, Dialect, RequestFacts, Surface, Target, TargetConfig};
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
    let config =
        TargetConfig::new("demo/openai", "openai", "gpt-4o").with_credential(Credential::bearer("sk"));
    answered(bencher, bytes, config, r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}"#);
}

/// The same call with a provider of another dialect.
#[divan::bench(args = [2_000, 400_000])]
fn translated_call(bencher: Bencher<'_, '_>, bytes: usize) {
    let config = TargetConfig::new("demo/claude", "anthropic", "claude-sonnet-4-5")
        .with_credential(Credential::api_key("sk"));
    answered(
        bencher,
        bytes,
        config,
        r#"{"id":"m","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn","usage":{"input_tokens":9,"output_tokens":3}}"#,
    );
}

fn answered(bencher: Bencher<'_, '_>, bytes: usize, config: TargetConfig, answer: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let upstream = service_fn(move |request: Request<RequestBody>| async move {
        divan::black_box(request);
        let response = Response::builder().header("content-type", "application/json");
        Ok::<_, Infallible>(response.body(Full::<Bytes>::from(answer)).unwrap())
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
            assert_eq!(response.status(), StatusCode::OK);
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
fn metered_stream(bencher: Bencher<'_, '_>) {
    const EVENTS: usize = 1_000;
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut meter = Meter::new(&surface(), &RequestFacts::default());
        meter.begin(StatusCode::OK, &headers);
        for _ in 0..EVENTS {
            meter.push(divan::black_box(EVENT.as_bytes()));
        }
        meter.report(End::Finished)
    });
}

/// An event as OpenAI sends it where it was asked for the usage.
const ASKED_EVENT: &str = "data: {\"id\":\"chatcmpl-123\",\"object\":\"chat.completion.chunk\",\"created\":1694268190,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" token\"},\"finish_reason\":null}],\"usage\":null,\"obfuscation\":\"rZ7lAb\"}\n\n";

/// A whole streamed call, some events in each chunk: of a client that has asked for the usage, of one that
/// has not, and of one of another dialect.
#[divan::bench(consts = [1, 50], args = [
    r#"/v1/chat/completions {"stream":true,"stream_options":{"include_usage":true},"messages":[]}"#,
    r#"/v1/chat/completions {"stream":true,"messages":[]}"#,
    r#"/v1/messages {"stream":true,"max_tokens":9,"messages":[{"role":"user","content":"Hi"}]}"#,
])]
fn streamed_call<const AT_ONCE: usize>(bencher: Bencher<'_, '_>, request: &str) {
    const EVENTS: usize = 1_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let config = TargetConfig::new("demo/openai", "openai", "gpt-4o");
    let upstream = service_fn(|request: Request<RequestBody>| async move {
        divan::black_box(request);
        let events = Bytes::from(ASKED_EVENT.repeat(AT_ONCE));
        let chunk = move || Ok::<_, Infallible>(Frame::data(events.clone()));
        let end = Ok(Frame::data(Bytes::from_static(b"data: [DONE]\n\n")));
        let body = (0..EVENTS / AT_ONCE).map(move |_| chunk()).chain([end]);
        let response = Response::builder().header("content-type", "text/event-stream");
        Ok::<_, Infallible>(response.body(StreamBody::new(stream::iter(body))).unwrap())
    });
    let service = AiLayer::new(Arc::new(Target::new(config).unwrap())).layer(upstream);
    let (path, body) = request.split_once(' ').unwrap();
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let request = Request::post(path).body(Full::<Bytes>::from(body.to_owned())).unwrap();
        runtime.block_on(async {
            let response = service.clone().oneshot(request).await.unwrap();
            let mut body = pin!(response.into_body());
            while let Some(frame) = body.frame().await {
                divan::black_box(frame.unwrap());
            }
        })
    });
}

/// An event of Responses.
const RESPONSES_EVENT: &str = concat!(
    "event: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_0123456789","output_index":0,"#,
    r#""content_index":0,"delta":" token","logprobs":[]}"#,
    "\n\n",
);

/// The same stream for a client of another dialect.
#[divan::bench(args = [
    "openai anthropic",
    "openai openai-responses",
    "openai-responses openai",
    "openai-responses anthropic",
])]
fn translated_stream(bencher: Bencher<'_, '_>, pair: &str) {
    const EVENTS: usize = 1_000;
    let (from, to) = pair.split_once(' ').unwrap();
    let (from, to): (Dialect, Dialect) = (from.parse().unwrap(), to.parse().unwrap());
    let event = if from == Dialect::Responses { RESPONSES_EVENT } else { EVENT };
    let defaults = Defaults {
        id: "id".to_owned(),
        model: "m".to_owned(),
        created: SystemTime::UNIX_EPOCH,
        took: Duration::ZERO,
        stream_usage: true,
        input_estimate: 1,
        echo: Echo::default(),
    };
    bencher.counter(ItemsCount::new(EVENTS)).bench_local(|| {
        let mut decoder = StreamDecoder::new(from, 7);
        let mut encoder = StreamEncoder::new(to.try_into().unwrap(), defaults.clone(), ToolNames::default());
        let mut events = VecDeque::new();
        let mut written = 0;
        for _ in 0..EVENTS {
            let mut out = Vec::new();
            decoder.push(divan::black_box(event.as_bytes()), &mut events);
            events.drain(..).for_each(|event| encoder.push(event, &mut out));
            written += divan::black_box(out).len();
        }
        written
    });
}
