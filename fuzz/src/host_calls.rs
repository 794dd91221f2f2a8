//! What guests ask of the host, with whatever numbers.

use std::{fmt::Write as _, num::NonZeroUsize, sync::LazyLock};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use nantian_wasm::{Action, Engine, Module, Plugin, PluginConfig, StreamContext, StreamInfo};

/// Functions that a guest imports, and their parameters: `i` is `i32`, `I` is `i64`.
const CALLS: [(&str, &str); 30] = [
    ("proxy_log", "iii"),
    ("proxy_get_property", "iiii"),
    ("proxy_set_property", "iiii"),
    ("proxy_get_buffer_bytes", "iiiii"),
    ("proxy_get_buffer_status", "iii"),
    ("proxy_set_buffer_bytes", "iiiii"),
    ("proxy_get_header_map_size", "ii"),
    ("proxy_get_header_map_pairs", "iii"),
    ("proxy_set_header_map_pairs", "iii"),
    ("proxy_get_header_map_value", "iiiii"),
    ("proxy_add_header_map_value", "iiiii"),
    ("proxy_replace_header_map_value", "iiiii"),
    ("proxy_remove_header_map_value", "iii"),
    ("proxy_continue_stream", "i"),
    ("proxy_close_stream", "i"),
    ("proxy_send_local_response", "iiiiiiii"),
    ("proxy_http_call", "iiiiiiiiii"),
    ("proxy_grpc_send", "iiii"),
    ("proxy_grpc_close", "i"),
    ("proxy_get_shared_data", "iiiii"),
    ("proxy_set_shared_data", "iiiii"),
    ("proxy_register_shared_queue", "iii"),
    ("proxy_dequeue_shared_queue", "iii"),
    ("proxy_enqueue_shared_queue", "iii"),
    ("proxy_define_metric", "iiii"),
    ("proxy_increment_metric", "iI"),
    ("proxy_record_metric", "iI"),
    ("proxy_get_metric", "ii"),
    ("proxy_set_effective_context", "i"),
    ("proxy_call_foreign_function", "iiiiii"),
];

/// Bytes of one call: which, and up to ten numbers.
const RECORD: usize = 44;

static MODULE: LazyLock<Module> = LazyLock::new(|| {
    let engine = Engine::new().expect("this machine runs WebAssembly").0;
    let bytes = wat::parse_str(guest()).expect("the guest is well-formed");
    Module::compile(&engine, &bytes, None).expect("the guest is a plugin")
});

/// A guest that makes the calls its configuration lists, eight in each callback. Its memory, which pointers
/// point into, is the configuration at 65536, and what it was given at 1024.
fn guest() -> String {
    let mut text = String::from("(module\n");
    let mut calls = String::new();
    for (index, (name, parameters)) in CALLS.iter().enumerate() {
        let types = parameters.replace('i', " i32").replace('I', " i64");
        let _ = writeln!(text, "(import \"env\" \"{name}\" (func $f{index} (param{types}) (result i32)))");
        let mut arguments = String::new();
        for (place, parameter) in parameters.chars().enumerate() {
            let load = if parameter == 'I' { "i64" } else { "i32" };
            let _ = write!(arguments, " ({load}.load offset={} (global.get $next))", 4 + 4 * place);
        }
        let _ = writeln!(
            calls,
            "(if (i32.eq (local.get $what) (i32.const {index})) (then (drop (call $f{index}{arguments}))))"
        );
    }
    let count = CALLS.len();
    let _ = write!(
        text,
        r#"(memory (export "memory") 8)
        (global $next (mut i32) (i32.const 65536))
        (global $end (mut i32) (i32.const 65536))
        (global $is_full (mut i32) (i32.const 0))
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32)
            (if (global.get $is_full) (then (return (i32.const 1024))))
            (global.set $is_full (i32.const 1))
            (i32.const 65536))
        (func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $f3 (i32.const 7) (i32.const 0) (i32.const 65536) (i32.const 0) (i32.const 4)))
            (global.set $end (i32.add (i32.const 65536) (i32.load (i32.const 4))))
            (i32.const 1))
        (func $run (result i32) (local $what i32) (local $rounds i32)
            (loop $more
                (if (i32.gt_u (i32.add (global.get $next) (i32.const {RECORD})) (global.get $end))
                    (then (return (i32.const 0))))
                (local.set $what (i32.rem_u (i32.load8_u (global.get $next)) (i32.const {count})))
                {calls}
                (global.set $next (i32.add (global.get $next) (i32.const {RECORD})))
                (local.set $rounds (i32.add (local.get $rounds) (i32.const 1)))
                (br_if $more (i32.lt_u (local.get $rounds) (i32.const 8))))
            (i32.const 0))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (call $run))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $run))
        (func (export "proxy_on_request_trailers") (param i32 i32) (result i32) (call $run))
        (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (call $run))
        (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (call $run))
        (func (export "proxy_on_response_trailers") (param i32 i32) (result i32) (call $run))
        (func (export "proxy_on_log") (param i32) (drop (call $run)))
        (func (export "proxy_on_delete") (param i32) (drop (call $run))))"#
    );
    text
}

/// Whatever a guest asks for, with whatever pointers and lengths, the host answers or ends it; and what
/// leaves is framed as it came.
pub fn wasm_host_calls(bytes: &[u8]) {
    let config = PluginConfig::new("fuzz").with_configuration(Bytes::copy_from_slice(bytes));
    let config = config.with_instances(NonZeroUsize::MIN);
    let Ok(plugin) = Plugin::new(&MODULE, config) else { return };
    let mut stream = StreamContext::new([plugin].into(), StreamInfo::default());
    let request = Request::post("/path?query").header("host", "example.com").header("x-one", "1");
    let mut request = request.body(()).expect("a request").into_parts().0;
    if !goes_on(&stream.on_request_headers(&mut request, false)) {
        return;
    }
    assert_framed(&request.headers);
    let mut chunk = Bytes::from_static(b"request body");
    if !goes_on(&stream.on_request_body(&mut chunk, false)) {
        return;
    }
    let (mut chunk, mut trailers) = (Bytes::new(), trailers());
    if !goes_on(&stream.on_request_trailers(&mut chunk, &mut trailers)) {
        return;
    }
    assert_framed(&trailers);
    let mut response = Response::builder().header("server", "x").body(()).expect("a response").into_parts().0;
    if !goes_on(&stream.on_response_headers(&mut response, false)) {
        return;
    }
    assert_framed(&response.headers);
    assert!(response.status.as_u16() >= 200);
    let mut chunk = Bytes::from_static(b"response body");
    let _ = stream.on_response_body(&mut chunk, true);
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([("x-sum".parse().expect("a name"), "1".parse().expect("a value"))])
}

fn goes_on(action: &Action) -> bool {
    match action {
        Action::Continue => true,
        Action::Respond(answer) => {
            assert!(answer.status.as_u16() >= 200);
            assert_framed(&answer.headers);
            false
        }
        _ => false,
    }
}

fn assert_framed(headers: &HeaderMap) {
    for name in ["content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"] {
        assert!(!headers.contains_key(name), "{name} is not a guest's to write");
    }
}
