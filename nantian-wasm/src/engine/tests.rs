use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use http::Request;

use super::*;
use crate::{Action, Cause, Module, Plugin, PluginConfig, StreamContext, StreamInfo};

#[test]
fn places_of_plugins_that_were_replaced_are_free_again() {
    let engine = Engine::new().unwrap().0;
    let metrics = engine.wasmtime().pooling_allocator_metrics().unwrap();
    let taken = || (metrics.core_instances(), metrics.memories(), metrics.tables(), metrics.stacks());
    let guest = wat::parse_str(include_str!("../../tests/guests/add_header.wat")).unwrap();
    let module = Module::compile(&engine, &guest, None).unwrap();
    let config = PluginConfig::new("probe").with_instances(NonZeroUsize::new(2).unwrap());
    let mut present = Plugin::new(&module, config.clone()).unwrap();
    let one = taken();
    assert_eq!((one.0, one.1), (4, 2), "two guests with a shim each");
    for _ in 0..1_000 {
        present = present.successor(&module, config.clone()).unwrap();
    }
    assert_eq!(taken(), one);
    drop((present, module));
    assert_eq!(taken(), (0, 0, 0, 0));
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
fn clock_may_rest_until_a_beat_meets_a_guest() {
    let clock = Clock::default();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let cx = Context::from_waker(&waker);
    assert_eq!(clock.poll_hurry(&cx), Poll::Pending);
    clock.leap(4);
    assert_eq!((clock.ticks(), clock.beats()), (4, 1));
    clock.hurry(false);
    assert_eq!(woken.0.load(Ordering::Relaxed), 1);
    assert_eq!(clock.poll_hurry(&cx), Poll::Ready(()), "the guest gives way at the next beat");
    clock.leap(1);
    assert_eq!(clock.poll_hurry(&cx), Poll::Pending, "it has ended before");
    clock.hurry(true);
    for _ in 0..10 {
        assert_eq!(clock.poll_hurry(&cx), Poll::Ready(()), "it may wait for its next slice");
        clock.leap(1);
    }
    assert_eq!(clock.poll_hurry(&cx), Poll::Pending);
    assert_eq!(woken.0.load(Ordering::Relaxed), 2);
}

/// A stream of a plugin that loops in the request's headers for ever, with this time for each callback.
fn stream_that_loops(engine: &Engine, limit: Duration) -> StreamContext {
    let text = r#"(module
        (memory (export "memory") 1)
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (loop $more (br $more)) (i32.const 0)))"#;
    let module = Module::compile(engine, &wat::parse_str(text).unwrap(), None).unwrap();
    let mut config = PluginConfig::new("looping");
    config.instances = NonZeroUsize::new(1);
    config.sandbox.max_execution_time = limit;
    StreamContext::new([Plugin::new(&module, config).unwrap()].into(), StreamInfo::default())
}

#[test]
fn clock_that_rests_stops_a_guest_that_loops_at_its_time_limit() {
    let (engine, threads) = Engine::new().unwrap();
    std::thread::spawn(|| threads.clock.run());
    let mut stream = stream_that_loops(&engine, Duration::from_millis(20));
    let (mut parts, ()) = Request::new(()).into_parts();
    let failure = loop {
        match stream.on_request_headers(&mut parts, true) {
            Action::Pending => {
                while stream.poll_request(&mut Context::from_waker(Waker::noop())).is_pending() {}
            }
            Action::Fail(failure) => break failure,
            other => panic!("{other:?}"),
        }
    };
    assert!(matches!(failure.cause, Cause::TimeLimit { .. }), "{failure}");
}

/// The time limit is far away, however late the clock's thread wakes.
#[test]
fn clock_that_rests_makes_a_guest_that_loops_give_way_again_and_again() {
    let (engine, threads) = Engine::new().unwrap();
    std::thread::spawn(|| threads.clock.run());
    let mut stream = stream_that_loops(&engine, Duration::from_secs(60));
    let (mut parts, ()) = Request::new(()).into_parts();
    assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Pending));
    for _ in 0..3 {
        assert!(stream.poll_request(&mut Context::from_waker(Waker::noop())).is_pending());
    }
}
