//! What plugins of one request leave for one another.

use http::{Request, Response};
use nantian_wasm::{Action, Engine, FilterState, StreamContext, StreamInfo};

use crate::support::plugin_of;

/// Writes what somebody has set as `asked` into a header of the request, and what somebody has set as
/// `answered` into one of the response; where nobody has, it sets them.
const GUEST: &str = r#"(module
    (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_add_header_map_value" (func $add_header (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 64) "asked")
    (data (i32.const 80) "answered")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $tell (param $map i32) (param $name i32) (param $length i32) (result i32)
        (if (result i32) (call $get (local.get $name) (local.get $length) (i32.const 0) (i32.const 4))
            (then (call $set (local.get $name) (local.get $length) (local.get $name) (local.get $length)))
            (else (call $add_header (local.get $map) (local.get $name) (local.get $length)
                (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 0) (i32.const 64) (i32.const 5)))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
        (call $tell (i32.const 2) (i32.const 80) (i32.const 8))))"#;

/// What two streams of a request have written into its headers and into those of its response.
fn written(outer: StreamInfo, inner: StreamInfo) -> (bool, bool) {
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(GUEST).unwrap(), |_| {}).unwrap();
    let [mut outer, mut inner] = [outer, inner].map(|info| StreamContext::new([plugin.clone()].into(), info));
    let (mut request, ()) = Request::new(()).into_parts();
    let (mut response, ()) = Response::new(()).into_parts();
    for stream in [&mut outer, &mut inner] {
        assert!(matches!(stream.on_request_headers(&mut request, true), Action::Continue));
    }
    for stream in [&mut inner, &mut outer] {
        assert!(matches!(stream.on_response_headers(&mut response, true), Action::Continue));
    }
    (request.headers.contains_key("asked"), response.headers.contains_key("answered"))
}

#[test]
fn streams_of_one_request_find_what_the_others_have_set() {
    let of_request = || StreamInfo::default().with_filter_state(FilterState::default());
    let shared = of_request();
    assert_eq!(written(shared.clone(), shared), (true, true));
    assert_eq!(written(of_request(), of_request()), (false, false));
    assert_eq!(written(StreamInfo::default(), StreamInfo::default()), (false, false));
}
