//! What a plugin refuses is refused, although it fails open: clients could make a guest refuse badly or late.

use bytes::Bytes;
use http::{Request, Response};
use nantian_wasm::{Cause, Engine, Failure, FailurePolicy, Plugin, PluginConfig};

use crate::support::{Seen, data, exchange, frames, guest, plugin_of};

fn open(bytes: &[u8], change: impl FnOnce(&mut PluginConfig)) -> Plugin {
    let plugin = plugin_of(&Engine::new().unwrap().0, bytes, |config| {
        config.failure_policy = FailurePolicy::FailOpen;
        change(config);
    });
    plugin.unwrap()
}

/// A guest that answers 403 in a callback, with a body of so many bytes and this block of headers, and does
/// this then.
fn refusing(callback: &str, body: u32, block: (u32, u32), then: &str) -> Plugin {
    let text = format!(
        r#"(module
          (import "env" "proxy_send_local_response"
            (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (memory (export "memory") 40)
          (data (i32.const 500) "\01\00\00\00\03\00\00\00\09\00\00\00x-a\00a\0d\0ax-b: 1\00")
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "{callback}") (param i32 i32 i32) (result i32)
            (drop (call $respond (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 70000) (i32.const {body})
              (i32.const {}) (i32.const {}) (i32.const -1)))
            {then}
            (i32.const 0)))"#,
        block.0, block.1
    );
    open(&wat::parse_str(text).unwrap(), |_| {})
}

fn sent(plugin: &Plugin) -> Seen {
    let request = Request::post("/").header("host", "example.com").body(frames([data("body")])).unwrap();
    exchange([plugin.clone()], request, Response::new(frames([data("secret")])))
}

const HEADERS: &str = "proxy_on_request_headers";

#[test]
fn answer_that_is_no_response_lets_nothing_pass() {
    // A header that splits the response, a body and headers of more than an answer may have.
    for (body, block) in [(0, (500, 26)), ((1 << 20) + 1, (0, 0)), (0, (70_000, 70_000))] {
        let plugin = refusing(HEADERS, body, block, "");
        let seen = sent(&plugin);
        assert_eq!((seen.status(), seen.request.is_none()), (502, true), "{body} {block:?}");
        let told = seen.response.extensions().get::<Failure>().map(|failure| &failure.cause);
        assert!(matches!(told, Some(Cause::InvalidAnswer { .. })), "who is outside of the layer can tell");
        let status = plugin.status();
        assert!(matches!(status.last_failure.unwrap().cause, Cause::InvalidAnswer { .. }));
        assert_eq!((status.traps.total(), status.live_instances), (0, 1), "the guest lives on");
    }
}

#[test]
fn answer_to_head_says_how_long_it_would_be_and_has_no_body() {
    for (callback, reaches) in [(HEADERS, false), ("proxy_on_response_headers", true)] {
        let request = Request::head("/").header("host", "example.com").body(frames([])).unwrap();
        let response = Response::builder().header("content-length", "5").body(frames([])).unwrap();
        let seen = exchange([refusing(callback, 9, (0, 0), "")], request, response);
        assert_eq!((seen.status(), seen.request.is_some()), (403, reaches));
        assert_eq!((seen.response_header("content-length"), seen.text()), (Some("9"), ""), "{callback}");
    }
}

#[test]
fn answer_of_a_guest_that_traps_afterwards_stands() {
    let plugin = refusing(HEADERS, 0, (0, 0), "unreachable");
    let seen = sent(&plugin);
    assert_eq!((seen.status(), seen.request.is_none()), (403, true));
    assert_eq!(plugin.status().traps.trap, 1);
    let plugin = refusing(HEADERS, 0, (500, 26), "unreachable");
    assert_eq!(
        (sent(&plugin).status(), sent(&plugin).request.is_some()),
        (503, true),
        "badly, and then without it"
    );
}

/// A guest that writes a header that is no HTTP, and does this then.
fn spoiling(then: &str) -> Plugin {
    let text = format!(
        r#"(module
          (import "env" "proxy_add_header_map_value" (func $add (param i32 i32 i32 i32 i32) (result i32)))
          (import "env" "proxy_send_local_response"
            (func $respond (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
          (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
          (memory (export "memory") 1)
          (data (i32.const 500) "\01\00\00\00\03\00\00\00\09\00\00\00x-a\00a\0d\0ax-b: 1\00")
          (data (i32.const 600) "x-reason")
          (data (i32.const 620) "a\0d\0ab")
          (func $answer (param $block i32) (param $size i32)
            (drop (call $respond (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
              (local.get $block) (local.get $size) (i32.const -1))))
          (func (export "proxy_abi_version_0_2_1"))
          (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (drop (call $add (i32.const 0) (i32.const 600) (i32.const 8) (i32.const 620) (i32.const 4)))
            {then}
            (i32.const 0)))"#
    );
    open(&wat::parse_str(text).unwrap(), |_| {})
}

#[test]
fn refusal_of_a_guest_that_has_written_a_bad_header_before_stands() {
    let only_spoiled = sent(&spoiling(""));
    assert_eq!((only_spoiled.status(), only_spoiled.request.is_some()), (200, true));
    let rows = [
        ("(call $answer (i32.const 0) (i32.const 0))", 403),
        ("(call $answer (i32.const 500) (i32.const 26))", 502),
        ("(drop (call $close (i32.const 0)))", 503),
    ];
    for (then, status) in rows {
        let seen = sent(&spoiling(then));
        assert_eq!((seen.status(), seen.request.is_none()), (status, true), "{then}");
    }
}

#[test]
fn answer_behind_the_headers_of_the_response_breaks_the_body_off() {
    for then in ["", "unreachable"] {
        let plugin = refusing("proxy_on_response_body", 0, (0, 0), then);
        let seen = sent(&plugin);
        assert!(seen.body.is_err(), "{then}: {:?}", seen.body);
        assert_eq!(plugin.status().last_failure.unwrap().cause, Cause::LateAnswer);
    }
}

#[test]
fn body_too_large_to_be_held_is_not_passed_unjudged() {
    let small = || {
        open(&guest("body"), |config| {
            config.configuration = Bytes::from_static(b"h");
            config.sandbox.max_buffered_body = 5;
        })
    };
    let request = Request::post("/").header("host", "example.com").body(frames([data("four"), data("four")]));
    let seen = exchange([small()], request.unwrap(), Response::new(frames([])));
    assert_eq!((seen.status(), seen.request_body.is_err()), (413, true));
    let request = Request::get("/").header("host", "example.com").body(frames([])).unwrap();
    let seen = exchange([small()], request, Response::new(frames([data("four"), data("four")])));
    assert!(seen.body.is_err());
}
