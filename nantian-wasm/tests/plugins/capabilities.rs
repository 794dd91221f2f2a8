//! Lists of what a plugin may call and be called for.

use nantian_wasm::{Capabilities, Engine};

use crate::support::{get, plugin_of, send};

/// A guest that answers with the statuses of functions which take nothing from their arguments.
const CONSTANTS: &str = r#"(module
    (import "env" "proxy_continue_request" (func $request (result i32)))
    (import "env" "proxy_continue_response" (func $response (result i32)))
    (import "env" "proxy_clear_route_cache" (func $clear (result i32)))
    (import "env" "proxy_redis_init" (func $redis (param i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "pthread_equal" (func $equal (param i32 i32) (result i32)))
    (import "env" "emscripten_notify_memory_growth" (func $grown (param i32)))
    (import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (import "wasi_unstable" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $answer (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_1_0"))
    (func (export "proxy_on_request_headers") (param i32 i32) (result i32)
        (call $grown (i32.const 0))
        (i32.store8 (i32.const 100) (call $request))
        (i32.store8 (i32.const 101) (call $response))
        (i32.store8 (i32.const 102) (call $clear))
        (i32.store8 (i32.const 103) (call $redis (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i32.const 0) (i32.const 0)))
        (i32.store8 (i32.const 104) (call $equal (i32.const 7) (i32.const 7)))
        (i32.store8 (i32.const 105) (call $yield))
        (i32.store8 (i32.const 106) (call $close (i32.const 0)))
        (i32.store8 (i32.const 107) (call $open (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
            (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 0)))
        (drop (call $answer (i32.const 200) (i32.const 0) (i32.const 0) (i32.const 100) (i32.const 8)
            (i32.const 0) (i32.const 0) (i32.const -1)))
        (i32.const 0)))"#;

#[test]
fn function_that_is_not_in_the_list_is_denied_whatever_it_would_answer() {
    let bytes = wat::parse_str(CONSTANTS).unwrap();
    let statuses = |capabilities: Option<Capabilities>| {
        let plugin = plugin_of(&Engine::new().unwrap().0, &bytes, |config| {
            config.capabilities = capabilities.unwrap_or_default();
        });
        send([plugin.unwrap()], get("/")).body.unwrap()
    };
    assert_eq!(statuses(None), [0, 0, 0, 12, 1, 0, 8, 44]);
    let base = ["proxy_on_request_headers", "proxy_send_local_response"];
    assert_eq!(statuses(Some(Capabilities::only(base))), [10, 10, 10, 10, 1, 76, 76, 76]);
    let more = base.into_iter().chain(["proxy_continue_request", "proxy_redis_init", "fd_close"]);
    assert_eq!(statuses(Some(Capabilities::only(more))), [0, 10, 10, 12, 1, 76, 8, 76]);
}

#[test]
fn callback_that_is_not_in_the_list_is_not_called() {
    let bytes = wat::parse_str(CONSTANTS).unwrap();
    let plugin = plugin_of(&Engine::new().unwrap().0, &bytes, |config| {
        config.capabilities = Capabilities::only(["proxy_send_local_response"]);
    });
    assert_eq!(send([plugin.unwrap()], get("/")).text(), "ok");
}
