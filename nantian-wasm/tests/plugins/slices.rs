//! Guests run in slices of a millisecond: one that takes long holds up its own stream, and no other.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use http::{Request, Response};
use nantian_wasm::{
    Action, Cause, Engine, Module, Plugin, PluginConfig, StreamContext, StreamInfo, WasmLayer,
    host::{ForeignError, Host},
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Ticking, data, frames, get, guest, plugin_of, ticks_with_logs};

fn service(
    plugin: Plugin,
) -> impl tower::Service<
    Request<crate::support::Frames>,
    Response = Response<nantian_wasm::body::ResponseBody<crate::support::Frames>>,
    Error = std::convert::Infallible,
> {
    WasmLayer::new([plugin]).layer(service_fn(async |_: Request<_>| {
        Ok::<_, std::convert::Infallible>(Response::new(frames([data("ok")])))
    }))
}

#[test]
fn guest_that_loops_does_not_hold_up_other_requests_of_its_thread() {
    let engine = Engine::new().unwrap().0;
    let looping = plugin_of(&engine, &guest("hostile"), |config| {
        config.configuration = "lh".into();
        config.sandbox.max_execution_time = Duration::from_secs(20);
    });
    let (looping, quick) = (looping.unwrap(), plugin_of(&engine, &guest("add_header"), |_| {}).unwrap());
    let _ticking = Ticking::in_real_time(&engine);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let attack = local.spawn_local(async move {
        let attack = Request::get("/").header("x-attack", "1").body(frames([])).unwrap();
        service(looping).oneshot(attack).await.unwrap().status()
    });
    let others = (0..100).map(|_| {
        let service = service(quick.clone());
        local.spawn_local(async move { service.oneshot(get("/")).await.unwrap().status() })
    });
    let others: Vec<_> = others.collect();
    runtime.block_on(local.run_until(async {
        for other in others {
            assert_eq!(other.await.unwrap(), 200);
        }
    }));
    assert!(!attack.is_finished(), "whose guest loops on");
}

/// A stream whose guest has used up its first slice in the request's headers.
pub(crate) fn interrupted(engine: &Engine, plugin: &Plugin) -> StreamContext {
    let plugins: Arc<[Plugin]> = [plugin.clone()].into();
    let mut stream = StreamContext::new(plugins, StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let subscriber = ticks_with_logs(engine.clone(), 2);
    tracing::subscriber::with_default(subscriber, || {
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
    });
    stream
}

#[test]
fn guest_that_runs_when_the_engine_ticks_is_not_interrupted_before_its_slice_is_over() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("slow"), |_| {}).unwrap();
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    tracing::subscriber::with_default(ticks_with_logs(engine, 1), || {
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
    });
}

#[test]
fn stream_that_is_dropped_while_its_guest_runs_is_ended_by_upkeep() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("slow"), |_| {}).unwrap();
    drop(interrupted(&engine, &plugin));
    let metric = |name: &str| {
        let metrics = plugin.status().metrics;
        metrics.iter().find(|metric| metric.name == name).unwrap().value
    };
    assert_eq!((metric("headers"), metric("delete")), (0, 0), "the guest stands still");
    engine.maintain();
    assert_eq!((metric("headers"), metric("delete")), (1, 1), "its call was ended before its stream was");
    assert_eq!((plugin.status().live_instances, plugin.status().traps.total()), (1, 0));
}

#[test]
fn stream_of_a_taken_instance_waits_for_it_and_is_woken() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("slow"), |_| {}).unwrap();
    let mut first = interrupted(&engine, &plugin);
    let mut second = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(second.on_request_headers(&mut parts, true), Action::Pending));
    assert!(second.poll_request(&mut context).is_pending());
    while first.poll_request(&mut context) == Poll::Pending {}
    assert_eq!(second.poll_request(&mut context), Poll::Ready(()));
    assert!(matches!(second.on_request_headers(&mut parts, true), Action::Continue));
    assert!(matches!(first.on_request_headers(&mut parts, true), Action::Continue));
}

#[test]
fn streams_that_find_all_instances_taken_divide_them_among_themselves() {
    let engine = Engine::new().unwrap().0;
    let two = |config: &mut PluginConfig| config.instances = NonZeroUsize::new(2);
    let plugin = plugin_of(&engine, &guest("slow"), two).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    for first in [0, 1] {
        let mut running = [(); 2].map(|()| interrupted(&engine, &plugin));
        let mut waiting = [(); 2].map(|()| {
            let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
            let mut parts = Request::new(()).into_parts().0;
            assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
            stream
        });
        while running[first].poll_request(&mut context) == Poll::Pending {}
        let let_in = waiting
            .iter_mut()
            .filter_map(|stream| stream.poll_request(&mut context).is_ready().then_some(()));
        assert_eq!(let_in.count(), 1);
        drop((running, waiting));
        engine.maintain();
    }
}

/// Counts how often it is woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn instance_of_a_stream_that_nobody_polls_any_more_is_let_go_by_upkeep() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("slow"), |_| {}).unwrap();
    let mut stalled = interrupted(&engine, &plugin);
    let mut other = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(other.on_request_headers(&mut parts, true), Action::Pending));
    engine.maintain();
    assert!(other.poll_request(&mut context).is_pending(), "who has it may still come");
    (0..10).for_each(|_| engine.tick());
    engine.maintain();
    assert_eq!(other.poll_request(&mut context), Poll::Ready(()));
    assert!(matches!(other.on_request_headers(&mut parts, true), Action::Continue));
    // It finds its call done when it comes after all.
    while stalled.poll_request(&mut context) == Poll::Pending {}
    assert!(matches!(stalled.on_request_headers(&mut parts, true), Action::Continue));
    drop((stalled, other));
    let metrics = plugin.status().metrics;
    assert!(metrics.iter().all(|metric| metric.value == 2), "{metrics:?}");
}

#[test]
fn guest_whose_stream_is_not_polled_is_stopped_by_its_time_limit() {
    let engine = Engine::new().unwrap().0;
    // As good as for ever.
    let plugin = toiling(&engine, "proxy_on_request_headers", u32::MAX);
    let mut stalled = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stalled.on_request_headers(&mut parts, true), Action::Pending));
    (0..10).for_each(|_| engine.tick());
    (0..100).for_each(|_| engine.maintain());
    assert_eq!((plugin.status().rebuilds, plugin.status().live_instances), (1, 1));
    let mut context = Context::from_waker(Waker::noop());
    while stalled.poll_request(&mut context) == Poll::Pending {}
    assert!(matches!(stalled.on_request_headers(&mut parts, true), Action::Fail(_)));
    assert_eq!((plugin.status().traps.time_limit, plugin.status().traps.total()), (1, 1));
}

#[test]
fn stream_that_waits_behind_one_that_does_not_come_is_woken_by_upkeep() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("slow"), |_| {}).unwrap();
    let mut running = interrupted(&engine, &plugin);
    let wait = |woken: &Arc<Woken>| {
        let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let mut parts = Request::new(()).into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
        let waker = Waker::from(Arc::clone(woken));
        assert!(stream.poll_request(&mut Context::from_waker(&waker)).is_pending());
        stream
    };
    let woken: [Arc<Woken>; 2] = Default::default();
    let _streams = [wait(&woken[0]), wait(&woken[1])];
    let mut context = Context::from_waker(Waker::noop());
    while running.poll_request(&mut context) == Poll::Pending {}
    assert_eq!(woken.each_ref().map(|woken| woken.0.load(Ordering::Relaxed)), [1, 0]);
    engine.maintain();
    assert!(woken[1].0.load(Ordering::Relaxed) > 0);
}

/// A guest that ticks for 60 lines of its log, each a millisecond long, and counts its ticks.
const TICKS: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_tick_period_milliseconds" (func $period (param i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_increment_metric" (func $increment (param i32 i64) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "ticks")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (drop (call $define (i32.const 0) (i32.const 100) (i32.const 5) (i32.const 0)))
        (drop (call $period (i32.const 10)))
        (i32.const 1))
    (func (export "proxy_on_tick") (param i32) (local $rounds i32)
        (loop $more
            (drop (call $log (i32.const 2) (i32.const 100) (i32.const 5)))
            (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $rounds) (i32.const 60))))
        (drop (call $increment (i32.load (i32.const 0)) (i64.const 1)))))"#;

#[test]
fn ticks_that_take_long_hold_up_no_other_plugin_and_come_more_rarely() {
    let engine = Engine::new().unwrap().0;
    let ticking = plugin_of(&engine, &wat::parse_str(TICKS).unwrap(), |_| {}).unwrap();
    let trapping = plugin_of(&engine, &guest("hostile"), |config| config.configuration = "th".into());
    let trapping = trapping.unwrap();
    let ticks = || ticking.status().metrics[0].value;
    (0..10).for_each(|_| engine.tick());
    tracing::subscriber::with_default(ticks_with_logs(engine.clone(), 1), || {
        let attack = || Request::get("/").header("x-attack", "1").body(frames([])).unwrap();
        assert_eq!(crate::support::send([trapping.clone()], attack()).status(), 503);
        engine.maintain();
        assert_eq!((ticks(), trapping.status().live_instances), (0, 1), "replaced while the other one ticks");
        (0..10).for_each(|_| engine.maintain());
        assert_eq!(ticks(), 1);
        // Four times as long as it took.
        (0..230).for_each(|_| engine.tick());
        (0..10).for_each(|_| engine.maintain());
        assert_eq!(ticks(), 1);
        (0..20).for_each(|_| engine.tick());
        (0..10).for_each(|_| engine.maintain());
        assert_eq!(ticks(), 2);
    });
}

/// A guest that logs in the request's headers, lets bodies pass, and records the size of the request in the
/// end.
const COUNTED: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "size")
    (data (i32.const 110) "request\00size")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $rounds i32)
        (loop $more
            (drop (call $log (i32.const 2) (i32.const 100) (i32.const 4)))
            (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $rounds) (i32.const 2))))
        (i32.const 0))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
    (func (export "proxy_on_log") (param i32)
        (drop (call $define (i32.const 0) (i32.const 100) (i32.const 4) (i32.const 8)))
        (drop (call $get (i32.const 110) (i32.const 12) (i32.const 0) (i32.const 4)))
        (drop (call $record (i32.load (i32.const 8)) (i64.load (i32.const 1024))))))"#;

#[test]
fn part_that_waits_for_the_instance_is_counted_once() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(COUNTED).unwrap(), |_| {}).unwrap();
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let mut other = interrupted(&engine, &plugin);
    let mut chunk = bytes::Bytes::from_static(b"hello");
    for _ in 0..3 {
        assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Pending));
    }
    let mut context = Context::from_waker(Waker::noop());
    while other.poll_request(&mut context) == Poll::Pending {}
    assert_eq!(stream.poll_request(&mut context), Poll::Ready(()));
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Continue));
    drop(stream);
    assert_eq!((&chunk[..], plugin.status().metrics[0].value), (&b"hello"[..], 5));
}

#[test]
fn stream_of_a_plugin_that_is_replaced_while_its_guest_runs_is_ended_by_its_own_instance() {
    let engine = Engine::new().unwrap().0;
    let old = plugin_of(&engine, &guest("slow"), |_| {}).unwrap();
    let stream = interrupted(&engine, &old);
    let new = old.successor(old.module(), PluginConfig::new("probe")).unwrap();
    drop((stream, old));
    let metric = |name: &str| {
        let metrics = new.status().metrics;
        metrics.iter().find(|metric| metric.name == name).unwrap().value
    };
    assert_eq!((metric("headers"), metric("delete")), (0, 0), "the guest stands still");
    engine.maintain();
    assert_eq!(
        (metric("headers"), metric("delete")),
        (1, 2),
        "the context of the stream, and that of the root"
    );
}

/// A plugin of one instance, whose guest takes so many milliseconds for each such callback.
fn toiling(engine: &Engine, callback: &str, milliseconds: u32) -> Plugin {
    let text = format!(
        r#"(module
          (import "env" "proxy_call_foreign_function"
            (func $call (param i32 i32 i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 1)
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "{callback}") (param i32 i32 i32) (result i32) (local $rounds i32)
            (loop $more
              (drop (call $call (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 12)))
              (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
              (br_if $more (i32.lt_u (local.get $rounds) (i32.const {milliseconds}))))
            (i32.const 0)))"#
    );
    let module = Module::compile(engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let config = PluginConfig::new("toils").with_instances(NonZeroUsize::MIN);
    Plugin::with_host(&module, config, Toil(engine.clone())).unwrap()
}

/// Lets a millisecond pass with each call.
struct Toil(Engine);

impl Host for Toil {
    fn foreign_function(&self, _: &str, _: &str, _: &[u8]) -> Option<Result<Vec<u8>, ForeignError>> {
        self.0.tick();
        None
    }
}

#[test]
fn response_that_comes_while_the_request_is_shown_waits_for_that_and_no_longer() {
    let engine = Engine::new().unwrap().0;
    let plugin = toiling(&engine, "proxy_on_request_body", 3);
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let (mut request, mut response) = (Request::new(()).into_parts().0, Response::new(()).into_parts().0);
    let mut context = Context::from_waker(Waker::noop());
    let mut chunk = bytes::Bytes::from_static(b"part");
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Continue));
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Pending));
    assert!(matches!(stream.on_response_headers(&mut response, true), Action::Pending));
    while stream.poll_request(&mut context).is_pending() {}
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Continue));
    assert_eq!(stream.poll_response(&mut context), Poll::Ready(()));
    assert!(matches!(stream.on_response_headers(&mut response, true), Action::Continue));
}

#[test]
fn stream_whose_callbacks_together_take_too_long_fails_and_its_instance_lives_on() {
    let engine = Engine::new().unwrap().0;
    let plugin = toiling(&engine, "proxy_on_request_body", 60);
    let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Continue));
    let mut context = Context::from_waker(Waker::noop());
    let mut shown = 0;
    let failure = loop {
        assert!(shown < 100, "never stopped");
        let mut chunk = bytes::Bytes::from_static(b"part");
        match stream.on_request_body(&mut chunk, false) {
            Action::Continue => shown += 1,
            Action::Pending => while stream.poll_request(&mut context).is_pending() {},
            Action::Fail(failure) => break failure,
            action => panic!("{action:?}"),
        }
    };
    // A second of 60 ms each, and what came back meanwhile.
    assert!((16..=19).contains(&shown), "{shown} parts");
    assert_eq!(failure.cause, Cause::Budget { what: "time of the stream" });
    let status = plugin.status();
    assert_eq!((status.traps.total(), status.live_instances), (0, status.instances));
}
