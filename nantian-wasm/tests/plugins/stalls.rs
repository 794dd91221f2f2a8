//! Messages that come slowly, break off, or never end, and guests that hold them.

use std::cell::Cell;
use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Action, Engine, FailurePolicy, Module, Plugin, PluginConfig, StreamContext, StreamFraming, StreamInfo,
    WasmLayer,
    body::RequestBody,
    host::{CallError, CallFailure, Host, HttpCall, HttpCallResponse, HttpReply},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Ticking, configured, data, exchange, frames, get, guest, plugin_of, send};

/// What comes of a body.
#[derive(Clone, Copy)]
enum Event {
    Data(&'static str),
    /// Nothing before the task's next turn, for which it is woken at once.
    Later,
    /// Nothing more, ever.
    Never,
    Broken,
}

thread_local! {
    /// Turns that the task of an exchange has had.
    static TURN: Cell<u64> = const { Cell::new(0) };
}

struct Slow {
    events: VecDeque<Event>,
    /// The turn in which nothing comes any more.
    until: Option<u64>,
}

impl Slow {
    fn of(events: &[Event]) -> Self {
        Self { events: events.iter().copied().collect(), until: None }
    }
}

impl Body for Slow {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.until == Some(TURN.get()) {
            return Poll::Pending;
        }
        match self.events.pop_front() {
            None => Poll::Ready(None),
            Some(Event::Data(bytes)) => Poll::Ready(Some(Ok(data(bytes)))),
            Some(Event::Broken) => Poll::Ready(Some(Err(std::io::ErrorKind::ConnectionReset.into()))),
            Some(Event::Later) => {
                self.until = Some(TURN.get());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Event::Never) => {
                self.events.push_front(Event::Never);
                Poll::Pending
            }
        }
    }
}

/// The status, and both bodies if they came to their end.
fn send_slowly(
    plugins: &[Plugin],
    request: &[Event],
    response: &[Event],
) -> (u16, Option<Bytes>, Option<Bytes>) {
    let reached = Arc::new(Mutex::new(None));
    let (seen, response) = (Arc::clone(&reached), response.to_vec());
    let inner = service_fn(move |request: Request<RequestBody<Slow>>| {
        let (seen, response) = (Arc::clone(&seen), Slow::of(&response));
        async move {
            let body = request.into_body().collect().await?.to_bytes();
            *seen.lock().unwrap() = Some(body);
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(Response::new(response))
        }
    });
    let service = WasmLayer::new(plugins.iter().cloned()).layer(inner);
    let post = Request::post("/").header("host", "example.com").header("x-api-key", "k");
    let post = post.body(Slow::of(request)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut both = Box::pin(async {
        let response = service.oneshot(post).await.unwrap();
        (response.status().as_u16(), response.into_body().collect().await.ok())
    });
    let (status, body) = runtime.block_on(std::future::poll_fn(|cx| {
        TURN.set(TURN.get() + 1);
        both.as_mut().poll(cx)
    }));
    let request = reached.lock().unwrap().take();
    (status, request, body.map(http_body_util::Collected::to_bytes))
}

/// A module of these functions, with an allocator and a page of strings.
fn text(parts: &str) -> Vec<u8> {
    let module = format!(
        r#"(module
          (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
          (import "env" "proxy_http_call"
            (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
          (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
          (import "env" "proxy_dequeue_shared_queue" (func $dequeue (param i32 i32 i32) (result i32)))
          (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
          (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
          (memory (export "memory") 2)
          (global $calls (mut i32) (i32.const 0))
          (data (i32.const 100) "x-a")
          (data (i32.const 110) "later")
          (data (i32.const 400) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
          (func $count (global.set $calls (i32.add (global.get $calls) (i32.const 1))))
          (func $call_later
            (drop (call $call (i32.const 110) (i32.const 5) (i32.const 400) (i32.const 61) (i32.const 0)
              (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0))))
          {parts})"#
    );
    wat::parse_str(module).unwrap()
}

fn made(engine: &Engine, parts: &str, change: impl FnOnce(&mut PluginConfig)) -> Plugin {
    plugin_of(engine, &text(parts), change).unwrap()
}

/// A guest that keeps all it is shown of a request's body, and never lets it go.
const KEEPER: &str =
    r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 2))"#;

#[test]
fn lost_instance_of_a_plugin_that_failed_open_leaves_the_others_to_wait_for_the_body() {
    let traps =
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (unreachable))"#;
    let open =
        made(&Engine::new().unwrap().0, traps, |config| config.failure_policy = FailurePolicy::FailOpen);
    let holder = configured("body", b"h");
    let body = [Event::Data("one"), Event::Later, Event::Data("two"), Event::Later];
    // Once it traps, and once it has no instance.
    for _ in 0..2 {
        let (status, request, response) = send_slowly(&[open.clone(), holder.clone()], &body, &body);
        assert_eq!((status, request.as_deref()), (200, Some(&b"onetwo"[..])));
        assert_eq!(response.as_deref(), Some(&b"onetwo"[..]));
    }
}

#[test]
fn body_held_at_its_limit_for_too_long_is_the_failure_of_its_plugin() {
    for (policy, expected) in [(FailurePolicy::FailClosed, 503), (FailurePolicy::FailOpen, 200)] {
        let engine = Engine::new().unwrap().0;
        let keeper = made(&engine, KEEPER, |config| {
            config.failure_policy = policy;
            config.sandbox.max_buffered_body = 4;
            config.sandbox.max_pause = Duration::from_millis(50);
        });
        let _kept = Ticking::with_upkeep(&engine);
        let rest = if expected == 200 { Event::Data("more") } else { Event::Never };
        let (status, request, _) =
            send_slowly(std::slice::from_ref(&keeper), &[Event::Data("full"), Event::Later, rest], &[]);
        assert_eq!((status, request.as_deref()), (expected, (expected == 200).then_some(&b"fullmore"[..])));
        let cause = keeper.status().last_failure.unwrap().cause.to_string();
        assert_eq!(cause, "stream held for too long");
    }
}

#[test]
fn message_that_breaks_off_while_its_headers_are_held_is_answered() {
    let plugin =
        || plugin_of(&Engine::new().unwrap().0, &crate::support::built("pingora_guest"), |_| {}).unwrap();
    let broken = [Event::Data("half"), Event::Later, Event::Broken];
    let (status, request, _) = send_slowly(&[plugin()], &broken, &[]);
    assert_eq!((status, request), (400, None));
    let (status, ..) = send_slowly(&[plugin()], &[], &broken);
    assert_eq!(status, 502);
}

#[test]
fn request_of_trailers_alone_does_not_pass_the_hook_of_the_request() {
    let plugin =
        plugin_of(&Engine::new().unwrap().0, &crate::support::built("pingora_guest"), |_| {}).unwrap();
    let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]);
    let request = Request::post("/").header("host", "example.com").body(frames([Frame::trailers(trailers)]));
    let seen = exchange([plugin], request.unwrap(), Response::new(frames([data("secret")])));
    assert_eq!((seen.status(), seen.request.is_none()), (401, true));
}

#[test]
fn guest_that_posts_to_its_own_queue_is_served_in_turns() {
    let plugin = made(
        &Engine::new().unwrap().0,
        r#"(func $post (drop (call $enqueue (i32.const 1) (i32.const 100) (i32.const 3))))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $register (i32.const 100) (i32.const 3) (i32.const 0))) (call $post) (i32.const 0))
        (func (export "proxy_on_queue_ready") (param i32 i32)
          (drop (call $dequeue (i32.const 1) (i32.const 0) (i32.const 4))) (call $post))"#,
        |_| {},
    );
    assert_eq!(send([plugin.clone()], get("/")).status(), 200);
    assert_eq!(plugin.status().traps.total(), 0);
}

/// Shows a request's headers, and says whether they pass.
fn passes(stream: &mut StreamContext) -> bool {
    let (mut parts, ()) = Request::new(()).into_parts();
    matches!(stream.on_request_headers(&mut parts, false), Action::Continue)
}

#[test]
fn instance_that_is_lost_between_messages_takes_nothing_of_the_response_with_it() {
    let plugin = made(
        &Engine::new().unwrap().0,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (drop (call $add (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 100) (i32.const 3)))
          (call $count)
          (if (i32.gt_u (global.get $calls) (i32.const 1)) (then (unreachable)))
          (i32.const 0))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 0))"#,
        |config| config.failure_policy = FailurePolicy::FailOpen,
    );
    let stream = || StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let (mut first, mut second) = (stream(), stream());
    assert!(passes(&mut first) && passes(&mut second));
    let (mut parts, ()) = Response::builder().header("x-upstream", "1").body(()).unwrap().into_parts();
    assert!(matches!(first.on_response_headers(&mut parts, false), Action::Continue));
    assert_eq!(plugin.status().traps.total(), 1);
    assert!(parts.headers.contains_key("x-upstream"), "{:?}", parts.headers);
}

/// Keeps the replies that are asked for.
#[derive(Default)]
struct Later(Mutex<Vec<HttpReply>>);

impl Host for Later {
    fn http_call(&self, _: &str, _: HttpCall, reply: HttpReply) -> Result<(), CallError> {
        self.0.lock().unwrap().push(reply);
        Ok(())
    }
}

fn calling(engine: &Engine, host: &Arc<Later>, parts: &str) -> Plugin {
    calling_under(FailurePolicy::FailClosed, engine, host, parts)
}

fn calling_under(policy: FailurePolicy, engine: &Engine, host: &Arc<Later>, parts: &str) -> Plugin {
    let module = Module::compile(engine, &text(parts), None).unwrap();
    let mut config = PluginConfig::new("probe");
    config.instances = NonZeroUsize::new(1);
    config.sandbox.allow_network = true;
    config.sandbox.max_pause = Duration::from_millis(50);
    config.failure_policy = policy;
    Plugin::with_host(&module, config, Arc::clone(host)).unwrap()
}

#[test]
fn end_of_a_body_does_not_wait_for_the_calls_of_another_stream() {
    let host = Arc::<Later>::default();
    let plugin = calling(
        &Engine::new().unwrap().0,
        &host,
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (if (i32.eqz (global.get $calls)) (then (call $call_later))) (call $count) (i32.const 0))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 3))"#,
    );
    let stream = || StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let (mut caller, mut other) = (stream(), stream());
    assert!(passes(&mut caller) && passes(&mut other));
    assert_eq!(host.0.lock().unwrap().len(), 1);
    let end = |stream: &mut StreamContext| stream.on_request_body(&mut Bytes::new(), true);
    assert!(matches!(end(&mut other), Action::Continue));
    assert!(matches!(end(&mut caller), Action::Pending), "its own call may still continue it");
}

#[test]
fn pause_that_a_second_call_prolongs_ends_with_that_call() {
    let (to_stream, to_root) = ("(drop (call $become (i32.const 2)))", "(drop (call $become (i32.const 1)))");
    // Whichever context the guest has chosen, both calls are the stream's that their callbacks are for.
    for (first, second) in [("", to_stream), ("", ""), (to_root, to_root)] {
        let (engine, host) = (Engine::new().unwrap().0, Arc::<Later>::default());
        let guest = format!(
            r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
              {first} (call $call_later) (i32.const 1))
            (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32) {second} (call $call_later))"#
        );
        let plugin = calling(&engine, &host, &guest);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(Arc::clone(&woken));
        let mut cx = Context::from_waker(&waker);
        let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
        assert!(!passes(&mut stream));
        let run = |milliseconds: u32| {
            (0..milliseconds).for_each(|_| engine.tick());
            engine.maintain();
        };
        assert!(stream.poll_request(&mut cx).is_pending());
        run(500);
        assert!(stream.poll_request(&mut cx).is_pending(), "the first call has 500 ms left");
        let reply = host.0.lock().unwrap().remove(0);
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        assert_eq!(host.0.lock().unwrap().len(), 1, "the guest has called again");
        assert!(stream.poll_request(&mut cx).is_pending());
        run(600);
        assert!(stream.poll_request(&mut cx).is_pending(), "the second call has 400 ms left");
        run(1_000);
        assert!(stream.poll_request(&mut cx).is_pending(), "and a second to tell");
        woken.0.store(false, std::sync::atomic::Ordering::Relaxed);
        run(600);
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed), "its time is over");
        assert!(stream.poll_request(&mut cx).is_ready());
    }
}

/// Holds a request until its call-out returns, of which it makes `REPLY`.
fn asking(reply: &str) -> String {
    format!(
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
          (call $call_later) (i32.const 1))
        (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
          (drop (call $become (i32.const 2))) {reply})"#
    )
}

#[test]
fn guest_hears_that_its_call_has_taken_too_long_before_its_pause_is_over() {
    let (engine, host) = (Engine::new().unwrap().0, Arc::<Later>::default());
    let plugin = calling(&engine, &host, &asking("(drop (call $continue (i32.const 0)))"));
    let mut cx = Context::from_waker(Waker::noop());
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    assert!(!passes(&mut stream));
    // The call's time is a second, and its host is a little late.
    (0..1_010).for_each(|_| engine.tick());
    engine.maintain();
    assert!(stream.poll_request(&mut cx).is_pending(), "the guest is to decide");
    host.0.lock().unwrap().remove(0).send(Err(CallFailure::Timeout));
    assert!(stream.poll_request(&mut cx).is_ready());
    assert!(passes(&mut stream));
}

#[test]
fn what_a_plugin_that_fails_open_has_changed_in_a_reply_that_fails_is_taken_back() {
    // Whether it lets the request go before it traps or not.
    for goes_on in ["", "(drop (call $continue (i32.const 0)))"] {
        let (engine, host) = (Engine::new().unwrap().0, Arc::<Later>::default());
        let add =
            "(drop (call $add (i32.const 0) (i32.const 100) (i32.const 3) (i32.const 100) (i32.const 3)))";
        let reply = asking(&format!("{add} {goes_on} (unreachable)"));
        let plugin = calling_under(FailurePolicy::FailOpen, &engine, &host, &reply);
        let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let (mut parts, ()) = Request::new(()).into_parts();
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
        let reply = host.0.lock().unwrap().remove(0);
        reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        assert_eq!(plugin.status().traps.total(), 1);
        assert!(stream.poll_request(&mut Context::from_waker(Waker::noop())).is_ready());
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
        assert!(parts.headers.is_empty(), "{:?}", parts.headers);
    }
}

/// Whether a task was woken.
#[derive(Default)]
struct Woken(std::sync::atomic::AtomicBool);

impl std::task::Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn events_are_not_looked_for_in_a_compressed_stream() {
    let plugin = plugin_of(&Engine::new().unwrap().0, &guest("body"), |config| {
        config.configuration = Bytes::from_static(b"a");
        config.stream_framing = StreamFraming::Events;
    });
    let response = Response::builder().header("content-type", "text/event-stream");
    let response =
        response.header("content-encoding", "gzip").body(frames([data("one"), data("two")])).unwrap();
    assert_eq!(exchange([plugin.unwrap()], get("/"), response).text(), "one!two!!");
}
