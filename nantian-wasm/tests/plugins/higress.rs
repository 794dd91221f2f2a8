//! What modules made for Higress ask their host for.

use http::Request;
use nantian_wasm::{Action, Engine, Plugin, StreamContext, StreamInfo};

use crate::support::{Logged, get, plugin_of, send};

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
fn instance_that_asks_for_it_is_replaced_once_no_stream_is_on_it() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(GUEST).unwrap(), |_| {}).unwrap();
    let begin = || {
        let mut stream = StreamContext::new([plugin.clone()].into(), StreamInfo::default());
        let mut parts = Request::new(()).into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut parts, true), Action::Continue));
        stream
    };
    let first = begin();
    engine.maintain();
    drop(begin());
    engine.maintain();
    assert_eq!(told(&plugin, "seen"), Some(2), "the first stream is on it");
    drop(first);
    engine.maintain();
    drop(begin());
    let status = plugin.status();
    assert_eq!((told(&plugin, "seen"), status.live_instances, status.traps.total()), (Some(1), 1, 0));
}
