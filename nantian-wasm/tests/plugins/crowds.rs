//! Quantities that clients choose: they may fail a stream, and never cost an instance or what a plugin remembers.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;
use http::{Request, Response};
use nantian_wasm::{
    Action, Cause, Engine, EngineConfig, FailurePolicy, HeldBodies, Plugin, StreamContext, StreamInfo,
};

use crate::support::{Seen, data, exchange, frames, plugin, plugin_of, send};

/// Defines a counter by the value of the header `x-who` and counts in it, as published plugins count by consumer; keeps a value
/// under that name, too, and an item in a queue.
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
    plugin_of(&Engine::new().unwrap(), &wat::parse_str(text).unwrap(), change).unwrap()
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
            let body = frames([http_body::Frame::data(Bytes::from(vec![b'x'; length]))]);
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

impl HeldBodies for Share {
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

#[test]
fn bodies_that_are_held_take_no_more_together_than_the_embedder_has_for_them() {
    let guest = r#"(module (memory (export "memory") 1) (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2))))"#;
    for policy in [FailurePolicy::FailClosed, FailurePolicy::FailOpen] {
        let all = Arc::<AtomicU64>::default();
        let begin = {
            let all = Arc::clone(&all);
            move || Share { all: Arc::clone(&all), own: AtomicU64::new(0) }
        };
        let engine = Engine::with_body_memory(&EngineConfig::default(), begin).unwrap();
        let plugin =
            plugin_of(&engine, &wat::parse_str(guest).unwrap(), |config| config.failure_policy = policy);
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
        assert_eq!(all.load(Relaxed), 3, "what goes on is held no more");
        drop(three);
        assert_eq!(all.load(Relaxed), 0);
    }
}
