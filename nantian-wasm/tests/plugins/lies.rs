//! Every host function that takes a pointer, called with each mixture of lies: none reaches memory that is
//! not the guest's, and none costs the instance.

use http::{Request, Response};
use nantian_wasm::Engine;

use crate::support::{data, exchange, frames, get, guest, plugin_of, send};

/// Functions by module, name and parameters: `l` is a lie, `I` an `i64` of zero, `s` a status of HTTP, a
/// digit itself.
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("env", "proxy_log", "2ll"),
    ("env", "proxy_get_log_level", "l"),
    ("env", "proxy_get_current_time_nanoseconds", "l"),
    ("env", "proxy_get_configuration", "ll"),
    ("env", "proxy_get_status", "lll"),
    ("env", "proxy_get_property", "llll"),
    ("env", "proxy_set_property", "llll"),
    ("env", "proxy_get_buffer_bytes", "0llll"),
    ("env", "proxy_get_buffer_status", "0ll"),
    ("env", "proxy_set_buffer_bytes", "0llll"),
    ("env", "proxy_get_header_map_size", "0l"),
    ("env", "proxy_get_header_map_pairs", "0ll"),
    ("env", "proxy_set_header_map_pairs", "0ll"),
    ("env", "proxy_get_header_map_value", "0llll"),
    ("env", "proxy_add_header_map_value", "0llll"),
    ("env", "proxy_replace_header_map_value", "0llll"),
    ("env", "proxy_remove_header_map_value", "0ll"),
    ("env", "proxy_send_local_response", "sllllll0"),
    ("env", "proxy_http_call", "llllllll1l"),
    ("env", "proxy_grpc_call", "llllllllll1l"),
    ("env", "proxy_grpc_stream", "lllllllll"),
    ("env", "proxy_grpc_send", "1ll0"),
    ("env", "proxy_get_shared_data", "lllll"),
    ("env", "proxy_set_shared_data", "llll0"),
    ("env", "proxy_register_shared_queue", "lll"),
    ("env", "proxy_resolve_shared_queue", "lllll"),
    ("env", "proxy_enqueue_shared_queue", "1ll"),
    ("env", "proxy_dequeue_shared_queue", "1ll"),
    ("env", "proxy_define_metric", "0lll"),
    ("env", "proxy_get_metric", "4l"),
    ("env", "proxy_call_foreign_function", "llllll"),
    ("env", "proxy_redis_init", "lllllll"),
    ("env", "proxy_get_upstream_hosts", "ll"),
    ("wasi_snapshot_preview1", "args_get", "ll"),
    ("wasi_snapshot_preview1", "args_sizes_get", "ll"),
    ("wasi_snapshot_preview1", "environ_get", "ll"),
    ("wasi_snapshot_preview1", "environ_sizes_get", "ll"),
    ("wasi_snapshot_preview1", "clock_res_get", "0l"),
    ("wasi_snapshot_preview1", "clock_time_get", "0Il"),
    ("wasi_snapshot_preview1", "fd_fdstat_get", "1l"),
    ("wasi_snapshot_preview1", "fd_write", "1lll"),
    ("wasi_snapshot_preview1", "fd_read", "0lll"),
    ("wasi_snapshot_preview1", "fd_prestat_get", "3l"),
    ("wasi_snapshot_preview1", "random_get", "ll"),
    ("wasi_snapshot_preview1", "poll_oneoff", "llll"),
    ("pingora", "log", "0ll"),
    ("pingora", "get_header", "ll"),
    ("pingora", "set_header", "llll"),
    ("pingora", "get_body", "ll"),
    ("pingora", "get_all_headers", "ll"),
];

/// Of the 65 536 bytes of the guest's memory: two places and lengths that are there, one at whose end there
/// is no room, and three that are nowhere.
const LIES: [u32; 6] = [8, 16, 65_530, 65_536, 0x8000_0000, 0xffff_ffff];

/// Parameters that are mixed freely; those beyond lie as one of them does.
const MIXED: usize = 5;

fn parameter(code: char, place: usize) -> String {
    match code {
        'l' => {
            let turn = LIES.len().pow(u32::try_from(place % MIXED).unwrap());
            format!("(call $lie (i32.div_u (local.get $n) (i32.const {turn})))")
        }
        'I' => "(i64.const 0)".to_owned(),
        's' => "(i32.const 200)".to_owned(),
        digit => format!("(i32.const {digit})"),
    }
}

/// A guest that calls a function with every mixture of lies, whose allocator lies as well; it aborts at no
/// answer.
fn liar((module, name, codes): (&str, &str, &str)) -> String {
    let types = codes.replace(|code| code != 'I', " i32").replace('I', " i64");
    let result = match (module, name) {
        ("pingora", "get_header") => "(result i64)",
        ("pingora", "log" | "set_header") => "",
        _ => "(result i32)",
    };
    let call: String = codes.chars().enumerate().map(|(place, code)| parameter(code, place)).collect();
    let call = format!("(call $function {call})");
    let call = if result.is_empty() { call } else { format!("(drop {call})") };
    let lies = codes.chars().filter(|code| *code == 'l').count().min(MIXED);
    let mixtures = LIES.len().pow(u32::try_from(lies).unwrap());
    let table: String = LIES
        .iter()
        .enumerate()
        .map(|(place, lie)| {
            format!("(if (i32.eq (local.get 0) (i32.const {place})) (then (return (i32.const {lie}))))")
        })
        .collect();
    let exports = if module == "pingora" {
        r#"(func (export "on_request") (result i32) (call $all) (i32.const 0))"#
    } else {
        r#"(func (export "proxy_abi_version_0_2_1"))
           (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $all) (i32.const 0))
           (func (export "proxy_on_log") (param i32) (call $all))"#
    };
    let allocator = if module == "pingora" { "alloc" } else { "proxy_on_memory_allocate" };
    format!(
        r#"(module
        (import "{module}" "{name}" (func $function (param{types}) {result}))
        (memory (export "memory") 1 1)
        (data (i32.const 8) "hosthostx-a\00bbbb")
        (global $allocated (mut i32) (i32.const 0))
        (func $lie (param i32) (result i32)
            (local.set 0 (i32.rem_u (local.get 0) (i32.const 6))) {table} (unreachable))
        (func (export "{allocator}") (param i32) (result i32)
            (global.set $allocated (i32.add (global.get $allocated) (i32.const 1)))
            (call $lie (global.get $allocated)))
        (func $all (local $n i32)
            (loop $more
                {call}
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $n) (i32.const {mixtures})))))
        {exports})"#
    )
}

#[test]
fn no_function_believes_a_pointer_or_a_length() {
    let engine = Engine::new().unwrap().0;
    let innocent = plugin_of(&engine, &guest("add_header"), |_| {}).unwrap();
    for function in FUNCTIONS {
        let bytes = wat::parse_str(liar(*function)).unwrap_or_else(|error| panic!("{function:?}: {error}"));
        let plugin = plugin_of(&engine, &bytes, |config| {
            config.environment = vec![("NAME".to_owned(), "value".to_owned())];
        });
        let plugin = plugin.unwrap_or_else(|error| panic!("{function:?}: {error:?}"));
        let request =
            Request::post("/").header("hosthost", "h").body(frames([data("0123456789abcdef")])).unwrap();
        let seen = exchange([plugin.clone()], request, Response::new(frames([data("ok")])));
        let status = plugin.status();
        let nantian_wasm::observe::Traps { trap, time_limit, exit, .. } = status.traps;
        assert_eq!((trap, time_limit, exit), (0, 0, 0), "{function:?}: {:?}", status.last_failure);
        // Bytes that were written over a name make another queue of it, of which there are only so many.
        let is_full = function.1 == "proxy_register_shared_queue";
        assert_eq!(status.traps.budget > 0, is_full, "{function:?}: {:?}", status.last_failure);
        assert!(matches!(seen.status(), 200 | 502 | 503), "{function:?}: {}", seen.status());
    }
    assert_eq!(send([innocent], get("/")).request_header("x-wasm-plugin"), Some("probe"));
}
