//! Bodies as they pass: by part, held back, replaced, broken off.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full};
use nantian_wasm::{Action, Engine, FailurePolicy, Hooks, Plugin, StreamContext, StreamInfo};
use proptest::prelude::*;

use crate::support::{
    Frames, Seen, Ticking, configured, data, exchange, frames, get, guest, plugin, plugin_of,
};

fn post(parts: impl IntoIterator<Item = Frame<Bytes>>) -> Request<Frames> {
    Request::post("/").header("host", "example.com").body(frames(parts)).unwrap()
}

fn trailers() -> Frame<Bytes> {
    Frame::trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]))
}

fn both_ways(how: &str, parts: &[&'static str]) -> (Plugin, Seen) {
    let plugin = configured("body", how.as_bytes());
    let body = || parts.iter().map(|part| data(part)).collect::<Vec<_>>();
    let seen = exchange([plugin.clone()], post(body()), Response::new(frames(body())));
    (plugin, seen)
}

fn metric(plugin: &Plugin, name: &str) -> u64 {
    plugin.status().metrics.iter().find(|metric| metric.name == name).unwrap().value
}

#[test]
fn every_part_passes_the_guest_and_the_end_comes_by_itself() {
    let (plugin, seen) = both_ways("a", &["one", "two"]);
    assert_eq!(seen.request_body.as_deref(), Ok(&b"one!two!!"[..]));
    assert_eq!(seen.text(), "one!two!!");
    assert_eq!((metric(&plugin, "request-parts"), metric(&plugin, "request-ends")), (3, 1));
    assert_eq!((metric(&plugin, "response-parts"), metric(&plugin, "response-ends")), (3, 1));
}

#[test]
fn body_held_back_to_its_end_is_released_whole() {
    let (plugin, seen) = both_ways("h", &["one", "two", "three"]);
    assert_eq!(seen.request_body.as_deref(), Ok(&b"onetwothree"[..]));
    assert_eq!(seen.text(), "onetwothree");
    assert_eq!(metric(&plugin, "request-parts"), 4);
}

#[test]
fn parts_can_be_replaced_or_discarded() {
    assert_eq!(both_ways("r", &["one", "two"]).1.text(), "replacedreplaced");
    let (_, seen) = both_ways("d", &["one", "two"]);
    assert_eq!((seen.request_body.as_deref(), seen.text()), (Ok(&b""[..]), ""));
}

#[test]
fn message_without_a_body_has_no_body_callback() {
    let plugin = configured("body", b"a");
    let head = Request::builder().method(Method::HEAD).uri("/").body(frames([])).unwrap();
    let response = Response::builder().header("content-length", "5").body(frames([]).coy()).unwrap();
    let seen = exchange([plugin.clone()], head, response);
    assert_eq!((seen.request_body.as_deref(), seen.text()), (Ok(&b""[..]), ""));
    assert_eq!((metric(&plugin, "request-parts"), metric(&plugin, "response-parts")), (0, 0));

    let seen = exchange([plugin.clone()], get("/"), Response::new(frames([]).coy()));
    assert_eq!(
        (seen.text(), metric(&plugin, "response-ends")),
        ("!", 1),
        "what might have had a body ends in one"
    );
}

/// A guest that holds bodies at their end and never lets them go, on an engine whose clock runs.
fn holder(failure_policy: FailurePolicy) -> (Ticking, Plugin) {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &guest("body"), |config| {
        config.configuration = Bytes::from_static(b"p");
        config.failure_policy = failure_policy;
        config.sandbox.max_pause = Duration::from_millis(50);
    });
    (Ticking::with_upkeep(&engine), plugin.unwrap())
}

#[test]
fn pause_at_the_end_that_nobody_ends_is_a_failure_when_its_time_is_over() {
    let (_kept, plugin) = holder(FailurePolicy::FailClosed);
    let seen = exchange([plugin.clone()], post([data("one")]), Response::new(frames([data("one")])));
    assert_eq!((seen.status(), seen.text()), (503, ""));
    assert!(seen.request_body.is_err());
    let seen = exchange([plugin], get("/"), Response::new(frames([data("late")])));
    assert_eq!((seen.status(), seen.body.is_err()), (200, true), "headers have left, so the body breaks off");
}

#[test]
fn pause_of_a_plugin_that_fails_open_lets_the_body_go() {
    let (_kept, open) = holder(FailurePolicy::FailOpen);
    let seen = exchange([open], post([data("one"), data("two")]), Response::new(frames([data("three")])));
    assert_eq!(seen.request_body.as_deref(), Ok(&b"onetwo"[..]));
    assert_eq!((seen.status(), seen.text()), (200, "three"));
}

#[test]
fn body_larger_than_may_be_held_is_refused_with_413() {
    let small = || {
        plugin("body", |config| {
            config.configuration = Bytes::from_static(b"h");
            config.sandbox.max_buffered_body = 5;
        })
    };
    let seen = exchange([small()], post([data("four"), data("four")]), Response::new(frames([])));
    assert_eq!((seen.status(), seen.text()), (413, "Payload Too Large"));
    let seen = exchange([small()], get("/"), Response::new(frames([data("four"), data("four")])));
    assert_eq!((seen.status(), seen.body.is_err()), (200, true));
}

#[test]
fn body_that_outgrows_its_buffer_is_refused_whatever_the_guest_would_make_of_the_next_part() {
    // It continues, buffers, waits for more, discards, and answers.
    for verdict in [0, 1, 2, 3, 0x10] {
        let scripted = |script: &[u8]| {
            plugin("scripted", |config| {
                config.configuration = Bytes::copy_from_slice(script);
                config.sandbox.max_buffered_body = 5;
            })
        };
        let body = || [data("abc"), data("def")];
        let seen = exchange([scripted(&[0, 1, verdict])], post(body()), Response::new(frames([])));
        assert_eq!((seen.status(), seen.request_body.is_err()), (413, true), "{verdict}");
        let response = Response::new(frames(body()));
        let seen = exchange([scripted(&[0, 0, 1, verdict])], get("/"), response);
        assert_eq!((seen.status(), seen.body.is_err()), (200, true), "{verdict}");
    }
}

#[test]
fn guest_answers_when_it_has_seen_the_whole_request() {
    let (_, seen) = both_ways("e", &["one", "two"]);
    assert_eq!(
        (seen.status(), seen.body.is_err()),
        (403, true),
        "and cannot answer once more behind its own headers"
    );
    assert!(seen.request_body.is_err());
}

#[test]
fn content_length_stays_removed_where_the_guest_removed_it() {
    let sized = |how: &'static [u8], hooks| {
        let plugin = plugin("body", |config| {
            config.configuration = Bytes::from_static(how);
            config.hooks = hooks;
        });
        let response =
            Response::builder().header("content-length", "4").body(frames([data("four")])).unwrap();
        exchange([plugin], get("/"), response)
    };
    assert_eq!(sized(b"u", Hooks::ALL).response_header("content-length"), Some("4"));
    let removed = sized(b"a", Hooks::ALL);
    assert_eq!((removed.text(), removed.response_header("content-length")), ("four!!", None));
    let kept = sized(b"A", Hooks::ALL);
    assert_eq!((kept.text(), kept.response_header("content-length")), ("four!!", Some("6")));
}

#[test]
fn trailers_pass_the_guest_and_nothing_held_is_passed_by() {
    let response = |how| {
        let plugin = configured("body", how);
        let body = frames([data("one"), data("two"), trailers()]);
        let hooked = exchange([plugin.clone()], get("/"), Response::new(body));
        (plugin, hooked)
    };
    let (plugin, seen) = response(b"u");
    let passed = seen.trailers.as_ref().unwrap();
    assert_eq!(
        (seen.text(), &passed["x-sum"], &passed["x-guest"]),
        ("onetwo", &"1".parse().unwrap(), &"!".parse().unwrap())
    );
    assert_eq!((metric(&plugin, "response-ends"), metric(&plugin, "trailers")), (0, 1));

    let (plugin, seen) = response(b"h");
    assert_eq!((seen.text(), seen.trailers.is_some()), ("onetwo", true));
    assert_eq!(metric(&plugin, "response-ends"), 1, "a guest that waits for the end gets to see it");
}

#[test]
fn event_stream_passes_untouched_unless_its_hook_is_on() {
    let stream = |hooks| {
        let plugin = plugin("body", |config| {
            config.configuration = Bytes::from_static(b"a");
            config.hooks = hooks;
        });
        let response = Response::builder().header("content-type", "text/event-stream");
        let body = frames([data("data: 1\n\n"), data("data: 2\n\n")]);
        exchange([plugin], get("/"), response.body(body).unwrap())
    };
    let without = Hooks::ALL.with_on_stream_chunk(false);
    assert_eq!(stream(without).text(), "data: 1\n\ndata: 2\n\n");
    assert_eq!(stream(Hooks::ALL).text(), "data: 1\n\n!data: 2\n\n!!");
}

#[test]
fn local_answer_passes_body_callbacks_of_outer_plugins_in_one_part() {
    let outer = configured("body", b"a");
    let seen = exchange(
        [outer.clone(), plugin("add_header", |_| {})],
        get("/wasm-teapot"),
        Response::new(frames([])),
    );
    assert_eq!((seen.status(), seen.text()), (418, "short and stout\n!"));
    assert_eq!((metric(&outer, "response-parts"), metric(&outer, "response-ends")), (1, 1));
    assert_eq!(
        seen.response_header("content-length"),
        None,
        "its length is not known before the guest saw it"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_chunking_of_a_body_passes_an_observer_unchanged(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        holds: bool,
    ) {
        let plugin = configured("body", if holds { b"h" } else { b"u" });
        let body = || frames(parts.iter().map(|part| Frame::data(Bytes::copy_from_slice(part))));
        let seen = exchange([plugin], Request::post("/").body(body()).unwrap(), Response::new(body()));
        prop_assert_eq!(seen.request_body.unwrap(), parts.concat());
        prop_assert_eq!(seen.body.unwrap(), parts.concat());
    }
}

/// A guest that holds requests, and in the body of a response changes what it holds of both messages and
/// traps.
const SPOILS_BOTH: &str = r#"(module
    (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 100) "spoiled")
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_request_body") (param i32 i32 i32) (result i32) (i32.const 1))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
        (drop (call $set (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 100) (i32.const 7)))
        (drop (call $set (i32.const 1) (i32.const 0) (i32.const -1) (i32.const 100) (i32.const 7)))
        (unreachable)))"#;

#[test]
fn callback_that_fails_open_leaves_the_bodies_of_both_messages_as_they_were() {
    let engine = Engine::new().unwrap().0;
    let plugin = plugin_of(&engine, &wat::parse_str(SPOILS_BOTH).unwrap(), |config| {
        config.failure_policy = FailurePolicy::FailOpen;
    });
    let mut stream = StreamContext::new([plugin.unwrap()].into(), StreamInfo::default());
    let mut request = Request::new(()).into_parts().0;
    let mut response = Response::new(()).into_parts().0;
    let mut chunk = Bytes::from_static(b"abc");
    assert!(matches!(stream.on_request_headers(&mut request, false), Action::Continue));
    assert!(matches!(stream.on_request_body(&mut chunk, false), Action::Continue));
    assert!(chunk.is_empty(), "held");
    assert!(matches!(stream.on_response_headers(&mut response, false), Action::Continue));
    chunk = Bytes::from_static(b"xyz");
    assert!(matches!(stream.on_response_body(&mut chunk, true), Action::Continue));
    assert_eq!(&chunk[..], b"xyz");
    chunk = Bytes::from_static(b"def");
    assert!(matches!(stream.on_request_body(&mut chunk, true), Action::Continue));
    assert_eq!(&chunk[..], b"abcdef");
}

#[tokio::test]
async fn a_layer_around_can_answer_with_no_body() {
    let body = nantian_wasm::body::ResponseBody::<Full<Bytes>>::default();
    assert!(body.is_end_stream());
    assert_eq!(body.collect().await.unwrap().to_bytes(), "");
}
