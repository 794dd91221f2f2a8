//! What modules made for Higress ask their host for.

use std::num::NonZeroU32;
use std::task::{Context, Poll, Waker};

use http::Request;
use nantian_wasm::{Action, Engine, Plugin, StreamContext, StreamInfo};

use crate::slices::interrupted;
use crate::support::{Logged, begin, get, plugin_of, send};

/// Tells, by gauges, how many requests it has seen, its level of logs and its memory; asks for another
/// instance with each request.
const GUEST: &str = r#"(module
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 3)
    (data (i32.const 16) "seen")
    (data (i32.const 32) "level")
    (data (i32.const 48) "memory")
    (data (i32.const 64) "get_log_level")
    (data (i32.const 80) "plugin_vm_memory")
    (data (i32.const 112) "wasm_need_rebuild")
    (data (i32.const 144) "true")
    (global $requests (mut i64) (i64.const 0))
    (func (export "proxy_abi_version_0_2_100"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $tell (param $name i32) (param $length i32) (param $value i64)
        (drop (call $define (i32.const 1) (local.get $name) (local.get $length) (i32.const 0)))
        (drop (call $record (i32.load (i32.const 0)) (local.get $value))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (global.set $requests (i64.add (global.get $requests) (i64.const 1)))
        (call $tell (i32.const 16) (i32.const 4) (global.get $requests))
        (if (i32.eqz (call $foreign (i32.const 64) (i32.const 13) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 8)))
            (then (call $tell (i32.const 32) (i32.const 5) (i64.load32_u (i32.load (i32.const 4))))))
        (if (i32.eqz (call $property (i32.const 80) (i32.const 16) (i32.const 4) (i32.const 8)))
            (then (call $tell (i32.const 48) (i32.const 6) (i64.load (i32.load (i32.const 4))))))
        (call $set (i32.const 112) (i32.const 17) (i32.const 144) (i32.const 4))))"#;

fn told(plugin: &Plugin, name: &str) -> Option<u64> {
    plugin.status().metrics.iter().find(|metric| metric.name == name).map(|metric| metric.value)
}

#[test]
fn guest_is_told_its_level_of_logs_and_its_memory() {
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(GUEST).unwrap(), |_| {}).unwrap();
    let _ = Logged::during(|| assert_eq!(send([plugin.clone()], get("/")).status(), 200));
    assert_eq!((told(&plugin, "level"), told(&plugin, "memory")), (Some(2), Some(3 << 16)));
}

#[test]
fn instance_that_asks_for_it_is_replaced_and_keeps_its_streams() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(GUEST).unwrap(), |_| {}).unwrap();
    let first = begin(&plugin);
    engine.maintain();
    drop(begin(&plugin));
    assert_eq!((told(&plugin, "seen"), plugin.status().live_instances), (Some(1), 2), "another one has it");
    drop(first);
    engine.maintain();
    assert_eq!(plugin.status().live_instances, 1, "the first one has no stream any more");
    engine.maintain();
    engine.maintain();
    drop(begin(&plugin));
    let status = plugin.status();
    assert_eq!((told(&plugin, "seen"), status.live_instances, status.traps.total()), (Some(1), 1, 0));
}

#[test]
fn instance_that_asks_for_it_is_replaced_in_its_own_place_where_there_is_no_other() {
    // Of the places, and of the memory, of which it has three pages.
    for engine in [Engine::builder().max_instances(NonZeroU32::MIN), Engine::builder().max_memory(5 << 16)] {
        let engine = engine.build().unwrap().0;
        let plugin = plugin_of(&engine, &wat::parse_str(GUEST).unwrap(), |_| {}).unwrap();
        for _ in 0..3 {
            drop(begin(&plugin));
            assert_eq!(told(&plugin, "seen"), Some(1), "the first request of an instance");
            for _ in 0..2 {
                engine.maintain();
                assert_eq!(plugin.status().live_instances, 1, "serves, or is replaced at once");
            }
        }
    }
}

#[test]
fn instance_that_a_stream_keeps_is_not_tried_to_be_replaced_again_and_again() {
    let engine = Engine::builder().max_instances(NonZeroU32::MIN).build().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(GUEST).unwrap(), |_| {}).unwrap();
    let first = begin(&plugin);
    (0..20).for_each(|_| engine.maintain());
    assert_eq!(plugin.status().rebuilds, 1, "found no place");
    (0..1_000).for_each(|_| engine.tick());
    (0..20).for_each(|_| engine.maintain());
    assert_eq!(plugin.status().rebuilds, 2, "there might be one by now");
    drop(first);
    engine.maintain();
    assert_eq!((plugin.status().rebuilds, plugin.status().live_instances), (3, 1), "in its own place");
}

/// Starts once; asks for another instance with each request.
const ONCE: &str = r#"(module
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_shared_data" (func $shared (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_shared_data" (func $share (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 112) "wasm_need_rebuild")
    (data (i32.const 144) "true")
    (func (export "proxy_abi_version_0_2_100"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (if (i32.eqz (call $shared (i32.const 144) (i32.const 4) (i32.const 0) (i32.const 4) (i32.const 8)))
            (then (return (i32.const 0))))
        (i32.eqz (call $share (i32.const 144) (i32.const 4) (i32.const 144) (i32.const 4) (i32.const 0))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $set (i32.const 112) (i32.const 17) (i32.const 144) (i32.const 4))))"#;

#[test]
fn instance_that_asks_for_another_serves_until_that_has_started() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(ONCE).unwrap(), |_| {}).unwrap();
    for _ in 0..3 {
        assert_eq!(send([plugin.clone()], get("/")).status(), 200);
        engine.maintain();
    }
    assert_eq!((plugin.status().live_instances, plugin.status().rebuilds), (1, 3));
}

/// Logs with each request, so that whoever listens may let time pass, and then asks for another instance.
const SLOW: &str = r#"(module
    (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 112) "wasm_need_rebuild")
    (data (i32.const 144) "true")
    (func (export "proxy_abi_version_0_2_100"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (local $rounds i32)
        (loop $more
            (drop (call $log (i32.const 2) (i32.const 144) (i32.const 4)))
            (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
            (br_if $more (i32.lt_u (local.get $rounds) (i32.const 2))))
        (call $set (i32.const 112) (i32.const 17) (i32.const 144) (i32.const 4))))"#;

#[test]
fn request_waits_for_a_busy_successor_and_neither_for_ever_nor_for_a_third_instance() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(SLOW).unwrap(), |_| {}).unwrap();
    let state = || {
        let status = plugin.status();
        (status.live_instances, status.rebuilds, status.memory)
    };
    let first = begin(&plugin);
    engine.maintain();
    let mut running = interrupted(&engine, &plugin);
    let mut other = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
    let mut parts = Request::new(()).into_parts().0;
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(other.on_request_headers(&mut parts, true), Action::Pending));
    for _ in 0..3 {
        engine.maintain();
        assert!(other.poll_request(&mut context).is_pending(), "a new stream would keep the first instance");
        assert_eq!(state(), (2, 1, 2 << 16), "the first one and its successor");
    }
    while running.poll_request(&mut context).is_pending() {}
    assert_eq!(other.poll_request(&mut context), Poll::Ready(()));
    assert!(matches!(other.on_request_headers(&mut parts, true), Action::Continue));

    // Both ask to be replaced by now: the one that nobody keeps is.
    drop(running);
    (0..3).for_each(|_| engine.maintain());
    assert_eq!(state(), (2, 2, 2 << 16));
    drop((first, other));
    (0..2).for_each(|_| engine.maintain());
    assert_eq!(state(), (1, 2, 1 << 16));
}
