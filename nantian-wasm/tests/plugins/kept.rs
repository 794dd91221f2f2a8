//! What a guest still has of a message that it held: its headers, its bytes, and facts about it.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use nantian_wasm::{
    Action, Engine, Plugin, StreamContext, StreamInfo, WasmLayer, body::RequestBody, host::HttpCallResponse,
};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::limits::calling;
use crate::support::{Frames, configured, data, exchange, frames, plugin_of, stream};

const PRELUDE: &str = r#"
    (import "env" "proxy_get_header_map_value" (func $get (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_define_metric" (func $define (param i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_record_metric" (func $record (param i32 i64) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) "status")
    (data (i32.const 32) "content-type")
    (data (i32.const 48) ":path")
    (data (i32.const 64) "value")
    (data (i32.const 80) "request\00method")
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func (export "proxy_on_configure") (param i32 i32) (result i32)
        (i32.eqz (call $define (i32.const 1) (i32.const 16) (i32.const 6) (i32.const 8))))
    (func $tell (param $what i64) (drop (call $record (i32.load (i32.const 8)) (local.get $what))))
    (func $value (param $status i32)
        (if (local.get $status)
            (then (call $tell (i64.extend_i32_u (local.get $status))))
            (else (call $tell (i64.load (i32.const 1024))))))
"#;

fn guest(marker: &str, functions: &str) -> Plugin {
    let text = format!("(module {PRELUDE} (func (export \"{marker}\")) {functions})");
    plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap()
}

/// What a guest has told: the first eight bytes of what it found, or the status.
fn told(plugin: &Plugin) -> String {
    let value = plugin.status().metrics[0].value.to_le_bytes();
    String::from_utf8(value.to_vec()).unwrap()
}

fn post() -> http::request::Parts {
    Request::post("/a/path/").header("content-type", "a/request").body(()).unwrap().into_parts().0
}

#[test]
fn headers_of_a_response_that_was_held_stay_the_guests() {
    let plugin = guest(
        "proxy_abi_version_0_2_1",
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (call $continue (i32.const 1)))
           (func (export "proxy_on_response_body") (param i32) (param $length i32) (param i32) (result i32)
               (if (i32.eq (local.get $length) (i32.const 2))
                   (then (drop (call $replace (i32.const 2) (i32.const 32) (i32.const 12) (i32.const 64) (i32.const 5)))))
               (call $value (call $get (i32.const 2) (i32.const 32) (i32.const 12) (i32.const 0) (i32.const 4)))
               (i32.const 0))"#,
    );
    let mut stream = stream(&plugin);
    let mut response =
        Response::builder().header("content-type", "a/answer").body(()).unwrap().into_parts().0;
    assert!(matches!(stream.on_request_headers(&mut post(), false), Action::Continue));
    assert!(matches!(stream.on_response_headers(&mut response, false), Action::Pending));
    assert!(matches!(stream.on_request_body(&mut Bytes::from_static(b"part"), false), Action::Continue));
    assert_eq!(stream.poll_response(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    assert!(matches!(stream.on_response_headers(&mut response, false), Action::Continue));
    assert!(matches!(stream.on_response_body(&mut Bytes::from_static(b"1"), false), Action::Continue));
    assert_eq!(told(&plugin), "a/answer");
    // What it writes now comes too late for the client, and is no mistake.
    assert!(matches!(stream.on_response_body(&mut Bytes::from_static(b"12"), false), Action::Continue));
    assert_eq!(told(&plugin), "valuewer", "its own buffer, of which five bytes are new");
    assert_eq!(response.headers["content-type"], "a/answer");
}

#[test]
fn headers_of_a_request_that_its_body_let_go_stay_the_guests() {
    let plugin = guest(
        "proxy_abi_version_0_2_100",
        r#"(func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
           (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 0))
           (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
               (call $value (call $get (i32.const 0) (i32.const 48) (i32.const 5) (i32.const 0) (i32.const 4)))
               (i32.const 0))"#,
    );
    let mut stream = stream(&plugin);
    let mut request = post();
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Hold));
    assert!(matches!(stream.on_request_body(&mut Bytes::from_static(b"part"), true), Action::Continue));
    assert!(matches!(stream.take_request(&mut request), Action::Continue));
    let mut response = Response::new(()).into_parts().0;
    assert!(matches!(stream.on_response_headers(&mut response, true), Action::Continue));
    assert_eq!(told(&plugin), "/a/path/");
}

#[test]
fn headers_that_were_not_held_are_gone_with_their_callback() {
    let plugin = guest(
        "proxy_abi_version_0_2_1",
        r#"(func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
               (call $value (call $get (i32.const 0) (i32.const 48) (i32.const 5) (i32.const 0) (i32.const 4)))
               (i32.const 0))"#,
    );
    let mut stream = stream(&plugin);
    assert!(matches!(stream.on_request_headers(&mut post(), true), Action::Continue));
    let mut response = Response::new(()).into_parts().0;
    assert!(matches!(stream.on_response_headers(&mut response, true), Action::Continue));
    assert_eq!(told(&plugin), "\u{2}\0\0\0\0\0\0\0", "a bad argument, as in Envoy");
}

#[test]
fn request_has_its_properties_in_whichever_callback_a_guest_has() {
    let plugin = guest(
        "proxy_abi_version_0_2_1",
        r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
               (call $value (call $property (i32.const 80) (i32.const 14) (i32.const 0) (i32.const 4)))
               (i32.const 0))"#,
    );
    let mut stream = stream(&plugin);
    assert!(matches!(stream.on_request_headers(&mut post(), false), Action::Continue));
    assert!(matches!(stream.on_request_body(&mut Bytes::from_static(b"part"), true), Action::Continue));
    assert_eq!(told(&plugin), "POST\0\0\0\0");
}

#[test]
fn part_that_is_forgotten_takes_nothing_with_it_that_was_buffered() {
    let passed = |script: &[u8]| {
        let mut stream = stream(&configured("scripted", script));
        let mut parts = Vec::new();
        assert!(matches!(stream.on_request_headers(&mut post(), false), Action::Continue));
        for (part, end) in [("one", false), ("two", false), ("", true)] {
            let mut chunk = Bytes::from_static(part.as_bytes());
            assert!(matches!(stream.on_request_body(&mut chunk, end), Action::Continue));
            parts.extend_from_slice(&chunk);
        }
        String::from_utf8(parts).unwrap()
    };
    // The order of Envoy: bytes that come while the buffer is shown are in it before the guest answers.
    assert_eq!(passed(&[0, 1, 1, 3]), "onetwo");
    assert_eq!(passed(&[0, 1, 3, 0]), "onetwo");
    assert_eq!(passed(&[0, 2, 3, 0]), "one");
    assert_eq!(passed(&[0, 3, 1, 0]), "two");
    assert_eq!(passed(&[0, 2, 1, 0]), "onetwo");
}

/// Buffers a request, asks about it when it has ended, which it answers with 3, and continues it in the
/// reply.
const ASKS_AT_THE_END: &str = r#"(module
    (import "env" "proxy_http_call"
        (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_body") (param i32 i32) (param $end i32) (result i32)
        (if (i32.eqz (local.get $end)) (then (return (i32.const 1))))
        (drop (call $call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
            (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))
        (i32.const 3))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        (drop (call $continue (i32.const 0)))))"#;

#[test]
fn buffered_request_whose_end_waits_for_a_call_out_goes_on_whole() {
    let engine = Engine::new().unwrap().0;
    let (plugin, outside) = calling(&engine, ASKS_AT_THE_END);
    let mut stream = stream(&plugin);
    assert!(matches!(stream.on_request_headers(&mut post(), false), Action::Continue));
    for part in ["one", "two"] {
        let mut chunk = Bytes::from_static(part.as_bytes());
        assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue));
        assert!(chunk.is_empty());
    }
    let mut end = Bytes::new();
    assert!(matches!(stream.on_request_body(&mut end, true), Action::Pending));
    let reply = outside.http.lock().unwrap().pop().unwrap();
    reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
    assert_eq!(stream.poll_request(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    assert!(matches!(stream.on_request_body(&mut end, true), Action::Continue));
    assert_eq!(&end[..], b"onetwo");
}

/// Holds headers and bodies until the reply to a call-out, which it makes with the last part of a body or, if
/// `ASKS` is 0, with each other.
const HOLDS_BOTH: &str = r#"(module
    (import "env" "proxy_http_call"
        (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
    (import "env" "proxy_set_effective_context" (func $become (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "auth")
    (data (i32.const 200) "\03\00\00\00\07\00\00\00\03\00\00\00\05\00\00\00\01\00\00\00\0a\00\00\00\01\00\00\00:method\00GET\00:path\00/\00:authority\00a\00")
    (global $held (mut i32) (i32.const 0))
    (func $hold (param $direction i32) (param $end i32) (result i32)
        (global.set $held (local.get $direction))
        (if (i32.eq (local.get $end) (i32.const ASKS))
            (then (drop (call $call (i32.const 100) (i32.const 4) (i32.const 200) (i32.const 61)
                (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 1000) (i32.const 0)))))
        (i32.const 1))
    (func (export "proxy_abi_version_0_2_100"))
    (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (call $hold (i32.const 0) (local.get 2)))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (call $hold (i32.const 1) (local.get 2)))
    (func (export "proxy_on_http_call_response") (param i32 i32 i32 i32 i32)
        (drop (call $become (i32.const 2)))
        (drop (call $continue (global.get $held)))))"#;

#[test]
fn body_that_is_held_with_its_headers_is_shown_once() {
    for asks in ["1", "0"] {
        let (plugin, outside) = calling(&Engine::new().unwrap().0, &HOLDS_BOTH.replace("ASKS", asks));
        let mut stream = stream(&plugin);
        let reply = || {
            let reply = outside.http.lock().unwrap().pop().unwrap();
            reply.send(Ok(HttpCallResponse::new(Response::new(Bytes::new()), HeaderMap::new())));
        };
        let (mut parts, mut cx) = (post(), Context::from_waker(Waker::noop()));
        let (mut chunk, mut end) = (Bytes::from_static(b"hello"), Bytes::new());
        assert!(matches!(stream.on_request_headers(&mut parts, false), Action::Hold));
        assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue));
        assert!(matches!(stream.on_request_body(&mut end, true), Action::Pending));
        reply();
        assert_eq!(stream.poll_request(&mut cx), Poll::Ready(()));
        assert!(matches!(stream.on_request_body(&mut end, true), Action::Continue), "asks at {asks}");
        assert!(matches!(stream.take_request(&mut parts), Action::Continue));
        assert_eq!((&chunk[..], &end[..]), (&b""[..], &b"hello"[..]), "asks at {asks}");

        let mut parts = Response::new(()).into_parts().0;
        let (mut chunk, mut end) = (Bytes::from_static(b"hello"), Bytes::new());
        assert!(matches!(stream.on_response_headers(&mut parts, false), Action::Hold));
        assert!(matches!(stream.on_response_body(&mut chunk, false), Action::Continue));
        assert!(matches!(stream.on_response_body(&mut end, true), Action::Pending));
        reply();
        assert_eq!(stream.poll_response(&mut cx), Poll::Ready(()));
        assert!(matches!(stream.on_response_body(&mut end, true), Action::Continue), "asks at {asks}");
        assert!(matches!(stream.take_response(&mut parts), Action::Continue));
        assert_eq!((&chunk[..], &end[..]), (&b""[..], &b"hello"[..]), "asks at {asks}");
    }
}

#[test]
fn message_that_is_continued_in_the_callback_that_holds_it_goes_on() {
    // Both messages, in the callbacks of their headers and of their bodies.
    let script = [0x21, 0x21, 0x41, 0x41];
    let request = Request::post("/").header("host", "h").version(http::Version::HTTP_2);
    let response = Response::builder().version(http::Version::HTTP_2);
    let seen = exchange(
        [configured("scripted", &script)],
        request.body(frames([data("hello")])).unwrap(),
        response.body(frames([data("hello")])).unwrap(),
    );
    assert_eq!(seen.request_body.as_deref(), Ok(&b"hello"[..]));
    assert_eq!((seen.status(), seen.text()), (200, "hello"));
}

#[test]
fn headers_before_another_protocol_are_not_the_end_of_a_stream() {
    let shown = |upgrade: bool| {
        let plugin = guest(
            "proxy_abi_version_0_2_1",
            r#"(global $ends (mut i64) (i64.const 0x3030303030303030))
               (func $end (param i32) (result i32)
                   (global.set $ends (i64.add (global.get $ends) (i64.extend_i32_u (local.get 0))))
                   (call $tell (global.get $ends))
                   (i32.const 0))
               (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                   (call $end (local.get 2)))
               (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32)
                   (call $end (local.get 2)))"#,
        );
        let info = StreamInfo::default().with_upgrade(upgrade);
        let mut stream = StreamContext::new([plugin.clone()].into(), info);
        let response = Response::builder().status(if upgrade { 101 } else { 204 });
        let mut response = response.body(()).unwrap().into_parts().0;
        assert!(matches!(stream.on_request_headers(&mut post(), true), Action::Continue));
        assert!(matches!(stream.on_response_headers(&mut response, true), Action::Continue));
        told(&plugin)
    };
    assert_eq!((shown(true), shown(false)), ("00000000".to_owned(), "20000000".to_owned()));
}

#[test]
fn what_a_guest_has_set_is_found_in_the_state_of_filters() {
    for (path, found) in [("wasm.auth.userid", "identity"), ("auth.userid", "\u{1}\0\0\0\0\0\0\0")] {
        let plugin = guest(
            "proxy_abi_version_0_2_1",
            &format!(
                r#"(data (i32.const 128) "auth.userid")
                   (data (i32.const 144) "identity")
                   (data (i32.const 160) "filter_state\00{path}")
                   (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                       (drop (call $set (i32.const 128) (i32.const 11) (i32.const 144) (i32.const 8)))
                       (call $value (call $property (i32.const 160) (i32.const {}) (i32.const 0) (i32.const 4)))
                       (i32.const 0))"#,
                "filter_state/".len() + path.len()
            ),
        );
        assert!(matches!(stream(&plugin).on_request_headers(&mut post(), true), Action::Continue));
        assert_eq!(told(&plugin), found, "{path}");
    }
}

/// Judges a request's headers by `verdict`, and holds its body to its end, of which it may hold so many
/// bytes, as its sandbox and as it has said itself.
fn holding(verdict: u32, sandbox: usize, said: &str) -> Plugin {
    let text = format!(
        r#"(module
        (import "env" "proxy_set_property" (func $set (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 100) "set_decoder_buffer_limit")
        (data (i32.const 200) "{said}")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $set (i32.const 100) (i32.const 24) (i32.const 200) (i32.const {})))
            (i32.const {verdict}))
        (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.eqz (local.get 2))))"#,
        said.len()
    );
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |config| {
        config.sandbox.max_buffered_body = sandbox;
    });
    plugin.unwrap()
}

#[test]
fn plugin_holds_as_much_of_a_body_as_it_says_and_its_sandbox_lets_it() {
    for (sandbox, said, status) in [
        (10, "5", 413),
        (10, "6", 200),
        (5, "10", 413),
        (10, "99999999999999999999", 200),
        (5, "x", 413),
        (10, "x", 200),
    ] {
        let request =
            Request::post("/").header("host", "h").body(frames([data("abc"), data("def")])).unwrap();
        let seen = exchange([holding(0, sandbox, said)], request, Response::new(frames([])));
        assert_eq!(seen.status(), status, "{sandbox} {said}");
    }
}

#[test]
fn plugin_that_holds_headers_and_buffers_has_a_body_refused_that_is_longer_than_it_says() {
    for (sandbox, said, refused) in [(10, "5", Some(413)), (10, "6", None), (5, "10", Some(413))] {
        let inner = service_fn(async |_: Request<RequestBody<Frames>>| {
            Ok::<_, std::convert::Infallible>(Response::new(frames([])))
        });
        let service = WasmLayer::new([holding(3, sandbox, said)]).layer(inner);
        let request =
            Request::post("/").header("host", "h").body(frames([data("abc"), data("def")])).unwrap();
        let early = service.oneshot(request).now_or_never();
        let status = early.map(|response| response.unwrap().status().as_u16());
        assert_eq!(status, refused, "{sandbox} {said}");
    }
}
