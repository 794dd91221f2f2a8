//! What plugins may cost, beside what they cost: `cargo bench -p nantian-wasm --bench limits`, and
//! `-- --check` to fail when a limit is missed.
//!
//! A request is measured with its plugin and without, in turns. *Best*, which is what counts, is the
//! difference of the least disturbed slices of both; the median of the differences of neighbouring slices
//! says how much else ran. The clock of the time limits and upkeep run, so guests are interrupted as they
//! would be in a proxy.

#![expect(clippy::unwrap_used, reason = "a bench that cannot be set up has nothing to measure")]
#![expect(clippy::disallowed_types, reason = "real time is what is measured")]

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, ExitCode};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Empty;
use nantian_wasm::{Engine, Module, Plugin, PluginConfig, StreamContext, StreamInfo, WasmLayer};
use tower::util::service_fn;
use tower::{Layer as _, Service};

type Body = Empty<Bytes>;

/// Reads a header and a property and replaces a header, as often as the first byte of its configuration says.
const HEADERS: &str = include_str!("../tests/guests/bench_headers.wat");
/// Looks at every part of a body.
const BODY: &str = include_str!("../tests/guests/body.wat");

/// Slices of each work. Odd, so that the median is one of them.
const SLICES: usize = 61;
/// Long enough to tell, short enough to fall between the disturbances.
const SLICE: Duration = Duration::from_millis(4);

fn main() -> ExitCode {
    let mut table = Table::from_args();
    let (engine, threads) = Engine::new().unwrap();
    std::thread::spawn(|| threads.clock.run());
    std::thread::spawn(|| threads.upkeep.run());
    let headers = Module::compile(&engine, &wat::parse_str(HEADERS).unwrap(), None).unwrap();
    let body = Module::compile(&engine, &wat::parse_str(BODY).unwrap(), None).unwrap();

    table.row("a layer without plugins", 100.0, || added(&[]));
    table.row("header plugin, 3 host calls", 1_500.0, || added(&[plugin(&headers, &[1])]));
    table.row("header plugin, 24 host calls", 7_500.0, || added(&[plugin(&headers, &[8])]));
    table.row("event of a stream (best: 99th percentile)", 20_000.0, || events(&plugin(&body, b"u")));
    table.row("replacement of an instance", 50_000.0, || start(&engine, &headers, &[1]));
    if let Some(path) = table.wants("Rust SDK").then(sdk_guest).flatten() {
        let sdk = Module::compile(&engine, &std::fs::read(path).unwrap(), None).unwrap();
        table.row("header plugin, 3 host calls, Rust SDK", 1_500.0, || added(&[plugin(&sdk, b"light 1")]));
        table.row("header plugin, 24 host calls, Rust SDK", 7_500.0, || added(&[plugin(&sdk, b"light 8")]));
        table.row("replacement of an instance, Rust SDK", 50_000.0, || start(&engine, &sdk, b"light 1"));
    }
    table.end()
}

/// The guest of the tests that is made with the Rust SDK, if its target is installed.
fn sdk_guest() -> Option<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sdk_guest/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sdk-guest");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--release", "--locked", "--target", "wasm32-wasip1", "--manifest-path"]);
    build.arg(manifest).arg("--target-dir").arg(&target);
    let is_built = build.status().is_ok_and(|status| status.success());
    is_built.then(|| target.join("wasm32-wasip1/release/sdk_guest.wasm"))
}

fn plugin(module: &Module, configuration: &[u8]) -> Plugin {
    let config = PluginConfig::new("bench").with_configuration(Bytes::copy_from_slice(configuration));
    Plugin::new(module, config.with_instances(NonZeroUsize::MIN)).unwrap()
}

// === What is measured ===

/// What plugins add to a request and its response.
fn added(plugins: &[Plugin]) -> Figure {
    let mut with = WasmLayer::new(plugins.iter().cloned()).layer(service_fn(answer));
    let mut without = service_fn(answer);
    difference(&mut |times| exchanges(times, |exchange| drop(drive(with.call(exchange)))), &mut |times| {
        exchanges(times, |exchange| drop(drive(without.call(exchange))))
    })
}

/// What a plugin that looks at events adds to one.
fn events(plugin: &Plugin) -> Figure {
    const EVENT: &[u8] = b"data: {\"choices\":[{\"delta\":{\"content\":\"token\"}}]}\n\n";
    let mut times = Vec::new();
    for _ in 0..100 {
        let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let (mut request, mut response) = (request().into_parts().0, response().into_parts().0);
        response.headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        let _ = black_box(stream.on_request_headers(&mut request, true));
        let _ = black_box(stream.on_response_headers(&mut response, false));
        for _ in 0..200 {
            let mut event = Bytes::from_static(EVENT);
            let start = Instant::now();
            let _ = black_box(stream.on_response_body(&mut event, false));
            times.push(nanoseconds(start.elapsed(), 1));
        }
    }
    times.sort_by(f64::total_cmp);
    Figure { best: at(&times, 990), median: at(&times, 500) }
}

/// An instance that takes the place of another: built, started, configured, and the other one freed.
fn start(engine: &Engine, module: &Module, configuration: &[u8]) -> Figure {
    let mut present = plugin(module, configuration);
    // Upkeep gives the places of what is gone back: every 10 ms, in which more than fit into the pool come
    // and go here.
    let mut replace = || {
        present = plugin(module, configuration);
        engine.maintain();
    };
    difference(&mut |times| clocked(|| (0..times).for_each(|_| replace())), &mut |_| Duration::ZERO)
}

/// Serves so many requests. Requests and responses are there before the time is taken, a request has its
/// response with it, and few enough at once that they are in the cache, as one is that was just read from its
/// connection.
fn exchanges(times: u32, mut serve: impl FnMut(Request<Body>)) -> Duration {
    const AT_ONCE: u32 = 32;
    let mut took = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let some = left.min(AT_ONCE);
        let exchanges: Vec<_> = (0..some).map(|_| exchange()).collect();
        took += clocked(|| exchanges.into_iter().for_each(&mut serve));
        left -= some;
    }
    took
}

fn exchange() -> Request<Body> {
    let mut request = request();
    request.extensions_mut().insert(Prepared(Some(response())));
    request
}

#[derive(Clone)]
struct Prepared(Option<Response<Body>>);

/// The service behind the plugins.
fn answer<B>(mut request: Request<B>) -> Ready<Result<Response<Body>, Infallible>> {
    ready(Ok(request.extensions_mut().get_mut::<Prepared>().and_then(|prepared| prepared.0.take()).unwrap()))
}

/// A request as a browser sends it, over HTTP/1.1.
fn request() -> Request<Body> {
    let agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0";
    let headers = [
        ("host", "shop.example.com"),
        ("user-agent", agent),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-encoding", "gzip, deflate, br"),
        ("accept-language", "en-US,en;q=0.5"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("referer", "https://shop.example.com/api/v1"),
        ("x-request-id", "6f1cbd2a-9d0e-4a52-8a39-6cf5d0c2c6a2"),
    ];
    let mut request = Request::new(Empty::new());
    let target;
    (target, *request.headers_mut()) = received("/api/v1/things?page=2", &headers);
    *request.uri_mut() = Uri::from_maybe_shared(target).unwrap();
    request
}

fn response() -> Response<Body> {
    let mut response = Response::new(Empty::new());
    *response.headers_mut() = received("", &[("content-type", "application/json"), ("server", "bench")]).1;
    response
}

/// A target and headers as a server receives them: target and values are parts of one buffer.
fn received(target: &str, headers: &[(&'static str, &str)]) -> (Bytes, HeaderMap) {
    let values = headers.iter().map(|(_, value)| *value);
    let buffer = Bytes::from([target].into_iter().chain(values).collect::<String>());
    let mut start = target.len();
    let fields = headers.iter().map(|(name, value)| {
        let part = buffer.slice(start..start + value.len());
        start += value.len();
        (HeaderName::from_static(name), HeaderValue::from_maybe_shared(part).unwrap())
    });
    let headers = fields.collect();
    (buffer.slice(..target.len()), headers)
}

/// Polls until it is ready: a guest that the clock interrupts goes on at once.
fn drive<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return output;
        }
    }
}

// === How it is measured ===

/// Nanoseconds.
struct Figure {
    best: f64,
    median: f64,
}

/// Does something so many times, and says how long it took.
type Work<'a> = &'a mut dyn FnMut(u32) -> Duration;

/// How much longer one work takes than another.
fn difference(with: Work<'_>, without: Work<'_>) -> Figure {
    let times = calibrate(with);
    let mut slices = Vec::with_capacity(SLICES);
    for round in 0..SLICES {
        // Either is first every other time.
        let first = (round % 2 == 0).then(|| nanoseconds(with(times), times));
        let without = nanoseconds(without(times), times);
        slices.push((first.unwrap_or_else(|| nanoseconds(with(times), times)), without));
    }
    let of = |figure: fn(&(f64, f64)) -> f64| {
        let mut values: Vec<f64> = slices.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let (with, without, differences) =
        (of(|slice| slice.0), of(|slice| slice.1), of(|slice| slice.0 - slice.1));
    Figure { best: at(&with, 0) - at(&without, 0), median: at(&differences, 500) }
}

/// What so many of a thousand sorted values are below.
fn at(sorted: &[f64], permille: usize) -> f64 {
    sorted.get(sorted.len() * permille / 1_000).copied().unwrap_or(f64::NAN)
}

/// How many times fill a slice.
fn calibrate(work: Work<'_>) -> u32 {
    let mut times = 1;
    while (0..3).any(|_| work(times) < SLICE) && times < 1 << 14 {
        times *= 2;
    }
    times
}

fn clocked(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn nanoseconds(duration: Duration, times: u32) -> f64 {
    duration.as_secs_f64() * 1e9 / f64::from(times)
}

/// Prints figures as they come, and remembers which exceed their limits.
struct Table {
    only: Vec<String>,
    check: bool,
    missed: usize,
}

impl Table {
    /// The rows whose names contain one of the words of the command line, or all.
    fn from_args() -> Self {
        let only = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
        println!("{:<44} {:>10} {:>10} {:>10}", "added", "best", "median", "limit");
        Self { only, check: std::env::args().any(|argument| argument == "--check"), missed: 0 }
    }

    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| name.contains(word.as_str()))
    }

    fn row(&mut self, name: &str, limit: f64, measure: impl FnOnce() -> Figure) {
        if !self.wants(name) {
            return;
        }
        let Figure { median, best } = measure();
        let is_missed = best > limit;
        self.missed += usize::from(is_missed);
        let [median, best, limit] = [median, best, limit].map(|ns| format!("{:.2} us", ns / 1e3));
        println!(
            "{name:<44} {best:>10} {median:>10} {limit:>10} {}",
            if is_missed { "MISS" } else { "pass" }
        );
    }

    fn end(&self) -> ExitCode {
        println!("\n{} limits missed", self.missed);
        if self.check && self.missed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
