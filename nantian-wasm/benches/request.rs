//! What a plugin adds to a request: the whole life of a stream, from its headers to its deletion.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use divan::Bencher;
use http::{Request, Response};
use http_body_util::Empty;
use nantian_wasm::{Engine, Hooks, Module, Plugin, PluginConfig, StreamContext, StreamInfo, WasmLayer};
use tower::util::service_fn;
use tower::{Layer as _, Service};

type Body = Empty<Bytes>;

fn main() {
    divan::main();
}

/// A plugin that makes three host calls in each round.
fn plugin(rounds: u8, hooks: Hooks) -> Plugin {
    started_with(include_str!("../tests/guests/bench_headers.wat"), Bytes::copy_from_slice(&[rounds]), hooks)
}

fn started(guest: &str, configuration: Bytes) -> Plugin {
    started_with(guest, configuration, Hooks::ALL)
}

fn started_with(guest: &str, configuration: Bytes, hooks: Hooks) -> Plugin {
    let engine = Engine::new().unwrap();
    let ticker = engine.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::park_timeout(Duration::from_millis(1));
            ticker.tick();
        }
    });
    let module = Module::compile(&engine, &wat::parse_str(guest).unwrap(), None).unwrap();
    let mut config = PluginConfig::new("bench");
    config.configuration = configuration;
    config.hooks = hooks;
    Plugin::new(&module, config).unwrap()
}

/// A request as a browser sends it, over HTTP/1.1.
fn request() -> Request<Body> {
    Request::get("/api/v1/things?page=2")
        .header("host", "shop.example.com")
        .header(
            "user-agent",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0",
        )
        .header("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8")
        .header("accept-encoding", "gzip, deflate, br")
        .header("accept-language", "en-US,en;q=0.5")
        .header("cookie", "session=0123456789abcdef0123456789abcdef")
        .header("referer", "https://shop.example.com/api/v1")
        .header("x-request-id", "6f1cbd2a-9d0e-4a52-8a39-6cf5d0c2c6a2")
        .body(Empty::new())
        .unwrap()
}

fn response() -> Response<Body> {
    Response::builder()
        .header("content-type", "application/json")
        .header("server", "bench")
        .body(Empty::new())
        .unwrap()
}

fn drive<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("nothing waits"),
    }
}

/// The core alone.
#[divan::bench(args = [0, 1, 8])]
fn core_by_rounds_of_three_calls(bencher: Bencher<'_, '_>, rounds: u8) {
    let plugins = [plugin(rounds, Hooks::ALL)].into();
    bencher.with_inputs(|| (request().into_parts().0, response().into_parts().0)).bench_local_values(
        |(mut request, mut response)| {
            let mut stream = StreamContext::new(std::sync::Arc::clone(&plugins), StreamInfo::default());
            let _ = black_box(stream.on_request_headers(&mut request, true));
            let _ = black_box(stream.on_response_headers(&mut response, true));
            drop(stream);
            (request, response)
        },
    );
}

fn inner(_: Request<nantian_wasm::RequestBody<Body>>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(response()))
}

/// A whole call of a service behind the layer.
#[divan::bench(args = [0, 1, 8])]
fn layer_by_rounds_of_three_calls(bencher: Bencher<'_, '_>, rounds: u8) {
    let mut service = WasmLayer::new([plugin(rounds, Hooks::ALL)]).layer(service_fn(inner));
    bencher.with_inputs(request).bench_local_values(|request| drive(service.call(request)));
}

/// An event of a stream that a plugin looks at.
#[divan::bench]
fn core_by_event_of_a_stream(bencher: Bencher<'_, '_>) {
    let guest = include_str!("../tests/guests/body.wat");
    let plugins = [started(guest, Bytes::from_static(b"u"))].into();
    let mut stream = StreamContext::new(plugins, StreamInfo::default());
    let (mut request, mut response) = (request().into_parts().0, response().into_parts().0);
    response.headers.insert("content-type", http::HeaderValue::from_static("text/event-stream"));
    let _ = stream.on_request_headers(&mut request, true);
    let _ = stream.on_response_headers(&mut response, false);
    bencher.bench_local(|| {
        let mut event = Bytes::from_static(b"data: {\"choices\":[{\"delta\":{\"content\":\"token\"}}]}\n\n");
        let _ = black_box(stream.on_response_body(&mut event, false));
        event
    });
}

/// An instance that takes the place of one that ended: started and configured. NANTIAN_BENCH_GUEST names another module.
#[divan::bench]
fn start_of_an_instance(bencher: Bencher<'_, '_>) {
    let engine = Engine::new().unwrap();
    let bytes = match std::env::var_os("NANTIAN_BENCH_GUEST") {
        Some(path) => std::fs::read(path).unwrap(),
        None => wat::parse_str(include_str!("../tests/guests/bench_headers.wat")).unwrap(),
    };
    let module = Module::compile(&engine, &bytes, None).unwrap();
    bencher.bench_local(|| {
        let mut config = PluginConfig::new("bench");
        config.configuration = Bytes::from_static(&[1]);
        config.instances = std::num::NonZeroUsize::new(1);
        Plugin::new(&module, config).unwrap()
    });
}

/// The layer without plugins, to be subtracted from the others.
#[divan::bench]
fn layer_without_plugins(bencher: Bencher<'_, '_>) {
    let mut service = WasmLayer::new([]).layer(service_fn(inner));
    bencher.with_inputs(request).bench_local_values(|request| drive(service.call(request)));
}

/// The service without a layer.
#[divan::bench]
fn no_layer(bencher: Bencher<'_, '_>) {
    let mut service = service_fn(|_: Request<Body>| ready(Ok::<_, Infallible>(response())));
    bencher.with_inputs(request).bench_local_values(|request| drive(service.call(request)));
}
