//! Guests, services and exchanges for the tests.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::path::Path;
use std::pin::Pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Action, Engine, Module, Plugin, PluginConfig, StreamContext, StreamInfo, WasmLayer, body::RequestBody,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

/// A body of these frames, each of its own.
pub(crate) struct Frames {
    frames: VecDeque<Frame<Bytes>>,
    /// Does not say that it has ended before somebody asks for a frame too many.
    is_coy: bool,
}

impl Frames {
    pub(crate) fn coy(self) -> Self {
        Self { is_coy: true, ..self }
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.frames.pop_front().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && !self.is_coy
    }
}

/// Has one part now, and nothing more for ever.
pub(crate) struct ThenSilent(pub(crate) Option<Frame<Bytes>>);

impl Body for ThenSilent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.take().map_or(Poll::Pending, |frame| Poll::Ready(Some(Ok(frame))))
    }
}

/// The bytes of a guest in `tests/guests`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    wat::parse_file(format!("{}/tests/guests/{name}.wat", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The module of a crate in `tests`, built once by cargo and found up to date by everybody else.
pub(crate) fn built(name: &str) -> Vec<u8> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name).join("Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.replace('_', "-"));
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", "wasm32-wasip1", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::read(target.join(format!("wasm32-wasip1/release/{name}.wasm"))).unwrap()
}

/// A plugin of one instance.
pub(crate) fn plugin(guest_name: &str, change: impl FnOnce(&mut PluginConfig)) -> Plugin {
    plugin_of(&Engine::new().unwrap().0, &guest(guest_name), change).unwrap()
}

pub(crate) fn plugin_of(
    engine: &Engine,
    bytes: &[u8],
    change: impl FnOnce(&mut PluginConfig),
) -> Result<Plugin, nantian_wasm::PluginError> {
    let module = Module::compile(engine, bytes, None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.instances = NonZeroUsize::new(1);
    change(&mut config);
    Plugin::new(&module, config)
}

/// A plugin of one instance with this configuration.
pub(crate) fn configured(guest_name: &str, configuration: &[u8]) -> Plugin {
    plugin(guest_name, |config| config.configuration = Bytes::copy_from_slice(configuration))
}

/// Moves an engine's clock some ten times as fast as an embedder would, until it is dropped.
pub(crate) struct Ticking {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Ticking {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self::start(engine, Self::FAST, Engine::tick)
    }

    /// At the speed of real time, for what must not end before a test has seen it.
    pub(crate) fn in_real_time(engine: &Engine) -> Self {
        Self::start(engine, Duration::from_millis(1), Engine::tick)
    }

    /// With upkeep, for guests that do not loop.
    pub(crate) fn with_upkeep(engine: &Engine) -> Self {
        Self::start(engine, Self::FAST, |engine| {
            engine.tick();
            engine.maintain();
        })
    }

    /// Upkeep alone, on a thread that may run guests.
    pub(crate) fn upkeep(engine: &Engine) -> Self {
        Self::start(engine, Self::FAST, Engine::maintain)
    }

    const FAST: Duration = Duration::from_micros(50);

    fn start(engine: &Engine, pause: Duration, turn: fn(&Engine)) -> Self {
        let (engine, stop) = (engine.clone(), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                turn(&engine);
                std::thread::park_timeout(pause);
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Does something for each event of a target, down to this level.
struct OnEvents<F> {
    target: &'static str,
    level: tracing::Level,
    on: F,
}

impl<F: Fn(&tracing::Event<'_>) + 'static> tracing::Subscriber for OnEvents<F> {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == self.target && *metadata.level() <= self.level
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        (self.on)(event);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

/// Moves the clock of an engine on by so many milliseconds with every line that a guest logs.
pub(crate) fn ticks_with_logs(engine: Engine, milliseconds: u32) -> impl tracing::Subscriber + Send + Sync {
    let on = move |_: &tracing::Event<'_>| (0..milliseconds).for_each(|_| engine.tick());
    OnEvents { target: "nantian_wasm::guest", level: tracing::Level::TRACE, on }
}

/// A line that is logged: the plugin's name and the message.
#[derive(Default)]
pub(crate) struct Logged(String);

impl Logged {
    /// What guests log meanwhile.
    pub(crate) fn during(run: impl FnOnce()) -> Vec<String> {
        Self::under("nantian_wasm::guest", run)
    }

    /// What is logged of plugins meanwhile.
    pub(crate) fn of_plugins(run: impl FnOnce()) -> Vec<String> {
        Self::under("nantian_wasm::observe", run)
    }

    fn under(target: &'static str, run: impl FnOnce()) -> Vec<String> {
        let (sender, lines) = mpsc::channel();
        let on = move |event: &tracing::Event<'_>| {
            let mut line = Self::default();
            event.record(&mut line);
            sender.send(line.0).unwrap();
        };
        tracing::subscriber::with_default(OnEvents { target, level: tracing::Level::INFO, on }, run);
        lines.try_iter().collect()
    }
}

impl tracing::field::Visit for Logged {
    fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
        if field.name() == "plugin" {
            self.0 = format!("{value}: {}", self.0);
        }
    }

    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.push_str(&format!("{value:?}"));
        }
    }
}

pub(crate) fn data(bytes: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(bytes.as_bytes()))
}

pub(crate) fn frames(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Frames {
    Frames { frames: frames.into_iter().collect(), is_coy: false }
}

pub(crate) fn get(path: &str) -> Request<Frames> {
    Request::get(path).header("host", "example.com").body(frames([])).unwrap()
}

/// An exchange as both ends saw it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// The request that reached the inner service.
    pub(crate) request: Option<http::request::Parts>,
    pub(crate) request_body: Result<Vec<u8>, String>,
    pub(crate) response: Response<()>,
    pub(crate) body: Result<Vec<u8>, String>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Seen {
    pub(crate) fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    pub(crate) fn request_header(&self, name: &str) -> Option<&str> {
        self.request.as_ref()?.headers.get(name)?.to_str().ok()
    }

    pub(crate) fn response_header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }
}

async fn collect<B: Body<Data = Bytes>>(body: B) -> (Result<Vec<u8>, String>, Option<HeaderMap>)
where
    B::Error: ToString,
{
    let mut body = std::pin::pin!(body);
    let (mut bytes, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map(Frame::into_data) {
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            Ok(Err(frame)) => trailers = frame.into_trailers().ok(),
            Err(error) => return (Err(error.to_string()), trailers),
        }
    }
    (Ok(bytes), trailers)
}

/// What a plugin counts, by name.
pub(crate) fn counts(plugin: &Plugin) -> Vec<(String, u64)> {
    plugin.status().metrics.into_iter().map(|metric| (metric.name, metric.value)).collect()
}

pub(crate) fn stream(plugin: &Plugin) -> StreamContext {
    StreamContext::new([plugin.clone()].into(), StreamInfo::default())
}

/// A stream whose headers a plugin has seen.
pub(crate) fn begin(plugin: &Plugin) -> StreamContext {
    let mut stream = stream(plugin);
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
    stream
}

/// Sends a request past plugins to an inner service that reads its body and answers with `response`.
pub(crate) fn exchange(
    plugins: impl IntoIterator<Item = Plugin>,
    request: Request<Frames>,
    response: Response<Frames>,
) -> Seen {
    let reached = Arc::new(std::sync::Mutex::new(None));
    let calls = AtomicUsize::new(0);
    let response = std::sync::Mutex::new(Some(response));
    let inner = service_fn(|request: Request<RequestBody<Frames>>| {
        assert_eq!(
            calls.fetch_add(1, Ordering::Relaxed),
            0,
            "one request makes at most one upstream request"
        );
        let (reached, response) = (Arc::clone(&reached), response.lock().unwrap().take().unwrap());
        async move {
            let (parts, body) = request.into_parts();
            let (bytes, _) = collect(body).await;
            let broken = bytes.clone().err();
            *reached.lock().unwrap() = Some((parts, bytes));
            broken.map_or(Ok(response), Err)
        }
    });
    let service = WasmLayer::new(plugins).layer(inner);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (response, body, trailers) = runtime.block_on(async {
        let response =
            service.oneshot(request).await.expect("a broken request body is answered by the layer");
        let (parts, body) = response.into_parts();
        let (body, trailers) = collect(body).await;
        (Response::from_parts(parts, ()), body, trailers)
    });
    let (request, request_body) =
        reached.lock().unwrap().take().map_or((None, Ok(Vec::new())), |(parts, body)| (Some(parts), body));
    Seen { request, request_body, response, body, trailers }
}

/// Sends a request without a body to a service that answers 200 `ok`.
pub(crate) fn send(plugins: impl IntoIterator<Item = Plugin>, request: Request<Frames>) -> Seen {
    exchange(plugins, request, Response::new(frames([data("ok")])))
}
