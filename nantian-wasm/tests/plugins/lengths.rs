//! Content-lengths of bodies whose plugins make them longer or shorter: what leaves is right, or says
//! nothing.

use http::{Request, Response};
use http_body_util::Limited;
use nantian_wasm::{Action, Engine, StreamContext, StreamInfo, WasmLayer, body::RequestBody};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{
    Frames, Seen, configured, data, exchange, frames, get, plugin_of, send, ticks_with_logs,
};

const TRAP: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) unreachable))"#;

/// Makes responses that have no content in the callbacks that `HEADERS` and `BODY` stand for.
const EMPTYING: &str = r#"(module
    (import "env" "proxy_replace_header_map_value" (func $replace (param i32 i32 i32 i32 i32) (result i32)))
    (import "env" "proxy_send_local_response"
        (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 16) ":statusSTATUS")
    (data (i32.const 32) "content-length0")
    (func (export "proxy_abi_version_0_2_100"))
    (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 1024))
    (func $status
        (drop (call $replace (i32.const 2) (i32.const 16) (i32.const 7) (i32.const 23) (i32.const 3))))
    (func $length
        (drop (call $replace (i32.const 2) (i32.const 32) (i32.const 14) (i32.const 46) (i32.const 1))))
    (func $answer
        (drop (call $send_local_response (i32.const STATUS) (i32.const 0) (i32.const 0)
            (i32.const 32) (i32.const 14) (i32.const 0) (i32.const 0) (i32.const -1))))
    (func (export "proxy_on_response_headers") (param i32 i32 i32) (result i32) HEADERS)
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) BODY))"#;

/// Sends these parts both ways past the guest, announced by their length.
fn resized(configuration: &str, parts: &[&'static str]) -> Seen {
    let length = parts.concat().len();
    let body = || frames(parts.iter().map(|part| data(part)));
    let request = Request::post("/").header("content-length", length).body(body()).unwrap();
    let response = Response::builder().header("content-length", length).body(body()).unwrap();
    exchange([configured("resize", configuration.as_bytes())], request, response)
}

/// Both bodies and both lengths, which are the same.
fn both<'a>(seen: &'a Seen, name: &str) -> (&'a str, Option<&'a str>) {
    let request = std::str::from_utf8(seen.request_body.as_ref().unwrap()).unwrap();
    assert_eq!((request, seen.request_header(name)), (seen.text(), seen.response_header(name)));
    (seen.text(), seen.response_header(name))
}

#[test]
fn the_core_announces_no_length_of_a_body_that_plugins_may_change() {
    let lengths = |guest: &str, is_over: bool| {
        let mut stream = StreamContext::new([configured(guest, b"pklonger")].into(), StreamInfo::default());
        let (mut request, ()) = Request::post("/").header("content-length", 5).body(()).unwrap().into_parts();
        let (mut response, ()) =
            Response::builder().header("content-length", 5).body(()).unwrap().into_parts();
        assert!(matches!(stream.on_request_headers(&mut request, is_over), Action::Continue));
        assert!(matches!(stream.on_response_headers(&mut response, is_over), Action::Continue));
        [request.headers, response.headers].map(|headers| headers.contains_key("content-length"))
    };
    assert_eq!(lengths("resize", false), [false; 2]);
    assert_eq!(lengths("resize", true), [true; 2], "as of a response to HEAD");
    assert_eq!(lengths("add_header", false), [true; 2], "nobody looks at the body");
}

#[test]
fn length_of_a_body_that_passes_whole_is_what_plugins_made_it() {
    for (configuration, text) in [("pklonger text", "longer text"), ("pkx", "x"), ("pk", ""), ("nk", "hello")]
    {
        let seen = resized(configuration, &["hello"]);
        assert_eq!(both(&seen, "content-length"), (text, Some(text.len().to_string().as_str())));
    }
}

#[test]
fn length_of_a_body_that_is_held_to_its_end_is_what_plugins_made_it() {
    let seen = resized("wkjudged", &["one", "two", "three"]);
    assert_eq!(both(&seen, "content-length"), ("judged", Some("6")));
}

#[test]
fn length_of_a_body_that_changes_part_by_part_is_not_announced() {
    let seen = resized("pkpart ", &["one", "two", "three"]);
    assert_eq!(both(&seen, "content-length"), ("part part part ", None));
}

#[test]
fn length_of_a_body_that_nobody_changes_stays() {
    assert_eq!(both(&resized("nk", &["one", "two"]), "content-length"), ("onetwo", Some("6")));
}

#[test]
fn length_that_a_guest_writes_stands_for_the_right_one() {
    assert_eq!(both(&resized("nsunused", &["hello"]), "content-length"), ("hello", Some("5")));
    assert_eq!(both(&resized("ps??", &["hello"]), "content-length"), ("??", Some("2")));
    assert_eq!(both(&resized("psmore", &["hello"]), "content-length"), ("more", Some("4")));
    assert_eq!(both(&resized("es!!", &["one", "two"]), "content-length"), ("onetwo!!", None));
    let unannounced = exchange(
        [configured("resize", b"ws??")],
        Request::post("/").body(frames([data("one"), data("two")])).unwrap(),
        Response::new(frames([data("one"), data("two")])),
    );
    assert_eq!(both(&unannounced, "content-length"), ("??", Some("2")));
}

#[test]
fn body_that_changes_when_its_length_has_left_breaks_off() {
    let response = || {
        let body = frames([data("one"), data("two")]);
        Response::builder().header("content-length", "6").body(body).unwrap()
    };
    let seen = exchange([configured("resize", b"ekand more")], get("/"), response());
    assert_eq!((seen.status(), seen.response_header("content-length")), (200, Some("6")));
    assert_eq!(seen.body.unwrap_err(), "plugins made 14 bytes of a body whose content-length is 6");
}

#[test]
fn response_that_its_plugin_ends_early_keeps_the_length_it_does_not_come_to() {
    let trap = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(TRAP).unwrap(), |_| {}).unwrap();
    let response = Response::builder().header("content-length", "5").body(frames([data("hello")]));
    let seen = exchange([trap], get("/"), response.unwrap());
    assert_eq!((seen.status(), seen.response_header("content-length")), (200, Some("5")));
    assert!(seen.body.is_err());
}

#[test]
fn response_whose_end_a_plugin_spoils_breaks_off_however_long_the_plugin_takes() {
    for (then, lines) in
        [("unreachable", 0), ("unreachable", 2), ("(call $answer)", 0), ("(call $answer)", 2)]
    {
        let text = format!(
            r#"(module
              (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
              (import "env" "proxy_send_local_response"
                (func $send_local_response (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
              (memory (export "memory") 1)
              (func (export "proxy_abi_version_0_2_1"))
              (func $answer
                (drop (call $send_local_response (i32.const 403) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const -1))))
              (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32)
                (if (local.get 2) (then
                    (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
                    (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1)))
                    {then}))
                (i32.const 0)))"#
        );
        let engine = Engine::new().unwrap().0;
        let plugin = plugin_of(&engine, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
        let response =
            Response::builder().header("content-length", "5").body(frames([data("hello")])).unwrap();
        let seen = tracing::subscriber::with_default(ticks_with_logs(engine, lines), || {
            exchange([plugin], get("/"), response)
        });
        assert_eq!(
            (seen.status(), seen.response_header("content-length")),
            (200, Some("5")),
            "{then} {lines}"
        );
        assert!(seen.body.is_err(), "{then} {lines}");
    }
}

#[test]
fn request_that_breaks_off_does_not_become_a_whole_one() {
    let inner = service_fn(async |request: Request<RequestBody<Limited<Frames>>>| {
        assert_eq!(request.headers()["content-length"], "9");
        let broken = http_body_util::BodyExt::collect(request.into_body()).await.is_err();
        Ok::<_, std::convert::Infallible>(Response::new(frames([data(if broken {
            "broken"
        } else {
            "whole"
        })])))
    });
    let service = WasmLayer::new([configured("resize", b"nk")]).layer(inner);
    let body = Limited::new(frames([data("far too long")]), 3);
    let request = Request::post("/").header("content-length", "9").body(body).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let body = runtime.block_on(async {
        let response = service.oneshot(request).await.unwrap();
        http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes()
    });
    assert_eq!(body, "broken");
}

#[test]
fn response_without_content_has_no_length_of_one() {
    let made = |status: &str| {
        let mut write = b"r2\x07:status".to_vec();
        write.extend_from_slice(status.as_bytes());
        let response = Response::builder().header("content-length", "5").body(frames([data("hello")]));
        exchange([configured("write_header", &write)], get("/"), response.unwrap())
    };
    for (status, length) in [("204", None), ("304", None), ("201", Some("5"))] {
        let seen = made(status);
        assert_eq!(
            (seen.status().to_string().as_str(), seen.response_header("content-length")),
            (status, length)
        );
    }
    let unmodified = Response::builder().status(304).header("content-length", "5").body(frames([])).unwrap();
    let seen = exchange([configured("resize", b"nk")], get("/"), unmodified);
    assert_eq!(seen.response_header("content-length"), Some("5"), "the length of what has not changed");
    assert_eq!(send([configured("resize", b"pkx")], get("/")).text(), "x");
}

/// What a guest makes of a response with a content-length of 5.
fn emptied(status: &str, headers: &str, body: &str, (found, frames): (u16, Frames)) -> Seen {
    let text = EMPTYING.replace("STATUS", status).replace("HEADERS", headers).replace("BODY", body);
    let plugin = plugin_of(&Engine::new().unwrap().0, &wat::parse_str(text).unwrap(), |_| {}).unwrap();
    let response = Response::builder().status(found).header("content-length", "5").body(frames);
    exchange([plugin], get("/"), response.unwrap())
}

#[test]
fn response_that_a_plugin_makes_one_without_content_has_none_wherever_it_does_so() {
    let (goes_on, stops) = ("(i32.const 0)", "(i32.const 1)");
    for status in ["204", "304"] {
        for (headers, body) in [
            ("(call $status) (i32.const 0)", goes_on),
            ("(call $status) (call $length) (i32.const 0)", goes_on),
            (stops, "(call $status) (i32.const 0)"),
            (stops, "(call $status) (call $length) (i32.const 0)"),
            ("(call $answer) (i32.const 1)", goes_on),
            (stops, "(call $answer) (i32.const 1)"),
        ] {
            let seen = emptied(status, headers, body, (200, frames([data("hello")])));
            let case = format!("{status} by {headers} and {body}");
            assert_eq!(seen.status().to_string(), status, "{case}");
            assert_eq!((seen.response_header("content-length"), seen.text()), (None, ""), "{case}");
        }
    }
}

#[test]
fn length_of_what_has_not_changed_is_not_that_of_the_body_that_its_plugin_sees() {
    for headers in ["(i32.const 0)", "(i32.const 1)"] {
        let seen = emptied("304", headers, "(i32.const 0)", (304, frames([]).coy()));
        assert_eq!((seen.status(), seen.response_header("content-length")), (304, Some("5")));
    }
}
