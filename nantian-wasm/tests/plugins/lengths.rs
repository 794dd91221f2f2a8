//! Content-lengths of bodies whose plugins make them longer or shorter: what leaves is right, or says nothing.

use http::{Request, Response};
use http_body_util::Limited;
use nantian_wasm::{Engine, RequestBody, WasmLayer};
use tower::{Layer as _, ServiceExt as _, service_fn};

use crate::support::{Frames, Seen, configured, data, exchange, frames, get, plugin_of, send};

const TRAP: &str = r#"(module
    (memory (export "memory") 1)
    (func (export "proxy_abi_version_0_2_1"))
    (func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) unreachable))"#;

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
    let trap = plugin_of(&Engine::new().unwrap(), &wat::parse_str(TRAP).unwrap(), |_| {}).unwrap();
    let response = Response::builder().header("content-length", "5").body(frames([data("hello")]));
    let seen = exchange([trap], get("/"), response.unwrap());
    assert_eq!((seen.status(), seen.response_header("content-length")), (200, Some("5")));
    assert!(seen.body.is_err());
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
