//! Quantities that clients choose: they may fail a stream, and never cost an instance or what a plugin
//! remembers.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use nantian_wasm::{
    Action, Cause, Engine, FailurePolicy, Plugin, StreamContext, StreamFraming, StreamInfo, WasmLayer,
    body::RequestBody,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{
    Frames, Seen, ThenSilent, Ticking, data, exchange, frames, plugin, plugin_of, send, ticks_with_logs,
};

/// Defines a counter by the value of the header `x-who` and counts in it, as published plugins count by
/// consumer; keeps a value under that name, too, and an item in a queue.
const COUNTS: &str = r#"(module
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_register_shared_queue" (func $register (param i32 i32 i32) (result i32)))
    (import "env" "proxy_enqueue_shared_queue" (func $enqueue (param i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (data (i32.const 16) "x-who")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $insist (param i32) (if (local.get 0) (then (unreachable))))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $register (i32.const 16) (i32.const 5) (i32.const 32))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $insist (call $get (i32.const 0) (i32.const 16) (i32.const 5) (i32.const 0) (i32.const 4)))
        (call $insist (call $define (i32.const 0) (i32.const 1024) (i32.load (i32.const 4)) (i32.const 8)))
        (call $insist (call $increment (i32.load (i32.const 8)) (i64.const 1)))
        (call $insist (call $share (i32.const 1024) (i32.load (i32.const 4)) (i32.const 16) (i32.const 5) (i32.const 0)))
        (call $insist (call $enqueue (i32.load (i32.const 32)) (i32.const 1024) (i32.load (i32.const 4))))
        (i32.const 0)))"#;

fn of_text(text: &str, failure_policy: FailurePolicy) -> Plugin {
    let change = |config: &mut nantian_wasm::PluginConfig| config.failure_policy = failure_policy;
    plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), change).unwrap()
}

fn ask(plugin: &Plugin, who: &str) -> Seen {
    send([plugin.clone()], Request::get("/").header("x-who", who).body(frames([])).unwrap())
}

#[test]
fn clients_of_any_number_and_with_names_of_any_length_are_served() {
    let plugin = of_text(COUNTS, FailurePolicy::FailClosed);
    let long = "w".repeat(5_000);
    for client in 0..1_200 {
        assert_eq!(ask(&plugin, &format!("client {client}")).status(), 200);
        assert_eq!(ask(&plugin, &long).status(), 200);
    }
    let status = plugin.status();
    assert_eq!((status.traps.total(), status.failures, status.live_instances), (0, 0, 1));
    let counter =
        |name: &str| status.metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value);
    assert_eq!(status.metrics.len(), 1_000);
    assert_eq!(counter("client 0"), Some(1));
    assert_eq!(counter("client 1100"), None, "there was no room for another name");
    assert_eq!(counter(&long[..256]), Some(1_200), "a name is cut");
    assert_eq!(status.dropped_metrics, 1_200 - 999);
    assert_eq!(status.dropped_shared_data, 1_200 - 999, "the oldest made room");
    assert_eq!(status.dropped_queue_items, 2_400 - 1_000);
}

/// Puts sixteen bytes in front of what it is shown of a body.
const LENGTHENS: &str = r#"(module
    (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_body") (param i32 i32) (param $end i32) (result i32)
        (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
        (if (call $set (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 16)) (then (unreachable)))
        (i32.const 0)))"#;

#[test]
fn body_that_a_guest_makes_too_long_is_refused_under_either_policy() {
    for policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let plugin = of_text(LENGTHENS, policy);
        let post = |length: usize| {
            let body = frames([Frame::data(Bytes::from(vec![b'x'; length]))]);
            let request = Request::post("/").body(body).unwrap();
            exchange([plugin.clone()], request, Response::new(frames([data("ok")])))
        };
        let limit = 1 << 20;
        let fits = post(limit - 16);
        assert_eq!((fits.status(), fits.request_body.unwrap().len()), (200, limit));
        let refused = post(limit - 15);
        assert_eq!(refused.status(), 413);
        assert!(refused.request_body.is_err());
        let status = plugin.status();
        assert_eq!(status.last_failure.unwrap().cause, Cause::BodyTooLarge { limit });
        assert_eq!((status.traps.total(), post(1).status()), (0, 200), "the instance serves on");
    }
}

/// Copies the path into two headers.
const COPIES: &str = r#"(module
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 4)
    (data (i32.const 16) "x-copy")
    (data (i32.const 32) ":path")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $copy
        (if (call $add (i32.const 0) (i32.const 16) (i32.const 6) (i32.const 1024) (i32.load (i32.const 4)))
            (then (unreachable))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (drop (call $get (i32.const 0) (i32.const 32) (i32.const 5) (i32.const 0) (i32.const 4)))
        (call $copy) (call $copy) (i32.const 0)))"#;

#[test]
fn headers_that_clients_make_too_long_to_be_copied_cost_their_stream_alone() {
    for policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let plugin = of_text(COPIES, policy);
        let ask = |length: usize| {
            let request = Request::get(format!("/{}", "p".repeat(length))).body(frames([])).unwrap();
            send([plugin.clone()], request)
        };
        let copies =
            |seen: &Seen| seen.request.as_ref().map(|parts| parts.headers.get_all("x-copy").iter().count());
        assert_eq!(copies(&ask(30_000)), Some(2));
        let long = ask(33_000);
        assert_eq!(
            (long.status(), copies(&long)),
            (503, None),
            "clients could choose to get past the plugin"
        );
        let told = plugin.status();
        assert_eq!(told.last_failure.unwrap().cause, Cause::StreamBudget { what: "header bytes" });
        assert_eq!((told.traps.total(), ask(10).status()), (0, 200));
    }
}

#[test]
fn instance_that_is_full_leaves_streams_to_the_others_before_any_is_refused_or_passes_by() {
    const ROOM: usize = 10_000;
    for failure_policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let plugin = plugin("add_header", |config| {
            config.instances = NonZeroUsize::new(2);
            config.failure_policy = failure_policy;
        });
        let begin = || {
            let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
            let (mut parts, ()) = Request::new(()).into_parts();
            let action = stream.on_request_headers(&mut parts, true);
            (parts.headers.contains_key("x-wasm-plugin"), action, stream)
        };
        let mut streams: Vec<_> = (0..2 * ROOM).map(|_| begin()).collect();
        assert!(streams.iter().all(|(is_served, ..)| *is_served));
        let (is_served, action, _) = begin();
        assert!(!is_served);
        match (failure_policy, action) {
            (FailurePolicy::FailOpen, Action::Continue) => {}
            (FailurePolicy::FailClosed, Action::Fail(failure)) => {
                assert_eq!(failure.cause, Cause::Budget { what: "stream contexts" });
            }
            other => panic!("{other:?}"),
        }
        drop(streams.pop());
        assert!(begin().0, "one has ended");
    }
}

/// What one stream has of a memory of ten bytes.
struct Share {
    all: Arc<AtomicU64>,
    own: AtomicU64,
}

impl Share {
    fn hold(&self, bytes: u64) -> Result<(), Cause> {
        let more = bytes.saturating_sub(self.own.load(Relaxed));
        if self.all.load(Relaxed) + more > 10 {
            return Err(Cause::NoMemory);
        }
        self.all.fetch_add(more, Relaxed);
        self.own.fetch_add(more, Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.all.fetch_sub(self.own.load(Relaxed), Relaxed);
    }
}

/// An engine that has ten bytes for bodies, of which `all` are held.
fn of_ten_bytes(all: &Arc<AtomicU64>) -> Engine {
    let all = Arc::clone(all);
    let begin = move || {
        let share = Share { all: Arc::clone(&all), own: AtomicU64::new(0) };
        move |bytes| share.hold(bytes)
    };
    Engine::builder().body_memory(begin).build().unwrap().0
}

#[test]
fn bodies_that_are_held_take_no_more_together_than_the_embedder_has_for_them() {
    let guest = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2))))"#;
    for policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let all = Arc::<AtomicU64>::default();
        let plugin = plugin_of(&of_ten_bytes(&all), &wat::parse_str(guest).unwrap(), |config| {
            config.failure_policy = policy
        });
        let plugins: Arc<[Plugin]> = [plugin.unwrap()].into();
        let begun = || {
            let mut stream = StreamContext::new(Arc::clone(&plugins), StreamInfo::default());
            let mut parts = Request::new(()).into_parts().0;
            assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
            stream
        };
        let show = |stream: &mut StreamContext, bytes: &'static str, end| {
            let mut chunk = Bytes::from(bytes);
            (stream.on_request_body(&mut chunk, end), chunk)
        };
        let (mut one, mut two, mut three) = (begun(), begun(), begun());
        assert_eq!(all.load(Relaxed), 0, "nothing is held yet");
        for (bytes, held) in [("123", 3), ("4567", 7)] {
            let (action, passed) = show(&mut one, bytes, false);
            assert!(matches!(action, Action::Continue) && passed.is_empty(), "{action:?}");
            assert_eq!(all.load(Relaxed), held);
        }
        let (refused, _) = show(&mut two, "1234", false);
        let Action::Fail(failure) = refused else { panic!("{refused:?}") };
        assert_eq!((failure.cause.clone(), failure.status().as_u16()), (Cause::NoMemory, 503), "{policy:?}");
        drop(two);
        assert!(matches!(show(&mut three, "123", false).0, Action::Continue));
        assert_eq!(all.load(Relaxed), 10);
        assert_eq!(show(&mut one, "", true).1, "1234567");
        assert_eq!(all.load(Relaxed), 10, "it is on its way");
        let mut parts = Response::new(()).into_parts().0;
        assert!(matches!(one.on_response_headers(&mut parts, true), Action::Continue));
        assert_eq!(all.load(Relaxed), 3, "it has gone on");
        drop(three);
        assert_eq!(all.load(Relaxed), 0);
    }
}

#[test]
fn event_that_has_not_ended_is_held_as_bodies_are() {
    let guest = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
    let all = Arc::<AtomicU64>::default();
    let plugin = plugin_of(&of_ten_bytes(&all), &wat::parse_str(guest).unwrap(), |config| {
        config.stream_framing = StreamFraming::Events;
    });
    let plugins: Arc<[Plugin]> = [plugin.unwrap()].into();
    let begun = || {
        let mut stream = StreamContext::new(Arc::clone(&plugins), StreamInfo::default());
        let (mut parts, ()) = Request::new(()).into_parts();
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
        let response = Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
        assert!(matches!(stream.on_response_headers(&mut response.into_parts().0, false), Action::Continue));
        stream
    };
    let show = |stream: &mut StreamContext, bytes: &'static str| {
        let mut chunk = Bytes::from(bytes);
        (stream.on_response_body(&mut chunk, false), chunk)
    };
    let (mut one, mut two) = (begun(), begun());
    for (bytes, passed, held) in [("id:1", "", 4), ("\n\nid:", "id:1\n\n", 3), ("2", "", 4)] {
        let (action, chunk) = show(&mut one, bytes);
        assert!(matches!(action, Action::Continue), "{action:?}");
        assert_eq!(chunk, passed);
        assert!(all.load(Relaxed) >= held, "{} bytes are held", all.load(Relaxed));
    }
    let (refused, _) = show(&mut two, "data: 1");
    let Action::Fail(failure) = refused else { panic!("{refused:?}") };
    assert_eq!(failure.cause, Cause::NoMemory);
    assert_eq!(show(&mut one, "\n\n").1, "id:2\n\n");
    assert!(matches!(show(&mut one, "\n\n").0, Action::Continue));
    assert_eq!(all.load(Relaxed), 0, "all has gone on");
}

#[test]
fn body_that_may_have_to_be_taken_back_is_held_with_the_one_in_its_place() {
    let guest = r#"(module
        (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
        (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
        (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (drop (call $set (i32.const 0) (i32.const 0) (local.get 1) (i32.const 0) (local.get 1)))
            (drop (call $continue (i32.const 0)))
            (i32.const 1)))"#;
    for (policy, held) in [(FailurePolicy::FailClosed, 4), (FailurePolicy::FailOpen, 8)] {
        let all = Arc::<AtomicU64>::default();
        let engine = of_ten_bytes(&all);
        let plugin = plugin_of(&engine, &wat::parse_str(guest).unwrap(), |config| {
            config.failure_policy = policy;
        });
        let plugins: Arc<[Plugin]> = [plugin.unwrap()].into();
        let shown = |bytes: &'static str| {
            let mut stream = StreamContext::new(Arc::clone(&plugins), StreamInfo::default());
            let (mut parts, ()) = Request::new(()).into_parts();
            assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
            let mut chunk = Bytes::from(bytes);
            (stream.on_request_body(&mut chunk, true), stream)
        };
        let (action, mut stream) = shown("1234");
        assert!(matches!(action, Action::Pending), "{action:?}");
        assert_eq!(all.load(Relaxed), held, "{policy:?}");
        assert!(stream.poll_request(&mut Context::from_waker(Waker::noop())).is_ready());
        let mut chunk = Bytes::new();
        assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Continue));
        assert_eq!(chunk, "\0\0\0\0");
        let (mut parts, ()) = Response::new(()).into_parts();
        assert!(matches!(stream.on_response_headers(&mut parts, true), Action::Continue));
        assert_eq!(all.load(Relaxed), 0, "{policy:?}: it has gone on");
        let (action, _stream) = shown("123456");
        let is_refused = matches!(&action, Action::Fail(failure) if failure.cause == Cause::NoMemory);
        assert_eq!(is_refused, policy == FailurePolicy::FailOpen, "{action:?}");
    }
}

#[test]
fn what_a_guest_looks_at_is_held_as_long_as_it_looks() {
    let guest = r#"(module (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
        (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
            (local $rounds i32)
            (loop $more
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
                (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $rounds) (i32.const 2))))
            (i32.eqz (local.get 2))))"#;
    let all = Arc::<AtomicU64>::default();
    let engine = of_ten_bytes(&all);
    let plugin = plugin_of(&engine, &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    assert!(matches!(stream.on_request_body(&mut Bytes::from("123"), false), Action::Continue));
    assert_eq!(all.load(Relaxed), 3);
    tracing::subscriber::with_default(ticks_with_logs(engine, 2), || {
        let action = stream.on_request_body(&mut Bytes::from("45"), false);
        assert!(matches!(action, Action::Pending), "its slice is over");
    });
    assert_eq!(all.load(Relaxed), 3);
    drop(stream);
    assert_eq!(all.load(Relaxed), 0);
}

#[test]
fn what_plugins_have_let_go_is_held_until_it_is_taken() {
    let holds_body = r#"
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2)))"#;
    let holds_headers = r#"
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    for (text, header) in [(holds_body, "content-length"), (holds_headers, "x-other")] {
        let guest = format!(
            r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) {text})"#
        );
        let all = Arc::<AtomicU64>::default();
        let engine = of_ten_bytes(&all);
        let plugin = plugin_of(&engine, &wat::parse_str(guest).unwrap(), |config| {
            config.failure_policy = FailurePolicy::FailOpen;
            config.sandbox.max_pause = Duration::from_millis(50);
        });
        let _ticking = Ticking::with_upkeep(&engine);
        let inner = service_fn(|request: Request<RequestBody<Frames>>| {
            let all = Arc::clone(&all);
            async move {
                let mut body = request.into_body();
                assert!(all.load(Relaxed) >= 7, "{header}");
                assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "1234567");
                assert_eq!(all.load(Relaxed), 0, "{header}");
                Ok::<_, Infallible>(Response::new(frames([])))
            }
        });
        let service = WasmLayer::new([plugin.unwrap()]).layer(inner);
        let request = Request::post("/").header(header, "7").body(frames([data("1234"), data("567")]));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(service.oneshot(request.unwrap())).unwrap().status(), 200);
    }
}

#[test]
fn what_was_gathered_of_an_answer_is_held_until_it_is_taken_while_its_request_is_held() {
    let holds_request = r#"
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))"#;
    let holds_headers = r#"
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let all = Arc::<AtomicU64>::default();
    let engine = of_ten_bytes(&all);
    let plugins = [holds_request, holds_headers].map(|text| {
        let guest = format!(
            r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1")) {text})"#
        );
        let change = |config: &mut nantian_wasm::PluginConfig| {
            config.failure_policy = FailurePolicy::FailOpen;
            if text == holds_headers {
                config.sandbox.max_pause = Duration::from_millis(50);
            }
        };
        plugin_of(&engine, &wat::parse_str(guest).unwrap(), change).unwrap()
    });
    let _ticking = Ticking::with_upkeep(&engine);
    let kept = Mutex::new(None);
    let inner = service_fn(|request: Request<RequestBody<ThenSilent>>| {
        let mut body = request.into_body();
        assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(Waker::noop())).is_pending());
        *kept.lock().unwrap() = Some(body);
        let answer = Response::builder().header("content-length", "4").body(frames([data("4567")]));
        std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
    });
    let service = WasmLayer::new(plugins).layer(inner);
    let request = Request::post("/").body(ThenSilent(Some(data("123")))).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut body = runtime.block_on(service.oneshot(request)).unwrap().into_body();
    let mut context = Context::from_waker(Waker::noop());
    let held = all.load(Relaxed);
    assert!(held >= 7, "{held}");
    let Poll::Ready(Some(Ok(part))) = Pin::new(&mut body).poll_frame(&mut context) else { panic!("nothing") };
    assert_eq!((part.into_data().unwrap(), all.load(Relaxed)), (Bytes::from("4567"), 3));
}

/// Parts of six bytes without an end, and how often somebody has asked for one.
struct Endless(Arc<AtomicU64>);

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.fetch_add(1, Relaxed);
        Poll::Ready(Some(Ok(data("123456"))))
    }
}

#[test]
fn body_whose_headers_are_held_is_not_read_where_there_is_no_room() {
    let guest = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0)))"#;
    let (all, read) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let plugin = plugin_of(&of_ten_bytes(&all), &wat::parse_str(guest).unwrap(), |_| {}).unwrap();
    let inner = service_fn(async |_: Request<RequestBody<Endless>>| {
        Ok::<_, Infallible>(Response::new(frames([data("late")])))
    });
    let request = Request::post("/").body(Endless(Arc::clone(&read))).unwrap();
    let mut waiting = Box::pin(WasmLayer::new([plugin]).layer(inner).oneshot(request));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..3 {
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        assert_eq!((read.load(Relaxed), all.load(Relaxed)), (2, 7));
    }
    drop(waiting);
    assert_eq!(all.load(Relaxed), 0);
}
